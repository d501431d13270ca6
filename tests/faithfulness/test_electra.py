"""The numbered checks of the ELECTRA specification: hand numbers, sizes, limits and names, each as the paper or google-research/electra has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from headstart.backbones.text import encode, encoder_config, mlm_logits
from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.engine.optim import OptimizerConfig, build_optimizer, parameter_groups, set_learning_rate
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.interop.electra_tf1 import from_tf1, to_tf1
from headstart.methods.electra import arms, network
from headstart.methods.electra.config import PRESETS, ElectraConfig
from headstart.methods.electra.examples import Example, ExampleBuilder
from headstart.methods.electra.method import Electra
from headstart.objectives.masking import apply_masking, choose_positions, masking_slots, scatter, slot_counts
from headstart.objectives.token_loss import masked_lm_loss, rtd_loss, sample_tokens
from headstart.tasks.metrics import to_bioes
from headstart.tasks.question_answering import answer_mask, mask_logits
from headstart.tasks.text_classification import regression_target
from headstart.tasks.token_classification import NO_WORD, tagging_loss

BERT_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
SMALL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB = 60


def facts(vocab_size: int = VOCAB, special_ids: dict[str, int] | None = None) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(tokenizer=None, special_ids=special_ids or SMALL_IDS, vocab_size=vocab_size, unigram_entropy=math.log(vocab_size))


def small(**changes: Any) -> ElectraConfig:
    settings: dict[str, Any] = {
        "num_layers": 2, "hidden_size": 32, "num_heads": 2, "embedding_size": 16, "generator_hidden_size": 0.5,
        "max_positions": 24, "sequence_length": 24, "dropout": 0.0, "mask_ratio": 0.25,
    }  # fmt: skip
    return ElectraConfig(**settings | changes)


def method(seed: int = 0, **changes: Any) -> Electra:
    torch.manual_seed(seed)
    return Electra(small(**changes), facts())


def batch_of(rows: int = 4, length: int = 24, vocab: int = VOCAB, seed: int = 0, padded: bool = False) -> dict[str, Tensor]:
    ids = torch.randint(5, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = 2, 3
    if not padded:
        return {"input_ids": ids}
    mask = torch.ones(rows, length, dtype=torch.bool)
    for row in range(rows):
        mask[row, length - 3 * row :] = False
    mask[0] = True
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask}


def context(step: int = 0, rows: int = 4, phase: str = "joint") -> Context:
    return Context(step, 100, phase, Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


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


def storage(model: nn.Module, *names: str) -> set[int]:
    state = model.state_dict()
    return {state[name].untyped_storage().data_ptr() for name in names}


def test_09_tying() -> None:
    model = method()
    word = "electra.embeddings.word_embeddings.weight"
    assert len(storage(model, f"main.{word}", f"generator.{word}", "generator.generator_lm_head.weight")) == 1
    for name in ("position_embeddings.weight", "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"):
        assert len(storage(model, f"main.electra.embeddings.{name}", f"generator.electra.embeddings.{name}")) == 1, name
    apart = method(embedding_size=32, generator_hidden_size=0.5)
    assert len(storage(apart, "main.electra.encoder.layer.0.output.dense.bias", "generator.electra.encoder.layer.0.output.dense.bias")) == 2
    assert hasattr(apart.generator.electra, "embeddings_project")
    assert not hasattr(apart.main.electra, "embeddings_project")


def sizes(config: ElectraConfig, vocab: int) -> tuple[int, int, int, Any]:
    """Parameters of (both networks, the discriminator's encoder, the generator as it is exported), and the generator."""
    with torch.device("meta"):
        generator, main = network.build(config, vocab, BERT_IDS)
    both = sum(p.numel() for p in nn.ModuleList([generator, main]).parameters())
    return both, sum(p.numel() for p in main.base_model.parameters()), sum(p.numel() for p in generator.parameters()), generator


@pytest.mark.parametrize(
    ("preset", "vocab", "joint", "encoder", "generator", "width", "heads"),
    [
        ("tiny-paper", 4096, 1_296_961, 1_072_000, None, 64, 1),
        ("small", 30522, 14_196_219, 13_483_008, 4_620_026, 64, 1),
        ("base", 30522, 119_386_427, 108_891_648, None, 256, 4),
        ("large", 30522, 354_655_291, 334_092_288, None, 256, 4),
    ],
)
def test_09_sizes(preset: str, vocab: int, joint: int, encoder: int, generator: int | None, width: int, heads: int) -> None:
    found = sizes(PRESETS[preset].method, vocab)
    assert found[0] == joint
    assert found[1] == encoder
    assert generator is None or found[2] == generator
    assert (found[3].config.hidden_size, found[3].config.num_attention_heads) == (width, heads)
    assert PRESETS[preset].method.heads == {"tiny-paper": 2, "small": 4, "base": 12, "large": 16}[preset]


def test_09_sizes_of_the_other_tying_rules() -> None:
    released = sizes(ElectraConfig(generator_hidden_size=1.0), 30522)
    assert released[2] == 13_546_682
    tied, _, _, _ = sizes(ElectraConfig(), 30522)
    untied, _, _, generator = sizes(ElectraConfig(untied_generator_embeddings=True), 30522)
    tables = sum(p.numel() for p in generator.electra.embeddings.parameters())  # with their LayerNorm
    assert tables == 1_986_432
    assert not hasattr(generator.electra, "embeddings_project")
    assert generator.generator_lm_head.weight.shape == (30522, 64)
    assert untied != tied
    one, _, _, _ = sizes(ElectraConfig(untied_generator=False), 30522)
    with torch.device("meta"):
        discriminator = ElectraForPreTraining(encoder_config("electra", **network._settings(ElectraConfig(), 30522, BERT_IDS)))
    alone = sum(p.numel() for p in discriminator.parameters())
    assert one - alone == 256 * 128 + 128 + 2 * 128 + 30522  # dense, LayerNorm, output bias: the MLM head alone


def test_09_initialisation() -> None:
    torch.manual_seed(0)
    _, main = network.build(ElectraConfig(num_layers=2), 3000, BERT_IDS)
    for name, parameter in main.named_parameters():
        p = parameter.detach()
        if name.endswith("LayerNorm.weight"):
            assert bool((p == 1).all()), name
        elif name.endswith("bias"):
            assert bool((p == 0).all()), name
        elif "embeddings_project" in name or "dense_prediction" in name:
            bound = math.sqrt(6 / sum(p.shape))  # Glorot uniform
            assert 0.9 * bound < float(p.abs().max()) <= bound, name
        else:
            assert float(p.abs().max()) <= 0.04, name
            assert 0.0165 < float(p.std()) < 0.0187 or p.numel() < 1000, name  # .02 * .8796, a normal cut at two deviations


def test_10_adam() -> None:
    def run(name: str, gradients: list[float], learning_rate: float = 1e-3) -> list[float]:
        layer = nn.Linear(1, 1, bias=False)
        layer.weight.data.fill_(0.2)
        optimizer = build_optimizer(layer, OptimizerConfig(name=name, learning_rate=learning_rate, epsilon=1e-6, weight_decay=0.01))  # type: ignore[arg-type]
        values = []
        for g in gradients:
            layer.weight.grad = torch.full((1, 1), g)
            optimizer.step()
            values.append(layer.weight.item())
        return values

    assert run("adam-uncorrected", [0.5, 0.5, -0.25]) == pytest.approx([0.19683592, 0.19258455, 0.19003013], abs=2e-8)
    assert run("adamw", [0.5])[0] == pytest.approx(0.198998, abs=1e-6)
    for gradient in (0.5, 50.0):
        step = 0.2 * (1 - 1e-5) - run("adam-uncorrected", [gradient])[0]
        assert step == pytest.approx(0.1 / math.sqrt(0.001) * 1e-3, rel=1e-3)


def test_10_what_decays() -> None:
    model = method()
    groups = parameter_groups(model.named_parameters(), OptimizerConfig(name="adam-uncorrected", weight_decay=0.01))
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    for name, value in decay.items():
        assert value == (0.0 if "LayerNorm" in name or name.endswith("bias") else 0.01), name
    assert any(value for name, value in decay.items() if "word_embeddings" in name)  # the word table does decay


def test_11_schedule() -> None:
    config = ScheduleConfig(name="electra", warmup_steps=10_000)
    rates = [5e-4 * multiplier(t, 1_000_000, config) for t in (0, 5000, 10_000, 500_000, 1_000_000)]
    assert rates == pytest.approx([0, 2.4875e-4, 4.95e-4, 2.5e-4, 0], abs=1e-12)
    finetune = ScheduleConfig(name="electra", warmup_share=0.1)
    assert [3e-4 * multiplier(t, 1000, finetune) for t in (50, 100, 550)] == pytest.approx([1.425e-4, 2.7e-4, 1.35e-4], abs=1e-12)
    for name in ("small", "base", "large"):
        assert (PRESETS[name].schedule["name"], PRESETS[name].schedule["warmup_steps"]) == ("electra", 10_000)


@pytest.mark.parametrize(
    ("layers", "gap", "expected"),
    [
        (12, True, {"embeddings": 0.0439805, 0: 0.0549756, 11: 0.64, "head": 1.0}),
        (4, True, {"embeddings": 0.262144, 0: 0.32768, 1: 0.4096, 2: 0.512, 3: 0.64, "head": 1.0}),
        (4, False, {"embeddings": 0.32768, 0: 0.4096, 1: 0.512, 2: 0.64, 3: 0.8, "head": 1.0}),
    ],
)
def test_12_layer_wise_decay(layers: int, gap: bool, expected: dict[Any, float]) -> None:
    with torch.device("meta"):
        encoder = ElectraForPreTraining(encoder_config("electra", **network._settings(ElectraConfig(num_layers=layers), 100, SMALL_IDS))).electra
        model = nn.ModuleDict({"encoder": encoder, "classifier": nn.Linear(256, 2)})
    groups = parameter_groups(model.named_parameters(), OptimizerConfig(layer_decay=0.8, official_llrd_gap=gap))
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())  # each in exactly one group
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    for place, value in expected.items():
        part = {"embeddings": "embeddings", "head": "classifier."}.get(place, f"layer.{place}.")
        matching = {scale[name] for name in names if part in name}
        assert len(matching) == 1, place
        assert matching.pop() == pytest.approx(value, abs=1e-7), place


