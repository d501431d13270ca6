"""Images of any size by windows of the size that a network was trained on: predictions of overlapping windows, averaged where they overlap
(naver/croco stereoflow/engine.py).

What predicts a confidence is averaged by it: near a window's border the other view's pixels may lie outside, and the network says that it is unsure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.errors import UsageError
from headstart.tasks.dense_network import Prediction

WINDOWS_AT_ONCE = 64
"""Windows, of all images together, that one call of the network sees."""


def tile_offsets(total: int, window: int, overlap: float) -> list[int]:
    """Where windows begin: evenly from 0 to the end, as few as overlap by that share.

    Raises:
        UsageError: the window is larger than the side.
    """
    if window > total or not 0 <= overlap < 1:
        raise UsageError(f"A window of {window} pixels with overlap {overlap} does not fit a side of {total}.", "Enlarge the image, or give a share.")
    count = 1 + math.ceil((total - window) / ((1 - overlap) * window))
    return [round((total - window) * place / max(1, count - 1)) for place in range(count)]


@torch.no_grad()
def tiled(
    predict: Callable[..., Prediction],
    views: Sequence[Tensor],
    window: tuple[int, int],
    overlap: float = 0.9,
    sharpness: tuple[float, float] = (15.0, 3.0),
    in_pixels: bool = True,
) -> Tensor:
    """[batch, values channels, height, width]: predictions of overlapping windows, averaged where they overlap.

    Args:
        predict: of one or two views, such as a `DenseModel` in evaluation mode.
        views: [batch, channels, height, width] each. Images smaller than the window are enlarged first.
        window: height and width of the training crops.
        overlap: share by which windows overlap; the paper: 0.9, 0.7 while validating.
        sharpness: (beta, s) of the weights exp(-beta * 2 * (sigmoid(c / s) - .5)) of confidence c; (15, 3) for stereo, (10, 5) for flow.
        in_pixels: values are lengths in pixels: those of an enlarged image are scaled back.
    """
    height, width = views[0].shape[2:]
    factor = max(window[0] / height, window[1] / width, 1.0)
    if factor > 1:
        size = (max(window[0], round(height * factor)), max(window[1], round(width * factor)))
        views = [F.interpolate(view.float(), size=size, mode="bicubic", align_corners=False) for view in views]
    batch, _, tall, wide = views[0].shape
    places = [(top, left) for top in tile_offsets(tall, window[0], overlap) for left in tile_offsets(wide, window[1], overlap)]
    at_once = max(1, WINDOWS_AT_ONCE // batch)
    sums: Tensor | None = None
    weights = torch.zeros(batch, 1, tall, wide, device=views[0].device)
    for start in range(0, len(places), at_once):
        here = [(..., slice(top, top + window[0]), slice(left, left + window[1])) for top, left in places[start : start + at_once]]
        values, confidence = predict(*(torch.cat([view[place] for place in here]) for view in views))
        weight = torch.ones_like(values[:, :1])
        if confidence is not None:
            beta, scale = sharpness
            weight = torch.exp(-2 * beta * ((confidence / scale).sigmoid() - 0.5))
        if sums is None:
            sums = torch.zeros(batch, values.shape[1], tall, wide, device=values.device)
        for place, value, share in zip(here, values.split(batch), weight.split(batch), strict=True):
            sums[place] += value * share
            weights[place] += share
    assert sums is not None
    found = sums / weights
    if factor == 1:
        return found
    back = F.interpolate(found, size=(height, width), mode="bicubic", align_corners=False)
    if not in_pixels:
        return back
    shrunk = back.new_tensor([width / found.shape[3], height / found.shape[2]])[: back.shape[1]]  # x, then y
    return back * shrunk[:, None, None]
