"""Checkpoint files of TensorFlow: what TensorFlow itself wrote is read bit for bit; what is damaged or lies is refused, before memory is taken."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from headstart.core.errors import BadInput
from headstart.interop.tensorflow_bundle import open_bundle, prefix_of
from tests.fuzz.fuzzing import budget, spoilt, tried
from tests.fuzz.mutations import damaged
from tests.official import HEADER, block, entry, field, number, table, write_bundle

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tensorflow"
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def written_by_tensorflow() -> dict[str, np.ndarray]:
    return dict(runpy.run_path(str(FIXTURE / "values.py"))["VALUES"])


def test_what_tensorflow_wrote_is_read_bit_for_bit() -> None:
    bundle, expected = open_bundle(FIXTURE / "model.ckpt-3"), written_by_tensorflow()
    assert set(bundle.variables) == set(expected)
    for name, values in expected.items():
        found = bundle.read(name)
        assert found.shape == values.shape
        assert found.dtype == values.dtype
        assert np.array_equal(found, values), name


def test_the_files_of_a_checkpoint_are_known_by_each_of_their_names(tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt-3", {"w": VALUES})
    for name in ("model.ckpt-3", "model.ckpt-3.index", "model.ckpt-3.data-00000-of-00001", "model.ckpt-3.meta"):
        assert prefix_of(tmp_path / name) == tmp_path / "model.ckpt-3"
    assert prefix_of(tmp_path / "model.ckpt") is None


def test_an_index_of_several_blocks(tmp_path: Path) -> None:
    place(tmp_path, {}, 2 * RAW)
    (tmp_path / "x.index").write_bytes(table({b"": HEADER, b"a": entry((2, 3), 0, RAW)}, {b"b": entry((3, 2), 24, RAW)}))
    bundle = open_bundle(tmp_path / "x")
    assert np.array_equal(bundle.read("a"), VALUES)
    assert np.array_equal(bundle.read("b"), VALUES.reshape(3, 2))


def test_blocks_that_are_the_same_one_many_times(tmp_path: Path) -> None:
    """A small file that would be read for ever."""
    place(tmp_path, {}, RAW)
    once = block({b"": HEADER} | {b"x%04d" % name: bytes(60) for name in range(50)})
    index = block({b"%04d" % name: number(0) + number(len(once) - 5) for name in range(200)})
    footer = number(len(once)) + number(0) + number(len(once)) + number(len(index) - 5)
    (tmp_path / "x.index").write_bytes(once + index + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little"))
    with pytest.raises(BadInput, match="blocks lie over each other"):
        open_bundle(tmp_path / "x")


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    data = np.array([0x3F80, 0xC000], "<u2").tobytes()
    place(tmp_path, {b"w": entry((2,), 0, data, 14)}, data)
    assert open_bundle(tmp_path / "x").read("w").tolist() == [1.0, -2.0]


def place(folder: Path, entries: dict[bytes, bytes], data: bytes, header: bytes = HEADER) -> None:
    (folder / "x.index").write_bytes(table({b"": header} | entries))
    (folder / "x.data-00000-of-00001").write_bytes(data)


RAW = VALUES.tobytes()
LIES = {
    "a shape of more bytes": (entry((2**40, 3), 0, RAW), "has the shape"),
    "a negative size": (entry((2**64 - 1,), 0, RAW), "a negative size"),
    "bytes past the end": (entry((2, 3), 8, RAW), "where its files end"),
    "a far place": (entry((2, 3), 2**63, RAW), "where its files end"),
    "another file": (entry((2, 3), 0, RAW, shard=3), "where its files end"),
    "another checksum": (entry((2, 3), 0, RAW, crc=1), "is not what was written"),
    "strings": (entry((2, 3), 0, RAW, 7), "type 7, which is not read"),
    "slices": (entry((2, 3), 0, RAW) + field(7, b""), "in slices, which is not read"),
    "no message": (b"\x0f\x01", "is no message"),
    "a number without an end": (b"\x08" + b"\xff" * 12, "has no end"),
    "many axes": (entry((1,) * 9, 0, RAW[:4]), "where its files end"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies(lie: str, tmp_path: Path) -> None:
    told, what = LIES[lie]
    place(tmp_path, {b"w": told}, RAW)
    with pytest.raises(BadInput, match=what):
        open_bundle(tmp_path / "x").read("w")


def test_a_name_that_changed_is_no_name(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", {"weight": VALUES})
    (tmp_path / "x.index").write_bytes((tmp_path / "x.index").read_bytes().replace(b"weight", b"height"))
    with pytest.raises(BadInput, match="a checksum differs"):
        open_bundle(tmp_path / "x")


def test_names_without_end_are_refused(tmp_path: Path) -> None:
    """Each could be made of the one before and a byte of its own."""
    place(tmp_path, {b"w" * 5000: entry((2, 3), 0, RAW)}, RAW)
    with pytest.raises(BadInput, match="an entry lies past its block"):
        open_bundle(tmp_path / "x")


def test_variables_that_lie_over_each_other_are_more_than_the_file(tmp_path: Path) -> None:
    place(tmp_path, {f"w{number}".encode(): entry((2, 3), 0, RAW) for number in range(3)}, RAW)
    with pytest.raises(BadInput, match="more bytes than its files hold"):
        open_bundle(tmp_path / "x")


def test_headers_of_another_machine_and_of_many_files(tmp_path: Path) -> None:
    for header in (field(1, 1) + field(2, 1), field(1, 10**6), b""):
        place(tmp_path, {b"w": entry((2, 3), 0, RAW)}, RAW, header)
        with pytest.raises(BadInput, match="another order of bytes, or of"):
            open_bundle(tmp_path / "x")


def test_a_compressed_index_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", {"w": VALUES})
    raw = bytearray((tmp_path / "x.index").read_bytes())
    raw[raw.index(b"\1\0\0\0\0") + 4] = 1  # the type of the first block, after its one restart
    (tmp_path / "x.index").write_bytes(bytes(raw))
    with pytest.raises(BadInput, match="it is compressed"):
        open_bundle(tmp_path / "x")


def test_files_that_are_missing_or_lead_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    write_bundle(folder / "x", {"w": VALUES})
    (folder / "x.data-00000-of-00001").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="cannot be read"):
        open_bundle(folder / "x")
    (folder / "x.data-00000-of-00001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="leads out of its folder"):
        open_bundle(folder / "x")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    """Of TensorFlow's own files, whose keys share beginnings."""
    shutil.copytree(FIXTURE, tmp_path / "there")
    index, data = (tmp_path / "there" / f"model.ckpt-3.{end}" for end in ("index", "data-00000-of-00001"))
    expected = written_by_tensorflow()

    def read() -> None:
        bundle = open_bundle(tmp_path / "there" / "model.ckpt-3")
        for name in bundle.variables:
            found = bundle.read(name)
            assert np.array_equal(found, expected[name]), "every bit is under a checksum"

    @budget(60)
    @given(damaged(index.read_bytes()))
    def fuzz_index(raw: bytes) -> None:
        with spoilt(index, raw):
            tried(read)

    @budget(20)
    @given(damaged(data.read_bytes()))
    def fuzz_data(raw: bytes) -> None:
        with spoilt(data, raw):
            tried(read)

    fuzz_index()
    fuzz_data()
