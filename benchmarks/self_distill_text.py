"""Self-distillation on texts beside everything that its paper sets it against: fine-tuning at once, fine-tuning held near its start (RecAdam, MARS,
R3F), plain further pre-training, and longer plain further pre-training at equal counted FLOPs.

An MLM network pre-trained on Wikipedia is the one start of all arms. Further pre-training reads film reviews; the task is "does this sentence
praise", 500 labels. Every arm tries four settings of its fine-tuning on dev sentences with the first seed and keeps the best: four learning rates, or
where a regulariser has a strength two of each. R3F asks the network twice in every step, so it has half of the epochs: all fine-tunings cost alike.

python -m benchmarks.self_distill_text [--flops 1.2e13] [--steps 150] [--seeds 3] [--folder runs/self-distill-text]
    [--out benchmarks/results/self_distill_text.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import origin
from headstart.claims._data import data_folder
from headstart.claims._text import write_documents
from headstart.core.config import replace_nested
from headstart.core.files import write_json
from headstart.core.run import read_run
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import records
from headstart.tasks.finetune import finetune
from headstart.tasks.metrics import paired_difference
from headstart.tasks.recipe import SMALL
from headstart.verbs.pretrain import pretrain

CLASSES = ("negative", "positive")
LABELS = {"train": 500, "dev": 300, "test": 2000}
EPOCHS = 10.0
SETTINGS: dict[str, Any] = {"preset": "tiny", "precision": "fp32", "method.sequence_length": 48, "device": "cpu", "trainer.keep_checkpoints": 1}
FURTHER: dict[str, Any] = {
    "optimizer.learning_rate": 1e-3,
    "optimizer.beta2": 0.98,
    "optimizer.weight_decay": 0.01,
    "schedule.name": "linear",
    "schedule.warmup_share": 0.06,
}
"""Of further pre-training: the specification's, at a rate for so small a network."""
PLAIN = tuple({"learning_rate": rate} for rate in (2e-4, 5e-4, 1e-3, 2e-3))
TRIES: dict[str, tuple[dict[str, Any], ...]] = {
    "finetune": PLAIN,
    "recadam": tuple(
        {"learning_rate": rate, "regulariser.name": "recadam", "regulariser.gamma": gamma, "regulariser.k": 0.1, "regulariser.t0": 100.0}
        for rate in (5e-4, 1e-3)
        for gamma in (100.0, 1000.0)
    ),
    "mars": tuple(
        {"learning_rate": rate, "regulariser.name": "mars", "regulariser.radius": radius} for rate in (5e-4, 1e-3) for radius in (1.0, 4.0)
    ),
    "r3f": tuple(
        {"learning_rate": rate, "regulariser.name": "r3f", "regulariser.weight": weight, "epochs": EPOCHS / 2}
        for rate in (5e-4, 1e-3)
        for weight in (0.1, 1.0)
    ),
    "fpt": PLAIN,
    "fpt_long": PLAIN,
    "self_distill": PLAIN,
}
"""Arm -> the settings of fine-tuning that it may choose among."""
PAIRS = (
    ("self_distill", "fpt_long"),
    ("self_distill", "fpt"),
    ("self_distill", "finetune"),
    *(("self_distill", name) for name in ("recadam", "mars", "r3f")),
    *((name, "finetune") for name in ("recadam", "mars", "r3f", "fpt")),
)


def write_labels(source: Path, folder: Path) -> dict[str, Path]:
    """One .jsonl for each split: sentences in the order of their hash, which has nothing to do with what they say."""
    found: dict[str, list[dict[str, str]]] = {split: [] for split in LABELS}
    for _, record in records(source / "sentences.jsonl.zst"):
        if record["pol"] is not None:
            found[record["split"]].append({"text": record["text"], "label": CLASSES[record["pol"]]})
    for split, count in LABELS.items():
        chosen = sorted(found[split], key=lambda one: hashlib.sha1(one["text"].encode()).digest())[:count]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in chosen), encoding="utf-8")
    return {split: folder / f"{split}.jsonl" for split in LABELS}


