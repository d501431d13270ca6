"""The one walk over the tree of a page: what each node means is decided here, in document order; `lines` collects the outcome.

Formulas come before everything that is left out: MediaWiki hides its MathML, and a formula is consumed together with all copies of it, so that it
appears once. The walk uses a stack of its own: pages nest deeper than Python may recurse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headstart.curate.extract import elements, formulas, images, nodes
from headstart.curate.extract.config import ExtractConfig
from headstart.curate.extract.delimiters import Delimiters, delimiters
from headstart.curate.extract.delimiters import formulas as delimited
from headstart.curate.extract.document import Dropped, Formula, Image
from headstart.curate.extract.elements import Class, class_meaning
from headstart.curate.extract.lines import CUT, Lines, Mark
from headstart.curate.extract.tex import normalise, refusal

LINK_SHARE = 0.8
"""A list or div of which more is link text is navigation."""
NOT_RENDERED = "p,pre,table,h1,h2,h3,h4,h5,h6,ul,ol,script"
"""What is not inside a formula as MathJax or KaTeX set it: an element of their classes with one of these is something else."""
PLACES = frozenset(("td", "th", "li", "dt", "dd", "caption", "summary"))
BREAK = "\x1e"
"""Stands for <br> in a text that is searched for formulas; blank to Python, and taken out of every page beforehand."""
SCRIPT = re.compile(r"[\w+\-\u2212\u2013*\u2217\u2020\u2032'.,=()/ ]{1,16}")
ORDINAL = re.compile(r"(?:st|nd|rd|th|tm|er|e|re|ème|o|a|r|sm|[a-z]{3,})", re.IGNORECASE)
"""Raised letters that are no exponent: 1st, 2e, TM."""
PILCROWS = ("¶", "\uf0c1")
Leave = Callable[[Any], None]
Entered = tuple[Leave | None, Any]
"""What to call at the end of an element, and with what."""
INLINE: Entered = (None, None)


@dataclass
class Facts:
    """What the walk knows of the page.

    Attributes:
        base: what image addresses are relative to.
        table: delimiters to look for in running text; None when the page shows no sign of TeX.
        tick: looks at the clock; called so often that no more than one search of the tree lies between; raises when the time is over.
    """

    base: str
    table: Delimiters | None
    tick: Callable[[], None]
    config: ExtractConfig
    dropped: list[Dropped] = field(default_factory=list)


class Walk:
    """A walk over one element of a page and all below it."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.math, self.boilerplate = facts, facts.config.math, facts.config.boilerplate
        self.lines = Lines(escape_dollars=facts.config.math)
        self.table = facts.table if self.math else None  # None where MathJax is told to look for nothing
        self.wrapped = facts.table or delimiters()
        self.display_block = 0
        self.lists = 0
        self.tables: list[tuple[bool, bool]] = []  # of each table open: whether it holds data; whether the row has begun
        self.root: Any = None

    def run(self, root: Any) -> Lines:
        self.root = root
        lines = self.lines
        stack: list[tuple[Any, Leave | None, Any]] = []
        tick, count = self.facts.tick, 0
        node = root.child
        while True:
            while node is None:
                if not stack:
                    lines.end()
                    return lines
                node, leave, state = stack.pop()
                if leave is not None:
                    leave(state)
                node = node.next
            count += 1
            if not count & 63:
                tick()
            tag = node.tag
            if tag == "-text":
                text = node.text_content
                if self.table is not None and ("$" in text or "\\" in text or self.table.may_occur(text)):
                    node = self._running_text(node, text)
                else:
                    lines.text(text)
                node = node.next
                continue
            entered = self._enter(node, tag)
            child = node.child if entered is not None else None
            if child is None:
                if entered is not None and entered[0] is not None:
                    entered[0](entered[1])
                node = node.next
            else:
                stack.append((node, *entered))  # type: ignore[misc]  # not None: there is a child
                node = child

    def _enter(self, node: Any, tag: str) -> Entered | None:
        """Begin an element; None when it is dealt with as a whole."""
        if tag[0] == "-":  # a comment
            return None
        if tag in elements.SKIPPED and not (tag == "script" and self.math):
            return None
        attributes = node.attributes
        meaning = Class.NOTHING
        if attributes:
            classes = attributes.get("class")
            if classes:
                meaning = class_meaning(classes)
            if self.math:
                stated = meaning & Class.EXPRESSION and "data-expr" in attributes
                if (meaning & elements.MATH or stated) and self._class_formula(node, tag, attributes, meaning):
                    return None
            elif meaning & (Class.COPY | Class.PREVIEW):
                return None
            if self._left_out(node, attributes, meaning):
                return None
        if tag in elements.BOILERPLATE_TAGS and self.boilerplate and not (tag == "form" and self._holds_the_page(node)):
            return None
        handler = _HANDLERS.get(tag)
        entered: Entered | None = INLINE
        if handler is not None:
            entered = handler(self, node, attributes)
        elif tag in elements.BLOCKS:
            entered = self._block(tag, meaning)
        elif tag == "span" and self.table is not None and self._whole_span(node, attributes, meaning):
            return None
        if entered is not None and self.math and meaning & (Class.IGNORE | Class.PROCESS):
            return self._switched(meaning, entered)
        return entered

    # What is left out

    def _left_out(self, node: Any, attributes: dict[str, str | None], meaning: int) -> bool:
        if meaning & Class.LINE_NUMBERS:
            return True
        if ("style" in attributes or "hidden" in attributes) and elements.hidden(attributes):
            return not (self.math and nodes.only_math(node))
        if not self.boilerplate:
            return False
        if meaning & Class.BOILERPLATE:
            return True
        lists = elements.boilerplate()
        return ("id" in attributes and attributes["id"] in lists["ids"]) or ("role" in attributes and attributes["role"] in lists["roles"])

    def _holds_the_page(self, form: Any) -> bool:
        """ASP.NET puts whole pages into one form: such a form is no form to fill in."""
        self.facts.tick()
        return len(form.text() or "") * 2 > len(self.root.text() or "")

    # Blocks

    def _block(self, tag: str, meaning: int) -> Entered:
        lines = self.lines
        apart = tag in elements.PARAGRAPHS and not self.lists
        lines.end(apart)
        state = (apart, lines.mark() if tag in elements.CONTAINERS and self.boilerplate and not lines.cell else None, tag, meaning)
        if tag == "div" and meaning & Class.BARE:
            self.display_block += 1
        if tag in ("ul", "ol", "menu"):
            self.lists += 1
        elif tag == "li":
            lines.prefix = "- "
        elif tag in elements.HEADINGS and not lines.cell:
            lines.level = elements.HEADINGS[tag]
        return self._end_block, state

    def _end_block(self, state: tuple[bool, Mark | None, str, int]) -> None:
        apart, mark, tag, meaning = state
        lines = self.lines
        lines.end(apart)
        if tag == "div" and meaning & Class.BARE:
            self.display_block -= 1
        if tag in ("ul", "ol", "menu"):
            self.lists -= 1
        elif tag == "li":
            lines.prefix = ""
        elif tag in elements.HEADINGS:
            lines.level = 0
        if mark is not None:
            characters, in_links, links = lines.since(mark)
            if links >= 2 and in_links > LINK_SHARE * characters:
                self.facts.dropped += [Dropped("line", "links", line.text[:CUT]) for line in lines.back(mark)]

    def _switched(self, meaning: int, entered: Entered) -> Entered:
        """An element of MathJax's ignore or process classes: whether delimiters count below it."""
        before, self.table = self.table, self.wrapped if meaning & Class.PROCESS else None
        return self._switch_back, (before, entered)

    def _switch_back(self, state: tuple[Delimiters | None, Entered]) -> None:
        self.table, (leave, inner) = state
        if leave is not None:
            leave(inner)

    # Formulas

    def _class_formula(self, node: Any, tag: str, attributes: dict[str, str | None], meaning: int) -> bool:
        """Take a formula that an element's classes announce; whether the element is dealt with."""
        tick = self.facts.tick
        tick()
        if meaning & Class.PREVIEW:
            return formulas.has_script(node)
        if meaning & elements.RENDERED and tag != "span" and node.css_first(NOT_RENDERED) is not None:  # an article of class "mathjax"
            return False
        if meaning & Class.RENDERED:
            return formulas.has_script(node) or self._take(formulas.of_rendered(node, attributes, tick, bool(meaning & Class.DISPLAY)), node)
        if meaning & Class.MEDIAWIKI:
            return self._take(formulas.of_mediawiki(node, tick), node)
        if meaning & Class.TEX_ERROR:
            return self._take(formulas.of_tex_error(node), node)
        if meaning & (Class.KATEX | Class.KATEX_DISPLAY):
            return self._take(formulas.of_katex(node, tick, bool(meaning & Class.KATEX_DISPLAY)), node)
        if tag in PLACES:  # has its place among others: the formula is found in its text
            return False
        found = formulas.of_wrapper(node, attributes, meaning, self.wrapped, self.facts.table is not None)
        if found is None:
            return False
        if tag in elements.BLOCKS:
            self.lines.end()
        taken = self._add(found)
        if tag in elements.BLOCKS and taken:
            self.lines.end()
        return taken

    def _take(self, found: formulas.Found | None, node: Any) -> bool:
        """Take a rendered formula, or note that its source is nowhere. The element is done with either way: what it shows is no text."""
        if found is not None:
            self._add(found, keep_refused=True)
        elif text := (node.text() or "").strip():
            self.facts.dropped.append(Dropped("formula", "rendered without its source", text[:CUT]))
        return True

    def _add(self, found: formulas.Found, keep_refused: bool = False) -> bool:
        """Add a formula; whether that settles it. A refused one is noted and, with `keep_refused`, written as text; definitions never are."""
        tex = normalise(found[0]) if len(found[0]) < formulas.MAX_SOURCE else found[0]
        why = refusal(tex, self.facts.config.max_formula, delimited=found[2] in ("element", "image"))
        if why is None:
            self.lines.formula(Formula(tex, found[1], found[2]))
            return True
        if why != "empty":
            self.facts.dropped.append(Dropped("formula", why, tex[:CUT]))
        if keep_refused and why not in ("empty", "only macros"):
            self.lines.text(tex)
        return why in ("empty", "only macros")

    def _whole_span(self, node: Any, attributes: dict[str, str | None], meaning: int) -> bool:
        """Documenter writes `<span>$x$</span>`: all of the span is the formula."""
        text = nodes.only_text(node)
        if text is None or not text.lstrip().startswith(("$", "\\(", "\\[")):
            return False
        found = formulas.of_wrapper(node, attributes, meaning & ~Class.BARE, self.wrapped, True)
        return found is not None and self._add(found)

    def _running_text(self, node: Any, text: str) -> Any:
        """Text that may hold delimiters: with the texts beyond <br> and comments, as MathJax joins them. Returns the last node read."""
        assert self.table is not None
        lines = self.lines
        sibling = node.next
        if sibling is not None and sibling.tag in ("br", "-comment", "-text"):
            parts = [text]
            while sibling is not None and (tag := sibling.tag) in ("br", "-comment", "-text"):
                if tag != "-comment":
                    parts.append(BREAK if tag == "br" else sibling.text_content)
                node, sibling = sibling, sibling.next
            text = "".join(parts)
        at = 0
        for start, end, inner, display, source in delimited(text, self.table, self.facts.config.max_formula, self.facts.tick):
            tex = normalise(inner)
            why = refusal(tex, self.facts.config.max_formula, delimited=True)
            if why is not None and why != "only macros":
                if why != "empty":
                    self.facts.dropped.append(Dropped("formula", why, tex[:CUT]))
                continue
            self._plain(text[at:start])
            at = end
            if why is None:
                lines.formula(Formula(tex, display, source))
            else:
                self.facts.dropped.append(Dropped("formula", why, tex[:CUT]))
        self._plain(text[at:])
        return node

    def _plain(self, text: str) -> None:
        if not text:
            return
        if BREAK not in text:
            self.lines.text(text)
            return
        for number, part in enumerate(text.split(BREAK)):
            if number:
                self.lines.end()
            if part:
                self.lines.text(part)

    # Elements of their own kind

    def _math(self, node: Any, attributes: dict[str, str | None]) -> Entered | None:
        if not self.math:
            return INLINE
        found = formulas.of_math(node, self.facts.tick)
        if found is not None:
            self._add(found, keep_refused=True)
        return None

    def _mathjax(self, node: Any, attributes: dict[str, str | None]) -> Entered | None:
        if not self.math:
            return INLINE
        self._take(formulas.of_mathjax(node, self.facts.tick), node)
        return None

    def _script(self, node: Any, attributes: dict[str, str | None]) -> None:
        found = formulas.of_script(attributes, node, self.facts.tick) if "type" in attributes else None
        if found is not None:
            self._add(found)

    def _distill(self, node: Any, attributes: dict[str, str | None]) -> Entered | None:
        """dt-math and d-math of Distill."""
        if self.math:
            found = formulas.of_wrapper(node, attributes, Class.WRAPPER | Class.BARE, self.wrapped, True)
            if found is not None and self._add(found):
                return None
        return INLINE

    def _image(self, node: Any, attributes: dict[str, str | None]) -> None:
        facts = self.facts
        if self.math:
            found = images.formula(attributes, self.display_block > 0)
            if found is not None and self._add((*found, "image")):
                return
        if not facts.config.images:
            return
        raw = images.address(attributes)
        url, why = images.resolve(raw, attributes, facts.base, facts.config.min_side)
        if why is None:
            self.lines.image(Image(url, raw, (attributes.get("alt") or "").strip()))
        else:
            facts.dropped.append(Dropped("image", why, raw[:CUT]))

    def _break(self, node: Any, attributes: dict[str, str | None]) -> None:
        self.lines.end()

    def _link(self, node: Any, attributes: dict[str, str | None]) -> Entered | None:
        child = node.child
        if child is not None and child.next is None and child.tag == "-text" and child.text_content.strip() in PILCROWS:
            return None
        if "href" not in attributes:
            return INLINE
        self.lines.links += 1
        self.lines.link += 1
        return self._end_link, None

    def _end_link(self, state: None) -> None:
        self.lines.link -= 1

    def _script_text(self, node: Any, attributes: dict[str, str | None]) -> Entered | None:
        """<sup> and <sub>: mathematics that is written in HTML alone would lose its meaning without them (x2 + y2)."""
        text = nodes.only_text(node) if self.math else None
        if text is None or not SCRIPT.fullmatch(text := text.strip()) or (node.tag == "sup" and ORDINAL.fullmatch(text)):
            return INLINE
        self.lines.script("^" if node.tag == "sup" else "_", text)
        return None

    def _code(self, node: Any, attributes: dict[str, str | None]) -> None:
        self.lines.code(node.text() or "")

    def _pre(self, node: Any, attributes: dict[str, str | None]) -> None:
        text = nodes.text_of_code(node)
        if self.lines.cell:
            self.lines.code(text)
        else:
            self.lines.block(text)

    def _table(self, node: Any, attributes: dict[str, str | None]) -> Entered:
        self.facts.tick()
        self.lines.end(apart=True)
        data = not self.lines.cell and attributes.get("role") not in ("presentation", "none") and nodes.is_data(node)
        self.tables.append((data, False))
        return self._end_table, None

    def _end_table(self, state: None) -> None:
        self.tables.pop()
        self.lines.end(apart=True)

    def _row(self, node: Any, attributes: dict[str, str | None]) -> Entered:
        self.lines.end()
        if self.tables:
            self.tables[-1] = (self.tables[-1][0], False)
        return self._end_row, None

    def _end_row(self, state: None) -> None:
        self.lines.end()

    def _cell(self, node: Any, attributes: dict[str, str | None]) -> Entered:
        data, begun = self.tables[-1] if self.tables else (False, False)
        if begun:
            self.lines.text(" | " if data else " ")
        if self.tables:
            self.tables[-1] = (data, True)
        if not data:
            return INLINE
        self.lines.cell += 1
        return self._end_cell, None

    def _end_cell(self, state: None) -> None:
        self.lines.cell -= 1


_HANDLERS: dict[str, Callable[[Walk, Any, dict[str, str | None]], Entered | None]] = {
    "math": Walk._math,
    "mjx-container": Walk._mathjax,
    "script": Walk._script,
    "dt-math": Walk._distill,
    "d-math": Walk._distill,
    "img": Walk._image,
    "br": Walk._break,
    "sup": Walk._script_text,
    "sub": Walk._script_text,
    "a": Walk._link,
    "pre": Walk._pre,
    "table": Walk._table,
    "tr": Walk._row,
    "td": Walk._cell,
    "th": Walk._cell,
    **dict.fromkeys(elements.CODE, Walk._code),
}
