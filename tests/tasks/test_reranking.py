"""Re-ranking: the order that is measured, what is drawn, what is learned, files of TREC, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.data.retrieval.bm25 import BM25
from headstart.data.retrieval.collection import Named, read_documents, read_queries
from headstart.data.retrieval.trec import read_qrels, read_run, write_run
from headstart.interop.cross_encoder import load_cross_encoder
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks.reranking import Groups, PairRows, finetune_reranking, group_loss, rows_of, score_pairs, template
from headstart.tasks.reranking_config import RerankingConfig
from headstart.tasks.reranking_data import METRIC, RankingData, first_stage, random_order, ranking_scores, ranking_values, read_ranking
from tests.tasks.conftest import PIECES, WORDS, word_piece

CPU = torch.device("cpu")


def reranker(folder: Path, head: bool = True, kind: str = "bert") -> Path:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    config: Any = {"bert": transformers.BertConfig, "electra": transformers.ElectraConfig}[kind](vocab_size=len(PIECES), num_labels=1, **sizes)
    kinds = {"bert": (transformers.BertForSequenceClassification, transformers.BertForMaskedLM)}
    kinds["electra"] = (transformers.ElectraForSequenceClassification, transformers.ElectraForPreTraining)
    save_model_folder(kinds[kind][0 if head else 1](config), word_piece(), folder)
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reranker(tmp_path_factory.mktemp("reranker") / "scored")


def data(candidates: list[list[int]], relevant: list[dict[int, int]], documents: int = 6) -> RankingData:
    wide = max(map(len, candidates))
    filled = np.array([row + [-1] * (wide - len(row)) for row in candidates])
    relevance = np.array([[judged.get(i, 0) for i in row] for row, judged in zip(filled.tolist(), relevant, strict=True)])
    names = [f"q{i}" for i in range(len(candidates))]
    collection = Named([f"d{i}" for i in range(documents)], [f"the {WORDS[i + 3]} film {WORDS[i]}" for i in range(documents)])
    return RankingData([f"who {WORDS[i + 3]}" for i in range(len(names))], names, collection, filled, relevance, relevant)


# --- metrics ---------------------------------------------------------------------------------------------------------------------------


def test_metrics_of_an_order() -> None:
    given = data([[0, 1, 2], [3, 4], [5]], [{1: 1}, {3: 2, 4: 1}, {0: 1}])
    scores = np.array([[1.0, 3, 2], [1, 2, -np.inf], [1, -np.inf, -np.inf]])
    found = ranking_values(scores, given)
    assert found[METRIC].tolist() == [1, 1, 0], "a relevant document that is no candidate cannot be found"
    reversed_gain = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    assert found["ndcg@10"] == pytest.approx([1, reversed_gain, 0])
    assert first_stage(given)[METRIC] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert ranking_scores(np.zeros((3, 3)), given) == first_stage(given), "equal scores leave the order of the candidates"


def test_ranks_beyond_ten_count_nothing_and_chance_is_known() -> None:
    given = data([list(range(20))] * 20, [{i: 1} for i in range(20)], 20)
    assert first_stage(given)[METRIC] == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 20)
    assert random_order(given) == pytest.approx(0.14645, abs=5e-6)
    random = np.random.default_rng(0)
    drawn = [ranking_scores(random.random((20, 20)), given)[METRIC] for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(random_order(given), abs=0.01)
    several = data([[0, 1, 2, 3]], [{0: 1, 2: 1}])
    assert random_order(several) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 / 2 + 1 / 2 / 3 * 1 / 3)


# --- rows and groups ---------------------------------------------------------------------------------------------------------------------------


def test_rows_are_those_of_the_tokenizer_with_the_document_cut(scored: Path) -> None:
    encoder = load_cross_encoder(scored)
    queries, documents = ["who built it", "when"], ["the old mill burnt down twice in 1843", "a film", "the " * 30]
    rows = PairRows(encoder, queries, documents, np.arange(3), 20, 8, CPU)
    query, document = np.array([0, 1, 0]), np.array([1, 0, 2])
    batch = rows.batch(query, document)
    for row, (q, d) in enumerate(zip(query, document, strict=True)):
        wanted = encoder.tokenizer(queries[q], documents[d], truncation="only_second", max_length=20)
        size = len(wanted["input_ids"])
        assert batch["input_ids"][row, :size].tolist() == wanted["input_ids"]
        assert batch["token_type_ids"][row, :size].tolist() == wanted["token_type_ids"]
        assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (batch["input_ids"].shape[1] - size)
    assert rows.lengths(query, document).tolist() == batch["attention_mask"].sum(1).tolist()
    assert template(encoder) == ([2], [3], [3])


def test_scores_do_not_depend_on_what_is_scored_together(scored: Path) -> None:
    encoder, given = load_cross_encoder(scored), data([[0, 1, 2], [3, 4]], [{1: 1}, {3: 1}])
    config = RerankingConfig()
    together = score_pairs(encoder.module, rows_of(encoder, given, config, CPU), given, config)
    assert together.shape == (2, 3)
    assert together[1, 2] == -np.inf
    for query, document in zip(*given.pairs(), strict=True):
        encoded = encoder.tokenizer(given.queries[query], given.documents.texts[document], return_tensors="pt")
        with torch.no_grad():
            alone = float(encoder.module(**encoded).logits[0, 0])
        assert together[query, given.candidates[query].tolist().index(document)] == pytest.approx(alone, abs=1e-5)


def test_scores_in_bf16_are_as_fine_as_in_fp32(scored: Path) -> None:
    encoder, given = load_cross_encoder(scored), data([list(range(20))] * 4, [{1: 1}] * 4, 20)
    with torch.no_grad():
        encoder.module.classifier.bias.fill_(50.0)  # where bf16 knows multiples of 0.25
    config = RerankingConfig(precision="bf16")
    scores = score_pairs(encoder.module, rows_of(encoder, given, config, CPU), given, config)
    for of_query in torch.from_numpy(scores):
        assert len(of_query.unique()) > 10 * len(of_query.bfloat16().unique()), "of a bf16 head all scores would be one"


def test_groups_are_drawn_anew_each_epoch_the_relevant_document_first() -> None:
    given = data([list(range(20)), [0, 1], [2]], [{3: 1, 7: 1}, {0: 1}, {2: 1}], 20)
    groups = Groups.of(given)
    assert groups.queries.tolist() == [0, 1], "the last has no candidate that is not relevant"
    draws = [groups.draw(11, 0, epoch) for epoch in range(30)]
    firsts, others = set(), set()
    for queries, documents in draws:
        mine = documents[queries.tolist().index(0)]
        firsts.add(int(mine[0]))
        others.add(tuple(sorted(mine[1:].tolist())))
        assert len(set(mine[1:].tolist())) == 11
        assert not {3, 7} & set(mine[1:].tolist())
        assert documents[queries.tolist().index(1)].tolist() == [0, 1, *[-1] * 10]
    assert firsts == {3, 7}
    assert len(others) > 25
    again = groups.draw(11, 0, 4)
    assert all(np.array_equal(a, b) for a, b in zip(again, draws[4], strict=True))
    assert len({tuple(queries.tolist()) for queries, _ in draws}) == 2


def test_the_loss_of_a_group_is_cross_entropy_over_what_is_there() -> None:
    scores = torch.tensor([[1.0, 2.0, 9.0], [0.0, 0.0, 0.0]])
    there = torch.tensor([[True, True, False], [True, True, True]])
    wanted = -torch.tensor([1.0, 2.0]).log_softmax(0)[0] + torch.tensor(3.0).log()
    torch.testing.assert_close(group_loss(scores, there), wanted)


# --- training ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A collection in which the relevant document begins with the word of the query."""
    words = WORDS[3:23]
    documents = [{"id": f"d{i}", "text": f"{word} the good film"} for i, word in enumerate(words)]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(record) + "\n" for record in documents))
    for name, some in (("train", range(14)), ("dev", range(14, 17)), ("test", range(17, 20))):
        (tmp_path / f"{name}.tsv").write_text("".join(f"q{i}\t{words[i]} {words[i]}\n" for i in some))
    (tmp_path / "qrels").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(20)))
    lines = [f"q{i} Q0 d{(i + k) % 20} {k + 1} {10 - k} bm25\n" for i in range(20) for k in (3, 1, 0, 2)]
    (tmp_path / "first.run").write_text("".join(lines))
    return {name: tmp_path / name for name in ("documents.jsonl", "train.tsv", "dev.tsv", "test.tsv", "qrels", "first.run")}


