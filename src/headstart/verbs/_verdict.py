"""Probes during a run, and the verdict at its end: is the backbone better than the same network from a random start, and by how much?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart import methods
from headstart.core.words import plural
from headstart.engine.method import Batch, Method
from headstart.engine.metrics import duration
from headstart.engine.plateau import Plateau
from headstart.engine.probes import embed_all, knn_accuracy, linear_probe, rankme
from headstart.tasks.metrics import mean_interval
from headstart.verbs._kinds import kind_of
from headstart.verbs.config import ProbeConfig

SPLITS = 5
TEST_SHARE = 0.5  # the splits are halves
MAX_LABELLED = 2000
PROBE_BATCH = 64


@dataclasses.dataclass
class Labelled:
    """A labelled set as batches: what the probes measure on."""

    batches: list[Batch]
    labels: Tensor  # int64 [n]
    classes: int


def labelled(config: ProbeConfig, method: Method) -> Labelled | None:
    """The labelled set of the probe settings, encoded as the method's batches; the first 2,000 records in file order after a seeded shuffle."""
    if config.labels is None:
        return None
    records, labels, classes = kind_of(method).read_labelled(config, method)
    order = np.random.default_rng(0).permutation(len(records))[:MAX_LABELLED]
    chosen = [records[i] for i in order]
    batches = [method.encode(chosen[start : start + PROBE_BATCH]) for start in range(0, len(chosen), PROBE_BATCH)]
    return Labelled(batches, torch.tensor([labels[i] for i in order]), classes)


@torch.no_grad()
def features(method: Method, batches: list[Batch], device: torch.device) -> Tensor:
    """float32 [n, dim] on the CPU: the backbone's vectors, dropout off."""
    was_training = method.training
    method.eval()
    found = embed_all(lambda batch: method.embed({name: value.to(device) for name, value in batch.items()}), batches).cpu()
    method.train(was_training)
    return found


def split_half(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A stratified random half for training, the other half for testing: two index tensors."""
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        train.append(members[: (len(members) + 1) // 2])
        test.append(members[(len(members) + 1) // 2 :])
    return torch.cat(train), torch.cat(test)


def probe_scores(vectors: Tensor, data: Labelled) -> list[float]:
    """Linear-probe accuracy on each of five stratified halves."""
    scores = []
    for seed in range(SPLITS):
        train, test = split_half(data.labels, seed)
        scores.append(linear_probe(vectors[train], data.labels[train], vectors[test], data.labels[test]))
    return scores


def probes(method: Method, held_out: list[Batch], config: ProbeConfig, device: torch.device) -> dict[str, Callable[[Method], float]]:
    """Name -> measurement of the live method, run at each evaluation."""
    data = labelled(config, method)
    found: dict[str, Callable[[Method], float]] = {}
    if held_out:
        found["rankme"] = lambda live: rankme(features(live, held_out, device))
    if data is not None:
        train, test = split_half(data.labels, 0)

        def accuracies(live: Method, which: Callable[..., float]) -> float:
            vectors = features(live, data.batches, device)
            return which(vectors[train], data.labels[train], vectors[test], data.labels[test])

        found["knn_accuracy"] = lambda live: accuracies(live, knn_accuracy)
        found["linear_probe_accuracy"] = lambda live: accuracies(live, linear_probe)
    return found


def start_scores(method: Method, config: ProbeConfig, device: torch.device) -> list[float] | None:
    """The probe scores of the network that the run begins with, before any checkpoint is loaded; None without labels."""
    data = labelled(config, method)
    return None if data is None else probe_scores(features(method, data.batches, device), data)


def verdict(
    method: Method, config: ProbeConfig, device: torch.device, start: list[float] | None, began: str, plateau: Plateau | None
) -> dict[str, Any]:
    """What run.json keeps: plateau, and the gain over the start with its 95 % interval.

    Args:
        start: what `start_scores` said before the training.
        began: what the run began with, in words.
    """
    result: dict[str, Any] = {}
    if plateau is not None:
        result["plateau"] = plateau.verdict()
        result["left_plateau_at"] = plateau.left_at
    data = labelled(config, method)
    if data is None or start is None:
        return result
    trained = probe_scores(features(method, data.batches, device), data)
    mean, interval = mean_interval([after - before for after, before in zip(trained, start, strict=True)], test_share=TEST_SHARE)
    assert interval is not None  # there are more splits than an interval needs
    low, high = interval
    word = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference that five splits can show"
    return result | {
        "metric": "linear_probe_accuracy",
        "began_with": began,
        "start": float(np.mean(start)),
        "trained": float(np.mean(trained)),
        "gain": mean,
        "ci95": [low, high],
        "sentence": f"On {len(data.labels):,} labelled records a linear probe reaches {np.mean(trained):.3f}, from {began} {np.mean(start):.3f}:"
        f" the head start {word} ({mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}).",
    }


def closing_lines(folder: Path, info: dict[str, Any]) -> list[str]:
    """The last lines of a finished run: cost, verdict, how to load the export, the next commands, bad records.

    Args:
        info: its run.json.
    """
    totals, verdict = info["totals"], info["verdict"]
    kind = kind_of(methods.load(info["method"]))
    seen = plural(totals["tokens"], info.get("unit", "tokens"))
    executed = totals.get("executed_flops", totals["flops"])  # not in runs of older versions
    zeros = f" without zeros ({executed:.3g} executed)" if executed != totals["flops"] else ""
    lines = [
        f"Done: {plural(totals['steps'], 'step')}, {seen}, {totals['flops']:.3g} FLOPs{zeros}, {duration(totals['wall_s'])},"
        f" peak memory {totals['peak_memory_bytes'] / 2**30:.2f} GiB."
    ]
    if rehearsed := info["config"].get("smoke"):  # a few steps on a few records are no verdict
        lines.append("All parts work: reading, training, evaluation, checkpoint and export.")
    else:
        lines += [verdict[key] for key in ("plateau", "sentence") if key in verdict]
        if "sentence" not in verdict:
            lines.append(kind.UNMEASURED)
    lines += kind.next_lines(folder)
    for data in info["data"]:
        if bad := data["counts"].get("quarantined"):
            lines.append(f"Set aside: {bad:,} bad record{'' if bad == 1 else 's'}, named in {Path(data['store']) / 'quarantine.jsonl'}")
    if rehearsed:
        lines.append("Whether it helps, such a run cannot say. Next: the same command without --smoke, with a budget (--budget.minutes 10).")
    return lines
