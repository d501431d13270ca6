"""Checkpoint files of TensorFlow (`model.ckpt.index` and `model.ckpt.data-00000-of-00001`), read without TensorFlow.

- The index is a table of LevelDB (`leveldb`). Key "" is the header, each other one a variable: type, shape, which data file, from where, how many
  bytes, their checksum (tensor_bundle.proto).
- Files are a stranger's: an index has a largest size, a variable is read only where shape, type and bytes agree and lie in its file, all of them
  together are no more than the files hold, and every checksum is compared. Names of files come from the checkpoint's own name alone.
- TensorFlow writes indexes without compression; one with snappy is refused, as are variables in slices and strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.crc32c import crc32c, unmasked
from headstart.core.errors import BadInput
from headstart.core.files import open_regular, own_file, read_bounded
from headstart.interop.leveldb import number_at, read_table

MAX_INDEX_BYTES = 2**26
"""Of an index: about 100 bytes a variable."""
MAX_FILES = 1024
MAX_AXES = 8
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 9: "<i8", 10: "|b1", 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8"}
"""DataType of TensorFlow -> numpy's; strings, complex and quantised numbers are not read, bfloat16 (14) is widened."""
_BFLOAT16 = 14
_MEND = "Copy the checkpoint again, both .index and .data files."


@dataclass(frozen=True)
class Variable:
    """Where a variable lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int | None
    sliced: bool


@dataclass(frozen=True)
class Bundle:
    """A checkpoint whose index was read."""

    prefix: Path
    files: int
    variables: Mapping[str, Variable]

    def data_file(self, shard: int) -> Path:
        return own_file(self.prefix.parent, f"{self.prefix.name}.data-{shard:05d}-of-{self.files:05d}")

    def read(self, name: str) -> np.ndarray:
        """One variable.

        Raises:
            BadInput: it is of a kind that is not read, or not what was written.
        """
        one, file = self.variables[name], self.data_file(self.variables[name].shard)
        kind = _TYPES.get(one.dtype) or ("<u2" if one.dtype == _BFLOAT16 else None)
        if kind is None or one.sliced:
            what = "in slices" if one.sliced else f"of TensorFlow's type {one.dtype}"
            raise BadInput(f"has {name} {what}, which is not read.", "Save the variable whole, as floating-point numbers.", file=self.index)
        if math.prod(one.shape) * np.dtype(kind).itemsize != one.size:
            raise BadInput(f"says that {name} has the shape {list(one.shape)} and {one.size:,} bytes.", _MEND, file=self.index)
        with open_regular(file) as opened:
            opened.seek(one.offset)
            data = opened.read(one.size)
        if len(data) != one.size or (one.checksum is not None and crc32c(data) != one.checksum):
            raise BadInput(f"is damaged: {name} is not what was written.", _MEND, file=file)
        array = np.frombuffer(data, kind).reshape(one.shape)
        return (array.astype("<u4") << 16).view("<f4") if one.dtype == _BFLOAT16 else array

    @property
    def index(self) -> Path:
        return index_of(self.prefix)


def index_of(prefix: Path) -> Path:
    """The index of a checkpoint, which is known by the name that its files begin with."""
    return prefix.with_name(f"{prefix.name}.index")


def prefix_of(path: Path) -> Path | None:
    """The checkpoint that a file of it, or the name that they begin with, stands for; None: it is of none."""
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    return prefix if index_of(prefix).is_file() else None


def open_bundle(prefix: Path) -> Bundle:
    """Reads the index of a checkpoint.

    Raises:
        BadInput: it is none, is damaged, or speaks of bytes that its files do not hold.
    """
    path = own_file(prefix.parent, index_of(prefix).name)
    data = read_bounded(path, MAX_INDEX_BYTES, "checkpoint index")
    try:
        entries = dict(read_table(data))
        header = _message(entries.pop(b"", b""))
        variables = {key.decode(): _variable(value) for key, value in entries.items()}
    except (ValueError, IndexError) as error:
        raise BadInput(f"is no index of a TensorFlow checkpoint ({error}).", _MEND, file=path) from None
    files = _whole(header, 1)
    if _whole(header, 2) or not 1 <= files <= MAX_FILES:
        raise BadInput(f"is of a machine with another order of bytes, or of {files:,} files.", "Save it again on an ordinary machine.", file=path)
    found = Bundle(prefix, files, variables)
    sizes = [found.data_file(shard).stat().st_size for shard in range(files)]
    for name, one in variables.items():
        if one.shard >= files or one.offset + one.size > sizes[one.shard] or len(one.shape) > MAX_AXES:
            raise BadInput(f"says that {name} lies where its files end.", _MEND, file=path)
    if sum(one.size for one in variables.values()) > sum(sizes):
        raise BadInput("speaks of more bytes than its files hold.", _MEND, file=path)
    return found


def _variable(value: bytes) -> Variable:
    """BundleEntryProto."""
    fields = _message(value)
    shape = []
    for axes in _all(_message(_bytes(fields, 2)), 2):
        size = _whole(_message(axes), 1)
        if size >= 1 << 63:
            raise ValueError("a negative size")
        shape.append(size)
    checksum = fields.get(6, [None])[-1]
    if checksum is not None and not isinstance(checksum, int):
        raise ValueError("a checksum that is no number")
    known = None if checksum is None else unmasked(checksum)
    return Variable(_whole(fields, 1), tuple(shape), _whole(fields, 3), _whole(fields, 4), _whole(fields, 5), known, 7 in fields)


def _message(data: bytes) -> dict[int, list[Any]]:
    """Fields of a protocol buffer: number -> its values, numbers or bytes."""
    fields: dict[int, list[Any]] = {}
    value: int | bytes
    at = 0
    while at < len(data):
        tag, at = number_at(data, at)
        if tag & 7 == 0:
            value, at = number_at(data, at)
        else:
            length, at = (8, at) if tag & 7 == 1 else (4, at) if tag & 7 == 5 else number_at(data, at)
            if tag & 7 not in (1, 2, 5) or at + length > len(data):
                raise ValueError("an entry is no message")
            value = data[at : at + length] if tag & 7 == 2 else int.from_bytes(data[at : at + length], "little")
            at += length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _all(fields: Mapping[int, list[Any]], number: int) -> list[bytes]:
    values = fields.get(number, [])
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError("an entry is no message")
    return values


def _bytes(fields: Mapping[int, list[Any]], number: int) -> bytes:
    return _all(fields, number)[-1] if number in fields else b""


def _whole(fields: Mapping[int, list[Any]], number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError("an entry is no number")
    return value
