"""Permutations without storage: a keyed bijection of 0..n-1, evaluated for any positions at once.

A Feistel network is a permutation of all numbers of b bits whatever its round function; positions that land outside 0..n-1 are sent through again
("cycle walking", Black and Rogaway 2002), fewer than 2 rounds on average since 2^(b-1) < n. So the order of an epoch of any size has no state and
costs nothing to continue in the middle.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8


def mix(values: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that spreads every bit (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def combine(*numbers: int | np.ndarray) -> np.ndarray:
    """uint64 key from several non-negative integers or arrays of them, broadcast."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = mix(key * np.uint64(0x9E3779B97F4A7C15) + np.asarray(number).astype(np.uint64) + np.uint64(1))
    return key


def permute(positions: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Images of `positions` under the permutation of 0..n-1 that `keys` names.

    Args:
        positions: int64 [k], each 0..n-1.
        n: at least 1, at most 2^62.
        keys: uint64 [k] or [1], one permutation for each position or for all.

    Returns:
        int64 [k].
    """
    bits = max(int(n - 1).bit_length(), 2)
    low = bits // 2
    values = positions.astype(np.uint64)
    keys = np.broadcast_to(keys, values.shape)
    result = np.empty(len(values), np.int64)
    todo = np.arange(len(values))
    while len(todo):
        values = _feistel(values, low, bits - low, keys[todo])
        inside = values < np.uint64(n)
        result[todo[inside]] = values[inside].astype(np.int64)
        values, todo = values[~inside], todo[~inside]
    return result


def _feistel(values: np.ndarray, low: int, high: int, keys: np.ndarray) -> np.ndarray:
    """One pass. The halves have `low` and `high` bits and change places each round; after an even number of rounds the widths are as before."""
    for number in range(ROUNDS):
        mask = np.uint64((1 << low) - 1)
        right, left = values & mask, values >> np.uint64(low)
        # The left half takes a keyed hash of the right one, then becomes the right.
        left = (left ^ mix(mix(keys + np.uint64(number)) + right)) & np.uint64((1 << high) - 1)
        values = (right << np.uint64(high)) | left
        low, high = high, low
    return values
