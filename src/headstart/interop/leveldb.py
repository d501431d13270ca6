"""A table of LevelDB in memory (`table_format.md` there): blocks of sorted keys that share beginnings, each with a checksum; a footer says where the
block of blocks is. What a stranger's table says is believed no further than its bytes reach."""

from __future__ import annotations

from collections.abc import Iterator

from headstart.core.crc32c import crc32c, unmasked

MAX_KEY_BYTES = 2**12
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, in order.

    Raises:
        ValueError, IndexError: it is none, is compressed, or a checksum differs.
    """
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ValueError("its end is missing")
    _, _, at = _handle(data, len(data) - _FOOTER)  # of the table's own facts, of which there are none
    start, size, _ = _handle(data, at)
    read = 0
    for _, handle in _block(data, start, size):
        start, size, _ = _handle(handle, 0)
        if (read := read + size) > len(data):
            raise ValueError("its blocks lie over each other")
        yield from _block(data, start, size)


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block: each key is a number of bytes of the one before, and bytes of its own."""
    end = start + size
    if end + 5 > len(data) - _FOOTER:
        raise ValueError("a block lies past its end")
    if data[end] != 0:
        raise ValueError("it is compressed")
    if crc32c(data[start : end + 1]) != unmasked(int.from_bytes(data[end + 1 : end + 5], "little")):
        raise ValueError("a checksum differs")
    last = end - 4 - 4 * int.from_bytes(data[end - 4 : end], "little")  # before the list of entries that share nothing
    if size < 4 or last < start:
        raise ValueError("a block has no end")
    key, at = b"", start
    while at < last:
        shared, at = number_at(data, at)
        own, at = number_at(data, at)
        length, at = number_at(data, at)
        if shared > len(key) or shared + own > MAX_KEY_BYTES or at + own + length > last:
            raise ValueError("an entry lies past its block")
        key = key[:shared] + data[at : at + own]
        yield key, data[at + own : at + own + length]
        at += own + length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """(start, size) of a block, and where its handle ends."""
    start, at = number_at(data, at)
    size, at = number_at(data, at)
    return start, size, at


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first; and where it ends."""
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number has no end")
