"""What `headstart pretrain electra --sparsity.level 0.5` does to ELECTRA, measured: dense and half-sparse runs at equal counted FLOPs.

Film reviews; networks and phases are those of `headstart claim electra --preset cpu`, with a smaller budget. A sparse run's FLOPs are counted without
its zeros, so it makes more steps for them (and takes longer: dense kernels multiply the zeros). Three seeds of each are compared by `headstart
compare` on "does this sentence review a film or tell its plot", 300 labels to train on, 600 sentences to test on. The result is its comparison.json,
and beside it what each run reached on held-out text.

python -m benchmarks.sparse_electra [--flops 1.8e13] [--level 0.5] [--seeds 3] [--folder runs/sparse-electra]
    [--out benchmarks/results/comparison-sparse-electra.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.result import origin
from headstart.claims._data import data_folder
from headstart.claims._text import write_documents
from headstart.core.files import write_json
from headstart.core.run import read_lines, read_run
from headstart.tasks.data import records
from headstart.tasks.metrics import paired_difference
from headstart.verbs.compare import compare
from headstart.verbs.pretrain import Run, pretrain

CLASSES = ("plot", "review")
TRAIN_LABELS, TEST_LABELS = 300, 600
SETTINGS: dict[str, Any] = {
    "preset": "tiny",
    "precision": "bf16",  # on a CPU the trial would decide, for each run anew
    "method.sequence_length": 48,
    "text.vocab_size": 4096,
    "trainer.keep_checkpoints": 1,  # the end alone is compared
}
REACHED = {"held_out/mlm_loss_hidden": "mlm_loss_hidden", "held_out/disc_auc": "disc_auc"}
"""Probe, whose last value is taken -> its name in the result."""


def write_labels(source: Path, folder: Path) -> tuple[Path, Path]:
    """train.jsonl and test.jsonl: sentences of the two splits, in the order of their hash, which has nothing to do with what they say."""
    found: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for _, record in records(source / "sentences.jsonl.zst"):
        if record["subj"] is not None and record["split"] in found:
            found[record["split"]].append({"text": record["text"], "label": CLASSES[record["subj"]]})
    paths = []
    for split, count in (("train", TRAIN_LABELS), ("test", TEST_LABELS)):
        chosen = sorted(found[split], key=lambda one: hashlib.sha1(one["text"].encode()).digest())[:count]
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in chosen), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def reached(run: Run) -> dict[str, float]:
    """Steps, FLOPs (counted without zeros, and executed), seconds, and the last held-out figures of a run."""
    totals = read_run(run.folder)["totals"]
    last = {line["probe"]: line["value"] for line in read_lines(run.folder / "probes.jsonl")}
    kept = {name: totals[name] for name in ("steps", "flops", "executed_flops", "wall_s")}
    return kept | {name: last[probe] for probe, name in REACHED.items()}


def beside(arms: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The sparse arm minus the dense one, of what each seed reached on held-out text."""
    dense, sparse = arms.values()
    found = {}
    for name in REACHED.values():
        mean, interval = paired_difference([run[name] for run in sparse], [run[name] for run in dense])
        found[name] = {"difference": mean, "ci95": None if interval is None else list(interval)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, default=1.8e13, help="training FLOPs of a run, counted without zeros")
    parser.add_argument("--level", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/sparse-electra"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/comparison-sparse-electra.json"))
    args = parser.parse_args()
    source = data_folder("movies")
    args.folder.mkdir(parents=True, exist_ok=True)
    texts = write_documents(args.folder / "corpus.jsonl", (record["text"] for _, record in records(source / "corpus.jsonl.zst")))
    train, test = write_labels(source, args.folder)
    arms: dict[str, list[dict[str, float]]] = {}
    runs = []
    for seed in range(args.seeds):
        for name, own in (("electra-dense", {}), ("electra-sparse", {"sparsity.level": args.level})):
            settings = {**SETTINGS, **own, "budget.flops": args.flops, "seed": seed, "device": "cpu", "out": args.folder / f"{name}-{seed}"}
            run = pretrain("electra", [texts], say=lambda line: None, **settings)
            arms.setdefault(name, []).append(reached(run))
            runs.append(run.folder)
            print(f"{name}, seed {seed}: {json.dumps(arms[name][-1])}", flush=True)
    every_label = {"seeds": 3, "counts": (TRAIN_LABELS,)}  # no curve: the sparsity is asked about, not the number of labels
    info = compare(runs, labels=train, test=test, out=args.folder / "comparison", **every_label).info
    command = f"python -m benchmarks.sparse_electra --flops {args.flops:g} --level {args.level:g} --seeds {args.seeds}"
    write_json(args.out, info | {"pretraining": {"level": args.level, "arms": arms, "sparse - dense": beside(arms)}} | origin(command))
    print(f"{args.out}")


if __name__ == "__main__":
    main()
