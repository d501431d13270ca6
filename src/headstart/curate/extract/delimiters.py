"""Formulas between delimiters in running text (A2, sources 7 and 8), as MathJax and KaTeX find them in the browser."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headstart.curate.extract.tex import find_right

Delimiter = tuple[str, str, bool]
"""Left, right, whether the formula is displayed."""

STANDARD: tuple[Delimiter, ...] = (
    ("$$", "$$", True),
    ("\\[", "\\]", True),
    ("\\(", "\\)", False),
    ("$", "$", False),
    ("[itex]", "[/itex]", False),
    ("[math]", "[/math]", False),
    ("[latex]", "[/latex]", False),
    ("[tex]", "[/tex]", True),
)
ENVIRONMENTS = ("equation", "align", "eqnarray", "gather", "multline", "alignat", "flalign")
ENVIRONMENT = r"\\begin\{(?:" + "|".join(ENVIRONMENTS) + r")\*?\}"
MAX_DOLLAR = 300
"""Characters between single dollars: beyond them the two have nothing to do with each other."""
PARAGRAPH = re.compile(r"\n[ \t\r\f]*\n")

SHOWS = ("mathjax", "katex", "tex2jax", "rendermathin", "inlinemath", "mathml", "arithmatex", "\\begin{", "[itex]", "[tex]", "[latex]", "[math]")
"""Signs of TeX in a page in lower case, the commonest first."""
COMMANDS = re.compile(
    r"\\(?:frac|dfrac|tfrac|sqrt|sum|int|prod|lim|infty|alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|pi|sigma|phi|varphi|omega|Omega|Gamma"
    r"|Delta|Sigma|partial|nabla|cdot|cdots|ldots|times|leq|geq|neq|approx|equiv|in|notin|subset|subseteq|cup|cap|forall|exists|rightarrow|Rightarrow"
    r"|to|mapsto|mathbb|mathbf|mathrm|mathcal|mathfrak|mathsf|operatorname|text|left|right|begin|overline|hat|vec|bar|tilde|binom|displaystyle|langle"
    r"|rangle|lfloor|lceil|log|ln|sin|cos|tan|exp|max|min|bmod|pmod|quad)(?![A-Za-z])"
)
SETTING = re.compile(r"(inlineMath|displayMath|delimiters)[\"']?\s*[:=]")
SETTING_LENGTH = 500
"""Characters of a page's script in which the delimiters of one setting stand."""
END_OF_PAIRS = re.compile(r"\]\s*,?\s*\](?![\"'])")
PAIR = re.compile(r"""\[\s*(["'])((?:(?!\1).){1,24})\1\s*,\s*(["'])((?:(?!\3).){1,24})\3\s*\]""")
KATEX = re.compile(
    r"""left["']?\s*:\s*(["'])((?:(?!\1).){1,24})\1\s*,\s*["']?right["']?\s*:\s*(["'])((?:(?!\3).){1,24})\3\s*(?:,\s*["']?display["']?\s*:\s*(true|false))?"""
)
MAX_PAIRS = 12
MAX_SETTINGS = 20


@dataclass(frozen=True)
class Delimiters:
    """The delimiters of a page, ready to search.

    Attributes:
        opening: finds the next left delimiter, the longest first; also escaped signs, which are passed over.
        rights: left -> (right, displayed).
        signs: characters without which a text has no delimiter.
    """

    opening: re.Pattern[str]
    rights: dict[str, tuple[str, bool]]
    signs: frozenset[str]

    def may_occur(self, text: str) -> bool:
        return "$" in text or "\\" in text or any(sign in text for sign in self.signs)


@functools.lru_cache(256)
def delimiters(extra: tuple[Delimiter, ...] = (), bracketed: bool = True) -> Delimiters:
    """The standard delimiters and those that a page adds.

    Args:
        bracketed: with [itex], [math], [latex] and [tex].
    """
    table = {left: (right, display) for left, right, display in STANDARD if bracketed or left[0] != "[" or left[-1] != "]"}
    table |= {left: (right, display) for left, right, display in extra}
    lefts = "|".join(re.escape(left) for left in sorted(table, key=len, reverse=True))
    signs = {left[0] for left in table} - {"$", "\\"}
    return Delimiters(re.compile(rf"{ENVIRONMENT}|{lefts}|\\.", re.DOTALL), table, frozenset(signs))


