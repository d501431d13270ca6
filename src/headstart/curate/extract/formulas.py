"""The sources of formulas that are elements of a page (A2, sources 1 to 5), in the order in which they are asked.

Each function takes an element of the page and gives TeX (not yet normalised), whether it is displayed, and the name of the source; or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from headstart.curate.extract import asciimath, mathml, nodes
from headstart.curate.extract.delimiters import Delimiters, whole
from headstart.curate.extract.elements import Class, class_meaning
from headstart.curate.extract.tex import TEX_SIGN

Found = tuple[str, bool, str]
Tick = Callable[[], None]

BARE_TAGS = frozenset(("span", "dt-math", "d-math"))
"""Elements in which TeX may stand without delimiters."""
LEFT = re.compile(r"\\[(\[]|\$")
MAX_SOURCE = 20_000
"""Characters of a formula's source that are looked at; longer ones are refused by their length all the same."""


def of_math(math: Any, tick: Tick, source: str = "mathml") -> Found | None:
    """Source 1: a `<math>` element: its TeX annotation, alttext, data-latex, else converted."""
    attributes = math.attributes
    display = attributes.get("display") == "block" or attributes.get("mode") == "display"
    annotation = math.css_first("annotation[encoding]")
    if annotation is not None:
        for candidate in math.css("annotation[encoding]"):
            if (candidate.attributes.get("encoding") or "").lower() in ("application/x-tex", "tex", "latex", "text/x-tex", "application/x-latex"):
                tex = candidate.text() or ""
                if tex.strip():
                    return tex, display, source
    for name in ("alttext", "data-latex"):
        tex = attributes.get(name) or ""
        if tex.strip():
            return tex, display, source
    tex = mathml.to_tex(math, tick)
    return (tex, display, f"{source}-converted" if source == "mathml" else source) if tex.strip() else None


def of_mediawiki(element: Any, tick: Tick) -> Found | None:
    """Source 2: `.mwe-math-element`: the MathML, else the text of the fallback image. It is consumed whole, so that neither appears twice."""
    math = element.css_first("math")
    classes = element.attributes.get("class") or ""
    if math is not None and (found := of_math(math, tick, "mediawiki")) is not None:
        return found[0], found[1] or "mwe-math-element-block" in classes, "mediawiki"
    image = element.css_first("img[alt]")
    if image is None:
        return None
    display = "display" in (image.attributes.get("class") or "") or "mwe-math-element-block" in classes
    return image.attributes.get("alt") or "", display, "mediawiki"


def of_tex_error(element: Any) -> Found | None:
    """Source 2: `.texerror`: what stands inside the outermost braces of the message."""
    text = element.text() or ""
    left, right = text.find("{"), text.rfind("}")
    return (text[left + 1 : right], False, "mediawiki") if 0 <= left < right else None


def of_script(attributes: dict[str, str | None], script: Any, tick: Tick) -> Found | None:
    """Source 3: `<script type="math/..">` of MathJax 1 and 2."""
    kind = (attributes.get("type") or "").lower()
    if not kind.startswith("math/"):
        return None
    language, _, mode = kind.partition(";")
    text = script.text() or ""
    display = "display" in mode
    if language.strip() in ("math/tex", "math/latex"):
        return text.replace("% <![CDATA[", "").replace("%]]>", ""), display, "script"
    if language.strip() == "math/asciimath":
        return (asciimath.to_tex(text) if len(text) < MAX_SOURCE else text), display, "asciimath"
    if language.strip() == "math/mml":
        return of_fragment(text, tick, display)
    return None


def of_fragment(source: str, tick: Tick, display: bool) -> Found | None:
    """MathML that a page keeps as text: in a script, or MathJax 2's data-mathml."""
    if len(source) > MAX_SOURCE * 5:
        return None
    math = LexborHTMLParser(source).css_first("math")
    found = None if math is None else of_math(math, tick)
    return None if found is None else (found[0], found[1] or display, found[2])


def of_katex(element: Any, tick: Tick, display: bool) -> Found | None:
    """Source 4: `.katex`: the annotation; its visible half (.katex-html) is consumed with it."""
    math = element.css_first("math")
    found = None if math is None else of_math(math, tick)
    return None if found is None else (found[0], found[1] or display, "katex")


def of_mathjax(element: Any, tick: Tick) -> Found | None:
    """Source 5: `mjx-container` of MathJax 3 and 4: the outermost data-latex, else the assistive MathML."""
    display = (element.attributes.get("display") or "").lower() in ("true", "block")
    latex = element.css_first("mjx-math[data-latex],math[data-latex],svg[data-latex],g[data-latex]")
    if latex is not None and (tex := latex.attributes.get("data-latex") or "").strip():
        return tex, display, "mathjax"
    math = element.css_first("math")
    found = None if math is None else of_math(math, tick)
    return None if found is None else (found[0], found[1] or display, "mathjax")


def of_rendered(element: Any, attributes: dict[str, str | None], tick: Tick, display: bool) -> Found | None:
    """What MathJax 2 has set, when the script it was made from is gone: the MathML that it keeps for screen readers."""
    math = element.css_first("math")
    if math is not None:
        found = of_math(math, tick)
        return None if found is None else (found[0], found[1] or display, "mathjax")
    kept = attributes.get("data-mathml")
    if not kept and (inner := element.css_first("[data-mathml]")) is not None:
        kept = inner.attributes.get("data-mathml")
    found = of_fragment(kept, tick, display) if kept else None
    return None if found is None else (found[0], found[1], "mathjax")


def has_script(element: Any) -> bool:
    """Whether the script that a rendered formula was made from follows it."""
    sibling = element.next
    for _ in range(4):
        if sibling is None:
            return False
        if sibling.tag == "script":
            return (sibling.attributes.get("type") or "").startswith("math/")
        if sibling.tag not in ("-text", "-comment"):
            classes = sibling.attributes.get("class") or ""
            if not class_meaning(classes) & (Class.RENDERED | Class.PREVIEW):
                return False
        sibling = sibling.next
    return False


def of_wrapper(element: Any, attributes: dict[str, str | None], meaning: int, table: Delimiters, shown: bool) -> Found | None:
    """Source 7: an element whose whole text is one formula; None when it holds anything else, which is then read as ordinary text.

    Args:
        shown: the page shows MathJax, KaTeX or LaTeX; otherwise a word in an element of class `math` is a word.
    """
    expression = attributes.get("data-expr")
    if expression and meaning & Class.EXPRESSION:
        return expression, attributes.get("data-display") == "true", "element"
    text = nodes.only_text(element)
    if text is None or not text.strip():
        return None
    found = whole(text, table)
    if found is not None:
        return found[0], found[1], "element"
    bare = meaning & Class.BARE and (meaning & Class.ANY_TAG or element.tag in BARE_TAGS)
    if not bare or LEFT.search(text) or not (shown or TEX_SIGN.search(text)):
        return None
    return text, bool(meaning & Class.DISPLAY) or attributes.get("data-display") == "true" or "block" in attributes, "element"
