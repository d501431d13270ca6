"""TeX as strings: the one form in which formulas are written, and what is no formula."""

from __future__ import annotations

import functools
import html
import re

ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|nbsp|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
TEXTCOLOR = re.compile(r"\\textcolor\s*(?:\[[^\]]{0,40}\])?\s*\{[^{}]{0,80}\}")
STYLED = re.compile(r"\{\s*\\(?:displaystyle|textstyle)(?![A-Za-z])\s*")
PAIRS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
DEFINITION = re.compile(r"\\([A-Za-z]+)(?![A-Za-z])\*?\s*")
BODIES = {
    **dict.fromkeys(("newcommand", "renewcommand", "providecommand", "DeclareMathOperator", "def", "gdef", "edef", "xdef"), 1),
    **dict.fromkeys(("newenvironment", "renewenvironment"), 2),
    **dict.fromkeys(("let", "require", "global", "long"), 0),
}
"""Commands that define macros, and the groups that follow the name."""
NAME = re.compile(r"\s*(?:\\[A-Za-z@]+|\\.)")
PARAMETER = re.compile(r"\s|\[[^\]]*\]|#\d")
LET = re.compile(r"\s*=?\s*(?:\\[A-Za-z@]+|\\.|[^\\\s])")
TEXT_GROUP = re.compile(r"\\(?:text|mbox|hbox|textrm|textbf|textit|textsf|mathrm|operatorname|intertext|label|tag|ref|eqref)\*?\s*\{[^{}]*\}")
COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\\.")
WORD = re.compile(r"[^\W\d_]{3,}")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uff0c\u3002]")
TEX_SIGN = re.compile(r"[\\^_={}]")
FEW_WORDS = 3
"""Three words and more in a row of letters may be a sentence between two stray delimiters; fewer are names of variables."""


def normalise(tex: str) -> str:
    """The form in which a formula is written (A2, Normalise): entities read, delimiters and colours off, blanks collapsed, one style group off."""
    if "&" in tex:
        tex = ENTITY.sub(lambda found: html.unescape(found[0]), tex)
    tex = " ".join(tex.split())
    for left, right in PAIRS:
        if tex.startswith(left):
            if find_right(tex, len(left), right) == len(tex) - len(right):
                tex = tex[len(left) : -len(right)].strip()
            break
    if "\\textcolor" in tex:
        tex = TEXTCOLOR.sub("", tex)
    if tex.startswith("{") and (style := STYLED.match(tex)) and closing(tex, 0) == len(tex) - 1:
        tex = tex[style.end() : -1].strip()
    backslashes = len(tex) - len(tex.rstrip("\\"))
    return tex[:-1].rstrip() if backslashes % 2 else tex  # a control space before the closing dollar would escape it


def closing(tex: str, start: int) -> int:
    """The index of the brace that closes the one at `start`; -1 if none does."""
    depth = 0
    for found in BRACES.finditer(tex, start):
        sign = found[0]
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return found.start()
    return -1


def find_right(text: str, start: int, right: str, limit: int | None = None) -> int:
    """The index of the first `right` at or after `start` that stands outside braces, as MathJax looks for it; -1 if there is none before `limit`."""
    depth = 0
    for found in _signs(right).finditer(text, start, len(text) if limit is None else limit):
        sign = found[0]
        if sign == right:
            if depth == 0:
                return found.start()
        elif sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth < 0:
                return -1
    return -1


@functools.lru_cache(64)
def _signs(right: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(right)}|\\.|[{{}}]", re.DOTALL)


def only_defines(tex: str) -> bool:
    """Whether TeX only defines macros: PreTeXt and others keep theirs in a block of the page."""
    at = 0
    while at < len(tex):
        found = DEFINITION.match(tex, at)
        if found is None or found[1] not in BODIES:
            return False
        at = _definition_end(tex, found.end(), found[1])
        if at < 0:
            return False
    return at > 0


def _definition_end(tex: str, at: int, command: str) -> int:
    """The index behind a definition and the blanks after it; -1 if it is broken."""
    bodies = BODIES[command]
    if command not in ("global", "long"):
        if name := NAME.match(tex, at):
            at = name.end()
        else:
            bodies += 1  # {\\name}
    for _ in range(bodies):
        while at < len(tex) and (parameter := PARAMETER.match(tex, at)):
            at = parameter.end()
        end = closing(tex, at) if tex[at : at + 1] == "{" else -1
        if end < 0:
            return -1
        at = end + 1
    if command == "let" and (value := LET.match(tex, at)):
        at = value.end()
    return at + len(tex[at:]) - len(tex[at:].lstrip())


def refusal(tex: str, max_length: int, delimited: bool) -> str | None:
    """Why something that looks like a formula is none; None when it is one.

    Args:
        tex: normalised.
        delimited: found between delimiters in running text, where two of them may have nothing to do with each other.
    """
    if not tex:
        return "empty"
    if len(tex) > max_length:
        return "too long"
    if tex[0] == "\\" and only_defines(tex):
        return "only macros"
    if delimited and len(tex) > 12 and _mostly_text(tex):
        return "mostly text"
    return None


def _mostly_text(tex: str) -> bool:
    """More than half of the characters stand in words (Latin words of three letters and more, CJK), outside \\text{..} and commands."""
    bare = COMMAND.sub(" ", TEXT_GROUP.sub(" ", tex))
    words = WORD.findall(bare)
    ideographs = len(CJK.findall(bare))
    if len(words) < FEW_WORDS and ideographs < 10:
        return False
    letters = max(sum(map(len, words)), ideographs)
    return letters * 2 > len(tex) - tex.count(" ")


def escape(text: str) -> str:
    """Literal dollars of running text as `\\$`."""
    return text.replace("\\$", "$").replace("$", "\\$") if "$" in text else text
