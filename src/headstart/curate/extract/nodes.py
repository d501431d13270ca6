"""Questions about a node of the tree and what is in it."""

from __future__ import annotations

from typing import Any

from headstart.curate.extract.elements import Class, boilerplate, class_meaning

MANY_ROWS = 50
"""Rows of a table that are looked at to see what it is."""
NOT_DATA = "td table,td pre,td h1,td h2,td h3,td form,td .highlight"
LINE_NUMBERS = ",".join(f".{name}" for name in boilerplate()["line_numbers"])


def only_text(element: Any) -> str | None:
    """The text of an element without elements in it; None when there are any."""
    child = element.child
    if child is None or (child.next is None and child.tag == "-text"):
        return None if child is None else child.text_content
    parts: list[str] = []
    while child is not None:
        if child.tag == "-text":
            parts.append(child.text_content or "")
        elif child.tag != "-comment":
            return None
        child = child.next
    return "".join(parts)


def only_math(node: Any) -> bool:
    """Whether all that an element holds is one <math>: MediaWiki hides it for the image beside it."""
    child, math = node.child, 0
    while child is not None:
        tag = child.tag
        if tag == "math":
            math += 1
        elif tag not in ("-text", "-comment") or (tag == "-text" and not child.text_content.isspace()):
            return False
        child = child.next
    return math == 1


def is_data(table: Any) -> bool:
    """Whether a table holds data: two rows and three columns at least, and no blocks that need lines of their own."""
    rows = table.css("tr")
    if len(rows) < 2:
        return False
    for row in rows[:MANY_ROWS]:
        cells = 0
        child = row.child
        while child is not None:
            cells += child.tag in ("td", "th")
            child = child.next
        if cells >= 3:
            return table.css_first(NOT_DATA) is None
    return False


def text_of_code(node: Any) -> str:
    """The text of a <pre>, with <br> as line ends where it has no others, and without line numbers."""
    text: str = node.text() or ""
    if node.css_first(LINE_NUMBERS) is None and ("\n" in text or node.css_first("br") is None):
        return text
    parts: list[str] = []
    stack = [node.child]
    while stack:
        child = stack.pop()
        if child is None:
            continue
        stack.append(child.next)
        tag = child.tag
        if tag == "-text":
            parts.append(child.text_content)
        elif tag == "br":
            parts.append("\n")
        elif not class_meaning(child.attributes.get("class") or "") & Class.LINE_NUMBERS:
            stack.append(child.child)
    return "".join(parts)
