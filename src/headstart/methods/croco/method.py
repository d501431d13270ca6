"""croco: self-supervised pre-training for 3-D vision by completing one view with the help of another (Weinzaepfel et al. 2022, arXiv 2210.10716; the
second paper: 2211.10408).

- Nine tenths of view 1 are hidden. What the few seen patches do not tell can be found in view 2, which is whole, if the network learns where: the
  task teaches matching and geometry.
- One encoder for both views; view 1's hidden patches are never computed on, and only they are predicted and scored.
- The two views are cut at places of their own, and their colours drawn apart: otherwise the network copies the same place of view 2 and matches
  nothing. Held-out metrics tell copying from matching (`cross_view_gain`, `geometry_gain`, `offset_ratio`).
- Facts are those of naver/croco (models/croco.py, models/criterion.py, datasets/transforms.py; licence CC BY-NC-SA); no code of it is here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.backbones.croco import CroCoNet, DecoderBlock, DecoderConfig
from headstart.backbones.vit import ViTConfig
from headstart.backbones.vit_blocks import Block, patchify, take, unpatchify
from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.image.augment import normalize
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pairs import PairRows, PairStore, open_pair_store, pair_changes, prepare_pairs, write_first_pairs
from headstart.data.image.views import colour_jitter, crop_at, middle, random_places
from headstart.engine.image_method import ImageMethod, encoder_shape
from headstart.engine.method import Batch, Context
from headstart.interop.croco import find_croco, save_croco, start_encoder
from headstart.interop.vit import read_vit, save_vit
from headstart.methods.croco.config import FIRST_VIEW, SETTINGS, CroCoConfig, kept_patches
from headstart.objectives.patches import Split, normalise_patches, nothing_learnt, patch_errors, seen_and_drawn
from headstart.objectives.seen import warn_if_few

logger = logging.getLogger(__name__)

NO_GAIN, NO_GEOMETRY = 0.02, 0.05
"""Gains below these: the second view is not used, or only for its colours (the spec of the claim)."""


class CroCo(ImageMethod):
    """An encoder that sees a tenth of view 1 and all of view 2, and a decoder that draws the rest of view 1.

    A batch is `images` and `second_images`, [batch, channels, height, width] each: the two views of a scene.
    """

    card = SETTINGS.card
    Config = CroCoConfig
    DataConfig = PairConfig
    presets = SETTINGS.presets
    sizing = SETTINGS.sizing
    picture_caption = "From the left: what is seen of view 1, what the decoder draws, view 1, view 2."

    config: CroCoConfig
    last: Tensor
    gains: Tensor

    def __init__(self, config: CroCoConfig, store: PairStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        _check(config, store)
        self.network = CroCoNet(encoder_config(config, store.channels), decoder_config(config))
        self.total = self.network.encoder.config.num_tokens
        self.kept = kept_patches(self.total, config.mask_ratio)
        warn_if_few(self.kept, self.total, FIRST_VIEW)
        self.register_buffer("last", torch.zeros(2))  # loss and grey loss of the last update
        self.register_buffer("gains", torch.full((2,), float("nan")), persistent=False)  # of the last evaluation
        if init is not None:
            self.start_from(init)

    def start_from(self, init: Path) -> None:
        """Takes the weights of a CroCo file or folder, or the encoder of any plain vision transformer; says what was adapted."""
        found = find_croco(init)
        for note in start_encoder(self.network.encoder, init) if found is None else found.load(self.network):
            logger.warning(note)

    @classmethod
    def settings_of(cls, init: Path, config: CroCoConfig) -> dict[str, Any]:
        found = find_croco(init)
        return read_vit(init).settings() if found is None else found.settings()

    # --- data ---------------------------------------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: PairConfig) -> PairStore:  # type: ignore[override]
        return prepare_pairs(list(sources), out, data)

    @classmethod
    def rows(cls, store: PairStore, config: CroCoConfig, split: Literal["train", "held_out"] = "train") -> PairRows:  # type: ignore[override]
        return PairRows(store, split, others=config.second_view == "other")

    @classmethod
    def smoke_source(cls, sources: Sequence[str | Path], folder: Path, data: PairConfig, records: int) -> tuple[list[str], PairConfig]:  # type: ignore[override]
        return write_first_pairs(sources, folder / "images", data, records)

    @classmethod
    def open_store(cls, folder: Path) -> PairStore:
        return open_pair_store(folder)

    @classmethod
    def source_changes(cls, store: PairStore, sources: Sequence[str | Path]) -> list[str]:  # type: ignore[override]
        return pair_changes(store, sources)

    # --- one step -----------------------------------------------------------------------------------------------------------------------------

    def views(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """float32 [batch, channels, image_size, image_size] twice, normalised: each view cut at its own place, with its own colours."""
        return self.view(batch["images"], "first", ctx.rng), self.view(batch["second_images"], "second", ctx.rng)

    def view(self, images: Tensor, name: str, rng: Rng) -> Tensor:
        size, (height, width) = self.config.image_size, images.shape[-2:]
        cut = crop_at(images, random_places(rng, name, height, width, size), size)
        if self.config.colour_jitter:
            cut = colour_jitter(cut, rng, name, self.config.colour_jitter)
        return normalize(cut, self.mean, self.std)

    def encoder_input(self, batch: Batch, ctx: Context) -> Tensor:
        """The first view, as a step sees it."""
        return self.views(batch, ctx)[0]

    def middle_views(self, batch: Batch, offset: int = 0) -> tuple[Tensor, Tensor]:
        """The same without a draw: the middle of either image; of the second `offset` pixels further down and right."""
        first = middle(batch["images"], self.config.image_size)
        second = middle(batch["second_images"], self.config.image_size, offset)
        return normalize(first, self.mean, self.std), normalize(second, self.mean, self.std)

    def split(self, rng: Rng) -> Split:
        """int(mask_ratio * patches) hidden in each image, uniform without replacement; both parts in raster order."""
        order = rng.uniform("mask", self.total).argsort(1)
        return Split(order[:, : self.kept].sort(1).values, order[:, self.kept :].sort(1).values)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean squared error of the hidden patches' pixels. Every image hides as many, so micro-batches count by their rows."""
        first, second = self.views(batch, ctx)
        errors, grey = self.errors(first, second, self.split(ctx.rng))
        loss = errors.mean()
        return {"loss": loss, "pixel_loss": loss.detach(), "grey_loss": grey.mean()}

    def errors(self, first: Tensor, second: Tensor, split: Split) -> tuple[Tensor, Tensor]:
        """float32 [batch, scored patches] each: the error of every scored patch, and that of a decoder that knows nothing and predicts 0."""
        memory = self.network.encoder(second) if self.config.second_view != "none" else None
        return self.errors_from(first, memory, split)

    def errors_from(self, first: Tensor, memory: Tensor | None, split: Split) -> tuple[Tensor, Tensor]:
        """The same from a second view that is encoded already."""
        patches = patchify(first, self.config.patch_size)  # [batch, patches, values]
        wanted = split.rest if self.config.score == "masked" else None
        predicted = self.network.complete(patches, split.keep, memory, wanted)
        target = self.target(patches if wanted is None else take(patches, wanted))
        return patch_errors(predicted, target), target.float().square().mean(-1)

    def target(self, patches: Tensor) -> Tensor:
        return normalise_patches(patches) if self.config.normalise_targets else patches

    # --- looking at it ------------------------------------------------------------------------------------------------------------------------

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.last.copy_(torch.stack([scalars["loss"], scalars["grey_loss"]]))

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The loss on the middle of either view; and, under the same mask, how much the true second view helps over another scene's, over its own
        mirror image (same colours, wrong places), and what half a patch of offset between the views costs."""
        first, second = self.middle_views(batch)
        split = self.split(ctx.rng)
        if self.config.second_view == "none":
            errors, grey = self.errors_from(first, None, split)
            return {"pixel_loss": errors.mean(), "grey_loss": grey.mean()}
        encoder = self.network.encoder
        memory = encoder(second)
        errors, grey = self.errors_from(first, memory, split)
        true = errors.mean()
        mirrored = self.errors_from(first, encoder(second.flip(-1)), split)[0].mean()
        found = {"pixel_loss": true, "grey_loss": grey.mean(), "geometry_gain": 1 - true / mirrored}
        if len(first) > 1:
            other = self.errors_from(first, memory.roll(1, 0), split)[0].mean()
            found["cross_view_gain"] = 1 - true / other
            self.gains.copy_(torch.stack([found["cross_view_gain"], found["geometry_gain"]]))
        half = self.config.patch_size // 2
        if half and batch["second_images"].shape[-1] >= self.config.image_size + 2 * half:
            offset = self.errors_from(first, encoder(self.middle_views(batch, half)[1]), split)[0].mean()
            found["offset_ratio"] = offset / true
        return found

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """The error of each view's hidden patches, with the true second view and with that of another pair."""
        first, second = self.middle_views(batch)
        split = self.split(ctx.rng)
        errors, grey = (of.mean(1).tolist() for of in self.errors(first, second, split))
        if self.config.second_view == "none":
            return [f"error {error:.3f}; predicting 0 has {of_grey:.3f}" for error, of_grey in zip(errors, grey, strict=True)]
        others = self.errors(first, second.roll(1, 0), split)[0].mean(1).tolist()
        return [
            f"error {error:.3f} with its second view, {other:.3f} with that of the row before; predicting 0 has {of_grey:.3f}"
            for error, other, of_grey in zip(errors, others, grey, strict=True)
        ]

    @torch.no_grad()
    def pictures(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, channels, height, 4 * width], normalised: what is seen of view 1, what the decoder draws, view 1, view 2."""
        first, second = self.middle_views(batch)
        patches, split = patchify(first, self.config.patch_size), self.split(ctx.rng)
        drawn = self.network(patches, split.keep, second if self.config.second_view != "none" else None, split.rest)
        parts = seen_and_drawn(patches, drawn, split.rest, self.config.normalise_targets)
        grid = self.network.encoder.config.grid
        return torch.cat([*(unpatchify(part, self.config.patch_size, grid) for part in parts), first, second], dim=3)

    def warnings(self) -> list[str]:
        return nothing_learnt(self.last, most=3) + self.early_warnings()

    def early_warnings(self) -> list[str]:
        """What the last held-out evaluation says of the second view: pairs that do not overlap are seen by nothing else."""
        found: list[str] = []
        cross_view, geometry = self.gains.tolist()
        if self.config.second_view == "paired" and cross_view < NO_GAIN:
            found.append(
                f"The second view does not help: held-out cross-view gain {cross_view:.3f}. Give a larger budget; if it stays, the views of a pair"
                " may not show the same place."
            )
        elif self.config.second_view == "paired" and geometry < NO_GEOMETRY:
            found.append(
                f"The second view helps by its colours only: held-out geometry gain {geometry:.3f} (against its mirror image). Give a larger budget;"
                " if it stays, the views of a pair may not overlap."
            )
        return found

    # --- what leaves it -----------------------------------------------------------------------------------------------------------------------

    def backbone(self) -> nn.Module:
        return self.network.encoder

    def compile_parts(self) -> None:
        for module in self.network.modules():
            if isinstance(module, Block | DecoderBlock):
                module.compile()

    def embed(self, batch: Batch) -> Tensor:
        encoder = self.network.encoder
        return encoder.pool(encoder(self.plain(batch)))

    def export(self, folder: Path) -> None:
        """The encoder as the other methods on images write theirs, and the whole network under the official names."""
        save_vit(self.network.encoder, folder, self.preprocessor())
        save_croco(self.network, folder, self.config.mask_ratio)


def encoder_config(config: CroCoConfig, channels: int) -> ViTConfig:
    return encoder_shape(config, channels, class_token=False, positions="sincos" if config.positions == "cosine" else "rope")


def decoder_config(config: CroCoConfig) -> DecoderConfig:
    return DecoderConfig(
        hidden_size=config.decoder_hidden_size,
        num_layers=config.decoder_layers,
        num_heads=config.decoder_heads,
        positions=config.positions,
        normalise_memory=config.normalise_memory,
        cross=config.second_view != "none",
    )


def _check(config: CroCoConfig, store: PairStore) -> None:
    if min(store.height, store.width) < config.image_size:
        raise UsageError(
            f"The stored images have {store.width} x {store.height} pixels, the network sees {config.image_size} x {config.image_size}.",
            f"Prepare them larger (--image.size {config.image_size * 8 // 7}), or give a smaller --method.image-size.",
        )


METHOD = CroCo
