"""What survives a kill while images are prepared: pixels appended to one growing array, and small parts that say what is known of them.

A part is written after its pixels are on disk, beside and renamed, with the place where reading goes on. What lies behind the last part is cut off by
the next start.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from headstart.core.errors import BadInput
from headstart.core.files import sync_folder
from headstart.core.machine import refuse_limits, writing
from headstart.core.tensor_files import save_tensors

PARTS_VERSION = 4
ARRAYS = ("hashes", "lengths", "label", "places", "sizes", "mean", "spread", "missing", "looks")
"""Of a part, a row an image: content hash (uint64); how many rows of the growing array; index into `Part.labels` or -1; input file and record; height
and width of the file (int64 [n, 2]); mean and sum of squared deviations of each channel (float64 [n, channels]); share of the pixels without data;
what it looks like (int8 [n, 256], `looks.py`)."""


@dataclass
class Part:
    """Consecutive images.

    Attributes:
        file, record: where reading goes on: index of the input file, and how many of its records and faults are done.
        finished: (file index, sha256) of input files that ended in this part.
        faults: (file index, record number, what, mend).
        labels: names of the classes that occur in it.
        gaps: (file index, record number, share) of images that were left out, for so many of their pixels have no data.
    """

    file: int = 0
    record: int = 0
    finished: list[tuple[int, str]] = field(default_factory=list)
    faults: list[tuple[int, int, str, str]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    gaps: list[tuple[int, int, float]] = field(default_factory=list)


class PartArrays:
    """The rows of a part while it fills."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {name: [] for name in ARRAYS}
        self.labels: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.rows["hashes"])

    def add(self, label: str | None, **values: Any) -> None:
        self.rows["label"].append(-1 if label is None else self.labels.setdefault(label, len(self.labels)))
        for name, value in values.items():
            self.rows[name].append(value)

    def arrays(self, channels: int) -> dict[str, np.ndarray]:
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "hashes": (np.uint64, ()), "lengths": (np.int64, ()), "label": (np.int64, ()), "places": (np.int64, (2,)), "sizes": (np.int64, (2,)),
            "mean": (np.float64, (channels,)), "spread": (np.float64, (channels,)),
            "missing": (np.float64, ()), "looks": (np.int8, (256,)),
        }  # fmt: skip
        return {name: np.array(self.rows[name], kind).reshape(len(self), *inner) for name, (kind, inner) in shapes.items()}


class GrowingArray:
    """An .npy file to which rows are appended. numpy pads its header so that the first axis may grow to any number in place.

    Args:
        rows: how many of it count; what is behind them is cut off.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], inner: tuple[int, ...], rows: int) -> None:
        self.path, self.dtype, self.inner, self.rows = path, dtype, inner, rows
        self._row_bytes = dtype.itemsize * int(np.prod(inner, dtype=np.int64))
        self._file = path.open("r+b" if path.exists() else "w+b")
        there = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._write_header()
        wanted = self._file.tell() + rows * self._row_bytes
        if rows and there < wanted:
            raise BadInput("is shorter than its parts say.", f"Delete {path.parent} and start the same command again.", file=path)
        self._file.truncate(wanted)
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: np.ndarray | bytes) -> None:
        data = rows if isinstance(rows, bytes) else np.ascontiguousarray(rows, self.dtype).tobytes()
        self._file.write(data)
        self.rows += len(data) // self._row_bytes

    def flush(self) -> None:
        """Everything that was appended is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self.flush()
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.rows, *self.inner)}
        np.lib.format.write_array_header_1_0(self._file, header)


def write_part(path: Path, part: Part, rows: PartArrays, channels: int) -> Path:
    part.labels = list(rows.labels)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with writing(path):
        save_tensors(rows.arrays(channels), temporary, metadata={"part": json.dumps(asdict(part))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    return path


def read_part(path: Path) -> tuple[Part, dict[str, np.ndarray]]:
    """What is known of a part, and its arrays.

    Raises BadInput if it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return Part(**json.loads(file.metadata()["part"])), {name: file.get_tensor(name) for name in ARRAYS}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        refuse_limits(error, path)
        raise BadInput(f"is damaged ({error}).", f"Delete {path.parent.parent} and start the same command again.", file=path) from error
