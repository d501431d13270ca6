"""The numbered checks 1 to 8 of the ELECTRA specification: examples, masks, samples, losses, arms, as the paper or the official code has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from headstart.backbones.text import encode, mlm_logits
from headstart.core.rng import Rng
from headstart.engine.optim import OptimizerConfig, build_optimizer, set_learning_rate
from headstart.methods.electra import arms
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.examples import Example, ExampleBuilder
from headstart.methods.electra.method import Electra
from headstart.objectives.masking import apply_masking, choose_positions, masking_slots, scatter, slot_counts
from headstart.objectives.token_loss import masked_lm_loss, rtd_loss, sample_tokens
from tests.faithfulness.generator_and_discriminator import BERT_IDS, SMALL_IDS, VOCAB, batch_of, context, facts, method, small


def draws(*values: float) -> Callable[[], float]:
    left: Iterator[float] = iter(values)
    return lambda: next(left)


def lengths(example: Example) -> tuple[int, int]:
    return tuple(sum(stop - start for start, stop in segment) for segment in example)  # type: ignore[return-value]


@pytest.mark.parametrize(("coins", "expected"), [((0.5, 0.3, 0.9), (6, 3)), ((0.5, 0.7, 0.9), (3, 6)), ((0.05, 0.9), (10, 0))])
def test_01_builder(coins: tuple[float, ...], expected: tuple[int, int]) -> None:
    builder = ExampleBuilder(12, draws(*coins), lambda low, high: pytest.fail("no random length here"))
    assert builder.add_sentence(0, 3) is None
    assert builder.add_sentence(3, 6) is None
    assert builder.add_sentence(6, 10) is None
    example = builder.add_sentence(10, 15)
    assert example is not None
    assert lengths(example) == expected
    assert sum(expected) + (3 if expected[1] else 2) == 12
    assert builder.target_length == 12


def test_01_builder_random_length() -> None:
    asked: list[tuple[int, int]] = []

    def integer(low: int, high: int) -> int:
        asked.append((low, high))
        return 7

    builder = ExampleBuilder(12, draws(0.5, 0.7, 0.01), integer)
    for start, stop in [(0, 3), (3, 6), (6, 10)]:
        assert builder.add_sentence(start, stop) is None
    example = builder.add_sentence(10, 15)
    assert example is not None
    assert lengths(example) == (3, 6)
    assert asked == [(5, 12)]
    assert builder.target_length == 7
    assert builder.add_sentence(15, 19) is None
    builder.uniform = draws(0.5, 0.9)
    assert builder.end_document() is not None
    assert builder.end_document() is None  # a blank line with nothing collected does nothing
    assert builder.target_length == 12


def test_02_counts_and_candidates() -> None:
    n = torch.tensor([3, 6, 10, 30, 50, 64, 90, 100, 128])
    assert slot_counts(n, 0.15, 19).tolist() == [1, 1, 2, 4, 8, 10, 14, 15, 19]
    assert slot_counts(torch.tensor([10, 14, 128, 512]), 0.25, 130).tolist() == [2, 4, 32, 128]
    assert [masking_slots(p, s) for s, p in [(128, 0.15), (512, 0.15), (512, 0.25)]] == [19, 79, 130]
    for sampling in ("with_replacement", "without_replacement"):
        model = method(mask_sampling=sampling)
        batch = batch_of(rows=64, seed=1)
        batch["input_ids"][:, 5] = SMALL_IDS["mask"]
        batch["input_ids"][:, 6] = SMALL_IDS["pad"]
        batch["input_ids"][:, 7] = SMALL_IDS["sep"]
        batch["attention_mask"] = torch.arange(24) < torch.randint(9, 25, (64, 1), generator=torch.Generator().manual_seed(2))
        seen = []
        for step in range(20):
            masked = model.mask(batch, Rng.at(0, step, torch.arange(64)))
            used = masked.weights > 0
            assert bool(batch["attention_mask"].gather(1, masked.positions)[used].all())
            seen.append(masked.targets[used])
        chosen = set(torch.cat(seen).tolist())
        assert not chosen & {0, 2, 3, 4}
        assert chosen <= set(range(5, VOCAB))
        assert len(chosen) == VOCAB - 5


def test_02_unknown_words_may_be_chosen() -> None:
    batch = {"input_ids": torch.tensor([[2, 1, 1, 1, 3]])}
    masked = method(sequence_length=5).mask(batch, Rng.at(0, 0, torch.arange(1)))
    assert masked.targets[masked.weights > 0].tolist() == [1]


def test_03_with_replacement() -> None:
    rows, length = 2000, 128
    ids = torch.full((rows, length), 7)
    candidates = torch.ones(rows, length, dtype=torch.bool)
    candidates[:, [0, -1]] = False  # 126 candidates
    rng, n_tokens = Rng.at(0, 0, torch.arange(rows)), torch.full((rows,), length)
    positions, weights = choose_positions(rng, candidates, n_tokens, 0.15, 19, replacement=True)
    assert bool((weights == 1).all())
    distinct = torch.tensor([len(set(row)) for row in positions.tolist()], dtype=torch.float32)
    assert abs(distinct.mean() - 17.70) < 0.1
    assert abs(distinct.std() - 1.04) < 0.1
    shown = apply_masking(ids, positions, weights, 103, rng)
    assert abs((shown == 103).sum(1).float().mean() - 15.21) < 0.15
    positions, _ = choose_positions(rng, candidates, n_tokens, 0.15, 19, replacement=False)
    assert all(len(set(row)) == 19 for row in positions.tolist())


def test_04_scatter_restore_label() -> None:
    ids = torch.tensor([[101, 7, 8, 9, 102]])
    positions, weights = torch.tensor([[2, 2, 3, 0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    originals = ids.gather(1, positions)
    shown, _ = scatter(ids, positions, weights, torch.full((1, 4), 103))
    assert shown.tolist() == [[101, 7, 103, 103, 102]]  # position 0 stays
    for mean in (False, True):
        assert torch.equal(scatter(shown, positions, weights, originals, official_duplicate_mean=mean)[0], ids)
    samples = torch.tensor([[40, 60, 9, 77]])
    assert scatter(ids, positions, weights, samples, official_duplicate_mean=True)[0].tolist() == [[101, 7, 50, 9, 102]]
    ours, written = scatter(ids, positions, weights, samples)
    assert ours.tolist() == [[101, 7, 40, 9, 102]]
    assert (written & (ours != ids)).int().tolist() == [[0, 0, 1, 0, 0]]


def test_04_labels_of_the_method() -> None:
    """The corrupted text differs from the original only where a slot of weight 1 points, and there it holds the first slot's sample."""
    model, batch = method(), batch_of(rows=16, padded=True)
    rng = Rng.at(0, 3, torch.arange(16))
    masked = model.mask(batch, rng)
    generated = model.generate(batch, masked, rng)
    expected = batch["input_ids"].clone()
    written = torch.zeros_like(expected, dtype=torch.bool)
    for row in range(16):
        for slot in reversed(range(masked.positions.shape[1])):
            if masked.weights[row, slot]:
                expected[row, masked.positions[row, slot]] = generated.sampled[row, slot]
                written[row, masked.positions[row, slot]] = True
    assert torch.equal(generated.ids, expected)
    assert torch.equal(generated.written, written)
    assert not bool((generated.ids == SMALL_IDS["mask"]).logical_and(~written).any())  # the originals are back


