"""What 8-bit products do to the loss: the held-out loss of a causal LM trained with `--precision fp8` beside the same run in bf16, and its curve.

Same text (the documentation of Python), seeds, order and steps; the pair of a seed differs in nothing but its products. The numbers are those of a
GPU's 8-bit products wherever it runs; how fast they are only a GPU says, and `python -m benchmarks.gpu --only float8` compares that.

python -m benchmarks.float8 [--preset tiny] [--steps 600] [--seeds 3] [--device cpu] [--out benchmarks/results/float8.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.result import write_result
from headstart.core.run import read_lines
from headstart.data.text.config import TextConfig
from headstart.data.text.head import documents
from headstart.tasks.metrics import paired_difference
from headstart.verbs.pretrain import pretrain

DOCUMENTS = 4000
"""That the networks learn from, 5 MB: the store is the smaller part of the work."""
POINTS = 12
"""Of a curve."""
HELD_OUT = "held_out/loss"


def curve(precision: str, seed: int, scratch: Path, arguments: argparse.Namespace) -> dict[int, float]:
    """Step -> held-out loss of one run."""
    settings: dict[str, Any] = {
        "preset": arguments.preset, "precision": precision, "seed": seed, "device": arguments.device, "budget.steps": arguments.steps,
        "trainer.evaluate_every": arguments.steps // POINTS, "trainer.checkpoint_every": arguments.steps, "out": scratch / f"{precision}-{seed}",
    }  # fmt: skip
    first = scratch / "bf16-0" / "store"  # what one run prepared all others read
    run = pretrain("causal-lm", first if first.exists() else scratch / "text.jsonl", say=lambda line: None, **settings)
    return {line["step"]: line["value"] for line in read_lines(run.folder / "probes.jsonl") if line["probe"] == HELD_OUT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/float8.json"))
    arguments = parser.parse_args()
    found: dict[str, list[dict[int, float]]] = {"bf16": [], "fp8": []}
    with tempfile.TemporaryDirectory() as scratch:
        texts = islice(documents(["builtin:python-docs"], TextConfig()), DOCUMENTS)
        (Path(scratch) / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        for seed in range(arguments.seeds):
            for precision, curves in found.items():
                curves.append(curve(precision, seed, Path(scratch), arguments))
                print(f"{precision}, seed {seed}: held-out loss {list(curves[-1].values())[-1]:.4f} nats a token", flush=True)
    last = {precision: [list(one.values())[-1] for one in curves] for precision, curves in found.items()}
    difference, interval = paired_difference(last["fp8"], last["bf16"])
    means = {
        precision: {step: round(statistics.mean(one[step] for one in curves), 4) for step in curves[0]} for precision, curves in found.items()
    }
    write_result(
        arguments.out,
        name="float8",
        what=f"held-out loss, nats a token, of causal-lm {arguments.preset} after {arguments.steps} steps: 8-bit products against bf16",
        ours={"held_out_loss": round(statistics.mean(last["fp8"]), 5), "seeds": last["fp8"], "curve": means["fp8"]},
        peer={"held_out_loss": round(statistics.mean(last["bf16"]), 5), "seeds": last["bf16"], "curve": means["bf16"]},
        ratio=statistics.mean(last["fp8"]) / statistics.mean(last["bf16"]),
        must=1.01,
        aim=1.002,
        higher_is_better=False,
        command="python -m benchmarks.float8 "
        f"--preset {arguments.preset} --steps {arguments.steps} --seeds {arguments.seeds} --device {arguments.device}",
        difference={"mean": difference, "ci95": None if interval is None else list(interval)},
    )


if __name__ == "__main__":
    main()
