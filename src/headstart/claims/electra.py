"""ELECTRA (Clark et al., ICLR 2020, arXiv 2003.10555): does replaced-token detection beat masked language modelling at equal training FLOPs?

Film reviews (`movies`, Pang & Lee): both encoders pre-train on the text of 1,900 reviews and are fine-tuned on three small tasks.

- cpu: both arms have what a few minutes need (docs/methods/electra.md, "Where we differ"): a rotary encoder and 300 causal steps, whose FLOPs count;
  ELECTRA's generator then trains alone until step 700 and is copied into the discriminator. gpu: the paper's architecture, joint from step 1.
- Guards: a generator that is still on the unigram plateau, or a discriminator that cannot rank, has had too small a budget: no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._text import (
    draw_balanced,
    draw_sentences,
    fine_tune,
    frequent_tag_accuracy,
    naive_bayes_accuracy,
    write_documents,
)
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.engine.evaluation import evaluate
from headstart.methods.electra.method import Electra
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TaggedData, TextData, records
from headstart.tasks.leaks import find_overlap

BELOW_ENTROPY = 0.3
"""Nats that a generator's loss must be below the unigram entropy of the training pieces."""
LEAST_AUC = 0.7
"""Of the discriminator's logit over the tokens that are not padding."""
EVALUATION_BATCH = 64


def open_data(scale: Scale, folder: Path) -> Data:
    """Reviews to pre-train on, the last ones of the file held out; and three tasks with few labels, drawn anew for each pre-training seed."""
    options = scale.options
    source = data_folder("movies", fixture=options.get("fixture", False))
    files = tuple(source / f"{name}.jsonl.zst" for name in ("corpus", "sentences", "tags"))
    reviews = [record["text"] for _, record in records(files[0])][: options.get("reviews")]
    kept_out: int = options["held_out_reviews"]
    write_documents(folder / "held_out.jsonl", reviews[-kept_out:])
    corpus = write_documents(folder / "corpus.jsonl", reviews[:-kept_out])

    limit: int | None = options.get("scored_records")
    pools: dict[str, dict[str, Any]] = {
        "subj": sentence_task(files[1], "subj", ["plot", "review"], limit),
        "pol": sentence_task(files[1], "pol", ["negative", "positive"], limit),
        "tags": tag_task(files[2], limit),
    }
    counts: Mapping[str, int] = options["labels"]
    draws = {name: [draw(pools[name]["train"], counts[name], seed) for seed in range(scale.seeds)] for name in pools}
    tasks = tuple(task(name, pools[name], counts[name], scale) for name in pools)
    anchor: dict[str, Any] = {"subj": naive_bayes_accuracy, "pol": naive_bayes_accuracy, "tags": frequent_tag_accuracy}
    simple = {name: float(np.mean([anchor[name](drawn, pools[name]["test"]) for drawn in draws[name]])) for name in pools}
    leaks = [
        find_overlap(pool["test"].leak_texts(), pool["train"].leak_texts()).sentence(f"the labelled records of {name} to draw from")
        for name, pool in pools.items()
    ]
    return Data(
        facts={
            "name": "movies",
            "source": "Pang & Lee: movie reviews 2.0, sentence polarity 1.0, subjectivity 1.0; MASC tagged (through nltk_data)",
            "train": {"reviews": len(reviews) - kept_out, **counts},
            "test": {name: len(pool["test"]) for name, pool in pools.items()},
            "split": f"last {kept_out} reviews held out; sentences by sha1 of the normalised text, one split for subj and pol; tags by document",
        },
        corpora={"train": [corpus]},
        tasks=tasks,
        files=files,
        leaks=tuple(leaks),
        anchors={"naive Bayes on words (tags: most frequent tag of the word), the same labels": simple},
    )


def sentence_task(path: Path, field: str, classes: list[str], limit: int | None) -> dict[str, TextData]:
    """Split -> the sentences with a label in `field` (0 or 1)."""
    found: dict[str, TextData] = {split: TextData([], [], classes, source=str(path)) for split in ("train", "dev", "test")}
    for _, record in records(path):
        if record[field] is not None:
            part = found[record["split"]]
            part.texts.append(record["text"])
            part.labels.append(record[field])
    for split in ("dev", "test"):
        found[split].texts, found[split].labels = found[split].texts[:limit], found[split].labels[:limit]
    return found


def tag_task(path: Path, limit: int | None) -> dict[str, TaggedData]:
    """Split -> sentences with Penn tags."""
    found = {split: TaggedData([], [], source=str(path)) for split in ("train", "dev", "test")}
    for _, record in records(path):
        found[record["split"]].words.append(record["words"].split())
        found[record["split"]].tags.append(record["tags"].split())
    for split in ("dev", "test"):
        found[split].words, found[split].tags = found[split].words[:limit], found[split].tags[:limit]
    return found


def draw(pool: Any, count: int, seed: int) -> Any:
    return draw_sentences(pool, count, seed) if isinstance(pool, TaggedData) else draw_balanced(pool, count, seed)


