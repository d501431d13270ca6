"""Tiles with a file for each band, as Sentinel-2, Landsat and BigEarthNet come: which files make a tile (`ImageConfig.band_files`), and their bands
as one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import whole_planes
from headstart.data.image.form import Unusable
from headstart.data.image.opening import Image

BETWEEN = "_-. "
"""What may stand between the name of a tile and that of a band."""


def cut_name(path: Path, endings: Sequence[str]) -> tuple[str, str] | None:
    """(what names the tile, with what stands between; the band) of a file; None where its name ends in none of these."""
    for ending in sorted(endings, key=len, reverse=True):  # B8A before A
        rest = path.stem.removesuffix(ending)
        if rest != path.stem and (not rest or rest[-1] in BETWEEN):
            return rest, ending
    return None


def tile_of(path: Path, rest: str) -> Path:
    """What a tile is called: its folder, where that has its name or no other."""
    name = rest.rstrip(BETWEEN)
    return path.parent if name in ("", path.parent.name) else path.parent / name


def first_band(path: Path, rest: str, endings: Sequence[str]) -> Path:
    """The file of the first band of the tile that a file is of another of, there or not."""
    return path.with_name(f"{rest}{endings[0]}{path.suffix}")


def stacked(contents: Sequence[bytes], names: Sequence[str], config: ImageConfig) -> np.ndarray:
    """[bands, height, width], masked where files say that there is no data.

    Args:
        contents: the bytes of each band's file; names: of the bands.

    Raises:
        Unusable: a file is no image of one band, or they do not fit each other.
    """
    single = replace(config, band_files=(), resample_bands=False, mode="bands")
    planes: list[Any] = []
    for content, name in zip(contents, names, strict=True):
        try:
            found = whole_planes(content, single)
        except Unusable as error:
            raise Unusable(f"has a band {name} that {error.what}", error.mend) from error
        if len(found) != 1:
            raise Unusable(f"has {len(found)} bands in the file of {name}.", "Leave out --image.band-files: its files are images of several bands.")
        planes.append(found[0])
    if len(types := _of_each([str(plane.dtype) for plane in planes], names)) > 1:
        raise Unusable(f"has bands of different types: {', '.join(types)}.", "Write all in one type.")
    sizes = _of_each([f"{plane.shape[1]} x {plane.shape[0]}" for plane in planes], names)
    if len(sizes) > 1 and not config.resample_bands:
        mend = "Leave bands of other sizes out, or enlarge them to the largest: --image.resample-bands."
        raise Unusable(f"has bands of different sizes: {', '.join(sizes)}.", mend)
    height, width = (max(plane.shape[axis] for plane in planes) for axis in (0, 1))
    planes = [_enlarged(plane, height, width) for plane in planes]
    return np.ma.stack(planes) if any(map(np.ma.is_masked, planes)) else np.stack([np.ma.getdata(plane) for plane in planes])


def _of_each(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Each different word, after the first name that it is of."""
    first: dict[str, str] = {}
    for word, name in zip(words, names, strict=True):
        first.setdefault(word, name)
    return [f"{name} {word}" for word, name in first.items()]


def _enlarged(plane: Any, height: int, width: int) -> Any:
    """A band at another size, bicubic; where it has no data by the nearest pixel."""
    if plane.shape == (height, width):
        return plane
    values = np.ma.getdata(plane)
    found = np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    if values.dtype.kind in "ui":
        limits = np.iinfo(values.dtype)
        found = np.rint(found).clip(limits.min, limits.max)
    found = found.astype(values.dtype)
    if not np.ma.is_masked(plane):
        return found
    gaps = Image.fromarray(np.ma.getmaskarray(plane).astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    return np.ma.masked_array(found, np.asarray(gaps) > 0)