def starts(folder: Path, flops: float, steps: int, seeds: int) -> dict[str, list[Path]]:
    """What each arm fine-tunes, by seed: the common start, or a further pre-training of it."""
    texts = write_documents(folder / "corpus.jsonl", (record["text"] for _, record in records(data_folder("movies") / "corpus.jsonl.zst")))
    wiki = data_folder("general_en") / "wiki.txt.zst"

    def run(name: str, data: Path, **settings: Any) -> Path:
        found = pretrain("mlm", [data], say=lambda line: None, **{**SETTINGS, "out": folder / name, **settings}).folder
        print(f"{name}: {read_run(found)['totals']['flops']:.3g} FLOPs", flush=True)
        return found

    begin = run("start", wiki, **{"budget.flops": flops, "seed": 0})
    further = {**FURTHER, "init": begin}
    runs: dict[str, list[Path]] = {arm: [begin] * seeds for arm in TRIES}
    for seed in range(seeds):
        own = {**further, "seed": seed}
        runs["fpt"][seed] = run(f"fpt-{seed}", texts, **own, **{"budget.steps": steps})
        runs["self_distill"][seed] = run(f"self_distill-{seed}", texts, **own, **{"budget.steps": 2 * steps, "self_distill.rounds": 1})
        spent = read_run(runs["self_distill"][seed])["totals"]["flops"]
        runs["fpt_long"][seed] = run(f"fpt_long-{seed}", texts, **own, **{"budget.flops": spent})
    return runs


def tuned(runs: Sequence[Path], tries: Sequence[dict[str, Any]], labels: Mapping[str, Path]) -> dict[str, Any]:
    """Test accuracy by seed under the setting that was best on dev with the first seed."""

    def accuracy(run: Path, seed: int, setting: Mapping[str, Any]) -> tuple[float, float]:
        config = replace_nested(FinetuneConfig(**SMALL), {"pooling": "cls", "epochs": EPOCHS, "device": "cpu", **setting})
        files = (labels["train"], labels["test"], labels["dev"])
        result = finetune("classification", run / "export", *files, config=config, seeds=[seed], baseline=False)
        (found,) = result.arms[0].runs
        assert found.dev_metrics is not None
        return found.dev_metrics[result.metric], found.metrics[result.metric]

    first = [accuracy(runs[0], 0, setting) for setting in tries]
    best = max(range(len(tries)), key=lambda at: first[at][0])
    others = [accuracy(run, seed, tries[best])[1] for seed, run in enumerate(runs[1:], 1)]
    return {"setting": tries[best], "dev": [dev for dev, _ in first], "test": [first[best][1], *others]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, default=1.2e13, help="of the common start")
    parser.add_argument("--steps", type=int, default=150, help="of one stage of further pre-training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/self-distill-text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/self_distill_text.json"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    labels = write_labels(data_folder("movies"), args.folder)
    runs = starts(args.folder, args.flops, args.steps, args.seeds)
    arms: dict[str, dict[str, Any]] = {}
    for name, tries in TRIES.items():
        further = [0 if run == runs["finetune"][0] else read_run(run)["totals"]["flops"] for run in runs[name]]
        arms[name] = tuned(runs[name], tries, labels) | {"further_flops": further}
        print(f"{name}: {json.dumps(arms[name])}", flush=True)
    pairs = []
    for a, b in PAIRS:
        mean, interval = paired_difference(arms[a]["test"], arms[b]["test"])
        pairs.append({"a": a, "b": b, "difference": mean, "ci95": None if interval is None else list(interval)})
    command = f"python -m benchmarks.self_distill_text --flops {args.flops:g} --steps {args.steps} --seeds {args.seeds}"
    what = f"test accuracy, {LABELS['train']} labels of film sentences, MLM start of {args.flops:.2g} FLOPs on Wikipedia"
    write_json(args.out, {"name": "self_distill_text", "what": what, "arms": arms, "pairs": pairs, "labels": LABELS} | origin(command))
    print(f"{args.out}")


if __name__ == "__main__":
    main()
