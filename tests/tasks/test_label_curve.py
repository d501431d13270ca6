"""Metric against number of labels: the draws, the measured points, and what a head start is worth in labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import UsageError
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData, read_classification, read_regression
from headstart.tasks.finetune import finetune
from headstart.tasks.label_curve import Bench, Curve, draw_labels, epochs, label_curve, labels_worth
from headstart.tasks.rows import make_rows, take
from tests.corpus import labelled, write_jsonl
from tests.running import TINY

CONFIG = FinetuneConfig(
    learning_rate=2e-3, epochs=10, batch=16, optimizer="adamw", layer_decay=1.0, pooling="mean", loss_reduction="mean", device="cpu", precision="fp32"
)


@pytest.fixture(scope="module")
def reader(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a network that has read the documents on four topics."""
    from headstart.verbs.pretrain import pretrain

    settings = TINY | {"budget.steps": 400, "optimizer.learning_rate": 1e-2, "trainer.log_every": 100, "trainer.evaluate_every": 400}
    out = tmp_path_factory.mktemp("reader") / "run"
    return pretrain("causal-lm", store, say=lambda line: None, out=out, **settings | {"trainer.checkpoint_every": 400}).export


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> TextData:
    return read_classification(write_jsonl(tmp_path_factory.mktemp("labels") / "topics.jsonl", labelled(400, seed=1)))


# draws


def test_each_seed_draws_its_own_records_and_larger_sets_hold_the_smaller_ones(topics: TextData) -> None:
    draws = draw_labels(topics.labels, [8, 40], seeds=3)
    for draw in draws:
        assert draw.test is not None
        assert list(draw.subsets) == [8, 40, 300]
        assert not set(draw.train.tolist()) & set(draw.test.tolist())
        assert set(draw.subsets[8].tolist()) < set(draw.subsets[40].tolist()) < set(draw.subsets[300].tolist()) == set(draw.train.tolist())
        assert np.bincount(np.asarray(topics.labels)[draw.subsets[8]]).tolist() == [2, 2, 2, 2]
    assert set(draws[0].subsets[8].tolist()) != set(draws[1].subsets[8].tolist())
    again = draw_labels(topics.labels, [8], seeds=1)
    assert (again[0].subsets[8] == draws[0].subsets[8]).all(), "neither more seeds nor more counts change a draw"


def test_with_a_test_file_all_records_are_for_training_and_with_documents_none_is_torn(topics: TextData) -> None:
    draws = draw_labels(topics.labels, [8], seeds=2, has_test=True)
    assert all(draw.test is None and len(draw.train) == 400 for draw in draws)
    assert (draws[0].subsets[8] != draws[1].subsets[8]).any()
    documents = np.arange(400) // 10
    for draw in draw_labels(topics.labels, [40], seeds=2, groups=documents):
        assert draw.test is not None
        assert not set(documents[draw.test]) & set(documents[draw.train])
        assert len(draw.subsets[40]) == 40
        assert len(set(documents[draw.subsets[40]])) == 4


def test_rows_are_taken_whole_and_in_order() -> None:
    rows = make_rows([[1, 2], [3], [4, 5, 6]], {"kind": [[7, 7], [8], [9, 9, 9]]}, {"label": [0, 1, 2]})
    found = take(rows, np.array([2, 0]))
    assert found.ids.tolist() == [4, 5, 6, 1, 2]
    assert found.offsets.tolist() == [0, 3, 5]
    assert found.token_values["kind"].tolist() == [9, 9, 9, 7, 7]
    assert found.row_values["label"].tolist() == [2, 0]


# measured points


def test_a_point_is_what_finetune_measures_on_the_same_records(reader: Path, topics: TextData) -> None:
    """Bit for bit, although the rows were tokenised with all others and the weights copied: a pre-trained and a random start."""
    draw = draw_labels(topics.labels, [160], seeds=1)[0]
    assert draw.test is not None
    part = {name: TextData([topics.texts[i] for i in rows], [topics.labels[i] for i in rows], topics.classes) for name, rows in
            (("train", draw.subsets[160]), ("test", draw.test))}  # fmt: skip
    config = dataclasses.replace(CONFIG, learning_rate=1e-4)
    result = finetune("classification", reader, part["train"], part["test"], config=config, seeds=[0])
    for arm, fresh in (("pretrained", False), ("random", True)):
        bench = Bench(reader, topics, None, config, fresh=fresh)
        bench.score(draw.subsets[160][:40], draw.test, 0)  # leaves no trace
        scored = bench.score(draw.subsets[160], draw.test, 0)
        assert scored.value == result.arm(arm).mean("accuracy")
        assert 0.3 < scored.value < 1.0, "neither chance nor all right, or equality says little"
        assert scored.right is not None
        assert np.mean(scored.right) == pytest.approx(scored.value)


def test_few_records_are_passed_over_more_often() -> None:
    assert epochs(CONFIG, 8) == 100
    assert epochs(CONFIG, 33) == pytest.approx(100 / 3)
    assert epochs(CONFIG, 1600) == 10


def test_the_learning_rate_is_the_best_of_those_tried_on_training_records(reader: Path, topics: TextData) -> None:
    draw = draw_labels(topics.labels, [], seeds=1)[0]
    bench = Bench(reader, topics, None, dataclasses.replace(CONFIG, learning_rates=(1e-6, 2e-3)))
    rate, tried = bench.best_rate(draw)
    assert rate == 2e-3
    assert tried[2e-3] > tried[1e-6]
    part = set(draw.train.tolist())
    only = TextData([text if i in part else "?" for i, text in enumerate(topics.texts)], topics.labels, topics.classes)
    assert Bench(reader, only, None, dataclasses.replace(CONFIG, learning_rates=(1e-6, 2e-3))).best_rate(draw)[1] == tried, "test texts do not matter"


