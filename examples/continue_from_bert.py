"""Continue a BERT that somebody else trained on your own texts, and hand it on as a transformers folder.

    python examples/continue_from_bert.py path/to/bert-base-uncased my/texts --minutes 60

The folder is any masked language model of transformers on this disk (config.json, model.safetensors, tokenizer): BERT, RoBERTa, ModernBERT ...
Its own tokenizer is used. Started again, it continues where it was.
"""

import argparse
import json
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer

import headstart

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bert", type=Path)
parser.add_argument("texts")
parser.add_argument("--minutes", type=float, default=60.0)
parser.add_argument("--length", type=int, default=128, help="tokens of a row, at most what the network has positions for")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--out", type=Path, default=Path("runs/continued-bert"))
options = parser.parse_args()

# A tenth of BERT's own rate, warmed up anew: high enough to learn the new texts, low enough to keep the old ones.
run = headstart.pretrain(
    "mlm",
    options.texts,
    preset="base",
    init=options.bert,
    out=options.out,
    batch=options.batch,
    **{
        "budget.minutes": options.minutes,
        "method.sequence_length": options.length,
        "optimizer.learning_rate": 1e-5,
        "schedule.warmup_steps": None,
        "schedule.warmup_share": 0.1,
    },
)

# What it learned: the loss on held-out texts, first evaluation against last.
lines = [json.loads(line) for line in (run.folder / "probes.jsonl").read_text(encoding="utf-8").splitlines()]
losses = [line["value"] for line in lines if line["probe"] == "held_out/mlm_loss"]
print(f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f} nats a hidden token")

# The export is what every transformers program loads.
tokenizer, model = AutoTokenizer.from_pretrained(run.export), AutoModelForMaskedLM.from_pretrained(run.export)
print(f"{type(model).__name__} with {model.num_parameters():,} parameters and {len(tokenizer):,} tokens in {run.export}")
