"""Presentation MathML as LaTeX, for formulas that carry no TeX of their own (A2, source 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.curate.extract.symbols import FUNCTIONS, OVER, SYMBOLS, UNDER, VARIANTS, WIDE, join, symbol

MAX_DEPTH = 150
"""Elements inside each other; deeper ones give their text only."""
OPENING, CLOSING = frozenset("([{⟨⌊⌈|‖〈∣∥"), frozenset(")]}⟩⌋⌉|‖〉∣∥")
CHOOSE = "\\genfrac{}{}{0pt}{}"
TALL = ("\\frac", "\\begin{matrix}", "\\genfrac", "\\sum", "\\prod", "\\int")


def to_tex(math: Any, tick: Callable[[], None]) -> str:
    """The LaTeX of a `<math>` element, or of any presentation element; "" when nothing is in it.

    Args:
        tick: called for each element; may raise when the time of the page is over.
    """
    return _row(_children(math), tick, 0)


def _children(node: Any) -> list[Any]:
    found = []
    child = node.child
    while child is not None:
        if child.tag not in ("-text", "-comment") and not child.tag.startswith("annotation"):
            found.append(child)
        child = child.next
    return found


def _text(node: Any) -> str:
    return " ".join((node.text() or "").split())


def _convert(node: Any, tick: Callable[[], None], depth: int) -> str:
    tick()
    if depth > MAX_DEPTH:
        return _text(node)
    tag = node.tag
    if tag in ("mi", "mn", "mo", "ms", "mtext"):
        return _token(node, tag)
    children = _children(node)
    if tag in _SCRIPTS:
        return _scripts(tag, children, tick, depth)
    build = _BUILDERS.get(tag)
    if build is not None:
        return build(node, children, lambda child: _convert(child, tick, depth + 1))
    if tag in ("semantics", "maction"):
        children = children[:1]
    return _row(children, tick, depth)


def _token(node: Any, tag: str) -> str:
    text = _text(node)
    if tag in ("mtext", "ms"):
        raw = node.text() or ""
        if not text:
            return "\\ " if "\xa0" in raw else ""
        return f"\\text{{{' ' if raw[:1] == chr(160) else ''}{_plain(text)}{' ' if raw[-1:] == chr(160) else ''}}}"
    if not text:
        return ""
    if text in FUNCTIONS:
        return "\\" + text
    if tag == "mo" and text.isalpha() and len(text) > 1:
        return f"\\operatorname{{{text}}}"
    variant = VARIANTS.get(node.attributes.get("mathvariant") or "")
    if variant == "\\mathrm" and len(text) == 1 and text not in SYMBOLS:
        return f"\\mathrm{{{text}}}" if text.isalpha() else text
    tex = join([symbol(sign) for sign in text])
    return f"{variant}{{{tex}}}" if variant and variant != "\\mathrm" else tex


def _plain(text: str) -> str:
    for sign in "#%&_{}$":
        text = text.replace(sign, "\\" + sign)
    return text


def _row(children: list[Any], tick: Callable[[], None], depth: int) -> str:
    """Children side by side. Brackets around something tall grow, as MathML's do by themselves."""
    parts = [_convert(child, tick, depth + 1) for child in children]
    if len(children) > 1 and children[0].tag == "mo" and _text(children[0]) in OPENING:
        inner = parts[1:-1]
        closed = children[-1].tag == "mo" and _text(children[-1]) in CLOSING
        if not closed:
            inner = parts[1:]
        if any(sign in part for part in inner for sign in TALL) and (closed or inner[-1].startswith("\\begin{matrix}")):
            if closed and len(inner) == 1 and parts[0] == "(" and inner[0].startswith(CHOOSE):
                return "\\binom" + inner[0].removeprefix(CHOOSE)
            return join([f"\\left{_fence(parts[0])}", *inner, f"\\right{_fence(parts[-1]) if closed else '.'}"])
    return join(parts)


def _fence(tex: str) -> str:
    return tex if tex[:1] != "\\" or len(tex) == 2 else tex + " "


def _braced(tex: str) -> str:
    """TeX as the base of a script: in braces when it is more than one thing."""
    if len(tex) <= 1 or (tex[0] == "\\" and tex[1:].isalpha()) or tex.isdigit():
        return tex
    return f"{{{tex}}}"


_SCRIPTS = frozenset(("msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts"))


def _scripts(tag: str, children: list[Any], tick: Callable[[], None], depth: int) -> str:
    parts = [_convert(child, tick, depth + 1) for child in children]
    if not parts:
        return ""
    if tag == "mmultiscripts":
        return _multiscripts(children, parts)
    if len(parts) < (3 if tag in ("msubsup", "munderover") else 2):
        return join(parts)
    base, first = parts[0], parts[1]
    if tag in ("mover", "munder"):
        return _over(base, children[1], first) if tag == "mover" else _under(base, children[1], first)
    below = first if tag in ("msub", "msubsup", "munderover") else None
    above = parts[2] if tag in ("msubsup", "munderover") else first if tag == "msup" else None
    return _braced(base) + (f"_{{{below}}}" if below else "") + _superscript(above)


def _superscript(above: str | None) -> str:
    if not above:
        return ""
    if above == "\\prime" or not above.strip("'"):
        return "'" if above == "\\prime" else above
    return f"^{{{above}}}"


