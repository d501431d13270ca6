"""What the tags, classes and attributes of HTML mean to the extraction."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files


class Class:
    """What the classes of an element say: bits of an int. (Those of an enum cost a sixth of the whole extraction.)"""

    NOTHING = 0
    BOILERPLATE = 1
    LINE_NUMBERS = 2
    KATEX = 4
    KATEX_DISPLAY = 8
    MEDIAWIKI = 16
    TEX_ERROR = 32
    PREVIEW = 64  # MathJax 2: shown until the formula is set
    RENDERED = 128  # MathJax 2: the formula as it was set, beside its <script>
    WRAPPER = 256  # a formula between delimiters is all there is in it
    BARE = 512  # the same without delimiters
    DISPLAY = 1024
    IGNORE = 2048  # MathJax is told to pass over it
    PROCESS = 4096
    COPY = 8192  # a hidden copy of a formula for screen readers
    EXPRESSION = 16384  # its data-expr is the formula
    ANY_TAG = 32768  # BARE, whatever the tag


RENDERED = Class.KATEX | Class.KATEX_DISPLAY | Class.RENDERED | Class.MEDIAWIKI
MATH = RENDERED | Class.TEX_ERROR | Class.PREVIEW | Class.WRAPPER | Class.BARE

_MATH_CLASSES: dict[str, int] = {
    "katex": Class.KATEX,
    "katex-display": Class.KATEX_DISPLAY,
    "mwe-math-element": Class.MEDIAWIKI,
    "texerror": Class.TEX_ERROR,
    "mathjax_preview": Class.PREVIEW,
    **dict.fromkeys(("mathjax", "mathjax_svg", "mathjax_chtml", "mathjax_mathml", "mjx-chtml", "mathjax_processed"), Class.RENDERED),
    **dict.fromkeys(("mathjax_display", "mathjax_svg_display", "mjxc-display", "mathjax_mathml_display"), Class.RENDERED | Class.DISPLAY),
    "math": Class.WRAPPER | Class.BARE | Class.PROCESS,
    "arithmatex": Class.WRAPPER | Class.PROCESS,
    "process-math": Class.WRAPPER | Class.PROCESS,
    "mathjax_process": Class.PROCESS,
    "tex2jax_process": Class.PROCESS,
    **dict.fromkeys(("tex2jax_ignore", "mathjax_ignore", "ignore-math", "no-mathjax"), Class.IGNORE),
    "tex": Class.EXPRESSION,
    "wp-katex-eq": Class.WRAPPER | Class.BARE | Class.ANY_TAG,
    "math-container": Class.WRAPPER | Class.BARE | Class.ANY_TAG | Class.DISPLAY,
    "display": Class.DISPLAY,
    **dict.fromkeys(("katex-mathml", "mjx_assistive_mathml"), Class.COPY),
}


@functools.cache
def boilerplate() -> Mapping[str, tuple[str, ...]]:
    """The lists of boilerplate.toml."""
    lists = tomllib.loads(files(__package__).joinpath("boilerplate.toml").read_text(encoding="utf-8"))
    return {name: tuple(values) for name, values in lists.items()}


@functools.lru_cache(8192)
def class_meaning(classes: str) -> int:
    """What a class attribute says (pages repeat few of them, so the answer is kept)."""
    lists = _class_lists()
    meaning = Class.NOTHING
    lower = classes.lower()
    for name in lower.split():
        meaning |= lists.get(name, Class.NOTHING)
    if any(part in lower for part in boilerplate()["class_parts"]):
        meaning |= Class.BOILERPLATE
    return meaning


@functools.cache
def _class_lists() -> dict[str, int]:
    lists = dict(_MATH_CLASSES)
    lists |= dict.fromkeys(boilerplate()["classes"], Class.BOILERPLATE)
    lists |= dict.fromkeys(boilerplate()["line_numbers"], Class.LINE_NUMBERS)
    return lists


_SKIPPED = """
script style noscript iframe object embed svg canvas audio video select textarea input datalist head link meta title map area template annotation
annotation-xml option optgroup base source track param frame frameset noframes noembed mjx-assistive-mml rp progress meter
"""
SKIPPED = frozenset(_SKIPPED.split())
"""Nothing readable is in them (formulas in scripts are taken before)."""
BOILERPLATE_TAGS = frozenset(("nav", "footer", "aside", "button", "form", "menu"))
HEADINGS = {f"h{level}": level for level in range(1, 7)}
_PARAGRAPHS = """
p div section article main body header footer aside nav form blockquote figure figcaption dl ul ol menu table pre hr address center details
fieldset  hgroup search dialog h1 h2 h3 h4 h5 h6
"""
PARAGRAPHS = frozenset(_PARAGRAPHS.split())
"""Blocks that stand apart."""
BLOCKS = PARAGRAPHS | {"li", "dt", "dd", "tr", "caption", "summary", "legend", "thead", "tbody", "tfoot", "dir"}
CODE = frozenset(("code", "tt", "kbd", "samp"))
CONTAINERS = frozenset(("div", "ul", "ol", "menu", "dl"))
"""Dropped when nearly all of their text is links."""

HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def hidden(attributes: Mapping[str, str | None]) -> bool:
    """Whether an element says that it is not shown."""
    if "hidden" in attributes and attributes["hidden"] != "until-found":
        return True
    style = attributes.get("style")
    return style is not None and ("none" in style.lower() or "hidden" in style.lower()) and HIDDEN.search(style) is not None
