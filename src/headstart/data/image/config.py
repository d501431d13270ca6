"""How images become a store. The flags are `--image.NAME`; the resolved values are in the store's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headstart.core.errors import UsageError

Mode = Literal["auto", "rgb", "grey", "bands"]
Fit = Literal["crop", "squash", "pad"]
Layout = Literal["auto", "channels-first", "channels-last"]
Storage = Literal["decoded", "encoded"]

MAX_SIZE = 4096
MAX_MEGAPIXELS = 178.0
"""Pillow itself refuses larger pictures."""
HOW_ONLY = ("workers", "max_megapixels", "on_bad_input", "max_bad_share")
"""Settings that say how a store is made, not what it holds."""
NEWER: dict[str, Any] = {"tile": None, "nodata": None, "max_nodata_share": 0.1, "band_files": [], "resample_bands": False}
"""Settings that stores of an earlier version do not state."""


@dataclass
class ImageConfig:
    """Preparation of images. Two runs with equal values and equal files write equal bytes."""

    size: int = 64
    """Height and width of the stored images, in pixels. Random crops are cut from them, so it may be larger than what the network sees."""

    fit: Fit = "crop"
    """What becomes of an image that is not square. crop: its shorter side becomes `size`, and the middle is kept. squash: both sides do.
    pad: its longer side does, and the rest is filled with zeros."""

    mode: Mode = "auto"
    """What the channels are. rgb: three colours. grey: one, colour images are converted. bands: as many as the files have, all the same number.
    auto: what the first image has; a colour image in a store that is grey for that reason is bad input."""

    bands: tuple[int, ...] = ()
    """Which bands of files with many are kept, counted from 1, in this order. None: all."""

    band_files: tuple[str, ...] = ()
    """Where a tile has a file for each band (Sentinel-2, Landsat, BigEarthNet): what their names end in, in the order of the bands. B02 B03 B8A makes
    one image of t_B02.tif, t_B03.tif and t_B8A.tif. None: a file is an image."""

    resample_bands: bool = False
    """With band_files: enlarge bands of fewer pixels to the size of the largest (bicubic). Otherwise bands of different sizes are bad input."""

    layout: Layout = "auto"
    """Where arrays (.npy, .npz, TIFF) of three axes have their channels. auto: on the one of the first and the last axis that is shorter."""

    image_field: str | None = None
    """Column of .parquet and .csv files, array of .npz files, that holds the images. None: "image", or the only array that can be images."""

    label_field: str = "label"
    """Column with the class; of .npz files the array with it, or the one whose name has "labels" where that of the images has "images"."""

    tile: int | None = None
    """Cut every image into windows of so many pixels a side, beside each other; the last of a row or column is moved inwards. Each becomes an image
    of its own. For scenes and scans: with `tile` equal to `size` pixels stay as they are. None: images are taken whole."""

    nodata: str | None = None
    """What pixels without data hold in every band, a number or nan. They are filled with the mean of their band in the image, and left out of the
    statistics. None: as a GeoTIFF says itself."""

    max_nodata_share: float = 0.1
    """Images and windows with a larger share of pixels without data are left out, and counted."""

    animated: Literal["refuse", "first"] = "refuse"
    """A file of several pictures (animated GIF, many pages): bad input, or its first one."""

    storage: Storage = "decoded"
    """decoded: pixels of `size`, nothing is left to do while training. encoded: the files' own bytes, decoded in threads while training; for large
    photographs about a tenth of the disk."""

    held_out_share: float = 0.05
    """Share of images, chosen by the hash of their content, kept for validation. 0: none."""

    duplicates: Literal["drop", "keep"] = "drop"
    """Of images with the same stored pixels: train on the first only, or on all. Those of held-out images are never trained on."""

    on_bad_input: Literal["stop", "quarantine"] = "stop"
    """stop: the first bad image ends the preparation. quarantine: write it to quarantine.jsonl and go on."""

    max_bad_share: float = 0.05
    """With quarantine: stop after all when more than this share of the images is bad."""

    max_megapixels: float = 89.0
    """Largest image, in million pixels; decided from its header, before memory is taken."""

    workers: int | None = None
    """Threads that decode. None: one a core. Does not change the result."""

    def __post_init__(self) -> None:
        require(1 <= self.size <= MAX_SIZE, f"--image.size is {self.size}.", f"Give 1 to {MAX_SIZE:,} pixels.")
        require(all(band >= 1 for band in self.bands), f"--image.bands are {self.bands}.", "They are counted from 1.")
        require(len(set(self.bands)) == len(self.bands), f"--image.bands are {self.bands}.", "Give each once.")
        chosen = self.bands and self.mode in ("rgb", "grey")
        require(not chosen, f"--image.bands are given, and --image.mode {self.mode}.", "Give --image.mode bands.")
        files = self.band_files
        once = all(files) and len(set(files)) == len(files)
        require(once, f"--image.band-files are {files}.", "Give what the names of a band's files end in, each once.")
        require(not (files and self.bands), "--image.bands and --image.band-files are both given.", "Name the files of the bands that you want.")
        require(not files or self.layout == "auto", f"--image.layout is {self.layout}.", "Of files of single bands there is none: leave it out.")
        encoded = self.storage == "encoded"
        require(not (files and encoded), "--image.band-files have no encoded form.", "Leave out --image.storage encoded.")
        require(bool(files) or not self.resample_bands, "--image.resample-bands is for --image.band-files.", "Leave it out.")
        require(self.tile is None or 1 <= self.tile <= MAX_SIZE, f"--image.tile is {self.tile}.", f"Give 1 to {MAX_SIZE:,} pixels.")
        require(self.tile is None or not encoded, "--image.tile cuts windows, which have no encoded form.", "Leave out --image.storage encoded.")
        require(self.nodata is None or _is_number(self.nodata), f"--image.nodata is {self.nodata!r}.", "Give a number, or nan.")
        require(0 <= self.max_nodata_share <= 1, f"--image.max-nodata-share is {self.max_nodata_share}.", "Give a share from 0 to 1.")
        require(0 <= self.held_out_share < 1, f"--image.held-out-share is {self.held_out_share}.", "Give a share from 0 up to, not including, 1.")
        require(0 <= self.max_bad_share <= 1, f"--image.max-bad-share is {self.max_bad_share}.", "Give a share from 0 to 1.")
        limit = self.max_megapixels
        require(0 < limit <= MAX_MEGAPIXELS, f"--image.max-megapixels is {limit}.", f"Give a number above 0, at most {MAX_MEGAPIXELS:g}.")
        require(self.workers is None or self.workers >= 1, f"--image.workers is {self.workers}.", "Give at least 1.")

    def preparation(self) -> dict[str, Any]:
        """The fields that decide the bytes of the store. What only decides how it is made (workers, limits) is left out, and what is newer than some
        stores where it is at its default."""
        fields = asdict(self) | {"bands": list(self.bands), "band_files": list(self.band_files)}
        for name in HOW_ONLY:
            del fields[name]
        for name, default in NEWER.items():
            if fields[name] == default:
                del fields[name]
        return fields


def source_config(preparation: Mapping[str, Any]) -> ImageConfig:
    """Of a store's preparation what says which files make an image, and where a file of many has them."""
    names = ("image_field", "label_field", "band_files", "resample_bands")
    said = {name: preparation[name] for name in names if name in preparation}
    return ImageConfig(**said | {"band_files": tuple(said.get("band_files", ()))})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require(holds: bool, what: str, mend: str) -> None:
    if not holds:
        raise UsageError(what, mend)
