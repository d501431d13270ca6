"""Pictures that a method draws of held-out rows while it trains: RUN/pictures/step-00001200-reconstructions.png with one sentence beside it, for the
report (`headstart.report.pictures` holds the contract)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.core.files import atomic_write

MAX_BYTES = 256 * 2**10
"""A larger PNG becomes a JPEG, of half the size where that is too large as well."""
SMALLEST_TILE = 96
"""Pixels of a side: smaller images are enlarged, each pixel to a square."""


@dataclass(frozen=True)
class Drawing:
    """Something to look at.

    Attributes:
        name: in words joined by '-'.
        caption: one sentence on what is to be seen.
        rows: uint8 [n, height, width, 3], shown one below the other.
    """

    name: str
    caption: str
    rows: np.ndarray


def write_drawing(run: Path, step: int, drawing: Drawing) -> None:
    """Writes one picture into the run's folder. Without Pillow there is none."""
    try:
        from PIL import Image
    except ImportError:
        return
    folder = run / "pictures"
    folder.mkdir(exist_ok=True)
    picture = Image.fromarray(stacked(drawing.rows))
    name = f"step-{step:08d}-{drawing.name}"
    data, suffix = encoded(picture, "PNG"), "png"
    while len(data) > MAX_BYTES:
        data, suffix = encoded(picture, "JPEG", quality=85), "jpg"
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))
    with atomic_write(folder / f"{name}.{suffix}") as file:
        file.write(data)
    with atomic_write(folder / f"{name}.txt") as file:
        file.write(drawing.caption.encode())


def stacked(rows: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]: rows below each other, a grey line between them, small ones enlarged by a whole factor."""
    times = -(-SMALLEST_TILE // rows.shape[1])
    enlarged = rows.repeat(times, axis=1).repeat(times, axis=2)
    lined = np.pad(enlarged, ((0, 0), (0, 2), (0, 0), (0, 0)), constant_values=128)
    return lined.reshape(-1, *lined.shape[2:])[:-2]


def encoded(picture: object, form: str, **settings: int) -> bytes:
    """The bytes of a file; the same for the same pixels."""
    stream = io.BytesIO()
    picture.save(stream, format=form, **settings)  # type: ignore[attr-defined]
    return stream.getvalue()
