"""satmaepp: masked autoencoding of satellite images at several scales (SatMAE++, Noman et al. 2024, arXiv 2403.05419).

- Bands are put into groups, and every place has a token for each group, hidden or seen on its own. Images in colour have one token a place (the
  optical form: MAE itself).
- The encoder sees a small image, a quarter of its tokens. What the decoder draws is enlarged by small convolutional blocks, and must equal the same
  crop at twice and four times the resolution.
- One scale is SatMAE (Cong et al. 2022); one group and one scale is MAE with unnormalised targets.
- Facts are those of techmn/satmae_pp (models_mae_group_channels.py, models_mae.py, util/datasets.py, engine_pretrain.py); no code of it is here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.backbones.vit import ViT, ViTConfig
from headstart.backbones.vit_blocks import Block, patchify, unpatchify
from headstart.backbones.vit_decoder import Decoder
from headstart.core.errors import BadInput
from headstart.core.files import write_json
from headstart.core.rng import Rng
from headstart.data.image.augment import random_resized_crop_flip, resize
from headstart.data.image.store import ImageStore
from headstart.engine.image_method import ImageMethod, encoder_shape, sizes_for
from headstart.engine.method import Batch, Context
from headstart.interop.vit import Weights, load_beside, save_vit
from headstart.methods.satmaepp.config import SETTINGS, Groups, SatMAEPPConfig, group_width, resolve_groups, seen_tokens
from headstart.methods.satmaepp.network import (
    BilinearHead,
    GroupDecoder,
    MultiScaleHead,
    UpsampleBlock,
    cut_cells,
    enlarged,
    group_loss,
    halved,
    join_cells,
)
from headstart.methods.satmaepp.weights import BANDS_FILE, is_grouped, load_head, load_into, plain_network, read_bands, read_weights, settings_of
from headstart.objectives.patches import normalise_patches, random_split
from headstart.objectives.seen import warn_if_few

logger = logging.getLogger(__name__)

DIGITAL_NUMBER = 10_000.0
"""Of Sentinel-2 products: reflectance 1."""
LEVELS = 255.0
"""Steps of a clipped band."""
OTHER_UNIT = 50.0
"""Times the deviation of the bands that weights were trained on: so much more, or less, in every band is another unit."""


class SatMAEPP(ImageMethod):
    """An encoder that sees a quarter of the tokens of a small image, a decoder that draws it, and blocks that enlarge it."""

    card = SETTINGS.card
    Config = SatMAEPPConfig
    presets = SETTINGS.presets
    sizing = SETTINGS.sizing
    picture_caption = "From the left: what is seen, what the decoder draws, the same enlarged, the image."

    config: SatMAEPPConfig
    low: Tensor  # float32 [bands]: pixels are (value - low) / span
    span: Tensor
    blank: Tensor  # float32 [bands]: what a decoder draws that knows each band's mean alone
    group_of_band: Tensor  # int64 [bands]
    band_share: Tensor  # float32 [bands], 1 / bands of its group
    band_order: Tensor  # int64 [bands]: where among the drawn bands, group by group, each band is
    last: Tensor  # pixel loss and blank loss of the last update

    def __init__(self, config: SatMAEPPConfig, store: ImageStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        self.groups: Groups = resolve_groups(config, store.channels)
        self.crop_scale = (config.crop_smallest, 1.0)
        self.flip = config.flip
        self._make_pixels()
        self.encoder = ViT(encoder_config(config, self.groups, store.channels))
        self.grid = self.encoder.config.grid
        self.cells = self.grid[0] * self.grid[1]
        self.tokens = self.encoder.config.num_tokens
        self.seen = seen_tokens(config, self.cells, self.n_groups)
        warn_if_few(self.seen, self.tokens, "tokens")
        self.decoder: Decoder | GroupDecoder = self._make_decoder()
        self.head: MultiScaleHead | BilinearHead = self._make_head()
        self._make_bands()
        self.register_buffer("last", torch.zeros(2))
        if init is not None:
            self.start_from(read_weights(init))

    # --- parts --------------------------------------------------------------------------------------------------------------------------------

    def _make_pixels(self) -> None:
        """How values become pixels, from the statistics of the store."""
        scaling = self.config.scaling
        if scaling == "auto":
            scaling = "clip" if self.groups else "standard"
        self.scaling = scaling
        if constant := [name for name, std in zip(self.band_names, self.store.std, strict=True) if not std > 0]:
            raise BadInput(
                f"has the same value in every pixel of band {', '.join(constant)}: a band that is missing, or filled with zeros.",
                "Leave the band out (--image.bands), or give files that have it.",
                file=getattr(self.store, "folder", None),
            )
        if scaling == "clip":  # mean - 2 deviations is 0, mean + 2 deviations is 1 (util/datasets.py: SentinelNormalize)
            low, span = self.mean - 2 * self.std, 4 * self.std
        elif scaling == "standard":
            low, span = self.mean, self.std
        elif scaling == "byte":
            low, span = torch.zeros_like(self.mean), torch.full_like(self.std, LEVELS)
        else:
            self._refuse_no_digital_numbers()
            low, span = torch.zeros_like(self.mean), torch.full_like(self.std, DIGITAL_NUMBER)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", span, persistent=False)
        self.register_buffer("blank", (self.mean - low) / span, persistent=False)

    def _refuse_no_digital_numbers(self) -> None:
        largest = float(np.max(self.store.mean))
        if not 2 < largest < 2 * DIGITAL_NUMBER or self.store.dtype == np.uint8:
            raise BadInput(
                f"holds {np.dtype(self.store.dtype)} values whose largest band mean is {largest:.4g}: these are no reflectances times 10,000.",
                "Leave out --method.scaling: clip and standard take values of any range.",
                file=getattr(self.store, "folder", None),
            )

    def _make_decoder(self) -> Decoder | GroupDecoder:
        c = self.config
        sizes = (c.hidden_size, c.decoder_hidden_size, c.decoder_layers, c.decoder_heads)
        if not self.groups:
            return Decoder(*sizes, outputs=c.patch_size**2 * self.store.channels, grid=self.grid)
        width = group_width(c.decoder_hidden_size, c.decoder_group_width)
        return GroupDecoder(*sizes, [len(group) for group in self.groups], width, c.patch_size, self.grid)

    def _make_head(self) -> MultiScaleHead | BilinearHead:
        count = self.config.scales - 1
        if self.config.upsampler == "bilinear" or not count:
            return BilinearHead(count)
        names = ("up_block",) if not self.groups and count == 1 else ("up_block1", "up_block2")[:count]
        return MultiScaleHead(self.store.channels, self.config.proj_ratio, names)

    def _make_bands(self) -> None:
        groups = self.groups or (tuple(range(self.store.channels)),)
        flat = torch.tensor([band for group in groups for band in group])
        numbers = torch.tensor([number for number, group in enumerate(groups) for _ in group])
        sizes = torch.tensor([len(group) for group in groups])
        order = flat.argsort()
        self.register_buffer("group_of_band", numbers[order], persistent=False)
        self.register_buffer("band_share", 1.0 / sizes[numbers[order]], persistent=False)
        # The released code compares bands in the order of the groups with targets in their own.
        self.register_buffer("band_order", torch.arange(len(flat)) if self.config.official_quirks else order, persistent=False)

    @property
    def n_groups(self) -> int:
        """Tokens of a place."""
        return max(1, len(self.groups))

    @property
    def band_names(self) -> tuple[str, ...]:
        return self.config.band_names or tuple(str(number) for number in range(1, self.store.channels + 1))

    # --- weights from elsewhere ---------------------------------------------------------------------------------------------------------------

    @classmethod
    def settings_of(cls, init: Path, config: SatMAEPPConfig) -> dict[str, Any]:
        return settings_of(read_weights(init))

    @classmethod
    def suggestions_of(cls, init: Path, config: SatMAEPPConfig, data: Any) -> dict[str, dict[str, Any]]:
        found = read_weights(init)
        return {} if is_grouped(found.state) else sizes_for(found, data)

    def start_from(self, found: Weights) -> None:
        """Takes the encoder's weights, and the decoder's and the head's where they fit; says what was adapted."""
        if (found.file / BANDS_FILE).is_file():
            self._refuse_other_values(read_bands(found.file), found.file)
        notes = load_into(self.encoder, found) + load_beside(self.decoder, found, grid=self.grid) + load_head(self.head, found)
        for note in notes:
            logger.warning(note)

    def _refuse_other_values(self, bands: Mapping[str, Any], folder: Path) -> None:
        """Images whose values the weights never saw: digital numbers against reflectances, or nothing but cloud."""
        mean, std = np.array(bands["mean"]), np.array(bands["std"])
        own, own_std = np.asarray(self.store.mean), np.asarray(self.store.std)
        if mean.shape != own.shape:
            return
        if list(bands["band_names"]) != list(self.band_names):
            logger.warning("the weights were trained on the bands %s, these are %s", " ".join(bands["band_names"]), " ".join(self.band_names))
        other_unit = bool((own_std * OTHER_UNIT < std).all() or (own_std > std * OTHER_UNIT).all())
        if other_unit or bool((np.abs(own - mean) > 2 * std).all()):
            raise BadInput(
                f"was trained on bands of mean {mean[0]:.4g} (deviation {std[0]:.4g}) and so on, these images have {own[0]:.4g} ({own_std[0]:.4g})."
                " Digital numbers are reflectances times 10,000; images of cloud alone look like this too.",
                "Give images of the same unit.",
                file=folder,
            )

    # --- pixels -------------------------------------------------------------------------------------------------------------------------------

    def scaled(self, images: Tensor) -> Tensor:
        """float32 pixels of a store's values, [batch, bands, height, width]."""
        pixels = (images.float() - self.low[:, None, None]) / self.span[:, None, None]
        if self.scaling == "clip":  # the released code stores bytes
            return (pixels * LEVELS).clamp(0, LEVELS).floor() / LEVELS
        return pixels

    def augmented(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, bands, side, side]: a random part of each image at the largest scale, half of them mirrored. Bicubic overshoot stays."""
        side = self.config.factor * self.config.image_size
        return random_resized_crop_flip(self.scaled(batch["images"]), ctx.rng, side, self.crop_scale, self.crop_ratio, self.flip)

    def encoder_input(self, batch: Batch, ctx: Context) -> Tensor:
        return self.scales_of(self.augmented(batch, ctx))[0]

    def plain(self, batch: Batch) -> Tensor:
        """float32 [batch, bands, image_size, image_size]: the whole of each image, at the input's size at once (as fine-tuning does)."""
        return resize(self.scaled(batch["images"]), self.config.image_size)

    def whole(self, batch: Batch) -> Tensor:
        """float32 [batch, bands, side, side]: the whole of each image at the largest scale."""
        return resize(self.scaled(batch["images"]), self.config.factor * self.config.image_size)

    def scales_of(self, largest: Tensor) -> list[Tensor]:
        """[batch, bands, side, side] each: the input, twice its resolution ...: block means of one crop."""
        levels = [largest]
        while levels[0].shape[-1] > self.config.image_size:
            levels.insert(0, halved(levels[0]))
        return levels[: self.config.scales]

    # --- one step -----------------------------------------------------------------------------------------------------------------------------

    def draw(self, rng: Rng) -> Tensor:
        """int64 [batch, seen]: the tokens that each image shows, numbered group * cells + cell."""
        if not self.config.spatial_mask:
            return random_split(rng.uniform("mask", self.tokens), self.seen).keep
        cells = random_split(rng.uniform("mask", self.cells), self.seen // self.n_groups).keep
        firsts = torch.arange(self.n_groups, device=cells.device) * self.cells
        return (firsts[:, None] + cells[:, None]).flatten(1)

    def hidden(self, keep: Tensor) -> Tensor:
        """bool [batch, groups, cells]."""
        everything = torch.ones(len(keep), self.tokens, dtype=torch.bool, device=keep.device)
        return everything.scatter(1, keep, False).view(-1, self.n_groups, self.cells)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """0.6 of the squared error of hidden tokens + 0.4 of the mean distance at the larger scales (engine_pretrain.py).

        Both are means over the same number of things in every image, so micro-batches count by their rows.
        """
        return self.losses(self.scales_of(self.augmented(batch, ctx)), self.draw(ctx.rng))

    def losses(self, levels: list[Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Of images at all scales, smallest first: "loss" and its parts."""
        cells, hidden = self.predict(levels[0], keep), self.hidden(keep)
        target = self.target(levels[0])
        pixel_loss = self.pixel_losses(cells, target, hidden).mean()
        blank = self.pixel_losses(self.blank_cells(target), target, hidden).mean()
        scalars = {"pixel_loss": pixel_loss.detach(), "blank_loss": blank}
        if len(levels) == 1:
            return {"loss": self.total(pixel_loss, []), **scalars}
        distances = [self.distance(drawn, level) for drawn, level in zip(self.enlarge(cells), levels[1:], strict=True)]
        scalars |= {f"scale_loss_{2**i}x": distance.detach() for i, distance in enumerate(distances, 1)}
        return {"loss": self.total(pixel_loss, distances), **scalars, "scale_loss": torch.stack(distances).mean().detach()}

    def total(self, pixel_loss: Tensor, distances: list[Tensor]) -> Tensor:
        """The weighted sum of the pixel loss and the mean distance at the larger scales; without any of these the pixel loss itself."""
        if not distances:
            return pixel_loss
        return self.config.pixel_weight * pixel_loss + self.config.scale_weight * torch.stack(distances).mean()

    def predict(self, images: Tensor, keep: Tensor) -> Tensor:
        """[batch, cells, bands, pixels]: the whole image as the decoder draws it, from the tokens that are seen."""
        tokens = self.encoder(images, keep)
        if isinstance(self.decoder, GroupDecoder):
            return self.decoder(tokens, keep).index_select(2, self.band_order)
        drawn = self.decoder.reconstruct(tokens, keep)  # MAE's order of pixels: the band is the fastest
        return drawn.unflatten(2, (-1, self.store.channels)).mT

    def enlarge(self, cells: Tensor) -> list[Tensor]:
        """[batch, bands, side, side] each: the drawn image at the larger scales. All its tokens count, seen and hidden."""
        larger: list[Tensor] = self.head(join_cells(cells, self.config.patch_size, self.grid))
        return larger

    def target(self, images: Tensor) -> Tensor:
        """[batch, cells, bands, pixels]: what the decoder should draw of the input."""
        if self.config.normalise_targets:
            patches = normalise_patches(patchify(images, self.config.patch_size))  # over all bands of a place
            images = unpatchify(patches, self.config.patch_size, self.grid)
        return cut_cells(images, self.config.patch_size)

    def pixel_losses(self, cells: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """float32 [batch]: the mean squared error of each image's hidden tokens."""
        errors = (cells.float() - target.float()).square().mean(-1)  # [batch, cells, bands]
        return group_loss(errors, hidden, self.group_of_band, self.band_share) / (self.tokens - self.seen)

    def distance(self, drawn: Tensor, true: Tensor) -> Tensor:
        measure = F.l1_loss if self.config.scale_loss == "l1" else F.mse_loss
        return measure(drawn.float(), true)

    def blank_cells(self, target: Tensor) -> Tensor:
        """What a decoder draws that knows nothing of an image: each band's mean, or 0 where targets are normalised."""
        return torch.zeros_like(target) if self.config.normalise_targets else self.blank[:, None].expand_as(target)

    # --- looking at it ------------------------------------------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Whole images. "smooth_loss" is the distance that the true input reaches, enlarged by interpolation: a detail is what lies below it."""
        levels = self.scales_of(self.whole(batch))
        scalars = self.losses(levels, self.draw(ctx.rng))
        if len(levels) > 1:
            smooth = [self.distance(enlarged(levels[0], 2**i), level) for i, level in enumerate(levels[1:], 1)]
            scalars["smooth_loss"] = torch.stack(smooth).mean()
        return scalars

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.last.copy_(torch.stack([scalars["pixel_loss"], scalars["blank_loss"]]))

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """Of each image: the error of its hidden tokens, beside that of drawing every band's mean; the distance at each larger scale."""
        levels, keep = self.scales_of(self.whole(batch)), self.draw(ctx.rng)
        cells, target, hidden = self.predict(levels[0], keep), self.target(levels[0]), self.hidden(keep)
        errors = self.pixel_losses(cells, target, hidden).tolist()
        blank = self.pixel_losses(self.blank_cells(target), target, hidden).tolist()
        larger = self.enlarge(cells)
        distances = [(drawn.float() - true).abs().mean((1, 2, 3)).tolist() for drawn, true in zip(larger, levels[1:], strict=True)]
        lines = []
        for row, (error, of_blank) in enumerate(zip(errors, blank, strict=True)):
            line = f"error {error:.4f} on {self.tokens - self.seen} hidden tokens of {self.tokens}; every band's mean has {of_blank:.4f}"
            lines.append("; ".join([line, *(f"off by {of_scale[row]:.4f} at {2**i}x" for i, of_scale in enumerate(distances, 1))]))
        return lines

    @torch.no_grad()
    def pictures(self, batch: Batch, ctx: Context) -> Tensor:
        """float32 [batch, bands, side, 4 * side], less the mean and over the deviation, at the largest scale: what is seen, what the decoder draws,
        the same enlarged, the image."""
        levels, keep = self.scales_of(self.whole(batch)), self.draw(ctx.rng)
        cells = self.predict(levels[0], keep)
        if self.config.normalise_targets:
            patches = patchify(levels[0], self.config.patch_size)
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            cells = cells * (variance + 1e-6).sqrt()[..., None] + mean[..., None]
        shown = ~self.hidden(keep).mT.index_select(2, self.group_of_band)[..., None]  # [batch, cells, bands, 1]
        true = cut_cells(levels[0], self.config.patch_size)
        seen = join_cells(torch.where(shown, true, self.blank[:, None]), self.config.patch_size, self.grid)
        drawn = join_cells(cells, self.config.patch_size, self.grid)
        largest = [drawn, *self.enlarge(cells)][-1]
        side = levels[-1].shape[-1]
        panels = [F.interpolate(panel.float(), size=(side, side)) for panel in (seen, drawn, largest, levels[-1])]
        values = torch.cat(panels, dim=3) * self.span[:, None, None] + self.low[:, None, None]
        return (values - self.mean[:, None, None]) / self.std[:, None, None]

    def warnings(self) -> list[str]:
        loss, blank = self.last.tolist()
        if not loss or loss < 0.98 * blank:
            return []
        return [
            f"The decoder has learnt nothing yet: its loss is {loss:.4f}, that of drawing every band's mean is {blank:.4f}. Give a larger budget; if"
            " it stays, the hidden tokens cannot be told from the seen ones."
        ]

    # --- what leaves it -----------------------------------------------------------------------------------------------------------------------

    def compile_parts(self) -> None:
        for module in self.modules():
            if isinstance(module, Block | UpsampleBlock):
                module.compile()

    def official_state(self) -> dict[str, Tensor]:
        """All weights under the names of the released checkpoints."""
        return {name: value for part in (self.encoder, self.decoder, self.head) for name, value in part.state_dict().items()}

    def preprocessor(self) -> dict[str, Any]:
        """As for every method on images; of clipped bands what happens between the clips, without the rounding."""
        found = super().preprocessor()
        scale = 1 / found["rescale_factor"]
        return found | {"image_mean": [value / scale for value in self.low.tolist()], "image_std": [value / scale for value in self.span.tolist()]}

    def export(self, folder: Path) -> None:
        """The encoder, decoder and head, and how values become pixels; where there is one group, also the plain network that it is, in `plain/`."""
        beside = {**self.decoder.state_dict(), **self.head.state_dict()}
        save_vit(self.encoder, folder, self.preprocessor(), beside)
        names = self.band_names
        bands = {
            "band_names": list(names),
            "groups": [",".join(names[band] for band in group) for group in self.groups],
            "mean": [float(value) for value in self.store.mean],
            "std": [float(value) for value in self.store.std],
            "scaling": self.scaling,
            "image_size": self.config.image_size,
        }
        write_json(Path(folder) / BANDS_FILE, bands)
        if len(self.groups) == 1:
            save_vit(plain_network(self.encoder), Path(folder) / "plain", self.preprocessor())


def encoder_config(config: SatMAEPPConfig, groups: Groups, channels: int) -> ViTConfig:
    width = group_width(config.hidden_size, config.group_width) if groups else 0
    return encoder_shape(config, channels, groups=groups, group_width=width)


METHOD = SatMAEPP
