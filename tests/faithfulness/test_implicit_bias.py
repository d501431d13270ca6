"""The numbered checks of the specification of implicit_bias (docs/methods/implicit_bias.md)."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import PAD, entropy
from headstart.data.languages.pcfg import PCFG

TWO = "S -> S1 [.6] | S2 [.4]\nS1 -> A B [1.]\nS2 -> B A [1.]\nA -> 'a' [.7] | 'b' [.3]\nB -> 'a' [.2] | 'b' [.8]"


def language(kind: str, seed: int = 0) -> PCFG:
    return PCFG(random_grammar(seed, **SIZES[kind]), f"pcfg-{kind}")


def rounded(values: object) -> list[float]:
    return [round(float(value), 6) for value in values]  # type: ignore[attr-defined]


def of_symbol(grammar: Grammar, symbol: str) -> list[tuple[str, float]]:
    return [(" ".join(rule.right), round(rule.probability, 6)) for rule in grammar.rules[symbol]]


def test_01_mini_grammar() -> None:
    grammar = language("mini").grammar
    assert rounded(grammar.root_probability) == [0.166288, 0.213974, 0.116176, 0.287861, 0.10529, 0.110412]
    roots = [grammar.rules[f"S{i}"][0].right for i in range(1, 7)]
    assert roots == [(f"A1_{a}", f"A1_{b}") for a, b in ((4, 3), (0, 1), (3, 0), (4, 2), (2, 0), (5, 5))]
    pairs = {(3, 1): 0.025302, (0, 2): 0.13653, (1, 4): 0.131759, (2, 5): 0.125284, (2, 3): 0.078111, (2, 2): 0.203018}
    assert of_symbol(grammar, "A1_0") == [*((f"A2_{a} A2_{b}", p) for (a, b), p in pairs.items()), ("0", 0.299995)]


def test_02_mini_sentences() -> None:
    mini = language("mini")
    assert mini.spell(mini.test_sentences(5)) == ["27 19 25 0", "2 16 21 18 5", "2 10", "24 0", "15 6 16 7 22 10 15 1"]


@pytest.mark.parametrize(("seed", "expected"), [(0, 10.455196), (1, 9.849744)], ids=["seed-0", "seed-1"])
def test_03_expected_length(seed: int, expected: float) -> None:
    paper = language("paper", seed)
    assert paper.grammar.expected_length == pytest.approx(expected, abs=1e-6)
    drawn = paper.draw(20_000, np.random.default_rng(7))
    assert paper.lengths(drawn).mean() == pytest.approx(expected, abs=0.08)


def test_04_inside_algorithm() -> None:
    two = PCFG(Grammar.from_text(TWO, words=["a", "b"]))
    sentences = two.read(["a b", "a a", "b a", "b b"])
    np.testing.assert_allclose(two.probabilities(sentences[:1], ["S1", "S2"]), [[0.56, 0.06]])
    np.testing.assert_allclose(two.probabilities(sentences[1:2], ["S1", "S2"]), [[0.14, 0.14]])
    assert two.tasks["A"].of(sentences[1:2]).tolist() == [0]  # a tie: the first
    np.testing.assert_allclose(two.probabilities(sentences)[:, 0], [0.36, 0.14, 0.26, 0.24])
    scores = two.probabilities(sentences[:1], ["S1", "S2"])[0] * two.grammar.root_probability
    assert scores[0] / scores.sum() == pytest.approx(0.933333, abs=1e-6)
    uneven = PCFG(Grammar.from_text(TWO.replace("[.6]", "[.05]").replace("[.4]", "[.95]"), words=["a", "b"]), root_prior=True)
    assert uneven.tasks["A"].of(sentences[:1]).tolist() == [1]  # the prior is multiplied in: .028 against .057
    uneven.root_prior = False
    assert uneven.tasks["A"].of(sentences[:1]).tolist() == [0]


def test_05_conditionals_and_the_optimum() -> None:
    two = PCFG(Grammar.from_text(TWO, words=["a", "b"]))
    sentences = two.read(["a a", "a b", "b a", "b b"])
    weights = two.probabilities(sentences)[:, 0]
    conditionals = two.conditionals(sentences)
    assert conditionals[1, 0, 0] == pytest.approx(0.6)
    of_place = weights @ entropy(conditionals)
    np.testing.assert_allclose(of_place, [0.662786, 0.642650], atol=1e-6)
    assert of_place.mean() == pytest.approx(0.652718, abs=1e-6)
    others = 0.9 * conditionals + 0.05  # any other model scores more
    assert (weights @ -(conditionals * np.log(others)).sum(-1)).mean() > of_place.mean() + 1e-4


def test_06_optimum_of_mini() -> None:
    mini = language("mini")
    assert mini.optimal_loss(mini.test_sentences(300))[0] == pytest.approx(2.5713, abs=1e-3)


def test_17_tiny() -> None:
    tiny = language("tiny")
    grammar = tiny.grammar
    assert rounded(grammar.root_probability) == [0.186927, 0.240531, 0.130595, 0.323589, 0.118358]
    roots = [grammar.rules[f"S{i}"][0].right for i in range(1, 6)]
    assert roots == [(f"A1_{a}", f"A1_{b}") for a, b in ((0, 0), (3, 2), (1, 0), (3, 0), (1, 4))]
    pairs = {(3, 3): 0.364247, (4, 1): 0.20162, (0, 4): 0.284347, (0, 2): 0.019051}
    assert of_symbol(grammar, "A1_0") == [*((f"A2_{a} A2_{b}", p) for (a, b), p in pairs.items()), ("13", 0.130735)]
    sentences = tiny.test_sentences(300)
    assert tiny.spell(sentences[:5]) == ["3 0 0 5", "12 0 0", "12 5 15", "8 6 6 15", "3 8 8 0"]
    assert int((sentences != PAD).sum()) == 1094
    assert tiny.optimal_loss(sentences)[0] == pytest.approx(1.785069, abs=1e-5)
