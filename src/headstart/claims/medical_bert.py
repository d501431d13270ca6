"""Wada et al. 2020 (arXiv 2005.07202): does a BERT that is trained on a small domain corpus and a large other one find more entities when both
weigh the same, in the training files and in the vocabulary?

Small: every 13th biomedical document (0.33 MB). Large: general English (3.2 MB). The arms differ in what they read and in whose vocabulary; steps,
and so FLOPs, are equal. Measured is the strict F1 of entities after fine-tuning on 400 sentences each of NCBI-disease and BC5CDR.

- Guard: an arm on the unigram plateau has learned frequencies alone. Its loss is taken of held-out general text, which every arm has read, and
  compared with that of the frequencies of what this arm has read.
- Beside: held-out biomedical text in nats per character of hidden words (per token, vocabularies cannot be compared), words seen, pieces a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._text import draw_sentences, fine_tune
from headstart.claims.bioptimus import blocks, write_text
from headstart.claims.bioptimus_entities import SETS, without
from headstart.core.run import PART_LOSS, read_lines, read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.rows import Rows
from headstart.data.text.store import TextStore, open_text_store, prepare_text
from headstart.data.text.tokenizer import load_tokenizer
from headstart.engine.evaluation import evaluate
from headstart.engine.masked_method import MaskedMethod
from headstart.methods.medical_bert.config import MedicalBertConfig
from headstart.methods.medical_bert.method import MedicalBert
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TaggedData, read_tags

TEXT = "text"
"""The part of --data that an arm is trained on; its held-out text is biomedical."""
GUARD = "held-out general text"
SMALL_OF = 13
"""The small corpus has one of so many biomedical documents."""
HELD_OUT = (40, 5)
"""Of so many documents the one of this number is held out, of either corpus."""
BELOW_FREQUENCIES = 0.3
"""Nats that an arm must lie below what knows the frequencies alone."""
EVALUATED_ROWS = 64


def open_data(scale: Scale, folder: Path) -> Data:
    """Both corpora, their held-out documents, and two sets of tagged sentences."""
    options = scale.options
    general_source, source = (data_folder(name, options.get("fixture", False)) for name in ("general_en", "biomed"))
    general_files = [general_source / f"{name}.txt.zst" for name in ("wiki", "addresses")]
    every, kept = HELD_OUT
    general = [document.replace("[UNK]", " ") for file in general_files for document in blocks(file)]
    domain = list(blocks(source / "corpus.txt.zst"))[: options.get("documents")]
    large = write_text(folder / "large.txt", (text for i, text in enumerate(general) if i % every != kept))
    apart_of_large = write_text(folder / "general-held-out.txt", (text for i, text in enumerate(general) if i % every == kept))
    small = write_text(folder / "small.txt", (text for i, text in enumerate(domain) if i % SMALL_OF == 0))
    held_out = write_text(folder / "held-out.txt", (text for i, text in enumerate(domain) if i % every == kept and i % SMALL_OF))
    files = tuple(source / f"{name}.{split}.tsv.zst" for name in SETS for split in ("train", "dev", "test"))
    pools = {name: {split: read_tags(source / f"{name}.{split}.tsv.zst") for split in ("train", "dev", "test")} for name in SETS}
    for pool in pools.values():
        pool["train"] = without(pool["train"], pool["test"])
    of_large = {}
    if any(arm.name == "sequential" for arm in scale.arms):
        text = TextConfig(vocab_size=scale.settings["text.vocab_size"], sentence_split="rules", held_out_share=0.0)
        of_large = {"text.tokenizer": str(prepare_text([large], folder / "large-store", text).folder / "tokenizer.json")}
    apart = f"{TEXT}:held-out={held_out}"
    return Data(
        facts={
            "name": "biomed",
            "source": "CRAFT, LINNAEUS and AnatEM (MTL-Bioinformatics-2016); WikiText-2 and State of the Union addresses",
            "train": {"small bytes": small.stat().st_size, "large bytes": large.stat().st_size, "labels": options["labels"]},
            "test": {name: len(pools[name]["test"]) for name in SETS},
            "split": f"small: one of {SMALL_OF} biomedical documents; of {every} documents of either corpus the one of number {kept} held out",
        },
        corpora={
            "train": [f"{TEXT}={small}", f"{TEXT}={large}", apart],
            "large": [f"{TEXT}={large}", apart],
            "small": [f"{TEXT}={small}", apart],
            GUARD: [apart_of_large],
        },
        tasks=tuple(task(name, pools[name], scale, beside=name == SETS[0]) for name in SETS),
        files=(*general_files, source / "corpus.txt.zst", *files),
        of_arms={"sequential": of_large},
    )


def task(name: str, pool: dict[str, TaggedData], scale: Scale, beside: bool) -> Task:
    """Fine-tuning on sentences drawn by the pre-training seed, the same for every arm.

    Args:
        beside: give the figures of the pre-training too.
    """
    options = scale.options
    config = FinetuneConfig(epochs=options["epochs"], batch=options["finetune_batch"], layer_decay=1.0, max_length=options["length"])

    def measure(use: Use) -> Score:
        labelled = draw_sentences(pool["train"], min(options["labels"], len(pool["train"])), use.model.seed)
        score = fine_tune("tagging", use, labelled, pool[use.split], config, metric="f1")
        return Score(score.value, score.items, score.stuck, figures(use.model, pool["test"]) if beside else {})

    return Task(name, measure, settings=(options["rate"],), texts=pool["test"].leak_texts())


def figures(model: Model, test: TaggedData) -> dict[str, float]:
    """Pieces a word of the test words; of a trained arm the held-out loss at its end, and the words that it has seen."""
    tokenizer, _ = load_tokenizer(model.export, TextConfig())
    words = [word for sentence in test.words for word in sentence]
    found = {"pieces a word": sum(len(encoding) for encoding in tokenizer.encode_batch(words, add_special_tokens=False)) / len(words)}
    if not model.arm.trained:
        return found
    losses = {line["step"]: line["value"] for line in read_lines(model.folder / "probes.jsonl") if line["probe"] == PART_LOSS + TEXT}
    counts = read_run(model.folder)["data"][0]["counts"]
    seen = model.tokens * counts["words"] / counts["tokens"]
    return {**found, "held-out nats per character": losses[max(losses)], "million words seen": seen / 1e6}


class ByTokens(MedicalBert):
    """Measured by the masks that it is trained with, single tokens, but all shown as [MASK]."""

    evaluate = MaskedMethod.evaluate


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """The held-out loss of general text by one mask, against that of the frequencies of what the arm has read, its repetitions counted."""
    info = read_run(model.folder)
    config = MedicalBertConfig(**info["config"]["method"])
    read = MedicalBert.rows(open_text_store(info["data"][0]["store"]), config)
    text = TextConfig(tokenizer=str(model.export / "tokenizer.json"), held_out_share=0.0, sentence_split="rules")
    store = prepare_text(data.corpora[GUARD], model.folder.parent / "stores" / f"guard-{model.folder.name}", text).as_held_out()
    method = ByTokens(MedicalBertConfig(sequence_length=config.sequence_length), store, init=model.export).to(device)
    rows = MedicalBert.rows(store, method.config, "held_out")
    numbers = np.array_split(np.arange(len(rows)), max(1, len(rows) // EVALUATED_ROWS))
    batches = [{name: torch.as_tensor(value) for name, value in rows.batch(part).items()} for part in numbers]
    loss = evaluate(method, batches, "masked", "fp32", torch.device(device), seed=0, total_steps=1)["held_out/mlm_loss"]
    limit = loss_of_frequencies(read, store) - BELOW_FREQUENCIES
    return [Guard("held-out loss of general text (nats)", loss, limit, loss <= limit)]


def loss_of_frequencies(read: Rows, held_out: TextStore) -> float:
    """Mean -log p of the tokens of a store, in nats, of what knows how often each token comes in the rows and nothing else (one more for each)."""
    counts = np.bincount(np.asarray(read.ids).ravel(), minlength=held_out.vocab_size).astype(np.float64)
    counts[list(held_out.special_ids.values())] = 0
    counts += 1
    return float(-np.log(counts / counts.sum())[np.asarray(held_out.tokens)].mean())


@dataclass(frozen=True)
class Size:
    """A network of the claim, and how long it is trained."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    length: int
    batch: int
    steps: int
    causal_start: int
    files: Mapping[str, int] = field(default_factory=dict)
    """Training files of each composition: as many as the steps read."""
    precision: str = "fp32"

    def settings(self) -> dict[str, Any]:
        """Of every pre-training."""
        return {
            "preset": "tiny",
            "batch": self.batch,
            "precision": self.precision,
            "budget.steps": self.steps,
            "method.num_layers": self.layers,
            "method.hidden_size": self.width,
            "method.num_heads": self.heads,
            "method.intermediate_size": self.inner,
            "method.sequence_length": self.length,
            "method.causal_start": self.causal_start,
            "method.small_shards": 1,
            "method.large_shards": 1,
            "text.vocab_size": self.vocabulary,
            "text.vocabulary": "plain",
            "text.held_out_share": 0.0,
            "trainer.part_rows": 4096,
        }


