"""Small pictures whose pixels are known, as the bytes of files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import Decoded, decode, form_of
from headstart.data.image.form import Content


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: colours that change slowly, as in photographs, different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x * a + y * b + c) for a, b, c in rng.uniform([0.02, 0.02, 0], [0.2, 0.2, 6], (3, 3))]
    return np.stack(waves, -1).round().astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file with this picture."""
    stream = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(stream, format, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def decoded(content: Content, first: Content | None = None, **settings: Any) -> Decoded:
    """The image in a store that begins with `first` (None: with itself)."""
    return decode(content, form_of(content if first is None else first, ImageConfig(**settings)))


def write_folder(folder: Path, classes: int = 2, each: int = 8, size: int = 20) -> Path:
    """A folder of PNG files in a folder for each class; a class has a colour of its own, so that it can be told."""
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            pixels = smooth(size, size, seed=100 * label + number)
            pixels[..., label % 3] //= 4
            (place / f"{number:03d}.png").write_bytes(encoded(pixels))
    return folder