def test_04_a_sample_that_equals_the_original_is_real() -> None:
    model, batch = method(), batch_of(rows=16)
    rng = Rng.at(0, 3, torch.arange(16))
    masked = model.mask(batch, rng)
    generated = model.generate(batch, masked, rng)
    assert float(model.main_losses(batch, masked, generated)["replaced_share"]) > 0.1
    lucky = generated._replace(ids=batch["input_ids"])  # the generator guessed every token
    losses = model.main_losses(batch, masked, lucky)
    assert float(losses["replaced_share"]) == 0
    logits = model.main.discriminator_predictions(encode(model.main.base_model, batch))
    torch.testing.assert_close(losses["disc_loss"], nn.functional.softplus(logits).mean())


def frequencies(temperature: float, disallow: bool) -> Tensor:
    n = 200_000
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(n, 4)
    uniform = Rng.at(0, 0, torch.arange(n)).uniform("sample", 1).squeeze(1)
    ids = sample_tokens(logits, uniform, temperature, torch.zeros(n, dtype=torch.int64) if disallow else None)
    return torch.bincount(ids, minlength=4) / n


def test_05_sampling() -> None:
    within = torch.tensor([0.0043, 0.0038, 0.0026, 0.0016])
    assert bool(((frequencies(1.0, False) - torch.tensor([0.64391, 0.23688, 0.08714, 0.03206])).abs() < within).all())
    cool = torch.tensor([0.86495, 0.11706, 0.01584, 0.00214])
    assert bool(((frequencies(0.5, False) - cool).abs() < 4 * (cool * (1 - cool) / 200_000).sqrt()).all())
    other = frequencies(1.0, True)
    assert other[0] == 0
    assert bool(((other[1:] - torch.tensor([0.66524, 0.24473, 0.09003])).abs() < within[:3]).all())


