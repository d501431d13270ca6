"""Metrics of the downstream tasks, on plain numpy arrays and lists."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


def classification_metrics(predicted: np.ndarray, truth: np.ndarray, n_classes: int) -> dict[str, float]:
    """Accuracy, and F1 averaged over the classes that occur in truth or prediction.

    Args:
        predicted, truth: int [n], 0..n_classes-1.
    """
    confusion = np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)  # [truth, predicted]
    right, total = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    occurs = total > 0
    return {"accuracy": float(right.sum() / len(truth)), "macro_f1": float((2 * right[occurs] / total[occurs]).mean())}


def regression_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation; 0 where a side is constant (it then says nothing). Float [n] each."""
    if len(truth) < 2 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    from scipy import stats  # late: docs/decisions/0001-late-imports.md

    return {"pearson": float(stats.pearsonr(predicted, truth)[0]), "spearman": float(stats.spearmanr(predicted, truth)[0])}


def is_span_scheme(tags: Sequence[str]) -> bool:
    """Whether the tags mark spans: each is O, or B, I, E, S with a type ("B-Disease") or all without one."""
    marks = {tag for tag in tags if tag != "O"}
    return bool(marks) and (all(re.match(r"[BIES]-.", tag) for tag in marks) or marks <= {"B", "I", "E", "S"})


def spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, last word, type) of each span, in any of the schemes IOB1, IOB2, BIOES.

    A span begins at B- or S-, or where the type changes; it ends at E- or S-, or before the next begin.
    """
    found: list[tuple[int, int, str]] = []
    start, kind = -1, ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if start >= 0 and (prefix in ("O", "B", "S") or name != kind):
            found.append((start, i - 1, kind))
            start = -1
        if prefix != "O" and start < 0:
            start, kind = i, name
        if prefix in ("E", "S"):
            found.append((start, i, kind))
            start = -1
    return found


def to_bioes(tags: Sequence[str]) -> list[str]:
    """The same spans in BIOES: O B-X I-X I-X O B-Y becomes O B-X I-X E-X O S-Y (google-research/electra, finetune/tagging/tagging_utils.py)."""
    out = ["O"] * len(tags)
    for first, last, kind in spans(tags):
        of = f"-{kind}" if kind else ""
        if first == last:
            out[first] = f"S{of}"
        else:
            out[first : last + 1] = [f"B{of}", *[f"I{of}"] * (last - first - 1), f"E{of}"]
    return out


def span_metrics(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over (sentence, start, end, type); accuracy is the share of words with the right tag."""
    return span_scores(span_counts(predicted, truth))


def span_counts(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> np.ndarray:
    """int64 [sentences, 5]: right, predicted and true spans, right words, words."""
    found = []
    for said, gold in zip(predicted, truth, strict=True):
        mine, true = set(spans(said)), set(spans(gold))
        found.append((len(mine & true), len(mine), len(true), sum(a == b for a, b in zip(said, gold, strict=True)), len(gold)))
    return np.array(found, dtype=np.int64).reshape(-1, 5)


def span_scores(counts: np.ndarray) -> dict[str, float]:
    """The metrics of sentences with these `span_counts`."""
    right, mine, gold, same, words = counts.sum(0).tolist()
    f1 = 2 * right / (mine + gold) if mine or gold else 1.0
    return {"f1": f1, "precision": right / mine if mine else 0.0, "recall": right / gold if gold else 0.0, "accuracy": same / max(words, 1)}


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and surplus spaces (the official SQuAD evaluation)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(predicted: str, truth: str) -> float:
    """1 if both are the same after normalisation."""
    return float(normalise_answer(predicted) == normalise_answer(truth))


def token_f1(predicted: str, truth: str) -> float:
    """F1 over the bags of words after normalisation; with an empty side 1 if both are empty."""
    mine, gold = normalise_answer(predicted).split(), normalise_answer(truth).split()
    if not mine or not gold:
        return float(mine == gold)
    common = sum((Counter(mine) & Counter(gold)).values())
    return 2 * common / (len(mine) + len(gold))


def answer_metrics(predicted: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
    """SQuAD exact match and F1, the best over the accepted answers of each question; no accepted answer means that "" is right."""
    return {name: float(np.mean(answer_values(predicted, truths, measure))) for name, measure in (("exact_match", exact_match), ("f1", token_f1))}


def answer_values(predicted: Sequence[str], truths: Sequence[Sequence[str]], measure: Callable[[str, str], float]) -> list[float]:
    """One value a question, the best over its accepted answers."""
    return [max(measure(p, truth) for truth in accepted or ("",)) for p, accepted in zip(predicted, truths, strict=True)]


FEWEST_SEEDS = 3
"""Fewer values give no interval: Student's t is 12.7 for two, an interval that mostly leaves what a metric can be and decides nothing. With three it
is 4.3, with five 2.8."""
Interval: TypeAlias = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)


def metric_range(metric: str) -> Interval:
    """What a metric of this module can be: a correlation -1 to 1, a log-probability below 0, a share 0 to 1."""
    if metric == "log_prob":
        return -math.inf, 0.0
    return (-1.0, 1.0) if metric in ("pearson", "spearman") else (0.0, 1.0)


def difference_range(metric: str) -> Interval:
    """What a difference of two values of a metric can be."""
    low, high = metric_range(metric)
    return low - high, high - low


def mean_interval(values: Sequence[float], bounds: Interval = ANY, test_share: float = 0.0) -> tuple[float, Interval | None]:
    """Mean and its 95 % t interval; None for fewer than three values.

    Args:
        values: one a seed.
        bounds: what the mean can be; the interval is cut to it (which leaves what it covers as it was).
        test_share: of the records, when each value comes from another random split of the same ones. The splits overlap, so their spread is too
            small: its share 1/n becomes 1/n + test/train (Nadeau and Bengio 2003).
    """
    found = difference(np.asarray(values, dtype=np.float64), np.zeros(len(values)), test_share=test_share, bounds=bounds)
    return found.mean, found.interval


def paired_difference(a: Sequence[float], b: Sequence[float], bounds: Interval = ANY) -> tuple[float, Interval | None]:
    """Mean of a - b, paired by position (seed), and its 95 % t interval, cut to `bounds`; None for fewer than three pairs."""
    found = difference(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64), bounds=bounds)
    return found.mean, found.interval


