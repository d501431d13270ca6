"""What the counter-based generator costs: against Philox in the same tensor arithmetic, against torch's own generator with state, and as a share
of a training step.

python -m benchmarks.rng [--device cuda] [--out benchmarks/results/rng.json]
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

M0, M1, W0, W1, MASK = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85, 0xFFFFFFFF


def philox4x32_10(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Salmon et al. 2011 in int64 tensor arithmetic: [n] counters -> [n, 4] 32-bit words."""
    c0, c1, c2, c3 = counter & MASK, (counter >> 32) & MASK, torch.zeros_like(counter), torch.zeros_like(counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK, ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return torch.stack([c0, c1, c2, c3], dim=1)


def philox_uniform(rows: int, n: int, device: str) -> Tensor:
    words = philox4x32_10(torch.arange((rows * n + 3) // 4, device=device), (1, 2))
    return ((words >> 8).float() * 2.0**-24).flatten()[: rows * n].view(rows, n)


def median_ms(work: Callable[[], object], device: str, repeats: int = 30) -> float:
    times = []
    for i in range(repeats + 5):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 5:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def step_ms(device: str) -> float:
    """One forward and backward pass of a BERT of width 128 with two layers, 32 x 64 tokens: the smallest step that the tiny presets run."""
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(vocab_size=2048, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512), add_pooling_layer=False
    )
    model.to(device)
    ids = torch.randint(0, 2048, (32, 64), device=device)

    def work() -> None:
        logits = model(input_ids=ids).last_hidden_state @ model.get_input_embeddings().weight.T
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()

    return median_ms(work, device, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rng.json"))
    args = parser.parse_args()
    rows, n = 32, 64
    rng = Rng.at(0, 0, torch.arange(rows, device=args.device))
    ours = median_ms(lambda: rng.uniform("mask", n), args.device)
    philox = median_ms(lambda: philox_uniform(rows, n, args.device), args.device)
    stateful = median_ms(lambda: torch.rand(rows, n, device=args.device), args.device)
    step = step_ms(args.device)
    write_result(
        args.out,
        name="rng",
        what=f"a uniform draw of {rows} x {n} on {args.device}, against Philox in the same tensor arithmetic",
        ours={"ms": ours, "two_draws_share_of_a_tiny_step": 2 * ours / step},
        peer={"philox_in_torch_ms": philox, "torch_rand_with_state_ms": stateful, "tiny_step_ms": step},
        ratio=philox / ours,
        must=1.0,
        command=f"python -m benchmarks.rng --device {args.device}",
    )
    print(
        f"ours {ours:.3f} ms, Philox {philox:.3f} ms ({philox / ours:.1f} x), torch.rand {stateful:.3f} ms;"
        f" two draws are {2 * ours / step:.2%} of a tiny step of {step:.1f} ms"
    )


if __name__ == "__main__":
    main()
