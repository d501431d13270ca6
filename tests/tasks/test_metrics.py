"""Metrics by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from headstart.tasks.metrics import (
    answer_metrics,
    classification_metrics,
    difference,
    difference_range,
    exact_match,
    holm,
    is_span_scheme,
    mean_interval,
    metric_range,
    paired_difference,
    regression_metrics,
    span_metrics,
    spans,
    standard_error,
    to_bioes,
    token_f1,
)


def test_accuracy_and_macro_f1() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0])
    found = classification_metrics(predicted, truth, 4)  # class 3 occurs nowhere and does not count
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx((2 * 2 / 6 + 2 * 1 / 3 + 2 * 1 / 3) / 3)


def test_correlations() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    found = regression_metrics(np.array([1.0, 2.0, 3.0, 40.0]), truth)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(59 / math.sqrt(1085 * 5))  # deviations -10.5 -9.5 -8.5 28.5 and -1.5 -.5 .5 1.5
    assert regression_metrics(np.ones(4), truth) == {"pearson": 0.0, "spearman": 0.0}


def test_13_spans_become_bioes() -> None:
    assert to_bioes(["O", "B-X", "I-X", "I-X", "O", "B-Y"]) == ["O", "B-X", "I-X", "E-X", "O", "S-Y"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-X I-X B-X", [(0, 1, "X"), (2, 2, "X")]),
        ("I-X I-X O I-Y", [(0, 1, "X"), (3, 3, "Y")]),  # IOB1
        ("B-X I-Y", [(0, 0, "X"), (1, 1, "Y")]),
        ("S-X S-X", [(0, 0, "X"), (1, 1, "X")]),
        ("B-X E-X E-X", [(0, 1, "X"), (2, 2, "X")]),
        ("B-X I-X", [(0, 1, "X")]),
        ("B-a-b I-a-b O", [(0, 1, "a-b")]),
        ("O O", []),
    ],
)
def test_spans_of_every_scheme(tags: str, expected: list) -> None:
    assert spans(tags.split()) == expected
    assert spans(to_bioes(tags.split())) == expected


def test_span_schemes_are_told_from_plain_tags() -> None:
    assert is_span_scheme(["O", "B-X", "I-X"])
    assert not is_span_scheme(["NN", "VB", "O"])
    assert not is_span_scheme(["B-X", "NN"])
    assert is_span_scheme(["O", "B", "I"]), "of one type, which nobody names"
    assert not is_span_scheme(["B", "I", "B-X"])
    assert to_bioes(["O", "B", "I", "B"]) == ["O", "B", "E", "S"]
    assert not is_span_scheme(["O"])


def test_entity_f1_counts_whole_spans_with_their_type() -> None:
    truth = [["B-X", "I-X", "O", "B-Y"], ["B-X", "O"]]
    predicted = [["B-X", "I-X", "O", "B-X"], ["O", "O"]]
    found = span_metrics(predicted, truth)
    assert (found["precision"], found["recall"]) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    assert found["f1"] == pytest.approx(2 * 1 / 5)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert span_metrics([["O"]], [["O"]])["f1"] == 1.0
    assert span_metrics([["B-X", "O"]], [["B-X", "I-X"]])["f1"] == 0.0


def test_squad_scores() -> None:
    assert exact_match("The Mill.", "mill") == 1.0
    assert exact_match("mill", "mills") == 0.0
    assert token_f1("anna berg of oslo", "Anna Berg") == pytest.approx(2 * 2 / 6)
    assert token_f1("berg berg", "berg") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1.0
    assert token_f1("the", "") == 1.0  # an article alone is nothing after normalisation
    assert token_f1("", "x") == 0.0


def test_the_best_accepted_answer_counts_and_silence_is_right_without_one() -> None:
    found = answer_metrics(["berg", "", "x"], [("Anna Berg", "Berg"), (), ()])
    assert found == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}


def test_paired_difference() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, t(.975, 2) = 4.302653."""
    mean, interval = paired_difference([2, 4, 6], [1, 2, 3])
    assert mean == 2.0
    assert interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert paired_difference([2, 4, 6], [1, 2, 3], (-1.0, 2.5))[1] == pytest.approx((2 - 4.302653 / math.sqrt(3), 2.5), abs=1e-5)


@pytest.mark.parametrize("values", [[0.5], [0.2, 0.9]])
def test_fewer_than_three_seeds_give_no_interval(values: list[float]) -> None:
    assert paired_difference(values, [0.0] * len(values)) == (pytest.approx(np.mean(values)), None)
    assert mean_interval(values) == (pytest.approx(np.mean(values)), None)
    assert difference(np.array(values), np.array([0.1, 0.2, 0.3]), paired=False).p is None