SMOKE = Size(2, 64, 2, 256, 1000, 32, 8, 20, 0, {"balanced": 2, "union": 1, "large": 1, "small": 1})
CPU = Size(2, 128, 2, 512, 4000, 64, 32, 1500, 500, {"balanced": 54, "union": 3, "large": 4}, "bf16")
GPU = Size(6, 384, 6, 1536, 8000, 128, 128, 1200, 200, {"balanced": 360, "union": 20, "large": 22, "small": 200}, "bf16")
AMPLIFIED = {"text.vocabulary": "amplified"}


def arms_of(size: Size) -> dict[str, Arm]:
    """Name -> arm."""

    def arm(name: str, composition: str, **more: Any) -> Arm:
        settings = {"method.composition": composition, "method.training_files": size.files.get(composition, 1), **more.pop("settings", {})}
        return Arm(name, "medical_bert", settings, **more)

    half = {"budget.steps": size.steps // 2}
    first = arm("first_half", "large", corpus="large", settings=half)
    found = (
        Arm("none", "medical_bert", AMPLIFIED, trained=False),
        arm("general", "large", corpus="large"),
        arm("union", "union"),
        arm("spt", "balanced"),
        arm("spt_ampv", "balanced", settings=AMPLIFIED),
        arm("sequential", "small", corpus="small", settings=half, start=first),
    )
    return {one.name: one for one in found}


def scale_of(size: Size, names: Sequence[str], seeds: int, learning_rate: float, **options: Any) -> Scale:
    shown = {"labels": 400, "finetune_batch": 16, "length": size.length, **options}
    return Scale(tuple(arms_of(size)[name] for name in names), seeds, (learning_rate,), size.settings(), options=shown)


CLAIM = Claim(
    slug="medical_bert",
    statement="At equal training FLOPs, a BERT trained from scratch on a balanced mixture (small domain corpus repeated, vocabulary amplified) finds"
    " the domain's entities better than one trained on the plain union of both corpora.",
    paper=Paper(
        statement="Simultaneous pre-training after up-sampling, with an amplified vocabulary, beats training on the corpora as they are.",
        value="+0.3 points on the clinical and on the biomedical part of BLUE; ouBioBERT 83.8 in all, BlueBERT 82.9",
        where="abstract; official repository, README",
    ),
    metric="mean entity F1 of NCBI-disease and BC5CDR after fine-tuning on 400 sentences each",
    comparisons=(
        Comparison("spt_ampv", "union", margin=0.005),
        Comparison("spt", "union", decides=False, margin=0.005),
        Comparison("spt_ampv", "spt", decides=False),
        Comparison("spt_ampv", "general", decides=False),
        Comparison("spt_ampv", "sequential", decides=False),
        Comparison("union", "none", decides=False),
    ),
    presets={
        "smoke": scale_of(SMOKE, ("none", "union", "spt_ampv"), 1, 1e-3, fixture=True, documents=80, labels=40, epochs=1, rate=5e-4),
        "cpu": scale_of(CPU, ("none", "general", "union", "spt_ampv"), 3, 2e-3, epochs=15, rate=5e-4),
        "gpu": scale_of(
            GPU, ("none", "general", "union", "sequential", "spt", "spt_ampv"), 3, 5e-4, epochs=20, rate=1e-4, finetune_batch=32
        ),
    },
    open_data=open_data,
    guards=guards,
)
