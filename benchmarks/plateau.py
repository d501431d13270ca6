"""When does token prediction leave the unigram plateau? Six recipes on the documentation of this Python, to the step at which the run says so.

    python -m benchmarks.plateau [--steps 1500] [--work runs/plateau]

Resumable: every recipe is an ordinary run. The plan of a run (`engine/plateau.py`) rests on these figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from headstart.core import hardware
from headstart.core.files import write_json
from headstart.core.run import now
from headstart.data.text.builtin import SPEC
from headstart.data.text.config import TextConfig
from headstart.data.text.store import open_text_store, prepare_text
from headstart.engine.plateau import MARGIN
from headstart.verbs.pretrain import git_commit, pretrain, versions

ROWS = 32 * 64  # tokens of a step
RECIPES: dict[str, tuple[str, float, dict[str, Any]]] = {  # what it is -> (method, tokens predicted a step, settings)
    "causal LM, rotary": ("causal-lm", ROWS, {}),
    "MLM 25 %, rotary, causal LM for 300 steps first": ("mlm", ROWS, {}),
    "MLM 25 %, rotary": ("mlm", 0.25 * ROWS, {"method.causal_start": 0}),
    "MLM 15 %, rotary": ("mlm", 0.15 * ROWS, {"method.causal_start": 0, "method.mask_ratio": 0.15}),
    "MLM 15 %, BERT (learned positions)": (
        "mlm",
        0.15 * ROWS,
        {
            "method.causal_start": 0,
            "method.mask_ratio": 0.15,
            "method.architecture": "bert",
            "method.intermediate_size": 512,
            "optimizer.learning_rate": 1e-3,
        },
    ),
    "ELECTRA's generator 25 %, rotary, causal LM first": ("electra", ROWS, {"text.vocab_size": 2048}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--work", type=Path, default=Path("runs/plateau"))
    parser.add_argument("--data", default=SPEC)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plateau.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not (Path(args.data) / "manifest.json").is_file():
        prepare_text([args.data], args.work / "store", TextConfig(vocab_size=2048))
        args.data = str(args.work / "store")
    store = open_text_store(Path(args.data))
    arms = []
    for recipe, (slug, predicted, settings) in RECIPES.items():
        folder = args.work / "".join(c if c.isalnum() else "-" for c in recipe.lower())
        run = pretrain(slug, args.data, out=folder, precision="fp32", say=lambda line: None, **{"budget.steps": args.steps, **settings})
        left = run.info["verdict"]["left_plateau_at"]
        probes = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
        held_out = [p["value"] for p in probes if p["probe"].startswith("held_out/") and p["probe"].endswith(("/loss", "mlm_loss", "hidden"))]
        arms.append({
            "recipe": recipe, "steps": args.steps, "predicted_per_step": predicted, "left_at": left,
            "predicted_until_then": None if left is None else left * predicted, "held_out_at_the_end": held_out[-1] if held_out else None,
        })  # fmt: skip
        print(f"{recipe}: {'still on it' if left is None else f'left at step {left}'}", flush=True)
    result = {
        "name": "plateau",
        "what": f"Left: the running mean of the token-prediction loss lies {MARGIN} nats below the unigram entropy."
        " Width 128, 2 layers, 32 rows of 64 tokens a step.",
        "unigram_entropy": store.unigram_entropy,
        "arms": arms,
        "data": {"tokens": len(store.tokens), "vocab_size": store.vocab_size},
        "hardware": hardware.describe(),
        "versions": versions(),
        "command": f"python -m benchmarks.plateau --steps {args.steps}",
        "date": now(),
        "commit": git_commit(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()
