"""Sentences of running text by rules: for files in which a line is a paragraph or a whole document.

A sentence ends after `.`, `!` or `?`, with what closes around it, where white space and then a capital, a digit or an opening quote follow; not after
an abbreviation or a single initial. Full-width marks (`。`, `！`, `？`) end one wherever they stand.
No model, no data files, the same cuts everywhere.
"""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset([
    "adm", "al", "approx", "assn", "asst", "ave", "bldg", "ca", "capt", "cf", "ch", "cmdr", "co", "col", "corp", "cpl", "dept", "dr", "ed", "eds",
    "eg", "eq", "eqs", "esp", "est", "etc", "ex", "fig", "figs", "gen", "gov", "hon", "hr", "hrs", "ie", "inc", "jan", "feb", "mar", "apr", "jun",
    "jul", "aug", "sep", "sept", "oct", "nov", "dec", "jr", "lt", "ltd", "maj", "mgr", "mme", "mr", "mrs", "ms", "mt", "nos", "nr", "op", "p",
    "para", "pg", "pp", "pres", "prof", "ref", "refs", "rep", "resp", "rev", "sec", "sen", "sgt", "sp", "spp", "sr", "st", "str", "subsp", "suppl",
    "univ", "v", "var", "viz", "vol", "vols", "vs",
])  # fmt: skip
"""Words, in small letters and without their dots, whose dot ends no sentence."""

_END = re.compile(r"(?<![.!?])[.!?]+[\"'”’»)\]]*(?=\s+[\"'“‘«(\[¿¡]*([^\W_a-z]))|[。！？]+[”’」』）]*")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]*$")


def sentence_ends(text: str) -> list[int]:
    """Where each sentence of a line ends: numbers of characters from its beginning, ascending; the last is its length."""
    ends, last = [], len(text.rstrip())
    for found in _END.finditer(text):
        begins = found[1]  # a capital, a digit or a letter of a script without cases
        if (begins and begins.islower()) or (found[0][0] == "." and _abbreviates(text, found.start())):
            continue
        if found.end() < last:
            ends.append(found.end())
    return [*ends, len(text)]


def cut_sentences(text: str) -> list[str]:
    """The sentences of a line; joined they are the line. White space between two stands at the beginning of the second."""
    ends = sentence_ends(text)
    return [text[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]


def _abbreviates(text: str, dot: int) -> bool:
    """Whether the dot at this place belongs to the word before it: an abbreviation, an initial (`J.`), or letters with dots (`U.S.`, `i.e.`)."""
    found = _LAST_WORD.search(text, max(0, dot - 20), dot)
    word = found[0] if found else ""
    letters = word.replace(".", "")
    if not letters.isalpha():
        return False
    return letters.lower() in ABBREVIATIONS or (len(word) == 1 and word != "I") or word[-2:-1] == "."
