"""WARC files, record by record, from anyone: what cannot be read is named and passed over, and the reader goes on behind it.

A crawl's file is a chain of gzip members, one a record. Memory is bounded by one record, whatever the file says of itself: a length is checked
before a
byte is read for it, and a member that gives far more than its size (a decompression bomb) is left. After damage the reader looks for the next
place where a record begins: a gzip member that opens with "WARC/", or such a line in a file that is not compressed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from headstart.data.compressed import MAX_RATIO

CHUNK = 1 << 18
GZIP = b"\x1f\x8b\x08"
ARROW = {"br": "brotli", "zstd": "zstd"}
"""Encodings of HTTP that Arrow undoes, by its names."""
FREE_BYTES = 1 << 26
"""So much may come out of one gzip member before its ratio is looked at."""
LOOK = 1 << 10
"""Bytes of a member that are there when it is looked at whether a record begins it."""
MAX_HEADER = 1 << 16
"""Bytes of a record's header block, and of the HTTP header in it."""
_VERSION = re.compile(rb"WARC/\d+\.\d+\r?\n")
_OPENING = re.compile(rb"(^|\n)WARC/\d+\.\d+\r?\n")


@dataclass(frozen=True)
class Record:
    """One WARC record.

    Attributes:
        number: of the record in its file, from 0; records that could not be read count.
        headers: WARC header fields, names in lower case.
        block: the payload, for a response the HTTP message.
    """

    number: int
    headers: dict[str, str]
    block: bytes


@dataclass(frozen=True)
class Unreadable:
    """A record, or a stretch of a file, that could not be read.

    Attributes:
        reason: a few words, the same for the same damage: they are counted.
        url: of the record, where its header was read.
    """

    number: int
    reason: str
    url: str = ""


def read_warc(file: BinaryIO, *, max_record: int = 1 << 26) -> Iterator[Record | Unreadable]:
    """The records of a WARC file, compressed (gzip) or not.

    Args:
        file: opened for reading; it need not seek.
        max_record: bytes of a record's block; longer ones come as Unreadable and are passed over without being held.
    """
    stream = _Stream(file)
    number = 0
    while True:
        try:
            headers = _read_headers(stream)
            if headers is None:
                return
            url = headers.get("warc-target-uri", "").strip("<>")
            block = _read_block(stream, headers, max_record)
        except _Oversized:
            yield Unreadable(number, "record too large", url)
        except _Damage as damage:
            yield Unreadable(number, damage.reason, damage.url)
            if not stream.resync():
                return
        else:
            yield Record(number, headers, block)
        number += 1


class _Damage(Exception):
    def __init__(self, reason: str, url: str = "") -> None:
        self.reason, self.url = reason, url


class _Oversized(Exception):
    """The record was passed over; the stream stands behind it."""


def _read_headers(stream: _Stream) -> dict[str, str] | None:
    """The header fields of the next record; None at the end of the file."""
    line = stream.readline()
    while line in (b"\r\n", b"\n"):
        line = stream.readline()
    if not line:
        return None
    if not _VERSION.fullmatch(line):
        raise _Damage("not a WARC record")
    headers: dict[str, str] = {}
    size = 0
    while (line := stream.readline()) not in (b"\r\n", b"\n"):
        size += len(line)
        if not line.endswith(b"\n"):
            raise _Damage("truncated record")
        if size > MAX_HEADER:
            raise _Damage("header too large")
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def _read_block(stream: _Stream, headers: dict[str, str], limit: int) -> bytes:
    url = headers.get("warc-target-uri", "").strip("<>")
    said = headers.get("content-length")
    if said is None:
        raise _Damage("record without length", url)
    if not re.fullmatch(r"\d{1,18}", said):
        raise _Damage("bad length", url)
    length = int(said)
    try:
        if length > limit:
            stream.skip(length)
            raise _Oversized
        return stream.read(length)
    except _Damage as damage:
        raise _Damage(damage.reason, url) from None


