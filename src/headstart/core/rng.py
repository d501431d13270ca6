"""Random draws that depend only on (seed, step, global row, name): nothing random is stored, and no rank or micro-batch changes a mask.

A counter-based generator in plain integer arithmetic, so it runs on every device, inside `torch.compile` and inside a CUDA graph:
the stream of one row is SplitMix64 (Steele, Lea, Flood 2014), whose starting point is itself a SplitMix64 hash of the seed, the step, the
name of the draw and the row's position in the global batch. Philox (Salmon et al. 2011) gives the same promise with about eight times as
many operations; `benchmarks/rng.py` holds the figures, `tests/core/test_rng.py` the statistics.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def _signed(value: int) -> int:
    """The int64 with the same 64 bits; torch has no unsigned 64-bit arithmetic, and wrap-around products have the same bits either way."""
    value &= _WORD
    return value - (1 << 64) if value >> 63 else value


def mix_int(value: int) -> int:
    """SplitMix64's finaliser on a Python integer: an unsigned 64-bit hash."""
    value &= _WORD
    value = ((value ^ (value >> 30)) * _MIX_1) & _WORD
    value = ((value ^ (value >> 27)) * _MIX_2) & _WORD
    return value ^ (value >> 31)


def _shift_right(x: Tensor, n: int) -> Tensor:
    """Logical shift: torch's `>>` on int64 copies the sign bit."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


@lru_cache(maxsize=4096)
def name_key(name: str) -> int:
    """A 64-bit constant for the name of a draw, the same in every process (Python's own `hash` is salted)."""
    return _signed(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def step_key(seed: int, step: int) -> int:
    """The 64-bit key of one step of one run, as a signed integer."""
    return _signed(mix_int(mix_int(seed + _GOLDEN) ^ ((step + 1) * _GOLDEN)))


class Rng:
    """Draws for the rows of one batch.

    Args:
        key: int64 scalar tensor, `step_key(seed, step)`. A tensor, so that a captured CUDA graph reads the key of the current step.
        rows: int64 [batch], the position of each row in the global batch.
    """

    def __init__(self, key: Tensor, rows: Tensor) -> None:
        self.key = key
        self.rows = rows

    @classmethod
    def at(cls, seed: int, step: int, rows: Tensor) -> Rng:
        return cls(torch.tensor(step_key(seed, step), dtype=torch.int64, device=rows.device), rows)

    def bits(self, name: str, *shape: int) -> Tensor:
        """int64 [batch, *shape]: 64 random bits an element."""
        count = math.prod(shape)
        start = _mix(_mix(self.rows * _signed(_GOLDEN) + name_key(name)) ^ self.key)  # [batch]
        offsets = torch.arange(1, count + 1, device=self.rows.device) * _signed(_GOLDEN)  # [count]
        return _mix(start[:, None] + offsets).view(len(self.rows), *shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """float32 [batch, *shape], uniform on the 2^24 multiples of 2^-24 in [0, 1): float32's own resolution just below 1."""
        return _shift_right(self.bits(name, *shape), 40).float() * 2.0**-24

    def integers(self, name: str, high: int, *shape: int) -> Tensor:
        """int64 [batch, *shape] in 0..high-1; the bias is below high / 2^32."""
        if not 0 < high <= 2**31:
            raise ValueError(f"high must lie in 1..2^31, not {high}")
        return (_shift_right(self.bits(name, *shape), 32) * high) >> 32

    def normal(self, name: str, *shape: int) -> Tensor:
        """float32 [batch, *shape], standard normal (Box-Muller)."""
        bits = self.bits(name, *shape)
        radius = (-2.0 * torch.log((_shift_right(bits, 40).float() + 1.0) * 2.0**-24)).sqrt()  # u in (0, 1]: never log 0
        angle = (bits & 0xFFFFFF).float() * (2.0 * math.pi * 2.0**-24)
        return radius * torch.cos(angle)
