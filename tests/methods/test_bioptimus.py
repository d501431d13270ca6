"""bioptimus as a run: its own vocabulary, what reading contexts costs, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from headstart.backbones.text import mlm_head, word_embeddings
from headstart.core.config import flatten
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import PART_LOSS, read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, open_text_store, prepare_text
from headstart.data.text.tokenizer import load_tokenizer, special_ids, word_tokenizer
from headstart.methods.bioptimus.config import BioptimusConfig
from headstart.methods.bioptimus.contexts import around, find_places, old_windows
from headstart.methods.bioptimus.method import Bioptimus
from headstart.methods.bioptimus.swap import refuse_swap
from headstart.verbs._adopt import adopt
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, quiet, records, untimed

ONE = {"method.units": ("token",), "method.mask_ratios": (0.15,), "method.mask_shares": (0.8,), "method.lengths": (1.0,), "method.rates": (1.0,)}
READING = {**TINY, "method.contexts": 1}
PLACES = ("harbour", "lighthouse", "shipyard", "breakwater", "quayside", "boathouse", "drydock", "fishery")
TRADES = ("rigger", "caulker", "stevedore", "chandler", "lamplighter", "netmaker", "ropemaker", "cooper")


@pytest.fixture(scope="module")
def seaside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of another field, in the sentences of the corpus."""
    folder = tmp_path_factory.mktemp("seaside")
    lines = [f"the {trade} near the {place} waits for the {other}." for place in PLACES for trade in TRADES for other in TRADES if other != trade]
    (folder / "sea.txt").write_text("\n\n".join("\n".join(lines[start : start + 8]) for start in range(0, len(lines), 8)) + "\n")
    return folder


