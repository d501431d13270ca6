"""What all methods on images share: they read an `ImageStore`, and augment and normalise its images on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.vit import ViT, ViTConfig
from headstart.backbones.vit_blocks import Block
from headstart.core.errors import BadInput
from headstart.data.image.augment import normalize, random_resized_crop_flip, resize
from headstart.data.image.config import ImageConfig, source_config
from headstart.data.image.describe import as_colours
from headstart.data.image.form import Content
from headstart.data.image.head import decode_records, write_first_images
from headstart.data.image.prepare import input_differences
from headstart.data.image.reading import KEY, USUAL, Reading
from headstart.data.image.rows import ImageRows
from headstart.data.image.sources import find_images
from headstart.data.image.store import ImageStore, open_image_store, prepare_images
from headstart.engine.method import Batch, Context, Method
from headstart.engine.pictures import Drawing
from headstart.interop.vit import Weights

USUAL_SIZE = 224
"""Pixels a side that networks were trained on for most of their training; DINOv2 saw 518 at its end."""


class EncoderSizes(Protocol):
    """What the Config of a method on images says of its encoder."""

    image_size: int
    patch_size: int
    hidden_size: int
    num_layers: int
    num_heads: int


def encoder_shape(sizes: EncoderSizes, channels: int, **more: Any) -> ViTConfig:
    """The encoder of a method for images of so many channels; `more`: of `ViTConfig`."""
    return ViTConfig(
        image_size=(sizes.image_size, sizes.image_size),
        patch_size=sizes.patch_size,
        channels=channels,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        **more,
    )


def sizes_for(found: Weights, data: ImageConfig) -> dict[str, dict[str, Any]]:
    """`suggestions_of` weights from elsewhere: images as large as those that they saw, but no larger than `USUAL_SIZE`, and stored so. At the size
    of a small preset a network with patches of 16 would see four of them."""
    if found.grid is None or found.grid[0] != found.grid[1]:
        return {}
    size = min(found.grid[0], max(1, USUAL_SIZE // found.patch_size)) * found.patch_size
    return {"method": {"image_size": size}, "image": {"size": max(size, data.size)}}


class ImageMethod(Method):
    """A method whose batch is `images` [batch, channels, height, width] in the store's own type.

    Args:
        config: the method's own Config; has `image_size`, the height and width that the network sees.
        store: the prepared images: channels, size, statistics.
        init: an export to continue from.

    Attributes:
        encoder: the network that is kept; a method whose encoder lies elsewhere overrides `backbone`, `embed` and `compile_parts`.
        mean, std: float32 [channels], of the training images, in the store's values.
        crop_scale, crop_ratio, flip: of `augmented`; MAE's and DropPos's values, a method with others sets its own.
    """

    DataConfig = ImageConfig
    data_group = "image"
    part_metric = "pixel_loss"
    encoder: ViT
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    picture_name: ClassVar[str] = "reconstructions"
    picture_caption: ClassVar[str] = ""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Any, store: ImageStore, init: Path | None = None) -> None:
        super().__init__()
        if (check := getattr(config, "check", None)) is not None:
            check()
        self.config = config
        self.store = store
        self.register_buffer("mean", torch.tensor(store.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(store.std, dtype=torch.float32), persistent=False)

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: ImageConfig) -> ImageStore:
        return prepare_images(list(sources), out, data)

    @classmethod
    def rows(cls, store: ImageStore, config: Any, split: Literal["train", "held_out"] = "train") -> ImageRows:
        return ImageRows(store, split)

    @classmethod
    def smoke_source(cls, sources: Sequence[str | Path], folder: Path, data: ImageConfig, records: int) -> tuple[list[str], ImageConfig]:
        write_first_images(sources, folder / "images", data, records)
        few = dataclasses.replace(data, held_out_share=0.1, storage="decoded", band_files=(), resample_bands=False)  # tiles are one file each there
        return [str(folder / "images")], few

    @classmethod
    def open_store(cls, folder: Path) -> ImageStore:
        return open_image_store(folder)

    @classmethod
    def source_changes(cls, store: ImageStore, sources: Sequence[str | Path]) -> list[str]:
        try:
            return input_differences(store, find_images(sources, source_config(store.manifest["preparation"])))
        except BadInput as error:  # they are gone
            return [str(error).splitlines()[0]]

    def reload(self, folder: Path) -> ImageMethod:
        return type(self)(self.config, self.store, init=folder)

    @property
    def augments(self) -> bool:
        return self.crop_scale[0] < 1 or self.flip > 0

    def augmented(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, channels, image_size, image_size], normalised: a random part of each image, half of them mirrored; the whole where the
        settings neither crop nor mirror."""
        if not self.augments:
            return self.plain(batch)
        size = self.config.image_size
        cut = random_resized_crop_flip(batch["images"], ctx.rng, size, self.crop_scale, self.crop_ratio, self.flip)
        return normalize(cut, self.mean, self.std)

    def plain(self, batch: Batch) -> Tensor:
        """float32 [batch, channels, image_size, image_size], normalised: the whole of each image."""
        return normalize(resize(batch["images"], self.config.image_size), self.mean, self.std)

    def encoder_input(self, batch: Batch, ctx: Context) -> Tensor:
        """[batch, channels, height, width]: the images of a training step as the encoder gets them."""
        return self.augmented(batch, ctx)

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        encoder = cast(ViT, self.backbone())
        return encoder.pool(encoder(self.encoder_input(batch, ctx)), pooling)

    def backbone(self) -> nn.Module:
        return self.encoder

    def embed(self, batch: Batch) -> Tensor:
        """[batch, dim]: the mean of all tokens of the whole image."""
        return self.encoder.pool(self.encoder(self.plain(batch)))

    def compile_parts(self) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                module.compile()

    def pictures(self, batch: Batch, ctx: Context) -> Tensor | None:
        """float32 [batch, channels, height, width], normalised: what `picture_caption` says, panel beside panel; None: nothing to draw."""
        return None

    def drawings(self, batch: Batch, ctx: Context) -> list[Drawing]:
        drawn = self.pictures(batch, ctx)
        if drawn is None:
            return []
        values = (drawn.float() * self.std[:, None, None] + self.mean[:, None, None]).cpu().numpy()
        if self.store.dtype.kind == "u":
            values = values.round().clip(0, np.iinfo(self.store.dtype).max)
        return [Drawing(self.picture_name, self.picture_caption, as_colours(values.astype(self.store.dtype), self.store))]

    def encode(self, records: Sequence[Content | str | Path]) -> Batch:
        """Images (files, their bytes, or arrays as in .npy files) as a batch, in the form of the store: for probes and embeddings.

        Raises:
            BadInput: one of them cannot be used.
        """
        return {"images": torch.from_numpy(decode_records(records, self.store.form))}

    def preprocessor(self) -> dict[str, Any]:
        """preprocessor_config.json of an export: what transformers' image processor of ViT does to equal `plain`; and how files are read, where that
        is not the usual way.

        Pixels of 8 bits are scaled to 0..1 there, so mean and deviation are too.
        """
        scale = 255.0 if self.store.dtype == np.uint8 else 1.0
        size = self.config.image_size
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 3,  # bicubic
            "do_rescale": scale != 1.0,
            "rescale_factor": 1 / scale,
            "do_normalize": True,
            "image_mean": [float(value) / scale for value in self.store.mean],
            "image_std": [float(value) / scale or 1.0 for value in self.store.std],
            **({KEY: said} if (said := self.reading().as_json()) else {}),
        }

    def reading(self) -> Reading:
        """How the files of its images were read; a store in memory has none."""
        form = getattr(self.store, "form", None)
        return USUAL if form is None else Reading.of(form, self.store.manifest["preparation"])
