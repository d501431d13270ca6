"""`demo`: the main job on real text that every machine has, the documentation of its own packages.

Two methods pre-train for equal counted FLOPs; both networks and their random starts learn which of 12 packages a docstring sentence comes from (40 labelled sentences a
class, split by module, the test modules never seen in pre-training). Whatever comes out is printed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.files import write_json
from headstart.core.run import now
from headstart.data.text.builtin import SPEC, docstring_task
from headstart.engine.metrics import duration
from headstart.engine.text_method import model_folder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.finetune import Result, finetune
from headstart.tasks.metrics import paired_difference
from headstart.tasks.result import PRETRAINED, RANDOM
from headstart.verbs.pretrain import Run, pretrain, versions

METHODS = ("causal-lm", "mlm")
FINETUNE = FinetuneConfig(
    learning_rates=(3e-4, 1e-3), epochs=10, batch=16, optimizer="adamw", layer_decay=1.0, pooling="mean", max_length=64, loss_reduction="mean", dropout=0.1
)
"""One recipe for every arm. Mean pooling for all: a causal network has no [CLS] that saw the sentence."""


def demo(out: Path, *, minutes: float, seeds: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Runs the demonstration into `out` and returns what `out/result.json` holds. Started again, it continues.

    Args:
        minutes: pre-training time of the causal language model on this machine; mlm gets the same counted FLOPs.
        seeds: fine-tuning seeds.
    """
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    say("1/3  Data: the documentation of the packages in this Python, and a labelled task from it.")
    files = docstring_task(out / "task")
    corpus = f"{SPEC}?exclude={files.exclude}"

    say(f"2/3  Pre-training: {METHODS[0]} for {minutes:g} minutes, then {METHODS[1]} for the same counted FLOPs.")
    runs: dict[str, Run] = {}
    budget: dict[str, float] = {"budget.minutes": minutes}
    for slug in METHODS:
        runs[slug] = pretrain(slug, corpus, out=out / slug, say=lambda line: say(f"     {line}"), **budget)
        budget = {"budget.flops": float(runs[slug].info["totals"]["flops"])}

    say(f"3/3  Fine-tuning on {files.labelled_per_class} labelled sentences a class, {seeds} seeds, each network beside its own random start.")
    results = {
        slug: finetune(
            "classification", model_folder(run.export), files.train, files.test, dev=files.dev, config=FINETUNE, seeds=seeds, out=out / f"{slug}-finetuned"
        )
        for slug, run in runs.items()
    }
    result = {
        "name": "demo",
        "task": {"classes": files.classes, "labelled_per_class": files.labelled_per_class, "split": "by module", "metric": "accuracy"},
        "arms": [arm for slug in METHODS for arm in arms_of(slug, runs[slug], results[slug])],
        "sentence": sentence(results),
        "wall_s": round(time.perf_counter() - began, 1),
        "versions": versions(),
        "date": now(),
    }
    write_json(out / "result.json", result)
    for line in closing(result, out):
        say(line)
    return result


def arms_of(slug: str, run: Run, result: Result) -> list[dict[str, Any]]:
    """The pretrained and the random arm of one network, as result.json keeps them."""
    totals, verdict = run.info["totals"], run.info["verdict"]
    return [
        {
            "arm": slug if name == PRETRAINED else f"random start ({slug} network)",
            "accuracy": result.arm(name).values("accuracy"),
            "learning_rate": result.arm(name).learning_rate,
            "pretraining_flops": totals["flops"] if name == PRETRAINED else 0,
            "pretraining_s": round(totals["wall_s"], 1) if name == PRETRAINED else 0,
            "steps": totals["steps"] if name == PRETRAINED else 0,
            "left_plateau_at": verdict.get("left_plateau_at") if name == PRETRAINED else None,
        }
        for name in (PRETRAINED, RANDOM)
    ]


def sentence(results: dict[str, Result]) -> str:
    """Which head start helped, and by how much."""
    best = max(results, key=lambda slug: results[slug].arm(PRETRAINED).mean("accuracy"))
    start = max((result.arm(RANDOM) for result in results.values()), key=lambda arm: arm.mean("accuracy"))
    trained = results[best].arm(PRETRAINED)
    gain, interval = paired_difference(trained.values("accuracy"), start.values("accuracy"))
    against = f"{trained.mean('accuracy'):.3f} against {start.mean('accuracy'):.3f} from the best random start"
    if interval is None:
        return f"{best} reaches {against} ({100 * gain:+.1f} points); one seed decides nothing."
    within = f"{100 * gain:+.1f} points, 95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    if interval[0] > 0:
        return f"The {best} head start helped most: {against} ({within})."
    if interval[1] < 0:
        return f"No head start helped: the better one, {best}, reached {against} ({within})."
    return f"No head start helped beyond noise: the better one, {best}, reached {against} ({within})."


def closing(result: dict[str, Any], out: Path) -> list[str]:
    """Table, sentence, and what to type next."""
    lines = ["", f"{'arm':<34}{'accuracy':>18}{'pre-training':>16}{'FLOPs':>10}"]
    for arm in result["arms"]:
        values = np.array(arm["accuracy"])
        error = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
        lines.append(f"{arm['arm']:<34}{f'{values.mean():.3f}{error}':>18}{duration(arm['pretraining_s']):>16}{arm['pretraining_flops']:>10.2g}")
    return [
        *lines,
        "",
        result["sentence"],
        f"All of it took {duration(result['wall_s'])}; figures in {out / 'result.json'}.",
        "",
        "On your own texts (a folder of .txt, .md, .jsonl, .csv or .parquet):",
        "  headstart pretrain causal-lm --data YOUR_FOLDER --budget.minutes 10",
        "  headstart finetune classification --init runs/causal-lm-tiny-0 --train TRAIN.jsonl --test TEST.jsonl",
    ]
