"""`headstart list --interventions`: what composes with what, before torch is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart import interventions
from headstart.catalog import BASELINES, CARDS, implementation
from headstart.cli._interventions import matrix
from headstart.cli.main import main
from tests.cli.test_flags import without_torch

METHODS = [slug for slug in (*BASELINES, *CARDS) if (implementation(slug) or "").startswith("headstart.methods.")]


def test_every_intervention_meets_every_method() -> None:
    found = matrix()
    assert list(found) == [entry.card.slug for entry in interventions.settings()]
    assert "spdf" in found
    for row in found.values():
        assert list(row) == METHODS
        assert all(why is None or why.endswith((".", "images")) for why in row.values()), "a sentence"


def test_weights_are_held_inside_of_what_stands_around_the_loss() -> None:
    places = [entry.place for entry in interventions.settings()]
    assert places == sorted(places, key=lambda place: place != "weights")


def test_lines_for_a_pipe_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--interventions"]) == 0
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["intervention", "flags", *METHODS]
    assert main(["list", "--interventions", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["interventions"]
    for row, entry in zip(rows, listed, strict=True):
        assert row[:2] == [entry["slug"], entry["flags"]]
        assert row[2:] == [why or "yes" for why in entry["refused"].values()]
    assert listed[0]["flags"] == "--sparsity.level 0.75"


def test_no_torch_is_needed(tmp_path: Path) -> None:
    without_torch(["list", "--interventions"], tmp_path)
    refused = without_torch(["pretrain", "mlm", "--data", ".", "--budget.steps", "3", "--sparsity.level", "2"], tmp_path)
    assert refused.startswith("headstart pretrain: --sparsity.level is 2.0.")


def test_an_intervention_is_no_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "spdf", "--data", "."]) == 2
    assert "'spdf' is no method of its own" in capsys.readouterr().err
