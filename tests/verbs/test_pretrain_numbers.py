"""Numbers of a run: losses that are none, the average of the weights, micro-batches, the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from headstart.core.errors import Diverged, UsageError
from headstart.engine.checkpoint import load_checkpoint
from tests.running import METHODS, last_step, records, run_info, untimed, weight_files
from tests.verbs.pretraining import pretrain


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(store: Path, tmp_path: Path) -> None:
    late = {"trainer.evaluate_every": 40, "trainer.checkpoint_every": 40}  # only log steps can see it
    with pytest.raises(Diverged) as caught:
        pretrain("causal-lm", store, tmp_path / "run", **late, **{"optimizer.learning_rate": 1e30, "budget.steps": 40})
    assert caught.value.exit_code == 5
    step = last_step(tmp_path / "run") - 1  # the log step after it
    assert caught.value.what.startswith(f"Loss or gradient is no finite number at step {step}. The first module that made one: model.")
    assert last_step(tmp_path / "run") < 40
    info = run_info(tmp_path / "run")
    assert info["status"] == "failed"
    assert "Diverged" in info["error"]
    assert records(tmp_path / "run", "metrics")[-1]["gradient_norm"] is None, "JSON has no NaN"
    assert not (tmp_path / "run" / "export").exists()


def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(store: Path, tmp_path: Path) -> None:
    """Checkpoints come more often than log lines here: the divergence must be seen before the checkpoint."""
    settings = {"optimizer.learning_rate": 1e30, "trainer.log_every": 20, "trainer.checkpoint_every": 1, "trainer.evaluate_every": 40}
    with pytest.raises(Diverged):
        pretrain("causal-lm", store, tmp_path / "run", **settings, **{"budget.steps": 40})
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-*"):
        state = load_checkpoint(checkpoint)[1]["method"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point()), checkpoint.name


def test_the_average_of_the_weights_is_exported_and_the_weights_themselves_go_on(store: Path, tmp_path: Path) -> None:
    plain = pretrain("causal-lm", store, tmp_path / "plain")
    run = pretrain("causal-lm", store, tmp_path / "run", **{"trainer.ema_decay": 0.9})
    _, state = load_checkpoint(run.folder / "checkpoints" / "step-00000006")
    exported = AutoModel.from_pretrained(run.export)
    average = state["ema"]["average"]
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, average[f"model.model.{name}"], atol=0, rtol=0)
    own = load_checkpoint(plain.folder / "checkpoints" / "step-00000006")[1]["method"]
    assert all(torch.equal(own[name], value) for name, value in state["method"].items()), "averaging does not change training"
    assert any(not torch.equal(average[name], own[name]) for name in average)


@pytest.mark.slow
def test_the_average_follows_weights_that_a_phase_puts_in_place(store: Path, tmp_path: Path) -> None:
    """ELECTRA copies its generator into the discriminator; an average that remembers the random discriminator would be neither."""
    run = pretrain("electra", store, tmp_path / "run", **{"trainer.ema_decay": 0.99, "budget.steps": 10, "method.generator_start": 8})
    state = load_checkpoint(run.folder / "checkpoints" / "step-00000010")[1]
    average, own = state["ema"]["average"], state["method"]
    name = next(name for name in average if name.startswith("main.") and name.endswith("mlp.Wi.weight"))
    assert float((average[name] - own[name]).abs().max()) < 0.2 * float(own[name].abs().max())


@pytest.mark.promise("The micro-batch changes memory, not results: the loss is the mean over the global batch however it is cut.")
@pytest.mark.slow
@pytest.mark.parametrize("slug", METHODS)
def test_micro_batches_give_the_losses_of_the_whole_batch(slug: str, store: Path, tmp_path: Path) -> None:
    """Also where rows are padded, so that micro-batches hold different numbers of tokens."""
    settings = {"budget.steps": 12, "trainer.log_every": 1, "schedule.warmup_share": 0.5, "optimizer.learning_rate": 1e-3}
    whole = pretrain(slug, store, tmp_path / "whole", **settings)
    cut = pretrain(slug, store, tmp_path / "cut", **settings, **{"trainer.micro_batch": 2})
    assert cut.info["decisions"]["micro_batch"] == 2
    for one, other in zip(records(whole.folder, "metrics"), records(cut.folder, "metrics"), strict=True):
        for name in ("loss", "mlm_loss", "disc_loss", "causal_loss"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=3e-6, abs=1e-6), f"{name} at step {one['step']}"


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="micro-batch 3 does not divide the global batch 8"):
        pretrain("causal-lm", store, tmp_path / "run", **{"trainer.micro_batch": 3})


@pytest.mark.slow
def test_the_seed_decides_everything(store: Path, tmp_path: Path) -> None:
    one, again, other = (pretrain("mlm", store, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert weight_files(one.folder) == weight_files(again.folder)
    assert untimed(records(one.folder, "metrics")) == untimed(records(again.folder, "metrics"))
    assert not np.isclose(records(one.folder, "metrics")[0]["loss"], records(other.folder, "metrics")[0]["loss"], atol=1e-6)
