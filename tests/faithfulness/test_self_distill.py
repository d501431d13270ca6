"""The numbered checks of the specification of self-distillation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from headstart.claims.self_distill import CLAIM, recipe
from headstart.core.rng import Rng
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.config import OptimizerConfig
from headstart.engine.flops import count_flops
from headstart.engine.method import Context
from headstart.engine.optim import build_optimizer
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.interventions.self_distill.config import SelfDistillConfig
from headstart.interventions.self_distill.intervention import SelfDistill, feature_distance
from headstart.methods.mae.config import PRESETS, MAEConfig
from headstart.methods.mae.method import MAE
from headstart.tasks.image_classification import build, parameter_groups, train_classifier
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData
from tests.faithfulness.self_distilling import (
    BATCH,
    ROWS,
    Pixels,
    apart,
    at,
    curve,
    distilled,
    mae,
    mlm,
    moved,
    same,
    trainer,
    weights,
    words,
)
from tests.faithfulness.test_mae import context, facts, pixels, twin
from tests.running import records


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


def test_09_the_schedules_of_the_paper() -> None:
    """Stages of 20,000 steps without warm-up, as the claim sets them; fine-tuning of 10,000 with 500."""
    given = {name.removeprefix("schedule."): value for name, value in CLAIM.presets["cpu"].settings.items() if name.startswith("schedule.")}
    assert [multiplier(step, 20_000, ScheduleConfig(**given)) for step in (0, 5_000, 10_000, 19_999, 20_000)] == pytest.approx(
        [1, 0.75, 0.5, 1 / 20_000, 0]
    )
    config = recipe(10_000)
    fine_tuning = ScheduleConfig(config.schedule, warmup_share=config.warmup_share, minimum_share=config.minimum_share)
    assert [multiplier(step, 10_000, fine_tuning) for step in (0, 250, 500, 5_250, 10_000)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_09_fine_tuning_trains_at_these_rates(tmp_path: Path) -> None:
    """Of 40 steps 2 warm up: what the optimiser is given in every one, of weights, positions and head alike."""
    mae().export(tmp_path)
    data = ImageData(pixels()["images"].numpy(), np.arange(6) % 2, ["a", "b"])
    network = build(tmp_path, recipe(40), data, torch.zeros(3), torch.ones(3), seed=0)
    rates: list[set[float]] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, given, named: rates.append({float(g["lr"]) for g in optimizer.param_groups}))
    try:
        train_classifier(network, data, recipe(40), 1e-3, 0, torch.device("cpu"))
    finally:
        hook.remove()
    assert all(len(of_groups) == 1 for of_groups in rates)
    wanted = [0, 0.5e-3, *(1e-3 * (40 - step) / 38 for step in range(2, 40))]
    assert [of_groups.pop() for of_groups in rates] == pytest.approx(wanted)


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
