"""SPDF (Thangarasa et al., UAI 2023, arXiv 2303.10464): does pre-training with 75 % of the matrix weights fixed at zero cost task quality, and is
dense fine-tuning better than sparse?

GPT-2s pre-train on English prose and medical text, all with the same tokens, as in the paper, and are fine-tuned on E2E (at preset gpu also on
PubMedQA, the harder one). What decides is the loss on the test targets: BLEU of networks of this size is near 0 and noisy, and stands beside.

- `sparse75_kept` and `sparse50_kept` are the same pre-trained networks as `sparse75` and `sparse50`, fine-tuned with their masks kept.
- `small` is what a person would train instead: a dense network of the counted FLOPs of `sparse75`. `sparse75_isoflop` (gpu) trains until the counted
  FLOPs of `dense`. Counted: an ordinary machine multiplies the zeros, and `dense` and `sparse75` take the same time on it.
- Where `dense` gains less than 0.05 nats over no pre-training, pre-training was too short to say anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._text import write_documents
from headstart.interventions.spdf.flops import forward_flops, widest_within
from headstart.tasks.data import records
from headstart.tasks.generation import Decoder, Pairs, loss_scores, make_pairs, masks_of, output_scores, pair_nll, precision_of, train_pairs, write
from headstart.tasks.generation_config import GenerationConfig
from headstart.tasks.generation_data import GenerationData, read_generation

LEAST_GAIN = 0.05
"""Nats a target token that dense pre-training must gain over none."""
KEPT_SHARE = 0.8
"""Of that gain, what the network of 75 % zeros must keep: our reading of "no significant loss" at this scale."""
KEPT = "_kept"
"""Arms whose masks are kept in fine-tuning."""


def open_data(scale: Scale, folder: Path) -> Data:
    """Text to pre-train on, and tasks of generation."""
    options = scale.options
    fixture = options.get("fixture", False)
    names = [(name, part) for part in options["text"] for name in ("textgen", "textmed")]
    sources = [data_folder(name, fixture) / f"{part}.jsonl.zst" for name, part in names]
    texts = [record["text"] for source in sources for _, record in islice(records(source), options.get("documents"))]
    corpus = write_documents(folder / "corpus.jsonl", texts)
    pools = {"e2e": e2e(data_folder("e2e", fixture))}
    files = [*sources, *sorted(data_folder("e2e", fixture).glob("*.jsonl.zst"))]
    if options.get("pubmedqa"):
        pools["pubmedqa"] = pubmedqa(data_folder("pubmedqa"))
        files += sorted(data_folder("pubmedqa").glob("*.jsonl.zst"))
    if (limit := options.get("sources")) is not None:
        pools = {name: {part: GenerationData(data.items[:limit], data.source) for part, data in pool.items()} for name, pool in pools.items()}
    tasks = tuple(task(name, pool, scale) for name, pool in pools.items())
    return Data(
        facts={
            "name": "textgen and textmed, then " + " and ".join(pools),
            "source": "Wikipedia, Gutenberg and medical texts; E2E NLG Challenge (Novikova et al. 2017); PubMedQA (Jin et al. 2019)",
            "train": {"documents": len(texts)} | {name: len(pool["train"]) for name, pool in pools.items()},
            "test": {name: len(pool["test"]) for name, pool in pools.items()},
            "scored": "the first reference of each source" if options["scored_references"] == 1 else "all references",
            "split": "E2E by meaning representation, its official test set whole; PubMedQA its official test list, its last 50 others for dev",
        },
        corpora={"train": [corpus]},
        tasks=tasks,
        files=tuple(files),
    )


def e2e(folder: Path) -> dict[str, GenerationData]:
    """Split -> meaning representations with all their references."""
    config = GenerationConfig(source_field="mr", target_field="refs", source_form="slots")
    return {split: read_generation(folder / f"{name}.jsonl.zst", config) for split, name in (("train", "train"), ("dev", "val"), ("test", "test"))}


def pubmedqa(folder: Path) -> dict[str, GenerationData]:
    """Split -> question, abstract without its conclusion, conclusion."""
    config = GenerationConfig(source_field="question", context_field="context", target_field="answer")
    known, test = (read_generation(folder / f"{name}.jsonl.zst", config) for name in ("train", "test"))
    return {"train": GenerationData(known.items[:-50], known.source), "dev": GenerationData(known.items[-50:], known.source), "test": test}


def task(name: str, pool: Mapping[str, GenerationData], scale: Scale) -> Task:
    """Fine-tuning on one of them; the test loss a target token, in nats."""
    options = scale.options
    config = GenerationConfig(
        epochs=options["epochs"], batch=16, beta2=0.95, weight_decay=0.1, clip_norm=1.0, warmup_share=0.1,
        max_new_tokens=options.get("new_tokens", 96), precision=options["precision"],
    )  # fmt: skip

    def measure(use: Use) -> Score:
        device, export = torch.device(use.device), use.model.export
        decoder = Decoder.load(export)
        masks = masks_of(export, decoder.model) if use.model.arm.name.endswith(KEPT) else None
        rows = make_pairs(decoder, pool["train"], config, options["references"])
        train_pairs(decoder, rows, config, use.setting, use.seed, device, masks)
        scored = make_pairs(decoder, pool[use.split], config, options["scored_references"])
        nll = pair_nll(decoder.model, Pairs(scored, decoder, device), device, precision_of(config, device))
        tokens = scored.lengths - scored.row_values["start"]
        beside = {"bits a byte": loss_scores(nll, scored)["bits_per_byte"]}
        for beams in options["beams"] if use.split == "test" else ():
            outputs = write(decoder, pool["test"], dataclasses.replace(config, beams=beams), device)
            how = "greedy" if beams == 1 else f"beam {beams}"
            beside |= {f"{what}, {how}": value for what, value in output_scores(outputs, pool["test"]).items()}
        return Score(float(nll.sum() / tokens.sum()), np.stack([nll, tokens.astype(np.float64)], 1), beside=beside)

    return Task(name, measure, settings=options["finetune_rates"], texts=pool["test"].leak_texts())


def validity(scores: Mapping[str, Mapping[str, float]], data: Data) -> dict[str, str]:
    """Task -> why nothing can be said of a share of the gain on it. One task's is no reason against another's."""
    if not scores.keys() >= {"dense", "none"}:
        return {}
    gains = {name: scores["none"][name] - scores["dense"][name] for name in scores["dense"]}
    return {
        name: f"dense pre-training gains only {gain:.3f} nats a token over none on {name} (limit {LEAST_GAIN})"
        for name, gain in gains.items() if gain < LEAST_GAIN
    }


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """On each task the share of the gain that each sparsity keeps."""
    if not figures.keys() >= {"dense", "none"}:
        return []
    tasks = [name for name in figures["dense"] if ": " not in name]
    told = []
    for task in tasks:
        start, gain = figures["none"][task], figures["none"][task] - figures["dense"][task]
        if gain > 0:
            shares = [f"{arm} {100 * (start - of_arm[task]) / gain:.0f} %" for arm, of_arm in figures.items() if arm not in ("dense", "none")]
            on = f" on {task}" if len(tasks) > 1 else ""
            told.append(f"Of the gain of dense pre-training over none{on} ({gain:.3f} nats a token): {', '.join(shares)}.")
    return told


def arms(layers: int, width: int, heads: int, context: int, vocabulary: int, steps: int, isoflop: bool = False) -> tuple[Arm, ...]:
    """All networks of a scale, from the sizes of the dense one."""
    of = {level: forward_flops(layers, width, context, vocabulary, level) for level in (0.0, 0.5, 0.75)}
    same = "equal tokens, as in the paper: {:.4g} counted FLOPs a token, of {:.4g} dense"
    dense = Arm("dense", "causal-lm", sizes(layers, width, heads), unequal=same.format(of[0.0], of[0.0]))
    half, quarter = (
        Arm(name, "causal-lm", {**dense.settings, "sparsity.level": level}, unequal=same.format(of[level], of[0.0]))
        for name, level in (("sparse50", 0.5), ("sparse75", 0.75))
    )
    narrow = widest_within(of[0.75], layers, context, vocabulary)
    found = [
        dense,
        half,
        quarter,
        Arm(f"sparse75{KEPT}", "causal-lm", dense.settings, trained=False, start=quarter),
        Arm(f"sparse50{KEPT}", "causal-lm", dense.settings, trained=False, start=half),
        Arm("none", "causal-lm", dense.settings, trained=False),
        Arm("small", "causal-lm", sizes(layers, narrow, heads), unequal=f"the widest dense network ({narrow}) that takes no more than sparse75"),
    ]
    if isoflop:
        longer = {**quarter.settings, "budget.steps": int(steps * of[0.0] / of[0.75])}
        found.append(Arm("sparse75_isoflop", "causal-lm", longer, unequal="trained until the counted FLOPs of dense"))
    return tuple(found)


def sizes(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {"method.num_layers": layers, "method.hidden_size": width, "method.num_heads": heads, "method.intermediate_size": 4 * width}


def pretraining(steps: int, batch: int, context: int, vocabulary: int, precision: str) -> dict[str, Any]:
    """What all networks of a scale share."""
    return {
        "preset": "base",
        "batch": batch,
        "budget.steps": steps,
        "precision": precision,
        "method.architecture": "gpt2",
        "method.sequence_length": context,
        "optimizer.beta2": 0.95,
        "optimizer.weight_decay": 0.1,
        "optimizer.clip_norm": 1.0,
        "schedule.name": "cosine",
        "schedule.warmup_share": 0.1,
        "schedule.minimum_share": 0.1,
        "text.vocab_size": vocabulary,
        "text.held_out_share": 0.0,
    }


def comparisons(*tasks: str, decides: bool = True) -> tuple[Comparison, ...]:
    """The paper's two statements, and what a person would ask beside."""
    return (
        Comparison("sparse75", "dense", decides, base="none", share=KEPT_SHARE, tasks=tasks),
        Comparison("sparse75", f"sparse75{KEPT}", decides, tasks=tasks),
        Comparison("sparse50", "dense", False, base="none", share=KEPT_SHARE, tasks=tasks),
        Comparison("sparse50", f"sparse50{KEPT}", False, tasks=tasks),
        Comparison("sparse75", "dense", False, tasks=tasks),
        Comparison("dense", "none", False, tasks=tasks),
        Comparison("sparse75", "none", False, tasks=tasks),
        Comparison("sparse75", "small", False, tasks=tasks),
        Comparison("sparse75_isoflop", "dense", False, tasks=tasks),
    )


