"""Everything that only a GPU can show, in one script under eight minutes: `make bench-gpu`, or

    python -m benchmarks.gpu [--seconds 460] [--try]

Steps of ELECTRA-small, ELECTRA-base, GPT-2, MAE and DropPos against the peers, plain and compiled; what share of a tiny model's step the device
works; what share of a step waits for data. Every side is a process of its own, as it is for a person. The result is written after each part, so that
a script that is cut off keeps what it has; a part that would begin after `--seconds` is left out and named. `--try` runs the same parts on a CPU with
few and short rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import IdRows, method_of, steps_of, synchronize, trainer_of
from benchmarks.result import origin
from benchmarks.training_step import COMPARISONS, PEERS, last_json
from headstart import methods
from headstart.core.files import write_json
from headstart.methods.causal_lm.config import CausalLMConfig

SHAPES: dict[str, tuple[list[str], list[str]]] = {  # name -> (what, size, batch, length; how a run of ours on a GPU runs it)
    "electra-small": (["electra", "--size", "small", "--batch", "256", "--seq", "128"], ["--cuda-graph"]),
    "electra-base": (["electra", "--size", "base", "--batch", "256", "--seq", "128"], ["--our-compile"]),
    "causal-lm-gpt2": (["causal-lm", "--batch", "32", "--seq", "1024"], ["--our-compile"]),
    "mae-base": (["mae", "--batch", "256"], ["--our-compile"]),
    "droppos-base": (["droppos", "--batch", "256"], ["--our-compile"]),
}
TRIED = {
    "electra-small": ["--batch", "4", "--seq", "16"],
    "electra-base": ["--batch", "2", "--seq", "16"],
    "causal-lm-gpt2": ["--batch", "1", "--seq", "32"],
    "mae-base": ["--batch", "1"],
    "droppos-base": ["--batch", "1"],
}
Figures = dict[str, Any]


class Clock:
    def __init__(self, seconds: float) -> None:
        self.ends = time.perf_counter() + seconds

    @property
    def left(self) -> float:
        return self.ends - time.perf_counter()


def sides(name: str, trying: bool) -> dict[str, list[str]]:
    """The command of each side: peer plain, ours plain, ours as a run has it, peer compiled. The dearest last."""
    shape, fast = SHAPES[name]
    if trying:
        shape = [*shape[: shape.index("--batch")], *TRIED[name]]
    how = ["--precision", "bf16", "--device", "cpu" if trying else "cuda"]
    how += ["--warmup", "1", "--steps", "1", "--repeats", "1"] if trying else ["--warmup", "6", "--steps", "10", "--repeats", "3"]
    peer = [sys.executable, str(PEERS), COMPARISONS[shape[0]].peer, *shape[1:], *how]
    mine = [sys.executable, "-m", "benchmarks.training_step", *shape, *how, "--worker"]
    found = {"plain": peer, "ours, plain": mine, "ours": [*mine, "--mfu", *([] if trying else fast)]}
    return found if trying else {**found, "compiled": [*peer, "--compile"]}


def step_against_peers(name: str, trying: bool) -> Figures:
    """Tokens/s or images/s, memory and the ratios of one shape."""
    found = {side: last_json(command) for side, command in sides(name, trying).items()}
    figures: Figures = {side: {key: entry[key] for key in (rate_of(entry), "step_ms", "peak_mib")} for side, entry in found.items()}
    return figures | ratios(figures) | {"mfu": found["ours"]["mfu"]}


def float8(trying: bool) -> Figures:
    """GPT-2 by ours with 8-bit products against ours in bf16, both compiled: tokens/s, memory, and their ratios. The loss beside bf16's is
    `benchmarks/float8.py`'s."""
    mine = sides("causal-lm-gpt2", trying)["ours"]
    found = {"bf16": last_json(mine), "fp8": last_json([*mine, "--our-fp8"])}
    rate = rate_of(found["bf16"])
    figures: Figures = {side: {key: entry[key] for key in (rate, "step_ms", "peak_mib")} for side, entry in found.items()}
    return figures | {name: round(found["fp8"][key] / found["bf16"][key], 3) for name, key in (("times_bf16", rate), ("memory_of_bf16", "peak_mib"))}


def rate_of(entry: Figures) -> str:
    """The name of its rate: tokens_per_s or images_per_s."""
    return next(name for name in entry if name.endswith("_per_s"))


def ratios(figures: Figures) -> Figures:
    """Of the faster of our two ways to the peer, plain and compiled; and of its memory to the plain peer's."""
    rate = rate_of(figures["plain"])
    best = max(("ours", "ours, plain"), key=lambda side: figures[side][rate])
    found: Figures = {"best": best, "times_plain": round(figures[best][rate] / figures["plain"][rate], 3)}
    if "compiled" in figures:
        found["times_compiled"] = round(figures[best][rate] / figures["compiled"][rate], 3)
    return found | {"memory_of_plain": round(figures[best]["peak_mib"] / figures["plain"]["peak_mib"], 3)}


