"""The checks of webmath's training: 3 (reader side), 13 and 14. Those of its pipeline are beside, one file for each part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from headstart import methods
from headstart.backbones.perceiver import PerceiverResampler, ResamplerConfig, from_flamingo, from_idefics
from headstart.core.config import replace_nested
from headstart.core.rng import Rng
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.documents import Image, Text
from headstart.data.interleaved.head import documents
from headstart.data.text.read import joined
from headstart.engine.method import Context
from headstart.engine.schedules import multiplier
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain
from tests.data.interleaved.conftest import page, write_images, write_lines
from tests.interleaved import TINY, write_pages, write_tower
from tests.running import records


def built(slug: str, store: Any, config: dict[str, Any], init: Path | None = None) -> Any:
    method_class = methods.load(slug)
    torch.manual_seed(0)
    return method_class(replace_nested(preset_config(method_class, "tiny")[1].method, config), store, init)


def context(rows: int, phase: str = "train") -> Context:
    return Context(0, 10, phase, Rng.at(0, 0, torch.arange(rows)), torch.device("cpu"))


def of_group(group: str) -> dict[str, Any]:
    return {name.removeprefix(f"{group}."): value for name, value in TINY.items() if name.startswith(f"{group}.")}


# --- 3 ----------------------------------------------------------------------------------------------------------------------------------------------


def test_03_what_is_read_of_a_released_document_joins_to_its_marked_text(tmp_path: Path) -> None:
    """Every text and every image at its place, from parquet as released and from jsonl; without images the text that any language model reads."""
    written = [page(n, f"{n}.png" if n % 3 else None) for n in range(12)]
    write_images(tmp_path, 12)
    pq.write_table(pa.table({name: [record[name] for record in written] for name in written[0]}), tmp_path / "released.parquet")
    write_lines(tmp_path / "released.jsonl", written)
    for name in ("released.parquet", "released.jsonl"):
        found = [document for _, document in documents([tmp_path / name], InterleavedConfig())]
        assert len(found) == 12
        for record, document in zip(written, found, strict=True):
            mark = "[Image_Link]{}[Image_Link]".format
            places = zip(record["text_list"], record["image_list"], strict=True)
            assert "".join(piece.text if isinstance(piece, Text) else mark(piece.name) for piece in document.pieces) == "".join(
                mark(image) if text is None else text for text, image in places
            )
            texts = [piece.text for piece in document.pieces if isinstance(piece, Text)]
            assert joined(record["text_list"]) == "\n".join(texts)
            assert sum(isinstance(piece, Image) for piece in document.pieces) == sum(image is not None for image in record["image_list"])


# --- 13 ---------------------------------------------------------------------------------------------------------------------------------------------


def test_13_parameters_of_the_papers_resampler() -> None:
    with torch.device("meta"):
        resampler, projection = PerceiverResampler(ResamplerConfig(1152, depth=3, latents=64, heads=16, dim_head=72)), nn.Linear(1152, 2048)
    assert sum(parameter.numel() for parameter in resampler.parameters()) == 47_872_512
    assert sum(parameter.numel() for parameter in projection.parameters()) == 2_361_344
    assert [name for name, _ in resampler.named_parameters() if name.endswith("bias") and ".norm" not in name and not name.startswith("norm")] == [
        f"layers.{layer}.1.0.bias" for layer in range(3)  # the norm before the MLP: no linear layer has one
    ]


@pytest.mark.parametrize("patches", [729, 100])
def test_13_as_many_tokens_whatever_the_number_of_patches_and_their_order(patches: int) -> None:
    torch.manual_seed(0)
    resampler = PerceiverResampler(ResamplerConfig(32, depth=3, latents=64, heads=4, dim_head=8)).double()
    features = torch.randn(2, patches, 32, dtype=torch.float64)
    tokens = resampler(features)
    assert tokens.shape == (2, 64, 32)
    torch.testing.assert_close(resampler(features[:, torch.randperm(patches)]), tokens)
    assert not torch.allclose(resampler(features.flip(0)), tokens), "it does look at the features"


def test_13_the_block_is_flamingos() -> None:
    """Against the equations, written out: z += Attn(q = LN z, k = v = [LN x; LN z]); z += W2 GELU(W1 LN z); a norm at the end."""
    torch.manual_seed(0)
    resampler = PerceiverResampler(ResamplerConfig(8, depth=1, latents=3, heads=2, dim_head=5)).double()
    assert float(resampler.latents.detach().std()) < 0.05
    x, (attention, mlp) = torch.randn(1, 7, 8, dtype=torch.float64), resampler.layers[0]
    z = resampler.latents[None]
    q = attention.to_q(attention.norm_latents(z))
    k, v = attention.to_kv(torch.cat([attention.norm_media(x), attention.norm_latents(z)], 1)).chunk(2, -1)
    heads = []
    for head in range(2):
        part = slice(5 * head, 5 * head + 5)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 5**0.5
        heads.append(scores.softmax(-1) @ v[..., part])
    z = z + attention.to_out(torch.cat(heads, -1))
    z = z + mlp[3](nn.functional.gelu(mlp[1](mlp[0](z))))
    torch.testing.assert_close(resampler(x), resampler.norm(z))
    assert mlp[1].out_features == 4 * 8


def test_13_idefics_weights_give_idefics_tokens_and_flamingos_load_by_name() -> None:
    from transformers import IdeficsConfig

    torch.manual_seed(0)
    sizes = {"vision_config": {"embed_dim": 16}, "perceiver_config": {"qk_layer_norms_perceiver": False}}
    theirs = IdeficsPerceiverResampler(IdeficsConfig(**sizes), embed_dim=16, depth=2, n_heads=2, head_dim=6, n_latents=5)
    shape = ResamplerConfig(16, depth=2, latents=5, heads=2, dim_head=6, activation="relu")
    ours = PerceiverResampler(shape)
    ours.load_state_dict(from_idefics({f"model.perceiver_resampler.{name}": value for name, value in theirs.state_dict().items()}))
    features = torch.randn(3, 9, 16)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-4, atol=1e-5)
    again = PerceiverResampler(shape)
    flamingo = {f"perceiver.{name}": value for name, value in ours.state_dict().items()}
    again.load_state_dict(from_flamingo(flamingo | {"perceiver.frame_embs": torch.zeros(1), "lang_encoder.x": torch.zeros(1)}))
    assert torch.equal(again(features), ours(features))


def test_13_the_stages_of_the_paper() -> None:
    """Its table of stages: rates, AdamW, cosine, and what a row holds."""
    rates = {"alignment": 1e-4, "continued": 5e-5, "instruction": 5e-6}
    for stage, rate in rates.items():
        config = preset_config(methods.load("interleaved-lm"), f"paper-{stage}")[1]
        method, optimizer = config.method, config.optimizer
        assert (method.stage, method.sequence_length, method.max_images, method.latents, method.resampler_layers) == (stage, 4096, 32, 64, 3)
        assert (optimizer.learning_rate, optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (rate, 0.9, 0.95, 0.1)
        assert config.schedule.name == "cosine"
        assert config.interleaved.image_size == 384
    assert [5e-6 * multiplier(step, 20_000, config.schedule) for step in (1000, 2000, 20_000)] == pytest.approx([2.5e-6, 5e-6, 5e-7])


# --- 14 ---------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("webmath")
    return write_pages(folder / "data"), write_tower(folder / "tower")


def test_14_alignment_has_gradients_in_resampler_and_projection_only(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    pages, tower = corpus
    store = methods.load("interleaved-lm").prepare([pages], tmp_path / "store", InterleavedConfig(**of_group("interleaved")))
    for stage, expected in (("alignment", {"resampler", "projection"}), ("continued", {"resampler", "projection", "model"})):
        method = built("interleaved-lm", store, of_group("method") | {"vision_tower": str(tower), "stage": stage})
        (phase,) = method.phases(10)
        for name, parameter in method.named_parameters():
            parameter.requires_grad_(phase.trainable(name))
        batch = {name: torch.from_numpy(value) for name, value in method.rows(store, method.config).batch(np.arange(4)).items()}
        method.loss(batch, context(4))["loss"].backward()
        gradients = {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}
        assert {name.split(".")[1] for name in gradients} == expected
        assert all(bool(gradient.abs().sum() > 0) for name, gradient in gradients.items() if name.startswith("network.resampler"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["alignment", "continued", "instruction"])
def test_14_what_is_frozen_in_a_stage_is_bit_equal_after_it(stage: str, corpus: tuple[Path, Path], tmp_path: Path) -> None:
    pages, tower = corpus
    if stage == "instruction":
        asked = [{"images": [f"{n % 12}.png"], "question": "what is <image> ?", "answer": f"number {n % 12}"} for n in range(40)]
        pages = write_lines(pages.with_name("asked.jsonl"), asked)
    steps = {"budget.steps": 4, "trainer.checkpoint_every": 2, "trainer.log_every": 1}
    given = TINY | steps | {"method.stage": stage, "method.vision_tower": str(tower)}
    run = pretrain("interleaved-lm", pages, out=tmp_path / "run", say=lambda line: None, **given)
    from safetensors.torch import load_file

    before, after = load_file(tower / "model.safetensors"), load_file(run.export / "vision_tower" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    first = built_first(run.info["data"][0]["store"], tower, stage)
    changed = {part for part in ("model", "resampler", "projection") for name, value in moved(first, run.export, part)}
    assert changed == ({"resampler", "projection"} if stage == "alignment" else {"model", "resampler", "projection"})
    assert len(records(run.folder, "metrics")) == 4


def built_first(store: str, tower: Path, stage: str) -> Any:
    """The network with the first weights of seed 0."""
    method = methods.load("interleaved-lm")
    return built("interleaved-lm", method.open_store(Path(store)), of_group("method") | {"vision_tower": str(tower), "stage": stage})


def moved(first: Any, export: Path, part: str) -> list[tuple[str, torch.Tensor]]:
    """The parameters of a part that are no longer those of the beginning."""
    from headstart.methods.interleaved_lm.network import read_network

    after = dict(getattr(read_network(export), part).named_parameters())
    return [(name, value) for name, value in getattr(first.network, part).named_parameters() if not torch.equal(value, after[name])]


def test_14_a_document_of_text_alone_has_exactly_the_plain_models_loss(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    """To the bit, while training and evaluating: the same weights in causal-lm, the same rows."""
    _, tower = corpus
    texts = write_lines(tmp_path / "texts.jsonl", [{"text": f"The sum of {n} and {n * 7 % 5} is {n + n * 7 % 5}."} for n in range(60)])
    store = methods.load("interleaved-lm").prepare([texts], tmp_path / "store", InterleavedConfig(**of_group("interleaved")))
    method = built("interleaved-lm", store, of_group("method") | {"vision_tower": str(tower)})
    method.export(tmp_path / "export")
    plain_store = methods.load("causal-lm").prepare(
        [texts], tmp_path / "plain", methods.load("causal-lm").DataConfig(tokenizer=str(store.folder / "tokenizer.json"))
    )
    plain = built("causal-lm", plain_store, {"sequence_length": 64}, init=tmp_path / "export")
    rows = method.rows(store, method.config)
    batch = {name: torch.from_numpy(value) for name, value in rows.batch(np.arange(len(rows))).items()}
    assert not batch.keys() & {"images", "image_slots"}
    assert "attention_mask" in batch
    for mode in (True, False):
        ours, theirs = method.train(mode).loss(batch, context(len(rows))), plain.train(mode).loss(batch, context(len(rows)))
        assert torch.equal(ours["loss"], theirs["loss"])
        assert torch.equal(ours["weight"], theirs["weight"])
    whole = {"input_ids": batch["input_ids"][:2, :20]}
    assert torch.equal(method.loss(whole, context(2))["loss"], plain.loss(whole, context(2))["loss"])


def test_14_only_text_tokens_are_targets_and_in_the_last_stage_only_answers(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    """Against the same sums made by hand from the logits."""
    pages, tower = corpus
    asked = pages.with_name("asked-too.jsonl")
    write_lines(asked, [{"images": [f"{n % 12}.png"], "question": "what is <image> ?", "answer": f"it is {n}"} for n in range(12)])
    method_class = methods.load("interleaved-lm")
    store = method_class.prepare([asked], tmp_path / "store", InterleavedConfig(**of_group("interleaved")))
    for stage in ("continued", "instruction"):
        method = built("interleaved-lm", store, of_group("method") | {"vision_tower": str(tower), "stage": stage})
        rows = method.rows(store, method.config)
        values = rows.batch(np.arange(len(rows)))
        batch = {name: torch.from_numpy(value) for name, value in values.items()}
        logits = method.network.model.get_output_embeddings()(method.hidden_states(batch))
        log_p = logits.log_softmax(-1)
        terms = []
        for row in range(len(rows)):
            for place in range(1, int(rows.lengths[row])):
                is_text = "image_slots" not in values or values["image_slots"][row, place] == 0
                if is_text and (stage == "continued" or not values["unasked"][row, place]):
                    terms.append(-log_p[row, place - 1, values["input_ids"][row, place]])
        found = method.loss(batch, context(len(rows)))
        assert int(found["weight"]) == len(terms)
        torch.testing.assert_close(found["loss"], torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