@pytest.fixture(scope="module")
def encoder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of mlm on the corpus."""
    out = tmp_path_factory.mktemp("encoder") / "mlm"
    settings = {**TINY, "method.architecture": "bert", "method.causal_start": 0, "budget.steps": 6}
    return pretrain("mlm", store, say=quiet, out=out, **settings).folder


def test_the_vocabulary_is_that_of_the_data_and_its_reading_is_paid_for(seaside: Path, encoder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = {**READING, "init": encoder, "text.vocab_size": 260, "text.held_out_share": 0.1, "method.contexts": 20}
    run = pretrain("bioptimus", seaside, say=said.append, out=tmp_path / "a" / "run", **settings, **{"budget.flops": 3e9})
    info = read_run(run.folder)
    own = open_text_store(info["data"][0]["store"])
    assert own.tokenizer.token_to_id("lighthouse") is not None
    assert own.vocab_size < 260, "of so few words there are no more"
    read = records(run.folder, "metrics")[0]["flops"] - 2 * info["decisions"]["flops_per_step"]["1-token-0.15"]
    assert read > 2 * max(info["decisions"]["flops_per_step"].values())
    assert 0.9 * 3e9 < info["totals"]["flops"] <= 3e9
    assert info["totals"]["flops"] == read + sum(
        stop * info["decisions"]["flops_per_step"][name] for name, stop in phases_of(records(run.folder, "metrics"), info).items()
    )
    assert any("which the budget pays for" in line for line in said)
    assert (run.export / "new_tokens.tsv").read_text().count("contextual") > 8
    assert (own.folder / "made").is_dir()
    with pytest.raises(UsageError, match="no step is left"):
        pretrain("bioptimus", seaside, say=quiet, out=tmp_path / "a" / "poor", **settings, **{"budget.flops": 1e5})
    again = pretrain("bioptimus", seaside, say=quiet, out=tmp_path / "a" / "again", **settings, **{"budget.flops": 3e9})
    assert untimed(records(again.folder, "metrics")) == untimed(records(run.folder, "metrics")), "read from the store, which may hold what was made"


def phases_of(lines: list[dict[str, Any]], info: dict[str, Any]) -> dict[str, int]:
    """Phase -> its steps."""
    names = list(info["decisions"]["flops_per_step"])
    total, shares = info["totals"]["steps"], len(names)
    ends = [round(total * (i + 1) / shares) for i in range(shares)]
    assert lines[-1]["phase"] == names[-1]
    return dict(zip(names, (stop - start for start, stop in zip([0, *ends], ends, strict=False)), strict=True))


def test_a_stopped_run_goes_on_without_the_model_that_it_began_with(seaside: Path, encoder: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(encoder / "export", model)
    settings = {**READING, "init": model, "text.vocab_size": 260, "budget.steps": 12, "trainer.log_every": 1}
    whole = pretrain("bioptimus", seaside, say=quiet, out=tmp_path / "whole", **settings)
    pretrain("bioptimus", seaside, say=quiet, out=tmp_path / "cut", **settings, **{"trainer.stop_at": 7})
    model.rename(tmp_path / "away")
    cut = pretrain("bioptimus", seaside, say=quiet, out=tmp_path / "cut", **settings)
    assert untimed(records(cut.folder, "metrics")) == untimed(records(whole.folder, "metrics"))
    assert cut.info["totals"]["flops"] == whole.info["totals"]["flops"]
    assert (cut.export / "new_tokens.tsv").read_bytes() == (whole.export / "new_tokens.tsv").read_bytes()
    assert (cut.export / "model.safetensors").read_bytes() == (whole.export / "model.safetensors").read_bytes()


def test_named_parts_have_a_vocabulary_of_their_own(seaside: Path, encoder: Path, tmp_path: Path) -> None:
    """The text of the old run, which other methods measure beside, is written in the old vocabulary."""
    named = [f"sea={seaside / 'sea.txt'}"]
    said: list[str] = []
    run = pretrain("bioptimus", named, say=said.append, out=tmp_path / "run", init=encoder, **READING, **ONE, **{"budget.steps": 4})
    assert open_text_store(run.info["data"][0]["store"]).tokenizer.token_to_id("lighthouse") is not None
    assert [entry["part"] for entry in run.info["measured"]] == ["sea"]
    assert any(line.startswith("Held-out loss (nats per character of hidden words): sea ") for line in said)
    values = {line["probe"]: line["value"] for line in records(run.folder, "probes") if line["step"] == 4}
    assert values[PART_LOSS + "sea"] == pytest.approx(values["held_out/nats_per_character"], rel=0.2)


# --- what is refused ------------------------------------------------------------------------------------------------------------------------------


def wordpiece(words: list[str], folder: Path, name: str, **settings: Any) -> Tokenizer:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    return load_tokenizer(path, TextConfig(**settings))[0]


@pytest.mark.parametrize(
    ("new", "settings", "says"),
    [
        (["other", "words", "alone"] + [f"w{i}" for i in range(60)], {}, r"too strange: 5 of its 68 tokens"),
        ([f"old{i}" for i in range(98)] + ["extra"], {}, r"Nothing is to be carried over: 103 of its 104"),
        ([f"old{i}" for i in range(50)] + [f"w{i}" for i in range(50)], {"lowercase": False}, r"lowercase False, the old one True"),
        ([f"old{i}" for i in range(50)] + [f"Old{i}" for i in range(20)], {}, r"folds case, but 20 of its tokens have capitals.*; 55 of its 75"),
        ([f"old{i}" for i in range(50)] + ["two words"], {}, r"the token 'two words', which no word is \(line 56 of"),
    ],
    ids=["strange", "nothing new", "case", "capitals", "blank"],
)
def test_vocabularies_between_which_nothing_is_carried_over(new: list[str], settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    old = wordpiece([f"old{i}" for i in range(99)], tmp_path, "old")
    with pytest.raises(UsageError, match=says):
        refuse_swap(wordpiece(new, tmp_path, "new", **settings), old, tmp_path)


def test_tokens_added_to_the_old_vocabulary_may_be_few(tmp_path: Path) -> None:
    words = [f"old{i}" for i in range(99)]
    refuse_swap(wordpiece([*words, "extra"], tmp_path, "new"), wordpiece(words, tmp_path, "old"), tmp_path)


def test_what_model_and_settings_alone_contradict_is_said_before_a_text_is_read(encoder: Path, tmp_path: Path) -> None:
    export = encoder / "export"
    wordpiece([f"w{i}" for i in range(60)], tmp_path, "strange")
    with pytest.raises(UsageError, match="too strange"):
        Bioptimus.data_settings_of(export, TextConfig(tokenizer=str(tmp_path / "strange.txt")))
    with pytest.raises(UsageError, match=r"--method\.layer is 99, the model has \d layers"):
        Bioptimus.settings_of(export, BioptimusConfig(layer=99))


def test_a_written_file_of_settings_leaves_to_the_model_what_its_preset_says(encoder: Path) -> None:
    """It names every setting, those too that the model of --init decides or suggests."""
    usual = preset_config(Bioptimus, "tiny")[1]
    written = dict.fromkeys(flatten(usual), "config")
    config, decided = adopt(usual, written, Bioptimus, encoder / "export")
    assert config.method.hidden_size == TINY["method.hidden_size"] != usual.method.hidden_size
    assert config.data_config.vocab_size == load_tokenizer(encoder / "export", TextConfig())[0].get_vocab_size() != usual.data_config.vocab_size
    assert {"method.hidden_size", "text.vocab_size"} <= set(decided)
    other = replace(usual, method=replace(usual.method, hidden_size=96))
    with pytest.raises(UsageError, match="hidden-size 96 was given, the model has"):
        adopt(other, written, Bioptimus, encoder / "export")


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    (tmp_path / "marked.txt").write_text("\n".join(["[PAD]", "[UNK]", "sea"]), encoding="utf-8-sig")
    assert load_tokenizer(tmp_path / "marked.txt", TextConfig())[0].token_to_id("[PAD]") == 0


def test_the_plan_says_what_has_no_effect_or_is_left(seaside: Path, encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    store = prepare_text([seaside / "sea.txt"], tmp_path / "store", TextConfig(vocab_size=260))
    assert "with --init alone" in Bioptimus(BioptimusConfig(), store).plan_lines()[0]
    settings = BioptimusConfig(new_rows="random", sequence_length=16)
    tied = Bioptimus(settings, store, init=encoder / "export")
    model = AutoModelForMaskedLM.from_pretrained(encoder / "export", tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "untied")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "untied" / name).write_bytes((encoder / "export" / name).read_bytes())
    untied = Bioptimus(settings, store, init=tmp_path / "untied")
    assert not any("own rows" in line for line in tied.plan_lines())
    assert any("own rows are left" in line for line in untied.plan_lines())
    output, words = mlm_head(untied.model)[1].weight, word_embeddings(untied.model).weight
    assert output is words


def test_a_document_on_one_line_is_measured_once(seaside: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "line.txt").write_text((seaside / "sea.txt").read_text().replace("\n", " "))
    store = prepare_text([tmp_path / "line.txt"], tmp_path / "store", TextConfig(vocab_size=260, held_out_share=0.0))
    old = load_tokenizer(encoder / "export", TextConfig())[0]
    seen: list[Any] = []

    def watched(lengths: list[int], middle: int, room: int) -> tuple[int, int]:
        seen.append(lengths)
        return around(lengths, middle, room)

    monkeypatch.setattr("headstart.methods.bioptimus.contexts.around", watched)
    places = find_places(store, np.ones(store.vocab_size, bool), 3)
    roles = special_ids(old)
    windows = old_windows(store, places, old, (roles["cls"], roles["sep"], roles["unk"]), 32)
    assert len(windows.rows) == len(seen) > 10
    assert all(lengths is seen[0] for lengths in seen)
    assert max(map(len, windows.rows)) <= 32


def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path) -> None:
    old = wordpiece(["a", "b"], tmp_path, "old")
    other = Tokenizer(models.BPE())
    other.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(UsageError, match="tokenizer of the data is BPE"):
        refuse_swap(other, old, tmp_path)
    lacking = wordpiece(["a", "c"], tmp_path, "new").to_str().replace('"[MASK]"', '"[OTHER]"')
    with pytest.raises(UsageError, match=r"tokenizer of the data has no \[MASK\]"):
        refuse_swap(Tokenizer.from_str(lacking), old, tmp_path)


def test_a_vocabulary_with_a_token_twice_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"vocab\.txt, record 8: has 'sea' in line 6 and in line 8\."):
        wordpiece(["sea", "tide", "sea"], tmp_path, "vocab")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"units": ("token",)}, r"--method\.units 1, --method\.mask-ratios 4"),
        ({"units": ("token", "word", "token", "token")}, r"Phase 2 masks 'word'"),
        ({"mask_ratios": (0.1, 0.2, 1.5, 0.2)}, r"--method\.mask-ratios"),
        ({"rates": (1.0, 1.0, 0.0, 1.0)}, r"--method\.rates"),
    ],
    ids=["counts", "unit", "ratio", "rate"],
)
def test_phases_that_no_run_can_have(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BioptimusConfig(**settings).check()


def test_phases_of_a_step_or_two_have_one_schedule(store: Path) -> None:
    """Each for itself would be all warm-up: rates of 0, and nothing is trained."""
    method = Bioptimus(BioptimusConfig(hidden_size=32), open_text_store(store))
    assert [phase.fresh_schedule for phase in method.phases(15)] == [False] * 4
    assert [phase.fresh_schedule for phase in method.phases(16)] == [True] * 4


def test_whole_words_need_a_vocabulary_that_marks_them(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c d\n\nb c d a\n" * 40)
    word_tokenizer("abcd").save(str(tmp_path / "tokenizer.json"))
    store: TextStore = prepare_text([tmp_path / "text.txt"], tmp_path / "store", TextConfig(tokenizer=str(tmp_path / "tokenizer.json")))
    with pytest.raises(BadInput, match="marks no words, and phase 2 masks by whole-word"):
        Bioptimus(BioptimusConfig(), store)
