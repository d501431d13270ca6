"""How a network's images are read from their files, so that what uses it later reads them alike: goes along with an export, in its
preprocessor_config.json, and with what is fine-tuned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig, Mode
from headstart.data.image.decode import form_of
from headstart.data.image.form import Content, Form, Unusable

MODES: dict[int, Mode] = {1: "grey", 3: "rgb"}
"""What so many channels are, where no bands were chosen."""
KEY = "headstart_reading"
"""Of preprocessor_config.json."""


@dataclass(frozen=True)
class Reading:
    """What of `ImageConfig` decides the values that a network sees.

    Attributes:
        bands: which bands of the files are its channels, counted from 1; empty: all.
        layout, nodata, fit, band_files, resample_bands: see `ImageConfig`.
        deep: colours of 16 bits of a PNG are read with their numbers, for the network learned from images of 16 bits.
        as_bands: greys of 16 bits are read with their numbers, also where white is zero: bands were asked for, or the store is of an earlier version.
    """

    bands: tuple[int, ...] = ()
    layout: str = "auto"
    nodata: str | None = None
    fit: str = "crop"
    band_files: tuple[str, ...] = ()
    resample_bands: bool = False
    as_bands: bool = False
    deep: bool = False

    @classmethod
    def of(cls, form: Form, preparation: Mapping[str, Any] | None = None) -> Reading:
        """That of a store, whose preparation says which files make an image."""
        files = {} if preparation is None else preparation
        as_bands = form.as_bands and form.channels == 1 and form.dtype == "uint16"  # otherwise as bands, or no different
        names, enlarged = tuple(files.get("band_files", ())), files.get("resample_bands", False)
        deep = form.deep and form.dtype == "uint16" and not names and max(form.bands, default=form.channels) <= 4  # as many as a PNG may have
        return cls(form.bands, form.layout, form.nodata, form.fit, names, enlarged, as_bands, deep)

    @classmethod
    def from_json(cls, found: Any) -> Reading:
        """The inverse of `as_json`. Raises ValueError where it is something else: it may come from a stranger."""
        bad = ValueError(f"{found!r} says no reading of images")
        if not isinstance(found, dict) or not set(found) <= set(vars(cls())):
            raise bad
        bands, files = found.get("bands", []), found.get("band_files", [])
        if not isinstance(bands, list) or not all(type(band) is int and band < 2**31 for band in bands):
            raise bad
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise bad
        made = cls(**{**found, "bands": tuple(bands), "band_files": tuple(files)})
        known = (made.layout in ("auto", "channels-first", "channels-last"), made.fit in ("crop", "squash", "pad"))
        flags = (made.resample_bands, made.as_bands, made.deep)
        if not all(known) or not isinstance(made.nodata, str | None) or not all(isinstance(flag, bool) for flag in flags):
            raise bad
        try:
            made.config(1)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return made

    def as_json(self) -> dict[str, Any]:
        """What differs from the defaults; empty: nothing."""
        usual, own = vars(USUAL), vars(self)
        changed = {name: value for name, value in own.items() if value != usual[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def config(self, channels: int, size: int = 64) -> ImageConfig:
        """The settings for a network of so many channels that sees this size."""
        own = vars(self) | {"mode": "bands" if self.bands or self.band_files else MODES.get(channels, "bands")}
        del own["as_bands"], own["deep"]
        return ImageConfig(size=size, **own)

    def form(self, first: Content, channels: int, size: int = 64) -> Form:
        """The form that the first image gives. Files that hold the chosen bands alone are taken whole.

        Raises:
            Unusable: it cannot be read, or has another number of channels than the network.
        """
        try:
            found = form_of(first, self.config(channels, size), self.deep)
        except Unusable as error:
            if not self.bands:
                raise
            found = form_of(first, replace(self, bands=()).config(channels, size), self.deep)
            if found.channels != channels:
                raise error from None
        if found.channels != channels:
            mend = "Give images of that kind, or choose bands of theirs: --bands 1 2 3."
            if self.band_files:
                mend = f"Give tiles with a file each for {' '.join(self.band_files)}, or with these bands stacked in one file."
            raise Unusable(f"has {found.channels} channels, the network takes {channels}.", mend)
        return replace(found, as_bands=found.as_bands or self.as_bands)

    def with_bands(self, bands: Sequence[int]) -> Reading:
        """The same, with other bands where some are named."""
        return replace(self, bands=tuple(bands), band_files=(), resample_bands=False) if bands else self


USUAL = Reading()
