"""The numbered checks of the specification of self-distillation, and its interchange of weights."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.claims.self_distill import recipe
from headstart.core.errors import Diverged, UsageError
from headstart.core.rng import Rng
from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.config import OptimizerConfig
from headstart.engine.flops import count_flops
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import build_optimizer
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.trainer import Trainer, TrainerConfig
from headstart.engine.trial import Decisions
from headstart.engine.update import Update
from headstart.interop.vit import read_vit
from headstart.interop.vit_names import to_transformers
from headstart.interventions.self_distill.config import SETTINGS, SelfDistillConfig
from headstart.interventions.self_distill.intervention import SelfDistill, copy_state, feature_distance
from headstart.methods.causal_lm.config import CausalLMConfig
from headstart.methods.causal_lm.method import CausalLM
from headstart.methods.droppos.config import DropPosConfig
from headstart.methods.droppos.method import DropPos
from headstart.methods.mae.config import PRESETS, MAEConfig
from headstart.methods.mae.method import MAE
from headstart.methods.mlm.config import MLMConfig
from headstart.methods.mlm.method import MLM
from headstart.tasks.image_classification import build, parameter_groups
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData
from tests.faithfulness.test_mae import NoWaiting, context, facts, pixels, small, twin
from tests.running import records

ROWS, BATCH = 20, 8


def mae(seed: int = 0, **changes: Any) -> MAE:
    torch.manual_seed(seed)
    return MAE(small(**{"crop_smallest": 1.0, "flip": 0.0, **changes}), facts())


def mlm(dropout: float = 0.0, **changes: Any) -> MLM:
    torch.manual_seed(0)
    sizes = {"architecture": "bert", "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "sequence_length": 16}
    return MLM(MLMConfig(**{**sizes, "dropout": dropout, **changes}), texts())


def droppos() -> DropPos:
    """Its loss sums two means over different items."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_layers": 2, "num_heads": 3, "decoder_hidden_size": 32, "decoder_layers": 1, "decoder_heads": 4}
    return DropPos(DropPosConfig(**sizes, multi_task=True, crop_smallest=1.0, flip=0.0), facts())


def texts() -> Any:
    """What a method on texts reads of a store."""
    ids = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "bos": 2, "eos": 3}
    return SimpleNamespace(
        vocab_size=50, special_ids=ids, tokenizer=None, unigram_entropy=3.0, continues_word=np.zeros(50, bool), require_specials=lambda *names: None
    )


