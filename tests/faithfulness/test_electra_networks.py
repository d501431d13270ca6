"""The numbered checks 9 to 14 of the ELECTRA specification: networks, optimiser, schedule, heads and names, as google-research/electra has them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from headstart.backbones.text import encode, encoder_config, mlm_logits
from headstart.engine.optim import OptimizerConfig, build_optimizer, parameter_groups
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.interop.electra_tf1 import from_tf1, to_tf1
from headstart.methods.electra import network
from headstart.methods.electra.config import PRESETS, ElectraConfig
from headstart.methods.electra.method import Electra
from headstart.tasks.metrics import to_bioes
from headstart.tasks.question_answering import answer_mask, mask_logits
from headstart.tasks.text_classification import regression_target
from headstart.tasks.token_classification import NO_WORD, tagging_loss
from tests.faithfulness.generator_and_discriminator import BERT_IDS, SMALL_IDS, batch_of, facts, method


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
    ("preset", "sizes_", "share", "mask", "rate", "batch", "length", "steps"),
    [
        ("tiny-paper", (4, 128, 64), 1 / 2, 0.15, 1e-3, 64, 128, None),
        ("small", (12, 256, 128), 1 / 4, 0.15, 5e-4, 128, 128, 1_000_000),
        ("base", (12, 768, 768), 0.33333, 0.15, 2e-4, 256, 512, 766_000),
        ("large", (24, 1024, 1024), 1 / 4, 0.25, 2e-4, 2048, 512, 400_000),
    ],
)
def test_presets_are_the_specifications_table(
    preset: str, sizes_: tuple[int, int, int], share: float, mask: float, rate: float, batch: int, length: int, steps: int | None
) -> None:
    """And nothing beside it: no start phase, no switch, the official losses' weights, Adam as BERT had it."""
    chosen = PRESETS[preset]
    wanted = ElectraConfig(
        num_layers=sizes_[0], hidden_size=sizes_[1], embedding_size=sizes_[2], num_heads=max(1, sizes_[1] // 64), generator_hidden_size=share,
        intermediate_size=4 * sizes_[1], max_positions=128 if preset == "tiny-paper" else 512, sequence_length=length, mask_ratio=mask, dropout=0.1,
        architecture="electra", generator_layers=1.0, untied_generator=True, untied_generator_embeddings=False, mask_sampling="with_replacement",
        official_duplicate_mean=False, temperature=1.0, disallow_correct=False, uniform_generator=False, gen_weight=1.0, disc_weight=50.0,
        arm="electra", causal_start=0, generator_start=0, blank_lines_separate_documents=True, split_long_sentences=False,
    )  # fmt: skip
    found = dataclasses.replace(chosen.method, num_heads=chosen.method.heads, intermediate_size=chosen.method.feed_forward)
    assert found == wanted
    assert (chosen.batch, chosen.steps) == (batch, steps)
    adam = {"name": "adam-uncorrected", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "weight_decay": 0.01, "clip_norm": 1.0}
    assert chosen.optimizer == adam | {"learning_rate": rate}
    assert chosen.schedule == {"name": "electra"} | ({"warmup_share": 0.1} if steps is None else {"warmup_steps": 10_000, "power": 1.0})


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