LIMITS = ("\\sum", "\\prod", "\\lim", "\\int", "\\big", "\\coprod", "\\overbrace", "\\underbrace", "\\operatorname")


def _takes_limits(base: str) -> bool:
    return base.startswith(LIMITS) or base.lstrip("\\") in FUNCTIONS


def _mark(node: Any, marks: dict[str, str]) -> str | None:
    return marks.get(_text(node)) if node.tag in ("mo", "mi", "mtext") else None


def _over(base: str, node: Any, script: str) -> str:
    accent = _mark(node, OVER)
    if accent is not None:
        single = len(base) == 1 or (base[:1] == "\\" and base[1:].isalpha())
        return f"{accent if single else WIDE.get(accent, accent)}{{{base}}}"
    if script.startswith("\\overset{") and script.endswith("}{⏞}"):
        return f"\\overbrace{{{base}}}^{script[8:-3]}"
    return f"{base}^{{{script}}}" if _takes_limits(base) else f"\\overset{{{script}}}{{{base}}}"


def _under(base: str, node: Any, script: str) -> str:
    mark = _mark(node, UNDER)
    if mark is not None:
        return f"{mark}{{{base}}}"
    if script.startswith("\\underset{") and script.endswith("}{⏟}"):
        return f"\\underbrace{{{base}}}_{script[9:-3]}"
    return f"{base}_{{{script}}}" if _takes_limits(base) else f"\\underset{{{script}}}{{{base}}}"


def _multiscripts(children: list[Any], parts: list[str]) -> str:
    tags = [child.tag for child in children]
    split = tags.index("mprescripts") if "mprescripts" in tags else len(tags)

    def pairs(start: int, stop: int) -> str:
        out = ""
        for index in range(start, stop, 2):
            below, above = parts[index], parts[index + 1] if index + 1 < stop else ""
            out += (f"_{{{below}}}" if below else "") + _superscript(above)
        return out

    before = pairs(split + 1, len(parts))
    return (f"{{}}{before}" if before else "") + _braced(parts[0]) + pairs(1, split)


Convert = Callable[[Any], str]


def _fraction(node: Any, children: list[Any], convert: Convert) -> str:
    parts = [convert(child) for child in children]
    if len(parts) != 2:
        return join(parts)
    if (node.attributes.get("linethickness") or "").rstrip("pxemt ") in ("0", "0.0"):
        return f"{CHOOSE}{{{parts[0]}}}{{{parts[1]}}}"
    return f"\\frac{{{parts[0]}}}{{{parts[1]}}}"


def _root(node: Any, children: list[Any], convert: Convert) -> str:
    parts = [convert(child) for child in children]
    if len(parts) != 2:
        return f"\\sqrt{{{join(parts)}}}"
    return f"\\sqrt[{parts[1]}]{{{parts[0]}}}"


def _table(node: Any, children: list[Any], convert: Convert) -> str:
    rows = []
    for row in children:
        cells = [cell for cell in _children(row) if cell.tag == "mtd"] if row.tag in ("mtr", "mlabeledtr") else [row]
        rows.append(" & ".join(convert(cell) for cell in cells))
    return "\\begin{matrix}" + " \\\\ ".join(rows) + "\\end{matrix}"


def _fenced(node: Any, children: list[Any], convert: Convert) -> str:
    attributes = node.attributes
    left, right = attributes.get("open") or "(", attributes.get("close") or ")"
    separators = (attributes.get("separators", ",") or "").replace(" ", "")
    parts: list[str] = []
    for index, child in enumerate(children):
        if index and separators:
            parts.append(symbol(separators[min(index - 1, len(separators) - 1)]))
        parts.append(convert(child))
    return join([f"\\left{_fence(symbol(left[0]))}", *parts, f"\\right{_fence(symbol(right[0]))}"])


def _space(node: Any, children: list[Any], convert: Convert) -> str:
    width = (node.attributes.get("width") or "").strip()
    if node.attributes.get("linebreak") == "newline":
        return " \\\\ "
    number = width.removesuffix("em")
    try:
        size = float(number) if width.endswith("em") else 0.17 if width else 0.0
    except ValueError:
        size = 0.17
    return "\\quad " if size >= 0.9 else "\\," if size > 0 else ""


def _phantom(node: Any, children: list[Any], convert: Convert) -> str:
    return ""


def _enclosed(node: Any, children: list[Any], convert: Convert) -> str:
    inner = join([convert(child) for child in children])
    notation = node.attributes.get("notation") or ""
    if "strike" in notation:
        return f"\\cancel{{{inner}}}"
    if "box" in notation:
        return f"\\boxed{{{inner}}}"
    return f"\\overline{{{inner}}}" if "top" in notation else f"\\sqrt{{{inner}}}" if "radical" in notation else inner


_BUILDERS: dict[str, Callable[[Any, list[Any], Convert], str]] = {
    "mfrac": _fraction,
    "msqrt": lambda node, children, convert: f"\\sqrt{{{join([convert(child) for child in children])}}}",
    "mroot": _root,
    "mtable": _table,
    "mfenced": _fenced,
    "mspace": _space,
    "mphantom": _phantom,
    "menclose": _enclosed,
    "none": _phantom,
    "mprescripts": _phantom,
}
