"""From the pieces that a walk meets to lines of text, and from lines to the document: boilerplate lines, empty sections, interleaving."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from headstart.curate.extract.document import Document, Dropped, Formula, Image
from headstart.curate.extract.elements import boilerplate

SHARE, MOST = 0.18, 10
"""A line goes when its score (words of the listed phrases in it) is a larger share of its words, or larger at all."""
TAIL = 15
"""A boilerplate line so near the end, and in the second half, takes the rest with it."""
SECTION = 16
"""A section without a line of more characters is empty."""
CUT = 200
"""Characters of what was dropped that are kept for the record."""
IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
FENCE = "```"


@dataclass(slots=True)
class Line:
    """One line of the document, with the formulas and images in it: (start, end, formula) and (place, place, image)."""

    text: str
    apart: bool
    level: int = 0
    code: bool = False
    marks: list[tuple[int, int, Formula | Image]] | None = None

    def solid(self) -> bool:
        """Whether it holds mathematics, code or an image: such a line is never boilerplate."""
        return self.code or bool(self.marks)


class Mark(NamedTuple):
    """A place in the lines to go back to."""

    lines: int
    characters: int
    link_characters: int
    links: int


class Lines:
    """Collects what a walk over the page meets.

    Attributes:
        level: of the heading that the next line is; 0 if it is none.
        prefix: begins the next line ("- " in a list).
        cell: depth of table cells whose content stays on one line.
        link: depth of links; characters, link_characters, links: counts of the text so far, all of it and in links.
    """

    def __init__(self, escape_dollars: bool) -> None:
        self.done: list[Line] = []
        self.level = self.cell = self.link = 0
        self.prefix = ""
        self.characters = self.link_characters = self.links = 0
        self._pieces: list[str | Formula | Image] = []
        self._marked = False
        self._apart = False
        self._escape = escape_dollars

    def text(self, text: str) -> None:
        """Running text as it stands in the page."""
        if text.isspace():
            if self._pieces:
                self._pieces.append(" ")
            return
        size = len(text.strip())
        self.characters += size
        if self.link:
            self.link_characters += size
        if self._escape and "$" in text:
            text = text.replace("\\$", "$").replace("$", "\\$")
        self._pieces.append(text)

    def code(self, text: str) -> None:
        """Code in running text."""
        text = " ".join(text.split())
        if text:
            self.characters += len(text)
            if self.link:
                self.link_characters += len(text)
            mark = "``" if "`" in text else "`"
            pad = " " if "`" in text else ""
            self._pieces.append(f"{mark}{pad}{text}{pad}{mark}")

    def script(self, sign: str, text: str) -> None:
        """A raised or lowered text: x^2, x_{ij}."""
        self.characters += len(text)
        if self.link:
            self.link_characters += len(text)
        self._pieces.append(f"{sign}{text}" if len(text) == 1 else f"{sign}{{{text}}}")

    def formula(self, formula: Formula) -> None:
        apart = formula.display and not self.cell and not self.level
        if apart:
            self.end()
        self.characters += len(formula.tex)
        self._pieces.append(formula)
        self._marked = True
        if apart:
            self.end()

    def image(self, image: Image) -> None:
        self._pieces.append(image)
        self._marked = True

    def block(self, text: str) -> None:
        """Code that keeps its lines."""
        text = "\n".join(line.rstrip() for line in text.expandtabs(4).split("\n")).strip("\n")
        if not text.strip():
            return
        self.end(apart=True)
        self.characters += len(text)
        fence = FENCE
        while fence in text:
            fence += "`"
        self.done.append(Line(f"{fence}\n{text}\n{fence}", True, code=True))
        self._apart = True

    def end(self, apart: bool = False) -> None:
        """The line ends here; `apart`: the next one stands apart. In a table cell a blank has to do."""
        if self.cell:
            if self._pieces:
                self._pieces.append(" ")
            return
        if self._pieces:
            self._close()
        if apart:
            self._apart = True

    def mark(self) -> Mark:
        return Mark(len(self.done), self.characters, self.link_characters, self.links)

    def since(self, mark: Mark) -> tuple[int, int, int]:
        """Characters, characters in links and links since a mark."""
        return self.characters - mark.characters, self.link_characters - mark.link_characters, self.links - mark.links

    def back(self, mark: Mark) -> list[Line]:
        """Forget everything since a mark (at which a line began); returns the lines."""
        self._pieces.clear()
        self._marked = False
        gone = self.done[mark.lines :]
        del self.done[mark.lines :]
        _, self.characters, self.link_characters, self.links = mark
        return gone

    def _close(self) -> None:
        pieces, self._pieces = self._pieces, []
        marks: list[tuple[int, int, Formula | Image]] | None = None
        prefix = "#" * self.level + " " if self.level else self.prefix
        if self._marked:
            self._marked = False
            text, marks = _set(pieces, prefix)
        else:
            text = " ".join("".join(pieces).split())  # type: ignore[arg-type]  # unmarked lines have no other pieces
            if not text:
                return
            text = prefix + text
        self.done.append(Line(text, self._apart, self.level, False, marks))
        if self.level:
            self.level = 0  # one line is the heading: what follows in it is text, as on pages that never close theirs
        else:
            self.prefix = ""
        self._apart = False


def _set(pieces: list[str | Formula | Image], prefix: str) -> tuple[str, list[tuple[int, int, Formula | Image]]]:
    """The text of a line with formulas and images, blanks collapsed, and where they stand in it."""
    text = prefix
    marks: list[tuple[int, int, Formula | Image]] = []
    blank = False
    for piece in pieces:
        if isinstance(piece, str):
            words = " ".join(piece.split())
            if words:
                text += " " + words if (blank or piece[0].isspace()) and len(text) > len(prefix) else words
                blank = piece[-1].isspace()
            else:
                blank = True
            continue
        if blank or (isinstance(piece, Formula) and text[-1:] in ("$", "\\")):  # \$ and $$ would be read otherwise
            text += " " if len(text) > len(prefix) else ""
        blank = False
        start = len(text)
        if isinstance(piece, Formula):
            text += f"$${piece.tex}$$" if piece.display else f"${piece.tex}$"
        else:
            blank = True
        marks.append((start, len(text), piece))
    return text, marks


def without_boilerplate(lines: list[Line], dropped: list[Dropped]) -> list[Line]:
    """The lines without those that are mostly phrases such as "all rights reserved" (A2, boilerplate lines)."""
    whole = "\n".join(line.text for line in lines).lower()
    phrases = [phrase for phrase in boilerplate()["phrases"] if phrase in whole]
    if not phrases:
        return lines
    patterns = [(re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)"), phrase, phrase.count(" ") + 1) for phrase in phrases]
    kept: list[Line] = []
    tail = False
    for number, line in enumerate(lines):
        if line.solid():
            kept.append(line)
            continue
        if tail:
            dropped.append(Dropped("line", "after boilerplate", line.text[:CUT]))
            continue
        lower = line.text.lower()
        score = sum(len(pattern.findall(lower)) * words for pattern, phrase, words in patterns if phrase in lower)
        if score and (score > MOST or score > SHARE * _words(line.text)):
            dropped.append(Dropped("line", "boilerplate", line.text[:CUT]))
            tail = number >= max(len(lines) - TAIL, len(lines) // 2)
        else:
            kept.append(line)
    return kept


def _words(text: str) -> int:
    return len(text.split()) + (0 if text.isascii() else len(IDEOGRAPH.findall(text)))


def without_empty_sections(lines: list[Line], dropped: list[Dropped]) -> list[Line]:
    """The lines without headings that have nothing below them before the next heading of the same or a higher level."""
    filled = [False] * 7  # filled[k]: something stands below, up to the next heading of level k or higher
    kept: list[Line] = []
    for line in reversed(lines):
        if not line.level:
            if len(line.text) > SECTION or line.solid():
                filled = [True] * 7
            kept.append(line)
        elif filled[line.level] or line.marks:
            kept.append(line)
            filled[line.level :] = [False] * (7 - line.level)
        else:
            dropped.append(Dropped("line", "empty section", line.text[:CUT]))
            filled[line.level :] = [False] * (7 - line.level)
    kept.reverse()
    return kept


def interleave(lines: list[Line], document: Document) -> None:
    """Write the lines into a document: texts between images, each formula and image with its place."""
    parts: list[str] = []
    length = 0

    def add(text: str) -> None:
        nonlocal length
        parts.append(text)
        length += len(text)

    def flush() -> None:
        nonlocal length
        text = "".join(parts).rstrip()
        parts.clear()
        length = 0
        if text:
            document.text_list.append(text)
            document.image_list.append(None)

    for line in lines:
        if length:
            add("\n\n" if line.apart else "\n")
        at = 0
        for start, end, thing in line.marks or ():
            if isinstance(thing, Formula):
                if not length:
                    at += len(line.text[at:start]) - len(line.text[at:start].lstrip())
                thing.entry, thing.start, thing.end = len(document.text_list), length + start - at, length + end - at
                document.formulas.append(thing)
                add(line.text[at:end])
            else:
                add(line.text[at:start] if length else line.text[at:start].lstrip())
                flush()
                thing.entry = len(document.text_list)
                document.text_list.append(None)
                document.image_list.append(thing.url)
                document.images.append(thing)
            at = end
        rest = line.text[at:]
        add(rest if length else rest.lstrip())
    flush()
