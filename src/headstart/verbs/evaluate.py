"""`evaluate`: what a causal language model knows without training. Multiple choice by likelihood, perplexity of texts.

    OUT/results.json          in the form of lm-evaluation-harness: results, n-samples, config, versions
    OUT/samples_TASK.jsonl    on request, of each item the log-probability of its choices

Those of an earlier evaluation into the same folder stay, with its time in their names as lm-evaluation-harness writes it: results_TIME.json.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.config import flag_names, replace_nested
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, read_json, write_json
from headstart.core.flags import in_words_of
from headstart.data.text.pool import read_pool
from headstart.engine.device import use_device
from headstart.engine.text_method import model_folder
from headstart.engine.update import precision_of
from headstart.tasks.generation import Decoder
from headstart.tasks.leaks import leak_sentences, training_leaks, training_overlaps
from headstart.tasks.lm_scores import score_text
from headstart.tasks.multiple_choice import Item, Scored, contaminated, metric_of, pick, read_items, results, score_items
from headstart.verbs._evaluate_settings import EvaluateSettings, check, results_folder
from headstart.verbs._exports import resolve_init
from headstart.verbs.pretrain import git_commit, versions

__all__ = ["EvaluateSettings", "Evaluation", "evaluate", "evaluate_with"]

_STAMPED = re.compile(r"_\d{4}-\d\d-\d\dT[\d.-]+\.jsonl$")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        folder: where it lies.
        results: task or text -> its figures, named as by lm-evaluation-harness ("acc,none").
        excluded: task -> items that stand in the pool.
        leaks: sentences on items and texts that stand in what the model's own run was trained on.
        report: results.json.
    """

    folder: Path
    results: dict[str, dict[str, Any]]
    excluded: dict[str, int]
    leaks: list[str]
    report: dict[str, Any]


