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
from headstart.core.bounds import refuse_outside
from headstart.core.files import atomic_write, write_json
from headstart.core.places import refuse_folder
from headstart.core.run import now
from headstart.data.text.builtin import SPEC, builtin_documents
from headstart.data.text.docstring_task import DocstringTask, docstring_task
from headstart.engine.metrics import duration
from headstart.engine.text_method import model_folder
from headstart.tasks import recipe
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.finetune import finetune
from headstart.tasks.metrics import paired_difference
from headstart.tasks.result import PRETRAINED, RANDOM
from headstart.verbs._look_settings import DEMO, DEMO_FOLDER
from headstart.verbs.pretrain import Run, pretrain, versions

METHODS = ("causal-lm", "mlm")
LABELLED_PER_CLASS = 40
FINETUNE = FinetuneConfig(**recipe.SMALL, learning_rates=(1e-3, 2e-3), max_length=64)
"""One recipe for every arm. Mean pooling for all: a causal network has no [CLS] that saw the sentence."""


def demo(out: Path, *, minutes: float, seeds: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Runs the demonstration into `out` and returns what `out/result.json` holds. Started again, it continues.

    Args:
        minutes: pre-training time of the causal language model on this machine; mlm gets the same counted FLOPs.
        seeds: fine-tuning seeds.
    """
    refuse_outside({"minutes": minutes, "seeds": seeds}, DEMO)
    refuse_folder(out, ours=DEMO_FOLDER)
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
    files = docstring_task(documents, out / "task", train_per_class=LABELLED_PER_CLASS, n_seeds=seeds + 1)
    kept_out = set(files.keep_out.read_text(encoding="utf-8").split())
    corpus = out / "corpus.jsonl"
    with atomic_write(corpus) as file:
        for document in documents:
            if document.module not in kept_out:
                file.write(json.dumps(dataclasses.asdict(document), ensure_ascii=False).encode() + b"\n")
    return files, corpus


def fine_tuned(slug: str, run: Run, files: DocstringTask, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The pretrained and the random arm of one network; seed i has the i-th draw of labelled sentences.

    The last draw is the development set: each arm takes its better learning rate there, with the first seed.
    """
    *draws, dev = files.train
    told = lambda line: say(f"     {slug}, {line}")  # noqa: E731
    result = finetune("classification", model_folder(run.export), draws, files.test, dev, FINETUNE, seeds=len(draws), report=told)
    totals, verdict = run.info["totals"], run.info["verdict"]
    spent = {"flops": totals["flops"], "seconds": round(totals["wall_s"], 1), "steps": totals["steps"], "left_plateau_at": verdict["left_plateau_at"]}
    names = {PRETRAINED: slug, RANDOM: f"random start ({slug} network)"}
    return [
        {
            "arm": names[arm.arm],
            "pretrained": arm.arm == PRETRAINED,
            "accuracy": arm.values("accuracy"),
            "learning_rate": arm.learning_rate,
            **(spent if arm.arm == PRETRAINED else dict.fromkeys(spent, 0)),
        }
        for arm in result.arms
    ]


def sentence(arms: list[dict[str, Any]]) -> str:
    """Which head start helped, by how much over the same network from a random start, and which network is best in the end."""
    gains = [gain_words(trained, start) for trained, start in zip(arms[::2], arms[1::2], strict=True)]
    best = max(arms, key=lambda arm: float(np.mean(arm["accuracy"])))
    return f"Over the same network from a random start: {'; '.join(gains)}. Best of all: {best['arm']}, {np.mean(best['accuracy']):.3f}."


def gain_words(trained: dict[str, Any], start: dict[str, Any]) -> str:
    """mlm helps by +4.1 points (95 % interval +2.0 to +6.2)."""
    gain, interval = paired_difference(trained["accuracy"], start["accuracy"])
    points = f"{100 * gain:+.1f} points"
    if interval is None:
        return f"{trained['arm']} {points} in {len(trained['accuracy'])} draws, too few to decide anything"
    word = "helps by" if interval[0] > 0 else "hurts by" if interval[1] < 0 else "is open:"
    return f"{trained['arm']} {word} {points} (95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


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
