"""One layer's attention on a CPU in bf16, forward and backward: matrix products (`headstart.backbones.attention`) against torch's fused SDPA.

python -m benchmarks.attention [--threads 1] [--out benchmarks/results/attention.json]

The two alternate; the median of 15 pairs counts. The ratio of the result is that at 64 tokens, the rows of the tiny presets.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from benchmarks.result import write_result
from headstart.backbones.attention import attention

SHAPES = ((32, 2, 48, 64), (32, 2, 64, 64), (16, 4, 128, 64), (4, 12, 256, 64), (2, 12, 512, 64))
"""(batch, heads, length, dim)"""
DECIDES = 64


def seconds(way: Callable[..., tuple[Tensor, None]], tensors: list[Tensor], causal: bool) -> float:
    """Forward and backward once."""
    query, key, value = tensors
    begin = time.perf_counter()
    mixed, _ = way(nn.Module(), query, key, value, None, is_causal=causal)
    mixed.backward(torch.ones_like(mixed))
    for tensor in tensors:
        tensor.grad = None
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, peer, ratios = {}, {}, {}
    for shape in SHAPES:
        for causal in (False, True):
            name = f"{'x'.join(map(str, shape))} {'causal' if causal else 'full'}"
            tensors = [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
            seconds(attention, tensors, causal)
            seconds(sdpa_attention_forward, tensors, causal)
            pairs = [(seconds(attention, tensors, causal), seconds(sdpa_attention_forward, tensors, causal)) for _ in range(15)]
            mine, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            ours[name], peer[name], ratios[(shape[2], causal)] = round(mine, 2), round(theirs, 2), theirs / mine
            print(f"{name:<24} ours {mine:8.2f} ms, SDPA {theirs:8.2f} ms, {theirs / mine:5.2f} times as fast")
    write_result(
        arguments.out,
        name="attention",
        what=f"ms of one layer's attention in bf16 on a CPU, forward and backward, {arguments.threads} thread(s); batch x heads x length x dim",
        ours=ours,
        peer=peer,
        ratio=ratios[(DECIDES, False)],
        must=1.0,
        command=f"python -m benchmarks.attention --threads {arguments.threads}",
    )


if __name__ == "__main__":
    main()