class _Stream:
    """The bytes of a file, decompressed where it is gzip, read with limits. Raises _Damage."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._raw = file.read(CHUNK)  # read and not yet decompressed
        self._out = b""  # decompressed and not yet taken, from self._at on
        self._at = 0
        self.gzip = self._raw.startswith(GZIP)
        self._begin_member()

    def readline(self) -> bytes:
        """The next line with its end; what is left of the file, or b""."""
        while (end := self._out.find(b"\n", self._at)) < 0 and len(self._out) - self._at <= MAX_HEADER:
            if not self._more():
                end = len(self._out) - 1
                break
        if end < 0:
            if len(self._out) - self._at > MAX_HEADER:
                raise _Damage("header too large")
            return b""
        line = self._out[self._at : end + 1]
        self._at = end + 1
        return line

    def read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            self._need()
            part = self._out[self._at : self._at + missing]
            self._at += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            self._need()
            step = min(size, len(self._out) - self._at)
            self._at += step
            size -= step

    def _need(self) -> None:
        """At least one byte of a record's block. A block that would run into the next member, where another record begins, lies about its length."""
        if self._at < len(self._out):
            return
        if self.gzip and self._inflate.eof and (self._raw or self._fill()) and self._opens_record(0):
            raise _Damage("bad length")
        if not self._more():
            raise _Damage("truncated record")

    def resync(self) -> bool:
        """Goes to the next place where a record begins; False at the end of the file."""
        if not self._damaged:
            try:
                return self._next_line()
            except _Damage:
                pass
        return self._next_member()

    # raw bytes

    def _fill(self) -> bool:
        data = self._file.read(CHUNK)
        self._raw += data
        return bool(data)

    def _begin_member(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._taken = self._given = 0
        self._damaged = False

    def _more(self) -> bool:
        """More decompressed bytes behind those that are left; False at the end of the file."""
        if not self.gzip:
            if not self._raw and not self._fill():
                return False
            self._append(self._raw)
            self._raw = b""
            return True
        while True:
            if self._inflate.eof:  # the next member, if there is one
                if not self._raw and not self._fill():
                    return False
                self._begin_member()
            if not self._raw and not self._fill():
                self._damaged = True
                raise _Damage("truncated gzip member")
            data = self._decompress()
            if data:
                self._append(data)
                return True

    def _decompress(self) -> bytes:
        try:
            data = self._inflate.decompress(self._raw, CHUNK)
        except zlib.error:
            self._damaged = True
            raise _Damage("damaged gzip member") from None
        rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        self._taken += len(self._raw) - len(rest)
        self._raw = rest
        self._given += len(data)
        if self._given > FREE_BYTES and self._given > MAX_RATIO * self._taken:
            self._damaged = True
            raise _Damage("decompression bomb")
        if not data and not self._inflate.eof and not self._raw:
            return self._inflate.decompress(b"", CHUNK)  # what zlib still holds
        return data

    def _append(self, data: bytes) -> None:
        self._out = self._out[self._at :] + data
        self._at = 0

    def _next_line(self) -> bool:
        """To the next line that opens a record, in this member or a later one."""
        while True:
            if found := _OPENING.search(self._out, self._at):
                self._at = found.start() + len(found[1])
                return True
            self._at = max(self._at, len(self._out) - 16)  # the line may be cut in two
            if not self._more():
                return False

    def _next_member(self) -> bool:
        """To the next gzip member whose first bytes are "WARC/". What only looks like a member within compressed bytes is not one."""
        at = int(self._taken == 0)  # the damaged member itself is not the next one
        while True:
            place = self._raw.find(GZIP, at)
            if place < 0:
                self._raw, at = self._raw[max(at, len(self._raw) - 2) :], 0
                if not self._fill():
                    return False
                continue
            if len(self._raw) - place < LOOK:
                self._raw, place = self._raw[place:], 0
            if self._opens_record(place):  # cut only here: a file of nothing but such signs would be copied for each of them
                return True
            at = place + 1

    def _opens_record(self, place: int) -> bool:
        """Whether a member that begins a record begins at a place of the raw bytes; if so they begin with it."""
        while len(self._raw) - place < LOOK and self._fill():
            pass
        try:
            begins = zlib.decompressobj(wbits=31).decompress(self._raw[place : place + 4 * LOOK], 64).lstrip(b"\r\n").startswith(b"WARC/")
        except zlib.error:
            return False
        if begins:
            self._raw = self._raw[place:]
            self._begin_member()
            self._out, self._at = b"", 0
        return begins


# the HTTP message of a response


@dataclass(frozen=True)
class Response:
    """An HTTP response: status, header fields (names in lower case), body with its transfer and content encodings undone."""

    status: int
    headers: dict[str, str]
    body: bytes


class BadResponse(ValueError):
    """An HTTP message that cannot be read; the text is a reason to count."""


def parse_response(block: bytes, *, max_body: int = 1 << 26) -> Response:
    """The HTTP response in a record's block.

    Raises:
        BadResponse: it is none, or its encoding is damaged, unknown, or gives more than `max_body` bytes.
    """
    end = re.search(rb"\r?\n\r?\n", block[:MAX_HEADER])
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[:MAX_HEADER], b"")
    lines = head.decode("latin-1").splitlines()
    status = re.match(r"HTTP/\d(?:\.\d)?\s+(\d{3})\b", lines[0]) if lines else None
    if status is None:
        raise BadResponse("no HTTP response")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    for encoding in reversed([word.strip().lower() for word in headers.get("content-encoding", "").split(",") if word.strip()]):
        body = _decoded(body, encoding, max_body)
    return Response(int(status[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    """Crawlers often keep the header and store the body whole: what is not chunked stays as it is."""
    parts: list[bytes] = []
    at = 0
    while found := re.match(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,200}\r?\n", body[at : at + 256]):
        size = int(found[1], 16)
        if size == 0:
            return b"".join(parts)
        begin = at + found.end()
        parts.append(body[begin : begin + size])
        at = begin + size
        if body[at : at + 2] == b"\r\n":
            at += 2
        if at >= len(body):
            return b"".join(parts)
    return b"".join(parts) if parts else body


def _decoded(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding in ("identity", "utf-8") or not body:
        return body
    if encoding in ARROW:
        return _by_arrow(body, encoding, limit)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadResponse("unknown content encoding")
    if encoding != "deflate" and not body.startswith(GZIP):
        return body  # decoded by the crawler, the header kept
    for wbits in (47, -15) if encoding == "deflate" else (47,):  # some servers send deflate without its zlib header
        inflate = zlib.decompressobj(wbits=wbits)
        try:
            data = inflate.decompress(body, limit + 1)
        except zlib.error:
            continue
        if len(data) > limit:
            raise BadResponse("decompression bomb")
        return data
    raise BadResponse("damaged content encoding")


def _by_arrow(body: bytes, encoding: str, limit: int) -> bytes:
    """What browsers are sent today. A crawler may have decoded it and kept the header here too."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), ARROW[encoding]) as stream:
            data: bytes = stream.read(limit + 1)
    except (OSError, pa.ArrowException):
        if body.lstrip()[:1] == b"<":
            return body
        raise BadResponse("damaged content encoding") from None
    if len(data) > limit:
        raise BadResponse("decompression bomb")
    return data
