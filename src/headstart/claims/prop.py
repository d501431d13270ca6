"""PROP (WSDM 2021, arXiv 2010.10137): does predicting representative words beside masked words make a better re-ranker?

Cross-encoders pre-trained on Wikipedia's passages at equal FLOPs are fine-tuned on few questions, and re-rank the passages that BM25 finds for
people's questions of other articles (`wiki_xquad`).

- Documents are parts of passages that a row shows whole: of a cut document most words that stand for it could not be seen, and matching not be learnt
  (docs/methods/prop.md has the figures).
- Candidates come in a shuffled order, so that equal scores cannot copy BM25. Of a question whose passage is not among them every arm has 0.
- Fine-tuning: for each fold of articles, on 40 questions of the next one, the epoch that is best on 40 others of it; scored on the fold. prop begins
  with its own head, the others with a new one.
- Beside: the re-ranking before any fine-tuning, and how many held-out pairs of sets are ordered rightly, also with documents exchanged (a leak would
  show).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._prop_ict import Ict
from headstart.claims._text import write_documents
from headstart.core.config import replace_nested
from headstart.core.files import read_json, write_json
from headstart.core.rng import Rng
from headstart.core.run import read_run
from headstart.data.retrieval.bm25 import BM25
from headstart.data.retrieval.collection import Named
from headstart.data.text.store import open_text_store
from headstart.engine.method import Context
from headstart.interop.cross_encoder import load_cross_encoder
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Prop
from headstart.tasks.reranking import Groups, rows_of, score_pairs, train
from headstart.tasks.reranking_config import RerankingConfig
from headstart.tasks.reranking_data import METRIC, RankingData, first_stage, random_order, ranking_scores, ranking_values
from headstart.verbs._parts import path_of

TASK = "few questions"
CANDIDATES = 20
HELD_OUT = (10, 7)
"""Of so many passages the one of this number is kept out of pre-training."""
FOLDS = 5
PAIRS_EACH = 5
"""Pairs of each held-out document."""
LEARNT, NOT_LEARNT = 0.70, 0.65
"""Held-out pairs in the right order: from the first share on "not reproduced" means something; below the second matching was not learnt."""
MARGIN = 0.01
LINES = "docs"
PAIRS_FILE = "pairs.json"


@dataclass(frozen=True)
class Collection:
    """Passages and the questions that people asked of some.

    Attributes:
        texts: "title. text" of each passage, what models read; plain: its text.
        questions: of people; gold: of each the number of its passage; folds: of each its fold, by article.
    """

    texts: list[str]
    plain: list[str]
    titles: list[str]
    questions: list[str]
    gold: list[int]
    folds: list[int]


def read_collection(folder: Path, passages: int | None = None, questions: int | None = None) -> Collection:
    """The last so many passages of `wiki_xquad`, where those with questions stand, and the first questions of each fold."""
    chosen, pages = lines_of(folder / "passages.jsonl.zst"), lines_of(folder / "pages.jsonl.zst")
    chosen = chosen if passages is None else sorted(chosen, key=lambda line: line["src"] != "xquad")[:passages]
    titles = {page["page"]: page["title"] for page in pages}
    number = {passage["pid"]: i for i, passage in enumerate(chosen)}
    asked = [line for line in lines_of(folder / "questions.jsonl.zst") if line["pid"] in number]
    if questions is not None:
        of_fold = [[line for line in asked if line["fold"] == fold][: questions // FOLDS] for fold in range(FOLDS)]
        asked = [line for lines in of_fold for line in lines]
    return Collection(
        [f"{titles[passage['page']]}. {passage['text']}" for passage in chosen],
        [passage["text"] for passage in chosen],
        [titles[passage["page"]] for passage in chosen],
        [line["question"] for line in asked],
        [number[line["pid"]] for line in asked],
        [int(line["fold"]) for line in asked],
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    with pa.input_stream(str(path)) as file:  # .zst by its name
        return [json.loads(line) for line in file.read().decode().splitlines()]


def parts_of(title: str, text: str, words: int) -> list[str]:
    """The passage in parts of about equally many words, at most `words`, each with the title."""
    split = text.split()
    size = -(-len(split) // max(1, -(-len(split) // words)))
    return [f"{title}. {' '.join(split[start : start + size])}" for start in range(0, len(split), size)]


def open_data(scale: Scale, folder: Path) -> Data:
    """Parts of the passages to pre-train on and, of passages kept out, to measure on; the questions with BM25's candidates."""
    options = scale.options
    source = data_folder("wiki_xquad", options.get("fixture", False))
    found = read_collection(source, options.get("passages"), options.get("questions"))
    every, kept = HELD_OUT
    parts = [parts_of(title, text, options["part_words"]) for title, text in zip(found.titles, found.plain, strict=True)]
    trained = write_documents(folder / "trained.jsonl", (part for i, of_one in enumerate(parts) if i % every != kept for part in of_one))
    apart = write_documents(folder / "held-out.jsonl", (part for i, of_one in enumerate(parts) if i % every == kept for part in of_one))
    ranking = candidates_of(found)
    bench = Bench(found, ranking, scale, folder)
    documents = sum(len(of_one) for i, of_one in enumerate(parts) if i % every != kept)
    return Data(
        facts={
            "name": "wiki_xquad",
            "source": "Wikipedia paragraphs of XQuAD (English) with people's questions, and Wikipedia pages",
            "train": {"documents": documents, "passages": sum(i % every != kept for i in range(len(parts)))},
            "test": len(found.questions),
            "split": f"questions in {FOLDS} folds by article, fine-tuned on the fold after the one that is scored; of {every} passages one kept out"
            " of pre-training",
        },
        corpora={"train": [f"{LINES}={trained}", f"{LINES}:held-out={apart}"]},
        tasks=(Task(TASK, bench.measure, tuple(options["rates"])),),
        files=tuple(source / f"{name}.jsonl.zst" for name in ("passages", "pages", "questions")),
        anchors={
            "BM25's order": first_stage(bm25_order(found))[METRIC],
            "random order": random_order(ranking),
            "gold among the candidates": float((ranking.relevance > 0).any(1).mean()),
        },
    )


