"""Whether test records stand in the training data too: exactly, or but for case, punctuation and spaces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

_NOT_WORD = re.compile(r"[\W_]+")
SHOWN = 5


@dataclass
class Overlap:
    """What of the test set stands in the other texts."""

    n_test: int
    exact: int  # test records whose text is there character for character
    normalised: int  # test records that are there after normalisation, the exact ones included
    examples: list[int] = field(default_factory=list)  # the first such records, counted from 1

    @property
    def share(self) -> float:
        return self.normalised / self.n_test if self.n_test else 0.0

    def sentence(self, where: str) -> str:
        """One line for the result."""
        if not self.normalised:
            return f"None of the {self.n_test} test records stands in {where}."
        which = ", ".join(map(str, self.examples)) + (" ..." if self.normalised > len(self.examples) else "")
        part = f"{self.normalised} of {self.n_test} test records ({100 * self.share:.1f} %)"
        return f"{part} stand in {where}, {self.exact} of them exactly: records {which}."

    def to_json(self) -> dict[str, Any]:
        return {"n_test": self.n_test, "exact": self.exact, "normalised": self.normalised, "examples": self.examples}


def normalise(text: str) -> str:
    """Lower case, and every run of spaces and punctuation one space."""
    return _NOT_WORD.sub(" ", text.casefold()).strip()


def find_overlap(test: Sequence[str], others: Iterable[str]) -> Overlap:
    """Which test texts occur among `others` as a whole text.

    Args:
        others: read once, as a stream; only hashes of the test texts are kept. So it may be a pre-training corpus, given sentence by sentence.
    """
    exact = {_key(text) for text in test}
    loose = {_key(plain) for text in test if (plain := normalise(text))}
    seen_exact: set[bytes] = set()
    seen_loose: set[bytes] = set()
    for text in others:
        key = _key(text)
        if key in exact:
            seen_exact.add(key)
        key = _key(normalise(text))
        if key in loose:
            seen_loose.add(key)
    is_exact = [_key(text) in seen_exact for text in test]
    is_there = [found or _key(normalise(text)) in seen_loose for found, text in zip(is_exact, test, strict=True)]
    examples = [i + 1 for i, found in enumerate(is_there) if found][:SHOWN]
    return Overlap(len(test), sum(is_exact), sum(is_there), examples)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