def test_a_re_ranker_is_trained_kept_and_loaded(files: dict[str, Path], scored: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "out"
    settings: dict[str, Any] = {
        "documents": files["documents.jsonl"], "qrels": files["qrels"], "run": files["first.run"], "epochs": 2, "seeds": 2, "dev": files["dev.tsv"],
        "learning_rates": (1e-3, 3e-3), "out": out, "device": "cpu",
    }  # fmt: skip
    result = headstart.finetune("reranking", scored, files["train.tsv"], files["test.tsv"], say=said.append, **settings)
    assert [arm.arm for arm in result.arms] == ["pretrained", "random"]
    assert set(result.arms[0].tried) == {"0.001", "0.003"}
    assert result.data["head"] == "kept"
    beside = result.data[METRIC]
    assert beside["candidates as they came"] == pytest.approx(1.0)
    assert beside["random order"] == pytest.approx(sum(1 / rank for rank in range(1, 5)) / 4)
    assert any("random order" in line for line in said)
    found = read_run(out / "test.run")
    assert sorted(found) == ["q17", "q18", "q19"]
    assert sorted(name for name, _ in found["q19"]) == sorted(f"d{(19 + k) % 20}" for k in range(4))
    saved = load_cross_encoder(out / "model")
    assert saved.kept
    assert saved.module.config.sentence_transformers["activation_fn"].endswith("Identity")
    again = headstart.rerank(out / "model", queries=files["test.tsv"], documents=files["documents.jsonl"], run=files["first.run"],
                             qrels=files["qrels"], out=tmp_path / "again.run", device="cpu", say=said.append)  # fmt: skip
    assert again.scores[METRIC] == pytest.approx(result.arms[0].runs[0].metrics[METRIC])
    assert {query: [name for name, _ in lines] for query, lines in read_run(tmp_path / "again.run").items()} == {
        query: [name for name, _ in lines] for query, lines in found.items()
    }
    known = headstart.finetune("reranking", scored, files["train.tsv"], files["test.tsv"], say=said.append, **settings)
    assert known.arms == result.arms
    assert sum("from an earlier call" in line for line in said) == 6


def test_training_lowers_the_loss_and_the_best_epoch_is_kept(files: dict[str, Path], scored: Path) -> None:
    from headstart.tasks.reranking import train

    documents, qrels, run = read_documents(files["documents.jsonl"]), read_qrels(files["qrels"]), read_run(files["first.run"])
    given = read_ranking(files["train.tsv"], documents, run, qrels, 100)
    config = RerankingConfig(negatives=3)
    losses, kept = [], []
    for epochs in (1.0, 16.0):
        encoder = load_cross_encoder(scored)
        rows = rows_of(encoder, given, config, CPU)
        loss, steps, _ = train(encoder, rows, Groups.of(given), RerankingConfig(negatives=3, epochs=epochs), 1e-2, 0)
        losses.append(loss)
        assert steps == 4 * epochs
    assert losses[1] < losses[0] - 0.1
    encoder = load_cross_encoder(scored)
    scores = iter([0.1, 0.5, 0.3, 0.5])

    def choose(module: Any) -> float:
        kept.append({name: value.clone() for name, value in module.state_dict().items()})
        return next(scores)

    _, _, epoch = train(encoder, rows_of(encoder, given, config, CPU), Groups.of(given), RerankingConfig(negatives=3, epochs=4.0), 3e-3, 0, choose)
    assert epoch == 2
    assert all(torch.equal(value, kept[1][name]) for name, value in encoder.module.state_dict().items())
    whole, cut = (
        train(encoder, rows_of(encoder, given, config, CPU), Groups.of(given), RerankingConfig(negatives=3, epochs=1.0, micro_batch=micro), 1e-4, 0)
        for encoder, micro in ((load_cross_encoder(scored), None), (load_cross_encoder(scored), 1))
    )
    assert whole[0] == pytest.approx(cut[0], rel=1e-3)


# --- heads ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_head_that_is_not_there_is_new_and_scores_nothing_unasked(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    bare = reranker(tmp_path / "bare", head=False, kind=kind)
    assert not load_cross_encoder(bare).kept
    assert load_cross_encoder(reranker(tmp_path / "headed", kind=kind)).kept
    assert not load_cross_encoder(tmp_path / "headed", new_head=True).kept
    settings: dict[str, Any] = {"queries": files["test.tsv"], "documents": files["documents.jsonl"], "device": "cpu", "say": lambda line: None}
    with pytest.raises(UsageError, match="has no head that scores a query"):
        headstart.rerank(bare, out=tmp_path / "x.run", **settings)
    assert not (tmp_path / "x.run").exists()
    found = headstart.rerank(bare, out=tmp_path / "x.run", new_head=True, **settings)
    assert found.queries == 3
    old = load_cross_encoder(tmp_path / "headed", new_head=True).module.state_dict()
    kept = load_cross_encoder(tmp_path / "headed").module.state_dict()
    assert {name for name, value in kept.items() if not torch.equal(value, old[name])} == {
        name for name in kept if name.startswith("classifier.") and name.endswith("weight")
    }


def test_a_classifier_of_another_task_is_no_head(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    config = transformers.BertConfig(vocab_size=len(PIECES), num_labels=3, **sizes)
    save_model_folder(transformers.BertForSequenceClassification(config), word_piece(), tmp_path / "three")
    assert not load_cross_encoder(tmp_path / "three").kept


# --- files ---------------------------------------------------------------------------------------------------------------------------


def test_bm25_finds_by_rare_words() -> None:
    texts = ["the mill burnt down", "the mill the mill", "a film", "the old film was dull"]
    index = BM25(texts)
    found, scores = index.top(["burnt mill", "film film", "nothing here"], 2)
    assert found.tolist()[:2] == [[0, 1], [2, 3]]
    assert scores[2].tolist() == [0, 0]
    df, n, mean = 2, 4, 15 / 4
    one = np.log1p((n - df + 0.5) / (df + 0.5)) * 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 2 / mean))
    assert scores[1, 0] == pytest.approx(2 * one)
    assert BM25(["a"]).top([], 5)[0].shape == (0, 1)


