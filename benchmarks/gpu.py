"""Everything that only a GPU can show, in one script under eight minutes: `make bench-gpu`, or

    python -m benchmarks.gpu [--seconds 460] [--try] [--only PART ...]

Steps of ELECTRA-small, ELECTRA-base, GPT-2, MAE and DropPos against the peers, plain and compiled; what share of a tiny model's step the device
works; what share of a step waits for data. Every side is a process of its own, as it is for a person, and has a limit of its own. The result is
written after each, so that a script that is cut off keeps what it has, and a side that fails costs nothing but itself; what was left out is named.

What is compiled is compiled first, several at a time, with a step that nobody times: the processes that are timed then find the kernels in the
compiler's cache on the disk, and one after another has the machine for itself. `--try` runs the same parts on a CPU with few and short rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import IdRows, method_of, steps_of, synchronize, trainer_of
from benchmarks.result import origin
from benchmarks.training_step import COMPARISONS, PEERS, last_json
from headstart import methods
from headstart.core.files import write_json
from headstart.engine.trainer import Trainer
from headstart.methods.causal_lm.config import CausalLMConfig

SHAPES: dict[str, tuple[list[str], list[str]]] = {  # name -> (what, size, batch, length; how a run of ours on a GPU runs it by itself)
    "electra-small": (["electra", "--size", "small", "--batch", "256", "--seq", "128"], ["--cuda-graph"]),
    "causal-lm-gpt2": (["causal-lm", "--batch", "32", "--seq", "1024"], ["--our-compile"]),
    "electra-base": (["electra", "--size", "base", "--batch", "256", "--seq", "128"], ["--our-compile"]),
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
ASKED_FOR = {"electra-small": {"ours, compiled": ["--cuda-graph", "--our-compile"]}}
"""Shape -> further ways of ours, which a run takes where it is told to (--trainer.compile on)."""
SAME_PEER = {"droppos-base": "mae-base"}
"""Shape -> another whose peer it has too: timed once."""
FLOAT8 = "float8"
MEASURES = ("tiny", "loader")
"""Parts without a peer."""
PARTS = ("tiny", "electra-small", "causal-lm-gpt2", "electra-base", "loader", "mae-base", "droppos-base", FLOAT8)
"""In the order of what is promised of them."""
AT_ONCE = 3
"""Compilations side by side: each has one busy thread, a step's memory on the GPU (at most 26 GiB), and a few helpers."""
LIMITS = {True: 150.0, False: 75.0}
"""Whether it compiles -> seconds after which a side is ended."""
Figures = dict[str, Any]


