"""ELECTRA's training rows over a real store."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.examples import build_examples
from headstart.methods.electra.rows import electra_rows, sentence_bounds

WORDS = ["the", "pump", "was", "switched", "off", "at", "noon", "and", "pressure", "fell", "within", "two", "minutes", "so", "a", "valve", "opened"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    """Two files of many documents, a sentence of three to twelve words a line."""
    folder = tmp_path_factory.mktemp("text")
    coins = random.Random(0)
    for name in ("a.txt", "b.txt"):
        documents = ["\n".join(" ".join(coins.choices(WORDS, k=coins.randint(3, 12))) for _ in range(coins.randint(2, 9))) for _ in range(150)]
        (folder / name).write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    config = TextConfig(document_split="blank-line", vocab_size=300, held_out_share=0.1, near_duplicate_share=1.0, workers=1)
    return prepare_text([folder / "a.txt", folder / "b.txt"], tmp_path_factory.mktemp("store"), config)


def config(**changes: object) -> ElectraConfig:
    return ElectraConfig(**{"sequence_length": 24, **changes})  # type: ignore[arg-type]


def test_rows_are_cls_a_sep_b_sep(store: TextStore) -> None:
    rows = electra_rows(store, config())
    cls_id, sep_id, pad_id = (store.special_ids[name] for name in ("cls", "sep", "pad"))
    assert len(rows) > 200
    for ids, length, second in zip(rows.ids, rows.lengths, rows.second, strict=True):
        assert ids[0] == cls_id
        assert ids[length - 1] == sep_id
        assert (ids[length:] == pad_id).all()
        assert (ids == sep_id).sum() == (2 if second < length else 1)
        if second < length:
            assert ids[second - 1] == sep_id
    batch = rows.batch(np.arange(64))
    assert set(batch["token_type_ids"][batch["attention_mask"]].tolist()) == {0, 1}
    assert rows.report["rows_without_maskable_token"] == 0


def test_rows_hold_only_their_split_and_lose_only_what_is_cut(store: TextStore) -> None:
    special = sorted(store.special_ids.values())
    for split in ("train", "held_out"):
        wanted = np.concatenate([store.document(i) for i in store.documents(split)])
        rows = electra_rows(store, config(sequence_length=400), split)  # longer than any document: nothing is cut
        found = rows.ids[~np.isin(rows.ids, special)]
        assert len(found) == len(wanted[~np.isin(wanted, special)])
        assert np.array_equal(np.bincount(found, minlength=store.vocab_size), np.bincount(wanted, minlength=store.vocab_size))


def test_sentences_stay_in_their_documents(store: TextStore) -> None:
    documents = [bounds for file in range(2) for bounds in sentence_bounds(store, "train", file)]
    assert len(documents) == len(store.documents("train"))
    for index, bounds in zip(store.documents("train"), documents, strict=True):
        assert (bounds[0], bounds[-1]) == tuple(store.document_offsets[index : index + 2])
        assert len(bounds) - 1 == len(store.sentences(index))


def test_coins_depend_on_seed_and_file_name(store: TextStore) -> None:
    documents = list(sentence_bounds(store, "train", 0))

    def examples(seed: int, name: str) -> list[object]:
        return list(build_examples(documents, 24, seed, name))

    assert examples(0, "a.txt") == examples(0, "a.txt")
    assert examples(0, "a.txt") != examples(1, "a.txt")
    assert examples(0, "a.txt") != examples(0, "b.txt")
    other = electra_rows(store, config(example_seed=1))
    assert other.folder != electra_rows(store, config()).folder
    assert electra_rows(store, config()).folder == electra_rows(store, config()).folder


def test_shares_of_single_and_random_length_examples(store: TextStore) -> None:
    """A long text: one example in ten has one segment by choice, one in twenty is followed by one of random length."""
    bounds = np.arange(0, 400_001, 4)  # one document of sentences of 4 tokens
    examples = list(build_examples([bounds], 64, 0, "x"))
    single = np.mean([not example.second for example in examples])
    lengths = np.array([sum(stop - start for segment in example for start, stop in segment) for example in examples])
    assert 0.08 < single < 0.13
    assert 0.03 < np.mean(lengths < 60) < 0.06


def test_documents_may_run_on_over_blank_lines(store: TextStore) -> None:
    apart = electra_rows(store, config())
    joined = electra_rows(store, config(blank_lines_separate_documents=False))
    assert len(joined) < len(apart)
    assert joined.lengths.mean() > apart.lengths.mean() + 3


@pytest.mark.parametrize(
    ("lines", "apart", "said"),
    [
        (["the pump", "was off", "at noon"] * 400, 2, "a line has 2.0 tokens on average, under 5"),
        (["the pump was switched off at noon"] * 900, 0, "all 6,300 tokens are one document"),
        (["the pump was switched off at noon"] * 900, 3, ""),
    ],
    ids=["short lines", "one document", "as it should be"],
)
def test_odd_text_is_said_with_its_numbers(lines: list[str], apart: int, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [line + "\n" * (1 + bool(apart and number % apart == 0)) for number, line in enumerate(lines, 1)]
    (tmp_path / "a.txt").write_text("".join(texts), encoding="utf-8")
    settings = TextConfig(document_split="blank-line", vocab_size=300, held_out_share=0.0, workers=1)
    electra_rows(prepare_text([tmp_path / "a.txt"], tmp_path / "store", settings), config())
    assert said in caplog.text if said else caplog.text == ""


def test_segments_follow_the_official_order_even_when_a_short_sentence_comes_late() -> None:
    """The second condition is asked of every sentence: a short one may still go to A after B has begun (build_pretraining_dataset.py)."""
    bounds = np.array([0, 3, 13, 15, 25])  # 3, 10, 2 and 10 tokens; target (20 - 3) // 2 = 8
    for seed in range(40):
        (example,) = build_examples([bounds], 20, seed, "x")
        if example.second and example.second[0] == (3, 13):
            assert example.first == [(0, 3), (13, 15)]
            assert example.second == [(3, 13), (25 - 10, 25 - 10 + 2)]
            return
    pytest.fail("no seed put the second sentence into B")
