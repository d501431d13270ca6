"""Values that no run can have are refused before anything is read or written: by flag, with exit code 2, never as a bug of ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, UsageError
from tests.corpus import write_corpus
from tests.running import TINY


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("refusals") / "texts", 120)


def run(slug: str, texts: Path, out: Path, **settings: Any) -> Any:
    return headstart.pretrain(slug, texts, out=out, say=lambda line: None, **{**TINY, "budget.steps": 4, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 0}, "--batch is 0"),
        ({"batch": -3}, "--batch is -3"),
        ({"optimizer.learning_rate": float("nan")}, "learning.rate .*nan"),
        ({"optimizer.beta1": 1.5}, "beta1 is 1.5"),
        ({"optimizer.learning_rate": -1.0}, "--optimizer.learning-rate is -1.0"),
        ({"optimizer.layer_decay": 0.0}, "--optimizer.layer-decay is 0.0"),
        ({"optimizer.clip_norm": 0.0}, "--optimizer.clip-norm is 0.0"),
        ({"optimizer.epsilon": -1e-8}, "--optimizer.epsilon is -1e-08"),
        ({"optimizer.weight_decay": -0.1}, "--optimizer.weight-decay is -0.1"),
        ({"method.num_heads": 3}, "cannot be split over 3 heads"),
        ({"budget.steps": None, "budget.minutes": float("inf")}, "minutes .*inf"),
        ({"budget.steps": 10**21}, "--budget.steps is 1000000000000000000000"),
        ({"seed": 10**23}, "--seed is 100000000000000000000000"),
        ({"seed": -1}, "--seed is -1"),
        ({"trainer.log_every": 0}, "log-every is 0"),
        ({"trainer.checkpoint_every": 0}, "checkpoint-every is 0"),
        ({"trainer.ema_decay": 2.0}, r"--trainer.ema-decay is 2\.\n"),
        ({"schedule.warmup_share": 3.0}, r"--schedule.warmup-share is 3\.\n"),
        ({"schedule.warmup_steps": -1}, "--schedule.warmup-steps is -1"),
        ({"trainer.evaluate_rows": 0}, "--trainer.evaluate-rows is 0"),
        ({"mixture.weights": (-1.0,)}, "--mixture.weights is -1"),
        ({"mixture.weights": (0.5, 0.5)}, "--mixture.weights has 2 numbers for 1 entries"),
        ({"text.held_out_share": 1.5}, "--text.held-out-share is 1.5"),
    ],
)
def test_impossible_settings_leave_no_run_behind(settings: dict[str, Any], words: str, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run("causal-lm", texts, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("slug", "settings", "words"),
    [
        ("causal-lm", {"method.num_layers": 0}, "cannot be built"),
        ("causal-lm", {"method.num_heads": 3}, "cannot be split over 3 heads"),
        ("causal-lm", {"method.hidden_size": 0}, "cannot be built"),
        ("mlm", {"method.dropout": 1.0}, r"--method.dropout is 1\.\n"),
        ("mlm", {"method.mask_ratio": 0.0}, r"--method.mask-ratio is 0\.\n"),
        ("mlm", {"method.mask_share": 0.9, "method.random_share": 0.5}, "sum to at most 1"),
        ("electra", {"method.sequence_length": 2}, "sequence-length is 2"),
        ("electra", {"method.num_layers": 0}, "cannot be built"),
        ("causal-lm", {"batch": 10**8}, "far more than the"),
        ("causal-lm", {"method.sequence_length": 10**6}, "longer than the whole corpus"),
    ],
)
def test_impossible_networks_and_sizes(slug: str, settings: dict[str, Any], words: str, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run(slug, texts, tmp_path / "run", **settings)


@pytest.mark.parametrize(
    ("slug", "settings", "words"),
    [
        ("causal-lm", {"optimizer.learning_rate": -1.0}, "learning-rate is -1.0"),
        ("causal-lm", {"method.num_heads": 3}, "cannot be split over 3 heads"),
        ("mlm", {"method.sequence_length": 2}, "sequence-length is 2"),
        ("mlm", {"method.mask_ratio": 1.5}, "--method.mask-ratio is 1.5"),
        ("mlm", {"method.most_masked": 0}, "--method.most-masked is 0"),
        ("mlm", {"method.most_masked": -1, "init": "."}, "--method.most-masked is -1"),
        ("mlm", {"method.causal_start": -1}, "--method.causal-start is -1"),
        ("mlm", {"method.intermediate_size": 0}, "--method.intermediate-size is 0"),
        ("electra", {"method.mask_ratio": 0.0}, "--method.mask-ratio is 0"),
        ("electra", {"method.temperature": 0.0, "init": "."}, "--method.temperature is 0"),
        ("electra", {"method.sequence_length": 4}, "--method.sequence-length is 4"),
        ("electra", {"method.max_positions": 8, "method.architecture": "electra"}, "do not fit the position table of 8"),
        ("electra", {"method.generator_hidden_size": 0.0}, "--method.generator-hidden-size is 0"),
    ],
)
def test_impossible_settings_cost_no_preparation(slug: str, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A corpus that takes hours to read is not read first: the settings are refused although this one could not be."""
    with pytest.raises(UsageError, match=words):
        run(slug, tmp_path / "not-there", tmp_path / "run", **settings)


def test_data_at_an_address_are_not_looked_for_here(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"s3:/+bucket/texts: does not exist\.\nData are files of this machine: mount the store, or copy them here"):
        run("causal-lm", "s3://bucket/texts", tmp_path / "run")  # type: ignore[arg-type]


def test_a_lost_export_is_made_again(texts: Path, tmp_path: Path) -> None:
    done = run("causal-lm", texts, tmp_path / "run")
    weights = (done.export / "model.safetensors").read_bytes()
    shutil.rmtree(done.export)
    assert (run("causal-lm", texts, tmp_path / "run").export / "model.safetensors").read_bytes() == weights


def test_a_run_that_continues_from_weights_has_no_plateau_to_leave(texts: Path, tmp_path: Path) -> None:
    run("causal-lm", texts, tmp_path / "first")
    said: list[str] = []
    headstart.pretrain("causal-lm", texts, out=tmp_path / "second", init=tmp_path / "first", say=said.append, **{**TINY, "budget.steps": 4})
    assert not [line for line in said if "plateau" in line]
