"""The numbered checks of the specification of implicit_bias (docs/methods/implicit_bias.md)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from headstart.backbones.text import build_masked_lm
from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import PAD, entropy
from headstart.data.languages.pcfg import PCFG
from headstart.data.text.config import TextConfig
from headstart.data.text.prepare import prepare_text
from headstart.engine.method import Context, Predictions
from headstart.engine.sharpness import ProbeKind, exact_trace, fisher_trace, gradients, hutchinson_draws, measured_parameters
from headstart.interop.enlarge import enlarge
from headstart.methods.mlm.config import MLMConfig
from headstart.methods.mlm.method import MLM
from headstart.tasks.exact_loss import Words, masked_loss, scored
from headstart.tasks.language_probe import linear_probe, probe_features
from headstart.verbs._measure_settings import SharpnessSettings
from headstart.verbs.measure import rows_of, sharpness_of
from headstart.verbs.pretrain import Run, pretrain
from headstart.verbs.sample import load_run

TWO = "S -> S1 [.6] | S2 [.4]\nS1 -> A B [1.]\nS2 -> B A [1.]\nA -> 'a' [.7] | 'b' [.3]\nB -> 'a' [.2] | 'b' [.8]"


ON_TINY: dict[str, Any] = {
    "batch": 32,
    "budget.steps": 5,
    "precision": "fp32",
    "device": "cpu",
    "trainer.evaluate_rows": 32,
    "method.architecture": "roberta-prelayernorm",
    "method.hidden_size": 16,
    "method.num_layers": 1,
    "method.num_heads": 2,
    "method.intermediate_size": 24,
    "method.sequence_length": 6,
    "method.packing": "single",
    "method.causal_start": 0,
}


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
    target = torch.tensor([label])
    return {"weight": weight}, lambda: F.cross_entropy(logits(), target), lambda: Predictions(logits(), target, torch.ones(1))


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


# --- sizes ----------------------------------------------------------------------------------------------------------------------------------------


def pre_norm(hidden: int, layers: int, heads: int, intermediate: int, positions: int = 8, vocabulary: int = 19) -> Any:
    """A small pre-LN encoder with its head, float64, weights of standard deviation 0.4; norms are not at 1 and 0."""
    torch.manual_seed(0)
    ids = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
    sizes = {"hidden_size": hidden, "num_layers": layers, "num_heads": heads, "intermediate_size": intermediate}
    model = build_masked_lm("roberta-prelayernorm", vocab_size=vocabulary, max_length=positions, dropout=0.0, special_ids=ids, **sizes)
    model = model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "orm.weight" in name or "norm.weight" in name else 0.0, std=0.4)
    return model


def logits(model: Any) -> Tensor:
    ids = torch.tensor([[2, 7, 9, 11, 3, 0], [2, 8, 3, 0, 0, 0]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=ids != 0).logits


def test_09_a_small_network_in_a_large_one_computes_the_same() -> None:
    small = pre_norm(8, 2, 2, 12)
    large = enlarge(small, pre_norm(24, 3, 6, 36).config)
    assert float((logits(large) - logits(small)).abs().max()) < 1e-8

    # heads that are not multiplied: another softmax
    other = copy.deepcopy(large.config)
    other.num_attention_heads = 2
    wrong = type(large)(other).double().eval()
    wrong.load_state_dict(large.state_dict())
    assert float((logits(wrong) - logits(small)).abs().max()) > 0.01
    with pytest.raises(UsageError, match="num_attention_heads 2, not 6"):
        enlarge(small, other)

    # no norm after the embeddings: the division by n is not undone
    for model in (small, large):
        model.base_model.embeddings.LayerNorm = nn.Identity()
    assert float((logits(large) - logits(small)).abs().max()) > 0.01


def test_10_zero_layers_add_nothing() -> None:
    small = pre_norm(8, 2, 2, 12)
    deeper = enlarge(small, pre_norm(8, 5, 2, 12).config)
    assert torch.equal(logits(deeper), logits(small))


# --- masking, probes, the lookup arm, the meter ---------------------------------------------------------------------------------------------------


def test_05_a_model_is_scored_over_its_whole_vocabulary_one_hidden_place_at_a_time() -> None:
    """By hand: always [MASK] at one place, mass on tokens that are no words costs, the mean is over all places of all sentences."""
    tiny = language("tiny")
    sentences = tiny.test_sentences(12)
    model = pre_norm(16, 1, 2, 24, positions=8, vocabulary=25).float()  # five specials, 16 words, four tokens that are none
    words = Words(torch.arange(16) + 5, 2, 3, 4, 0)
    truth, losses = tiny.conditionals(sentences), []
    for row, sentence in enumerate(sentences):
        known = [word for word in sentence.tolist() if word != PAD]
        for place in range(len(known)):
            ids = torch.tensor([[2, *(word + 5 for word in known), 3]])
            ids[0, place + 1] = 4
            with torch.no_grad():
                q = model(input_ids=ids).logits[0, place + 1].double().softmax(-1)[5:21].numpy()
            assert q.sum() < 0.999
            losses.append(-(truth[row, place] * np.log(q + 1e-12)).sum())
    found = masked_loss(model, tiny, sentences, words, torch.device("cpu"))
    assert found.places == len(losses)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.optimum == pytest.approx(tiny.optimal_loss(sentences)[0])


def test_14_the_probe_is_the_official_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW at 1e-3 with decay .01, batches of 512, 50 epochs, dropout .1 on the features; 50 steps up, then down in a line to 0."""
    features, labels = torch.randn(1100, 6, generator=torch.Generator().manual_seed(0)), torch.arange(1100) % 3
    steps, dropped, plain = [], [], F.dropout

    def dropout(x: Tensor, p: float) -> Tensor:
        dropped.append((len(x), p))
        return plain(x, p)

    def seen(optimizer: torch.optim.Optimizer, given: Any, named: Any) -> None:
        steps.append((type(optimizer), optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))

    monkeypatch.setattr(F, "dropout", dropout)
    hook = register_optimizer_step_pre_hook(seen)
    try:
        linear_probe(features, labels, features[:5], 3, seed=0)
    finally:
        hook.remove()
    assert dropped == [(512, 0.1), (512, 0.1), (76, 0.1)] * 50
    assert {(kind, decay) for kind, _, decay in steps} == {(torch.optim.AdamW, 0.01)}
    rates = [rate for _, rate, _ in steps]
    assert rates[:50] == pytest.approx([1e-3 * (step + 1) / 50 for step in range(50)])
    assert rates[50:] == pytest.approx([1e-3 * (150 - step) / 100 for step in range(50, 150)])