def test_05_disallow_correct_replaces_every_written_slot() -> None:
    for changes in ({}, {"uniform_generator": True}):
        model, batch = method(disallow_correct=True, **changes), batch_of(rows=32, padded=True)
        rng = Rng.at(0, 0, torch.arange(32))
        generated = model.generate(batch, model.mask(batch, rng), rng)
        assert torch.equal(generated.ids != batch["input_ids"], generated.written)


RTD_LOGITS = torch.tensor([[-2.0, -1.0, 0.5, 3.0], [-1.5, 2.0, 0.0, 0.0]])

RTD_LABELS = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)

RTD_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)


def test_06_loss_numbers() -> None:
    disc = rtd_loss(RTD_LOGITS, RTD_LABELS, RTD_MASK)
    assert float(disc) == pytest.approx(0.548532, abs=1e-5)
    assert float(disc) * 6 == pytest.approx(3.291195, abs=1e-5)
    logits = torch.tensor([[2.0, 1, 0, -1], [0, 0, 3, 0], [1, 1, 1, 1]])
    mlm = masked_lm_loss(logits, torch.tensor([0, 2, 0]), torch.tensor([1.0, 1.0, 0.0]))
    assert float(mlm) == pytest.approx(0.289698, abs=1e-5)
    config = ElectraConfig()
    assert float(config.gen_weight * mlm + config.disc_weight * disc) == pytest.approx(27.716321, abs=1e-5)


def test_06_the_method_adds_its_two_terms() -> None:
    model = method(gen_weight=0.7, disc_weight=30.0)
    scalars = model.loss(batch_of(padded=True), context())
    torch.testing.assert_close(scalars["loss"], 0.7 * scalars["mlm_loss"] + 30.0 * scalars["disc_loss"])
    assert not scalars["mlm_loss"].requires_grad


def gradients(model: Electra, term: str) -> set[str]:
    """Names of the parameters that a term of the loss reaches."""
    batch, ctx = batch_of(), context()
    masked = model.mask(batch, ctx.rng)
    generated = model.generate(batch, masked, ctx.rng)
    loss = generated.losses["mlm_loss"] if term == "mlm" else model.main_losses(batch, masked, generated)["disc_loss"]
    model.zero_grad()
    loss.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}


def test_07_gradient_flow() -> None:
    model = method()
    shared = {name for name, _ in model.named_parameters() if ".embeddings." in name}
    assert len(shared) == 5  # three tables and the LayerNorm, once
    from_disc, from_mlm = gradients(model, "disc"), gradients(model, "mlm")
    assert {name for name in from_disc if name.startswith("generator.")} <= shared
    assert shared <= from_disc
    assert {name for name in from_mlm if name.startswith("main.")} <= shared
    assert shared <= from_mlm
    assert any("generator_predictions" in name for name in from_mlm)
    assert any("discriminator_predictions" in name for name in from_disc)


