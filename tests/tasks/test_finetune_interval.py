"""What the interval of a fine-tuning's verdict covers: seeds and test records where a record has a value of its own, seeds alone elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import headstart.tasks.metrics as metrics
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import Question, QuestionData, TaggedData, TextData
from headstart.tasks.generation import loss_records, loss_scores
from headstart.tasks.image_data import image_metrics, image_records
from headstart.tasks.question_answering import Answer, QuestionAnswering
from headstart.tasks.result import PRETRAINED, RANDOM, Arm, Result, SeedRun
from headstart.tasks.rows import make_rows
from headstart.tasks.text_classification import Regression, TextClassification
from headstart.tasks.token_classification import Tagging


def result_of(mine: Sequence[Any], random: Sequence[Any], metric: str = "accuracy", higher: bool = True) -> Result:
    """Of arms with one number, or the values of all test records, a seed."""

    def run(seed: int, value: Any) -> SeedRun:
        mean = {metric: float(np.mean(value))}
        if np.ndim(value) == 0:
            return SeedRun(seed, mean, None, 0.0, None, 1, 1.0)
        return SeedRun(seed, mean, None, 0.0, None, 1, 1.0, metrics.Records(np.asarray(value, float), len(value), metric == "accuracy"))

    arms = [Arm(name, 1e-3, [run(seed, value) for seed, value in enumerate(values)]) for name, values in ((PRETRAINED, mine), (RANDOM, random))]
    return Result("a task", metric, "model", arms, {}, higher_is_better=higher)


@pytest.mark.parametrize(("metric", "higher"), [("accuracy", True), ("rmse", False)], ids=["share", "error"])
@pytest.mark.parametrize(("mine", "random"), [(0.7, 0.6), (0.6, 0.7)], ids=["above", "below"])
def test_seeds_that_are_all_alike_decide_nothing(mine: float, random: float, metric: str, higher: bool) -> None:
    result = result_of([mine] * 3, [random] * 3, metric, higher)
    assert result.verdict().startswith("Whether the head start helps is open: ")
    assert f"{mine - random:+.4f} in each of 3 seeds" in result.verdict()
    found = result.to_json()
    assert (found["difference"], found["ci95"], found["ci95_over"]) == (pytest.approx(mine - random), None, None)


def test_ten_test_records_count_beside_seeds_that_agree() -> None:
    """One of ten records differs, in every seed: differences 1, 0, 0, ...: mean .1, variance .1, of the mean .1 / 10 = .01; t(.975, 9) = 2.262157."""
    result = result_of([[1] * 7 + [0] * 3] * 3, [[1] * 6 + [0] * 4] * 3)
    compared = result.difference()
    assert compared is not None
    assert compared[0] == pytest.approx(0.1)
    assert compared[1] == pytest.approx((0.1 - 0.2262157, 0.1 + 0.2262157), abs=1e-6)
    assert result.verdict() == (
        "Whether the head start helps is open: accuracy 0.7000 against 0.6000 from random initialisation, +0.1000 (95 % interval -0.1262 to +0.3262"
        " over 3 seeds and 10 test records)."
    )
    assert result.to_json()["ci95_over"] == ["seeds", "test records"]


def test_without_values_of_records_the_sentence_says_that_the_interval_covers_seeds_alone() -> None:
    """Differences .1, .12, .08: standard deviation .02, t(.975, 2) = 4.302653."""
    result = result_of([0.8, 0.82, 0.78], [0.7, 0.7, 0.7], "knn_accuracy")
    half = 4.302653 * 0.02 / math.sqrt(3)
    interval = f"(95 % interval {0.1 - half:+.4f} to {0.1 + half:+.4f} over 3 seeds alone, not over the choice of test records)"
    assert interval in result.verdict()
    assert result.to_json()["ci95_over"] == ["seeds"]


def test_values_of_records_are_not_in_the_file_and_everything_else_is() -> None:
    runs = result_of([[1, 1]] * 3, [[1, 0]] * 3).to_json()["arms"][0]["runs"]
    assert [list(run) for run in runs] == [["seed", "metrics", "dev_metrics", "loss", "stuck", "steps", "wall_s"]] * 3


def test_an_error_without_an_end_gets_no_least_width() -> None:
    """In thousandths: differences -.001 and -.003 over two records in each seed: mean -.002, variance of the mean 1e-6, t(.975, 1) = 12.7062."""
    compared = result_of([[0.001, 0.003]] * 3, [[0.002, 0.006]] * 3, "rmse", higher=False).difference()
    assert compared is not None
    assert compared[1] == pytest.approx((-0.002 - 0.0127062, -0.002 + 0.0127062), abs=1e-6)


# --- what each record adds ------------------------------------------------------------------------------------------------------------------------


def test_of_a_mean_each_record_adds_its_own_value() -> None:
    values = np.array([0.5, 2.0, -1.0])
    found = metrics.without_each(lambda kept: float(values[kept].mean()), 3)
    assert found is not None
    assert found.values == pytest.approx(values)


def test_of_a_ratio_each_record_adds_what_is_missed_without_it() -> None:
    """1 of 1 and 1 of 3, together .5: 2 * .5 - 1 / 3 = 2 / 3 and 2 * .5 - 1 = 0, moved by 1 / 6 to the mean .5."""
    found = metrics.without_each(lambda kept: float(np.array([1, 1])[kept].sum() / np.array([1, 3])[kept].sum()), 2)
    assert found is not None
    assert found.values == pytest.approx([5 / 6, 1 / 6])


def test_many_records_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RECORD_GROUPS", 2)
    values = np.array([1.0, 2.0, 3.0, 6.0])  # means of 1, 3 and of 2, 6
    found = metrics.without_each(lambda kept: float(values[kept].mean()), 4)
    assert found is not None
    assert found.values == pytest.approx([2.0, 4.0])
    assert found.count == 4


def test_where_one_record_holds_all_nothing_can_be_said() -> None:
    weights = np.array([0, 0, 2])
    assert metrics.without_each(lambda kept: 1 / int(weights[kept].sum()), 3) is None
    assert metrics.without_each(lambda kept: 1.0, 1) is None


def test_every_task_of_texts_knows_what_a_record_adds() -> None:
    """The mean of the values is the metric; of shares the values are the records' own."""
    config = FinetuneConfig()
    texts = TextData(["a", "b", "c", "d"], [0, 1, 1, 0], ["n", "y"])
    job = TextClassification(config, texts)
    right = job.records(["n", "y", "n", "n"], texts)
    assert right.values.tolist() == [1, 1, 0, 1]
    assert (right.count, right.shares) == (4, True)

    numbers = TextData(["a", "b", "c", "d", "e"], [1.0, 2.0, 3.0, 4.0, 5.0], [])
    regression = Regression(config, numbers)
    said = [1.0, 2.0, 3.0, 5.0, 4.0]
    ranked = regression.records(said, numbers)
    assert ranked is not None
    assert ranked.values.mean() == pytest.approx(0.9) == regression.score(said, numbers)["spearman"]
    # without a right one .8, without one of the two that changed places 1: 5 * .9 - 4 * .8 = 1.3 and .5, moved by -.08 to the mean .9
    assert ranked.values == pytest.approx([1.22, 1.22, 1.22, 0.42, 0.42])

    tags = TaggedData([["u", "v"], ["w"]], [["B-X", "I-X"], ["B-X"]])
    tagging = Tagging(config, tags)
    spans = tagging.records([["B-X", "E-X"], ["O"]], tags)
    assert spans is not None
    assert spans.values.mean() == pytest.approx(2 / 3)
    assert spans.values == pytest.approx([2 / 3 + 0.5, 2 / 3 - 0.5]), "without the first F1 is 0, without the second 1"

    questions = QuestionData([Question("q", "what", "anna berg", ("anna berg",), 0, False), Question("r", "who", "anna berg", ("anna",), 0, False)])
    answers = QuestionAnswering(config, questions).records([Answer("anna", 0.0), Answer("anna", 0.0)], questions)
    assert answers.values == pytest.approx([2 / 3, 1.0])


def test_images_and_generated_texts_too() -> None:
    logits, labels = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]]), np.array([0, 0, 0, 1])
    right = image_records(logits, labels, "accuracy")
    assert right is not None
    assert right.values.tolist() == [1, 0, 1, 1]
    several = np.array([[1, 0], [0, 1], [1, 1], [0, 1]], bool)
    for metric in ("auc", "map"):
        found = image_records(logits, several, metric)
        assert found is not None
        assert found.values.mean() == pytest.approx(image_metrics(logits, several)[metric])
    assert image_records(logits, labels, "knn_accuracy") is None

    rows = make_rows([[1, 2, 3], [1, 2, 3, 4], [1, 2]], row_values={"start": [1, 1, 1], "item": [0, 0, 1], "bytes": [1, 1, 1]})
    nll = np.array([2.0, 3.0, 4.0])  # of 2, 3 and 1 tokens: of the first source 5 in 5, of the second 4 in 1
    texts = loss_records(nll, rows)
    assert texts is not None
    assert loss_scores(nll, rows)["log_prob"] == pytest.approx(-1.5)
    assert texts.values == pytest.approx([-1.5 + 1.5, -1.5 - 1.5]), "without the first it is -4, without the second -1"
