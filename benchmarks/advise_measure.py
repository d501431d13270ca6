"""How should `advise` measure an arm: fine-tuning, or a linear probe? Which ranks states of networks as the final fine-tuning does?

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
from scipy import stats

from benchmarks.result import origin
from headstart.core.files import read_json, write_json
from headstart.tasks.data import TextData
from headstart.tasks.label_curve import Bench, Draw
from headstart.verbs._advise_measure import Labels, Start, fine_tuning, read_labels
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
    test = read_labels(args.test, "text", "label", seed=0).data
    kept = args.work / f"{args.name}.json"
    found: dict[str, Any] = read_json(kept) if kept.exists() else {}
    for name, start in states(args.data, args.work):
        if name not in found:
            found[name] = measured(start, labels, test)
            write_json(kept, found)
        print(name, found[name], flush=True)
    whole = read_json(args.out) if args.out.exists() else {"name": "advise_measure", "what": __doc__.splitlines()[0], "tasks": {}}
    whole["tasks"][args.name] = summary(found) | {"labels": len(labels.data), "train": len(labels.splits[0].train), "states": found}
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


def measured(start: Start, labels: Labels, test: TextData) -> dict[str, Any]:
    """The values of each split, seconds, and the final scores."""
    bench, began = fine_tuning(start, labels, "auto"), time.perf_counter()
    rate = bench.best_rate(labels.splits[0])[0]
    tuned = [bench.score(split.train, split.test, split.seed, rate).value for split in labels.splits]
    tuning_s, began = time.perf_counter() - began, time.perf_counter()
    prober = Bench(bench.folder, labels.data, None, bench.config, fresh=start.fresh, measure="linear-probe")
    probed = [prober.score(split.train, split.test, 0).value for split in labels.splits]
    probe_s = time.perf_counter() - began
    whole = Bench(bench.folder, labels.data, test, bench.config, fresh=start.fresh)
    everything = np.arange(len(labels.data))
    best = whole.best_rate(Draw(0, everything, None, {}))[0]
    finals = [whole.score(everything, None, 100 + seed, best).value for seed in range(FINAL_SEEDS)]
    return {"fine_tuning": tuned, "fine_tuning_s": tuning_s, "linear_probe": probed, "linear_probe_s": probe_s, "final": finals}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Of each way of measuring: how it orders the states (Kendall's tau with the final order), how far it is off in the gain of a state over the
    random start of its network (mean absolute error, and how often the sign is right), and its seconds."""
    final = {name: float(np.mean(entry["final"])) for name, entry in found.items()}
    ways = {}
    for way, splits in (("fine_tuning", 5), ("fine_tuning", 2), ("linear_probe", 5)):
        seconds = float(np.mean([entry[f"{way}_s"] for entry in found.values()]))
        value = {name: float(np.mean(entry[way][:splits])) for name, entry in found.items()}
        gains = [(value[name] - value[start], final[name] - final[start]) for name, start in paired(found)]
        ways[f"{way}, {splits} splits"] = {
            "kendall_tau": float(stats.kendalltau(list(value.values()), list(final.values()))[0]),
            "gain_error": float(np.mean([abs(mine - truth) for mine, truth in gains])),
            "sign_right": sum(mine * truth > 0 for mine, truth in gains),
            "gains": len(gains),
            "seconds": seconds * (splits + 1.6) / 6.6 if way == "fine_tuning" else seconds,
        }
    return {"ways": ways}


def paired(found: dict[str, Any]) -> list[tuple[str, str]]:
    """(state, random start of the same network)"""
    return [(name, f"{name.rpartition('-')[0]}-random") for name in found if not name.endswith("-random")]


if __name__ == "__main__":
    main()
