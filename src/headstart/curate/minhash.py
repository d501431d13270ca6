"""MinHash signatures of texts: two texts that share most word 5-grams agree in one of 14 bands (webmath A4; the parameters are FineWeb's).

112 = 14 bands x 8 hashes of (a x + b) mod (2^61 - 1) over the sha1 of each 5-gram, in wrapping 64-bit arithmetic as datatrove computes it. Texts
of Jaccard
similarity s agree in a band with probability 1 - (1 - s^8)^14: half at s = 0.72. Only whole-band agreement counts, so 64 bytes a band are all that
is kept.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

N_GRAM = 5
BANDS, ROWS = 14, 8
PRIME = (1 << 61) - 1
BAND_BYTES = 8 * ROWS
BLOCK = 4096
"""Shingles that are permuted at once: 3.7 MB of products stay in a cache."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TYPOGRAPHIC = "—”：％１〈（、━【「」，】；“《„’∶´．–？！～«〉》）。…►»"
_CONTROL = [*range(32), *range(127, 160)]
_BLANKS = dict.fromkeys([*map(ord, string.punctuation + _TYPOGRAPHIC), *_CONTROL], " ")


def threshold(bands: int = BANDS, rows: int = ROWS) -> float:
    """The Jaccard similarity around which pairs begin to be found: (1 / bands)^(1 / rows)."""
    return (1 / bands) ** (1 / rows)


def found_with(similarity: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """The probability that a pair of this Jaccard similarity is found."""
    return 1 - (1 - similarity**rows) ** bands


def normalised(text: str) -> str:
    """Lower case, numbers as 0, punctuation and control characters as blanks, blanks collapsed, without combining marks."""
    text = _NUMBER.sub("0", text.lower()).translate(_BLANKS)
    text = " ".join(text.split())
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def shingles(text: str, *, characters: bool = False) -> list[str]:
    """The 5-grams of a text, of words joined by a blank, or of characters (for languages that write no blanks). Fewer than 5: none."""
    simple = normalised(text)
    if characters:
        units = simple.replace(" ", "")
        return [units[i : i + N_GRAM] for i in range(len(units) - N_GRAM + 1)]
    words = simple.split(" ") if simple else []
    return list(map(" ".join, zip(*(words[i:] for i in range(N_GRAM)), strict=False)))


def hash_shingles(grams: Iterable[str]) -> np.ndarray:
    """The first 8 bytes of sha1, little endian: uint64 [n]; each distinct shingle once."""
    sha1 = hashlib.sha1
    return np.frombuffer(b"".join([sha1(gram.encode("utf-8", "surrogatepass")).digest()[:8] for gram in set(grams)]), dtype="<u8")


@cache
def permutations(seed: int = 1, count: int = BANDS * ROWS) -> tuple[np.ndarray, np.ndarray]:
    """a and b: uint64 [count] each."""
    draw = np.random.RandomState(seed)  # the legacy generator, for the parameters that everyone has
    a = draw.randint(1, PRIME, dtype=np.uint64, size=(1, count))
    b = draw.randint(0, PRIME, dtype=np.uint64, size=(1, count))
    return a[0], b[0]


def permuted(hashes: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a x + b) mod 2^61 - 1, the sum wrapping at 2^64: uint64 [n, len(a)]. A Mersenne number divides by a shift and an addition."""
    products = hashes[:, None] * a  # [n, count], wraps
    products += b
    high = products >> np.uint64(61)
    products &= np.uint64(PRIME)
    products += high
    np.subtract(products, np.uint64(PRIME), out=products, where=products >= np.uint64(PRIME))
    return products


def signature(hashes: np.ndarray) -> np.ndarray:
    """The minimum of each permutation over a text's shingles: uint64 [112].

    Args:
        hashes: uint64 [n] with n > 0.
    """
    a, b = permutations()
    minima = np.full(len(a), PRIME, dtype=np.uint64)
    for start in range(0, len(hashes), BLOCK):
        np.minimum(minima, permuted(hashes[start : start + BLOCK], a, b).min(axis=0), out=minima)
    return minima


def signatures(texts: Sequence[str], characters: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Signatures of texts.

    Args:
        characters: for each text whether its shingles are of characters.

    Returns:
        uint64 [n, 112], and bool [n]: whether the text has a shingle at all. One that has none is never a duplicate.
    """
    found = np.full((len(texts), BANDS * ROWS), PRIME, dtype=np.uint64)
    has = np.zeros(len(texts), dtype=bool)
    for row, (text, by_character) in enumerate(zip(texts, characters, strict=True)):
        if len(hashes := hash_shingles(shingles(text, characters=by_character))):
            found[row], has[row] = signature(hashes), True
    return found, has


def bands(signature_rows: np.ndarray) -> np.ndarray:
    """The bands of signatures as bytes: uint8 [n, 14, 64]."""
    return np.ascontiguousarray(signature_rows.astype("<u8")).view(np.uint8).reshape(len(signature_rows), BANDS, BAND_BYTES)
