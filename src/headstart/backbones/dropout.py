"""Dropout that draws 16 random bits an element where torch draws 64, one element at a time: on a CPU a tenth of the time.

The probability is a multiple of 1/65536: .1 becomes .100006. Draws come from torch's global generator, so `torch.manual_seed` decides them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with a share `p` of its elements zero and the others divided by 1 - p; as `F.dropout(x, p, training=True)`."""
    if x.device.type != "cpu" or p == 0.0 or p >= 1.0 or x.numel() == 0 or torch.compiler.is_compiling():
        return F.dropout(x, p, training=True)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)  # -32768 .. 32767, four a word
    dropped = round(p * _LEVELS)
    kept = (bits >= dropped - _LEVELS // 2).to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))
    return x * kept


class Dropout(nn.Dropout):
    """`nn.Dropout` by `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training else input
