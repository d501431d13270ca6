"""JPEG files with less data than their header promises: libjpeg draws the rest in grey, and Pillow says nothing.

A file that was cut off and closed again by some tool, or whose header has another height, decodes like a whole one. What tells it is exact, and costs
a second decoding only where the last pixel has the grey of the missing part: bytes that are put behind the data change the picture of a file that
lacks some, and are passed over by the decoder of one that has all.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import Image

MISSING = 128
"""What libjpeg draws where there is no data: each component at its middle, which is this grey."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The next marker; in a scan 0xff is followed by 0, or is a restart."""
_NOISE = bytes(np.random.default_rng(0).integers(0, 255, 256, dtype=np.uint8))
_MORE = _NOISE + b"".join(b"\xff" + bytes([0xD0 + number % 8]) + _NOISE for number in range(16))
"""Data of no meaning; where a file has restarts the decoder waits for the next one of eight."""


def lacks_data(content: bytes, picture: Any, asked: tuple[int, int]) -> bool:
    """Whether a JPEG has less data than its header says.

    Args:
        content: the file.
        picture: what Pillow loaded of it, mode L or RGB, maybe at a fraction of its size.
        asked: the (width, height) that `draft` was asked for, which decides the fraction.
    """
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    if picture.mode not in ("L", "RGB") or any(value != MISSING for value in (last if isinstance(last, tuple) else (last,))):
        return False
    end = _end_of_scans(content)
    if end is None:
        return False
    again = Image.open(io.BytesIO(content[:end] + _MORE + content[end:]), formats=("JPEG",))
    again.draft(picture.mode, asked)
    again.load()
    return again.size != picture.size or not np.array_equal(np.asarray(again), np.asarray(picture))


def _end_of_scans(content: bytes) -> int | None:
    """Where the end-of-image marker stands that follows the last scan; None where none does."""
    at = 2
    while at + 2 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == END_OF_IMAGE:
            return at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == START_OF_SCAN:
            found = _BEHIND_SCAN.search(content, at)
            if found is None:
                return None
            at = found.start()
    return None
