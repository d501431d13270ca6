"""mae: masked autoencoding of images (He et al. 2022, arXiv 2111.06377), the baseline for images.

- Three quarters of the patches are hidden, and the encoder never sees them: a quarter of the image costs a quarter.
- A light decoder gets mask tokens for the hidden patches and predicts their pixels, each patch normalised. Only hidden patches are predicted and
  scored, and only seen ones are embedded: the official code does both for all, and throws the rest away.
- Facts are those of facebookresearch/mae (models_mae.py); no code of it is here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import patchify, take, unpatchify
from headstart.backbones.vit_decoder import Decoder
from headstart.core.rng import Rng
from headstart.data.image.store import ImageStore
from headstart.engine.image_method import ImageMethod, encoder_shape, sizes_for
from headstart.engine.method import Batch, Context
from headstart.interop.vit import Weights, load_beside, load_encoder, read_vit, save_vit
from headstart.methods.mae.config import SETTINGS, MAEConfig
from headstart.objectives.patches import Split, normalise_patches, nothing_learnt, patch_errors, random_split, seen_and_drawn
from headstart.objectives.seen import kept_count, warn_if_few

logger = logging.getLogger(__name__)


class MAE(ImageMethod):
    """An encoder that sees a quarter of the patches, and a decoder that draws the others."""

    card = SETTINGS.card
    Config = MAEConfig
    presets = SETTINGS.presets
    sizing = SETTINGS.sizing
    picture_caption = "Left: what the encoder sees. Middle: what the decoder draws. Right: the image."

    config: MAEConfig
    last: Tensor

    def __init__(self, config: MAEConfig, store: ImageStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        self.crop_scale = (config.crop_smallest, 1.0)
        self.flip = config.flip
        self.encoder = ViT(encoder_shape(config, store.channels))
        self.total = self.encoder.config.num_tokens
        self.kept = kept_count(self.total, config.mask_ratio)
        warn_if_few(self.kept, self.total)
        self.decoder = Decoder(
            config.hidden_size,
            config.decoder_hidden_size,
            config.decoder_layers,
            config.decoder_heads,
            outputs=config.patch_size**2 * store.channels,
            grid=self.encoder.config.grid,
        )
        self.register_buffer("last", torch.zeros(2))  # loss and grey loss of the last update
        if init is not None:
            self.start_from(read_vit(init))

    def start_from(self, found: Weights) -> None:
        """Takes the encoder's weights, and the decoder's where they fit; says what was adapted."""
        for note in load_encoder(self.encoder, found) + load_beside(self.decoder, found, grid=self.encoder.config.grid):
            logger.warning(note)

    @classmethod
    def settings_of(cls, init: Path, config: MAEConfig) -> dict[str, Any]:
        return read_vit(init).settings()

    @classmethod
    def suggestions_of(cls, init: Path, config: Any, data: Any) -> dict[str, dict[str, Any]]:
        return sizes_for(read_vit(init), data)

    def split(self, rng: Rng) -> Split:
        """Which patches are seen and which are hidden, at random for each image."""
        return random_split(rng.uniform("mask", self.total), self.kept)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean squared error of the hidden patches' pixels. Every image hides as many, so micro-batches count by their rows."""
        errors, grey = self.errors(self.augmented(batch, ctx), self.split(ctx.rng))
        loss = errors.mean()
        return {"loss": loss, "pixel_loss": loss.detach(), "grey_loss": grey.mean()}

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        errors, grey = self.errors(self.plain(batch), self.split(ctx.rng))
        return {"pixel_loss": errors.mean(), "grey_loss": grey.mean()}

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.last.copy_(torch.stack([scalars["loss"], scalars["grey_loss"]]))

    def errors(self, images: Tensor, split: Split) -> tuple[Tensor, Tensor]:
        """float32 [batch, hidden] each: the error of every hidden patch, and that of a decoder that knows nothing and predicts 0."""
        patches = patchify(images, self.config.patch_size)  # [batch, patches, values]
        target = self.target(take(patches, split.rest))  # [batch, hidden, values]
        return patch_errors(self.predict(patches, split), target), target.float().square().mean(-1)

    def predict(self, patches: Tensor, split: Split, wanted: Tensor | None = None) -> Tensor:
        """[batch, n, values]: the pixels of the wanted patches (None: of the hidden ones) as the decoder draws them."""
        return self.decoder.reconstruct(self.encoder.from_patches(patches, split.keep), split.keep, split.rest if wanted is None else wanted)

    def target(self, patches: Tensor) -> Tensor:
        return normalise_patches(patches) if self.config.normalise_targets else patches

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """The error of each image's hidden patches, beside that of a decoder that knows nothing."""
        errors, grey = self.errors(self.plain(batch), self.split(ctx.rng))
        rows = zip(errors.mean(1).tolist(), grey.mean(1).tolist(), strict=True)
        return [f"error {error:.3f} on {errors.shape[1]} hidden patches of {self.total}; predicting 0 has {of_grey:.3f}" for error, of_grey in rows]

    @torch.no_grad()
    def pictures(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, channels, height, 3 * width], normalised: what the encoder sees, what the decoder draws, the image."""
        images = self.plain(batch)
        patches = patchify(images, self.config.patch_size)
        split = self.split(ctx.rng)
        parts = seen_and_drawn(patches, self.predict(patches, split), split.rest, self.config.normalise_targets)
        grid = self.encoder.config.grid
        return torch.cat([*(unpatchify(part, self.config.patch_size, grid) for part in parts), images], dim=3)

    def warnings(self) -> list[str]:
        return nothing_learnt(self.last, most=2)

    def export(self, folder: Path) -> None:
        save_vit(self.encoder, folder, self.preprocessor(), self.decoder.state_dict())


METHOD = MAE
