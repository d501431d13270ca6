"""Runs on epochs that are drawn: `--epochs.tokens`, and the mixture file of --mix."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.data.text.epochs import Epochs
from headstart.methods import load
from headstart.verbs._corpus import open_corpus
from headstart.verbs._epochs import plan_lines
from headstart.verbs._mixture_file import with_mixture
from headstart.verbs._texts import data_words
from headstart.verbs.config import PretrainConfig, preset_config
from headstart.verbs.pretrain import build_method, pretrain
from tests.running import TINY, records, untimed

SMALL: dict[str, Any] = TINY | {
    "text.tokenizer_kind": "bpe", "text.lowercase": False, "method.packing": "stream", "method.sequence_length": 16, "batch": 4,
    "trainer.log_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents each of new and of old text, and held-out ones."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("new", "old"):
        lines = [json.dumps({"text": f"{name} text number {number}, about {name}s and their {number % 7} friends."}) for number in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines[:40]))
        (folder / f"{name}-val.jsonl").write_text("\n".join(lines[40:]))
    return folder


def run(texts: Path, out: Path, *data: str, **settings: Any) -> Any:
    return pretrain("causal-lm", list(data), out=out, say=lambda line: None, **{**SMALL, "budget.steps": 6, **settings})


def parts(texts: Path) -> list[str]:
    return [f"{name}={texts}/{name}.jsonl" for name in ("new", "old")]


def opened(texts: Path, out: Path, *data: str, **settings: Any) -> tuple[Any, PretrainConfig]:
    method = load("causal-lm")
    config = with_mixture(replace_nested(preset_config(method, "tiny")[1], {"data": data, "out": out, **SMALL, "budget.steps": 6, **settings}))
    return open_corpus(method, config, out, None), config


def test_a_run_reads_what_was_drawn(texts: Path, tmp_path: Path) -> None:
    corpus, config = opened(texts, tmp_path / "run", *parts(texts), mix="new=0.75,old=0.25", **{"epochs.tokens": 300})
    epochs = corpus.mixture(config, build_method(load("causal-lm"), config, corpus.store, None))
    assert isinstance(epochs, Epochs)
    assert epochs.shares == [Fraction(3, 4), Fraction(1, 4)]
    assert not list(tmp_path.rglob("rows/train*"))  # no window is written
    text = corpus.store.decode(epochs.stream(np.arange(epochs.epoch(0).n_tokens)))
    counted = Counter(text[:3] for text in text.split(corpus.store.tokenizer.id_to_token(epochs.end)) if text)
    assert counted["new"] == len(epochs.draws(0)[0])
    assert counted["old"] == len(epochs.draws(0)[1])
    assert data_words(corpus.stores, corpus.train).endswith(" rows of 16")  # no shares of rows that were not cut yet
    lines = list(plan_lines(epochs, 900))
    assert lines[0].strip() == "epochs     3.00 of 300 tokens, drawn anew each time"
    drawn, of_new = (len(documents) for documents in (epochs.draws(0)[0], epochs.sources[0].lengths))
    assert lines[1].strip().startswith(f"new: 75.0%, 225 tokens ({drawn:,} documents) of its ")
    assert f"tokens ({of_new:,} documents); each document about" in lines[1]


def test_a_continued_run_repeats_the_undisturbed_one(texts: Path, tmp_path: Path) -> None:
    settings = {"epochs.tokens": 200, "mix": "new=0.7,old=0.3", "trainer.checkpoint_every": 3, "trainer.evaluate_every": 3}
    whole = run(texts, tmp_path / "whole", *parts(texts), **settings, **{"budget.steps": 8})
    run(texts, tmp_path / "cut", *parts(texts), **settings, **{"budget.steps": 8, "trainer.stop_at": 5})
    cut = run(texts, tmp_path / "cut", *parts(texts), **settings, **{"budget.steps": 8})
    assert untimed(records(whole.folder, "metrics")) == untimed(records(cut.folder, "metrics"))
    one, other = (load_file(found.export / "model.safetensors") for found in (whole, cut))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"method.packing": "documents"}, "--method.packing stream"),
        ({"budget.steps": 2}, "128 tokens is less than one epoch of 200"),
        ({"epochs.tokens": 100_000, "budget.steps": 5000}, "takes 70,000 of new"),
        ({"epochs.tokens": 0}, "--epochs.tokens is 0"),
        ({"mix": "new=0.7,old=0.4"}, "sum to 1.1"),
    ],
    ids=["packing", "budget", "text", "zero", "sum"],
)
def test_what_cannot_be_is_refused(texts: Path, tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(HeadstartError, match=why):
        run(texts, tmp_path / "run", *parts(texts), **{"epochs.tokens": 200, "mix": "new=0.7,old=0.3", **settings})


def test_without_shares_each_part_is_as_large_as_it_is(texts: Path, tmp_path: Path) -> None:
    corpus, config = opened(texts, tmp_path / "run", *parts(texts), **{"epochs.tokens": 200})
    sizes = [part.n_tokens for part in corpus.train]
    epochs = corpus.mixture(config, build_method(load("causal-lm"), config, corpus.store, None))
    assert epochs.shares == [Fraction(size, sum(sizes)) for size in sizes]


# --- the mixture file -------------------------------------------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> str:
    (folder / "mixture.yaml").write_text(text)
    return str(folder / "mixture.yaml")


def config_of(*data: str, mix: str) -> PretrainConfig:
    return PretrainConfig(data=data, mix=mix)


MIXTURE = "[{store: wiki.jsonl, share: 0.045}, {store: crawl, share: 0.82, replace: true}, {store: b/books.txt, share: 0.135, name: prose}]"


@pytest.mark.parametrize("data", [("pool.jsonl",), ("new=pool.jsonl",)], ids=["unnamed", "named"])
def test_a_mixture_file_becomes_parts_and_shares(tmp_path: Path, data: tuple[str, ...]) -> None:
    found = with_mixture(config_of(*data, mix=written(tmp_path, MIXTURE)))
    assert found.data == ("new=pool.jsonl", "wiki=wiki.jsonl", "prose=b/books.txt")
    assert found.mix == "new=0.82,wiki=0.045,prose=0.135"
    plain = config_of(*data, mix="new=0.82,old=0.18")
    assert with_mixture(plain) is plain


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no YAML"),
        ("store: a", "no list"),
        ("[{store: a, share: 0.5}]", "sum to 0.5"),
        ("[{store: a, share: 1.5}]", "share 1.5"),
        ("[{share: 1}]", "no store"),
        ("[{store: a, share: 1, weight: 2}]", "no source"),
        ("[{store: a, share: 1, replace: maybe}]", "replace is 'maybe'"),
        ("[{store: a, share: 0.5}, {store: b/a, share: 0.5}]", "two sources are called 'a'"),
        ("[{store: 7a, share: 1}]", "called '7a'"),
    ],
    ids=["yaml", "list", "sum", "share", "store", "key", "replace", "twice", "name"],
)
def test_a_file_that_is_no_mixture_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        with_mixture(config_of("pool.jsonl", mix=written(tmp_path, text)))


def test_it_must_be_clear_which_part_takes_the_share(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names 2 parts"):
        with_mixture(config_of("a=a.jsonl", "b=b.jsonl", mix=written(tmp_path, MIXTURE)))
    with pytest.raises(UsageError, match="'wiki' is a part"):
        with_mixture(config_of("wiki=a.jsonl", mix=written(tmp_path, MIXTURE)))
    without = config_of("a=a.jsonl", mix=written(tmp_path, "[{store: b, share: 1.0}]"))
    assert with_mixture(without).mix == "a=0,b=1.0"


def test_a_run_from_a_mixture_file(texts: Path, tmp_path: Path) -> None:
    mix = written(tmp_path, f"[{{store: web, share: 0.8, replace: true}}, {{store: {texts}/old.jsonl, share: 0.2}}]")
    found = run(texts, tmp_path / "run", f"{texts}/new.jsonl", mix=mix, **{"epochs.tokens": 200})
    assert found.info["config"]["mix"] == "new=0.8,old=0.2"
    assert [entry["part"] for entry in found.info["data"]] == ["new", "old"]
