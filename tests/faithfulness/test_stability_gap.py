"""The numbered checks of the spec of the stability gap (Guo et al. 2025, arXiv 2406.14833)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from headstart.data.text.ngram import Trigram
from headstart.data.text.pool import read_pool
from headstart.data.text.quality import Guards, Looker, apply_bounds, find_duplicates, take

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def trigram() -> Trigram:
    return Trigram.train(["a b a b a c"], min_count=1)


def test_03_witten_bell(trigram: Trigram) -> None:
    start, after = trigram.distribution(), trigram.distribution(("b", "a"))
    assert trigram.vocabulary == ["a", "b", "c"]
    assert list(start.values()) == pytest.approx([0.836364, 0.063636, 0.040909, 0.040909, 0.018182], abs=5e-7)
    assert list(after.values()) == pytest.approx([0.069091, 0.500909, 0.382727, 0.032727, 0.014545], abs=5e-7)
    assert sum(start.values()) == pytest.approx(1) == sum(after.values())


def test_04_perplexities(trigram: Trigram) -> None:
    found = trigram.score(["a b a c", "a b", "c c"])
    assert found.perplexity == pytest.approx([1.415008, 4.440788, 8.007821], abs=5e-7)
    assert -math.log(found.perplexity[0]) * 5 == pytest.approx(-1.735675, abs=5e-7)  # 5 events: the end counts
    taken = take(found.perplexity, np.array([4, 2, 2]), np.arange(3), np.zeros(3, np.int8), quota=8)
    assert taken.tolist() == [0, 1, 2]


@pytest.mark.parametrize("quota", [20, 15])
def test_05_selection_quota(quota: int) -> None:
    tokens = np.array([10, 10, 10])
    taken = take(np.array([5.0, 3.0, 9.0]), tokens, np.arange(3), np.zeros(3, np.int8), quota)
    assert (taken + 1).tolist() == [2, 1]
    assert tokens[taken].sum() == 20  # the one that crosses the quota is taken


def selected(scorer: Trigram, texts: list[str], quota: int) -> set[int]:
    """Numbers of the texts that are chosen."""
    found, order = scorer.score(texts), np.arange(len(texts))
    looker = Looker()
    fate = find_duplicates(looker.look(texts), order, found.words, looker.look([]), Guards())
    return set(take(found.perplexity, found.words + 1, order, apply_bounds(found.perplexity, fate, Guards()), quota).tolist())


def test_11_random_letters_are_never_chosen() -> None:
    texts = [document.text for name in ("textmed", "textgen") for document in read_pool([FIXTURES / name])]
    texts = [text[start : start + 2000] for text in texts for start in range(0, len(text), 2000)]
    reference, pool = texts[: len(texts) // 4], texts[len(texts) // 4 :]
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz    "), (1000, 3000))
    noise = ["".join(row) for row in letters]
    scorer = Trigram.train(reference)
    quota = int((scorer.score(pool).words + 1).sum()) // 4
    assert selected(scorer, pool + noise, quota) == selected(scorer, pool, quota)
    closed = Trigram(scorer.vocabulary, scorer.counts, unknown_types=1, min_count=2)  # without the division by U
    assert min(selected(closed, pool + noise, quota)) >= len(pool)  # then they are chosen first: nothing but noise


def test_15_open_class() -> None:
    one, two = Trigram.train(["a b a b a c"]), Trigram.train(["a b a b a c d"])
    assert one.vocabulary == two.vocabulary == ["a", "b"]
    assert (one.unknown_types, two.unknown_types) == (1, 2)
    for scorer in (one, two):
        as_word = scorer.distribution()["<unk>"] * scorer.distribution(("<no word>",))["</s>"]  # an unknown word, then the end
        assert float(scorer.score(["zzz"]).perplexity[0]) ** -2 == pytest.approx(as_word / scorer.unknown_types)
