"""Every intervention around every method: five steps or more, an exact resume, an export that loads; or a refusal that says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import interventions
from headstart.cli._interventions import matrix
from headstart.core.errors import UsageError
from headstart.core.files import write_json
from headstart.interop.masks import read_masks
from headstart.interventions.spdf.export import REPORT, tensors_of
from headstart.verbs.pretrain import Run, pretrain
from tests.golden.record import OF_METHOD, corpus
from tests.running import records, run_info, untimed

STEPS, HALF = 5, 3
LONGER = {"rewarm": (20, 12)}
"""Interventions with a least length -> (steps, first checkpoint)."""
PHASES: dict[str, dict[str, Any]] = {"mlm": {"method.causal_start": 1}, "electra": {"method.causal_start": 1, "method.generator_start": 1}}
MATRIX = matrix()
FITTING = [(intervention, method) for intervention, row in MATRIX.items() for method, why in row.items() if why is None and method in OF_METHOD]
REFUSED = [(intervention, method) for intervention, row in MATRIX.items() for method, why in row.items() if why is not None and method in OF_METHOD]
BY_SLUG = {entry.card.slug: entry for entry in interventions.settings()}


def lengths(*around: str) -> tuple[int, int]:
    """(steps, first checkpoint) of a run with these interventions."""
    return max(LONGER.get(slug, (STEPS, HALF)) for slug in around)


def settings(method: str, *around: str) -> dict[str, Any]:
    steps, half = lengths(*around) if around else (STEPS, HALF)
    short = {"budget.steps": steps, "trainer.evaluate_every": steps, "trainer.checkpoint_every": half, "trainer.evaluate_rows": 8}
    switched = {f"{BY_SLUG[slug].group}.{name}": value for slug in around for name, value in BY_SLUG[slug].example.items()}
    return {**OF_METHOD[method], **short, **PHASES.get(method, {}), **switched}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str | Path, Path]]:
    """method -> (its prepared store, an export of it)."""
    made: dict[str, tuple[str | Path, Path]] = {}

    def make(method: str) -> tuple[str | Path, Path]:
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            run = pretrain(method, corpus(method, folder), out=folder / "run", say=lambda line: None, **settings(method) | {"budget.steps": 2 + HALF})
            made[method] = (run.info["data"][0]["store"], run.export)
        return made[method]

    return make


def continued(run: Run, folder: Path) -> Path:
    """A copy of a finished run as it was after its first checkpoint."""
    config = run.info["config"]
    steps, half = config["budget"]["steps"], config["trainer"]["checkpoint_every"]
    shutil.copytree(run.folder, folder)
    shutil.rmtree(folder / "export")
    shutil.rmtree(folder / "checkpoints" / f"step-{steps:08d}")
    info = {name: value for name, value in run_info(folder).items() if name not in ("totals", "verdict", "finished")}
    write_json(folder / "run.json", info | {"status": "running", "checkpoint": {"step": half, "folder": str(folder / "checkpoints")}})
    return folder


def assert_resumes(run: Run, again: Run) -> None:
    assert untimed(records(run.folder, "metrics")) == untimed(records(again.folder, "metrics"))
    for part in (f"checkpoints/step-{run.info['config']['budget']['steps']:08d}", "export"):
        names = sorted(path.relative_to(run.folder / part) for path in (run.folder / part).rglob("*.safetensors"))
        assert names
        for name in names:
            assert (run.folder / part / name).read_bytes() == (again.folder / part / name).read_bytes(), name


def test_every_pair_of_the_matrix_is_run_or_refused_here() -> None:
    """A method without recorded settings (tests/golden/record.py) would be left out without a word."""
    assert {*FITTING, *REFUSED} == {(intervention, method) for intervention, row in MATRIX.items() for method in row}
    assert BY_SLUG.keys() == MATRIX.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("intervention", "method"), FITTING, ids=lambda value: value)
def test_some_steps_an_exact_resume_and_an_export(
    intervention: str, method: str, plain: Callable[[str], tuple[str | Path, Path]], tmp_path: Path
) -> None:
    store, export = plain(method)
    given = settings(method, intervention) | {"init": export}
    run = pretrain(method, store, out=tmp_path / "run", say=lambda line: None, **given)
    assert run.info["interventions"] == [intervention]
    steps, half = lengths(intervention)
    assert len(records(run.folder, "metrics")) == steps
    again = pretrain(method, store, out=continued(run, tmp_path / "again"), say=lambda line: None, **given)
    assert again.info["resumed_at"] == half
    assert_resumes(run, again)
    if intervention == "spdf":
        reports = list(run.export.rglob(REPORT))
        assert reports
        for report in reports:
            masks, weights = read_masks(report.parent), dict(tensors_of(report.parent))
            assert masks
            assert all(np.array_equal(weights[name] == 0, ~mask.numpy()) for name, mask in masks.items())
            assert json.loads(report.read_text())["sparsity"] == pytest.approx(0.75, abs=0.02)


@pytest.mark.slow
def test_an_encoder_without_a_class_token_is_distilled_by_the_mean_of_its_patches(
    plain: Callable[[str], tuple[str | Path, Path]], tmp_path: Path
) -> None:
    """What the refusal of croco offers instead."""
    store, export = plain("croco")
    given = settings("croco", "self_distill") | {"init": export, "self_distill.pooling": "mean"}
    run = pretrain("croco", store, out=tmp_path / "run", say=lambda line: None, **given)
    lines = records(run.folder, "metrics")
    assert [line["phase"] for line in lines] == ["teacher"] * 2 + ["student"] * 3
    assert all(line["distance"] > 0 for line in lines[2:])
    again = pretrain("croco", store, out=continued(run, tmp_path / "again"), say=lambda line: None, **given)
    assert_resumes(run, again)


@pytest.mark.slow
def test_all_of_them_together(plain: Callable[[str], tuple[str | Path, Path]], tmp_path: Path) -> None:
    store, export = plain("causal-lm")
    given = settings("causal-lm", *BY_SLUG) | {"init": export}
    run = pretrain("causal-lm", store, out=tmp_path / "run", say=lambda line: None, **given)
    assert set(run.info["interventions"]) == set(BY_SLUG)
    assert json.loads((run.export / REPORT).read_text())["sparsity"] == pytest.approx(0.75, abs=0.02)
    again = pretrain("causal-lm", store, out=continued(run, tmp_path / "again"), say=lambda line: None, **given)
    assert_resumes(run, again)


@pytest.mark.parametrize(("intervention", "method"), REFUSED, ids=lambda value: value)
def test_a_combination_without_sense_is_refused_with_the_reason(intervention: str, method: str, tmp_path: Path) -> None:
    why = MATRIX[intervention][method]
    assert why is not None
    with pytest.raises(UsageError) as caught:
        pretrain(method, "nowhere", out=tmp_path / "run", **settings(method, intervention) | {"init": tmp_path})
    assert why in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_off_is_off_for_every_method() -> None:
    """No wrapper: the bits are those of a run without the setting."""
    from headstart import methods
    from headstart.verbs.config import preset_config

    assert set(MATRIX) >= {"spdf"}
    for method in next(iter(MATRIX.values())):
        assert interventions.active(preset_config(methods.settings(method), "tiny")[1]) == []
