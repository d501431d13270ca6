"""CRC-32C: the published values, and the same bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.crc32c import crc32c, unmasked


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
    ids=["nothing", "digits", "zeros", "ones", "ascending"],
)
def test_published_values(data: bytes, value: int) -> None:
    """RFC 3720, B.4."""
    assert crc32c(data) == value


@pytest.mark.parametrize("length", [1, 1000, 17 * 2**14 + 77], ids=str)
def test_long_data_is_cut_into_lanes_and_joined(length: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, length, np.uint8).tobytes()
    table = [0] * 256
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table[byte] = value
    register = 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_the_disguise_of_a_stored_checksum() -> None:
    """LevelDB, util/crc32c.h: rotated right by 15 bits, plus a constant."""
    value = crc32c(b"foo")
    stored = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert stored != value
    assert unmasked(stored) == value