def task(name: str, pool: dict[str, Any], count: int, scale: Scale) -> Task:
    """One of the three: fine-tuning on `count` labels, drawn by the pre-training seed and the same for every arm."""
    options = scale.options
    config = FinetuneConfig(
        epochs=options["epochs"][name],
        batch=options["finetune_batch"],
        layer_decay=0.8,
        max_length=scale.settings.get("method.sequence_length", 128),
        pooling=options["pooling"],
    )
    kind = "tagging" if name == "tags" else "classification"

    def measure(use: Use) -> Score:
        return fine_tune(kind, use, draw(pool["train"], count, use.model.seed), pool[use.split], config)

    return Task(name, measure, settings=options["finetune_rates"], texts=pool["test"].leak_texts())


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Held-out reviews under one fixed mask, every chosen slot shown as [MASK], dropout off (specification, guard (a)): the MLM loss of the arm's own
    generator (of mlm: its one network), and the AUC of its discriminator."""
    method = Electra.load(model.export).to(device)
    tokenizer = str(model.export / "discriminator" / "tokenizer.json")
    held_out = Path(data.corpora["train"][0]).with_name("held_out.jsonl")
    store = prepare_text([held_out], model.folder.parent / "stores" / "held-out", TextConfig(tokenizer=tokenizer, held_out_share=0.0))
    rows = Electra.rows(store, method.config)
    numbers = np.array_split(np.arange(len(rows)), max(1, len(rows) // EVALUATION_BATCH))
    batches = [{name: torch.as_tensor(value) for name, value in rows.batch(part).items()} for part in numbers]
    found = evaluate(method, batches, "joint", "fp32", torch.device(device), seed=0, total_steps=1)
    loss, limit = found["held_out/mlm_loss_hidden"], float(method.unigram_entropy) - BELOW_ENTROPY
    checked = [Guard("held-out MLM loss (nats)", loss, limit, loss <= limit)]
    if method.config.has_rtd_head:
        auc = found["held_out/disc_auc"]
        checked.append(Guard("AUC of the discriminator", auc, LEAST_AUC, auc > LEAST_AUC))
    return checked


def notes(means: Mapping[str, float]) -> list[str]:
    """The share of the gain that is there without the loss on all tokens (claim 2), without a verdict."""
    if "electra_15" not in means or not means.keys() >= {"electra", "mlm"} or means["electra"] == means["mlm"]:
        return []
    share = 100 * (means["electra_15"] - means["mlm"]) / (means["electra"] - means["mlm"])
    return [f"Of the gain of electra over mlm, electra_15 (loss on the written positions alone) has {share:.0f} %."]


def arms(*names: str, seeds: int | None = None) -> tuple[Arm, ...]:
    """The method and its ablations: all are arms of one implementation, so the code that they share is the same code."""
    return tuple(Arm(name, "electra", {"method.arm": name}, seeds=seeds) for name in names)


_NONE = Arm("none", "electra", trained=False)
_FINE_TUNING = {
    "labels": {"subj": 200, "pol": 1000, "tags": 300},
    "epochs": {"subj": 10, "pol": 10, "tags": 20},
    "finetune_rates": (3e-4, 1e-3),
    "finetune_batch": 16,
    "pooling": "cls",
    "held_out_reviews": 100,
}

CLAIM = Claim(
    slug="electra",
    statement="At equal training FLOPs and equal encoder size, an encoder pre-trained to detect replaced tokens fine-tunes better than one"
    " pre-trained to fill masks; most of the gain comes from the loss on all tokens.",
    paper=Paper(
        statement="ELECTRA-Small beats BERT-Small of equal compute; ELECTRA 15%, which scores the masked positions alone, falls back to BERT.",
        value="GLUE dev 79.9 against 75.1 (small); base: ELECTRA 85.0, ELECTRA 15% 82.4, BERT 82.2",
        where="Tables 1 and 5",
    ),
    metric="mean test accuracy of subj, pol and tags",
    comparisons=(
        Comparison("electra", "mlm"),
        Comparison("electra", "electra_15"),
        Comparison("electra", "all_tokens_mlm", decides=False),
        Comparison("electra", "none", decides=False),
        Comparison("mlm", "none", decides=False),
    ),
    presets={
        "smoke": Scale(
            arms=arms("electra", "mlm"),
            seeds=1,
            learning_rates=(1e-3,),
            settings={
                "preset": "tiny",
                "batch": 16,
                "budget.flops": 1.2e10,
                "precision": "fp32",
                "method.hidden_size": 64,
                "method.intermediate_size": 128,
                "method.sequence_length": 32,
                "text.vocab_size": 1024,
                "text.held_out_share": 0.0,
            },
            options={
                **_FINE_TUNING,
                "labels": {"subj": 16, "pol": 16, "tags": 16},
                "epochs": {"subj": 1, "pol": 1, "tags": 1},
                "fixture": True,
                "reviews": 60,
                "held_out_reviews": 10,
                "scored_records": 64,
            },
        ),
        "cpu": Scale(
            arms=(*arms("electra", "mlm"), _NONE),
            seeds=3,
            learning_rates=(1e-3, 3e-3),
            settings={
                "preset": "tiny",
                "batch": 32,
                "budget.flops": 6e13,
                "precision": "bf16",  # on a CPU the trial would decide, for each run anew
                "method.sequence_length": 48,
                "text.vocab_size": 4096,
                "text.held_out_share": 0.0,
            },
            repeats=2,
            options=_FINE_TUNING,
        ),
        "gpu": Scale(
            arms=(*arms("electra", "mlm"), *arms("electra_15", "all_tokens_mlm", seeds=3), _NONE),
            seeds=5,
            learning_rates=(5e-4, 1e-3, 2e-3),
            settings={
                "preset": "small",
                "batch": 64,
                "budget.flops": 5e14,
                "precision": "bf16",
                "method.num_layers": 6,
                "schedule.warmup_steps": None,
                "schedule.warmup_share": 0.1,
                "text.vocab_size": 8192,
                "text.held_out_share": 0.0,
            },
            repeats=3,
            options={**_FINE_TUNING, "finetune_batch": 32},
        ),
    },
    open_data=open_data,
    guards=guards,
    notes=notes,
)
