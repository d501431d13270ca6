"""Permutations without storage: a keyed bijection of 0..n-1, evaluated for any positions at once.

A position is written as a pair (x, y) below a and b, a and b about the square root of n. A round adds a keyed hash of one half to the other, modulo
its size: that is a bijection of the pairs whatever the hash (a Feistel network with addition, as in Black and Rogaway 2002). Pairs beyond n-1 are
sent through again ("cycle walking"), at most one in sqrt(n). So the order of an epoch of any size has no state, and costs nothing to continue in
the middle.
"""

from __future__ import annotations

import math

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
    a = math.isqrt(max(n - 1, 1)) + 1
    b = -(-n // a)
    round_keys = [mix(keys + np.uint64(number)) for number in range(ROUNDS)]
    values = positions.astype(np.uint64)
    result = np.empty(len(values), np.int64)
    todo = np.arange(len(values))
    while len(todo):
        x, y = np.divmod(values, np.uint64(b))
        for number in range(0, ROUNDS, 2):
            x = _add_hash(x, a, y, round_keys[number])
            y = _add_hash(y, b, x, round_keys[number + 1])
        values = x * np.uint64(b) + y
        inside = values < np.uint64(n)
        result[todo[inside]] = values[inside].astype(np.int64)
        outside = ~inside
        values, todo = values[outside], todo[outside]
        if len(keys) > 1:
            round_keys = [key[outside] for key in round_keys]
    return result


def draw(population: int, n: int, seed: int) -> np.ndarray:
    """`n` different numbers below `population` (all of them if there are fewer), int64, by rising number."""
    if population == 0:
        return np.empty(0, np.int64)
    return np.sort(permute(np.arange(min(n, population)), population, combine(seed)))


def _add_hash(half: np.ndarray, size: int, other: np.ndarray, key: np.ndarray) -> np.ndarray:
    """`half` plus a keyed hash of `other`, modulo `size`, which is below 2^32."""
    hashed = (other + key) * np.uint64(0xBF58476D1CE4E5B9)
    hashed ^= hashed >> np.uint64(32)
    hashed *= np.uint64(0x94D049BB133111EB)
    hashed >>= np.uint64(32)
    hashed *= np.uint64(size)  # a number below 2^32 becomes one below `size`
    hashed >>= np.uint64(32)
    hashed += half
    hashed -= np.uint64(size) * (hashed >= np.uint64(size))
    return hashed
