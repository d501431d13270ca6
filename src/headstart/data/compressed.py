"""Compressed files, read as a stream that ends where a decompression bomb begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

FREE_BYTES = 2**28
"""So much may come out of any compressed file."""
MAX_RATIO = 200
"""Beyond that, bytes that come out for each byte read. Text compresses 3- to 10-fold, logs up to 100-fold, zeros 1,000-fold (gzip) to 30,000-fold
(zstd): 30 MB of them are a terabyte."""

PIECE = 2**14
"""Bytes that are asked of a compressed stream at a time."""


class Bomb(ValueError):
    """More came out of a compressed file than text can."""


def refuse_bomb(size: int, read: int) -> None:
    """Raises Bomb where `size` bytes came out of `read` bytes."""
    if size > FREE_BYTES and size > MAX_RATIO * read:
        raise Bomb(f"gives more than {MAX_RATIO} times its size: a decompression bomb, or no text")


class Decompressed:
    """What a compressed file holds.

    Args:
        raw: a binary file that is read.
        compression: "gzip" or "zstd".
        position: says how many bytes of it were read so far.

    `read` gives what lies before damage, or before the place where the file was cut off, but for less than PIECE bytes; then it raises OSError. It
    raises Bomb.
    """

    def __init__(self, raw: Any, compression: str, position: Callable[[], int]) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
        self._position = position
        self._size = 0
        self._damage: OSError | None = None

    def read(self, size: int) -> bytes:
        data = self._sound(size)
        self._size += len(data)
        refuse_bomb(self._size, self._position())
        return data

    def _sound(self, size: int) -> bytes:
        """Up to `size` bytes, in pieces: where one cannot be read Arrow gives nothing of it."""
        pieces: list[bytes] = []
        while size > 0 and self._damage is None:
            try:
                piece: bytes = self._stream.read(min(size, PIECE))
            except OSError as error:
                self._damage = error
                break
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        if self._damage is not None and not pieces:
            raise self._damage
        return b"".join(pieces)
