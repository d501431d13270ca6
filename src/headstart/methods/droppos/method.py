"""droppos: pre-training by telling where patches sat (Wang et al. 2023, arXiv 2309.03576).

- The encoder sees a quarter of the patches. For three quarters of these, one learnt token stands in place of the position.
- A decoder of two blocks says for each of them which of the L places it came from. No pixels are drawn, so a step costs half of MAE's.
- Targets are smoothed towards neighbouring places, less and less over the run; patches that say much about the image weigh more.
- Facts are those of the paper and of Haochen-Wang409/DropPos (models_DropPos_mae.py); where the two differ the paper counts, and
  `official_quirks` repeats the code.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import patchify, take, unpatchify
from headstart.backbones.vit_decoder import Decoder
from headstart.core.rng import Rng
from headstart.data.image.store import ImageStore
from headstart.engine.image_method import ImageMethod, encoder_shape, sizes_for
from headstart.engine.method import Batch, Context
from headstart.interop.vit import Weights, load_beside, load_encoder, read_vit, save_vit
from headstart.methods.droppos.config import SETTINGS, DropPosConfig, seen_and_placed
from headstart.objectives.patches import normalise_patches, patch_errors, random_split
from headstart.objectives.positions import (
    affinities,
    official_distances,
    position_losses,
    renormalised,
    smoothing_map,
    squared_distances,
    unsure,
)
from headstart.objectives.seen import warn_if_few

logger = logging.getLogger(__name__)

OFF_CHANCE = 3.0
"""Times chance that the accuracy must reach before a run is worth anything (the paper's spec of the claim)."""


class Draw(NamedTuple):
    """The random choices of a step, int64: which patches each image shows, and which of these keep or lose their position."""

    keep: Tensor
    """[batch, kept], patches that are seen."""
    hidden: Tensor
    """[batch, patches - kept]"""
    dropped: Tensor
    """[batch, n], places in `keep` whose position is dropped."""
    taken_from: Tensor | None
    """[batch, n], with wrong positions: the place in `keep` whose position each of them gets."""

    def labels(self) -> Tensor:
        """int64 [batch, n]: where the dropped ones really sat."""
        return self.keep.gather(1, self.dropped)


class DropPos(ImageMethod):
    """An encoder that sees patches without places, and a decoder that names them."""

    card = SETTINGS.card
    part_metric = "position_loss"
    Config = DropPosConfig
    presets = SETTINGS.presets
    sizing = SETTINGS.sizing
    picture_name = "positions"
    picture_caption = "Left: the seen patches where they sat. Right: where the network puts those whose position was dropped."

    config: DropPosConfig
    distances: Tensor  # float32 [places, places], squared
    last: Tensor  # accuracy and loss of the last update

    def __init__(self, config: DropPosConfig, store: ImageStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        self.crop_scale = (config.crop_smallest, 1.0)
        self.flip = config.flip
        self.encoder = ViT(encoder_shape(config, store.channels))
        self.grid = self.encoder.config.grid
        self.places = self.encoder.config.num_tokens
        self.kept, self.placed = seen_and_placed(config, self.places)
        warn_if_few(self.kept, self.places)
        sizes = (config.hidden_size, config.decoder_hidden_size, config.decoder_layers, config.decoder_heads)
        self.decoder = Decoder(*sizes, outputs=self.places)
        if config.mask_token_type == "param":
            self.mask_pos_token = nn.Parameter(torch.empty(1, 1, config.hidden_size).normal_(std=0.02))
        if config.multi_task:
            self.pixel_decoder = Decoder(*sizes, outputs=config.patch_size**2 * store.channels, grid=self.grid)
        distances = official_distances(self.grid, config.patch_size) if config.official_quirks else squared_distances(self.grid)
        self.register_buffer("distances", distances, persistent=False)
        self.register_buffer("last", torch.zeros(2))
        if init is not None:
            self.start_from(read_vit(init))

    def start_from(self, found: Weights) -> None:
        """Takes the encoder's weights, and what else fits; says what was adapted."""
        notes = load_encoder(self.encoder, found) + load_beside(self.decoder, found, grid=self.grid)
        if hasattr(self, "mask_pos_token") and "mask_pos_token" in found.state:
            self.mask_pos_token.data.copy_(found.state["mask_pos_token"])
        if self.config.multi_task:
            notes += load_beside(self.pixel_decoder, _renamed(found, "aux_"), grid=self.grid)
        for note in notes:
            logger.warning(note)

    @classmethod
    def settings_of(cls, init: Path, config: DropPosConfig) -> dict[str, Any]:
        return read_vit(init).settings()

    @classmethod
    def suggestions_of(cls, init: Path, config: Any, data: Any) -> dict[str, dict[str, Any]]:
        return sizes_for(read_vit(init), data)

    # --- one step -----------------------------------------------------------------------------------------------------------------------------

    def draw(self, rng: Rng) -> Draw:
        """Patches at random, then positions at random among them: two independent draws."""
        keep, hidden = random_split(rng.uniform("mask", self.places), self.kept)
        _, dropped = random_split(rng.uniform("drop", self.kept), self.placed)
        taken_from = None
        if self.config.mask_token_type == "wrong_pos":
            taken_from = dropped.gather(1, rng.uniform("wrong", dropped.shape[1]).argsort(1))
        return Draw(keep, hidden, dropped, taken_from)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """sum(w L) / sum(w) over the dropped positions of the whole batch: L the cross-entropy with the smoothed target, w the affinity."""
        patches = patchify(self.augmented(batch, ctx), self.config.patch_size)
        draw = self.draw(ctx.rng)
        features = self.features(patches, draw)
        logits, labels, smoothing = self.name(features, draw), draw.labels(), self.smoothing(ctx)
        weights = self.weights(patches, draw)  # [batch, dropped]
        if self.config.conf_ignore:
            weights = weights * unsure(logits, labels, smoothing)
        right = (logits.detach().argmax(-1) == labels).float()
        total = weights.sum()
        loss = (weights * position_losses(logits, labels, smoothing)).sum() / total.clamp(min=1e-12)
        scalars = {"position_loss": loss.detach(), "position_accuracy": (weights * right).sum() / total.clamp(min=1e-12)} | self.chance(loss)
        if not self.config.multi_task:
            return {"loss": loss, **scalars, "weight": total}
        return self.with_pixels(patches, draw, features, loss, scalars, ctx)

    def with_pixels(
        self, patches: Tensor, draw: Draw, features: Tensor, loss: Tensor, scalars: dict[str, Tensor], ctx: Context
    ) -> dict[str, Tensor]:
        """Two means over different items: each counts by its share of the global batch (`items`)."""
        pixel_loss = self.pixel_loss(patches, draw, features)
        positions, pixels = ctx.share("positions"), ctx.share("pixels")
        scalars = {name: value * positions for name, value in scalars.items()} | {"pixel_loss": pixel_loss.detach() * pixels}
        return {"loss": self.config.pos_weight * loss * positions + pixel_loss * pixels, **scalars}

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        if not self.config.multi_task:
            return None
        rows = torch.full((), float(len(batch["images"])), device=ctx.device)
        if not (self.config.attentive or self.config.conf_ignore):
            return {"positions": rows, "pixels": rows}
        patches, draw = patchify(self.augmented(batch, ctx), self.config.patch_size), self.draw(ctx.rng)
        weights = self.weights(patches, draw)
        if self.config.conf_ignore:
            with torch.no_grad():
                weights = weights * unsure(self.name(self.features(patches, draw), draw), draw.labels(), self.smoothing(ctx))
        return {"positions": weights.sum(), "pixels": rows}

    def features(self, patches: Tensor, draw: Draw) -> Tensor:
        """[batch, 1 + kept, dim]: what the encoder makes of the seen patches, most of them without their position."""
        positions = self.encoder.positions(self.grid, draw.keep)  # [batch, kept, dim]
        assert positions is not None
        if draw.taken_from is not None:
            order = torch.arange(self.kept, device=patches.device).expand(len(patches), -1)
            positions = take(positions, order.scatter(1, draw.dropped, draw.taken_from))
        else:
            instead = self.mask_pos_token if hasattr(self, "mask_pos_token") else torch.zeros_like(positions[:1, :1])
            is_dropped = torch.zeros_like(draw.keep, dtype=torch.bool).scatter(1, draw.dropped, True)
            positions = torch.where(is_dropped[..., None], instead, positions)
        return self.encoder.encode(self.encoder.embed_patches(patches, draw.keep) + positions)

    def name(self, features: Tensor, draw: Draw) -> Tensor:
        """[batch, dropped, places]: logits of where each dropped one sat. The decoder sees all tokens; only these are asked."""
        return self.decoder(features, draw.dropped)

    @torch.no_grad()
    def weights(self, patches: Tensor, draw: Draw) -> Tensor:
        """float32 [batch, dropped]: 1, or the affinity of each patch to its image as the encoder of this moment sees it, all patches and positions
        given. Affinities are scaled to a mean of 1 over the seen patches, which changes no fraction."""
        if not self.config.attentive:
            return torch.ones(draw.dropped.shape, device=patches.device)
        features = self.encoder.from_patches(patches)
        affinity = renormalised(affinities(features[:, 0], features[:, 1:], self.config.temperature), draw.keep)
        return affinity.gather(1, draw.dropped) * self.kept

    def smoothing(self, ctx: Context) -> Tensor:
        """float32 [places, places]: the target of each place at this step."""
        sigma: Tensor | float = self.config.sigma
        if self.config.sigma_decay:
            sigma = sigma * (1 - ctx.progress(self.config.sigma_epochs))
        return smoothing_map(self.distances, sigma, self.places, self.config.official_quirks)

    def pixel_loss(self, patches: Tensor, draw: Draw, features: Tensor) -> Tensor:
        """MAE's loss on the hidden patches, from the same features."""
        predicted = self.pixel_decoder.reconstruct(features, draw.keep, draw.hidden)
        return patch_errors(predicted, normalise_patches(take(patches, draw.hidden))).mean()

    # --- looking at it ------------------------------------------------------------------------------------------------------------------------

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.last.copy_(torch.stack([scalars["position_accuracy"], scalars["position_loss"]]))

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Whole images, hard targets, every dropped position counted alike; the textured ones, whose patch is not of one colour, also alone."""
        patches = patchify(self.plain(batch), self.config.patch_size)
        draw = self.draw(ctx.rng)
        logits, labels = self.name(self.features(patches, draw), draw).float(), draw.labels()
        right = (logits.argmax(-1) == labels).float()
        textured = (patches.amax(-1) > patches.amin(-1)).gather(1, labels).float()
        return {
            "position_loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            "position_accuracy": right.mean(),
            "textured_accuracy": (right * textured).sum() / textured.sum().clamp(min=1),
            "weight/textured_accuracy": textured.sum(),
            **self.chance(right),
        }

    def chance(self, like: Tensor) -> dict[str, Tensor]:
        """What guessing scores: the lines that a run has to leave. On the device of `like`."""
        return {"chance_loss": like.new_full((), math.log(self.places)), "chance_accuracy": like.new_full((), 1 / self.places)}

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """Of each image: how many places were named right, how far off the others are, and the first few of these."""
        patches = patchify(self.plain(batch), self.config.patch_size)
        draw = self.draw(ctx.rng)
        guesses = self.name(self.features(patches, draw), draw).argmax(-1)
        columns = self.grid[1]
        lines = []
        for true, guessed in zip(draw.labels().tolist(), guesses.tolist(), strict=True):
            pairs = [(divmod(a, columns), divmod(b, columns)) for a, b in zip(true, guessed, strict=True)]
            wrong = [f"{a} taken for {b}" for a, b in pairs if a != b]
            distance = sum(math.dist(a, b) for a, b in pairs) / len(pairs)
            places = f"{len(pairs) - len(wrong)} of {len(pairs)} places right, mean distance {distance:.2f} cells"
            lines.append(f"{places}; {', '.join(wrong[:4])}" if wrong else places)
        return lines

    @torch.no_grad()
    def pictures(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, channels, height, 2 * width], normalised: the seen patches where they sat, and where the network puts those without a
        position (of two at one place the later one shows)."""
        images = self.plain(batch)
        patches = patchify(images, self.config.patch_size)
        draw = self.draw(ctx.rng)
        guesses = self.name(self.features(patches, draw), draw).argmax(-1)
        return seen_and_put(patches, draw.keep, draw.keep.scatter(1, draw.dropped, guesses), self.config.patch_size, self.grid)

    def warnings(self) -> list[str]:
        accuracy, loss = self.last.tolist()
        if not loss or accuracy >= OFF_CHANCE / self.places:
            return []
        return [
            f"Positions are still guessed: accuracy {accuracy:.3f} at the end, chance is {1 / self.places:.3f} (loss {loss:.2f}, ln {self.places} ="
            f" {math.log(self.places):.2f}). Give a larger budget; if it stays, the content of these images does not tell their places: take mae."
        ]

    # --- what leaves it -----------------------------------------------------------------------------------------------------------------------

    def export(self, folder: Path) -> None:
        beside = dict(self.decoder.state_dict())
        if hasattr(self, "mask_pos_token"):
            beside["mask_pos_token"] = self.mask_pos_token
        if self.config.multi_task:
            beside |= {name if name == "mask_token" else f"aux_{name}": value for name, value in self.pixel_decoder.state_dict().items()}
        save_vit(self.encoder, folder, self.preprocessor(), beside)


def seen_and_put(patches: Tensor, true: Tensor, put: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """float32 [batch, channels, height, 2 * width]: patches at their places, and at those where they were put; 0 elsewhere.

    Args:
        patches: [batch, patches, values]; true, put: int64 [batch, seen].
    """
    seen = take(patches, true)
    empty = torch.zeros_like(patches)
    sides = [empty.scatter(1, places[..., None].expand_as(seen), seen) for places in (true, put)]
    return torch.cat([unpatchify(side, patch_size, grid) for side in sides], dim=3)


def _renamed(found: Weights, prefix: str) -> Weights:
    """The auxiliary decoder's weights under the names of a decoder; its mask token never had the prefix."""
    state = {name.removeprefix(prefix): value for name, value in found.state.items() if name.startswith(prefix) or name == "mask_token"}
    return dataclasses.replace(found, state=state)


METHOD = DropPos
