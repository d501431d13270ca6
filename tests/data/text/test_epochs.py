"""Epochs drawn from several sources: a function of (seed, source, epoch), nothing else."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import UsageError
from headstart.data.loader import Loader
from headstart.data.text.config import TextConfig
from headstart.data.text.epoch_config import EpochsConfig
from headstart.data.text.epochs import Epochs, Source
from headstart.data.text.store import TextStore, prepare_text

END = 99


def source(first: int, n_documents: int, share: str, length: int = 7, name: str = "pool") -> Source:
    """Document d of source `first` is first + d, again and again: a token says where it comes from."""
    lengths = np.full(n_documents, length)
    tokens = np.repeat(first + np.arange(n_documents), length)
    return Source(name, Fraction(share), tokens, np.cumsum(lengths) - lengths, lengths, first, END)


def epochs(*sources: Source, tokens: int = 64, draw: str = "dynamic", seed: int = 0, length: int = 5) -> Epochs:
    return Epochs(sources, tokens, draw, seed, length, END)  # type: ignore[arg-type]


def test_the_stream_is_the_documents_joined() -> None:
    of = epochs(source(0, 20, "0.75"), source(50, 20, "0.25"))
    joined = []
    for number in range(3):
        epoch = of.epoch(number)
        for which, document in zip(epoch.source, epoch.document, strict=True):
            joined += [int(document) + 50 * int(which)] * 7 + [END]
    assert of.stream(np.arange(len(joined))).tolist() == joined
    assert [of.epoch(number).tokens_of(0) for number in range(3)] == [48, 48, 48]


def test_sources_and_seeds_and_epochs_draw_apart() -> None:
    drawn = [source(first, 50, "1").draw(seed, epoch, 80).tolist() for first, seed, epoch in ((0, 0, 0), (60, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert {len(documents) for documents in drawn} == {10}
    assert len({tuple(documents) for documents in drawn}) == 4


def test_windows_are_cut_from_the_stream_and_shuffled_within_an_epoch() -> None:
    of = epochs(source(0, 20, "1"), tokens=160)  # an epoch is the whole source: 160 tokens, 31 windows of 5 with what follows
    batch = of.batch(np.arange(64))
    stream = of.stream(np.arange(64 * 5 + 1))
    assert batch["input_ids"].reshape(-1).tolist() == stream[:-1].tolist()
    assert batch["next_ids"].reshape(-1).tolist() == stream[1:].tolist()
    parts, windows = of.locate(np.arange(64))
    assert not parts.any()
    assert sorted(windows[:31]) == list(range(31))
    assert sorted(windows[31:63]) == list(range(31, 63))
    assert windows[:31].tolist() != list(range(31))
    assert windows[:31].tolist() != (windows[31:62] - 31).tolist()


def test_a_window_may_reach_into_the_next_epoch() -> None:
    of = epochs(source(0, 20, "1"), tokens=42)  # 6 documents, 48 tokens: the tenth window begins in epoch 0 and ends in epoch 1
    firsts = np.array([of.epoch(number).n_tokens for number in range(2)])
    assert firsts.tolist() == [48, 48]
    assert of.batch(np.array([9]))["input_ids"][0].tolist() == of.stream(np.arange(45, 50)).tolist()
    assert sorted(of.locate(np.arange(10))[1])[:9] == list(range(9))  # it is of the epoch where it ends
    assert 9 not in of.locate(np.arange(9))[1]


def test_any_step_may_be_asked_for_first() -> None:
    sources = source(0, 40, "0.6"), source(50, 40, "0.4")
    in_order, late = (Loader(epochs(*sources), 8) for _ in range(2))
    batches = [in_order.batch(step) for step in range(60)]
    for step in (57, 3, 58, 20):
        again = late.batch(step)
        halves = [late.batch(step, 0, 4), late.batch(step, 4, 8)]  # two ranks
        for name, value in batches[step].items():
            assert np.array_equal(again[name], value)
            assert np.array_equal(np.concatenate([half[name] for half in halves]), value)


def test_the_seed_and_the_place_of_a_source() -> None:
    a, b = source(0, 40, "0.6"), source(50, 40, "0.4")
    there, swapped, other = epochs(a, b), epochs(b, a), epochs(a, b, seed=1)
    assert there.draws(1)[0].tolist() == swapped.draws(1)[1].tolist()  # wherever it stands among others
    assert there.draws(1)[0].tolist() != other.draws(1)[0].tolist()
    assert there.draws(1)[0].tolist()[:5] != there.draws(1)[1].tolist()[:5]  # each source has an order of its own


def test_how_many_epochs() -> None:
    of = epochs(source(0, 20, "1"), tokens=160)
    assert of.epochs(0) == [0.0]
    assert of.epochs(16) == [0.5]
    assert of.epochs(80) == [2.5]
    assert Loader(of, 16).epoch(4) == 2.0
    fixed = epochs(source(0, 20, "1"), tokens=80, draw="fixed")
    assert fixed.epochs(40) == [2.5]


def test_one_document_more_at_most() -> None:
    of = epochs(source(0, 20, "1"), tokens=17)
    assert len(of.draws(0)[0]) == 3
    assert len(epochs(source(0, 20, "1"), tokens=16).draws(0)[0]) == 2


@pytest.mark.parametrize(
    ("sources", "tokens", "why"),
    [
        ((source(0, 5, "0.5"), source(50, 5, "0.4", name="old")), 8, "sum to 0.9, not to 1 .pool 0.5, old 0.4"),
        ((source(0, 5, "0.5"), source(50, 5, "0.5", name="old")), 100, "takes 50 of pool .50.0%., which has 40 tokens"),
        ((source(0, 9, "0.9"), source(50, 0, "0.1", name="old")), 50, "takes 5 of old .10.0%., which has no text"),
        ((source(0, 9, "1.5"), source(50, 9, "-0.5")), 50, "below 0 or above 1 .pool 1.5, pool -0.5"),
        ((source(0, 9, "1"),), 0, "none of any source"),
    ],
    ids=["sum", "little", "none", "negative", "empty"],
)
def test_impossible_epochs_are_refused(sources: tuple[Source, ...], tokens: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        epochs(*sources, tokens=tokens)


def test_a_source_of_share_zero_may_have_no_text() -> None:
    of = epochs(source(0, 9, "1"), source(50, 0, "0"), tokens=50)
    assert not of.epoch(0).source.any()


@pytest.mark.parametrize("config", [EpochsConfig(tokens=0), EpochsConfig(draw="fixed")], ids=["none", "alone"])
def test_settings_that_no_run_can_have(config: EpochsConfig) -> None:
    with pytest.raises(UsageError, match=r"--epochs\.tokens"):
        config.check()


@pytest.fixture
def store(tmp_path: Path) -> TextStore:
    texts = [f"text number {number} of the store" for number in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = TextConfig(tokenizer_kind="bpe", vocab_size=300, held_out_share=0.2)
    return prepare_text([tmp_path / "a.jsonl"], tmp_path / "store", config)


def test_a_store_gives_its_training_documents(store: TextStore) -> None:
    of = Source.of(store, Fraction(1), "store")
    training = store.documents("train")
    assert 0 < len(training) < 30
    assert [of.tokens[s : s + n].tolist() for s, n in zip(of.starts, of.lengths, strict=True)] == [store.document(d).tolist() for d in training]
    end = store.special_ids["eos"]
    stream = Epochs([of], of.n_tokens, "dynamic", 0, 16, end).stream(np.arange(of.n_tokens))
    pieces = "\n".join(store.decode(piece) for piece in np.split(stream, np.flatnonzero(stream == end) + 1)[:-1])
    assert pieces.count("text number") == len(training)


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    damaged = source(0, 20, "1")
    damaged.tokens[:] = END
    with pytest.raises(UsageError, match="beyond its vocabulary"):
        epochs(damaged, tokens=160).batch(np.arange(4))
