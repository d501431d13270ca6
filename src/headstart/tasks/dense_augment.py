"""What a dense task sees of a record in training: a part of the image, the same of its target, changed alike.

Everything here is for one record, on the CPU, from a numpy generator that the caller seeds with (seed, step, record): parts of images of different
sizes become a batch only afterwards. Classes and numbers are never mixed between pixels: targets are resized by the nearest pixel.

- One view: a factor, a place, a mirror, colours.
- Stereo, flow: CroCo's (naver/croco stereoflow/augmentor.py): what changes a place changes disparity or flow with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.data.image.views import GREY
from headstart.tasks.dense_data import Sample

STEREO_SMALL = 800
"""Pixels of the shorter side: smaller images are only enlarged."""


class Part(NamedTuple):
    """Views float32 [channels, height, width] in the values of their files; target float32 [channels, height, width] (classes as numbers)."""

    views: list[Tensor]
    target: Tensor


def whole(sample: Sample) -> Part:
    return Part([torch.from_numpy(np.ascontiguousarray(view)).float() for view in sample.views], torch.from_numpy(sample.target).float())


def one_view(sample: Sample, random: np.random.Generator, crop: tuple[int, int], scale: tuple[float, float], flip: float, jitter: float) -> Part:
    """A random part of an image.

    Args:
        crop: height and width of the part.
        scale: the image is resized by a factor between these, log-uniform; by more where it would be smaller than the part.
        flip: probability of mirroring.
        jitter: brightness, contrast and saturation times 1 - jitter to 1 + jitter.
    """
    part = whole(sample)
    factor = math.exp(random.uniform(math.log(scale[0]), math.log(scale[1])))
    part = cut(resized(part, *([max(factor, _needed(part, crop))] * 2)), random, crop)
    if random.random() < flip:
        part = Part([view.flip(-1) for view in part.views], part.target.flip(-1))
    return Part([jittered(view, random, jitter, _limit(sample)) for view in part.views], part.target) if jitter and has_colours(sample) else part


def plain_pair(sample: Sample, random: np.random.Generator, crop: tuple[int, int], pixels: Sequence[int]) -> Part:
    """A random part of both views, at the same place; only what is smaller than the part is enlarged.

    Args:
        pixels: axis (0: x, 1: y) along which each channel of the target is a length.
    """
    part = whole(sample)
    factor = max(1.0, _needed(part, crop))
    return cut(_stretched(part, factor, factor, pixels), random, crop)


def stereo(sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
    """CroCo-Stereo's augmentation."""
    part = whole(sample)
    if (factor := _needed(part, crop)) > 1:
        part = _stretched(part, factor, factor, (0,))
    height, width = part.target.shape[1:]
    if random.random() < 0.5:
        power = random.uniform(0, 1) if min(height, width) < STEREO_SMALL else random.uniform(-0.2, 0.4)
        part = _stretched(part, 1.0, max(2.0**power, (crop[1] + 8) / width), (0,))
    part = cut(part, random, crop)
    if random.random() < 0.5:
        part = Part([view.flip(-2) for view in part.views], part.target.flip(-2))
    part = Part([part.views[0], misaligned(part.views[1], random)], part.target)
    return Part(stereo_colours(part.views, random, _limit(sample)), part.target) if has_colours(sample) else part


