"""`demo`: the main job on real text that every machine has, the documentation of its own packages.

Two methods pre-train for equal counted FLOPs; both networks and their random starts learn which of 12 packages a docstring sentence comes from (40
labelled sentences a
class, split by module, the test modules never seen in pre-training). Whatever comes out is printed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import hardware
from headstart.core.files import atomic_write, write_json
from headstart.core.run import now
from headstart.data.text.builtin import SPEC, builtin_documents
from headstart.data.text.docstring_task import DocstringTask, docstring_task
from headstart.engine.metrics import duration
from headstart.engine.text_method import model_folder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.finetune import finetune
from headstart.tasks.metrics import paired_difference
from headstart.tasks.result import PRETRAINED, RANDOM
from headstart.verbs.pretrain import Run, pretrain, versions

METHODS = ("causal-lm", "mlm")
LABELLED_PER_CLASS = 40
FINETUNE = FinetuneConfig(
    learning_rate=1e-3,
    epochs=10,
    batch=16,
    optimizer="adamw",
    layer_decay=1.0,
    pooling="mean",
    max_length=64,
    loss_reduction="mean",
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
    files, corpus = task_and_corpus(out, seeds)

    say(f"2/3  Pre-training: {METHODS[0]} for {minutes:g} minutes, then {METHODS[1]} for the same counted FLOPs.")
    runs: dict[str, Run] = {}
    budget: dict[str, Any] = {"budget.minutes": minutes}
    for slug in METHODS:
        runs[slug] = pretrain(slug, corpus, out=out / slug, say=lambda line: say(f"     {line}"), **budget)
        budget = {"budget.flops": float(runs[slug].info["totals"]["flops"])}

    say(f"3/3  Fine-tuning on {LABELLED_PER_CLASS} labelled sentences a class, {seeds} draws of them, each network beside its own random start.")
    arms = [arm for slug in METHODS for arm in fine_tuned(slug, runs[slug], files, say)]
    result = {
        "name": "demo",
        "task": {"classes": files.labels, "labelled_per_class": LABELLED_PER_CLASS, "split": "by module", "metric": "accuracy"},
        "arms": arms,
        "sentence": sentence(arms),
        "wall_s": round(time.perf_counter() - began, 1),
        "hardware": hardware.describe(),
        "versions": versions(),
        "date": now(),
    }
    write_json(out / "result.json", result)
    for line in closing(result, out):
        say(line)
    return result


def task_and_corpus(out: Path, seeds: int) -> tuple[DocstringTask, Path]:
    """The labelled task, and the documentation without the modules of its test sentences, from one pass over the packages."""
    documents = list(builtin_documents(SPEC))
    files = docstring_task(documents, out / "task", train_per_class=LABELLED_PER_CLASS, n_seeds=seeds)
    kept_out = set(files.keep_out.read_text(encoding="utf-8").split())
    corpus = out / "corpus.jsonl"
    with atomic_write(corpus) as file:
        for document in documents:
            if document.module not in kept_out:
                file.write(json.dumps(dataclasses.asdict(document), ensure_ascii=False).encode() + b"\n")
    return files, corpus


def fine_tuned(slug: str, run: Run, files: DocstringTask, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The pretrained and the random arm of one network; seed i has the i-th draw of labelled sentences."""
    accuracy: dict[str, list[float]] = {PRETRAINED: [], RANDOM: []}
    for seed, train in enumerate(files.train):
        result = finetune("classification", model_folder(run.export), train, files.test, config=FINETUNE, seeds=[seed])
        for name, values in accuracy.items():
            values += result.arm(name).values("accuracy")
        say(f"     {slug}, draw {seed}: {accuracy[PRETRAINED][-1]:.3f}, from a random start {accuracy[RANDOM][-1]:.3f}")
    totals, verdict = run.info["totals"], run.info["verdict"]
    spent = {"flops": totals["flops"], "seconds": round(totals["wall_s"], 1), "steps": totals["steps"], "left_plateau_at": verdict["left_plateau_at"]}
    return [
        {"arm": slug, "pretrained": True, "accuracy": accuracy[PRETRAINED], **spent},
        {"arm": f"random start ({slug} network)", "pretrained": False, "accuracy": accuracy[RANDOM], **dict.fromkeys(spent, 0)},
    ]


def sentence(arms: list[dict[str, Any]]) -> str:
    """Which head start helped, and by how much."""
    mean = lambda arm: float(np.mean(arm["accuracy"]))  # noqa: E731
    best, start = (max((arm for arm in arms if arm["pretrained"] is kind), key=mean) for kind in (True, False))
    gain, interval = paired_difference(best["accuracy"], start["accuracy"])
    against = f"{best['arm']} reaches {np.mean(best['accuracy']):.3f}, the better random start {np.mean(start['accuracy']):.3f}"
    if interval is None:
        return f"One draw decides nothing: {against} ({100 * gain:+.1f} points)."
    within = f"{against}: {100 * gain:+.1f} points, 95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    if interval[0] > 0:
        return f"The {best['arm']} head start helped most: {within}."
    if interval[1] < 0:
        return f"No head start helped: {within}."
    return f"No head start helped beyond noise: {within}."


def table_lines(arms: list[dict[str, Any]]) -> list[str]:
    """One line an arm: accuracy with its standard error over draws, pre-training time and counted FLOPs."""
    lines = [f"{'arm':<34}{'accuracy':>16}{'pre-training':>15}{'FLOPs':>10}{'steps':>8}"]
    for arm in arms:
        values = np.array(arm["accuracy"])
        error = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
        lines.append(f"{arm['arm']:<34}{f'{values.mean():.3f}{error}':>16}{duration(arm['seconds']):>15}{arm['flops']:>10.2g}{arm['steps']:>8,}")
    return lines


def closing(result: dict[str, Any], out: Path) -> list[str]:
    """Table, sentence, and what to type next."""
    return [
        "",
        *table_lines(result["arms"]),
        "",
        result["sentence"],
        f"All of it took {duration(result['wall_s'])}; figures in {out / 'result.json'}.",
        "",
        "On your own texts (a folder of .txt, .md, .jsonl, .csv or .parquet):",
        "  headstart pretrain causal-lm --data YOUR_FOLDER --budget.minutes 10",
        "  headstart finetune classification --init runs/causal-lm-tiny-0 --train TRAIN.jsonl --test TEST.jsonl",
    ]