def test_collections_in_all_their_forms(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "d1", "title": "Pump", "text": "Switch it off."}\n{"id": 2, "title": null, "text": "Open."}\n')
    (tmp_path / "b.tsv").write_text('d1\thttp://x\tPump\tSwitch "it off.\nd2\thttp://y\t\tOpen.\n')
    (tmp_path / "c.tsv").write_text("1\tA passage.\n2\tAnother.\n")
    (tmp_path / "d.tsv").write_text("qid\tquery\n7\twho\n")
    assert read_documents(tmp_path / "a.jsonl").texts == ["Pump. Switch it off.", "Open."]
    assert read_documents(tmp_path / "a.jsonl").ids == ["d1", "2"]
    assert read_documents(tmp_path / "b.tsv").texts == ['Pump. Switch "it off.', "Open."]
    assert read_documents(tmp_path / "c.tsv").texts == ["A passage.", "Another."]
    assert read_queries(tmp_path / "d.tsv").ids == ["7"]


BAD: list[tuple[str, str, str]] = [
    ("a.jsonl", '{"id": "1", "text": "x"}\n{"id": "2", "body": "x", "no": 1}\n{"id": "1", "text": "y"}\n', "record 3: the document id '1' stands"),
    ("b.jsonl", '{"id": "1", "title": "x"}\n', r"record 1: has no field 'text' \(its fields: 'id', 'title'\)"),
    ("c.jsonl", '{"title": "x", "text": "x"}\n', "record 1: has no field 'id'"),
    ("d.tsv", "d1\tu\tt\tb\nd2\tu\tb\n", "record 2: has 3 fields between tabs, not 4 as the first"),
    ("e.tsv", "d1\tu\tt\n", "record 1: has 3 fields between tabs, not 4 "),
    ("f.jsonl", '{"id": "a b", "text": "x"}\n', "record 1: the id is 'a b': an id is one word"),
    ("g.jsonl", '{"id": "1", "text": 7}\n', "record 1: holds int where a text belongs"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD, ids=[name for name, _, _ in BAD])
def test_a_collection_that_cannot_be_read_says_where(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=says):
        read_documents(tmp_path / name)


def test_files_of_trec(tmp_path: Path) -> None:
    run = {"q1": [("d3", 2.5), ("d1", -1.0)], "q2": [("d1", 0.0)]}
    write_run(tmp_path / "a.run", run, "mine")
    assert (tmp_path / "a.run").read_text().splitlines()[0] == "q1 Q0 d3 1 2.500000 mine"
    assert read_run(tmp_path / "a.run") == run
    (tmp_path / "b.run").write_text("q Q0 a 2 1.0 x\nq Q0 b 1 1.0 x\nq Q0 c 3 9 x\n")
    assert [name for name, _ in read_run(tmp_path / "b.run")["q"]] == ["c", "b", "a"]
    (tmp_path / "qrels").write_text("q1 0 d1 2\nq1 0 d2 0\n\nq2 0 d1 -1\n")
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("q Q0 a 1 1.0\n", "record 1: has 5 fields, not 6"),
        ("q Q0 a 1 high x\n", "record 1: the score is 'high'"),
        ("q Q0 a 1 1.0 x\nq Q0 a 2 1.0 x\n", "record 2: the document 'a' comes a second time for the query 'q'"),
    ],
    ids=["fields", "score", "twice"],
)
def test_a_run_that_cannot_be_read_says_where(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text(text)
    with pytest.raises(BadInput, match=says):
        read_run(tmp_path / "x.run")


@pytest.mark.parametrize(
    ("text", "says"),
    [("q 0 a\n", "has 3 fields, not 4"), ("q 0 a 1.5\n", "the relevance is '1.5'"), ("q 0 a 1\nq 0 a 2\n", "is judged 1 and 2")],
    ids=["fields", "half", "twice"],
)
def test_qrels_that_cannot_be_read_say_where(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(BadInput, match=says):
        read_qrels(tmp_path / "qrels")


def test_what_cannot_be_scored_is_counted(files: dict[str, Path], tmp_path: Path) -> None:
    documents, run = read_documents(files["documents.jsonl"]), read_run(files["first.run"])
    run["q0"] = [("gone", 3.0), ("d1", 2.0)]
    del run["q1"]
    qrels = read_qrels(files["qrels"])
    qrels["q2"] = {"missing": 1}
    qrels["q3"] = {"d3": 0}
    found = read_ranking(files["train.tsv"], documents, run, qrels, 3)
    assert found.ids == ["q0", *(f"q{i}" for i in range(4, 14))]
    assert found.candidates.shape == (11, 3)
    assert found.notes == [
        "1 candidate of the run is not in the collection",
        "1 judged document is not in the collection, for example missing",
        "2 of 14 queries have no relevant document and are left out",
        "1 of 14 queries have no candidate and are left out",
    ]
    with pytest.raises(BadInput, match="has no query that can be used: 14 of 14 queries have no candidate"):
        read_ranking(files["train.tsv"], documents, {}, read_qrels(files["qrels"]), 3)
    with pytest.raises(BadInput, match="has no query with a relevant document and a candidate that is not relevant"):
        Groups.of(data([[1]], [{1: 1}]))
    (tmp_path / "queries.tsv").write_text("q1\t \n")
    with pytest.raises(BadInput, match="the query 'q1' is empty"):
        read_queries(tmp_path / "queries.tsv")


def test_settings_that_no_training_can_have(files: dict[str, Path], scored: Path) -> None:
    given: dict[str, Any] = {"documents": files["documents.jsonl"], "qrels": files["qrels"], "run": files["first.run"], "device": "cpu"}
    given["say"] = lambda line: None
    call = lambda **settings: headstart.finetune("reranking", scored, files["train.tsv"], files["test.tsv"], **{**given, **settings})  # noqa: E731
    with pytest.raises(UsageError, match="qrels is missing"):
        call(qrels=None)
    with pytest.raises(UsageError, match="negatives is 0"):
        call(negatives=0)
    with pytest.raises(UsageError, match="max_length is 100, but the network has 64 positions"):
        call(max_length=100)
    with pytest.raises(UsageError, match="Several learning rates need dev data"):
        finetune_reranking(scored, files["train.tsv"], files["test.tsv"], config=RerankingConfig(
            documents=files["documents.jsonl"], qrels=files["qrels"], learning_rates=(1e-3, 1e-4)))  # fmt: skip
