"""BIOptimus (BioNLP 2023, arXiv 2308.08625): does a curriculum of masks find more entities than one hard phase of equal FLOPs?

The bases, the texts and the beginnings of `claims/bioptimus.py`, measured after fine-tuning on 400 sentences each of NCBI-disease and BC5CDR: strict
F1 of entities. At preset cpu only the beginnings are compared: the curriculum's effect is far below what a network of two layers shows.

- Every arm of the curriculum has rows from contexts and the same FLOPs; trap of the paper's own table: each of its versions trained longer than the
  one before.
- Training sentences that equal a test sentence are left out; no sentence of either set stands in the corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.claims._claim import Arm, Claim, Comparison, Data, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._text import draw_sentences, fine_tune
from headstart.claims.bioptimus import CPU, GPU, SINGLE, SMOKE, Size, base_of, beginnings, guards
from headstart.claims.bioptimus import open_data as texts_of
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TaggedData, read_tags

SETS = ("ncbi_disease", "bc5cdr")


def open_data(scale: Scale, folder: Path) -> Data:
    """The texts of the claim on beginnings, and two sets of tagged sentences."""
    texts, source = texts_of(scale, folder), data_folder("biomed", scale.options.get("fixture", False))
    files = tuple(source / f"{name}.{split}.tsv.zst" for name in SETS for split in ("train", "dev", "test"))
    pools = {name: {split: read_tags(source / f"{name}.{split}.tsv.zst") for split in ("train", "dev", "test")} for name in SETS}
    for pool in pools.values():
        pool["train"] = without(pool["train"], pool["test"])
    facts = {**texts.facts, "labels": dict.fromkeys(SETS, scale.options["labels"]), "test": {name: len(pools[name]["test"]) for name in SETS}}
    return dataclasses.replace(texts, facts=facts, tasks=tuple(task(name, pools[name], scale) for name in SETS), files=(*texts.files, *files))


def without(data: TaggedData, others: TaggedData) -> TaggedData:
    """The sentences that do not stand in the others, by letters and digits."""
    seen = {_letters(words) for words in others.words}
    kept = [i for i, words in enumerate(data.words) if _letters(words) not in seen]
    return TaggedData([data.words[i] for i in kept], [data.tags[i] for i in kept], source=data.source)


def _letters(words: Sequence[str]) -> str:
    return "".join(character for character in "".join(words).lower() if character.isalnum())


def task(name: str, pool: dict[str, TaggedData], scale: Scale) -> Task:
    """Fine-tuning on sentences drawn by the pre-training seed, the same for every arm."""
    options = scale.options
    config = FinetuneConfig(epochs=options["epochs"], batch=options["finetune_batch"], layer_decay=1.0, max_length=options["length"])

    def measure(use: Use) -> Score:
        labelled = draw_sentences(pool["train"], min(options["labels"], len(pool["train"])), use.model.seed)
        return fine_tune("tagging", use, labelled, pool[use.split], config, metric="f1")

    return Task(name, measure, settings=(options["rate"],), texts=pool["test"].leak_texts())


def curriculum(size: Size) -> dict[str, Arm]:
    """The arms of claim B: name -> arm. All begin with rows from contexts."""
    phases: dict[str, tuple[Any, ...]] = {
        "method.units": ("token", "whole-word", "whole-word", "whole-word"),
        "method.mask_ratios": (0.15, 0.15, 0.2, 0.2),
        "method.mask_shares": (0.8, 0.8, 0.8, 1.0),
        "method.lengths": (1.0,) * 4,
        "method.rates": (1.0,) * 4,
    }
    hard = {**SINGLE, "method.units": ("whole-word",), "method.mask_ratios": (0.2,)}
    plans = {
        "curriculum": phases,
        "one_hard_phase": hard,
        "reverse_curriculum": {name: values[::-1] for name, values in phases.items()},
    }
    same = {"method.restart_schedule": False, "method.contexts": size.contexts}
    return {
        name: Arm(name, "bioptimus", {**plan, **same}, start=base_of(size), learning_rate=size.domain_rate) for name, plan in plans.items()
    }


def scale_of(size: Size, names: Sequence[str], seeds: int, **options: Any) -> Scale:
    arms = beginnings(size) | curriculum(size)
    shown = {"labels": 400, "finetune_batch": 16, "length": size.length, **options}
    return Scale(tuple(arms[name] for name in names), seeds, (size.domain_rate,), size.settings(), options=shown)


_BEGINNINGS = ("random", "subword_mean", "contextual")

CLAIM = Claim(
    slug="bioptimus_entities",
    of=("bioptimus",),
    statement="At equal FLOPs a curriculum of masks, from single tokens to whole words without corruption, finds entities better than one phase of"
    " hard masks; and rows from contexts better than other beginnings of new tokens.",
    paper=Paper(
        statement="Each phase of the curriculum improves entity recognition.",
        value="BC5CDR-chemical F1 93.52, 93.87, 93.70, 94.10 over the four versions; NCBI-disease 88.44, 87.99, 88.17, 89.54",
        where="official repository, tab5.png",
    ),
    metric="mean entity F1 of NCBI-disease and BC5CDR after fine-tuning on 400 sentences each",
    comparisons=(
        Comparison("curriculum", "one_hard_phase", margin=0.003),
        Comparison("contextual", "random"),
        Comparison("contextual", "subword_mean", decides=False),
        Comparison("curriculum", "reverse_curriculum", decides=False, margin=0.003),
        Comparison("contextual", "old_vocabulary", decides=False),
        Comparison("contextual", "scratch", decides=False),
    ),
    presets={
        "smoke": scale_of(SMOKE, ("random", "curriculum", "one_hard_phase"), 1, fixture=True, documents=40, labels=20, epochs=1, rate=5e-4),
        "cpu": scale_of(CPU, _BEGINNINGS, 3, epochs=12, rate=5e-4),
        "gpu": scale_of(GPU, (*_BEGINNINGS, "old_vocabulary", "scratch", *curriculum(GPU)), 3, epochs=20, rate=1e-4, finetune_batch=32),
    },
    open_data=open_data,
    guards=guards,
)