def of_page(html: str, lower: str) -> Delimiters | None:
    """The delimiters to look for in running text; None when the page shows neither MathJax nor KaTeX nor a LaTeX command."""
    if not any(sign in lower for sign in SHOWS) and not ("\\" in html and COMMANDS.search(html)):
        return None
    bracketed = any(mark in lower for mark in ("[/itex]", "[/math]", "[/latex]", "[/tex]"))
    extra = configured(html) if "inlinemath" in lower or "displaymath" in lower or "delimiters" in lower else ()
    return delimiters(extra, bracketed)


def configured(html: str) -> tuple[Delimiter, ...]:
    """Delimiters that a page's scripts set up: MathJax's `inlineMath: [['\\\\(', '\\\\)']]`, KaTeX's `delimiters: [{left: .., right: ..}]`."""
    known = {left for left, _, _ in STANDARD}
    found: dict[str, Delimiter] = {}
    pairs: list[tuple[str, str, bool]] = []
    for setting in itertools.islice(SETTING.finditer(html), MAX_SETTINGS):
        script = html[setting.end() : setting.end() + SETTING_LENGTH]
        if setting[1] == "delimiters":
            pairs += [(pair[2], pair[4], pair[5] == "true") for pair in KATEX.finditer(script)]
        else:
            end = END_OF_PAIRS.search(script)
            pairs += [(pair[2], pair[4], setting[1] == "displayMath") for pair in PAIR.finditer(script, 0, end.end() if end else len(script))]
    for left, right, display in pairs[:MAX_PAIRS]:
        left, right = left.replace("\\\\", "\\").strip(), right.replace("\\\\", "\\").strip()
        if left and right and left not in known and not left.isalnum() and not left.startswith("\\begin"):
            found[left] = (left, right, display)
    return tuple(found.values())


def formulas(text: str, table: Delimiters, max_length: int, tick: Callable[[], None]) -> Iterator[tuple[int, int, str, bool, str]]:
    """The formulas of a running text as (start, end, TeX, displayed, "raw" or "environment"), in order.

    Args:
        max_length: characters of TeX at most; what is longer is yielded with its place, for the caller to refuse.
        tick: called for each left delimiter; may raise when the time of the page is over.
    """
    at = 0
    nearest: dict[str, int] = {}  # where each right delimiter comes next; the length of the text when it does not come any more

    def next_right(right: str) -> int:
        place = nearest.get(right, -1)
        if place < at:
            place = text.find(right, at)
            nearest[right] = place = len(text) if place < 0 else place
        return place

    while found := table.opening.search(text, at):
        left, start = found[0], found.start()
        at = found.end()
        if left.startswith("\\begin{"):
            right = "\\end{" + left[7:]
            end = next_right(right)
            if end < len(text):
                at = end + len(right)
                yield start, at, text[start:at], True, "environment"
            continue
        pair = table.rights.get(left)
        if pair is None:  # an escaped sign
            continue
        tick()
        right, display = pair
        limit = at + (MAX_DOLLAR + 1 if left == "$" else 2 * max_length)
        if next_right(right) >= min(limit, len(text)):
            continue
        end = find_right(text, at, right, limit)
        if end < 0 or (left == "$" and not single_dollar(text, at, end)):
            continue
        inner = text[at:end]
        at = end + len(right)
        yield start, at, inner, display, "raw"


def single_dollar(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] between two single dollars is a formula: prices and shell prompts are none (A2, source 8)."""
    return (
        start < end
        and not text[start].isspace()
        and not text[end - 1].isspace()
        and not text[end + 1 : end + 2].isdigit()
        and not PARAGRAPH.search(text, start, end)
    )


def whole(text: str, table: Delimiters) -> tuple[str, bool] | None:
    """TeX and display flag when all of a text stands between one pair of delimiters; None otherwise."""
    text = text.strip()
    found = table.opening.match(text)
    if found is None:
        return None
    left = found[0]
    if left.startswith("\\begin{"):
        right = "\\end{" + left[7:]
        return (text, True) if text.find(right) == len(text) - len(right) else None
    pair = table.rights.get(left)
    if pair is None or find_right(text, len(left), pair[0]) != len(text) - len(pair[0]):
        return None
    return text[len(left) : -len(pair[0])], pair[1]
