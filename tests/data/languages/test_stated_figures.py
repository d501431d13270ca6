"""The figures that the specification of implicit_bias states of the languages beside its numbered checks, which the docs page repeats."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.hmm import HMM
from headstart.data.languages.language import PAD, Ints
from headstart.data.languages.pcfg import PCFG

pytestmark = pytest.mark.slow


@cache
def language(kind: str, seed: int = 0) -> PCFG:
    return PCFG(random_grammar(seed, **SIZES[kind]), f"pcfg-{kind}")


@cache
def long_sentences(kind: str) -> Ints:
    """Of more than four words, as the official tasks have them."""
    drawn = language(kind).draw(6_000, np.random.default_rng(5))
    return drawn[language(kind).lengths(drawn) > 4]


@pytest.mark.parametrize(
    ("seed", "unigram", "optimum"), [(0, 3.4755, 3.1270), (1, 3.3937, 2.9034), (2, 3.5358, 2.9823)], ids=["seed-0", "seed-1", "seed-2"]
)
def test_hidden_chains(seed: int, unigram: float, optimum: float) -> None:
    """The sampler is free, so both are known to 0.015."""
    chain = HMM(seed)
    assert (len(chain.words), chain.longest, chain.transition.shape) == (48, 16, (12, 12))
    assert chain.unigram_entropy == pytest.approx(unigram, abs=0.015)
    assert chain.optimal_loss(chain.test_sentences(400, seed))[0] == pytest.approx(optimum, abs=0.015)


@pytest.mark.parametrize("seed", [0], ids=["seed-0"])
def test_no_state_of_a_hidden_chain_is_much_more_probable_than_others(seed: int) -> None:
    chain = HMM(seed)
    sentences = chain.draw(4_000, np.random.default_rng(5))
    for task in ("state-6", "state-10"):
        shares = np.bincount(chain.tasks[task].of(sentences)) / len(sentences)
        assert shares.max() == pytest.approx(0.14, abs=0.03)


@pytest.mark.parametrize(("seed", "unigram", "optimum"), [(1, 3.112, 2.440), (2, 3.135, 2.255)], ids=["seed-1", "seed-2"])
def test_other_seeds_of_mini(seed: int, unigram: float, optimum: float) -> None:
    mini = language("mini", seed)
    assert mini.unigram_entropy == pytest.approx(unigram, abs=5e-3)
    assert mini.optimal_loss(mini.test_sentences(300, seed))[0] == pytest.approx(optimum, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "words", "spans", "mean", "unigram"),
    [("tiny", 12, (2, 4), 3.674528, 2.345), ("mini", 26, (2, 8), 6.41, 3.063), ("paper", 200, (2, 16), 10.455196, 5.112)],
    ids=["tiny", "mini", "paper"],
)
def test_sizes(kind: str, words: int, spans: tuple[int, int], mean: float, unigram: float) -> None:
    of = language(kind)
    assert int((of.unigram > 0).sum()) == words
    assert (int(of.grammar.shortest[0]), of.longest) == spans
    assert of.grammar.expected_length == pytest.approx(mean, abs=1e-6 if kind != "mini" else 0.05)
    assert of.unigram_entropy == pytest.approx(unigram, abs=2e-3)


def test_most_sentences_of_tiny_have_three_or_four_words_and_few_are_distinct() -> None:
    tiny = language("tiny")
    drawn = tiny.draw(20_000, np.random.default_rng(5))
    assert (tiny.lengths(drawn) >= 3).mean() == pytest.approx(0.97, abs=0.005)
    assert len(np.unique(drawn, axis=0)) == pytest.approx(4_669, rel=0.03)


def test_the_optimum_of_paper() -> None:
    """4.51 with a standard error of .04; 150 other sentences gave 4.553."""
    paper = language("paper")
    loss, error = paper.optimal_loss(paper.draw(600, np.random.default_rng(5)))
    assert error < 0.025
    assert loss == pytest.approx(4.53, abs=0.08)


@pytest.mark.parametrize(
    ("kind", "task", "share"), [("paper", "A", 0.27), ("paper", "B", 0.38), ("paper", "C", 0.15), ("mini", "A", 0.258), ("mini", "C", 0.233)]
)
def test_the_largest_class(kind: str, task: str, share: float) -> None:
    sentences = long_sentences(kind)
    labels = language(kind).tasks[task].of(sentences)
    assert np.bincount(labels).max() / len(labels) == pytest.approx(share, abs=0.02)
    assert len(language(kind).tasks["B"].classes) == len(language(kind).grammar.symbols)


@pytest.mark.parametrize(("kind", "share"), [("paper", 0.43), ("mini", 0.14)], ids=["paper", "mini"])
def test_how_many_official_labels_are_not_the_posterior_class(kind: str, share: float) -> None:
    sentences = long_sentences(kind)
    official = language(kind).tasks["A"].of(sentences)
    posterior = PCFG(language(kind).grammar, kind, root_prior=True).tasks["A"].of(sentences)
    assert (official != posterior).mean() == pytest.approx(share, abs=0.03)


def test_padding_is_no_word() -> None:
    sentences = long_sentences("mini")
    assert (sentences == PAD).any()
    assert language("mini").lengths(sentences).tolist() == [len(text.split()) for text in language("mini").spell(sentences)]