def test_13_heads() -> None:
    assert regression_target(np.array([5.0, 1.0]), 1.0, 5.0).tolist() == [0.8, 0.0]
    mask = answer_mask(torch.tensor([[1, 1, 1, 1, 1, 0]]), torch.tensor([[0, 0, 0, 1, 1, 0]]))
    logits = mask_logits(torch.tensor([[0.0, 5, 5, 1, 2, 9]]), mask)
    assert logits.softmax(-1)[0].tolist() == pytest.approx([0.0900, 0, 0, 0.2447, 0.6652, 0], abs=5e-5)
    assert float(nn.functional.cross_entropy(logits, torch.tensor([3]))) == pytest.approx(1.407606, abs=1e-6)
    assert to_bioes(["O", "B-X", "I-X", "I-X", "O", "B-Y"]) == ["O", "B-X", "I-X", "E-X", "O", "S-Y"]
    tags = torch.full((2, 12), NO_WORD)
    tags[0, 1:3], tags[1, 1:11] = 2, 4  # a two-word and a ten-word sentence
    assert float(tagging_loss(torch.zeros(2, 12, 5), tags)) == pytest.approx(19.313255, abs=1e-5)


def tf1_arrays(layers: int = 12, vocab: int = 200, e: int = 128, h: int = 256, g: int = 64, positions: int = 512) -> dict[str, np.ndarray]:
    """A checkpoint with the official names and the shapes of ELECTRA-Small (a shorter vocabulary), random values."""
    shapes: dict[str, tuple[int, ...]] = {
        "electra/embeddings/word_embeddings": (vocab, e), "electra/embeddings/position_embeddings": (positions, e),
        "electra/embeddings/token_type_embeddings": (2, e), "electra/embeddings/LayerNorm/gamma": (e,), "electra/embeddings/LayerNorm/beta": (e,),
        "discriminator_predictions/dense/kernel": (h, h), "discriminator_predictions/dense/bias": (h,),
        "discriminator_predictions/dense_1/kernel": (h, 1), "discriminator_predictions/dense_1/bias": (1,),
        "generator_predictions/dense/kernel": (g, e), "generator_predictions/dense/bias": (e,),
        "generator_predictions/LayerNorm/gamma": (e,), "generator_predictions/LayerNorm/beta": (e,), "generator_predictions/output_bias": (vocab,),
    }  # fmt: skip
    for scope, width in (("electra", h), ("generator", g)):
        shapes |= {f"{scope}/embeddings_project/kernel": (e, width), f"{scope}/embeddings_project/bias": (width,)}
        for layer in range(layers):
            at = f"{scope}/encoder/layer_{layer}"
            for name in ("query", "key", "value"):
                shapes |= {f"{at}/attention/self/{name}/kernel": (width, width), f"{at}/attention/self/{name}/bias": (width,)}
            dense = {"attention/output/dense": (width, width), "intermediate/dense": (width, 4 * width), "output/dense": (4 * width, width)}
            for name, shape in dense.items():
                shapes |= {f"{at}/{name}/kernel": shape, f"{at}/{name}/bias": shape[1:]}
            for name in ("attention/output", "output"):
                shapes |= {f"{at}/{name}/LayerNorm/gamma": (width,), f"{at}/{name}/LayerNorm/beta": (width,)}
    random = np.random.default_rng(0)
    return {name: random.normal(1.0 if name.endswith("gamma") else 0.0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def test_14_names() -> None:
    arrays = tf1_arrays()
    assert sum(name.startswith("electra/encoder") for name in arrays) == 12 * 16
    optimiser = ("global_step", "electra/encoder/layer_0/output/dense/kernel/adam_m", "generator_predictions/output_bias/adam_v")
    discriminator, generator = from_tf1(arrays | {name: np.zeros(1) for name in optimiser})

    settings = network._settings(ElectraConfig(), 200, SMALL_IDS)
    disc = ElectraForPreTraining(encoder_config("electra", **settings)).eval()
    gen = ElectraForMaskedLM(encoder_config("electra", **settings | {"hidden_size": 64, "num_heads": 1, "intermediate_size": 256})).eval()
    for model, state in ((disc, discriminator), (gen, generator)):
        result = model.load_state_dict(state, strict=False)
        assert result.missing_keys == []
        assert result.unexpected_keys == []

    ours = Electra(ElectraConfig(dropout=0.0), facts(200)).eval()
    ours.main.load_state_dict(discriminator)
    ours.generator.load_state_dict(generator)
    ids = batch_of(rows=2, length=32, vocab=200)["input_ids"]
    with torch.no_grad():
        judged = ours.main.discriminator_predictions(encode(ours.main.electra, {"input_ids": ids}))
        torch.testing.assert_close(judged, disc(ids).logits, rtol=0, atol=1e-5)
        guessed = mlm_logits(ours.generator, encode(ours.generator.electra, {"input_ids": ids}))
        torch.testing.assert_close(guessed, gen(ids).logits, rtol=0, atol=1e-5)
        assert float(disc(ids).logits.std()) > 1e-3  # the weights arrived
        # one layer by hand, in TensorFlow's orientation: x @ kernel + bias
        x = torch.randn(3, 256)
        kernel, bias = (torch.from_numpy(arrays[f"electra/encoder/layer_3/intermediate/dense/{name}"]) for name in ("kernel", "bias"))
        by_hand = x @ kernel + bias
        torch.testing.assert_close(disc.electra.encoder.layer[3].intermediate.dense(x), by_hand)

    back = to_tf1(disc.state_dict(), gen.state_dict())
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(back[name], array), name


def test_14_names_of_untied_embeddings() -> None:
    arrays = tf1_arrays(layers=1)
    del arrays["generator/embeddings_project/kernel"], arrays["generator/embeddings_project/bias"]
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm/gamma", "LayerNorm/beta"):
        shape = (*arrays[f"electra/embeddings/{name}"].shape[:-1], 64)
        arrays[f"generator/embeddings/{name}"] = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    discriminator, generator = from_tf1(arrays)
    assert generator["electra.embeddings.word_embeddings.weight"].shape == (200, 64)
    assert discriminator["electra.embeddings.word_embeddings.weight"].shape == (200, 128)
    back = to_tf1(discriminator, generator)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
