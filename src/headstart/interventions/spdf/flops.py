"""The paper's account of FLOPs of a GPT, from its sizes alone. What a run of ours reports is counted on the real step instead."""

from __future__ import annotations


def forward_flops(layers: int, width: int, context: int, vocabulary: int, level: float = 0.0) -> float:
    """Of one token in a forward pass: 2 (12 L d^2 (1 - s) + V d) + 4 L S d. Training is three times that. Attention scores are counted whole, not
    halved for causality; biases and norms are free."""
    return 2 * (12 * layers * width**2 * (1 - level) + vocabulary * width) + 4 * layers * context * width


def widest_within(flops: float, layers: int, context: int, vocabulary: int, multiple: int = 16) -> int:
    """The largest width, a multiple of `multiple`, of a dense network that takes no more than `flops` a token."""
    width = multiple
    while forward_flops(layers, width + multiple, context, vocabulary) <= flops:
        width += multiple
    return width
