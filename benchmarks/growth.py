"""How cost grows: time and memory of a training step against the length of rows, the batch and the width, and of preparation against the data.

    python -m benchmarks.growth

causal-lm with 4 layers on random rows, fp32; one of the three sizes varies, the others stay. Every point is a process of its own: the median of a few
steps, and the most memory that the process held beyond what it held before the network. Of each curve the exponent k of cost = c * size^k: in the
data, nothing may be worse than linear. Writes the JSON, and the figure docs/assets/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.parts import exponent
from benchmarks.result import write_result
from headstart.core import hardware
from headstart.core.figures import ACCENT, MUTED, plain_ticks, svg

FIXED = {"length": 128, "batch": 8, "width": 256}
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "length": ("tokens of a row", (64, 128, 256, 512)),
    "batch": ("rows of a batch", (2, 4, 8, 16, 32)),
    "width": ("width of the network", (64, 128, 256, 512)),
    "data": ("MB of raw text", (1, 4, 16)),
}
VOCAB, LAYERS, STEPS = 4096, 4, 5
MUST = 1.1
"""The largest exponent in the data: linear, with what the clock adds."""


def peak_mib() -> float:
    return (hardware.peak_resident_bytes() or 0) / 2**20


def step(length: int, batch: int, width: int) -> dict[str, float]:
    """Seconds and MiB of a training step, in this process."""
    import torch

    from benchmarks.parts import method_of
    from headstart.engine.optim import OptimizerConfig, build_optimizer
    from headstart.engine.update import Update
    from headstart.methods.causal_lm.config import CausalLMConfig

    config = CausalLMConfig(
        hidden_size=width, num_layers=LAYERS, num_heads=max(1, width // 64), intermediate_size=3 * width, sequence_length=length
    )
    small = method_of("causal-lm", CausalLMConfig(), VOCAB)  # libraries and their buffers are there before the first measurement
    run_steps(small, Update, build_optimizer(small, OptimizerConfig()), torch.randint(0, VOCAB, (2, 8)), 1)
    before = peak_mib()
    method = method_of("causal-lm", config, VOCAB)
    times = run_steps(method, Update, build_optimizer(method, OptimizerConfig()), torch.randint(0, VOCAB, (batch, length)), STEPS + 1)
    return {"seconds": statistics.median(times[1:]), "mib": peak_mib() - before}


def run_steps(method: Any, update_class: Any, optimizer: Any, ids: Any, count: int) -> list[float]:
    import torch

    update = update_class(method, optimizer, clip_norm=1.0, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=count)
    times = []
    for at in range(count):
        began = time.perf_counter()
        update([{"input_ids": ids}], [torch.arange(len(ids))], at, method.phases(count)[-1].name)
        times.append(time.perf_counter() - began)
    return times


def preparation(megabytes: int) -> dict[str, float]:
    """Seconds and MiB from raw text to the store, in this process."""
    from headstart.data.text.config import TextConfig
    from headstart.data.text.store import prepare_text

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "text.txt")
        write_sentences(source, megabytes)
        before, began = peak_mib(), time.perf_counter()
        prepare_text([source], Path(folder) / "store", TextConfig(vocab_size=4096))
        return {"seconds": time.perf_counter() - began, "mib": peak_mib() - before}


def write_sentences(path: Path, megabytes: int) -> None:
    """Documents of words drawn from a Zipf distribution: of any size the same text, and no two documents near-duplicates."""
    import numpy as np

    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlu"))
    words = np.array(["".join(random.choice(letters, random.integers(2, 9))) for _ in range(20_000)])
    with path.open("w", encoding="utf-8") as file:
        size = 0
        while size < megabytes * 1e6:
            drawn = words[np.minimum(random.zipf(1.3, 600) - 1, len(words) - 1)]
            size += file.write(". ".join(" ".join(drawn[at : at + 12]) for at in range(0, 600, 12)) + ".\n\n")


def measured(axis: str, size: int, repeats: int) -> dict[str, float]:
    """The medians of several processes."""
    found = []
    for _ in range(repeats):
        command = [sys.executable, "-m", "benchmarks.growth", "--worker", axis, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {key: round(statistics.median(entry[key] for entry in found), 4) for key in found[0]}


def draw(curves: Mapping[str, Any]) -> bytes:
    """The figure: time above, memory below, one column an axis; both scales logarithmic, linear growth as a dotted line. The same bytes each time."""

    def paint(figure: Any) -> None:
        panels = figure.subplots(2, len(curves), squeeze=False)
        for column, (axis, curve) in enumerate(curves.items()):
            for row, (key, label) in enumerate((("seconds", "seconds"), ("mib", "MiB"))):
                axes, sizes, costs = panels[row][column], curve["sizes"], curve[key]
                axes.plot(sizes, [costs[-1] * size / sizes[-1] for size in sizes], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
                axes.plot(sizes, costs, color=ACCENT, linewidth=2, marker="o")
                axes.set_xscale("log")
                axes.set_yscale("log")
                plain_ticks(axes.yaxis)
                axes.set_xticks(sizes, [str(size) for size in sizes])
                axes.minorticks_off()
                axes.set_title(f"size^{curve['exponents'][key]:.2f}", fontsize=11, loc="left")
                if row:
                    axes.set_xlabel(AXES[axis][0])
                if not column or axis == "data":
                    axes.set_ylabel(f"{label} to prepare" if axis == "data" else f"{label} a step")

    return svg(paint, (3 * len(curves), 5.4), "The figure of the costs", title="How cost grows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--axes", nargs="+", choices=sorted(AXES), default=list(AXES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/assets/growth.svg"))
    parser.add_argument("--worker", nargs=2, metavar=("AXIS", "SIZE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        axis, size = args.worker[0], int(args.worker[1])
        print(json.dumps(preparation(size) if axis == "data" else step(**{**FIXED, axis: size})))
        return
    curves: dict[str, Any] = {}
    for axis in args.axes:
        sizes = AXES[axis][1]
        points = [measured(axis, size, args.repeats) for size in sizes]
        curve: dict[str, Any] = {"sizes": list(sizes), **{key: [point[key] for point in points] for key in ("seconds", "mib")}}
        curve["exponents"] = {key: round(exponent(sizes, curve[key]), 3) for key in ("seconds", "mib")}
        curves[axis] = curve
        print(f"{AXES[axis][0]}: {curve}", flush=True)
    args.figure.write_bytes(draw(curves))
    write_result(
        args.out,
        name="growth",
        what=f"causal-lm, {LAYERS} layers, {FIXED['batch']} x {FIXED['length']} tokens, width {FIXED['width']} where they do not vary;"
        " ratio: the exponent of the seconds of preparation in the size of the data",
        ours=curves,
        peer={"name": "linear growth"},
        ratio=curves["data"]["exponents"]["seconds"] if "data" in curves else float("nan"),
        must=MUST,
        higher_is_better=False,
        command=f"python -m benchmarks.growth --repeats {args.repeats}",
    )


if __name__ == "__main__":
    main()
