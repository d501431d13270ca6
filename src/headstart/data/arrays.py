"""Arrays of a store, memory-mapped."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import own_file
from headstart.core.machine import refuse_limits

HEADER_ERRORS = (OSError, ValueError, EOFError, TypeError, OverflowError, SyntaxError, TokenError, RecursionError, MemoryError)
"""What numpy raises for a header that may say anything: it is parsed as Python's literals."""


def map_array(folder: Path, name: str, rebuild: str) -> np.ndarray:
    """The array NAME.npy of `folder`, read-only. Nothing is unpickled; numpy checks the size that the header states against that of the file.

    Args:
        rebuild: how to mend a damaged one.

    Raises:
        BadInput: it is missing, outside the folder, no array, cut off, or of Python objects.
    """
    path = own_file(folder, f"{name}.npy")
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # the same memory without memmap's cost in every access
    except HEADER_ERRORS as error:
        refuse_limits(error, path)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"cannot be opened ({reason}).", rebuild, file=path) from error
