"""What methods on images refuse of their settings before an image is read: a store may take hours. No torch here."""

from __future__ import annotations

from typing import Any

from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig

AT_LEAST_ONE = ("hidden_size", "num_layers", "num_heads", "decoder_hidden_size", "decoder_heads")
AT_LEAST_NONE = ("decoder_layers",)
"""Without blocks a decoder is one linear layer."""


def check_images(config: Any, data: ImageConfig | None = None) -> None:
    """Refuses sizes and chances that no network or augmentation can have.

    Args:
        config: the Config of a method on images.
        data: how raw images will be stored; None: they are stored, or nobody knows.

    Raises:
        UsageError: the first one, by its flag.
    """
    size, patch = config.image_size, config.patch_size
    _refuse(patch < 1, "patch_size", patch, "Give at least 1 pixel.")
    _refuse(size < 1, "image_size", size, "Give at least 1 pixel.")
    if size % patch:
        below, above = size // patch * patch, (size // patch + 1) * patch
        sides = f"{below} or {above}" if below else f"{above}"
        what = f"An image {size} pixels high cannot be cut into patches of {patch} pixels."
        raise UsageError(what, f"The nearest good sides are {sides}; or choose another patch size.")
    for name in AT_LEAST_ONE:
        _refuse(getattr(config, name) < 1, name, getattr(config, name), "Give at least 1.")
    for name in AT_LEAST_NONE:
        _refuse(getattr(config, name) < 0, name, getattr(config, name), "Give at least 0.")
    for width, heads in (("hidden_size", "num_heads"), ("decoder_hidden_size", "decoder_heads")):
        if getattr(config, width) % getattr(config, heads):
            what = f"A width of {getattr(config, width)} cannot be split over {getattr(config, heads)} heads."
            raise UsageError(what, f"Choose a multiple of the number of heads (--method.{_flag(width)}, --method.{_flag(heads)}).")
    if hasattr(config, "crop_smallest"):
        _refuse(not 0 < config.crop_smallest <= 1, "crop_smallest", config.crop_smallest, "Give a share of the image's area, above 0 and at most 1.")
    if hasattr(config, "flip"):
        _refuse(not 0 <= config.flip <= 1, "flip", config.flip, "Give a probability, from 0 to 1.")
    if data is not None and size > data.size:
        raise UsageError(
            f"The network sees {size} x {size} pixels, the images would be stored at {data.size} x {data.size}.",
            f"Give --image.size {size} or more, or lower --method.image-size.",
        )


def patches_of(config: Any) -> int:
    """Patches of an image as the network sees it; of settings that `check_images` let pass."""
    return int(config.image_size // config.patch_size) ** 2


def _refuse(wrong: bool, name: str, value: Any, mend: str) -> None:
    if wrong:
        raise UsageError(f"--method.{_flag(name)} is {value}.", mend)


def _flag(name: str) -> str:
    return name.replace("_", "-")