class Bench:
    """What was measured so far, and the time that is left."""

    def __init__(self, out: Path, seconds: float, trying: bool) -> None:
        self.out, self.trying = out, trying
        self.ends = time.perf_counter() + seconds
        self.figures: dict[str, Figures] = {}
        self.left_out: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.compiling: dict[str, float | str] = {}

    @property
    def left(self) -> float:
        return self.ends - time.perf_counter()

    def measure(self, name: str, command: list[str]) -> Figures | None:
        """The figures that a command prints, or None; its name is noted then, with the reason."""
        limit = min(LIMITS[compiles(command)] * (10 if self.trying else 1), self.left)
        began, found = time.perf_counter(), None
        if limit <= 0:
            self.left_out[name] = "the time was over"
        else:
            try:
                found = last_json(command, limit)
            except (Exception, SystemExit) as error:  # the others are worth having
                self.left_out[name] = f"{type(error).__name__}: {str(error)[-1500:]}"
        self.seconds[name] = round(time.perf_counter() - began, 1)
        print(f"{name} ({self.seconds[name]} s): {json.dumps(found or self.left_out[name])}", flush=True)
        return found

    def write(self) -> None:
        result = {"name": "gpu", "what": (__doc__ or "").splitlines()[0], "figures": self.figures, "left_out": self.left_out}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.out, result | {"seconds": self.seconds, "compiling": self.compiling} | origin("python -m benchmarks.gpu"))

    def shape(self, name: str, commands: Mapping[str, list[str]]) -> None:
        """Tokens/s or images/s, memory and the ratios of one shape, from the command of each side."""
        figures = self.figures.setdefault(name, {})
        for side, command in commands.items():
            if side in figures:
                continue
            borrowed = self.figures.get(SAME_PEER[name], {}).get(side) if shared(name, side) else None
            found = borrowed or self.measure(f"{name}: {side}", command)
            if found is not None:
                figures[side] = {key: found[key] for key in (rate_of(found), "step_ms", "peak_mib", "mfu", "kernels") if key in found}
                figures |= ratios(figures)
            self.write()

    def float8(self) -> None:
        """GPT-2 by ours with 8-bit products against ours in bf16, both compiled: tokens/s, memory, and their ratios. The loss beside bf16's is
        `benchmarks/float8.py`'s."""
        mine = sides("causal-lm-gpt2", self.trying)["ours"]
        found = {"bf16": self.figures.get("causal-lm-gpt2", {}).get("ours") or self.measure(f"{FLOAT8}: bf16", mine)}
        found["fp8"] = self.measure(f"{FLOAT8}: fp8", [*mine, "--our-fp8"])
        self.figures[FLOAT8] = {side: entry for side, entry in found.items() if entry is not None}
        if found["bf16"] is not None and found["fp8"] is not None:
            rate = rate_of(found["bf16"])
            for name, key in (("times_bf16", rate), ("memory_of_bf16", "peak_mib")):
                self.figures[FLOAT8][name] = round(found["fp8"][key] / found["bf16"][key], 3)

    def compile_ahead(self, parts: list[str]) -> None:
        """Fills the compiler's cache for the sides that are compiled."""
        commands: dict[str, list[str]] = {}
        for name in parts:
            if name in SHAPES:
                wanted = {side for side in promised(name) if not shared(name, side)}
                commands |= {f"{name}: {side}": command for side, command in sides(name, self.trying).items() if side in wanted}
            elif name == FLOAT8:
                commands[FLOAT8] = [*sides("causal-lm-gpt2", self.trying)["ours"], "--our-fp8"]
        commands = {name: command for name, command in commands.items() if compiles(command)}
        if not commands:
            return
        before, os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS"), "4"
        until = time.perf_counter() + min(0.45 * self.left, 200.0)

        def one(name: str) -> float | str:
            began = time.perf_counter()
            try:
                last_json(once(commands[name]), max(1.0, until - began))
            except (Exception, SystemExit) as error:  # it compiles again where it is timed
                return f"{type(error).__name__}: {str(error)[-500:]}"
            return round(time.perf_counter() - began, 1)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.compiling = dict(zip(commands, pool.map(one, commands), strict=True))
        if before is None:
            del os.environ["TORCHINDUCTOR_COMPILE_THREADS"]
        else:
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = before
        print(f"compiled ahead, s: {json.dumps(self.compiling)}", flush=True)
        self.write()


def sides(name: str, trying: bool) -> dict[str, list[str]]:
    """The command of each side: peer plain, ours as a run has it, peer compiled, ours plain; and what is only asked for."""
    shape, fast = SHAPES[name]
    if trying:
        shape = [*shape[: shape.index("--batch")], *TRIED[name]]
    how = ["--precision", "bf16", "--device", "cpu" if trying else "cuda"]
    how += ["--warmup", "1", "--steps", "1", "--repeats", "1"] if trying else ["--warmup", "6", "--steps", "10", "--repeats", "3"]
    peer = [sys.executable, str(PEERS), COMPARISONS[shape[0]].peer, *shape[1:], *how]
    mine = [sys.executable, "-m", "benchmarks.training_step", *shape, *how, "--worker", "--mfu"]
    found = {"plain": peer, "ours": [*mine, "--kernels", "15", *([] if trying else fast)]}
    if not trying:
        found |= {side: [*mine, "--kernels", "15", *way] for side, way in ASKED_FOR.get(name, {}).items()} | {"compiled": [*peer, "--compile"]}
    return found | {"ours, plain": mine}


def compiles(command: Sequence[str]) -> bool:
    return "--compile" in command or "--our-compile" in command


def shared(name: str, side: str) -> bool:
    """Whether this side of a shape is another shape's too."""
    return name in SAME_PEER and "ours" not in side


