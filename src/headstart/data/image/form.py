"""What every image of a store is, and what is said of one that cannot be used. No Pillow here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from headstart.data.image.config import Fit, Layout

DTYPES = ("uint8", "uint16", "float32")

Content: TypeAlias = bytes | np.ndarray
"""The bytes of a file, or an array [height, width] or of three axes, one of them the channels."""


class Unusable(Exception):
    """An image that cannot be used: what is wrong, and how to mend it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


@dataclass(frozen=True)
class Form:
    """What every image of a store is, and how one becomes it.

    Attributes:
        channels, size, dtype: of the result, [channels, size, size].
        colour: "rgb", "grey" or "bands".
        converts: colour images may become grey, because a person asked for grey.
        fit, bands, layout, first_frame, max_pixels, nodata: see `ImageConfig`.
        as_bands: every sample of a file is a band with its numbers, also what it calls transparency, because a person asked for bands.
        deep: colours of 16 bits of a PNG keep their numbers; they became 8 bits in stores of earlier versions, and do for networks of 8 bits.
    """

    channels: int
    size: int
    dtype: str
    colour: str
    converts: bool
    fit: Fit
    bands: tuple[int, ...]
    layout: Layout
    first_frame: bool
    max_pixels: int
    nodata: str | None = None
    as_bands: bool = False
    deep: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @property
    def nbytes(self) -> int:
        """Of one image."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"bands": list(self.bands)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Form:
        """Raises ValueError or TypeError where the fields are not those of a form: they may come from a stranger."""
        older = {"as_bands": True, "deep": False}  # 16 bits were read so in every store of an earlier version
        form = cls(**(older | fields | {"bands": tuple(fields["bands"])}))
        numbers = (form.channels, form.size, form.max_pixels, *form.bands)
        if not all(isinstance(number, int) and 0 < number < 2**31 for number in numbers) or form.dtype not in DTYPES:
            raise ValueError("no form of images")
        if form.colour not in ("rgb", "grey", "bands") or not isinstance(form.as_bands, bool) or form.fit not in ("crop", "squash", "pad"):
            raise ValueError("no form of images")
        if not isinstance(form.deep, bool):
            raise ValueError("no form of images")
        return form