def evaluate(model: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Evaluation:
    """Scores a model on items and texts.

    Args:
        model: a run, an export or a transformers folder.
        settings: those of `EvaluateSettings`: `items="items.jsonl", text="test.jsonl"`.

    Raises:
        BadInput: an item or text that cannot be scored, a folder without a decoder. UsageError: a setting.
    """
    for name in {"items", "text", "pool"} & settings.keys():
        given = settings[name]
        settings[name] = [str(entry) for entry in ([given] if isinstance(given, str | Path) else given)]
    return evaluate_with(replace_nested(EvaluateSettings(), {"model": model, **settings}), say)


@in_words_of(flag_names(EvaluateSettings()))
def evaluate_with(settings: EvaluateSettings, say: Callable[[str], None] = print) -> Evaluation:
    """As `evaluate`, from settings."""
    check(settings)
    assert settings.model is not None
    began, device = time.time(), use_device(settings.device)
    items = [item for path in settings.items for item in read_items(path)]  # a bad item is refused before the model is read
    kept, excluded = _outside_pool(items, settings)
    exported = resolve_init(settings.model)
    assert exported is not None
    folder = model_folder(exported)
    decoder = Decoder.load(folder)
    precision = precision_of(settings, device)
    found: dict[str, dict[str, Any]] = {}
    leaks: list[str] = []
    out = results_folder(settings)
    out.mkdir(parents=True, exist_ok=True)
    scored: Scored | None = None
    if kept:
        scored = score_items(decoder, kept, device, precision, settings.max_length)
        found |= results(scored)
        leaks = training_leaks([item.context + item.choices[item.answer] for item in kept], settings.model)
    for entry in settings.text:
        documents = [document.text for document in read_pool([entry], settings.text_field)]
        name = _unused(Path(entry).name.split(".")[0], found)
        try:
            found[name] = {"alias": name} | score_text(decoder, documents, device, precision, settings.max_length).to_json()
        except BadInput as error:
            raise error if error.file else BadInput(error.reason, error.mend, file=entry) from None
        seen = [(run, overlap) for run, overlap in training_overlaps(documents, settings.model) if overlap is None or overlap.share]
        leaks += [f"{name}: {sentence}" for sentence in leak_sentences(seen, settings.model)]
    report = {
        "results": found,
        "n-samples": {task: {"original": figures["sample_len"] + excluded.get(task, 0), "effective": figures["sample_len"]}
                      for task, figures in found.items() if "sample_len" in figures},
        "higher_is_better": {task: {"acc": True, "acc_norm": True} if "sample_len" in figures else
                             {"bits_per_byte": False, "byte_perplexity": False, "token_perplexity": False} for task, figures in found.items()},
        "excluded": excluded,
        "leaks": leaks,
        "config": {"model": "headstart", "model_args": f"pretrained={folder}", "device": str(device), "precision": precision,
                   "max_length": min((n for n in (settings.max_length, decoder.length) if n is not None), default=None)},
        "versions": versions(),
        "git_hash": git_commit(),
        "date": began,
        "total_evaluation_time_seconds": time.time() - began,
    }  # fmt: skip
    earlier = set_aside(out)
    if scored is not None and settings.samples:
        _write_samples(out, scored)
    write_json(out / "results.json", report)
    for line in _lines(found, excluded, leaks, out):
        say(line)
    if earlier is not None:
        say(f"Those of the evaluation before: {earlier}")
    return Evaluation(out, found, excluded, leaks, report)


def set_aside(out: Path) -> Path | None:
    """Gives the results of an earlier evaluation a name of their own, with their samples. Returns where they are; None: there were none."""
    results = out / "results.json"
    if not results.is_file():
        return None
    try:
        began = float(read_json(results)["date"])
    except (BadInput, KeyError, TypeError, ValueError):
        began = results.stat().st_mtime
    stamp = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    for samples in out.glob("samples_*.jsonl"):
        if not _STAMPED.search(samples.name):
            samples.rename(samples.with_name(f"{samples.stem}_{stamp}.jsonl"))
    return results.rename(out / f"results_{stamp}.json")


def _outside_pool(items: Sequence[Item], settings: EvaluateSettings) -> tuple[list[Item], dict[str, int]]:
    """The items that do not stand in the pool, and of each task how many do."""
    if not settings.pool:
        return list(items), {}
    inside = contaminated(items, (document.text for document in read_pool(settings.pool, settings.text_field)))
    excluded = {task: int(np.sum([gone and item.task == task for item, gone in zip(items, inside, strict=True)])) for task in _tasks(items)}
    return [item for item, gone in zip(items, inside, strict=True) if not gone], excluded


def _tasks(items: Sequence[Item]) -> list[str]:
    return list(dict.fromkeys(item.task for item in items))


def _unused(name: str, known: dict[str, Any]) -> str:
    """The name, with a number where it is taken."""
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in known:
        number += 1
    return found


def _write_samples(out: Path, scored: Scored) -> None:
    for task in _tasks(scored.items):
        with atomic_write(out / f"samples_{re.sub(r'[^A-Za-z0-9_.-]', '_', task)}.jsonl") as file:
            for item, sums in zip(scored.items, scored.log_probs, strict=True):
                if item.task == task:
                    picked = {by: pick(sums, item.choices, by) for by in ("acc", "acc_norm")}
                    record = {"id": item.id, "target": item.answer, "log_probs": sums.tolist(), "picked": picked}
                    file.write(json.dumps(record | {by: float(choice == item.answer) for by, choice in picked.items()}).encode() + b"\n")


def _lines(found: dict[str, dict[str, Any]], excluded: dict[str, int], leaks: list[str], out: Path) -> Iterator[str]:
    width = max(map(len, found), default=0)
    for name, figures in found.items():
        if "sample_len" not in figures:
            yield (
                f"{name:<{width}}  {figures['bits_per_byte,none']:.4f} bits a byte; perplexity {figures['token_perplexity,none']:.4g} a token,"
                f" {figures['byte_perplexity,none']:.4g} a byte ({figures['targets']:,} tokens, {figures['documents']:,} documents)"
            )
            continue
        by = metric_of(name)
        other = "acc" if by == "acc_norm" else "acc_norm"
        spread = figures[f"{by}_group_stderr,none"]
        error = "" if isinstance(spread, str) else f" ± {spread:.3f}"
        yield f"{name:<{width}}  {by} {figures[f'{by},none']:.3f}{error}  ({other} {figures[f'{other},none']:.3f}, {figures['sample_len']:,} items)"
    for task, count in excluded.items():
        yield f"{count:,} items of {task} stand in the pool and are left out."
    yield from leaks
    yield f"Results: {out / 'results.json'}"
