"""What a checkpoint costs the training: the pause of a save, and the steps beside the writing, for about 1 GB of weights and moments.

    python -m benchmarks.checkpoint

Peers, on the same state in the same run: `torch.save`, which blocks until the file is written (not flushed: a power cut may lose it), and torch's own
`dcp.async_save`. Ours copies to host memory and returns; a thread writes, hashes, flushes and renames. The arms alternate; medians.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch, as the command line sets it (docs/decisions/0008-threads.md)

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from benchmarks.result import write_result
from headstart.engine.checkpoint import Checkpointer

WIDTH, LAYERS, VOCABULARY = 768, 11, 8192  # 84 M parameters in the shapes of a transformer
MUST = 0.15
QUIET_STEPS = 8


def state(device: torch.device) -> dict[str, Any]:
    """Weights and AdamW's two moments, fp32: about 1 GB."""
    shapes: dict[str, tuple[int, ...]] = {"embed": (VOCABULARY, WIDTH)}
    for i in range(LAYERS):
        shapes |= {f"{i}.qkv": (3 * WIDTH, WIDTH), f"{i}.out": (WIDTH, WIDTH), f"{i}.up": (4 * WIDTH, WIDTH), f"{i}.down": (WIDTH, 4 * WIDTH)}
        shapes |= {f"{i}.{name}": (WIDTH,) for name in ("norm1", "norm2", "bias1", "bias2")}
    weights = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    moments = {name: {"exp_avg": torch.randn_like(w), "exp_avg_sq": torch.randn_like(w), "step": torch.tensor(1.0)} for name, w in weights.items()}
    return {"method": weights, "optimizer": {"state": moments}, "step": 1}


class Steps:
    """Work like a training step's: matrix products on the device, about 0.1 s on two cores."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.a = torch.randn(64 if device.type == "cpu" else 4096, WIDTH, device=device)
        self.b = torch.randn(WIDTH, WIDTH, device=device)

    def __call__(self) -> float:
        began = time.perf_counter()
        for _ in range(50):
            self.a @ self.b
        synchronize(self.device)
        return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(save: Callable[[], Callable[[], bool] | None], finish: Callable[[], None], steps: Steps) -> dict[str, float]:
    """One save: its pause, the steps until it is written against quiet ones, and when it was written.

    Args:
        save: starts a save; returns how to ask whether it is written, or None when it already is.
    """
    os.sync()  # what another arm left to the disk
    quiet = statistics.median(steps() for _ in range(QUIET_STEPS))
    synchronize(steps.device)
    began = time.perf_counter()
    written = save()
    pause = time.perf_counter() - began
    beside = []
    while written is not None and not written():
        beside.append(steps())
    finish()
    return {
        "pause_s": pause,
        "written_s": time.perf_counter() - began,
        "quiet_step_s": quiet,
        "beside_step_s": statistics.median(beside or [quiet]),
        "slower_steps_s": sum(beside) - quiet * len(beside),
    }


def run(device: torch.device, repeats: int, folder: Path) -> dict[str, dict[str, float]]:
    """arm -> medians."""
    tensors = state(device)
    steps = Steps(device)
    checkpointer = Checkpointer(folder / "ours", keep=1)
    count = 0
    upload: list[Future[Any]] = []

    def ours() -> Callable[[], bool]:
        nonlocal count
        count += 1
        checkpointer.save(count, tensors)
        assert checkpointer._pending is not None
        return checkpointer._pending.done

    def blocking() -> None:
        torch.save(tensors, folder / "blocking.pt")

    def torch_async() -> Callable[[], bool]:
        shutil.rmtree(folder / "async", ignore_errors=True)
        future = dcp.async_save(tensors, checkpoint_id=str(folder / "async"), no_dist=True)
        assert isinstance(future, Future)
        upload[:] = [future]
        return future.done

    arms: dict[str, tuple[Any, Callable[[], None]]] = {
        "ours": (ours, checkpointer.wait),
        "torch.save": (blocking, lambda: None),
        "dcp.async_save": (torch_async, lambda: None if not upload else upload[0].result()),
    }
    first = {name: measure(save, finish, steps)["pause_s"] for name, (save, finish) in arms.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, (save, finish) in arms.items():
            found[name].append(measure(save, finish, steps))
            print(name, {key: round(value, 3) for key, value in found[name][-1].items()}, flush=True)
    checkpointer.close()
    medians = {name: {key: round(statistics.median(line[key] for line in lines), 4) for key in lines[0]} for name, lines in found.items()}
    return {name: {"first_pause_s": round(first[name], 4), **median} for name, median in medians.items()}


def nbytes(tree: Any) -> int:
    if isinstance(tree, Tensor):
        return tree.nbytes
    return sum(map(nbytes, tree.values())) if isinstance(tree, dict) else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure; by default a temporary one")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = run(device, arguments.repeats, Path(folder))
    write_result(
        Path(__file__).parent / "results" / f"checkpoint{'' if device.type == 'cpu' else '-' + device.type}.json",
        name="checkpoint",
        what=(
            f"Pause of the training by a save of {nbytes(state(torch.device('meta'))) / 1e9:.2f} GB of weights and moments on {device.type}, "
            f"against a blocking torch.save of the same; medians of {arguments.repeats} alternating repeats"
        ),
        ours=results["ours"],
        peer={"name": "torch.save", **results["torch.save"], "dcp.async_save": results["dcp.async_save"]},
        ratio=results["ours"]["pause_s"] / results["torch.save"]["pause_s"],
        must=MUST,
        aim=0.05,
        higher_is_better=False,
        command="python -m benchmarks.checkpoint",
    )


if __name__ == "__main__":
    main()
