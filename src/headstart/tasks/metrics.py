"""Metrics of the downstream tasks, on plain numpy arrays and lists."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats


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
    return {"pearson": float(stats.pearsonr(predicted, truth)[0]), "spearman": float(stats.spearmanr(predicted, truth)[0])}


def is_span_scheme(tags: Sequence[str]) -> bool:
    """Whether the tags mark spans: each is O or a B-, I-, E-, S- with a type."""
    return any(tag != "O" for tag in tags) and all(tag == "O" or re.match(r"[BIES]-.", tag) for tag in tags)


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
        if first == last:
            out[first] = f"S-{kind}"
        else:
            out[first : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - first - 1), f"E-{kind}"]
    return out


def span_metrics(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 over (sentence, start, end, type); accuracy is the share of words with the right tag."""
    mine = {(i, *span) for i, tags in enumerate(predicted) for span in spans(tags)}
    gold = {(i, *span) for i, tags in enumerate(truth) for span in spans(tags)}
    right = len(mine & gold)
    precision = right / len(mine) if mine else 0.0
    recall = right / len(gold) if gold else 0.0
    f1 = 2 * right / (len(mine) + len(gold)) if mine or gold else 1.0
    words = sum(len(tags) for tags in truth)
    same = sum(a == b for p, t in zip(predicted, truth, strict=True) for a, b in zip(p, t, strict=True))
    return {"f1": f1, "precision": precision, "recall": recall, "accuracy": same / max(words, 1)}


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

    def mean(measure: Callable[[str, str], float]) -> float:
        return float(np.mean([max(measure(p, truth) for truth in accepted or ("",)) for p, accepted in zip(predicted, truths, strict=True)]))

    return {"exact_match": mean(exact_match), "f1": mean(token_f1)}


def paired_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean of a - b, paired by position (seed), and its 95 % t interval; None for fewer than two pairs."""
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return mean, None
    half = float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return mean, (mean - half, mean + half)


def standard_error(values: Sequence[float]) -> float | None:
    """Standard deviation of the mean; None for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
