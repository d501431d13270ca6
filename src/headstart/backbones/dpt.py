"""A dense head for vision transformers: DPT (Ranftl et al. 2021, arXiv 2103.13413), in the form of CroCo's and MultiMAE's downstream code.

Tokens of four blocks become maps of 1/4, 1/8, 1/16 and 1/32 of the image (for patches of 16 pixels), and are fused from coarse to fine. Parameter
names are those of naver/croco models/dpt_block.py; its state dicts hold some modules under two names, and one that is never used: `from_official`
leaves these out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.positions import Grid
from headstart.core.errors import UsageError

SCALE = 16
"""Side of the output over that of the token grid."""
_TWICE = re.compile(r"act_\d_postprocess\.|scratch\.layer\d_rn\.|scratch\.refinenet4\.resConfUnit1\.")


class ResidualUnit(nn.Module):
    """x + conv2(ReLU(conv1(ReLU(x)))), convolutions of 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """What came from coarser maps, with the map of this scale; then twice as large.

    Args:
        skip: whether there is a coarser map, to which this scale's is added.
    """

    def __init__(self, width: int, skip: bool = True) -> None:
        super().__init__()
        if skip:
            self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, here: Tensor | None = None) -> Tensor:
        if here is not None:
            x = x + self.resConfUnit1(here)
        return self.out_conv(_larger(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """Brings the four maps to one width, and fuses them from coarse to fine: `layer_rn`, `refinenet1` (the finest) to `refinenet4`."""

    def __init__(self, layer_dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.layer_rn = nn.ModuleList(nn.Conv2d(of_layer, width, 3, padding=1, bias=False) for of_layer in layer_dims)
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(width) for _ in range(3))
        self.refinenet4 = Fusion(width, skip=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        first, second, third, fourth = (project(x) for project, x in zip(self.layer_rn, maps, strict=True))
        fused = self.refinenet3(self.refinenet4(fourth), third)
        return self.refinenet1(self.refinenet2(fused, second), first)


class DPT(nn.Module):
    """Maps [batch, outputs, 16 rows, 16 columns] from the tokens of four blocks.

    Args:
        dims: widths of the tokens, of the earliest block first.
        outputs: channels of the result.
        layer_dims: widths of the four maps, the finest first.
        width: of the maps while they are fused.
        last: width of the last hidden map.
    """

    def __init__(
        self, dims: Sequence[int], outputs: int, layer_dims: Sequence[int] = (96, 192, 384, 768), width: int = 256, last: int = 32
    ) -> None:
        super().__init__()
        if len(dims) != 4 or len(layer_dims) != 4:
            raise UsageError(f"This head reads four blocks, not {len(dims)}.", "Give four widths.")
        a, b, _, d = layer_dims
        resizers: list[list[nn.Module]] = [
            [nn.ConvTranspose2d(a, a, 4, stride=4)],
            [nn.ConvTranspose2d(b, b, 2, stride=2)],
            [],
            [nn.Conv2d(d, d, 3, stride=2, padding=1)],
        ]
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, of_layer, 1), *resize) for dim, of_layer, resize in zip(dims, layer_dims, resizers, strict=True)
        )
        self.scratch = Scratch(layer_dims, width)
        self.head = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(width // 2, last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last, outputs, 1),
        )

    def forward(self, tokens: Sequence[Tensor], grid: Grid, size: tuple[int, int] | None = None) -> Tensor:
        """Args:
            tokens: four times [batch, rows * columns, dim].
            grid: rows and columns of patches, both even.
            size: height and width of the result; None: 16 times the grid. Patches of another size than 16 pixels need it: resized bilinearly.

        Raises:
            UsageError: an odd number of rows or columns.
        """
        if grid[0] % 2 or grid[1] % 2:
            raise UsageError(
                f"This head halves the grid of {grid[0]} x {grid[1]} patches.", "Give images whose sides are multiples of two patches."
            )
        maps = [of_block.transpose(1, 2).unflatten(2, grid) for of_block in tokens]  # [batch, dim, rows, columns]
        found = self.head(self.scratch([resize(x) for resize, x in zip(self.act_postprocess, maps, strict=True)]))
        if size is None or tuple(found.shape[2:]) == tuple(size):
            return found
        return F.interpolate(found, size=size, mode="bilinear", align_corners=False)


def _larger(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def from_official(state: Mapping[str, Tensor], prefix: str = "head.dpt.") -> dict[str, Tensor]:
    """The weights of a `DPT` from those of naver/croco: those after the prefix, each once, without the one that nothing uses."""
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in own.items() if not _TWICE.match(name)}
