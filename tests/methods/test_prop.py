"""prop as a run: resumed, cut into micro-batches, continued from other models; what is kept of a text, and what is refused."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import Rng
from headstart.data.retrieval.words import read_stopwords, words_of
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.engine.method import Context
from headstart.methods.prop.background import background_of
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Prop
from headstart.methods.prop.network import random_network, save_masked_lm
from headstart.methods.prop.rows import prop_rows
from headstart.methods.prop.statistics import count_words, statistics_of
from headstart.verbs.pretrain import pretrain
from tests.corpus import write_jsonl
from tests.running import TINY, quiet, records, untimed

PLACES = ("harbour", "lighthouse", "shipyard", "breakwater", "quayside", "boathouse", "drydock", "fishery")
TRADES = ("rigger", "caulker", "stevedore", "chandler", "lamplighter", "netmaker", "ropemaker", "cooper")
SETTINGS: dict[str, Any] = {**TINY, "method.least_count": 2, "method.short_doc_tokens": 0, "method.min_doc_words": 3, "text.held_out_share": 0.1}
CONFIG = PropConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=48, sequence_length=32, least_count=2)
CONFIG = replace(CONFIG, short_doc_tokens=0, min_doc_words=3)


def texts() -> list[str]:
    return [
        f"The {trade} of the {place}. He knows the {other} at the {PLACES[(i + j) % 8]} and the tides of May.{' A gale came up.' * (j % 2)}"
        for i, place in enumerate(PLACES) for trade in TRADES for j, other in enumerate(TRADES[:4]) if other != trade
    ]  # fmt: skip


@pytest.fixture(scope="module")
def seaside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("seaside") / "docs.jsonl", [{"text": text} for text in texts()])


@pytest.fixture(scope="module")
def opened(seaside: Path, tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    return prepare_text([seaside], tmp_path_factory.mktemp("opened") / "store", TextConfig(vocab_size=300, held_out_share=0.1))


# --- runs ----------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_as_undisturbed_and_its_export_continues(seaside: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "budget.steps": 12, "trainer.log_every": 1}
    said: list[str] = []
    whole = pretrain("prop", seaside, say=said.append, out=tmp_path / "whole", **settings)
    pretrain("prop", seaside, say=quiet, out=tmp_path / "cut", **settings, **{"trainer.stop_at": 7})
    cut = pretrain("prop", seaside, say=quiet, out=tmp_path / "cut", **settings)
    assert untimed(records(cut.folder, "metrics")) == untimed(records(whole.folder, "metrics"))
    assert (cut.export / "model.safetensors").read_bytes() == (whole.export / "model.safetensors").read_bytes()
    lines = records(whole.folder, "metrics")
    assert {"mlm_loss", "rop_loss", "rop_accuracy", "loss"} <= lines[0].keys()
    assert lines[0]["loss"] == pytest.approx(lines[0]["mlm_loss"] + lines[0]["rop_loss"], rel=1e-5)
    assert lines[0]["rop_loss"] == pytest.approx(1, abs=0.05), "two scores that say nothing"
    probes = {line["probe"] for line in records(whole.folder, "probes")}
    assert {"held_out/rop_accuracy", "held_out/mlm_loss"} <= probes
    assert any("of which" in line and "can be drawn" in line for line in said)
    assert any(line.startswith("WARNING: Of the last pairs") for line in said), "twelve steps teach no matching"
    own = ("method.least_count", "method.short_doc_tokens", "method.min_doc_words", "method.sequence_length")
    kept = {name: value for name, value in settings.items() if "method." not in name or name in own}
    more = pretrain("prop", seaside, say=said.append, out=tmp_path / "more", init=whole.folder, **kept)
    assert more.info["config"]["method"]["hidden_size"] == 32
    save_masked_lm(whole.export, tmp_path / "mlm")
    from transformers import AutoModelForMaskedLM

    _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "mlm", output_loading_info=True)
    assert not info["missing_keys"]


def test_micro_batches_give_the_loss_of_the_whole(seaside: Path, tmp_path: Path) -> None:
    found = []
    for micro in (8, 2):
        settings = SETTINGS | {"budget.steps": 2, "trainer.log_every": 1, "trainer.micro_batch": micro}
        run = pretrain("prop", seaside, say=quiet, out=tmp_path / str(micro), **settings)
        found.append(records(run.folder, "metrics"))
    for name in ("loss", "mlm_loss", "rop_loss", "rop_accuracy"):
        assert [line[name] for line in found[0]] == pytest.approx([line[name] for line in found[1]], rel=2e-4), name


@pytest.mark.parametrize(("architecture", "new"), [("bert", True), ("modernbert", False)])
def test_a_bert_is_continued_with_a_new_head_and_another_network_refused(architecture: str, new: bool, seaside: Path, tmp_path: Path) -> None:
    begun = {**TINY, "method.architecture": architecture, "budget.steps": 2}
    base = pretrain("mlm", seaside, say=quiet, out=tmp_path / "base", **begun)
    said: list[str] = []
    own = ("method.least_count", "method.short_doc_tokens", "method.min_doc_words", "method.sequence_length")
    settings = {name: value for name, value in SETTINGS.items() if "method." not in name or name in own}
    if not new:
        with pytest.raises(UsageError, match="is a modernbert, and prop continues a BERT"):
            pretrain("prop", seaside, say=quiet, out=tmp_path / "run", init=base.folder, **settings, **{"budget.steps": 2})
        return
    pretrain("prop", seaside, say=said.append, out=tmp_path / "run", init=base.folder, **settings, **{"budget.steps": 2})
    assert any("has no rank head and no pooler: new ones begin random" in line for line in said)


def test_a_random_start_looks_for_equal_tokens(opened: TextStore) -> None:
    torch.manual_seed(0)
    found = Prop(replace(CONFIG, initial="matching", hidden_size=64), opened)
    network = found.model
    attention = network.bert.encoder.layer[0].attention.self
    assert torch.equal(attention.query.weight, attention.key.weight)
    words = torch.nn.functional.layer_norm(network.bert.embeddings.word_embeddings.weight[5:200].detach(), (64,))
    with torch.no_grad():
        logits = attention.query(words).view(-1, 2, 32).transpose(0, 1) @ attention.key(words).view(-1, 2, 32).permute(1, 2, 0) / 32**0.5
    same = logits.diagonal(dim1=1, dim2=2).mean()
    assert float(same) == pytest.approx(8, rel=0.15)
    assert abs(float(logits.mean() - same / logits.shape[1])) < 0.5
    usual = random_network(network.config, "bert").bert.encoder.layer[0].attention.self
    assert float(usual.query.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


# --- statistics and rows ----------------------------------------------------------------------------------------------------


def test_words_are_counted_as_a_plain_loop_does(opened: TextStore) -> None:
    found, stop = statistics_of(opened, "unicode", "english"), read_stopwords("english")
    counts: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for number in range(len(opened.document_offsets) - 1):
        words = words_of(opened.decode(opened.document(number)), "unicode", stop)
        mine_at = slice(found.ends[number], found.ends[number + 1])
        mine = {found.words[i]: int(n) for i, n in zip(found.counted[mine_at], found.counts[mine_at], strict=True)}
        assert mine == Counter(words)
        if not (opened.held_out | opened.dropped)[number]:
            counts.update(words)
            documents.update(set(words))
    assert dict(zip(found.words, found.ctf.tolist(), strict=True)) == {word: counts[word] for word in found.words}
    assert dict(zip(found.words, found.df.tolist(), strict=True)) == {word: documents[word] for word in found.words}
    assert found.total == counts.total()
    assert {"harbour", "rigger", "may"} - {"may"} <= set(found.words)
    assert not stop & set(found.words)
    for word, first, last in zip(found.words, found.piece_ends[:-1], found.piece_ends[1:], strict=True):
        assert found.pieces[first:last].tolist() == opened.tokenizer.encode(word, add_special_tokens=False).ids
    assert (np.diff(found.hashes) > 0).all()


def test_statistics_are_kept_beside_the_text_and_refused_with_another(opened: TextStore) -> None:
    statistics_of(opened, "ascii", "none")
    (folder,) = [path for path in (opened.folder / "made").glob("words-*") if path.is_dir() and _of(path)["pattern"] == "ascii"]
    kept = (folder / "stats.json").read_text()
    before = (folder / "df.npy").stat().st_mtime_ns
    statistics_of(opened, "ascii", "none")
    assert (folder / "df.npy").stat().st_mtime_ns == before
    info = json.loads(kept)
    info["made_from"]["tokens"] = "0" * 64
    (folder / "stats.json").write_text(json.dumps(info))
    with pytest.raises(BadInput, match="holds statistics of another text"):
        statistics_of(opened, "ascii", "none")
    (folder / "stats.json").write_text(kept)
    np.save(folder / "df.npy", np.zeros(3, np.int64))
    with pytest.raises(BadInput, match="do not fit each other"):
        statistics_of(opened, "ascii", "none")


def _of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stats.json").read_text())["made_from"]  # type: ignore[no-any-return]


def test_words_of_any_script_and_as_the_paper_cuts_them(tmp_path: Path) -> None:
    assert words_of("Beyoncé's 3 Größen, über Москва 北京", "unicode") == ["Beyoncé", "s", "Größen", "über", "Москва", "北京"]
    assert words_of("Beyoncé's", "ascii") == ["Beyonc", "s"]
    assert words_of("The Tide and THE sea", stopwords=read_stopwords("english")) == ["Tide", "sea"]
    assert len(read_stopwords("english")) == 475
    (tmp_path / "stop.txt").write_text("Der\ndie\n")
    assert words_of("DIE See und der Wind", stopwords=read_stopwords(str(tmp_path / "stop.txt"))) == ["See", "und", "Wind"]


def test_a_word_that_the_vocabulary_cannot_write_is_none(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sea", "tide", "##s", "a1"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    docs = write_jsonl(tmp_path / "docs.jsonl", [{"text": f"sea tides moon a1 sea {'sea ' * i}"} for i in range(12)])
    store = prepare_text([docs], tmp_path / "store", TextConfig(tokenizer=str(tmp_path / "tokenizer.json"), held_out_share=0.0))
    found = count_words(store, "unicode", frozenset())
    assert sorted(found.words) == ["a", "sea", "tides"], "of a1 the letters"
    assert found.pieces[found.piece_ends[found.words.index("a")] : found.piece_ends[found.words.index("a") + 1]].tolist() == []
    background = background_of(found, replace(CONFIG, least_count=1))
    assert background.probability[found.words.index("a")] == 0, "it cannot be shown"
    assert background.probability[found.words.index("tides")] > 0


def test_short_documents_come_seldom(opened: TextStore) -> None:
    offsets = opened.document_offsets
    sizes = np.diff(offsets)
    limit = int(np.median(sizes[opened.documents("train")])) + 1
    assert sizes.min() < limit < sizes.max()
    rows = prop_rows(opened, replace(CONFIG, short_doc_tokens=limit, short_doc_skip=0.8))
    times = Counter(rows.documents.tolist())
    assert {times[number] for number in times if sizes[number] < limit} == {1}
    assert {times[number] for number in times if sizes[number] >= limit} == {5}
    assert rows.n_documents == len(times)
    assert (sizes[prop_rows(opened, replace(CONFIG, short_doc_tokens=limit, short_doc_skip=1.0)).documents] >= limit).all()
    every = prop_rows(opened, replace(CONFIG, short_doc_tokens=10_000))
    assert len(every) == len(set(every.documents.tolist())), "where all are short it has no effect"


def test_words_of_another_store_are_known_by_their_letters(opened: TextStore, tmp_path: Path) -> None:
    """Rows of a second store are numbered otherwise; a batch names words by a hash."""
    docs = write_jsonl(tmp_path / "more.jsonl", [{"text": f"{text} Herons wade."} for text in reversed(texts()[:40])])
    settings = TextConfig(tokenizer=str(opened.folder / "tokenizer.json"), held_out_share=0.0)
    other = prepare_text([docs], tmp_path / "other", settings)
    method = Prop(CONFIG, opened)
    batch = {name: torch.as_tensor(value) for name, value in Prop.rows(other, CONFIG).batch(np.arange(8)).items()}
    numbers = method.sets.number(batch["words"], batch["counts"])
    theirs, mine = statistics_of(other, "unicode", "english"), statistics_of(opened, "unicode", "english")
    known = 0
    for row, document in enumerate(Prop.rows(other, CONFIG).documents[:8]):
        words = [theirs.words[i] for i in theirs.counted[theirs.ends[document] : theirs.ends[document + 1]]]
        for word, number in zip(words, numbers[row].tolist(), strict=False):
            assert number == (mine.words.index(word) if word in mine.words else method.sets.nothing)
            known += number != method.sets.nothing
    assert "herons" not in mine.words
    assert known > 40
    pairs = method.pairs(batch, Context(0, 1, "train", Rng.at(0, 0, torch.arange(8)), torch.device("cpu")))
    assert pairs.rows["input_ids"].shape == (16, 32)


def test_held_out_text_of_its_own_is_scored_by_the_statistics_of_training(opened: TextStore) -> None:
    assert len(prop_rows(opened.as_held_out(), CONFIG, "held_out")) == len(opened.held_out)


# --- what is refused, or said ----------------------------------------------------------------------------------------------------


def stored(folder: Path, lines: list[str], **settings: Any) -> TextStore:
    docs = write_jsonl(folder / "docs.jsonl", [{"text": text} for text in lines])
    return prepare_text([docs], folder / "store", TextConfig(vocab_size=300, held_out_share=0.0, **settings))


def test_texts_without_words_are_refused_with_an_example(tmp_path: Path) -> None:
    russian = [f"Портовый сторож номер {i} знает приливы и ветер у старого маяка в гавани {i * 7}" for i in range(30)]
    store = stored(tmp_path, russian)
    says = r"no document has 10 words \(ascii letters, without english stop words\)\. The one with most has 0: 'портов"
    with pytest.raises(BadInput, match=says):
        prop_rows(store, replace(CONFIG, word_pattern="ascii", min_doc_words=10))
    assert len(prop_rows(store, replace(CONFIG, min_doc_words=5))) == 30
    with pytest.raises(BadInput, match=r"no word comes 500 times or more in the 30 documents"):
        prop_rows(store, replace(CONFIG, least_count=500, min_doc_words=5))


def test_a_small_corpus_and_equal_documents_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = texts()[:20] + texts()[:3] + ["too short"] * 2
    with caplog.at_level(logging.WARNING):
        prop_rows(stored(tmp_path, lines), replace(CONFIG, least_count=10))
    said = " | ".join(record.getMessage() for record in caplog.records)
    assert "25 documents to count words in, under 1000: lower --method.least-count to 2, or give --method.statistics" in said
    assert "2 documents under 3 words, stop words not counted, left out" in said
    assert "4 documents have the same text as another" in said
    assert "words are rarer than --method.least-count 10 and are never drawn" not in said or "90" in said


def test_a_title_that_is_not_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    docs = write_jsonl(tmp_path / "docs.jsonl", [{"id": i, "title": "Harbour", "text": text} for i, text in enumerate(texts()[:12])])
    with caplog.at_level(logging.WARNING):
        Prop.prepare([docs], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.0))
    assert any("docs.jsonl: the field 'title' is not read: write it in front" in record.getMessage() for record in caplog.records)


def test_rare_words_alone_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"mill mill {' '.join(''.join(chr(97 + (i * 7 + j * 3 + k) % 26) for k in range(6)) for j in range(12))}" for i in range(26)]
    with caplog.at_level(logging.WARNING):
        prop_rows(stored(tmp_path, lines), replace(CONFIG, least_count=40))
    assert any("are rarer than --method.least-count 40 and are never drawn: lower" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("word\tcount\na\t1\n", r"record 2: has no field 'df', only 'word', 'count'"),
        ("word\tdf\nrigger\t3\nrigger\t4\n", "record 3: has the word 'rigger' a second time"),
        ("word\tdf\nrigger\tmany\n", "record 2: the field 'df' is 'many', which counts nothing"),
        ("word\tdf\nnowhere\t3\n", r"has none of the \d+ words of the corpus"),
    ],
    ids=["field", "twice", "number", "language"],
)
def test_a_table_of_a_language_that_cannot_be_used(text: str, says: str, opened: TextStore, tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text(text)
    with pytest.raises(BadInput, match=says):
        background_of(statistics_of(opened, "unicode", "english"), replace(CONFIG, statistics=str(tmp_path / "words.tsv")))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"set_words": 0.0}, "--method.set-words is 0"),
        ({"short_doc_skip": 1.5}, "--method.short-doc-skip is 1.5"),
        ({"rop_weight": 0.0, "mlm_weight": 0.0}, "--method.rop-weight and --method.mlm-weight are both 0"),
        ({"sequence_length": 12}, "--method.sequence-length is 12: a set of words"),
    ],
    ids=["words", "skip", "weights", "length"],
)
def test_settings_that_no_run_can_have(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(CONFIG, **settings).check()


def test_a_list_of_stop_words_that_is_not_there(opened: TextStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"stop\.txt: cannot be read"):
        statistics_of(opened, "unicode", str(tmp_path / "stop.txt"))


def test_what_a_person_sees_of_pairs(opened: TextStore) -> None:
    method = Prop(CONFIG, opened).eval()
    batch = {name: torch.as_tensor(value) for name, value in Prop.rows(opened, CONFIG).batch(np.arange(3)).items()}
    lines = method.show(batch, Context(0, 1, "train", Rng.at(0, 0, torch.arange(3)), torch.device("cpu")))
    assert len(lines) == 3
    assert all(" of: the " in line and line.startswith("[") for line in lines)
    own = method.show(method.encode(["the rigger of the harbour"]), Context(0, 1, "train", Rng.at(0, 0, torch.arange(1)), torch.device("cpu")), True)
    assert "|" in own[0]
