"""The pictures of a run, and the small contract for methods that make some.

A method (or a tool beside it) puts PNG or JPEG files into RUN/pictures/:

    RUN/pictures/step-00001200-reconstructions.png      the step, eight digits, then a name in words joined by '-'
    RUN/pictures/step-00001200-reconstructions.txt      optional: one sentence on what is to be seen (UTF-8, at most 500 characters)

- At most `MAX_PICTURE_BYTES` (256 KiB) each, at most `MAX_SIDE` pixels a side; a grid of 8 x 3 images of 96 pixels is about 150 KiB.
- The report shows, for each name, the newest picture and the first, so that progress is seen; at most `MAX_PICTURES` a run.
- They are embedded as they are. What is no PNG or JPEG by its first bytes, too large, or reached through a link, is named and left out.
- A picture is written beside and renamed (`core.files.atomic_write`): the report may read while the run goes on.
- A run that continues writes the same names again; nothing else of the run depends on this folder.
"""

from __future__ import annotations

import base64
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import BadInput, HeadstartError
from headstart.core.files import own_file, read_bounded

MAX_PICTURE_BYTES = 256 * 2**10
MAX_SIDE = 4096
MAX_PICTURES = 8
MAX_CAPTION = 500
MAX_LISTED = 2000
NAME = re.compile(r"step-(\d{8})-([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.(png|jpg|jpeg)")


@dataclass(frozen=True)
class Picture:
    """One picture, ready for a page."""

    step: int
    name: str
    caption: str
    uri: str
    """data: URI."""
    width: int
    height: int


def run_pictures(run: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of a run, and a sentence on each that was left out."""
    folder = run / "pictures"
    if not folder.is_dir() or folder.is_symlink():
        return [], []
    by_name: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.iterdir())[:MAX_LISTED]:
        if match := NAME.fullmatch(path.name):
            by_name.setdefault(match[2], []).append((int(match[1]), path))
    shown: list[Picture] = []
    left_out: list[str] = []
    for name, files in by_name.items():
        for step, path in files[:1] if len(files) == 1 else (files[0], files[-1]):
            if len(shown) == MAX_PICTURES:
                break
            try:
                shown.append(_read(folder, path.name, step, name))
            except HeadstartError as error:
                left_out.append(str(error).splitlines()[0])
    return shown, left_out


def _read(folder: Path, file_name: str, step: int, name: str) -> Picture:
    data = read_bounded(own_file(folder, file_name), MAX_PICTURE_BYTES, "picture of a report")
    kind, width, height = picture_size(data, folder / file_name)
    caption = ""
    with suppress(HeadstartError):
        beside = own_file(folder, Path(file_name).with_suffix(".txt").name)
        caption = read_bounded(beside, 4 * MAX_CAPTION, "caption").decode("utf-8", "replace")[:MAX_CAPTION]
    return Picture(step, name.replace("-", " "), caption, data_uri(data, kind), width, height)


def picture_size(data: bytes, path: Path) -> tuple[str, int, int]:
    """(media type, width, height) from the header of a PNG or JPEG.

    Raises:
        BadInput: it is neither, or larger than `MAX_SIDE`.
    """
    size = _png_size(data) or _jpeg_size(data)
    if size is None:
        raise BadInput("is no PNG or JPEG.", "Write pictures as PNG or JPEG.", file=path)
    if not all(0 < side <= MAX_SIDE for side in size[1:]):
        raise BadInput(f"has {size[1]} x {size[2]} pixels.", f"A side has at most {MAX_SIDE}.", file=path)
    return size


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _png_size(data: bytes) -> tuple[str, int, int] | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return None
    return "image/png", *struct.unpack(">II", data[16:24])


def _jpeg_size(data: bytes) -> tuple[str, int, int] | None:
    """Walks the segments to the frame header (ITU T.81, annex B)."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    place = 2
    while place + 9 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if data[place] != 0xFF or length < 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return "image/jpeg", width, height
        place += 2 + length
    return None
