"""A look at prepared images: what `headstart peek STORE` prints, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from headstart.core.errors import UsageError
from headstart.core.files import atomic_write
from headstart.core.places import refuse_file
from headstart.data.image.form import Content
from headstart.data.image.head import Tile, decode_records
from headstart.data.image.store import ImageStore, open_image_store
from headstart.data.permute import draw

COLUMNS, SHEET_IMAGES = 10, 60
SHEET_MARK = b"headstart: contact sheet"
"""In a chunk before the pixels: only such a file is written over."""
MIN_SIDE, MAX_SIDE = 48, 128
"""Pixels of an image's side on the sheet."""


@dataclass
class PeekedImage:
    """An image drawn from a store."""

    index: int
    file: str
    record: int
    """Its number in a file of many images; 0 where the file is the image."""
    split: Literal["train", "held_out", "dropped"]
    label: str | None
    smallest: float
    largest: float


@dataclass
class Peek:
    """What `peek` returns: lines about the whole store, then samples."""

    kind: ClassVar[str] = "image"
    report: list[str]
    images: list[PeekedImage]
    sheet: str | None
    """The PNG file with the images, if one was asked for."""


def peek(store: ImageStore | str | Path, n: int = 3, seed: int = 0, sheet: Path | None = None) -> Peek:
    """Draw `n` images; the same seed draws the same.

    Args:
        sheet: a PNG file to write, with up to 60 images drawn likewise.

    Raises BadInput if the store cannot be opened, UsageError if n is below 1 or the sheet is no .png file.
    """
    if n < 1:
        raise UsageError(f"{n} images to look at.", "Give at least 1.")
    store = store if isinstance(store, ImageStore) else open_image_store(store)
    if sheet is not None:
        if sheet.suffix.lower() != ".png":
            raise UsageError(f"The contact sheet {sheet} is no .png file.", "Give a name that ends in .png.")
        refuse_file(sheet, "--sheet", made=True, ours=("contact sheet", SHEET_MARK))
        sheet.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(sheet) as file:
            about = PngInfo()
            about.add_text("Software", "headstart: contact sheet")
            contact_sheet(store, draw(len(store), SHEET_IMAGES, seed)).save(file, format="PNG", pnginfo=about)
    images = [_peeked(store, int(index)) for index in draw(len(store), n, seed)]
    return Peek(store.report(), images, None if sheet is None else str(sheet))


def _peeked(store: ImageStore, index: int) -> PeekedImage:
    file, record = store.source(index)
    pixels, label = store.read([index]), int(store.labels[index])
    split: Literal["train", "held_out", "dropped"] = "dropped" if store.dropped[index] else "held_out" if store.held_out[index] else "train"
    return PeekedImage(index, file, record, split, store.classes[label] if label >= 0 else None, float(pixels.min()), float(pixels.max()))


def contact_sheet(store: ImageStore, indices: np.ndarray) -> Image.Image:
    """The images with these numbers as one picture, ten in a row."""
    return _sheet(store.read(indices), store, COLUMNS)


def neighbour_sheet(rows: Sequence[Sequence[Content | Path | Tile]], store: ImageStore, path: Path) -> None:
    """Writes a PNG with a row of images for each row given, all in the form of the store."""
    pixels = decode_records([record for row in rows for record in row], store.form)
    with atomic_write(path) as file:
        _sheet(pixels, store, len(rows[0])).save(file, format="PNG")


def _sheet(pixels: np.ndarray, store: ImageStore, columns: int) -> Image.Image:
    pictures = [Image.fromarray(colours) for colours in as_colours(pixels, store)]
    side = min(max(store.height, MIN_SIDE), MAX_SIDE)
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * (side + 2), -(-len(pictures) // columns) * (side + 2)), (128, 128, 128))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (column * (side + 2) + 1, row * (side + 2) + 1))
    return sheet


def as_colours(images: np.ndarray, store: ImageStore) -> np.ndarray:
    """uint8 [n, height, width, 3] of [n, channels, height, width]: to be looked at.

    8-bit grey and colour are shown as they are. Of others the first three channels (or the only one) are, each from 2.5 deviations of the store below
    its mean to 2.5 above.
    """
    chosen = [0, 1, 2] if store.channels >= 3 else [0, 0, 0]
    shown = images[:, chosen]
    if store.form.dtype != "uint8" or store.form.colour == "bands":
        mean, reach = store.mean[chosen, None, None], np.maximum(2.5 * store.std[chosen, None, None], 1e-12)
        shown = np.clip((shown - mean) / reach * 127.5 + 127.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(shown.transpose(0, 2, 3, 1))