def words(rows: int = BATCH, padded: bool = False) -> Batch:
    ids = torch.randint(5, 50, (rows, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(16) < 16 - torch.arange(rows)[:, None]
    return {"input_ids": ids.where(mask, 0), "attention_mask": mask} if padded else {"input_ids": ids}


def distilled(method: Method | None = None, **settings: Any) -> SelfDistill:
    found = SelfDistill(method or mae(), SelfDistillConfig(**{"rounds": 1, **settings}), seed=0)
    found.train()
    return found


def at(phase: str = "student", rows: int = 6, step: int = 0) -> Context:
    return Context(step, 100, phase, Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


@torch.no_grad()
def moved(method: Method, by: float = 0.02) -> Method:
    """The same with other weights."""
    generator = torch.Generator().manual_seed(7)
    for value in method.parameters():
        value += by * torch.randn(value.shape, generator=generator)
    return method


def apart(**settings: Any) -> SelfDistill:
    """A student that is no longer where its teacher is."""
    found = distilled(**settings)
    moved(found.teacher)
    return found


class Pixels:
    """Rows of random images."""

    unit, length = "images", 1

    def __init__(self) -> None:
        self.images = pixels(ROWS)["images"].numpy()
        self.n_tokens = self.n_documents = ROWS

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": self.images[rows]}


class Watched(SelfDistill):
    """Keeps what the networks were when each stage began."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.began: dict[str, dict[str, dict[str, Tensor]]] = {}

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        if ctx.step == 0:
            self.began.setdefault(ctx.phase, {name: weights(getattr(self, name)) for name in ("inner", "initial", "teacher")})
        return super().loss(batch, ctx)


def weights(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainer(folder: Path, steps: int, method: Method | None = None, rate: float = 1e-2, seed: int = 0, **settings: Any) -> Trainer:
    """A run of the wrapped method on twenty images."""
    own = {name: settings.pop(name) for name in list(settings) if name in ("stop_at", "log_every", "checkpoint_every", "ema_decay")}
    wrapped = Watched(method or mae(), SelfDistillConfig(**{"rounds": 1, **settings}), seed)
    loader = Loader(Mixture(wrapped.training_rows([Pixels()]), None, seed, by="rows"), BATCH)
    names = [phase.name for phase in wrapped.phases(steps)]
    decisions = Decisions(
        total_steps=steps, precision="fp32", micro_batch=BATCH, threads=1, compile=False, cuda_graph=False, why={}, peak_flops=1e9,
        flops_per_step=dict.fromkeys(names, 1), seconds_per_step=dict.fromkeys(names, 1e-3),
    )  # fmt: skip
    run = RunFolder(folder)
    run.update(status="running")
    return Trainer(
        wrapped,
        run,
        loader,
        held_out=None,
        optimizer=OptimizerConfig(learning_rate=rate, beta2=0.95, clip_norm=None),
        schedule=ScheduleConfig("linear", warmup_share=0.0),
        config=TrainerConfig(**{"log_every": 1, "checkpoint_every": 3, "keep_checkpoints": 99, **own}),
        decisions=decisions,
        device=torch.device("cpu"),
        seed=seed,
        say=lambda line: None,
    )


def curve(folder: Path) -> list[tuple[str, float, float, float]]:
    return [(line["phase"], line["loss"], line["gradient_norm"], line["learning_rate"]) for line in records(folder, "metrics")]


# --- the numbered checks ----------------------------------------------------------------------------------------------------------------------------


def test_01_distance_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0]], requires_grad=True)
    distance = feature_distance(student, teacher)
    assert float(distance.detach()) == 5.0, "summed over the features: a mean would give 1.6667"
    assert distance.dtype == torch.float32
    distance.backward()
    assert student.grad is not None
    assert torch.equal(student.grad.float(), torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, -2.0]]))
    assert teacher.grad is None


def test_02_at_theta_init_the_distance_is_exactly_zero() -> None:
    model = distilled()
    alone = model.inner.loss(pixels(), context())["loss"]
    alone.backward()
    wanted = {name: p.grad.clone() for name, p in model.inner.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = model.loss(pixels(), at())
    found["loss"].backward()
    assert float(found["distance"]) == 0.0
    assert torch.equal(found["loss"], alone)
    for name, p in model.inner.named_parameters():
        assert torch.equal(p.grad, wanted[name]), name


def test_02_with_stored_features_it_is_below_a_millionth() -> None:
    model = distilled(features="stored")
    parts = model.training_rows([Pixels()])
    assert model.numbered is not None
    model._store_features(model.numbered)
    batch = {name: torch.from_numpy(value) for name, value in parts[0].batch(np.array([3, 17, 5, 0])).items()}
    found = model.loss(batch, at(rows=4))
    assert float(found["distance"]) < 1e-6
    moved(model.teacher)
    assert float(model.loss(batch, at(rows=4))["distance"]) < 1e-6, "the table answers, not the teacher"
    del batch["row"]
    assert float(model.loss(batch, at(rows=4))["distance"]) > 1e-2


def test_03_the_student_starts_at_theta_init_and_the_teacher_stays(tmp_path: Path) -> None:
    run = trainer(tmp_path, 8)
    before = weights(run.method.inner)
    run.fit()
    model = run.method
    assert same(model.began["teacher"]["inner"], before)
    assert same(model.began["student"]["inner"], before)
    after_stage_1 = load_checkpoint(tmp_path / "checkpoints" / "step-00000003")[1]["method"]
    assert not torch.equal(after_stage_1["inner.encoder.cls_token"], before["encoder.cls_token"])
    teacher = model.began["student"]["teacher"]
    assert not same(teacher, before)
    assert same(weights(model.teacher), teacher)
    assert not same(weights(model.inner), teacher)
    assert same(weights(model.initial), before)


def test_03_the_teacher_is_the_last_step_of_stage_1(tmp_path: Path) -> None:
    run = trainer(tmp_path, 6)
    run.fit()
    saved = load_checkpoint(tmp_path / "checkpoints" / "step-00000003")[1]["method"]
    for name, value in run.method.began["student"]["teacher"].items():
        assert torch.equal(saved[f"inner.{name}"], value), name


def test_04_the_teacher_is_frozen_and_draws_nothing() -> None:
    model = distilled(mlm(dropout=0.3))
    assert not any(p.requires_grad for p in (*model.teacher.parameters(), *model.initial.parameters()))
    assert not any(module.training for module in model.teacher.modules())
    assert model.inner.training
    state = torch.get_rng_state()
    target = model.target(words(), model.own(at(rows=BATCH)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not target.requires_grad
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(float(model.loss(words(), at(rows=BATCH))["objective"]))
        moved(model.teacher)
    assert losses[0] == losses[1]
    trained = {name for group in build_optimizer(model, OptimizerConfig()).param_groups for name in group["names"]}
    assert trained == {f"inner.{name}" for name, _ in model.inner.named_parameters()}


def test_05_the_distance_reaches_the_encoder_alone() -> None:
    model = apart(objective=False)
    model.loss(pixels(), at())["loss"].backward()
    for name, p in model.inner.named_parameters():
        if name.startswith("decoder."):
            assert p.grad is None, name
        else:
            assert float(p.grad.abs().max()) > 0, name
    assert {"encoder.cls_token", "encoder.patch_embed.proj.weight", "encoder.blocks.1.attn.qkv.weight"} <= dict(model.inner.named_parameters()).keys()
    assert {"decoder.mask_token", "decoder.decoder_pred.weight"} <= dict(model.inner.named_parameters()).keys()


def test_06_without_the_distance_stage_2_repeats_stage_1(tmp_path: Path) -> None:
    trainer(tmp_path, 8, weight=0.0).fit()
    found = curve(tmp_path)
    assert [line[0] for line in found] == ["teacher"] * 4 + ["student"] * 4
    assert [line[1:] for line in found[:4]] == [line[1:] for line in found[4:]]
    assert all("distance" not in line for line in records(tmp_path, "metrics")), "the pass over the complete rows is left out"


def test_07_one_backward_pass_is_two_that_add_up() -> None:
    model = apart()
    model.loss(pixels(), at())["loss"].backward()
    summed = {name: p.grad.clone() for name, p in model.inner.named_parameters()}
    model.zero_grad()
    model.inner.loss(pixels(), context())["loss"].backward()
    feature_distance(model.inner.feature(pixels(), context()), model.target(pixels(), context())).backward()
    for name, p in model.inner.named_parameters():
        torch.testing.assert_close(p.grad, summed[name], rtol=1e-5, atol=1e-6)


def test_08_no_mask_changes_the_features() -> None:
    model = apart()
    first, second = at(step=0), at(step=1)
    assert not torch.equal(model.inner.split(first.rng).keep, model.inner.split(second.rng).keep)
    assert torch.equal(model.target(pixels(), first), model.target(pixels(), second))
    found = [model.loss(pixels(), ctx) for ctx in (first, second)]
    assert float(found[0]["distance"]) == float(found[1]["distance"]) > 0
    assert float(found[0]["objective"]) != float(found[1]["objective"])


def test_08_augmented_rows_are_seen_alike_by_both() -> None:
    model = distilled(mae(crop_smallest=0.3, flip=0.5))
    assert float(model.loss(pixels(), at())["distance"]) == 0.0
    assert not torch.equal(model.inner.feature(pixels(), at(step=0)), model.inner.feature(pixels(), at(step=1)))


def test_09_each_stage_has_the_whole_schedule(tmp_path: Path) -> None:
    trainer(tmp_path, 8, rate=1e-3).fit()
    assert [line[3] for line in curve(tmp_path)] == pytest.approx([1e-3 * (4 - t) / 4 for t in range(4)] * 2)
    fine_tuning = ScheduleConfig("linear", warmup_steps=500)
    assert [multiplier(step, 10_000, fine_tuning) for step in (0, 250, 500, 5_250, 10_000)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_10_the_parts_equal_those_of_transformers() -> None:
    model = apart()
    noise = at().rng.uniform("mask", 64)
    peer = twin(model.inner)
    found = model.loss(pixels(), at())
    images = model.inner.plain(pixels())
    torch.testing.assert_close(found["objective"], peer(pixel_values=images, noise=noise).loss.detach(), rtol=1e-5, atol=1e-5)
    peer.vit.config.mask_ratio = 0.0
    peer.vit.embeddings.config.mask_ratio = 0.0
    order = torch.arange(64).expand(6, -1).float()
    with torch.no_grad():
        whole = peer.vit(images, noise=order).last_hidden_state[:, 0]
    torch.testing.assert_close(model.inner.feature(pixels(), at()), whole, rtol=1e-4, atol=1e-5)


def test_11_the_student_of_a_round_teaches_the_next(tmp_path: Path) -> None:
    run = trainer(tmp_path, 9, rounds=2)
    before = weights(run.method.inner)
    run.fit()
    model = run.method
    assert [line[0] for line in curve(tmp_path)] == ["teacher"] * 3 + ["student"] * 3 + ["student 2"] * 3
    first_student = load_checkpoint(tmp_path / "checkpoints" / "step-00000006")[1]["method"]
    for name, value in model.began["student 2"]["teacher"].items():
        assert torch.equal(first_student[f"inner.{name}"], value), name
    assert same(model.began["student 2"]["inner"], before)
    assert not same(model.began["student"]["teacher"], model.began["student 2"]["teacher"])


def test_12_the_student_ends_nearer_to_its_teacher_than_it_began(tmp_path: Path) -> None:
    run = trainer(tmp_path, 40, rate=2e-3)
    run.fit()
    model, rows = run.method.eval(), {"images": torch.from_numpy(Pixels().images)}
    with torch.no_grad():
        teacher, student, initial = (method.feature(rows, at(rows=ROWS)) for method in (model.teacher, model.inner, model.initial))
    began, ended = float(feature_distance(initial, teacher)), float(feature_distance(student, teacher))
    assert 0 < ended < began
    assert 0 < model.probes()["moved"](model) < 1, "reported, not judged"


@pytest.mark.slow
@pytest.mark.parametrize(("features", "by_rule"), [("online", 199.2), ("stored", 164.1)])
def test_13_flops_of_a_step(features: str, by_rule: float) -> None:
    """At ViT-B/16 an image: MAE 58.7, teacher 35.1, the student's pass over the whole image 105.4 GFLOP."""
    images = Pixels()
    with torch.device("meta"):
        method = MAE(MAEConfig(**{**vars(PRESETS["base"].method), "crop_smallest": 1.0, "flip": 0.0}), facts(size=224))
        model = SelfDistill(method, SelfDistillConfig(rounds=1, features=features), 0)
        batch = {"images": torch.empty(1, 3, 224, 224)}
        if features == "stored":
            assert len(model.training_rows([images])[0]) == ROWS
            batch["row"] = torch.zeros(1, dtype=torch.int64)
        ctx = Context(0, 10, "student", Rng(torch.zeros((), dtype=torch.int64), torch.arange(1)), torch.device("meta"))
        alone = count_flops(lambda: model.loss(batch, Context(0, 10, "teacher", ctx.rng, ctx.device))["loss"].backward())
        step = count_flops(lambda: model.loss(batch, ctx)["loss"].backward())
    assert step / 1e9 == pytest.approx(by_rule, rel=0.01)
    assert step / alone == pytest.approx(by_rule / 58.7, rel=0.02)
    assert 1 + step / alone == pytest.approx({"online": 4.39, "stored": 3.80}[features], rel=0.02)


def test_14_the_clean_pass_has_the_positions_of_the_masked_one() -> None:
    model = distilled().inner
    encoder, images = model.encoder, model.plain(pixels())
    table = encoder.pos_embed
    tokens = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2) + table[:, 1:]
    tokens = torch.cat([(encoder.cls_token + table[:, :1]).expand(6, -1, -1), tokens], dim=1)
    for block in encoder.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(model.feature(pixels(), at()), encoder.norm(tokens)[:, 0], rtol=1e-5, atol=1e-6)


def test_15_positions_are_fixed_until_fine_tuning(tmp_path: Path) -> None:
    model = apart()
    model.loss(pixels(), at())["loss"].backward()
    assert not any("pos_embed" in name for name, _ in model.named_parameters())
    model.export(tmp_path)
    data = ImageData(pixels()["images"].numpy(), np.arange(6) % 2, ["a", "b"])
    tuned = build(tmp_path, ImageFinetuneConfig(pooling="class"), data, torch.zeros(3), torch.ones(3), seed=0)
    tuned(torch.rand(2, 3, 32, 32)).sum().backward()
    assert float(dict(tuned.named_parameters())["encoder.pos_embed"].grad.abs().max()) > 0


def test_fine_tuning_decays_norms_and_has_one_rate(tmp_path: Path) -> None:
    mae().export(tmp_path)
    data = ImageData(pixels()["images"].numpy(), np.arange(6) % 2, ["a", "b"])
    tuned = build(tmp_path, recipe(10), data, torch.zeros(3), torch.ones(3), seed=0)
    groups = parameter_groups(tuned, recipe(10))
    names = {id(value): name for name, value in tuned.named_parameters()}
    decays = {names[id(value)]: group["weight_decay"] for group in groups for value in group["params"]}
    assert {group["lr_scale"] for group in groups} == {1.0}
    assert {name for name, decay in decays.items() if decay == 0} == {
        name for name in decays if name.endswith("bias") or name in ("encoder.pos_embed", "encoder.cls_token")
    }
    assert decays["encoder.norm.weight"] == decays["head.weight"] == 0.01
    assert float(tuned.head.weight.detach().std()) == pytest.approx(0.02, rel=0.3)


def test_fine_tuning_drops_embeddings_and_what_branches_add(tmp_path: Path) -> None:
    mae().export(tmp_path)
    data = ImageData(pixels()["images"].numpy(), np.arange(6) % 2, ["a", "b"])
    tuned = build(tmp_path, dataclasses.replace(recipe(10), dropout=0.4), data, torch.zeros(3), torch.ones(3), seed=0)
    zeros: dict[str, float] = {}
    block = tuned.encoder.blocks[0]
    block.norm1.register_forward_hook(lambda module, given, output: zeros.update(embeddings=float((given[0] == 0).float().mean())))
    for name, part in {"attention": block.attn.proj, "mlp": block.mlp.fc2, "inside": block.mlp.fc1, "values": block.attn.qkv}.items():
        part.register_forward_hook(lambda module, given, output, name=name: zeros.update({name: float((output == 0).float().mean())}))
    tuned.train()(torch.rand(8, 3, 32, 32))
    assert zeros == pytest.approx({"embeddings": 0.4, "attention": 0.4, "mlp": 0.4, "inside": 0.0, "values": 0.0}, abs=0.02)
    tuned.eval()(torch.rand(8, 3, 32, 32))
    assert max(zeros.values()) == 0.0


# --- switches ---------------------------------------------------------------------------------------------------------------------------------------


def test_the_initial_model_as_teacher_leaves_its_stage_out(tmp_path: Path) -> None:
    run = trainer(tmp_path, 4, teacher="initial")
    run.fit()
    assert [line[0] for line in curve(tmp_path)] == ["student"] * 4
    assert same(weights(run.method.teacher), weights(run.method.initial))
    assert records(tmp_path, "metrics")[0]["distance"] < 1e-6 < records(tmp_path, "metrics")[-1]["distance"]


def test_a_student_may_start_at_its_teacher(tmp_path: Path) -> None:
    run = trainer(tmp_path, 8, student="teacher")
    run.fit()
    assert same(run.method.began["student"]["inner"], run.method.began["student"]["teacher"])


def test_weights_are_pulled_to_where_it_is_asked() -> None:
    """weight * sum over the encoder's parameters of (theta - theta_ref)^2."""
    for to in ("initial", "teacher"):
        model = distilled(weight=0.0, pull_weight=0.5, pull_to=to)
        alone = model.inner.loss(pixels(), context())["loss"].detach()
        moved(getattr(model, to))
        found = model.loss(pixels(), at())
        reference = dict(getattr(model, to).encoder.named_parameters())
        wanted = sum(float((p - reference[name]).square().sum().detach()) for name, p in model.inner.encoder.named_parameters())
        assert float(found["pull"]) == pytest.approx(wanted, rel=1e-5)
        assert float(found["loss"].detach() - alone) == pytest.approx(0.5 * wanted, rel=1e-4)
        found["loss"].backward()
        bias = model.inner.encoder.norm.bias
        assert bias.grad is not None


def test_the_weight_multiplies_the_distance() -> None:
    found = {weight: apart(weight=weight).loss(pixels(), at()) for weight in (1.0, 3.0)}
    objective, distance = found[1.0]["objective"], found[1.0]["distance"]
    for weight, scalars in found.items():
        torch.testing.assert_close(scalars["loss"].detach(), objective + weight * distance)


def test_the_mean_of_the_patches_can_be_compared_instead() -> None:
    model = apart(pooling="mean")
    own, other = (method.encoder(model.inner.plain(pixels()))[:, 1:].mean(1) for method in (model.inner, model.teacher))
    torch.testing.assert_close(model.loss(pixels(), at())["distance"], feature_distance(own, other).detach())


def test_a_teacher_can_follow_the_student() -> None:
    model = apart(teacher_decay=0.9)
    before, student = weights(model.teacher), weights(model.inner)
    scalars = model.loss(pixels(), at()) | {"gradient_norm": torch.tensor(1.0)}
    model.observe(scalars)
    for name, value in model.teacher.named_parameters():
        torch.testing.assert_close(value, 0.9 * before[name] + 0.1 * student[name])
    still = apart()
    before = weights(still.teacher)
    still.observe(still.loss(pixels(), at()))
    assert same({n: v for n, v in before.items() if n != "last"}, {n: v for n, v in weights(still.teacher).items() if n != "last"})


def test_an_update_that_is_left_out_moves_no_teacher() -> None:
    following, still = apart(teacher_decay=0.9), apart()
    assert {id(value) for value in following.teacher.parameters()} <= {id(value) for value in following.observed()}
    assert not {id(value) for value in still.teacher.parameters()} & {id(value) for value in still.observed()}


def test_a_decoder_can_be_trained_before_the_teacher(tmp_path: Path) -> None:
    run = trainer(tmp_path, 8, decoder_steps=2)
    before = weights(run.method.inner)
    run.fit()
    model = run.method
    assert [line[0] for line in curve(tmp_path)] == ["decoder"] * 2 + ["teacher"] * 3 + ["student"] * 3
    common = model.began["teacher"]["inner"]
    assert all(torch.equal(common[name], value) for name, value in before.items() if name.startswith("encoder."))
    assert not torch.equal(common["decoder.decoder_pred.weight"], before["decoder.decoder_pred.weight"])
    assert same(model.began["student"]["inner"], common)
    assert same(weights(model.initial), common)


# --- the run ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"features": "online", "teacher_decay": 0.8, "rounds": 2}], ids=["stored", "following"])
@pytest.mark.parametrize("stop", [2, 3, 5, 7])
def test_it_resumes_bit_for_bit_in_every_stage(stop: int, settings: dict[str, Any], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    undisturbed = trainer(whole, 9, checkpoint_every=20, **settings)
    undisturbed.fit()
    stopped = trainer(parts, 9, stop_at=stop, **settings)
    stopped.fit()
    stopped.run.close()
    again = trainer(parts, 9, mae(seed=5), **settings)  # what it is built with is not what counts
    again.fit()
    assert curve(whole) == curve(parts)
    assert same(weights(undisturbed.method), weights(again.method))


def test_stored_features_give_the_run_of_those_made_in_every_step(tmp_path: Path) -> None:
    for features in ("stored", "online"):
        trainer(tmp_path / features, 8, features=features).fit()
    stored, online = (records(tmp_path / features, "metrics") for features in ("stored", "online"))
    assert any(line.get("distance", 0) > 0 for line in stored)
    for one, other in zip(stored, online, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_features_are_stored_where_rows_are_always_seen_alike() -> None:
    for wanted, method in ((True, mae()), (False, mae(flip=0.5)), (False, mae(crop_smallest=0.5))):
        model = distilled(method)
        parts = model.training_rows([Pixels(), Pixels()])
        assert ("row" in parts[1].batch(np.array([4]))) == wanted
        assert ("features" in dict(model.named_buffers())) == wanted
        if wanted:
            assert model.features.shape == (2 * ROWS, 48)
            assert parts[1].batch(np.array([4]))["row"].tolist() == [ROWS + 4]
            assert parts[0].unit == "images"
    with pytest.raises(UsageError, match="cannot be stored: rows are augmented"):
        distilled(mae(flip=0.5), features="stored").training_rows([Pixels()])


@pytest.mark.parametrize(
    ("method", "batch"),
    [(mae, pixels(BATCH)), (mlm, words()), (droppos, pixels(BATCH))],
    ids=["mae", "mlm", "several means"],
)
def test_a_cut_batch_has_the_loss_of_the_whole(method: Any, batch: Batch) -> None:
    losses = []
    for cuts in (((0, 8),), ((0, 2), (2, 4), (4, 6), (6, 8))):
        model = distilled(method(), pull_weight=1e-3)
        moved(model.teacher)
        moved(model.initial, 0.01)
        update = Update(
            model, build_optimizer(model, OptimizerConfig()), clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=10
        )
        parts = [{name: value[a:b] for name, value in batch.items()} for a, b in cuts]
        found = update(parts, [torch.arange(a, b) for a, b in cuts], 0, "student")
        losses.append({name: float(value) for name, value in found.items()})
    assert losses[0].keys() == losses[1].keys()
    for name in ("loss", "distance", "pull", "objective", "gradient_norm"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-4), name


@pytest.mark.parametrize("features", ["online", "stored"])
def test_a_step_never_waits_for_the_device(features: str) -> None:
    model = apart(features=features, pull_weight=1e-3, teacher_decay=0.9 if features == "online" else None)
    parts = model.training_rows([Pixels()])
    batch, ctx = {name: torch.from_numpy(value) for name, value in parts[0].batch(np.arange(6)).items()}, at()
    assert ("row" in batch) == (features == "stored")
    with NoWaiting():
        scalars = model.loss(batch, ctx)
        scalars["loss"].backward()
        model.observe(scalars)
        model.items(batch, ctx)


def test_a_padded_row_counts_as_one_row() -> None:
    """Beside a mean over tokens the distance is a mean over rows."""
    model = distilled(mlm())
    moved(model.teacher)
    batch = words(padded=True)
    features = [method.hidden_states(batch)[:, 0] for method in (model.inner, model.teacher)]
    torch.testing.assert_close(model.loss(batch, at(rows=BATCH))["distance"], feature_distance(*features).detach())


def test_the_student_keeps_its_dropout_where_the_teacher_has_none() -> None:
    model = distilled(mlm(dropout=0.3))
    assert float(model.loss(words(), at(rows=BATCH))["distance"]) > 0
    model.eval()
    assert float(model.loss(words(), at(rows=BATCH))["distance"]) == 0.0


def test_the_feature_of_a_causal_model_is_its_last_token() -> None:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=48, sequence_length=16), texts())
    batch = words(4, padded=True)
    hidden = model.hidden_states(batch)
    wanted = torch.stack([hidden[row, 15 - row] for row in range(4)])
    assert torch.equal(model.feature(batch, at(rows=4)), wanted)
    assert torch.equal(model.feature({"input_ids": batch["input_ids"]}, at(rows=4)), hidden[:, -1])


# --- what is refused --------------------------------------------------------------------------------------------------------------------------------


def test_a_teacher_that_never_learnt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The teacher is the initial model: its stage changed nothing"):
        trainer(tmp_path, 4, rate=0.0).fit()


def test_features_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    run = trainer(tmp_path, 4, teacher="initial")
    with torch.no_grad():
        run.method.inner.encoder.blocks[1].mlp.fc2.bias[0] = float("nan")
    with pytest.raises(Diverged, match=r"The first module that made one: encoder\.blocks\.1\.mlp\.fc2"):
        run.fit()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0, "weight": 2.0}, "rounds is 0"),
        ({"objective": False, "weight": 0.0}, "nothing to learn"),
        ({"weight": -1.0}, "weight is -1"),
        ({"teacher_decay": 1.0}, "teacher-decay is 1"),
        ({"teacher_decay": 0.9, "features": "stored"}, "other features in every step"),
        ({"teacher": "initial", "student": "teacher"}, "what initial says"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    config = SelfDistillConfig(**{"rounds": 1, **settings})
    assert config.on
    with pytest.raises(UsageError, match=said):
        config.check()


def test_what_it_cannot_go_around_is_said() -> None:
    def why(slug: str, group: str = "image", init: Any = Path("x"), **settings: Any) -> str | None:
        method: Any = SimpleNamespace(card=SimpleNamespace(slug=slug), data_group=group)
        return SETTINGS.refuse(method, SimpleNamespace(self_distill=SelfDistillConfig(rounds=1, **settings), init=init))

    assert why("mae") is None
    assert why("mlm", "text") is None
    assert "no class token" in str(why("croco"))
    assert why("croco", pooling="mean") is None
    assert "give --init" in str(why("mae", init=None))
    assert "no rows" in str(why("oc_gfn", "environment"))


# --- interchange ------------------------------------------------------------------------------------------------------------------------------------


def test_weights_of_the_official_code_load(tmp_path: Path) -> None:
    """{'args', 'state_dict'}: the encoder under transformers' names without a prefix, the arguments a pickled Namespace."""
    source = mae(seed=1)
    names = to_transformers(source.encoder.state_dict())
    assert {"embeddings.cls_token", "encoder.layer.1.attention.attention.query.weight", "encoder.layer.0.layernorm_before.bias"} <= names.keys()
    file = tmp_path / "self-distill.pt"
    torch.save({"args": argparse.Namespace(lr=1.5e-4), "state_dict": names}, file)
    assert read_vit(file).settings() == {"patch_size": 4, "hidden_size": 48, "num_layers": 2}
    model = MAE(small(), facts(), init=file)
    for name, value in source.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name


def test_the_export_is_the_students(tmp_path: Path) -> None:
    model = apart()
    moved(model.inner, 0.05)
    model.export(tmp_path)
    again = model.reload(tmp_path)
    assert same(weights(again), weights(model.inner))
    assert not same(weights(again), weights(model.teacher))


def test_copies_share_the_data_and_nothing_else() -> None:
    model = distilled()
    assert model.teacher.store is model.inner.store
    addresses = [{value.data_ptr() for value in (*m.parameters(), *m.buffers())} for m in (model.inner, model.teacher, model.initial)]
    assert not addresses[0] & addresses[1]
    assert not addresses[0] & addresses[2]
    assert not addresses[1] & addresses[2]
    moved(model.inner)
    copy_state(model.inner, model.teacher)
    assert same(weights(model.inner), weights(model.teacher))
