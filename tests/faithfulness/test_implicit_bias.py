"""The numbered checks of the specification of implicit_bias (docs/methods/implicit_bias.md)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import PAD, entropy
from headstart.data.languages.pcfg import PCFG
from headstart.engine.sharpness import Predictions, ProbeKind, exact_trace, fisher_trace, gradients, hutchinson_draws

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


# --- sharpness ------------------------------------------------------------------------------------------------------------------------------------

W, X = torch.tensor([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.6]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)


def regression(label: int = 0) -> tuple[dict[str, nn.Parameter], Callable[[], Tensor], Callable[[], Predictions]]:
    """Softmax regression on one example: its parameters, loss and predictions."""
    weight = nn.Parameter(W.clone())
    logits = lambda: X @ weight.T  # noqa: E731
    return {"weight": weight}, lambda: F.cross_entropy(logits(), torch.tensor([label])), lambda: Predictions(logits(), torch.ones(1))


def test_07_trace_of_softmax_regression() -> None:
    parameters, loss, predictions = regression()
    p = (X @ W.T).softmax(-1)[0]
    np.testing.assert_allclose(p, [0.206788, 0.376792, 0.416420], atol=1e-6)
    assert exact_trace([loss], parameters).mean == pytest.approx(3.209304, abs=1e-6)
    fisher = 0.0
    for y in range(3):
        own, of_label, _ = regression(y)
        square = float(gradients(of_label(), own, graph=False)[0].square().sum())
        fisher += float(p[y]) * square
        if y == 0:
            assert square == pytest.approx(4.722816, abs=1e-6)  # off the optimum the data's label gives another trace
    assert fisher == pytest.approx(3.209304, abs=1e-6)
    drawn = fisher_trace([predictions], parameters, draws=4000, relative_error=0.0)
    assert abs(drawn.mean - 3.209304) < 4 * drawn.standard_error


@pytest.mark.parametrize(("kind", "variance"), [("gaussian", 10.8655), ("rademacher", 6.0681)])
def test_08_hutchinson(kind: ProbeKind, variance: float) -> None:
    parameters, loss, _ = regression()
    draws = hutchinson_draws(loss, parameters, 20_000, kind, torch.Generator().manual_seed(1), at_once=1000).sum(1)
    assert abs(float(draws.mean()) - 3.209304) < 4 * math.sqrt(variance / 20_000)
    fourth = float((draws - draws.mean()).pow(4).mean())
    assert abs(float(draws.var()) - variance) < 4 * math.sqrt((fourth - variance**2) / 20_000)


def test_12_trace_of_a_product() -> None:
    """Logit u v, label ~ Bernoulli(sigmoid(1)): the expected loss at u v = 1 has trace p (1 - p) (u^2 + v^2)."""
    p = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))

    def trace(u: float, v: float) -> float:
        parameters = {name: nn.Parameter(torch.tensor(value, dtype=torch.float64)) for name, value in (("u", u), ("v", v))}
        loss = lambda: F.binary_cross_entropy_with_logits(parameters["u"] * parameters["v"], p)  # noqa: E731
        return exact_trace([loss], parameters).mean

    assert trace(2.0, 0.5) == pytest.approx(0.835601, abs=1e-6)
    assert trace(1.0, 1.0) == pytest.approx(0.393224, abs=1e-6)
    assert min(trace(u, 1 / u) for u in (0.9, 0.95, 1.05, 1.1)) > 0.393224


def test_11_sgd_drifts_to_the_flat_minimum() -> None:
    """4,000 runs at once, labels drawn anew in every step; and gradient descent on the expected loss, which stays where it is."""
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-1.0))
    u, v = np.full(4000, 2.0), np.full(4000, 0.5)
    found = {}
    for step in range(2001):
        if step in (0, 500, 1000, 2000):
            found[step] = float((u * u - v * v).mean())
            ends = u, v
        slope = 1 / (1 + np.exp(-u * v)) - (rng.random(4000) < p)
        u, v = u - 0.1 * slope * v, v - 0.1 * slope * u
    np.testing.assert_allclose(list(found.values()), [3.750, 1.358, 0.498, 0.067], atol=0.01)
    a, b = 2.0, 0.5
    for _ in range(2000):
        slope = 1 / (1 + np.exp(-a * b)) - p
        a, b = a - 0.1 * slope * b, b - 0.1 * slope * a
    assert a * a - b * b == pytest.approx(3.75, abs=1e-9)
    u, v = ends
    q = 1 / (1 + np.exp(-u * v))
    assert float((u * v).mean()) == pytest.approx(0.966, abs=0.01)
    assert float((q * (1 - q) * (u * u + v * v)).mean()) == pytest.approx(0.365, abs=0.01)  # the trace, from .835601