def train(model: Electra, steps: int) -> Electra:
    optimizer = build_optimizer(model, OptimizerConfig(name="adam-uncorrected", learning_rate=1e-3, epsilon=1e-6, weight_decay=0.0))
    set_learning_rate(optimizer, 1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(batch_of(seed=step), context(step))["loss"].backward()
        optimizer.step()
    return model


def test_07_without_the_discriminator_the_generator_is_a_small_mlm() -> None:
    joint = train(method(disc_weight=0.0), 3)
    alone = method(arm="mlm", hidden_size=16, num_heads=1)  # the generator's size, as the one network of the mlm arm
    start = method(disc_weight=0.0)
    alone.main.load_state_dict(start.generator.state_dict())
    train(alone, 3)
    for name, value in alone.main.state_dict().items():
        torch.testing.assert_close(joint.generator.state_dict()[name], value, rtol=0, atol=1e-6)
    assert max(float((v - start.generator.state_dict()[n]).abs().max()) for n, v in alone.main.state_dict().items()) > 1e-3


def test_07_uniform_generator() -> None:
    model = Electra(small(uniform_generator=True), facts(30522, BERT_IDS))
    batch = {"input_ids": torch.randint(1000, 30522, (4, 24))}
    scalars = model.loss(batch, context())
    assert float(scalars["mlm_loss"]) == pytest.approx(10.326203, abs=1e-5)
    rng = Rng.at(0, 0, torch.arange(4))
    assert not model.generate(batch, model.mask(batch, rng), rng).losses["mlm_loss"].requires_grad
    assert scalars["loss"].requires_grad


def test_08_copy_gate() -> None:
    logits = torch.tensor([[[0.2, 0.8], [0.2, 0.8]]]).log()
    gate = torch.full((1, 2), math.log(0.9 / 0.1))
    nll = arms.copy_gate_nll(logits, gate, torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    assert nll.tolist()[0] == pytest.approx([0.083382, 3.912023], abs=1e-5)
    closed = arms.all_tokens_loss(logits, torch.full((1, 2), -1e4), torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), None)
    assert float(closed) == pytest.approx(-math.log(0.2), abs=1e-5)  # plain MLM over all tokens


def test_08_electra_15_is_the_mean_over_written_positions() -> None:
    written = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]], dtype=torch.bool)
    bce = nn.functional.binary_cross_entropy_with_logits(RTD_LOGITS, RTD_LABELS.float(), reduction="none")
    only = arms.discriminator_loss(RTD_LOGITS, RTD_LABELS, written, RTD_MASK, only_written=True)
    assert float(only) == pytest.approx(float(bce[written].mean()), abs=1e-5)
    torch.testing.assert_close(only, arms.discriminator_loss(RTD_LOGITS, RTD_LABELS, written, written, only_written=False))
    assert abs(float(only) - float(arms.discriminator_loss(RTD_LOGITS, RTD_LABELS, written, RTD_MASK, only_written=False))) > 0.01


def test_08_what_the_main_network_of_each_arm_sees() -> None:
    batch = batch_of()
    for arm in ("replace_mlm", "mlm", "all_tokens_mlm"):
        model = method(arm=arm)
        if model.generator is not None:
            model.generator.generator_lm_head.bias.data[SMALL_IDS["mask"]] = -1e9
        seen: list[Tensor] = []
        model.main.base_model.register_forward_hook(lambda module, args, kwargs, out, seen=seen: seen.append(kwargs["input_ids"]), with_kwargs=True)
        scalars = model.loss(batch, context())
        assert len(seen) == 1
        assert bool((seen[0] == SMALL_IDS["mask"]).any()) is (arm == "mlm")
        assert scalars["loss"].requires_grad
        expected = scalars["mlm_loss"] + scalars["main_loss"] if arm != "mlm" else scalars["mlm_loss"]
        torch.testing.assert_close(scalars["loss"], expected)


def test_08_all_tokens_method_equals_its_formula() -> None:
    model, batch, ctx = method(arm="all_tokens_mlm"), batch_of(padded=True), context()
    masked = model.mask(batch, ctx.rng)
    generated = model.generate(batch, masked, ctx.rng)
    hidden = encode(model.main.base_model, batch | {"input_ids": generated.ids})
    probability = mlm_logits(model.main, hidden).softmax(-1)
    d = model.copy_gate(hidden).sigmoid()
    mixed = d * nn.functional.one_hot(generated.ids, VOCAB) + (1 - d) * probability
    nll = -mixed.gather(-1, batch["input_ids"][..., None]).squeeze(-1).log()
    torch.testing.assert_close(model.main_losses(batch, masked, generated)["main_loss"], nll[batch["attention_mask"]].mean())