@pytest.fixture(scope="module")
def tiny_mlm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run on `tiny`."""
    folder = tmp_path_factory.mktemp("tiny")
    return pretrain("mlm", "builtin:pcfg-tiny?sentences=4000", out=folder / "run", say=lambda line: None, **ON_TINY)


def test_13_masking(tmp_path: Path) -> None:
    store = prepare_text(["builtin:pcfg-paper?sentences=300"], tmp_path / "store", TextConfig())
    config = MLMConfig(num_layers=1, hidden_size=16, sequence_length=40, most_masked=5, random_from="words", mask_ratio=0.15)
    method = MLM(config, store)

    def batch(words: int, rows: int) -> dict[str, Tensor]:
        ids = torch.full((rows, 40), 0)
        ids[:, : words + 2] = torch.tensor([2, *range(10, 10 + words), 3])
        return {"input_ids": ids, "attention_mask": ids != 0}

    def context(rows: int) -> Context:
        return Context(0, 1, "masked", Rng.at(0, 0, torch.arange(rows)), torch.device("cpu"))

    for words, masks in ((16, 3), (4, 1), (34, 5), (38, 5)):
        positions, weights = method.choose(batch(words, 3), context(3))
        assert weights.sum(1).tolist() == [masks] * 3
        assert ((positions >= 1) & (positions <= words))[weights > 0].all()  # never a special token

    many = batch(16, 7000)
    positions, weights = method.choose(many, context(7000))
    masked = method.hide(many, context(7000), positions, weights).gather(1, positions)
    assert masked.numel() >= 20_000
    kept = weights > 0
    assert float((masked[kept] == 4).float().mean()) == pytest.approx(0.8, abs=0.01)
    same = masked[kept] == many["input_ids"].gather(1, positions)[kept]
    assert float(same.float().mean()) == pytest.approx(0.1 + 0.1 / 200, abs=0.01)
    assert masked[kept].min() >= 4  # random words are words: no [PAD], [UNK], [CLS] or [SEP]


def test_14_a_probe_sees_places() -> None:
    paper = language("paper")
    model = pre_norm(16, 1, 2, 24, positions=20, vocabulary=205).float()
    sentences = paper.read(["87 123 98 68 171", "123 87 98 68 171"])
    words = Words(torch.arange(200) + 5, 2, 3, 4, 0)
    features = probe_features(model, sentences, words, 18, torch.device("cpu"))
    assert features.shape == (2, 18 * 16)
    ids = torch.full((2, 20), words.pad)
    ids[:, :7] = torch.tensor([[2, *(word + 5 for word in sentence), 3] for sentence in sentences[:, :5].tolist()])
    states = model.base_model(input_ids=ids, attention_mask=(torch.arange(20) < 7).expand(2, 20)).last_hidden_state
    torch.testing.assert_close(features, states[:, 1:19].flatten(1))  # not of [CLS]; of padding too
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    bag = torch.eye(200)[torch.from_numpy(sentences[:, :5])].mean(1)  # a mean of words does not see the order
    assert torch.allclose(bag[0], bag[1])
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.5
    assert torch.equal(probe_features(model.train(), sentences, words, 18, torch.device("cpu")), features)  # the encoder is in evaluation mode
    assert not torch.allclose(probe_features(model, sentences, words, 18, torch.device("cpu"), dropout=True), features)  # as in the official script
    assert not model.training


def test_15_the_lookup_table_is_optimal_and_has_no_trace() -> None:
    tiny = language("tiny")
    sentences = tiny.test_sentences(300)
    truth = tiny.conditionals(sentences)
    found = scored(truth, np.log(np.where(truth > 0, truth, 1e-300)), sentences != PAD)
    assert abs(found.excess) < 1e-9
    assert scored(truth, np.log(0.99 * truth + 0.01 / 16), sentences != PAD).excess > 1e-3
    with pytest.raises(UsageError, match="no parameters"):
        measured_parameters(nn.Module())


def test_16_the_meter_changes_nothing(tiny_mlm: Run) -> None:
    method, store, _ = load_run(tiny_mlm.folder)
    method.train()
    next(method.parameters()).requires_grad_(False)
    settings = SharpnessSettings(tiny_mlm.folder, batch=16, batches=2, probes=3, iterations=2)
    weights = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.get_rng_state()
    sharpness_of(method, rows_of(method, store, settings), settings, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
    assert method.training
    assert not next(method.parameters()).requires_grad
    assert all(parameter.grad is None for parameter in method.parameters())