def bm25_order(found: Collection) -> RankingData:
    """The questions with BM25's first passages, best first; it reads passages without title."""
    order, _ = BM25(found.plain).top(found.questions, CANDIDATES)
    judged = [{gold: 1} for gold in found.gold]
    relevance = (order == np.array(found.gold)[:, None]).astype(np.int64)
    passages = Named([f"p{i}" for i in range(len(found.texts))], found.texts)
    return RankingData(found.questions, [f"q{i}" for i in range(len(found.questions))], passages, order, relevance, judged)


def candidates_of(found: Collection) -> RankingData:
    """The same in an order that says nothing: of equal scores the earlier one counts as the better."""
    ranking = bm25_order(found)
    shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(ranking.candidates.shape[1]), (len(ranking), 1)), axis=1)
    order, relevance = (np.take_along_axis(values, shuffled, 1) for values in (ranking.candidates, ranking.relevance))
    return dataclasses.replace(ranking, candidates=order, relevance=relevance)


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    found: Collection
    ranking: RankingData
    scale: Scale
    folder: Path

    def config(self, use: Use) -> RerankingConfig:
        """Constant rate after a tenth of the steps; groups of the gold passage and 11 others."""
        options = self.scale.options
        longer = use.model.arm.name == "none"
        return RerankingConfig(
            epochs=options["epochs"] * (4 if longer else 1),
            patience=max(1, options["epochs"] // 2) if longer else None,
            negatives=11,
            batch=4,
            max_length=options["length"],
            device=use.device,
            precision=self.scale.settings["precision"],
        )

    def measure(self, use: Use) -> Score:
        """MRR@10 over the folds after fine-tuning on the questions of the next one; on dev the best of the validating questions."""
        config, device = self.config(use), torch.device(use.device)
        ranking, folds = self.ranking, np.array(self.found.folds)
        test = use.split == "test"
        values, weights = np.zeros(len(ranking)), np.zeros(len(ranking))
        dev, scored = [], self.scale.options.get("folds", FOLDS)
        for fold in range(scored if test else self.scale.options["dev_folds"]):
            few, others = self.drawn(fold, use.seed)
            encoder = load_cross_encoder(use.model.export, new_head=use.model.arm.name in ("mlm", "none"), seed=use.seed, dropout=0.0)
            labelled, validating = ranking.some(few), ranking.some(others)
            rows = rows_of(encoder, validating, config, device)

            def choose(module: torch.nn.Module, rows: Any = rows, validating: RankingData = validating) -> float:
                return ranking_scores(score_pairs(module, rows, validating, config), validating)[METRIC]

            train(encoder, rows_of(encoder, labelled, config, device), Groups.of(labelled), config, use.setting, use.seed, choose)
            dev.append(choose(encoder.module))
            if test:
                mine = np.flatnonzero(folds == fold)
                of_fold = ranking.some(mine)
                scores = score_pairs(encoder.module, rows_of(encoder, of_fold, config, device), of_fold, config)
                values[mine] = ranking_values(scores, of_fold)[METRIC]
                weights[mine] = 1 / (scored * len(mine))
        if not test:
            return Score(float(np.mean(dev)))
        items = np.stack([values * weights, weights], 1)
        return Score(float(items[:, 0].sum()), items, beside=self.beside(use, config))

    def drawn(self, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(questions to learn from, questions to choose the epoch on) of the fold after this one, whose passage is among the candidates."""
        usable = np.flatnonzero((np.array(self.found.folds) == (fold + 1) % FOLDS) & (self.ranking.relevance > 0).any(1))
        order = np.random.default_rng([seed, fold]).permutation(usable)
        few = min(self.scale.options["labelled"], len(order) // 2)
        return order[:few], order[few : 2 * few]

    def beside(self, use: Use, config: RerankingConfig) -> dict[str, float]:
        """Before any fine-tuning: MRR@10, and of the held-out pairs those in the right order."""
        device, arm = torch.device(use.device), use.model.arm
        encoder = load_cross_encoder(use.model.export, new_head=arm.name in ("mlm", "none"), seed=use.seed)
        encoder.module.to(device)  # type: ignore[arg-type]
        scores = score_pairs(encoder.module, rows_of(encoder, self.ranking, config, device), self.ranking, config)
        values, folds = ranking_values(scores, self.ranking)[METRIC], np.array(self.found.folds)
        found = {"MRR@10 without training": float(np.mean([values[folds == fold].mean() for fold in range(FOLDS)]))}
        if arm.name == "prop":
            pairs = pairs_in_order(use.model.folder, device)
            write_json(use.model.folder / PAIRS_FILE, pairs)
            found |= {"held-out pairs in order": pairs["in order"], "with documents exchanged": pairs["exchanged"]}
        return found


@torch.no_grad()
def pairs_in_order(run: Path, device: torch.device) -> dict[str, float]:
    """The share of held-out pairs that a run of prop orders rightly, five of each document, drawn with seed 0; and with each document's sets shown
    with another document."""
    info = read_run(run)
    config = replace_nested(PropConfig(), info["config"]["method"])
    store = open_text_store(info["data"][0]["store"])
    method = Prop(config, store, init=run / "export").to(device).eval()
    rows = Prop.rows(open_text_store(info["measured"][0]["store"]).as_held_out(), config, "held_out")
    numbers = np.tile(np.arange(len(rows)), PAIRS_EACH)
    right: dict[str, list[float]] = {"in order": [], "exchanged": []}
    counts: list[float] = []
    for start in range(0, len(numbers), 64):
        some = np.arange(start, min(start + 64, len(numbers)))
        batch = {name: torch.as_tensor(value).to(device) for name, value in rows.batch(numbers[some]).items()}
        context = Context(0, 1, "train", Rng.at(0, 0, torch.arange(len(some), device=device) + start), device)
        other = torch.arange(len(some), device=device).roll(1)
        mixed = {name: value[other] if name in ("input_ids", "attention_mask") else value for name, value in batch.items()}
        for name, shown in (("in order", batch), ("exchanged", mixed)):
            found = method.evaluate(shown, context)
            right[name].append(float(found["rop_accuracy"] * found["weight/rop_accuracy"]))
        counts.append(float(found["weight/rop_accuracy"]))
    return {name: sum(values) / sum(counts) for name, values in right.items()}


def validity(scores: Mapping[str, Mapping[str, float]], data: Data) -> list[str]:
    """Where prop is not ahead and its pairs are not in order, the comparison says nothing: matching was not learnt, or hardly."""
    if not {"prop", "mlm"} <= scores.keys() or scores["prop"][TASK] - scores["mlm"][TASK] > MARGIN:
        return []
    runs = Path(path_of(str(data.corpora["train"][0]))).parent.parent / "runs"
    shares = [float(read_json(path)["in order"]) for path in sorted(runs.glob(f"prop-*/{PAIRS_FILE}"))]
    share = float(np.mean(shares)) if shares else 0.0
    if share < NOT_LEARNT:
        return [f"of the held-out pairs {share:.0%} are in order: matching was not learnt, raise the steps"]
    return [f"of the held-out pairs {share:.0%} are in order, under {LEARNT:.0%}"] if share < LEARNT else []


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What was there before any fine-tuning."""
    found = []
    for name, of_arm in figures.items():
        beside = {key.removeprefix(f"{TASK}: "): value for key, value in of_arm.items()}
        line = f"{name}: MRR@10 {beside['MRR@10 without training']:.3f} before fine-tuning"
        line += " with its own head" if name in ("prop", "ict") else " with a new head"
        if "held-out pairs in order" in beside:
            line += f"; of held-out pairs {beside['held-out pairs in order']:.1%} in order, {beside['with documents exchanged']:.1%} with documents"
            line += " exchanged"
        found.append(line + ".")
    return found


def arms_of(names: Sequence[str]) -> tuple[Arm, ...]:
    known = {
        "mlm": Arm("mlm", "prop", {"method.rop_weight": 0.0}),
        "prop": Arm("prop", "prop"),
        "ict": Arm("ict", "ict"),
        "none": Arm("none", "prop", trained=False),
    }
    return tuple(known[name] for name in names)


def scale_of(
    names: Sequence[str], seeds: int, rate: float, network: tuple[int, int, int, int], length: int, vocabulary: int, batch: int, flops: float,
    precision: str = "fp32", words: tuple[int, int] = (10, 5000), **options: Any,
) -> Scale:  # fmt: skip
    layers, width, heads, inner = network
    return Scale(
        arms=arms_of(names),
        seeds=seeds,
        learning_rates=(rate,),
        settings={
            "preset": "tiny",
            "batch": batch,
            "precision": precision,
            "method.num_layers": layers,
            "method.hidden_size": width,
            "method.num_heads": heads,
            "method.intermediate_size": inner,
            "method.sequence_length": length,
            "method.least_count": words[0],
            "method.set_vocabulary": words[1],
            "method.short_doc_tokens": 16,
            "text.vocab_size": vocabulary,
            "budget.flops": flops,
        },
        options={"length": length, **options},
    )


SMOKE = scale_of(
    ("prop", "mlm", "none"), 1, 1e-3, (2, 32, 2, 64), 48, 1000, 4, 2e9, words=(2, 500),
    fixture=True, passages=120, questions=30, part_words=24, labelled=2, epochs=1, dev_folds=1, folds=1, rates=(1e-3,),
)  # fmt: skip
SMOKE = dataclasses.replace(  # it need not be looked at while it trains
    SMOKE, settings={**SMOKE.settings, "batch": 16, "trainer.evaluate_every": 1000, "trainer.evaluate_rows": 16, "trainer.part_rows": 16}
)
CPU = scale_of(
    ("prop", "mlm", "none"), 3, 1e-3, (2, 64, 2, 256), 80, 4000, 32, 5.6e12,
    part_words=40, labelled=40, epochs=10, dev_folds=2, rates=(1e-4, 3e-4, 1e-3),
)  # fmt: skip
GPU = scale_of(
    ("prop", "mlm", "none", "ict"), 3, 3e-4, (4, 256, 4, 1024), 192, 8000, 64, 1.5e15, "bf16",
    part_words=100, labelled=40, epochs=10, dev_folds=5, rates=(1e-4, 3e-4, 1e-3),
)  # fmt: skip

CLAIM = Claim(
    slug="prop",
    statement="At equal training FLOPs, masked language modelling with representative words prediction gives a cross-encoder that re-ranks better"
    " than masked language modelling alone after fine-tuning on 40 questions.",
    paper=Paper(
        statement="PROP, from Wikipedia or MS MARCO, is significantly above BERT and a Transformer with ICT on five ad-hoc collections; with no or"
        " few labelled queries most of all.",
        value="its tables could not be checked; by its abstract some hundred queries reach what BERT needs all for",
        where="abstract",
    ),
    metric="MRR@10 over BM25's 20 passages after fine-tuning on 40 questions of other articles, mean of 5 folds",
    comparisons=(
        Comparison("prop", "mlm", margin=MARGIN),
        Comparison("prop", "none", margin=MARGIN, decides=False),
        Comparison("prop", "ict", margin=MARGIN, decides=False),
        Comparison("mlm", "none", margin=MARGIN, decides=False),
    ),
    presets={"smoke": SMOKE, "cpu": CPU, "gpu": GPU},
    open_data=open_data,
    validity=validity,
    remarks=remarks,
    methods={"ict": Ict},
)
