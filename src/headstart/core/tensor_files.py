"""safetensors files with the rights of every other file: the library (0.8) makes them for their owner alone, whatever the umask says, so that nobody
else on a shared machine could load an export."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UMASK = os.umask(0)  # it cannot be read otherwise
os.umask(_UMASK)


def save_tensors(tensors: Mapping[str, Any], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes contiguous CPU tensors, or arrays of numpy."""
    of_numpy = "numpy" in type(next(iter(tensors.values()), None)).__module__
    library = importlib.import_module("safetensors.numpy" if of_numpy else "safetensors.torch")
    library.save_file(dict(tensors), path, metadata=metadata)
    open_to_others(path)


def open_to_others(path: str | Path) -> None:
    """Gives a file, or those of a folder, the rights that a new file has."""
    path = Path(path)
    for file in [path] if path.is_file() else path.iterdir():
        if file.is_file():
            file.chmod(0o666 & ~_UMASK)
