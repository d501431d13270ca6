"""How to sample token ids from logits: Gumbel noise and argmax (the official ELECTRA code) against one uniform a slot and the inverse cumulative
distribution (`headstart.objectives.token_loss.sample_tokens`). Both give the same distribution.

python -m benchmarks.sampling [--device cuda] [--slots 300] [--vocab 30522] [--out benchmarks/results/sampling.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.result import write_result
from headstart.core.rng import Rng
from headstart.objectives.token_loss import sample_tokens


def gumbel(logits: Tensor, uniform: Tensor) -> Tensor:
    """argmax(logits + g), g = -log(-log(u + 1e-9) + 1e-9), one uniform a logit (pretrain/pretrain_helpers.py, sample_from_softmax)."""
    return (logits - torch.log(-torch.log(uniform + 1e-9) + 1e-9)).argmax(-1)


def median_ms(work: Callable[[], object], device: str, repeats: int = 15) -> float:
    times = []
    for i in range(repeats + 3):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slots", type=int, default=300)
    parser.add_argument("--vocab", type=int, default=30522)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/sampling.json"))
    arguments = parser.parse_args()
    device, slots, vocab = arguments.device, arguments.slots, arguments.vocab
    torch.set_num_threads(1)
    logits = 3 * torch.randn(slots, vocab, device=device)
    rng = Rng.at(0, 0, torch.arange(slots, device=device))
    ours = median_ms(lambda: sample_tokens(logits, rng.uniform("sample", 1).squeeze(1)), device)
    ways = {
        "gumbel, torch's generator": median_ms(lambda: gumbel(logits, torch.rand_like(logits)), device),
        "gumbel, counter-based": median_ms(lambda: gumbel(logits, rng.uniform("sample", vocab)), device),
    }
    write_result(
        arguments.out,
        name="sampling",
        what=f"ms to sample {slots} ids from logits over {vocab} pieces on {device}, one thread; the peer is the faster form of Gumbel-argmax",
        ours={"ms": round(ours, 2), "way": "inverse cumulative distribution"},
        peer={name: round(ms, 2) for name, ms in ways.items()},
        ratio=min(ways.values()) / ours,
        must=1.0,
        command=f"python -m benchmarks.sampling --device {device} --slots {slots} --vocab {vocab}",
    )


if __name__ == "__main__":
    main()
