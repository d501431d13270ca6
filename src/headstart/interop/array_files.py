"""A `.npz` of numpy from someone else: arrays by name, each read when it is asked for, none unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.words import first_line
from headstart.data.arrays import HEADER_ERRORS
from headstart.data.image.opening import read_header
from headstart.interop.model_folder import FREE_BYTES, MAX_GROWTH

_MEND = "Save it again with numpy.savez."


class ArrayFile:
    """An opened .npz.

    Attributes:
        names: of its arrays.

    Raises:
        BadInput: it is none, or would take more memory than its size explains.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist() if entry.filename.endswith(".npy")}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadInput(f"is no .npz of numpy ({first_line(error)}).", _MEND, file=path) from None
        self.names = tuple(self._entries)
        held, stated = path.stat().st_size, sum(entry.file_size for entry in self._entries.values())
        if stated > FREE_BYTES + MAX_GROWTH * held:
            raise BadInput(f"describes arrays of {stated / 2**20:,.0f} MiB, it has {held / 2**20:,.0f} MiB.", _MEND, file=path)

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
            BadInput: it is of Python objects, or not as long as it says.
        """
        entry = self._entries[name]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(entry) as file:
                shape, in_columns, kind = read_header(file)
                data = file.read(entry.file_size)
            return np.frombuffer(data, kind).reshape(shape, order="F" if in_columns else "C")  # of no objects, and as many as there are
        except (*HEADER_ERRORS, zipfile.BadZipFile, zipfile.zlib.error, NotImplementedError) as error:  # type: ignore[attr-defined]
            raise BadInput(f"holds {name}, which is no array that is read ({first_line(error)}).", _MEND, file=self.path) from None
