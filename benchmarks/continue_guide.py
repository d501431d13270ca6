"""The guide "Continue a model on your corpus": the whole way on real text, beside each of its parts alone and naive continuation, at equal tokens.

A small model that is finished on general text (the claims' upstream recipe) continues on medical text with a little of everything:

    naive             new text alone, all of it, at the old rate
    rewarm            the same, re-warmed to the old peak
    subset            re-warmed on the best quarter of it, four times
    replay            all of it with the planned share of old text, at the old rate
    recommended       what `plan cpt` says: re-warmed, the best part, the planned share of old text
    merged            no training: the model before and the naive run, half and half
    merged-recommended    the model before and the recommended run

The plan is made once; the arms are repeated with other orders of the data. Losses are bits a byte of the test texts, items are multiple choice.

python -m benchmarks.continue_guide [--seeds 3] [--steps 1500] [--folder runs/continue-guide] [--out benchmarks/results/continue_guide.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.result import origin
from headstart.claims import _continual
from headstart.claims._data import data_folder
from headstart.core.files import write_json
from headstart.core.run import read_run
from headstart.engine.device import resolve_device
from headstart.tasks.generation import Decoder
from headstart.tasks.metrics import paired_difference
from headstart.tasks.multiple_choice import metric_of, pick, read_items, score_items
from headstart.verbs._plan_settings import CptBudget, CptSettings
from headstart.verbs._sweep import mix, named_data
from headstart.verbs.merge import merge
from headstart.verbs.plan_cpt import plan_cpt
from headstart.verbs.pretrain import pretrain

BATCH = 8
REFERENCE_SOURCES = ("niddk", "nhlbi", "seniorhealth", "cdc", "ninds")
REFERENCE_DOCUMENTS = 40
LIMIT = 0.05
ITEMS = {"old": "genterm", "new": "medterm"}


def reference(folder: Path) -> Path:
    """A little good text of the domain: documents of five institutes."""
    import hashlib

    path = folder / "reference.jsonl"
    texts = [dict(record) for _, record in _continual.records(data_folder("textmed") / "train.jsonl.zst")]
    good = sorted((one for one in texts if one.get("src") in REFERENCE_SOURCES), key=lambda one: hashlib.sha1(str(one["id"]).encode()).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": one["text"]}) + "\n" for one in good[:REFERENCE_DOCUMENTS]))
    return path


def plan(upstream: Path, folder: Path, steps: int, tokens_per_row: int) -> dict[str, Any]:
    """cpt.json: the plan, made with the first order of the data."""
    medical, general = data_folder("textmed"), data_folder("textgen")
    settings = CptSettings(
        init=upstream,
        domain=(str(medical / "train.jsonl.zst"),),
        general=(str(general / "train.jsonl.zst"),),
        domain_held_out=(str(medical / "val.jsonl.zst"),),
        general_held_out=(str(general / "val.jsonl.zst"),),
        reference=(str(reference(folder)),),
        budget=CptBudget(tokens=steps * BATCH * tokens_per_row),
        limit=LIMIT,
        batch=BATCH,
        precision="fp32",
        out=folder / "plan",
    )
    return plan_cpt(settings).info


def arms(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arm -> its settings; all with the steps of the recommended run."""
    recommended = info["recommended"]
    rewarmed = info["schedule"]
    old_rate = {"schedule.name": "constant", "schedule.warmup_steps": 0, "optimizer.learning_rate": 0.1 * rewarmed["optimizer.learning_rate"]}
    medical, general = (str(data_folder(name) / "train.jsonl.zst") for name in ("textmed", "textgen"))
    held_out = tuple((str(data_folder(name) / "val.jsonl.zst"),) for name in ("textmed", "textgen"))
    whole = named_data((medical,), (general,), *held_out)
    best = whole if info["subset"] is None else named_data((info["subset"]["file"],), (general,), *held_out)
    epochs = {} if info["subset"] is None else {"epochs.tokens": recommended["tokens"] // 4, "epochs.draw": "dynamic"}
    planned = mix(recommended["r_d"])
    return {
        "naive": {"data": whole, "mix": mix(1.0), **old_rate},
        "rewarm": {"data": whole, "mix": mix(1.0), **rewarmed},
        "subset": {"data": best, "mix": mix(1.0), **rewarmed, **epochs},
        "replay": {"data": whole, "mix": planned, **old_rate},
        "recommended": {"data": best, "mix": planned, **rewarmed, **epochs},
    }


def measured(export: Path, stores: dict[str, Any], context: int, device: Any) -> dict[str, float]:
    """Bits a byte of both test texts, and the share of items that are right."""
    found: dict[str, float] = {}
    for part, store in stores.items():
        found[f"{part} bits per byte"] = _continual.bits_per_byte(export, store, context, device).value
        items = read_items(data_folder("mcq") / f"{ITEMS[part]}.jsonl.zst")
        scored = score_items(Decoder.load(export), items, device)
        right = [pick(sums, item.choices, metric_of(item.task)) == item.answer for item, sums in zip(items, scored.log_probs, strict=True)]
        found[ITEMS[part]] = float(statistics.fmean(right))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500, help="of the whole budget, planning included")
    parser.add_argument("--small", action="store_true", help="a network of some thousand weights, to see that all parts work")
    parser.add_argument("--folder", type=Path, default=Path("runs/continue-guide"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/continue_guide.json"))
    args = parser.parse_args()
    network, device = _continual.CPU, resolve_device("cpu")
    if args.small:
        network = replace(network, layers=1, width=32, steps=100)
    upstream = _continual.upstream(network, 0, Path("runs/claims"))
    info = plan(upstream.folder, args.folder, args.steps, network.context)
    if info["recommended"] is None:
        raise SystemExit("No mixture keeps the limit; nothing to compare.")
    tokenizer = _continual.tokenizer(network, Path("runs/claims/shared/data"))
    test = {part: _continual.text(name, network, "test") for part, name in (("old", "textgen"), ("new", "textmed"))}
    stores = {part: _continual.measured_store(files, tokenizer, args.folder / f"test-{part}") for part, files in test.items()}
    shared = {**_continual.continual(replace(network, batch=BATCH), info["recommended"]["steps"]), "init": upstream.folder, "device": "cpu"}
    preset = shared.pop("preset")
    found: dict[str, list[dict[str, float]]] = {}
    before = measured(upstream.export, stores, network.context, device)
    for seed in range(args.seeds):
        exports: dict[str, Path] = {}
        for name, own in arms(info).items():
            settings = {**shared, **{key: value for key, value in own.items() if key != "data"}, "seed": seed}
            out = args.folder / "runs" / f"{name}-seed-{seed}"
            run = pretrain("causal-lm", list(own["data"]), preset=preset, out=out, say=lambda line: None, **settings)
            exports[name] = run.export
        for name, of in (("merged", "naive"), ("merged-recommended", "recommended")):
            exports[name] = args.folder / "merged" / f"{name}-seed-{seed}"
            if not exports[name].is_dir():
                merge([upstream.folder, exports[of]], shares=(0.5, 0.5), out=exports[name], say=lambda line: None)
        for name, export in exports.items():
            found.setdefault(name, []).append(measured(export, stores, network.context, device))
            print(f"seed {seed}, {name}: {json.dumps(found[name][-1])}", flush=True)
    flops = read_run(args.folder / "runs" / "naive-seed-0")["totals"]["flops"]
    write_json(args.out, result(info, before, found, flops, f"python -m benchmarks.continue_guide --seeds {args.seeds} --steps {args.steps}"))
    print(f"{args.out}")


def result(info: dict[str, Any], before: dict[str, float], found: dict[str, list[dict[str, float]]], flops: float, command: str) -> dict[str, Any]:
    """What is committed: means over seeds, and each arm's differences from the naive run with their 95 % intervals."""
    rows = {}
    for name, runs in found.items():
        means = {key: statistics.fmean(run[key] for run in runs) for key in before}
        beside = {}
        for key in before:
            mean, interval = paired_difference([run[key] for run in runs], [run[key] for run in found["naive"]])
            beside[key] = {"mean": mean, "interval": None if interval is None else list(interval)}
        rows[name] = {"mean": means, "minus naive": beside, "runs": runs}
    kept = ("recommended", "predicted", "before", "anneal", "warnings", "budget", "subset", "limit")
    plan_of = {name: info[name] for name in kept}
    if plan_of["subset"] is not None:
        plan_of["subset"] = {name: value for name, value in plan_of["subset"].items() if name != "file"}
    return {
        "name": "continue_guide",
        "what": "continuing a small model on medical text: the whole way beside its parts and naive continuation, at equal tokens",
        "plan": plan_of,
        "before": before,
        "arms": rows,
        "flops of an arm": flops,
        **origin(command),
    }


if __name__ == "__main__":
    main()