def flow(sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
    """CroCo-Flow's augmentation, which is RAFT's: only what is scaled may be stretched too."""
    part = whole(sample)
    x = y = 1.0
    if random.random() < 0.8:
        x = y = 2.0 ** random.uniform(-0.2, 0.5)
        if random.random() < 0.8:
            x, y = x * 2.0 ** random.uniform(-0.2, 0.2), y * 2.0 ** random.uniform(-0.2, 0.2)
    least = _needed(part, crop)
    part = cut(_stretched(part, max(y, least), max(x, least), (0, 1)), random, crop)
    for share, axis, channel in ((0.5, -1, 0), (0.1, -2, 1)):
        if random.random() < share:
            target = part.target.flip(axis).clone()
            target[channel] *= -1
            part = Part([view.flip(axis) for view in part.views], target)
    return Part(_flow_colours(part.views, random, _limit(sample)), part.target) if has_colours(sample) else part


# --- places ---------------------------------------------------------------------------------------------------------------------------------------


def _needed(part: Part, crop: tuple[int, int]) -> float:
    """By what an image is to be enlarged to hold the part."""
    return max(crop[0] / part.target.shape[1], crop[1] / part.target.shape[2])


def resized(part: Part, y: float, x: float) -> Part:
    """Views bilinearly (antialiased where they shrink), the target by the nearest pixel."""
    height, width = part.target.shape[1:]
    size = (math.ceil(height * y - 1e-6), math.ceil(width * x - 1e-6))
    if size == (height, width):
        return part
    shrinks = size[0] < height or size[1] < width
    views = [F.interpolate(view[None], size=size, mode="bilinear", antialias=shrinks, align_corners=False)[0] for view in part.views]
    return Part(views, F.interpolate(part.target[None], size=size, mode="nearest-exact")[0])


def _stretched(part: Part, y: float, x: float, pixels: Sequence[int]) -> Part:
    """Resized, and so are lengths in pixels."""
    before = part.target.shape[1:]
    part = resized(part, y, x)
    by = torch.tensor([part.target.shape[2] / before[1], part.target.shape[1] / before[0]])  # x, y
    return Part(part.views, part.target * by[list(pixels)][:, None, None])


def cut(part: Part, random: np.random.Generator, crop: tuple[int, int]) -> Part:
    """A part at a uniform place, the same in all views."""
    height, width = part.target.shape[1:]
    top, left = (int(random.integers(0, side - wanted + 1)) for side, wanted in zip((height, width), crop, strict=True))
    here = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
    return Part([view[here] for view in part.views], part.target[here])


def misaligned(view: Tensor, random: np.random.Generator) -> Tensor:
    """A right view that, with probability one half, is off by a small turn about any of its points and by up to two rows: a rig is never quite
    rectified."""
    if random.random() >= 0.5:
        return view
    shift, degrees = random.uniform(-2, 2), random.uniform(-0.1, 0.1)
    return _turned(view, degrees, shift, (random.random(), random.random()))


def _turned(view: Tensor, degrees: float, shift: float, about: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Turned about a point, and moved down by `shift` pixels; the border is repeated.

    Args:
        about: the point, as shares of width and height.
    """
    height, width = view.shape[1:]
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin * height / width], [sin * width / height, cos]])  # of coordinates from -1 to 1
    point = 2 * torch.tensor(about) - 1
    stays = point - turn @ point - torch.tensor([0.0, 2 * shift / height])
    matrix = torch.cat([turn, stays[:, None]], 1)[None]
    grid = F.affine_grid(matrix, [1, len(view), height, width], align_corners=False)
    return F.grid_sample(view[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]


# --- colours --------------------------------------------------------------------------------------------------------------------------------------


def _limit(sample: Sample) -> float:
    """The largest value of the images' type."""
    return float(np.iinfo(sample.views[0].dtype).max)


def has_colours(sample: Sample) -> bool:
    """Floats are measurements of any range: their colours are never changed."""
    return sample.views[0].dtype.kind == "u"


def jittered(view: Tensor, random: np.random.Generator, strength: float, limit: float) -> Tensor:
    """Brightness, contrast and saturation in random order."""
    view = view / limit
    changes = (brightness, contrast, saturation)
    for place in random.permutation(3):
        view = changes[place](view, random.uniform(1 - strength, 1 + strength))
    return view * limit


def stereo_colours(views: list[Tensor], random: np.random.Generator, limit: float) -> list[Tensor]:
    """With probability one half one of five changes, else all in random order, each with probability one half; the right view has a factor of its own
    with probability one half. (In the official code a typo draws that of saturation from -0.8 to 1.2.)"""
    changes: list[tuple[Callable[[Tensor, float], Tensor], float, float]] = [
        (contrast, 0.8, 1.2), (gamma, 0.7, 1.5), (brightness, 0.5, 2.0), (hue, -0.1, 0.1), (saturation, 0.8, 1.2),
    ]  # fmt: skip
    if random.random() < 0.5:
        chosen = [changes[int(random.integers(len(changes)))]]
    else:
        chosen = [changes[i] for i in random.permutation(len(changes)) if random.random() < 0.5]
    found = [view / limit for view in views]
    for change, low, high in chosen:
        factor = random.uniform(low, high)
        other = random.uniform(low, high) if random.random() < 0.5 else factor
        found = [change(found[0], factor), *(change(view, other) for view in found[1:])]
    return [view * limit for view in found]


def _flow_colours(views: list[Tensor], random: np.random.Generator, limit: float) -> list[Tensor]:
    """Jitter .4 .4 .4 and hue .5 / pi; drawn for each view alone with probability .2."""

    def draw() -> list[tuple[Callable[[Tensor, float], Tensor], float]]:
        changes: list[tuple[Callable[[Tensor, float], Tensor], float]] = [
            (change, random.uniform(0.6, 1.4)) for change in (brightness, contrast, saturation)
        ]
        changes.append((hue, random.uniform(-0.5 / math.pi, 0.5 / math.pi)))
        return [changes[i] for i in random.permutation(4)]

    drawn = [draw(), draw()] if random.random() < 0.2 else [draw()] * 2
    found = []
    for view, changes in zip(views, drawn, strict=True):
        view = view / limit
        for change, factor in changes:
            view = change(view, factor)
        found.append(view * limit)
    return found


def brightness(view: Tensor, factor: float) -> Tensor:
    """Values 0 to 1 [channels, height, width], as for all changes below."""
    return (view * factor).clamp(0, 1)


def contrast(view: Tensor, factor: float) -> Tensor:
    return torch.lerp(_grey(view).mean().expand_as(view), view, factor).clamp(0, 1)


def saturation(view: Tensor, factor: float) -> Tensor:
    return torch.lerp(_grey(view).expand_as(view), view, factor).clamp(0, 1)


def gamma(view: Tensor, power: float) -> Tensor:
    return view.clamp(0, 1) ** power


def hue(view: Tensor, turn: float) -> Tensor:
    """Colours turned by a share of the circle; what has not three channels stays."""
    if len(view) != 3:
        return view
    most, which = view.max(0)
    span = most - view.min(0).values
    red, green, blue = view
    safe = torch.where(span > 0, span, 1.0)
    sixth = torch.where(which == 0, (green - blue) / safe, torch.where(which == 1, 2 + (blue - red) / safe, 4 + (red - green) / safe))
    sixth = (sixth + 6 * turn) % 6
    turned = []
    for offset in (5, 3, 1):  # red, green, blue from hue, span and value
        at = (offset + sixth) % 6
        turned.append(most - span * torch.minimum(at, 4 - at).clamp(0, 1))
    return torch.stack(turned)


def _grey(view: Tensor) -> Tensor:
    """[1, height, width]"""
    if len(view) != 3:
        return view.mean(0, keepdim=True)
    return (view * torch.tensor(GREY)[:, None, None]).sum(0, keepdim=True)
