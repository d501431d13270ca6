"""Self-distillation beyond its numbered checks: ablations, resuming, stored features, what is refused, its interchange of weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import Diverged, UsageError
from headstart.engine.config import OptimizerConfig
from headstart.engine.method import Batch
from headstart.engine.optim import build_optimizer
from headstart.engine.update import Update
from headstart.interop.vit import read_vit
from headstart.interop.vit_names import to_transformers
from headstart.interventions.self_distill.config import SETTINGS, SelfDistillConfig
from headstart.interventions.self_distill.intervention import copy_state, feature_distance
from headstart.methods.causal_lm.config import CausalLMConfig
from headstart.methods.causal_lm.method import CausalLM
from headstart.methods.mae.method import MAE
from tests.faithfulness.self_distilling import (
    BATCH,
    ROWS,
    Pixels,
    apart,
    at,
    curve,
    distilled,
    droppos,
    mae,
    mlm,
    moved,
    same,
    texts,
    trainer,
    weights,
    words,
)
from tests.faithfulness.test_mae import NoWaiting, context, facts, pixels, small
from tests.running import records

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


def test_without_a_decoder_in_the_file_training_it_first_is_offered(tmp_path: Path) -> None:
    """Stage 1 would train a random decoder, and stage 2 begin with it again: the plan names its weights and the way out."""
    file = tmp_path / "encoder.pt"
    torch.save({"model": mae(seed=1).encoder.state_dict()}, file)
    fresh = MAE(small(crop_smallest=1.0, flip=0.0), facts(), init=file)
    said = "\n".join(distilled(fresh).plan_lines())
    weights_of_decoder = list(fresh.decoder.state_dict())
    assert f"--init lacks the decoder's {', '.join(weights_of_decoder[:3])} and {len(weights_of_decoder) - 3} more" in said
    assert "--self-distill.decoder-steps STEPS trains them first" in said
    assert "--init lacks" not in "\n".join(distilled(fresh, decoder_steps=2).plan_lines())
    whole = tmp_path / "whole"
    mae(seed=1).export(whole)
    assert "--init lacks" not in "\n".join(distilled(MAE(small(crop_smallest=1.0, flip=0.0), facts(), init=whole)).plan_lines())


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