def test_an_interval_stays_within_what_a_metric_can_be() -> None:
    """Standard deviation .2, t(.975, 2) = 4.302653: the plain interval of the mean .8 reaches from .30 to 1.30."""
    _, interval = mean_interval([0.6, 0.8, 1.0], metric_range("accuracy"))
    assert interval == pytest.approx((0.8 - 4.302653 * 0.2 / math.sqrt(3), 1.0))
    assert mean_interval([0.0, 0.2, 0.4], metric_range("accuracy"))[1] == pytest.approx((0.0, 0.2 + 4.302653 * 0.2 / math.sqrt(3)))
    assert metric_range("spearman") == (-1.0, 1.0)
    assert difference_range("accuracy") == (-1.0, 1.0)
    assert difference_range("spearman") == (-2.0, 2.0)


def test_overlapping_splits_widen_the_interval() -> None:
    """With halves 1/3 + 1 takes the place of 1/3: twice as wide."""
    plain, corrected = (mean_interval([0.1, 0.2, 0.3], test_share=share)[1] for share in (0.0, 0.5))
    assert plain is not None
    assert corrected is not None
    assert (corrected[1] - corrected[0]) / (plain[1] - plain[0]) == pytest.approx(2.0)


def test_unpaired_is_welch() -> None:
    a, b = np.array([0.5, 0.6, 0.9, 0.8]), np.array([0.1, 0.5, 0.3])
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = difference(a, b, paired=False)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_the_interval_covers_the_choice_of_test_records() -> None:
    """Simulated: true difference .1, spread over seeds .03 and over records .5. The interval that knows the records holds the truth in about 95 of
    100 experiments; that of the seeds alone in far fewer."""
    random = np.random.default_rng(0)
    with_records = alone = 0
    for _ in range(400):
        both = 0.1 + random.normal(0, 0.03, (5, 1)) + random.normal(0, 0.5, (1, 60)) + random.normal(0, 0.3, (5, 60))
        zero = np.zeros_like(both)
        for values, counts in ((both, True), (both.mean(1), False)):
            interval = difference(values, np.zeros_like(values)).interval
            assert interval is not None
            hit = interval[0] <= 0.1 <= interval[1]
            with_records += hit and counts
            alone += hit and not counts
        assert difference(both, zero).mean == pytest.approx(both.mean())
    assert 0.93 <= with_records / 400 <= 0.99
    assert alone / 400 < 0.7


def test_the_variance_is_that_of_a_two_way_layout() -> None:
    random = np.random.default_rng(2)
    both = random.normal(0, 1, (4, 1)) + random.normal(0, 1, (1, 6)) + random.normal(0, 1, (4, 6))
    seeds, records = both.mean(1), both.mean(0)
    rest = both - seeds[:, None] - records + both.mean()
    ms_seeds, ms_records, ms_rest = 6 * seeds.var(ddof=1), 4 * records.var(ddof=1), (rest**2).sum() / (3 * 5)
    freedom = (ms_seeds + ms_records) ** 2 / (ms_seeds**2 / 3 + ms_records**2 / 5)
    half = stats.t.ppf(0.975, freedom) * math.sqrt((ms_seeds + ms_records - ms_rest) / 24)
    assert difference(both, np.zeros_like(both)).interval == pytest.approx((both.mean() - half, both.mean() + half))


def test_seeds_that_agree_on_few_records_are_no_certainty() -> None:
    """All right in every seed against one wrong of ten: the seeds have no spread, but ten records are few. Of a thousand they would be many."""
    few, many = (difference(np.ones((3, n)), np.tile(np.arange(n) >= n // 10, (3, 1)).astype(float)) for n in (10, 1000))
    assert few.mean == many.mean == pytest.approx(0.1)
    assert few.interval is not None
    assert many.interval is not None
    assert few.interval[0] < 0 < many.interval[0]
    same = difference(np.ones((3, 10)), np.ones((3, 10))).interval
    assert same == (pytest.approx(-2.262157 / 10, abs=1e-4), pytest.approx(2.262157 / 10, abs=1e-4)), "one record in ten could have differed"


def test_of_splits_each_record_counts_once() -> None:
    """Five splits of 40 records, 10 tested in each: 40 distinct ones at most, not 50; and the spread of the splits counts where it is larger."""
    random = np.random.default_rng(1)
    right = np.full((5, 40), np.nan)
    for row in right:
        row[random.permutation(40)[:10]] = 1.0
    wrong = np.where(np.isnan(right), np.nan, 0.8)
    tested = int((~np.isnan(right).all(0)).sum())
    found = difference(right, wrong, test_share=0.25)
    assert found.interval is not None
    assert found.interval[1] - 0.2 == pytest.approx(stats.t.ppf(0.975, tested - 1) / tested)
    wrong[0] -= 0.5
    wider = difference(right, wrong, test_share=0.25).interval
    expected = mean_interval((np.nanmean(right, 1) - np.nanmean(wrong, 1)).tolist(), test_share=0.25)[1]
    assert wider == pytest.approx(expected)


def test_equal_differences_leave_no_doubt() -> None:
    same = difference(np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.6, 0.7]))
    assert (same.mean, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    apart = difference(np.array([0.5, 0.5, 0.5]), np.array([0.25, 0.25, 0.25]))
    assert (apart.interval, apart.p) == ((0.25, 0.25), 0.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


def test_standard_error() -> None:
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert standard_error([1.0]) is None
