"""The claim of prop: its questions and folds, the lines beside the arms, and the arm of inverse cloze."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.claims import prop
from headstart.claims._claim import Data
from headstart.claims._data import data_folder
from headstart.claims._prop_ict import Ict
from headstart.core.errors import BadInput
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.engine.method import Context
from headstart.methods.prop.config import PropConfig
from headstart.tasks.reranking_data import METRIC, first_stage, random_order
from tests.corpus import write_jsonl


@pytest.fixture(scope="module")
def whole() -> prop.Collection:
    try:
        return prop.read_collection(data_folder("wiki_xquad"))
    except BadInput:
        pytest.skip("needs the passages (HEADSTART_DATA)")


def test_the_lines_without_seeds(whole: prop.Collection) -> None:
    ranking = prop.candidates_of(whole)
    assert len(whole.texts) == 3943
    assert len(ranking) == 1190
    assert first_stage(prop.bm25_order(whole))[METRIC] == pytest.approx(0.9106, abs=2e-4)
    assert random_order(ranking) == pytest.approx(0.1436, abs=1e-4)
    assert (ranking.relevance > 0).any(1).mean() == pytest.approx(0.9807, abs=1e-4)
    assert first_stage(ranking)[METRIC] == pytest.approx(random_order(ranking), abs=0.02), "the order of the candidates says nothing"
    assert (np.sort(ranking.candidates, 1) == np.sort(prop.bm25_order(whole).candidates, 1)).all()


def test_no_question_is_learned_from_and_scored(whole: prop.Collection) -> None:
    bench = prop.Bench(whole, prop.candidates_of(whole), prop.CPU, Path("nowhere"))
    folds = np.array(whole.folds)
    titles = np.array(whole.titles)[whole.gold]
    for fold in range(prop.FOLDS):
        few, others = bench.drawn(fold, 0)
        assert len(few) == len(others) == 40
        assert not set(few) & set(others)
        assert (folds[[*few, *others]] == (fold + 1) % prop.FOLDS).all()
        assert not set(titles[[*few, *others]]) & set(titles[folds == fold]), "no article is on both sides"
        assert (bench.ranking.relevance[[*few, *others]] > 0).any(1).all()
        assert not np.array_equal(few, bench.drawn(fold, 1000)[0])


def test_passages_are_cut_into_parts_of_like_size() -> None:
    words = [f"w{i}" for i in range(101)]
    parts = prop.parts_of("Title", " ".join(words), 40)
    assert [len(part.split()) - 1 for part in parts] == [34, 34, 33]
    assert " ".join(part.removeprefix("Title. ") for part in parts).split() == words


@pytest.mark.parametrize(
    ("ahead", "share", "says"),
    [(0.05, 0.55, None), (0.0, 0.6, "60% are in order: matching was not learnt"), (0.0, 0.68, "68% are in order, under 70%"), (0.0, 0.72, None)],
    ids=["ahead", "not learnt", "hardly", "learnt"],
)
def test_that_it_is_not_ahead_says_something_only_where_matching_was_learnt(ahead: float, share: float, says: str | None, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "prop-rate-0.001-seed-0"
    run.mkdir(parents=True)
    (run / prop.PAIRS_FILE).write_text(json.dumps({"in order": share, "exchanged": 0.5}))
    data = Data({}, {"train": [f"docs={tmp_path}/data/trained.jsonl"]}, ())
    found = prop.validity({"prop": {prop.TASK: 0.4 + ahead}, "mlm": {prop.TASK: 0.4}}, data)
    assert found == [] if says is None else says in found[0]
    assert prop.validity({"prop": {prop.TASK: 0.4}}, data) == [], "one arm alone compares nothing"


def test_inverse_cloze_shows_a_sentence_with_its_own_document_and_with_another(tmp_path: Path) -> None:
    texts = [" ".join(f"{word}{k} {word}{k} tide." for k in range(3)) for word in ("mill", "harbour", "rigger", "lamp")]
    docs = write_jsonl(tmp_path / "docs.jsonl", [{"text": text} for text in texts])
    store = prepare_text([docs], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.0))
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48, "sequence_length": 64}
    method = Ict(PropConfig(least_count=1, short_doc_tokens=0, min_doc_words=1, **sizes), store)
    batch = {name: torch.as_tensor(value) for name, value in Ict.rows(store, method.config).batch(np.arange(4)).items()}
    pairs = method.pairs(batch, Context(0, 1, "train", Rng.at(0, 0, torch.arange(4)), torch.device("cpu")))
    assert pairs.counts.tolist() == [1, 1, 1, 1]
    words = ("mill", "harbour", "rigger", "lamp")
    for row in range(8):
        sentence, rest = method._parts(pairs.rows, row)
        own, shown = words[row // 2], words[(row // 2 + row % 2) % 4]
        assert sentence.replace(" ", "").startswith(own)
        assert sentence.count("tide") == 1
        assert rest.count("tide") == 2
        assert shown in rest.replace(" ", "")
        if row % 2 == 0:
            number = sentence.replace(" ", "")[len(own)]
            assert f"{own}{number}" not in rest.replace(" ", "")
    loss = method.loss(batch, Context(0, 1, "train", Rng.at(0, 0, torch.arange(4)), torch.device("cpu")))
    assert torch.isfinite(loss["loss"])
