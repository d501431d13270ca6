"""From the bytes of a page to its characters: UTF-8 first, then what the page declares, then what is detected, else the page is dropped.

UTF-8 comes before the declaration because text in another encoding is almost never valid UTF-8 by accident, while wrong declarations are common.
"""

from __future__ import annotations

import codecs
import re

from headstart.core.errors import MissingDependency
from headstart.curate.extract.document import PageDropped

BINARY = (b"%PDF-", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"PK\x03\x04", b"\x1f\x8b", b"\x7fELF", b"RIFF", b"OggS", b"ID3", b"MZ\x90")
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\f\r\x1b") + b"\x7f"
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
HALF = re.compile("[\ud800-\udfff]")
SUPERSETS = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
"""What browsers read for a declared encoding: a superset that the pages really use (the WHATWG Encoding Standard)."""
ENCODINGS = re.compile(r"utf-8|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|gb\w+|big5\w*|euc_\w+|shift_\w+|iso2022_\w+|hz|johab|tis-620|ascii|utf-16.*")
"""Encodings that pages use. Python knows others that are none of text, or slow ("punycode")."""
DECLARED = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})|^\s*<\?xml[^>]{0,100}encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})""")
HEAD = 4096
"""Bytes in which a declaration is looked for."""
SAMPLE = 32_768
"""Bytes of text that the detection sees: its time grows with them."""
MOSTLY = 0.01
"""A page with at most this share of broken characters among those beyond ASCII is UTF-8 all the same; they become U+FFFD."""


def decode(data: bytes, content_type: str = "") -> tuple[str, str]:
    """The characters of a page without control characters, and the name of the encoding.

    Args:
        content_type: the HTTP header, which may name the encoding.

    Raises:
        PageDropped: "empty", "not html" (a known binary format, or full of zero bytes) or "charset" (no encoding fits).
    """
    start = data[:HEAD]
    if not start.strip():
        raise PageDropped("empty", "The page has no content.")
    if start.lstrip().startswith(BINARY):
        raise PageDropped("not html", f"The page is a binary file (it begins with {start[:4]!r}).")
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return _cleaned(data[len(mark) if name == "utf-8" else 0 :].decode(name, "replace")), name
    if start.count(0) * 100 > len(start):
        return _without_mark(data)
    data = data.translate(None, CONTROLS)
    declared = _declared(data, content_type)
    if b"\x1b" in data:  # ISO-2022: its bytes are ASCII, so they would pass as UTF-8
        if declared.startswith("iso2022") and (text := _strict(data, declared)) is not None:
            return text, declared
        data = data.replace(b"\x1b", b"")
    text = _utf8(data)
    if text is not None:
        return text, "utf-8"
    if declared not in ("", "utf-8") and not _doubtful(data, declared) and (text := _strict(data, declared)) is not None:
        return text, declared
    return _guessed(data)


def ordinary(data: bytes) -> bytes | None:
    """What `decode` reads as UTF-8 if its bytes are valid; None of a page of which something else may decide. It lets the common page be looked at
    without being read into characters."""
    start = data[:HEAD]
    if not start.strip() or start.lstrip().startswith(BINARY) or start.count(0) * 100 > len(start):
        return None
    if data.startswith(tuple(MARKS)) or b"\x1b" in data:
        return None
    return data.translate(None, CONTROLS)


def clean(text: str) -> str:
    """Text given as characters: without control characters, lone surrogates as U+FFFD."""
    return _cleaned(sound(text))


def sound(text: str) -> str:
    """The text with U+FFFD for each half of a character (a lone surrogate: JSON can spell it, no encoding can hold it). The rule on broken Unicode
    looks for U+FFFD, so such a text goes by it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return HALF.sub("\ufffd", text)
    return text


def _cleaned(text: str) -> str:
    return CONTROL.sub("", text) if CONTROL.search(text) else text


def _without_mark(data: bytes) -> tuple[str, str]:
    """UTF-16 without its mark shows as every second byte zero; other zero bytes are a binary file."""
    even, odd = data[:HEAD:2].count(0), data[1:HEAD:2].count(0)
    half = len(data[:HEAD]) // 4
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > half and others * 10 < zeros and (text := _strict(data[: len(data) // 2 * 2], name)) is not None:
            return _cleaned(text), name
    raise PageDropped("not html", "The page is full of zero bytes: a binary file.")


def _declared(data: bytes, content_type: str) -> str:
    """The encoding that the header or else the page names, by Python's name; "" when none is named or it is unknown."""
    found = DECLARED.search(content_type.encode("latin-1", "replace")) or DECLARED.search(data[:HEAD])
    if found is None:
        return ""
    try:
        info = codecs.lookup((found[1] or found[2]).decode())
    except (LookupError, ValueError):
        return ""
    return SUPERSETS.get(info.name, info.name) if ENCODINGS.fullmatch(info.name) else ""


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 3:  # a crawler cut the page inside a character
            return data[: error.start].decode()
    if data.count(b"\xef\xbf\xbd") > 1000:
        return None
    text = data.decode("utf-8", "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    return text if text.count("\ufffd") <= MOSTLY * beyond else None


def _strict(data: bytes, name: str) -> str | None:
    """The characters, if every byte belongs to one; a character that the crawler cut at the end may be missing."""
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        if error.start < max(1, len(data) - 3):
            return None
        data = data[: error.start]
    except (LookupError, ValueError):
        return None
    return _strict(data, name)


def _doubtful(data: bytes, declared: str) -> bool:
    """Whether a declaration of Western European stands before text of which more than a fifth is beyond ASCII: no such language is written so."""
    if declared != "cp1252":
        return False
    text = re.sub(rb"<[^<>]*>|\s", b"", data)
    return len(text.translate(None, bytes(range(128)))) * 5 > len(text)


def _guessed(data: bytes) -> tuple[str, str]:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise MissingDependency("charset-normalizer", "curate", "Detecting the encoding of a page") from None
    sample = b"\n".join(line for line in re.sub(rb"<[^<>]*>", b" ", data[: 16 * SAMPLE]).splitlines() if not line.isascii())[:SAMPLE]
    best = from_bytes(sample, steps=5, chunk_size=512).best()
    if best is not None:
        name = codecs.lookup(best.encoding).name
        name = SUPERSETS.get(name, name)
        if (text := _strict(data, name)) is not None:
            return _cleaned(text), name
    raise PageDropped("charset", "The page's encoding is none that it declares, and none could be detected.")
