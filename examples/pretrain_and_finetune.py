"""From a folder of your own texts to a classifier: pre-train, fine-tune beside a random start, predict.

    python examples/pretrain_and_finetune.py my/texts train.jsonl test.jsonl --minutes 10

`my/texts` holds unlabelled texts (.txt, .md, .jsonl, .csv, .parquet); a line of train.jsonl is {"text": "...", "label": "..."}.
Started again, it continues where it was.
"""

import argparse
import json
from pathlib import Path

import headstart
from headstart.tasks.saved import load_finetuned

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("texts")
parser.add_argument("train")
parser.add_argument("test")
parser.add_argument("--minutes", type=float, default=10.0, help="of pre-training")
parser.add_argument("--seeds", type=int, default=5, help="of fine-tuning")
parser.add_argument("--out", type=Path, default=Path("runs/example"))
options = parser.parse_args()

# 1. Pre-train on the unlabelled texts. causal-lm leaves the plateau first, so with minutes of training it is the one to begin with.
run = headstart.pretrain("causal-lm", options.texts, preset="tiny", out=options.out / "pretrained", **{"budget.minutes": options.minutes})

# 2. Fine-tune on the labels, always beside the same network from random weights: the difference is what pre-training gave.
#    Rate, epochs and batch are chosen by the size of the network and the number of labels; `learning_rate=3e-4` and the like set your own.
result = headstart.finetune("classification", run.folder, options.train, options.test, seeds=options.seeds, out=options.out / "finetuned")
print(result.verdict())

# 3. Use it. The folder also loads with transformers' AutoModel.
model = load_finetuned(options.out / "finetuned" / "model")
texts = [json.loads(line)["text"] for line in Path(options.test).read_text(encoding="utf-8").splitlines()[:3]]
for text, label in zip(texts, model.predict(texts), strict=True):
    print(f"{label}: {text}")