RECORD_GROUPS = 200
"""More test records than these are taken together in so many groups where a metric has to be found anew without each; t is 1.97 then."""


@dataclass(frozen=True)
class Records:
    """What each test record adds to the metric of one training.

    Attributes:
        values: float64 [records], or [groups of records]; their mean is the metric.
        count: how many test records.
        shares: the metric is the mean of what is right of each record, 0 to 1, so one record more or less is worth 1 / count.
    """

    values: np.ndarray
    count: int
    shares: bool

    @classmethod
    def of_shares(cls, right: Sequence[float] | np.ndarray) -> Records:
        """Of a metric that is the mean of these values, 0 to 1 each."""
        return cls(np.asarray(right, dtype=np.float64), len(right), True)


def without_each(score: Callable[[np.ndarray], float], count: int, of: int | None = None) -> Records | None:
    """The `Records` of any other metric, as jackknife pseudo-values (Tukey 1958): n score(all) - (n - 1) score(all but this one), moved as a whole so
    that their mean is score(all). Where the score is a mean they are its terms. None where one record holds all that can be scored.

    Args:
        score: the metric of the records with these numbers, int64.
        count: how many there are. Of more than `RECORD_GROUPS` those with one remainder are left out together.
        of: the test records that they stand for; None: as many.
    """
    n = min(count, RECORD_GROUPS)
    if n < 2:
        return None
    numbers = np.arange(count)
    whole = score(numbers)
    try:
        left = np.array([score(numbers[numbers % n != part]) for part in range(n)])
    except ZeroDivisionError:
        return None
    values = n * whole - (n - 1) * left
    values += whole - values.mean()
    return Records(values, count if of is None else of, False) if np.isfinite(values).all() else None


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval and two-sided p value; None for fewer than three seeds."""

    mean: float
    interval: Interval | None
    p: float | None


def difference(
    a: np.ndarray, b: np.ndarray, *, paired: bool = True, test_share: float = 0.0, bounds: Interval = ANY, shares: bool = True
) -> Difference:
    """Mean of a - b.

    Args:
        a, b: [seeds], the metric; or [seeds, records], 1 where a test record was right, NaN where the seed did not test it: the interval then covers
            the choice of records too. Its variance is that of a two-way layout with random seeds and random records, (MS_seeds + MS_records -
            MS_rest) / (seeds records), and at least each part alone; freedom after Satterthwaite. When every seed has its own split (`test_share`),
            the seeds differ by their records already, and the part that gives the wider interval counts.
        paired: by seed; otherwise the numbers of seeds may differ (Welch).
        test_share: as in `mean_interval`.
        shares: as in `Records`.
    """
    from scipy.special import stdtr, stdtrit  # late: docs/decisions/0001-late-imports.md

    by_seed = [_over(a, 1), _over(b, 1)]
    mean = float(by_seed[0].mean() - by_seed[1].mean())
    n = min(len(a), len(b))
    if n < FEWEST_SEEDS:
        return Difference(mean, None, None)
    columns = [by_seed[0] - by_seed[1]] if paired else by_seed
    parts = [((1 / len(one) + test_share / (1 - test_share)) * float(one.var(ddof=1)), len(one) - 1) for one in columns]  # (variance, freedom)
    rest = 0.0
    if a.ndim == 2 and a.shape[1] > 1:
        tested = ~(np.isnan(a).all(0) | np.isnan(b).all(0))
        a, b = a[:, tested], b[:, tested]
        records = _over(a - b, 0) if paired else _over(a, 0) - _over(b, 0)
        # at least as if one record more could have gone the other way: all right in every seed is no certainty
        part = (max(float(records.var(ddof=1)) / len(records), 1 / len(records) ** 2 if shares else 0.0), len(records) - 1)
        if test_share > 0:
            parts = [max([(sum(one for one, _ in parts), n - 1), part], key=lambda one: math.sqrt(one[0]) * float(stdtrit(one[1], 0.975)))]
        else:
            parts.append(part)
            if paired:
                both = a - b
                left = both - both.mean(0) - both.mean(1, keepdims=True) + mean
                rest = float(np.square(left).sum()) / ((n - 1) * (len(records) - 1)) / both.size
    variance = max(sum(part for part, _ in parts) - rest, *(part for part, _ in parts), 0.0)
    freedom = sum(part for part, _ in parts) ** 2 / max(sum(part**2 / free for part, free in parts), 1e-300) if variance > 0 else n - 1.0
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 0.975)) * error
    p = float(2 * stdtr(freedom, -abs(mean) / error)) if error > 0 else float(mean == 0)
    return Difference(mean, (max(mean - half, bounds[0]), min(mean + half, bounds[1])), p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p values corrected for their number (Holm 1979): the smallest times n, the next times n - 1, ..., never falling. None stays None."""
    there = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(there):
        largest = max(largest, min(1.0, (len(there) - rank) * p))
        found[i] = largest
    return found


def _over(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean over an axis without the NaNs; one-dimensional values as they are."""
    return values if values.ndim == 1 else np.nanmean(values, axis)


def standard_error(values: Sequence[float]) -> float | None:
    """Standard deviation of the mean; None for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
