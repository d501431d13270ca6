"""fp32 matrix products of dense layers on a CPU: by oneDNN (`headstart.core.products`) against torch's own, which are MKL's.

    python -m benchmarks.products [--threads 2]

The shapes are those of GPT-2 (4 x 256 tokens), ELECTRA-small (16 x 128) and the tiny presets (32 x 64): forward, and both products of the backward
pass. The two take turns. Where MKL knows the CPU (Intel) the library stays with MKL, whatever is measured here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.core import products

SHAPES = {"GPT-2, up": (1024, 768, 3072), "GPT-2, down": (1024, 3072, 768), "ELECTRA-small, up": (2048, 256, 1024), "tiny, up": (2048, 128, 384)}
"""(tokens, in, out)"""


def seconds(way: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, upstream: Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.grad(way(x, weight, bias), (x, weight, bias), upstream)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/products.json"))
    args = parser.parse_args()
    if not products.has_onednn():
        raise SystemExit("This torch has no oneDNN.")
    if args.threads:
        torch.set_num_threads(args.threads)
    ours, peer, ratios = {}, {}, []
    for name, (tokens, inside, outside) in SHAPES.items():
        layer = [torch.randn(shape, requires_grad=True) for shape in ((tokens, inside), (outside, inside), (outside,))]
        layer.append(torch.randn(tokens, outside))
        ways = {"ours": partial(seconds, products.by_onednn, *layer), "peer": partial(seconds, F.linear, *layer)}
        in_turns(ways, 2)
        found = in_turns(ways, args.repeats)
        rate = 6e-9 * tokens * inside * outside
        ours[name], peer[name] = (round(rate / statistics.median(found[side]), 1) for side in ("ours", "peer"))
        ratios.append(median_ratio(found["peer"], found["ours"]))
        print(f"{name}: oneDNN {ours[name]} GFLOP/s, torch {peer[name]} GFLOP/s, {ratios[-1]:.2f} times as fast")
    write_result(
        args.out,
        name="products",
        what=f"GFLOP/s of a dense layer in fp32, forward and backward, {torch.get_num_threads()} thread(s); ratio: the lowest of all shapes",
        ours=ours,
        peer=peer,
        ratio=min(ratios),
        must=1.0,
        command=f"python -m benchmarks.products --threads {args.threads}",
    )


if __name__ == "__main__":
    main()
