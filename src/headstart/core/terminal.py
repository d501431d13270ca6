"""Text from outside on a terminal: what would move the cursor, hide or reverse what stands there is shown as its escape."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line end; \x1b begins the sequences that a terminal obeys
    "\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing: "a\u202egnp.exe" would read "aexe.png"
    "\u2028\u2029\ufeff\ud800-\udfff]"  # other line ends, the byte order mark, and halves of surrogate pairs, which no terminal can be sent
)


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` with control characters, marks of direction and lone surrogates as escapes (\\x1b).

    Args:
        one_line: line ends too, so that a file name cannot pretend to be the next message.
    """
    text = _UNPRINTABLE.sub(_escape, text)
    return text.replace("\n", "\\n") if one_line else text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
