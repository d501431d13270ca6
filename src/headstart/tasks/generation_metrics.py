"""Scores of generated texts. BLEU is sacrebleu's, ROUGE-L google-research's rouge-score: the libraries that the field reports with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core.errors import MissingDependency

SCORER = "sacrebleu corpus_bleu, tokenize=13a, case kept; rouge-score rougeL, no stemming"
"""What made the figures: E2E's own script, and others, differ by one or two points of BLEU."""


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4, 0 to 1: n-gram counts clipped to the most in any reference, brevity by the reference of the closest length, the shorter of two.

    Args:
        outputs: one a source.
        references: of each all that it has, in any number.
    """
    try:
        from sacrebleu import corpus_bleu
    except ImportError:
        raise MissingDependency("sacrebleu", "generation", "BLEU") from None
    most = max(map(len, references))
    streams: list[Any] = [[of_one[i] if i < len(of_one) else None for of_one in references] for i in range(most)]  # a missing reference is None
    return float(corpus_bleu(list(outputs), streams, tokenize="13a").score) / 100


def rouge_l(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L F1, 0 to 1, against the reference that fits best."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingDependency("rouge-score", "generation", "ROUGE-L") from None
    scorer = RougeScorer(["rougeL"])
    return float(np.mean([scorer.score_multi(list(of_one), output)["rougeL"].fmeasure for output, of_one in zip(outputs, references, strict=True)]))


def slot_error(outputs: Sequence[str], values: Sequence[Sequence[str]]) -> float:
    """Share of the wanted values (lower case) that do not occur in their output."""
    missing = sum(value not in output.lower() for output, wanted in zip(outputs, values, strict=True) for value in wanted)
    return missing / max(1, sum(map(len, values)))