def test_what_was_read_before_is_worth_labels(reader: Path, topics: TextData) -> None:
    """By construction: topics are told by their nouns, which the network has seen together and a random one has not."""
    draws = draw_labels(topics.labels, [8, 40], seeds=3)
    said: list[str] = []
    mine, start = (
        label_curve(reader, topics, None, draws, CONFIG, fresh=fresh, measure="linear-probe", report=said.append) for fresh in (False, True)
    )
    assert mine.counts == start.counts == [8, 40, 300]
    assert len(said) == 18
    assert mine.test_share == 0.25
    assert mine.mean(8) > 0.8
    assert start.mean(8) < 0.6
    worth = labels_worth(mine, start)
    assert worth.labels == 8
    assert worth.random_labels is None or worth.random_labels > 40
    assert worth.ci95 is not None
    assert worth.ci95[0] > 16, "the whole interval is far beyond 8"


@pytest.mark.slow
def test_fine_tuning_shows_it_too(reader: Path, topics: TextData) -> None:
    draws = draw_labels(topics.labels, [8, 24], seeds=3)
    mine, start = (label_curve(reader, topics, None, draws, CONFIG, fresh=fresh) for fresh in (False, True))
    assert mine.mean(8) > start.mean(8) + 0.1
    assert labels_worth(mine, start).random_labels > 10  # type: ignore[operator]
    assert mine.seconds_a_point > 0


def test_numbers_have_a_curve_but_no_probe(reader: Path, tmp_path: Path) -> None:
    records = [{"text": record["text"], "label": str(len(record["text"]))} for record in labelled(60, seed=4)]
    numbers = read_regression(write_jsonl(tmp_path / "numbers.jsonl", records))
    draws = draw_labels(numbers.labels, [20], seeds=1, stratify=False)
    scored = Bench(reader, numbers, None, CONFIG, task="regression").score(draws[0].subsets[20], draws[0].test, 0)
    assert scored.right is None
    assert -1 <= scored.value <= 1
    for task, measure in (("regression", "linear-probe"), ("tagging", "finetune")):
        with pytest.raises(UsageError, match="has no curve here"):
            Bench(reader, numbers, None, CONFIG, task=task, measure=measure)  # type: ignore[arg-type]


# what it is worth, by hand


def curves(mine: dict[int, list[float]], theirs: dict[int, list[float]]) -> tuple[Curve, Curve]:
    return Curve("accuracy", mine), Curve("accuracy", theirs)


def test_the_count_is_interpolated_in_its_logarithm() -> None:
    """.6 lies half-way between .5 with 10 and .7 with 1000 labels: 100."""
    worth = labels_worth(*curves({10: [0.59, 0.6, 0.61]}, {10: [0.5, 0.5, 0.5], 1000: [0.7, 0.7, 0.7]}))
    assert worth.random_labels == pytest.approx(100)
    assert worth.ci95 is not None
    low, high = worth.ci95
    assert high is not None
    assert 10 < low < 100 < high < 1000
    assert low * high == pytest.approx(100**2, rel=0.1), "evenly wide in the logarithm"
    assert worth.sentence() == (
        f"A random start needs about 100 labels for what pre-training reaches with 10 labels (0.600) (95 % interval {low:.0f} to {high:.0f})."
    )


def test_more_scatter_widens_the_interval() -> None:
    theirs = {10: [0.5, 0.5, 0.5], 1000: [0.7, 0.7, 0.7]}
    narrow, wide = (labels_worth(*curves({10: values}, theirs)).ci95 for values in ([0.59, 0.6, 0.61], [0.57, 0.6, 0.63]))
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0]
    assert (wide[1] or np.inf) > (narrow[1] or 0)


def test_a_random_start_that_never_gets_there() -> None:
    worth = labels_worth(*curves({10: [0.9, 0.91, 0.92]}, {10: [0.5, 0.5, 0.5], 100: [0.6, 0.61, 0.6]}))
    assert worth.random_labels is None
    assert worth.ci95 == (pytest.approx(100), None)
    assert worth.sentence().startswith("A random start needs more than 100 labels for what pre-training reaches with 10 labels (0.910)")


def test_a_head_start_that_is_worth_nothing() -> None:
    worth = labels_worth(*curves({10: [0.3, 0.31, 0.29]}, {10: [0.5, 0.5, 0.5], 100: [0.6, 0.61, 0.6]}))
    assert worth.random_labels == 10
    assert "at most 10 labels" in worth.sentence()


def test_a_dip_of_the_random_start_does_not_count_as_getting_there() -> None:
    """.70 at 20 is noise beside .50 at 40: the monotone curve has their mean, so .65 is reached between 40 and 80."""
    theirs = {10: [0.4] * 3, 20: [0.7] * 3, 40: [0.5] * 3, 80: [0.8] * 3}
    worth = labels_worth(*curves({10: [0.65] * 3}, theirs))
    assert worth.random_labels is not None
    assert 40 < worth.random_labels < 80


def test_too_few_seeds_are_said() -> None:
    worth = labels_worth(*curves({10: [0.6, 0.6]}, {10: [0.5, 0.5], 1000: [0.7, 0.7]}))
    assert worth.ci95 is None
    assert worth.sentence().endswith("the seeds are too few for an interval.")
