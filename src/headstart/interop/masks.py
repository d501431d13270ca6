"""`masks.safetensors` beside the weights of a sparse model: bool, True where a weight is kept, named as the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.core.errors import BadInput
from headstart.core.files import own_file
from headstart.core.tensor_files import save_tensors

MASKS = "masks.safetensors"


def read_masks(folder: str | Path) -> dict[str, Tensor]:
    """Name -> mask; empty where the model is dense.

    Raises:
        BadInput: the file is damaged, or holds something else.
    """
    folder = Path(folder)
    if not (folder / MASKS).is_file():
        return {}
    path = own_file(folder, MASKS)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"cannot be read ({error})", "Copy the export again.", file=path) from None
    if strange := [name for name, mask in found.items() if mask.dtype != torch.bool]:
        raise BadInput(f"holds something else than masks ({strange[0]})", "Copy the export again.", file=path)
    return found


def write_masks(folder: Path, masks: Mapping[str, Tensor]) -> None:
    """Name -> bool, True where a weight is kept."""
    save_tensors({name: mask.contiguous().clone() for name, mask in masks.items()}, folder / MASKS)  # an export may have a weight under two names
