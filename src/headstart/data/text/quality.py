"""Which documents of a pool are taken: the most probable ones for a scorer, after guards, until a quota of training tokens is met.

Lowest perplexity loves boilerplate, so before anything is chosen these go (Guo et al. 2025, arXiv 2406.14833, strategy II, with guards of ours):
texts of the reference itself, short ones, exact and near duplicates of documents kept before; on request the lowest q % and all beyond a bound.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headstart.core.errors import UsageError
from headstart.data.text.ngram import Scorer, Trigram, words_of
from headstart.data.text.spans import hash_spans

WINDOW = 13
"""Words of the windows by which near duplicates are found."""
NEARLY = 0.5
"""A document with more than this share of its windows in others is one of them again."""
SHORT_REFERENCE = 20_000
"""Words of a reference below which its ranking is unstable."""
STRANGE = 0.3
"""Share of unknown words from which on a document is of another language or kind."""
KEPT, REFERENCE, SHORT, EXACT, NEAR, LOW, BOUND = range(7)
REASONS = ("kept", "in the reference", "short", "exact duplicate", "near duplicate", "among the lowest", "beyond a bound")
"""What became of a document; the guards in the order in which they are asked."""
LOOSER = {
    REFERENCE: "Give a pool of other text than the reference.",
    SHORT: "Lower --min-words, or give longer texts.",
    EXACT: "Give more text: the same one twice counts once.",
    NEAR: "Give more text, or leave near duplicates in with --no-near-duplicates.",
    LOW: "Lower --drop-lowest.",
    BOUND: "Widen --lower and --upper.",
}
"""What to do where a guard took most."""


@dataclass(frozen=True)
class Guards:
    """What is never taken."""

    min_words: int = 50
    """Shorter documents go; words as the scorer counts them."""
    near_duplicates: bool = True
    """Find them. It takes 8 bytes of memory a word of the pool."""
    drop_lowest: float = 0.0
    """Share of what is left that has the lowest perplexity, and goes: boilerplate. The paper: none."""
    lower: float | None = None
    upper: float | None = None
    """Bounds of the perplexity."""

    def __post_init__(self) -> None:
        if self.min_words < 0:
            raise UsageError(f"min_words is {self.min_words}.", "Give a whole number of at least 0.")
        if not 0 <= self.drop_lowest < 1:
            raise UsageError(f"drop_lowest is {self.drop_lowest}.", "Give a share from 0 up to, but not, 1.")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise UsageError(f"The bounds of the perplexity are {self.lower} and {self.upper}.", "Give a lower one below the upper one.")


@dataclass
class Seen:
    """What is kept of texts that were looked at: numbers, no text.

    Attributes:
        keys: uint64 [documents], equal for texts that are equal after lower-casing and joining of blanks.
        windows: uint64 [windows], hashes of all windows of 13 words of all documents, one after another.
        counts: int64 [documents], windows of each. A document of fewer words has one: all of it.
    """

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    windows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        if not parts:
            return cls()
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "windows", "counts")))


class Looker:
    """Looks at texts for their duplicates. The numbers of words are the same in every process."""

    def __init__(self) -> None:
        self._numbers = _Numbers()

    def look(self, texts: Sequence[str], windows: bool = True) -> Seen:
        keys = np.array([_key(text) for text in texts], np.uint64)
        if not windows or not texts:
            return Seen(keys, np.zeros(0, np.uint64), np.zeros(len(texts), np.int64))
        owner, hashes = self.windows(texts)
        return Seen(keys, hashes, np.bincount(owner, minlength=len(texts)))

    def windows(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the text, ascending, and hash of each of its windows of 13 `\\w+` words."""
        numbers = [np.fromiter(map(self._numbers.__getitem__, words_of(text)), np.uint64) for text in texts]
        numbers = [of_text[of_text != 0] for of_text in numbers]  # punctuation is no `\w+`
        owner = np.repeat(np.arange(len(texts)), [len(of_text) for of_text in numbers])
        return hash_spans(np.concatenate(numbers), owner, WINDOW) if len(owner) else (owner, np.zeros(0, np.uint64))


class _Numbers(dict[str, int]):
    """Word -> 64 bits of a hash; 0 for punctuation."""

    def __missing__(self, word: str) -> int:
        known = word[0].isalnum() or word[0] == "_" or len(word) > 1
        self[word] = number = (int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") | 1) if known else 0
        return number


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "little")


