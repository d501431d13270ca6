"""`--precision fp8`: the loss follows that of bf16, the run resumes exactly, the export is the same kind of folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load

from headstart.core.errors import UsageError
from tests.running import records, run_info, untimed, weight_files
from tests.verbs.pretraining import pretrain

FP8: dict[str, Any] = {"precision": "fp8", "budget.steps": 20, "trainer.log_every": 1}


def shapes(run: Path) -> dict[str, dict[str, Any]]:
    """File of the export -> name of a weight -> its shape."""
    return {file: {name: (value.shape, value.dtype) for name, value in load(held).items()} for file, held in weight_files(run).items()}


@pytest.mark.parametrize("slug", ["causal-lm", "electra"])
def test_the_loss_follows_that_of_bf16(store: Path, tmp_path: Path, slug: str) -> None:
    eight = pretrain(slug, store, tmp_path / "fp8", **FP8)
    sixteen = pretrain(slug, store, tmp_path / "bf16", **FP8 | {"precision": "bf16"})
    losses = [np.array([line["loss"] for line in records(run.folder, "metrics") if "loss" in line]) for run in (eight, sixteen)]
    assert len(losses[0]) == 20
    assert 0 < np.abs(losses[0] / losses[1] - 1).max() < 0.02
    info = run_info(eight.folder)
    assert info["decisions"]["precision"] == "bf16"
    assert info["decisions"]["why"]["precision"] == "asked for, with products of dense layers in fp8, which a CPU computes exactly but slowly"
    assert info["decisions"]["flops_per_step"] == run_info(sixteen.folder)["decisions"]["flops_per_step"], "FLOPs are FLOPs"
    assert shapes(eight.folder) == shapes(sixteen.folder)


def test_a_run_in_fp8_resumes_exactly(store: Path, tmp_path: Path) -> None:
    whole = pretrain("causal-lm", store, tmp_path / "whole", **FP8)
    pretrain("causal-lm", store, tmp_path / "cut", **FP8, **{"trainer.stop_at": 8})
    cut = pretrain("causal-lm", store, tmp_path / "cut", **FP8)
    assert untimed(records(cut.folder, "metrics")) == untimed(records(whole.folder, "metrics"))
    assert weight_files(cut.folder) == weight_files(whole.folder)


def test_a_network_without_a_layer_that_fits_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dense layer of this network has sizes that are multiples of 16(.|\n)*Give --precision bf16"):
        pretrain("causal-lm", store, tmp_path / "run", **FP8, **{"method.hidden_size": 24, "method.num_heads": 2, "method.intermediate_size": 40})
