"""The verdict at the end of a run: the backbone beside what it began with, on labelled records."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import headstart
from headstart.core.errors import BadInput
from headstart.tasks.metrics import mean_interval
from headstart.verbs._verdict import TEST_SHARE, Labelled, probe_scores, split_half
from tests.corpus import labelled, write_jsonl
from tests.running import TINY, records, run_info

LABELS = 160


@pytest.fixture(scope="module")
def probed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    """A finished run with labels, what it said, and its settings."""
    folder = tmp_path_factory.mktemp("probed")
    labels = write_jsonl(folder / "labels.jsonl", labelled(LABELS, seed=4))
    said: list[str] = []
    settings = {**TINY, "budget.steps": 60, "probe.labels": labels, "trainer.checkpoint_every": 20, "trainer.evaluate_every": 30}
    run = headstart.pretrain("causal-lm", store, say=said.append, out=folder / "run", **settings)
    return run.folder, said, settings


def test_with_labels_the_run_ends_with_a_verdict_and_its_interval(probed: tuple[Path, list[str], dict[str, Any]]) -> None:
    run, said, _ = probed
    verdict = run_info(run)["verdict"]
    assert verdict["metric"] == "linear_probe_accuracy"
    assert verdict["began_with"] == "a random start"
    assert verdict["gain"] == pytest.approx(verdict["trained"] - verdict["start"])
    low, high = verdict["ci95"]
    assert low < verdict["gain"] < high
    sentence = next(line for line in said if line.startswith(f"On {LABELS} labelled records"))
    assert f"{verdict['trained']:.3f}, from a random start {verdict['start']:.3f}" in sentence
    expected = "helps" if low > 0 else "hurts" if high < 0 else "makes no difference"
    assert f"the head start {expected}" in sentence
    assert f"95 % interval {low:+.3f} to {high:+.3f}" in sentence
    assert not any("--probe.labels" in line for line in said[-5:]), "it has been given"


def test_the_probes_run_at_each_evaluation(probed: tuple[Path, list[str], dict[str, Any]]) -> None:
    lines = records(probed[0], "probes")
    for name in ("knn_accuracy", "linear_probe_accuracy"):
        values = [(line["step"], line["value"]) for line in lines if line["probe"] == name]
        assert [step for step, _ in values] == [30, 60]
        assert all(0.25 < value <= 1 for _, value in values), "four topics: better than chance even from random features"


def test_a_continued_run_is_compared_with_the_same_start(probed: tuple[Path, list[str], dict[str, Any]], store: Path, tmp_path: Path) -> None:
    run, _, settings = probed
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-00000060")
    (copy / "run.json").write_text((copy / "run.json").read_text().replace('"done"', '"running"'))
    again = headstart.pretrain("causal-lm", store, say=lambda line: None, out=copy, **settings)
    assert again.info["resumed_at"] == 40
    assert again.info["verdict"] == run_info(run)["verdict"]


def test_a_run_from_weights_is_not_said_to_come_from_a_random_start(
    probed: tuple[Path, list[str], dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    run, _, settings = probed
    more = headstart.pretrain("causal-lm", store, say=lambda line: None, out=tmp_path / "more", init=run, **settings | {"budget.steps": 4})
    verdict = more.info["verdict"]
    assert verdict["began_with"] == f"the weights of {run}"
    assert verdict["start"] == pytest.approx(run_info(run)["verdict"]["trained"], abs=1e-6)
    assert f"from the weights of {run}" in verdict["sentence"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a", "label": "x"}\n{"text": "b"}\n', r"labels\.jsonl, record 2: .*label"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "lab', r"labels\.jsonl, record 2"),
        ('{"text": "a", "label": "x"}\n', "has only the class 'x'"),
        ("", r"labels\.jsonl"),
        (None, r"labels\.jsonl"),
    ],
)
def test_bad_labels_stop_the_run_before_training(text: str | None, message: str, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=message):
        headstart.pretrain("causal-lm", store, say=lambda line: None, out=tmp_path / "run", **TINY, **{"budget.steps": 4, "probe.labels": path})
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_halves_are_stratified_and_disjoint() -> None:
    labels = torch.tensor([0] * 11 + [1] * 4 + [2] * 2)
    for seed in range(5):
        train, test = split_half(labels, seed)
        assert sorted(torch.cat([train, test]).tolist()) == list(range(17))
        assert labels[train].bincount().tolist() == [6, 2, 1]
    assert split_half(labels, 0)[0].tolist() != split_half(labels, 1)[0].tolist()


def test_probe_scores_tell_features_that_know_the_label_from_noise() -> None:
    labels = torch.arange(4).repeat(40)
    data = Labelled([], labels, 4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(160, 8, generator=generator)
    assert np.mean(probe_scores(noise, data)) < 0.4
    assert np.mean(probe_scores(noise + 3 * torch.nn.functional.one_hot(labels, 8), data)) > 0.9


def test_the_interval_is_the_corrected_one_of_overlapping_halves() -> None:
    """Nadeau and Bengio 2003: variance times (1/n + test/train), here 1/5 + 1."""
    gains = np.array([0.02, 0.05, 0.03, 0.04, 0.06])
    mean, interval = mean_interval(gains.tolist(), test_share=TEST_SHARE)
    assert interval is not None
    low, high = interval
    assert mean == pytest.approx(0.04)
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.var(gains, ddof=1) * 1.2)
    assert (low, high) == (pytest.approx(0.04 - half), pytest.approx(0.04 + half))
    assert low < 0 < high, "five overlapping halves that all gain a little prove nothing"
