"""How should `advise` measure an arm: fine-tuning, or a linear probe on frozen features? Which ranks states of networks as the final fine-tuning does?

    python -m benchmarks.advise_measure --data CORPUS --labels LABELS.jsonl --test TEST.jsonl --name movies-subjectivity

The states are random starts and stops of three methods' runs. Each is measured as in a trial (five halves of the labels) and finally (fine-tuned on
all labels, scored on the test file, other seeds). Kendall's tau compares the orders; seconds are of one measurement. Resumable: a state that is
measured is not measured again. One result file holds all tasks, by name.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.result import origin
from headstart.core.files import read_json, write_json
from headstart.engine.device import resolve_device
from headstart.engine.probes import linear_probe
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.data import TextData
from headstart.tasks.rows import DeviceRows
from headstart.tasks.text_classification import pool, text_rows
from headstart.verbs._advise_measure import FineTuning, Labels, Start, read_labels
from headstart.verbs.pretrain import pretrain
from headstart.verbs.sample import newest_export

METHODS = ("causal-lm", "mlm", "electra")
STOPS = (40, 360, 1080)
STEPS = 12_000  # of the runs that are stopped
FINAL_SEEDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/advise-measure"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/advise_measure.json"))
    args = parser.parse_args()
    labels = read_labels(args.labels, "text", "label", seed=0)
    final = with_test(labels, read_labels(args.test, "text", "label", seed=0).data)
    kept = args.work / f"{args.name}.json"
    found: dict[str, Any] = read_json(kept) if kept.exists() else {}
    for name, start in states(args.data, args.work):
        if name not in found:
            found[name] = measured(start, labels, final)
            write_json(kept, found)
        print(name, found[name], flush=True)
    whole = read_json(args.out) if args.out.exists() else {"name": "advise_measure", "what": __doc__.splitlines()[0], "tasks": {}}
    whole["tasks"][args.name] = summary(found) | {"labels": len(labels.data), "train": labels.train_size, "states": found}
    write_json(args.out, whole | origin("python -m benchmarks.advise_measure --data CORPUS --labels LABELS --test TEST --name NAME"))
    print(summary(found))


def states(data: str, work: Path) -> Iterator[tuple[str, Start]]:
    """Networks before, and at the stops of, the run of each method."""
    for slug in METHODS:
        for stop in STOPS:
            folder = work / f"{slug}-{stop}"
            if not folder.exists():
                run = pretrain(slug, data, out=work / "runs" / slug, **{"budget.steps": STEPS, "trainer.stop_at": stop})
                shutil.copytree(newest_export(run.folder), folder)
            if stop == STOPS[0]:
                yield f"{slug}-random", Start(folder, fresh=True)
            yield folder.name, Start(folder)


def with_test(labels: Labels, test: TextData) -> Labels:
    """One split: all labels to learn from, the test file to score on."""
    n, both = len(labels.data), TextData([*labels.data.texts, *test.texts], [*labels.data.labels, *test.labels], labels.data.classes)
    return Labels(both, [(np.arange(n), np.arange(n, len(both)))])


def measured(start: Start, labels: Labels, final: Labels) -> dict[str, Any]:
    """Means over the splits, seconds, and the final score."""
    tuning, began = FineTuning(start, labels, "auto"), time.perf_counter()
    rate = tuning.best_rate()
    tuned = [tuning.value(split, rate) for split in range(len(labels.splits))]
    tuning_s, began = time.perf_counter() - began, time.perf_counter()
    probed = probe(start, labels)
    probe_s = time.perf_counter() - began
    whole = FineTuning(start, final, "auto")
    best = whole.best_rate()
    finals = [whole.score(*final.splits[0], best, 100 + seed) for seed in range(FINAL_SEEDS)]
    return {"fine_tuning": tuned, "fine_tuning_s": tuning_s, "linear_probe": probed, "linear_probe_s": probe_s, "final": finals}


@torch.no_grad()
def probe(start: Start, labels: Labels) -> list[float]:
    """Linear-probe accuracy of the frozen, mean-pooled features on each split."""
    encoder = load_encoder(FineTuning(start, labels, "auto").folder, fresh=start.fresh)
    rows = text_rows(labels.data, encoder, min(64, encoder.max_length or 64))
    source = DeviceRows(rows, encoder.tokenizer.pad_token_id or 0, resolve_device("cpu"))
    batches = [source.batch(part) for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 64))]
    vectors = torch.cat([pool(encoder.hidden_states(batch), batch.get("attention_mask"), "mean") for batch in batches])
    truth = torch.tensor(labels.data.labels)
    return [linear_probe(vectors[fit], truth[fit], vectors[test], truth[test]) for fit, test in labels.splits]


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """How each way of measuring orders the states (Kendall's tau with the final order), and its seconds."""
    final = [np.mean(entry["final"]) for entry in found.values()]
    ways = {}
    for way, splits in (("fine_tuning", 5), ("fine_tuning", 2), ("linear_probe", 5)):
        seconds = float(np.mean([entry[f"{way}_s"] for entry in found.values()]))
        tau = float(stats.kendalltau([np.mean(entry[way][:splits]) for entry in found.values()], final)[0])
        ways[f"{way}, {splits} splits"] = {"kendall_tau": tau, "seconds": seconds if splits == 5 or way == "linear_probe" else seconds * 3.6 / 6.6}
    return {"ways": ways}


if __name__ == "__main__":
    main()