def tiny(trying: bool) -> Figures:
    """A tiny network by CUDA graph, and plainly: the share of a step in which the device works, from the profiler's kernel times."""
    device = torch.device("cpu" if trying else "cuda")
    config, batch, vocab = CausalLMConfig(), 32, 2048
    figures: Figures = {}
    for name, graph in (("plain", False), ("graph", True)):
        if graph and trying:
            continue
        with tempfile.TemporaryDirectory() as folder:
            method = method_of("causal-lm", config, vocab, device)
            trainer = trainer_of(
                method, IdRows.random(4096, 64, vocab), batch, Path(folder) / "run", steps=10**6, precision="bf16", cuda_graph=graph
            )
            with steps_of(trainer) as run:
                run(20)
                steps = 3 if trying else 200
                wall = run(steps).wall / steps
                busy = busy_seconds(lambda: run(steps), device) / steps  # noqa: B023 - called here
        figures[name] = {"step_ms": round(1e3 * wall, 3), "device_ms": round(1e3 * busy, 3), "share": round(busy / wall, 4)}
    return figures | {"device_share": max(entry["share"] for entry in figures.values())}


def busy_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds in which the device's kernels ran; overlapping ones count once."""
    activity = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        work()
        synchronize(device)
    kind = torch.autograd.DeviceType.CUDA if device.type == "cuda" else torch.autograd.DeviceType.CPU
    spans = [(event.time_range.start, event.time_range.end) for event in profiler.events() if event.device_type == kind]
    return 1e-6 * covered(spans)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def loader(trying: bool) -> Figures:
    """ELECTRA-small as a run trains it, 256 x 128: the share of its time that it waited for batches."""
    device, size = torch.device("cpu" if trying else "cuda"), (4, 16) if trying else (256, 128)
    preset = methods.load("electra").presets["small"]
    with tempfile.TemporaryDirectory() as folder:
        method = method_of("electra", preset.method, 30522, device)
        rows = IdRows.random(64 if trying else 100_000, size[1], 30522)
        trainer = trainer_of(method, rows, size[0], Path(folder) / "run", steps=10**6, precision="bf16", cuda_graph=not trying)
        with trainer.batches() as batches:
            trainer.prepare_state()
            phase, start, _ = trainer.spans[-1]
            trainer.step = start
            trainer.enter(phase, first=False)
            for _ in range(1 if trying else 10):
                trainer.advance(batches, phase)
            synchronize(device)
            began, waited, steps = time.perf_counter(), batches.waited, 2 if trying else 200
            for _ in range(steps):
                trainer.advance(batches, phase)
            synchronize(device)
            seconds, waited = time.perf_counter() - began, batches.waited - waited
    tokens = steps * size[0] * size[1]
    return {"data_wait_share": round(waited / seconds, 5), "tokens_per_s": round(tokens / seconds, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=460)
    parser.add_argument("--try", action="store_true", dest="trying", help="on a CPU, with small shapes")
    parser.add_argument("--only", nargs="+", default=None, help="parts to run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    args = parser.parse_args()
    clock = Clock(args.seconds)
    parts: dict[str, Callable[[], Figures]] = {
        "tiny": lambda: tiny(args.trying),
        **{name: partial(step_against_peers, name, args.trying) for name in ("electra-small", "causal-lm-gpt2")},
        "loader": lambda: loader(args.trying),
        **{name: partial(step_against_peers, name, args.trying) for name in ("electra-base", "mae-base", "droppos-base")},
        "float8": lambda: float8(args.trying),
    }
    result: Figures = {"name": "gpu", "what": __doc__.splitlines()[0], "figures": {}, "left_out": {}, "seconds": {}}
    for name, part in parts.items():
        if args.only is not None and name not in args.only:
            continue
        began = time.perf_counter()
        if clock.left <= 0:
            result["left_out"][name] = "the time was over"
        else:
            try:
                result["figures"][name] = part()
            except (Exception, SystemExit) as error:  # the other parts are worth having
                result["left_out"][name] = f"{type(error).__name__}: {str(error)[-1500:]}"
        result["seconds"][name] = round(time.perf_counter() - began, 1)
        shown = result["figures"].get(name) or result["left_out"].get(name)
        print(f"{name} ({result['seconds'][name]} s): {json.dumps(shown)}", flush=True)
        write_json(args.out, result | origin("python -m benchmarks.gpu"))
    return 1 if result["left_out"] else 0


if __name__ == "__main__":
    sys.exit(main())
