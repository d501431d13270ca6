"""Our classifier is fastText's: same numbers from the same file, both ways, and it learns."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.curate.classify import cleaned, stem
from headstart.curate.fasttext import FEW, Classifier, FastTextConfig, load_classifier, save_classifier, settings_for, split, train
from headstart.curate.fasttext_file import read_fasttext, write_fasttext
from tests.curate.crawl import MATHS, SHOES

SMALL = FastTextConfig(dim=8, learning_rate=0.5, word_ngrams=3, min_count=1, epochs=5, bucket=500)


def documents(seed: int = 0, n: int = 40) -> tuple[list[str], list[str]]:
    random_ = random.Random(seed)
    filler = ["the", "of", "and", "to", "a", "in", "is", "that", "é", "数学"]
    return tuple([" ".join(random_.choices(words + filler, k=30)) for _ in range(n)] for words in (MATHS, SHOES))  # type: ignore[return-value]


def official(model: object, text: str) -> float:
    return dict(zip(*model.predict(text, k=2), strict=True))["__label__positive"]  # type: ignore[attr-defined]


def test_it_learns_and_forgets_nothing_in_a_file(tmp_path: Path) -> None:
    model = train(*documents(), replace(SMALL, learning_rate=1.0, epochs=40))
    positive, negative = documents(seed=1)
    assert model.positive(positive).min() > 0.7
    assert model.positive(negative).max() < 0.3
    save_classifier(model, tmp_path / "model.safetensors")
    write_fasttext(model, tmp_path / "model.bin")
    for name in ("model.safetensors", "model.bin"):
        assert (load_classifier(tmp_path / name).predict(positive) == model.predict(positive)).all(), name
    assert isinstance(load_classifier(tmp_path / "model.safetensors").vectors, np.memmap), "the workers of a machine share it"


def test_documents_that_are_taken_apart_in_each_pass_teach_the_same() -> None:
    held, anew = (train(*documents(), replace(SMALL, word_ngrams=3, epochs=3), held_rows) for held_rows in (10**6, 0))
    assert held.words == anew.words
    assert (held.vectors == anew.vectors).all()
    assert (held.output == anew.output).all()


def test_the_official_package_gives_our_file_the_same_probabilities(tmp_path: Path) -> None:
    import fasttext

    model = train(*documents(), SMALL)
    write_fasttext(model, tmp_path / "ours.bin")
    loaded = fasttext.load_model(str(tmp_path / "ours.bin"))
    for text in [*documents(seed=2)[0], "unseen words only", "é 数学 theorem"]:
        assert official(loaded, text) == pytest.approx(float(model.positive([text])[0]), abs=2e-5)


@pytest.mark.parametrize("quantised", [False, True])
def test_we_give_an_official_file_the_same_probabilities(quantised: bool, tmp_path: Path) -> None:
    import fasttext

    positive, negative = documents()
    lines = [f"__label__positive {text}" for text in positive] + [f"__label__negative {text}" for text in negative]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    settings = {"dim": 8, "bucket": 500, "wordNgrams": 3, "minCount": 1, "lr": 0.5, "epoch": 5, "thread": 1, "verbose": 0}
    trained = fasttext.train_supervised(str(tmp_path / "train.txt"), **settings)
    if quantised:
        trained.quantize(input=str(tmp_path / "train.txt"), qnorm=True, cutoff=300)
    trained.save_model(str(tmp_path / "official.ftz"))
    ours = load_classifier(tmp_path / "official.ftz")
    assert (ours.pruned is not None) is quantised
    for text in [*documents(seed=3)[0], *documents(seed=3)[1]]:
        assert float(ours.positive([text])[0]) == pytest.approx(official(trained, text), abs=2e-5)


def test_one_update_is_fasttexts() -> None:
    """Two documents, one pass, one word each, worked by hand: mean, softmax, output first with the old hidden vector, then the words."""
    config = FastTextConfig(dim=2, learning_rate=0.4, word_ngrams=1, min_count=1, epochs=1, bucket=0, seed=0)
    model = train(["a"], ["b"], config)
    order = np.random.default_rng(0).permutation(2)
    random_ = np.random.default_rng([0, 1])
    vectors = random_.random((3, 2), dtype=np.float32) * 2 / 2 - 0.5  # </s>, a, b
    output = np.zeros((2, 2), dtype=np.float32)
    for step, which in enumerate(order):
        rows, rate = [1 + which, 0], 0.4 * (1 - step * 2 / 4)
        hidden = vectors[rows].mean(axis=0)
        powers = np.exp(output @ hidden)
        pull = rate * ((np.arange(2) == which) - powers / powers.sum())
        gradient = pull @ output / 2
        output += np.outer(pull, hidden)
        vectors[rows] += gradient
    assert list(model.words) == ["</s>", "a", "b"]
    assert np.allclose(model.vectors, vectors, atol=1e-6)
    assert np.allclose(model.output, output, atol=1e-6)


def test_few_documents_take_other_settings_and_say_so() -> None:
    said: list[str] = []
    assert settings_for(120, None, said.append) == FEW
    assert "few" in said[0]
    assert settings_for(10_000, None, said.append) == FastTextConfig()
    assert settings_for(120, SMALL, said.append) == SMALL
    assert len(said) == 1
    assert settings_for(9_999, None, said.append) == FEW
    assert FastTextConfig() == FastTextConfig(dim=256, learning_rate=0.1, word_ngrams=3, min_count=3, epochs=3, bucket=2_000_000)
    assert (FEW.dim, FEW.learning_rate, FEW.word_ngrams, FEW.epochs, FEW.bucket) == (64, 0.5, 1, 25, 100_000)


def test_a_text_is_one_line_and_its_end_a_word() -> None:
    assert split(" a\tb\nc\0d ") == ["a", "b", "c", "d", "</s>"]
    assert split("") == ["</s>"]


def test_cleaning_keeps_formulas_and_drops_the_rest() -> None:
    assert cleaned(r"Let $x_{1}=\frac{3.14}{2}$ — Théorème! --- ___ «a» #") == (
        r"let $ x _ { <NUM> } = \frac { <NUM> } { <NUM> } $ théorème ! - _ a"
    )
    assert cleaned("x" * 101 + " y") == "y"
    assert cleaned("equations theories classes solved bus", stem) == "equation theory class solv bus"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.safetensors", b"{}", "cannot be read as a classifier"),
        ("a.bin", b"\x00" * 100, "no fastText model"),
        ("a.bin", b"\xba\x16\x4f\x2f\x0c\x00\x00\x00" + b"\x01" * 30, "damaged or cut off"),
        ("a.bin", b"", "damaged or cut off"),
    ],
    ids=["no safetensors", "other magic", "cut off", "empty"],
)
def test_a_file_that_is_no_classifier_is_refused(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=says):
        load_classifier(tmp_path / name)


def test_a_damaged_file_takes_no_more_memory_than_a_whole_one(tmp_path: Path) -> None:
    write_fasttext(train(*documents(), SMALL), tmp_path / "m.bin")
    whole = (tmp_path / "m.bin").read_bytes()
    random_ = random.Random(0)
    tracemalloc.start()
    for _ in range(200):
        data = bytearray(whole[: random_.choice([len(whole), random_.randrange(len(whole))])])
        for _ in range(3):
            data[random_.randrange(min(len(data), 400))] = random_.randrange(256)
        (tmp_path / "m.bin").write_bytes(bytes(data))
        try:
            read_fasttext(tmp_path / "m.bin")
        except BadInput:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(whole), "its numbers may ask for any size"


def test_other_labels_are_refused(tmp_path: Path) -> None:
    model = train(*documents(), SMALL)
    save_classifier(Classifier(model.words, ["__label__spam", "__label__ham"], model.vectors, model.output, model.config), tmp_path / "m.safetensors")
    with pytest.raises(BadInput, match="__label__spam"):
        load_classifier(tmp_path / "m.safetensors")


def test_one_side_alone_teaches_nothing() -> None:
    with pytest.raises(BadInput, match="no negative documents"):
        train(["a"], [], SMALL)
    with pytest.raises(BadInput, match="No word occurs 3 times"):
        train(["a"], ["b"], FastTextConfig(min_count=3))
