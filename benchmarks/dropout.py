"""Dropout on a CPU, forward and backward: 16 bits an element (`headstart.backbones.dropout`) against torch's.

python -m benchmarks.dropout [--threads 1] [--out benchmarks/results/dropout.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.result import write_result
from headstart.backbones.dropout import dropout

SHAPE = (16, 128, 256)  # hidden states of a step of ELECTRA-small


def seconds(way: Callable[[Tensor], Tensor], x: Tensor) -> float:
    began = time.perf_counter()
    way(x).backward(torch.ones_like(x))
    x.grad = None
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dropout.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, peer = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(SHAPE, dtype=dtype, requires_grad=True)
        pairs = [(seconds(lambda x: dropout(x, 0.1), x), seconds(lambda x: F.dropout(x, 0.1, True), x)) for _ in range(33)]
        name = str(dtype).removeprefix("torch.")
        ours[name], peer[name] = (round(1e3 * statistics.median(times), 3) for times in zip(*pairs[3:], strict=True))
        print(f"{name}: ours {ours[name]:.2f} ms, torch {peer[name]:.2f} ms")
    write_result(
        arguments.out,
        name="dropout",
        what=f"ms of dropout on {' x '.join(map(str, SHAPE))} elements, forward and backward, {arguments.threads} thread(s)",
        ours=ours,
        peer=peer,
        ratio=peer["float32"] / ours["float32"],
        must=2.0,
        command=f"python -m benchmarks.dropout --threads {arguments.threads}",
    )


if __name__ == "__main__":
    main()
