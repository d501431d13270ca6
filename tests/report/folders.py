"""Run folders and results as the verbs write them, made in a moment: of any length, and as hostile as a stranger's may be."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

ENTROPY = 5.93
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> & 'q' \u2028 \u202e"
"""What must come out as text wherever a file says it."""


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def curve(step: int, steps: int, floor: float = 4.4) -> float:
    """A loss that stays on the plateau for a tenth of the run, then falls."""
    start = ENTROPY + 1.3 * math.exp(-step / (0.02 * steps + 1))
    left = max(0.0, step - 0.1 * steps) / steps
    return start - (ENTROPY - floor) * (1 - math.exp(-4 * left)) + 0.04 * math.sin(step * 12.9898)


def metrics(
    steps: int, every: int = 10, restart_at: int | None = None, spike_at: int | None = None, phases: tuple[str, ...] = ("train",)
) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of an ELECTRA-like run."""
    records = []
    for step in range(every, steps + 1, every):
        loss = curve(step, steps)
        record = {
            "step": step, "tokens": step * 2048, "flops": step * 8_808_038_400, "wall_s": round(step * 0.17, 3),
            "loss": loss + (2.5 if step == spike_at else 0), "disc_loss": 0.69 - 0.1 * step / steps,
            "gradient_norm": 0.8 + 0.2 * math.sin(step), "learning_rate": 4e-3 * (1 - step / steps),
            "phase": phases[min(len(phases) - 1, step * len(phases) // (steps + 1))],
        }  # fmt: skip
        if step == spike_at:
            record["spike"] = True
        fresh = step in (every, restart_at)
        record |= {"tokens_per_second": 0.0 if fresh else 11_900.0 + step % 97, "mfu": 0.1, "data_wait_share": 0.0 if fresh else 0.007}
        records.append(record)
    return records


def write_run(
    folder: Path,
    *,
    steps: int = 400,
    every: int = 10,
    method: str = "causal-lm",
    seed: int = 0,
    status: str = "done",
    gain: tuple[float, float, float] | None = (0.041, 0.02, 0.062),
    said: str = "the pump >>> was switched off",
    **curves: Any,
) -> Path:
    """A whole run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = metrics(steps, every, **curves)
    write_lines(folder / "metrics.jsonl", lines)
    probes = []
    for step in range(max(every, steps // 20), steps + 1, max(every, steps // 20)):
        probes += [
            {"step": step, "probe": "held_out/loss", "value": curve(step, steps) + 0.15},
            {"step": step, "probe": "rankme", "value": 4 + 20 * step / steps},
            {"step": step, "probe": "linear_probe_accuracy", "value": 0.3 + 0.1 * step / steps},
        ]
    write_lines(folder / "probes.jsonl", probes)
    fifths = range(steps // 5, steps + 1, steps // 5)
    write_lines(folder / "samples.jsonl", [{"step": step, "lines": [said, f"a second line at {step}"]} for step in fifths])
    info: dict[str, Any] = {
        "format_version": 1, "status": status, "method": method, "preset": "tiny", "seed": seed,
        "command": ["/x/headstart/__main__.py", "pretrain", method, "--data", "my texts", "--budget.steps", str(steps)],
        "config": {"data": ["my texts"], "preset": "tiny", "seed": seed, "batch": 32, "budget": {"steps": steps},
                   "optimizer": {"learning_rate": 0.004}},
        "origin": {"budget.steps": "flag", "optimizer.learning_rate": "preset"},
        "versions": {"headstart": "0.1.0", "torch": "2.13.0"},
        "hardware": {"cpu": "a processor", "cores": 2, "memory_bytes": 25_276_510_208, "devices": []},
        "commit": "28cf3694d4a58f29b27196cd9f301744ad4c099b", "started": f"2026-11-26T21:{seed % 60:02}:28Z", "error": None,
        "decisions": {"total_steps": steps, "precision": "bf16", "micro_batch": 32, "compile": False, "cuda_graph": False, "world": 1},
        "data": [{"store": "/x/stores/text", "counts": {"documents": 10_426, "training_tokens": 13_263_002}, "unigram_entropy": ENTROPY}],
        "plateau": {"metric": "loss", "entropy": ENTROPY},
    }  # fmt: skip
    if status == "done":
        verdict: dict[str, Any] = {"plateau": f"loss left the unigram plateau ({ENTROPY} nats) at step {steps // 5}.", "left_plateau_at": steps // 5}
        if gain is not None:
            verdict |= {"metric": "linear_probe_accuracy", "began_with": "a random start", "trained": 0.408, "gain": gain[0], "ci95": list(gain[1:])}
            verdict["sentence"] = f"On 400 labelled records a linear probe reaches 0.408, from a random start 0.367: {gain[0]:+.3f}."
        totals = {"steps": steps, "tokens": steps * 2048, "flops": steps * 8_808_038_400, "wall_s": steps * 0.17, "peak_memory_bytes": 1_085_181_952}
        info |= {"totals": totals, "verdict": verdict, "finished": "2026-11-26T22:13:15Z"}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def claim_result(
    slug: str = "electra", verdict: str = "inconclusive", difference: float = 0.012, ci95: tuple[float, float] = (-0.004, 0.028)
) -> dict[str, Any]:
    """A result as `headstart claim` writes it."""

    def arm(name: str, values: list[float]) -> dict[str, Any]:
        spent = {"train_flops": 2_000_000_000_000, "tokens": 4_000_000, "wall_s": 95.0}
        runs = [{"seed": seed, "metric": value, **spent} for seed, value in enumerate(values)]
        return {"arm": name, "method": name, "learning_rate": 0.003, "mean": sum(values) / len(values), "runs": runs}

    return {
        "kind": "claim", "format_version": 1, "slug": slug, "preset": "cpu", "metric": "accuracy", "higher_is_better": True, "percent": True,
        "claim": "At equal training FLOPs an encoder of replaced-token detection fine-tunes better than one of masked language modelling.",
        "paper": {"statement": "ELECTRA-Small beats BERT-Small", "value": "GLUE 79.9 against 75.1", "where": "Table 1"},
        "data": {"name": "film reviews", "source": "nltk", "train": 200, "test": 2083, "split": "by document"},
        "arms": [arm(slug, [0.81, 0.803, 0.815]), arm("mlm", [0.79, 0.801, 0.799]), arm("random start", [0.71, 0.70, 0.715])],
        "comparisons": [{"a": slug, "b": "mlm", "paired_by": "seed", "difference": difference, "ci95": list(ci95),
                         "verdict": verdict, "decides": True,
                         "why": "with 3 seeds a difference of 2.1 points would be found in 80 % of such experiments"}],
        "verdict": verdict, "whole": True, "notes": [], "leaks": ["0 of 2,083 test records stand in the training text."],
        "sentence": f"{verdict.capitalize()}: the claim of {slug} at preset cpu: {slug} minus mlm +1.2 points (95 % interval -0.4 to +2.8).",
        "hardware": "a processor, 2 cores", "versions": {}, "commit": "28cf369", "date": "2026-11-26",
        "command": f"headstart claim {slug} --preset cpu",
    }  # fmt: skip


def advice_result() -> dict[str, Any]:
    """advice.json as the docstring of `headstart.verbs.advise` describes it."""

    def points(start: float, gain: float, rungs: int) -> list[dict[str, Any]]:
        splits = [0.01 * (split - 2) for split in range(5)]
        return [
            {"rung": r, "flops": 2e11 * 3**r, "step": 60 * 3**r, "wall_s": 9.0 * 3**r, "values": [start + gain * r + split for split in splits]}
            for r in range(rungs)
        ]

    return {
        "kind": "advice", "format_version": 1, "status": "done", "evidence": "labels", "metric": "accuracy",
        "look": {"data": "reviews", "kinds": {"text": 2000, "labelled text": 1}},
        "budget": {"minutes": 30, "flops": 2e13, "trial_seconds": 360},
        "candidates": [{"arm": "causal-lm", "method": "causal-lm", "minutes": 29.0}, {"arm": "mlm", "method": "mlm", "minutes": 28.0}],
        "left_out": [{"method": "electra", "why": "its generator would still sit on the unigram plateau", "minutes": 95}],
        "arms": [
            {"arm": "causal-lm", "kind": "candidate", "method": "causal-lm", "points": points(0.62, 0.05, 3), "dropped_after": None, "fitted": True,
             "full": {"value": 0.79, "ci95": [0.75, 0.83]}, "gain": {"value": 0.11, "ci95": [0.07, 0.15]}},
            {"arm": "mlm", "kind": "candidate", "method": "mlm", "points": points(0.61, 0.01, 2), "dropped_after": 1, "fitted": False,
             "full": {"value": 0.7, "ci95": [0.62, 0.78]}, "gain": {"value": 0.02, "ci95": [-0.06, 0.1]}},
            {"arm": "random start", "kind": "random start", "method": "causal-lm", "points": points(0.60, 0.0, 1), "dropped_after": None,
             "full": None, "gain": None},
        ],
        "ranking": ["causal-lm", "mlm", "random start"],
        "labels_worth": {"head_start_labels": 200, "random_start_labels": {"value": 610, "ci95": [420, 900]},
                         "sentence": "The head start is worth about 410 labels: a random start needs 610 (420 to 900) for what it reaches with 200."},
        "leaks": None,
        "verdict": {"word": "should help", "winner": "causal-lm", "notes": [],
                    "sentence": "causal-lm should help: with 30 minutes it should reach 79 % (75 to 83), 11 points over a random start (7 to 15)."},
        "commands": {"pretrain": "headstart pretrain causal-lm --data reviews --budget.flops 2e13 --out runs/advice/reviews/c", "after": None},
        "date": "2026-11-26",
    }  # fmt: skip


def comparison_result() -> dict[str, Any]:
    """comparison.json as the docstring of `headstart.verbs.compare` describes it."""

    def arm(name: str, kind: str, method: str | None, low: float, steps: tuple[int, ...]) -> dict[str, Any]:
        points = [
            {"labels": labels, "step": step, "flops": step * 1e9, "wall_s": step * 0.1, "final": step == steps[-1],
             "values": [[low + labels / 2000 + step / 10_000 + 0.01 * seed for seed in range(3)]], "mean": low + labels / 2000 + step / 10_000 + 0.01}
            for step in steps
            for labels in ((50, 100, 200) if step == steps[-1] else (200,))
        ]  # fmt: skip
        return {"arm": name, "kind": kind, "method": method, "runs": [f"runs/{name}"], "learning_rate": 1e-3, "points": points}

    against = "At 4e+11 FLOPs, causal-lm is better than"
    return {
        "kind": "comparison", "format_version": 1, "name": "causal-lm-and-mlm", "status": "done", "evidence": "labels", "task": "classification",
        "metric": "accuracy", "measure": "finetune", "data": {"train_records": 200, "test_records": 1000, "split": "by document"},
        "arms": [arm("causal-lm", "run", "causal-lm", 0.6, (100, 200, 400)), arm("mlm", "run", "mlm", 0.58, (100, 200, 400)),
                 arm("random, llama", "random", None, 0.5, (0,))],
        "equal_compute": {"equal": True, "flops": 4e11, "ratio": 1.0, "how": "as the runs ended", "sentence": "Both runs had 4e+11 training FLOPs."},
        "compared": [{"arm": "causal-lm", "value": 0.75, "ci95": [0.73, 0.77], "flops": 4e11, "wall_s": 40.0, "how": "as the runs ended"},
                     {"arm": "mlm", "value": 0.73, "ci95": [0.70, 0.76], "flops": 4e11, "wall_s": 44.0, "how": "as the runs ended"},
                     {"arm": "random, llama", "value": 0.61, "ci95": None, "flops": 0, "wall_s": 0, "how": "as the runs ended"}],
        "comparisons": [{"a": "causal-lm", "b": "mlm", "difference": 0.02, "ci95": [-0.01, 0.05], "verdict": "not enough evidence",
                         "equal_compute": True, "sentence": "open"},
                        {"a": "causal-lm", "b": "random, llama", "difference": 0.14, "ci95": [0.12, 0.16], "verdict": "better",
                         "equal_compute": True, "sentence": f"{against} a random start."}],
        "worth": [{"arm": "causal-lm", "labels": 200, "random_labels": 520, "ci95": [400, None], "more_than": None,
                   "sentence": "With 200 labels causal-lm reaches what a random start needs 520 for."}],
        "winner": None, "sentence": "causal-lm and mlm: not enough evidence for a difference; both are better than a random start.",
        "notes": [], "leaks": ["1 of 1,000 test records stands in the training text."], "date": "2026-11-26",
        "commands": {"load": ["from x import y"], "finetune": "headstart finetune"},
    }  # fmt: skip


def demo_result() -> dict[str, Any]:
    """result.json of `headstart demo`."""
    spent = {"flops": 1.2e13, "seconds": 90.0, "steps": 1500, "left_plateau_at": 150, "learning_rate": 1e-3}
    return {
        "name": "demo", "task": {"classes": ["numpy", "torch"], "labelled_per_class": 40, "split": "by module", "metric": "accuracy"},
        "arms": [{"arm": "causal-lm", "pretrained": True, "accuracy": [0.40, 0.42, 0.41], **spent},
                 {"arm": "random start (causal-lm network)", "pretrained": False, "accuracy": [0.33, 0.34, 0.32], **dict.fromkeys(spent, 0)}],
        "sentence": "Over the same network from a random start: causal-lm helps.", "date": "2026-11-26",
    }  # fmt: skip


def png(width: int = 96, height: int = 64, shade: int = 128) -> bytes:
    """A grey PNG."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\x00" + bytes((shade + x + y) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_everything(folder: Path) -> Path:
    """A folder with one of each: runs, a running one, a broken one, a hostile one, a claim, advice, pictures."""
    write_run(folder / "causal-lm-tiny-0", seed=0, restart_at=200, spike_at=300)
    write_run(folder / "causal-lm-tiny-1", seed=1, gain=(0.035, -0.01, 0.08))
    write_run(folder / "electra-tiny-0", method="electra", seed=2, phases=("generator", "joint"), gain=(-0.05, -0.08, -0.02), steps=600)
    write_run(folder / "mlm-tiny-0", method="mlm", seed=3, status="failed", gain=None)
    write_run(folder / HOSTILE.replace("/", "∕")[:120], method=HOSTILE, said=HOSTILE, seed=4, gain=None, phases=(HOSTILE, "next"))
    pictures = folder / "causal-lm-tiny-0" / "pictures"
    pictures.mkdir(exist_ok=True)
    (pictures / "step-00000100-reconstructions.png").write_bytes(png(shade=20))
    (pictures / "step-00000400-reconstructions.png").write_bytes(png(shade=120))
    (pictures / "step-00000400-reconstructions.txt").write_text("input, masked, guess")
    broken = folder / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "run.json").write_text('{"format_version": 1, "status": ')
    (folder / "advice" / "reviews").mkdir(parents=True, exist_ok=True)
    (folder / "advice" / "reviews" / "advice.json").write_text(json.dumps(advice_result()))
    (folder / "comparisons" / "two").mkdir(parents=True, exist_ok=True)
    (folder / "comparisons" / "two" / "comparison.json").write_text(json.dumps(comparison_result()))
    results = folder / "claims" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "electra-cpu.json").write_text(json.dumps(claim_result()))
    bar = '<rect width="300" height="40" fill="#1a5fb4"/>'
    (results / "electra-cpu.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="120">{bar}</svg>')
    return folder