def find_duplicates(seen: Seen, order: np.ndarray, words: np.ndarray, reference: Seen, guards: Guards) -> np.ndarray:
    """int8 [documents]: KEPT, or why it goes, before any score is looked at.

    Args:
        seen: of the pool.
        order: int64 [documents]: the order in which documents are kept; of two that are alike the first stays.
        words: int64 [documents].
        reference: texts that are none of the pool's.
    """
    fate = np.full(len(order), KEPT, np.int8)
    fate[np.isin(seen.keys, reference.keys)] = REFERENCE
    if len(reference.windows) and len(seen.windows):
        owner = np.repeat(np.arange(len(order)), seen.counts)
        shared = np.bincount(owner, np.isin(seen.windows, reference.windows), minlength=len(order))
        fate[shared > NEARLY * np.maximum(seen.counts, 1)] = REFERENCE
    fate[(fate == KEPT) & (words < guards.min_words)] = SHORT
    candidates = order[fate[order] == KEPT]
    first = np.unique(seen.keys[candidates], return_index=True)[1]
    again = np.ones(len(candidates), bool)
    again[first] = False
    fate[candidates[again]] = EXACT
    if len(seen.windows):
        _, numbers = np.unique(seen.windows, return_inverse=True)
        known = np.zeros(len(seen.windows), bool)
        ends = np.cumsum(seen.counts)
        for document in candidates[~again]:
            own = numbers[ends[document] - seen.counts[document] : ends[document]]
            if known[own].sum() > NEARLY * len(own):
                fate[document] = NEAR
            else:
                known[own] = True
    return fate


def apply_bounds(perplexity: np.ndarray, fate: np.ndarray, guards: Guards) -> np.ndarray:
    """`fate` after the guards that look at the perplexity. The lowest share is of the documents that are within the bounds."""
    fate = fate.copy()
    low, high = guards.lower or 0.0, np.inf if guards.upper is None else guards.upper
    fate[(fate == KEPT) & ((perplexity < low) | (perplexity > high))] = BOUND
    left = np.flatnonzero(fate == KEPT)
    lowest = left[np.argsort(perplexity[left], kind="stable")[: int(guards.drop_lowest * len(left))]]
    fate[lowest] = LOW
    return fate


def take(perplexity: np.ndarray, tokens: np.ndarray, order: np.ndarray, fate: np.ndarray, quota: int) -> np.ndarray:
    """int64: the kept documents of lowest perplexity, in that order, until `quota` tokens are reached; the one that crosses it is taken. Of equal
    perplexities the one that comes first in `order`.

    Raises:
        UsageError: there are fewer tokens, or none is asked for.
    """
    if quota < 1:
        raise UsageError(f"a quota of {quota} tokens.", "Give at least 1.")
    kept = order[fate[order] == KEPT]
    ranked = kept[np.argsort(perplexity[kept], kind="stable")]
    reached = np.cumsum(tokens[ranked])
    if not len(ranked) or reached[-1] < quota:
        there = int(reached[-1]) if len(ranked) else 0
        raise UsageError(f"The pool has {there:,} tokens after the guards, the quota is {quota:,}.", _more(tokens, fate, quota))
    return ranked[: int(np.searchsorted(reached, quota)) + 1]


def _more(tokens: np.ndarray, fate: np.ndarray, quota: int) -> str:
    """How a quota is reached: where the pool has as much, the guards took it."""
    if not len(fate) or tokens.sum() < quota:
        return "Lower the quota, or give more text."
    taken = [int(tokens[fate == number].sum()) for number in range(len(REASONS))]
    most = max(LOOSER, key=taken.__getitem__)
    what = f"{REASONS[most]}: {int((fate == most).sum()):,} of {len(fate):,} documents, {taken[most]:,} tokens"
    return f"What the guards took was mostly {what}. {LOOSER[most]}"


def fates(fate: np.ndarray) -> dict[str, int]:
    """What became of the documents -> how many, the guards in their order."""
    counted = Counter(fate.tolist())
    return {reason: counted[number] for number, reason in enumerate(REASONS) if counted[number] or number == KEPT}


def halves_agree(reference: Sequence[str], sample: Sequence[str], min_count: int) -> float | None:
    """Rank correlation (Spearman) of the perplexities that two halves of the reference give a sample of the pool. None where a half has no word, or
    the sample has fewer than three texts."""
    halves = reference[::2], reference[1::2]
    if len(sample) < 3 or not all(any(map(words_of, half)) for half in halves):
        return None
    scorers: list[Scorer] = [Trigram.train(half, min_count) for half in halves]
    one, other = (_ranks(scorer.score(sample).perplexity) for scorer in scorers)
    if one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """float64: ranks, those of equal values meaned."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]
