"""medical_bert as a run: two corpora on the command line, what continues it and what it gives, and what it refuses."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM, BertForPreTraining, BertModel

from headstart import methods
from headstart.backbones.text import encode
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.sentences import cut_sentences
from headstart.data.text.store import open_text_store, prepare_text
from headstart.methods.medical_bert.config import MedicalBertConfig
from headstart.methods.medical_bert.method import MedicalBert
from headstart.methods.medical_bert.pairs import make_pairs
from headstart.methods.medical_bert.rows import medical_bert_rows, plan_of, told
from headstart.methods.medical_bert.shards import shards_of
from headstart.verbs._adopt import adopt
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, quiet, records, untimed

HARBOURS = ("harbour", "lighthouse", "shipyard", "breakwater", "quayside", "boathouse", "drydock", "fishery")
SHARDS = {"method.shard_bytes": 2000, "text.held_out_share": 0.2}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus: sentences of two kinds, 24 documents."""
    path = tmp_path_factory.mktemp("notes") / "notes.txt"
    lines = "Dr. Webb saw the {}. It was {} days old."
    blocks = ["\n".join(lines.format(place, n) for n in range(first, first + 6)) for first in (3, 20, 40) for place in HARBOURS]
    path.write_text("\n\n".join(blocks) + "\n")
    return path


def run_of(data: list[Path], out: Path, **settings: Any) -> Path:
    return pretrain("medical_bert", data, say=settings.pop("say", quiet), out=out, **{**TINY, **SHARDS, **settings}).folder