CLAIM = Claim(
    slug="spdf",
    statement="Pre-training with 75 % of the matrix weights fixed at zero and fine-tuning densely costs little task quality against dense"
    " pre-training on the same tokens, and dense fine-tuning is better than sparse.",
    paper=Paper(
        statement="A GPT-3 XL pre-trained at 75 % sparsity has no significant loss on downstream tasks; the gap shrinks with the size of the network"
        " and grows with the difficulty of the task.",
        value="2.5 times fewer pre-training FLOPs at 1.3 B parameters, 1.65 times at 125 M",
        where="abstract; section 4",
    ),
    metric="test loss a target token (nats)",
    higher_is_better=False,
    percent=False,
    packages={"sacrebleu": "generation", "rouge_score": "generation"},
    comparisons=comparisons("e2e"),
    presets={
        "smoke": Scale(
            arms=arms(2, 64, 2, 224, 512, 30),
            seeds=1,
            learning_rates=(3e-3,),
            settings=pretraining(30, 4, 224, 512, "fp32"),
            options={
                "text": ("train",),
                "fixture": True,
                "documents": 10,
                "sources": 8,
                "references": 4,
                "scored_references": 1,
                "epochs": 10,
                "finetune_rates": (3e-3,),
                "beams": (1,),
                "new_tokens": 32,
                "precision": "fp32",
            },
        ),
        "cpu": Scale(
            arms=arms(3, 128, 4, 224, 1024, 595),
            seeds=3,
            learning_rates=(3e-3,),
            settings=pretraining(595, 9, 224, 1024, "fp32"),
            options={
                "text": ("train",),
                "references": 4,
                "scored_references": 1,
                "epochs": 2,
                "finetune_rates": (3e-3, 1e-3),
                "beams": (1,),
                "precision": "fp32",
            },
        ),
        "gpu": Scale(
            arms=arms(6, 512, 8, 512, 4096, 1099, isoflop=True),
            seeds=3,
            learning_rates=(1e-3,),
            settings=pretraining(1099, 16, 512, 4096, "bf16"),
            comparisons=(*comparisons("e2e"), *comparisons("pubmedqa", decides=False)),
            options={
                "text": ("train", "extra"),
                "pubmedqa": True,
                "references": None,
                "scored_references": None,
                "epochs": 5,
                "finetune_rates": (1e-3, 3e-4),
                "beams": (1, 4),
                "precision": "bf16",
            },
        ),
    },
    open_data=open_data,
    validity=validity,
    remarks=remarks,
)
