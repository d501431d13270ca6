"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, over many bytes at once.

A checksum goes byte by byte, each step needing the one before. So the bytes are cut into equal lanes whose steps are taken together in numpy, and the
lanes' checksums are joined afterwards: what zeros do to a checksum is linear, a table of 32 numbers, which squared is that of twice as many zeros.
About 100 MB/s on one core, where a loop in Python makes 5.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # reflected
_LANES = 1 << 14
_BITS = np.arange(32, dtype=np.uint32)


def _byte_table() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _byte_table()


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of all bytes."""
    values = np.frombuffer(data, np.uint8)
    lanes = _LANES if len(values) >= 16 * _LANES else 1
    length = len(values) // lanes
    begun, rest = values[: lanes * length].reshape(lanes, length), values[lanes * length :]
    state = _register(begun, np.zeros(lanes, np.uint32))
    shift = _after_zeros(length)
    while len(state) > 1:  # the left of two lanes is followed by the right one: as many zeros, and what the right one adds
        state = _applied(shift, state[0::2]) ^ state[1::2]
        shift = _applied(shift, shift)
    # A register that begins with ones: the same as ones in front of the data, carried over its length.
    state = state ^ _applied(_after_zeros(lanes * length), np.array([0xFFFFFFFF], np.uint32))
    return int(_register(rest[None], state)[0]) ^ 0xFFFFFFFF


def unmasked(stored: int) -> int:
    """The checksum that a file of TensorFlow or LevelDB stores in disguise, since checksums of data with checksums in it are weak."""
    turned = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def _register(rows: NDArray[np.uint8], state: Words) -> Words:
    """The registers [lanes] after the bytes [lanes, length]."""
    columns = np.ascontiguousarray(rows.T)
    for column in columns:
        state = _TABLE[(state ^ column) & 0xFF] ^ (state >> 8)
    return state


def _after_zeros(count: int) -> Words:
    """uint32 [32]: what becomes of each bit of a register after so many zero bytes."""
    power = _register(np.zeros((32, 1), np.uint8), np.uint32(1) << _BITS)  # of one
    found = np.uint32(1) << _BITS
    while count:
        if count & 1:
            found = _applied(power, found)
        power = _applied(power, power)
        count >>= 1
    return found


def _applied(matrix: Words, registers: Words) -> Words:
    """The sum, modulo 2, of the rows of a matrix [32] that each register's bits choose."""
    found = np.zeros_like(registers)
    for bit in range(32):
        found ^= np.where(registers >> np.uint32(bit) & 1, matrix[bit], np.uint32(0)).astype(np.uint32)
    return found