@pytest.fixture(scope="module")
def run(notes: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of([notes, corpus], tmp_path_factory.mktemp("medical") / "run", **{"budget.steps": 24})


def test_both_corpora_are_composed_and_measured_apart(run: Path, notes: Path, corpus: Path) -> None:
    info = read_run(run)
    store = open_text_store(info["data"][0]["store"])
    assert store.tokenizer.token_to_id("lighthouse") is not None, "amplified: 24 documents beside hundreds"
    plan = plan_of(store, MedicalBertConfig(**{**info["config"]["method"]}))
    shards = json.loads(next((store.folder / "rows").glob("train-*/composition.json")).read_text())
    assert [(one["small"], one["large"]) for one in shards] == plan.composition
    assert plan.repeated is not None
    assert plan.repeated > 2
    last = records(run, "metrics")[-1]
    assert {"mlm_loss", "next_sentence_loss", "next_sentence_accuracy"} <= set(last)
    held_out = records(run, "probes")
    assert {"held_out/mlm_loss_small", "held_out/nats_per_character_large", "held_out/next_sentence_accuracy"} <= {line["probe"] for line in held_out}


def test_it_goes_on_where_it_was_stopped(run: Path, notes: Path, corpus: Path, tmp_path: Path) -> None:
    stopped = run_of([notes, corpus], tmp_path / "stopped", **{"budget.steps": 24, "trainer.stop_at": 9})
    assert read_run(stopped)["status"] == "stopped"
    run_of([notes, corpus], tmp_path / "stopped", **{"budget.steps": 24})
    assert untimed(records(stopped, "metrics")) == untimed(records(run, "metrics"))
    same = [AutoModel.from_pretrained(folder / "export").state_dict() for folder in (run, stopped)]
    assert all(torch.equal(value, same[1][name]) for name, value in same[0].items())


def test_micro_batches_give_the_same_update(notes: Path, corpus: Path, tmp_path: Path) -> None:
    settings = {"budget.steps": 3, "method.causal_start": 0, "trainer.log_every": 1}
    whole, cut = (
        records(run_of([notes, corpus], tmp_path / str(rows), **settings, **{"trainer.micro_batch": rows}), "metrics") for rows in (8, 2)
    )
    for line, other in zip(whole, cut, strict=True):
        for name in ("loss", "mlm_loss", "next_sentence_loss", "gradient_norm"):
            assert line[name] == pytest.approx(other[name], rel=2e-4), name


def test_the_export_is_a_bert_with_both_heads(run: Path, notes: Path, tmp_path: Path) -> None:
    export = run / "export"
    model, info = BertForPreTraining.from_pretrained(export, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert {"bert.pooler.dense.weight", "cls.seq_relationship.weight", "cls.predictions.transform.dense.weight"} <= set(model.state_dict())
    assert not BertForMaskedLM.from_pretrained(export, output_loading_info=True)[1]["missing_keys"]
    batch = AutoTokenizer.from_pretrained(export)("a small harbour", "a large one", return_tensors="pt")
    assert batch["token_type_ids"].sum() > 0
    with torch.no_grad():
        theirs = model.eval()(**batch)
        ours = encode(model.bert, batch)
    torch.testing.assert_close(theirs.seq_relationship_logits, model.cls.seq_relationship(model.bert.pooler(ours)))


def test_old_names_and_a_bert_without_its_second_head_are_continued(
    run: Path, notes: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vocabulary = {"text.vocab_size": open_text_store(read_run(run)["data"][0]["store"]).vocab_size}
    again = run_of([notes, corpus], tmp_path / "again", **{"budget.steps": 2, "init": run, **vocabulary})
    assert read_run(again)["config"]["method"]["causal_start"] == 0
    without = BertForMaskedLM.from_pretrained(run / "export")
    without.save_pretrained(tmp_path / "masked")
    AutoTokenizer.from_pretrained(run / "export").save_pretrained(tmp_path / "masked")
    run_of([notes, corpus], tmp_path / "headless", **{"budget.steps": 2, "init": tmp_path / "masked", **vocabulary})
    lacks = "bert.pooler.dense.bias, bert.pooler.dense.weight, cls.seq_relationship.bias, cls.seq_relationship.weight"
    assert f"lacks {lacks}, which begin random" in caplog.text


def test_a_bert_without_heads_and_one_of_old_names_are_read(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare, old = tmp_path / "bare", tmp_path / "old"
    whole = BertForPreTraining.from_pretrained(run / "export").state_dict()
    BertModel.from_pretrained(run / "export").save_pretrained(bare)
    found = MedicalBert.loaded(cast(Any, SimpleNamespace(config=MedicalBertConfig(sequence_length=32))), bare).state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.items() if name.startswith("bert."))
    assert "cls.predictions.transform.dense.weight, " in caplog.text
    BertForPreTraining.from_pretrained(run / "export").save_pretrained(old)
    names = {name: re.sub(r"LayerNorm\.(weight|bias)", lambda of: f"LayerNorm.{'gamma' if of[1] == 'weight' else 'beta'}", name) for name in whole}
    assert len([name for name in names.values() if "gamma" in name]) == 4
    save_file({new: whole[name].clone() for name, new in names.items()}, old / "model.safetensors", metadata={"format": "pt"})
    found = MedicalBert.loaded(cast(Any, SimpleNamespace(config=MedicalBertConfig(sequence_length=32))), old).state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_one_corpus_is_an_ordinary_bert(corpus: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run_of([corpus], tmp_path / "run", say=said.append, **{"budget.steps": 2})
    assert any("one, so there is nothing to balance" in line for line in said)


def test_without_the_next_sentence_every_second_segment_follows(notes: Path, corpus: Path, tmp_path: Path) -> None:
    run = run_of([notes, corpus], tmp_path / "run", **{"budget.steps": 2, "method.next_sentence": False})
    store = open_text_store(read_run(run)["data"][0]["store"])
    rows = medical_bert_rows(store, MedicalBertConfig(**read_run(run)["config"]["method"]))
    assert not rows.columns["next_sentence_label"].any()
    assert "next_sentence_loss" not in records(run, "metrics")[-1]
    assert [pair[:4] for pair in make_pairs([[0, 4]], 16, random.Random(0), 0.0, next_sentence=False)] == [(0, 4, 4, 4)]


@pytest.mark.parametrize(
    ("settings", "swapped", "says"),
    [
        ({}, True, "--text.vocabulary amplified: the first entry of --data has"),
        ({"text.vocabulary": "plain"}, True, "Give the smaller one first, or --method.composition union"),
        ({"method.small_shards": 99}, False, "--method.small-shards is 99, but the small corpus makes 3"),
        ({"mixture.weights": (1.0, 2.0)}, False, "--data has several parts, stores or weights"),
        ({"method.sequence_length": 6}, False, "two segments need more"),
    ],
    ids=["vocabulary", "order", "shards", "weights", "short"],
)
def test_what_does_not_fit_two_corpora(notes: Path, corpus: Path, settings: dict[str, Any], swapped: bool, says: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, BadInput)) as caught:
        run_of([corpus, notes] if swapped else [notes, corpus], tmp_path / "run", **{"budget.steps": 2, **settings})
    assert says in f"{caught.value}"


def test_pools_in_which_nothing_is_learned_of_pairs(notes: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_text(notes.read_text().replace("\n\n", "\n"))
    config = MedicalBertConfig(hidden_size=32, sequence_length=32)
    with pytest.raises(BadInput, match="holds one document, so no segment of another can be drawn"):
        medical_bert_rows(prepare_text([one], tmp_path / "a", TextConfig(vocab_size=300, held_out_share=0.0)), config)
    lone = tmp_path / "lone.txt"
    lone.write_text("\n".join(f"The {place} is number {n} of the town" for n in range(9) for place in HARBOURS))
    by_line = TextConfig(vocab_size=300, held_out_share=0.0, document_split="line")
    with pytest.raises(BadInput, match=r"each of the 72 documents is one sentence(.|\n)* or give --method.no-next-sentence"):
        medical_bert_rows(prepare_text([lone], tmp_path / "b", by_line), config)


def test_rows_that_one_sentence_fills_are_said(notes: Path, tmp_path: Path) -> None:
    store = prepare_text([notes], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.0))
    said = {length: "\n".join(told(medical_bert_rows(store, MedicalBertConfig(sequence_length=length)), store)) for length in (64, 12)}
    assert "WARNING" not in said[64]
    assert "WARNING    a sentence mostly fills a row of 12 tokens" in said[12]


def test_documents_that_both_corpora_hold_are_counted(notes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "other.txt"
    other.write_text(notes.read_text() + "\n" + "\n\n".join(f"More of number {n}.\nAnd more." for n in range(40)))
    prepare_text([notes, other], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.0))
    assert "24 documents of the first entry of --data stand in another too" in caplog.text


def test_rules_cut_lines_into_sentences(notes: Path, tmp_path: Path) -> None:
    config = TextConfig(vocab_size=300, held_out_share=0.0, sentence_split="rules")
    store = prepare_text([notes], tmp_path / "store", config)
    assert store.manifest["counts"]["sentences"] == 24 * 6 * 2
    assert [store.decode(ids) for ids in store.sentences(0)][:2] == ["dr. webb saw the harbour.", "it was 3 days old."]
    for line, count in {
        "Dr. Smith saw J. K. Rowling in the U.S. Senate. It cost 3.5 dollars! Was it e.g. This? “Yes.” He left.": 5,
        "IL-2 (Fig. 3A) rose by 2.5. Patients (n = 3) vs. Controls were healthy.": 2,
        "今天天气好。我们走吧！好": 3,
        "no end": 1,
        "Это было в 2019 г. в Москве. Потом np. Świat, tj. świat.": 3,
        "好。\n": 1,
    }.items():
        assert len(cut_sentences(line)) == count, line
        assert "".join(cut_sentences(line)) == line


def test_shards_hold_about_as_many_sentences_each() -> None:
    sentences = np.random.default_rng(0).integers(1, 60, 200)
    shards = shards_of(np.arange(200), sentences, 7)
    held = [int(sentences[shard].sum()) for shard in shards]
    assert sorted(np.concatenate(shards).tolist()) == list(range(200))
    assert max(held) - min(held) <= 60
    assert len(shards_of(np.arange(3), np.array([5, 5, 5]), 7)) == 3, "no shard is empty"


def test_parts_of_a_run_are_told_apart_in_what_it_reports(notes: Path, corpus: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run_of([notes, corpus], tmp_path / "run", say=said.append, **{"budget.steps": 2})
    plan = "\n".join(said)
    assert "a training file holds 3 shards of the small corpus and 3 of the large one" in plan
    assert "of its tokens are of the small one," in plan
    assert "vocabulary amplified; the small corpus has" in plan


def test_a_small_corpus_of_less_than_a_shard_is_half_of_a_training_file(run: Path) -> None:
    store = open_text_store(read_run(run)["data"][0]["store"])
    rows = medical_bert_rows(store, MedicalBertConfig(sequence_length=32))
    assert (rows.report["small_shards"], rows.report["large_shards"]) == (1, 1)
    assert rows.report["small_share"] == pytest.approx(0.5, abs=0.1)
    unequal = medical_bert_rows(store, MedicalBertConfig(sequence_length=32, shard_bytes=100_000))
    assert unequal.report["small_share"] < 0.3, "as it was asked for"


def test_a_first_entry_without_text_is_not_replaced_by_the_second(notes: Path, tmp_path: Path) -> None:
    blank, other = tmp_path / "blank.txt", tmp_path / "other.txt"
    blank.write_text("\n \n")
    other.write_text("\n\n".join(f"More of number {n}.\nAnd more." for n in range(400)))
    config = TextConfig(vocab_size=300, held_out_share=0.0)
    with pytest.raises(BadInput, match="the first entry of --data, the small corpus, has no text"):
        medical_bert_rows(prepare_text([blank, notes, other], tmp_path / "a", config), MedicalBertConfig())
    with pytest.raises(BadInput, match="amplified: the first entry of --data has no text"):
        prepare_text([blank, notes, other], tmp_path / "b", replace(config, vocabulary="amplified"))


def test_documents_longer_than_a_shard_and_much_repeated_ones_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_text("One is here.\nTwo is here.\n\nThree is there.\nFour is there.\n")
    lines = [f"Sentence {n} of the town is this one here.\n" for n in range(4000)]
    large.write_text("\n".join("".join(lines[start:stop]) for start, stop in [(0, 300), *((n, n + 10) for n in range(300, 4000, 10))]))
    store = prepare_text([small, large], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.0))
    medical_bert_rows(store, MedicalBertConfig(shard_bytes=1000))
    assert caplog.text.count("a document of the large corpus has 300 sentences, a shard about ") == 1
    assert "small corpus has" not in caplog.text
    assert re.search(r"the small corpus comes 1\d\d times in a pass over the large one and is learned by heart", caplog.text)


def test_a_vocabulary_that_lacks_characters_is_said_in_the_plan(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join("\n".join(chr(0x4E00 + 7 * n + k) * 4 + "。" for k in range(6)) for n in range(60)))
    store = prepare_text([texts], tmp_path / "store", TextConfig(vocab_size=100, held_out_share=0.0))
    config = MedicalBertConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=48, sequence_length=32)
    assert "of the tokens are unknown; give a larger --text.vocab-size" in MedicalBert(config, store).plan_lines()[0]
    assert store.report()[-1].startswith("WARNING: ")


def test_an_amplified_vocabulary_where_all_is_held_out(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / f"{name}.txt").write_text(f"The {name} harbour.\nIt is old.\n")
    config = TextConfig(vocab_size=300, held_out_share=0.999, vocabulary="amplified")
    assert prepare_text([tmp_path / "small.txt", tmp_path / "large.txt"], tmp_path / "store", config).vocab_size > 20


def test_rows_fit_the_positions_of_the_model(run: Path) -> None:
    for slug in ("medical_bert", "mlm", "bioptimus"):
        method = methods.load(slug)
        _, config = preset_config(method, "tiny")
        assert config.method.sequence_length == 64
        assert adopt(config, {}, method, run / "export")[0].method.sequence_length == 32
        assert adopt(config, {"method.sequence_length": "flag"}, method, run / "export")[0].method.sequence_length == 64, "refused when it is built"


def test_only_a_bert_is_continued(trained: Path, notes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="medical_bert continues a BERT"):
        MedicalBert.settings_of(trained / "export", MedicalBertConfig())
