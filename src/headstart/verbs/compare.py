"""`compare`: which of several runs is better for the task, at equal compute, and whether the difference is more than noise.

Every arm (a run, or runs that differ in nothing but their pre-training seed) is fine-tuned on the same draws of labelled records with the same
seeds, its learning rate the best of the same few on a development part of the training records; a random start of each network is always an arm.

The folder (default runs/comparisons/NAME, NAME being those of the runs):

    comparison.json   all of it, rewritten after each measurement
    comparison.svg    the same as a plot: metric against FLOPs, against wall time, against number of labels (needs the extra `report`)
    points.jsonl      each measured point as it is known: the same command after a kill measures nothing twice

comparison.json, format_version 1 (FLOPs are counted training FLOPs, times in seconds, every metric is better when higher, [low, high] are 95 %
intervals cut to what the metric can be; null where there are too few seeds for one, fewer than three):

    kind, format_version    "comparison", 1
    name, status            NAME; "running" or "done"
    settings                what was asked for
    evidence                "labels", or "no labels": halves of held-out documents, weaker evidence
    task, metric, measure   "classification", "accuracy", "finetune" or "linear-probe"; without labels null, "halves", null
    data                    {labels, test (files or null), records, train_records, test_records, classes [...], split (words)}; without labels
                            {store, documents}
    arms                    [{arm (name), kind ("run", "model", "random"), runs [folders], method, preset, pretraining_seeds [...] (all three null for
                            a model folder), network (name of the random arm with its architecture, null without labels), learning_rate,
                            tried {rate: metric on the development part},
                            points [{labels (training records), step, flops, wall_s (null where unknown; 0 for a random start), final (of the run),
                            values [[fine-tuning seeds] for each pre-training seed], mean, ci95}],
                            loss {value, comparable} or null, rankme or null}]
    equal_compute           {equal, flops (null where there is none in common), ratio (largest : smallest at the runs' ends), how ("as the runs
                            ended", "at checkpoints", "interpolated between checkpoints", "not possible", "unknown"), sentence}; null for one run
    compared                [{arm, value, ci95, flops, wall_s, how}]: the table, best first, at equal compute where there is one
    comparisons             [{a, b, difference (a - b), ci95, p, p_holm, verdict ("better", "worse": a than b; "not enough evidence"),
                            equal_compute (true also against a random start, which costs nothing to pre-train), flops_ratio, covers (what the interval
                            covers, words), sentence}]
    worth                   [{arm, labels, random_labels, ci95 [low, high] (a high of null: beyond the largest measured count), more_than (that count)
                            or null, sentence}]: labels that a random start needs for the same metric
    continued               [{run (name), parts {name: {first, last, first_bits_per_byte, last_bits_per_byte}} (held-out losses), transient {height,
                            step, forgetting, recovery (step, null: not within the run)} or null, pay_back_step or null,
                            total_steps}]: of runs with named parts (docs/methods/rewarm.md)
    winner, sentence        name of an arm or null; the verdict
    notes, leaks            sentences: what to know when reading this; test records that stand in training data
    commands                {load, finetune} of the winner, or of the best arm
    plan                    {points, measured, seconds_a_point, minutes, seeds, labels [counts of the curve], left_out [words]}
    spent_s, hardware, versions, commit, command, date
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.core.config import replace_nested, several
from headstart.core.files import locked
from headstart.core.terminal import printable
from headstart.engine.device import resolve_device
from headstart.verbs import forgetting
from headstart.verbs._compare_arms import Arm, read_arms
from headstart.verbs._compare_measure import read_labelled
from headstart.verbs._compare_run import Comparison, OnLabels, Unlabelled
from headstart.verbs._compare_settings import CompareBudget, CompareSettings, check
from headstart.verbs._compare_unlabelled import held_out_documents

__all__ = ["CompareBudget", "CompareSettings", "Comparison", "compare", "compare_with"]

MAX_NAME = 80


def compare(
    runs: Sequence[str | Path],
    *,
    labels: str | Path | None = None,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] | None = None,
    **settings: Any,
) -> Comparison:
    """Which of several runs is better for the task: `compare(["runs/mlm-tiny-0", "runs/electra-tiny-0"], labels="labels.jsonl")`.

    Args:
        runs: run folders, exports or transformers folders.
        labels: a file with labelled records.
        say, live: as in `pretrain`.
        settings: fields of `CompareSettings`, nested ones with dots.

    Raises:
        BadInput: a folder or file cannot be used. UsageError: a setting is wrong.
    """
    chosen = {"runs": tuple(map(str, several(runs))), **({} if labels is None else {"labels": labels}), **settings}
    return compare_with(replace_nested(CompareSettings(), chosen), say=say, live=live)


def compare_with(settings: CompareSettings, *, say: Callable[[str], None] = print, live: Callable[[str], None] | None = None) -> Comparison:
    """As `compare`, from settings."""
    check(settings)
    resolve_device(settings.finetune.device)
    arms, starts = read_arms(settings.runs)
    out = settings.out or Path("runs") / "comparisons" / _folder_name(arms)
    config = dataclasses.replace(
        settings.finetune, text_field=settings.text_field, second_field=settings.second_field, label_field=settings.label_field
    )
    all_arms = [*arms, *starts.values()]
    network = {i: all_arms.index(starts[arm.final.architecture]) for i, arm in enumerate(arms)}
    told = lambda line: say(printable(line))  # noqa: E731
    learned, constant = forgetting.outcomes([source.path for arm in arms for source in arm.sources])
    for line in forgetting.lines(learned, constant):
        told(line)
    continued = [asdict(one) for one in learned]
    if settings.labels is None:
        documents = held_out_documents(arms)
        with locked(out / ".lock", "compares into this folder"):
            return Unlabelled(settings, config, all_arms, network, out, told, live, continued).run(documents)
    labelled = read_labelled(settings.labels, settings.test, settings.task, config, settings.group_field, settings.seeds)
    labelled.with_counts([count for count in settings.counts if count < labelled.main], settings.seeds)  # refuses those that cannot be drawn
    with locked(out / ".lock", "compares into this folder"):
        return OnLabels(settings, config, all_arms, network, out, told, live, continued).run(labelled)


def _folder_name(arms: Sequence[Arm]) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-vs-".join(arm.name for arm in arms)).strip("-.")
    return name[:MAX_NAME].rstrip("-.") or "comparison"