def promised(name: str) -> list[str]:
    """The sides that a line is about: the peer compiled only where ours is."""
    return ["plain", "ours", *ASKED_FOR.get(name, {}), *(["compiled"] if compiles(SHAPES[name][1]) else [])]


def once(command: list[str]) -> list[str]:
    """The command with as few steps as compile everything."""
    few = list(command)
    for flag, number in (("--warmup", "1"), ("--steps", "1"), ("--repeats", "1"), ("--kernels", "0")):
        if flag in few:
            few[few.index(flag) + 1] = number
    return [part for part in few if part != "--mfu"]


def rate_of(entry: Mapping[str, Any]) -> str:
    """The name of its rate: tokens_per_s or images_per_s."""
    return next(name for name in entry if name.endswith("_per_s"))


def ratios(figures: Mapping[str, Any]) -> Figures:
    """Of the fastest of our ways to the peer, plain and compiled, as far as they were measured; and of its memory to the plain peer's."""
    mine = [side for side in figures if side.startswith("ours")]
    if not mine:
        return {}
    rate = rate_of(figures[mine[0]])
    best = max(mine, key=lambda side: figures[side][rate])
    found: Figures = {"best": best}
    if "plain" in figures:
        found["times_plain"] = round(figures[best][rate] / figures["plain"][rate], 3)
        found["memory_of_plain"] = round(figures[best]["peak_mib"] / figures["plain"]["peak_mib"], 3)
    if "compiled" in figures:
        found["times_compiled"] = round(figures[best][rate] / figures["compiled"][rate], 3)
    if "mfu" in figures[best]:
        found["mfu"] = figures[best]["mfu"]
    return found


def tiny(trying: bool) -> Figures:
    """A tiny network by CUDA graph, and plainly: the share of a step in which the device works, from the profiler's kernel times. Beside it the share
    that the graph itself takes, with the gaps between its kernels: what is left of a step is the host's."""
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
                wall = statistics.median(run(steps).wall for _ in range(1 if trying else 3)) / steps
                busy = busy_seconds(lambda: run(steps), device) / steps  # noqa: B023 - called here
                replay = replay_seconds(trainer) if graph else None
        figures[name] = {"step_ms": round(1e3 * wall, 3), "device_ms": round(1e3 * busy, 3), "share": round(busy / wall, 4)}
        if replay is not None:
            figures[name] |= {"replay_ms": round(1e3 * replay, 3), "share_of_replay": round(replay / wall, 4)}
    return figures | {"device_share": max(entry["share"] for entry in figures.values())}


def busy_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds in which the device's kernels ran; overlapping ones count once."""
    activity = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        work()
        synchronize(device)
    kind = torch.autograd.DeviceType.CUDA if device.type == "cuda" else torch.autograd.DeviceType.CPU
    events = [event for event in profiler.events() if event.device_type == kind and not event.is_user_annotation]  # names cover gaps too
    return 1e-6 * covered([(event.time_range.start, event.time_range.end) for event in events])


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def replay_seconds(trainer: Trainer, replays: int = 200) -> float:
    """Of the captured update, by events on the device around many."""
    (captured,) = trainer.update._graphs.values()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(replays):
        captured.graph.replay()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3 / replays


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
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--worker", choices=MEASURES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps({"tiny": tiny, "loader": loader}[args.worker](args.trying)))
        return 0
    bench = Bench(args.out, args.seconds, args.trying)
    parts = [part for part in PARTS if part in args.only]
    bench.compile_ahead(parts)
    for part in parts:
        if part in MEASURES:
            found = bench.measure(part, [sys.executable, "-m", "benchmarks.gpu", "--worker", part, *(["--try"] if args.trying else [])])
            bench.figures |= {} if found is None else {part: found}
        elif part == FLOAT8:
            bench.float8()
        else:
            commands = sides(part, args.trying)
            bench.shape(part, {side: commands[side] for side in promised(part) if side in commands})
        bench.write()
    missing = len(bench.left_out)
    for part in parts:  # what no line is about, where time is left
        if part in SHAPES:
            bench.shape(part, {"ours, plain": sides(part, args.trying)["ours, plain"]})
    bench.write()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
