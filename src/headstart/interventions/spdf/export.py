"""What lies beside the export of a sparse model: `masks.safetensors` and `spdf.json`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from headstart.core.files import write_json
from headstart.interop.masks import MASKS, write_masks
from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.masks import Matrix

REPORT = "spdf.json"
FORMAT_VERSION = 1


def write_report(folder: Path, kept: Mapping[Matrix, Tensor], parameters: Mapping[str, Tensor], config: SparsityConfig, seed: int) -> None:
    """Writes, into each folder of the export that holds weights: masks.safetensors, bool, True where a weight is kept, under the names of the
    exported tensors; and spdf.json with settings and counts, made from the files as they were written.

    An export has other names than the method, and splits a fused matrix: a tensor is recognised by its values.

    Args:
        kept: of each sparse matrix its mask, in the parameter's layout.
        parameters: all of the method, by name.
    """
    known: dict[bytes, tuple[str, np.ndarray]] = {}
    for matrix, mask in kept.items():
        weight = matrix.own(parameters[matrix.name].detach().cpu().numpy())
        whole = matrix.own(mask.numpy())
        for name, rows in ((matrix.name, slice(0, matrix.shape[0])), *matrix.blocks):
            for values, part in ((weight[rows], whole[rows]), (weight[rows].T, whole[rows].T)):
                known.setdefault(digest(values), (name, part))
    for place in sorted({path.parent for path in folder.rglob("*.safetensors")}):
        masks: dict[str, np.ndarray] = {}
        entries: dict[str, dict[str, Any]] = {}
        elsewhere = zeros_elsewhere = 0
        for name, tensor in tensors_of(place):
            if tensor.ndim == 2 and (found := known.get(digest(tensor))) is not None:
                of, part = found
                masks[name] = np.ascontiguousarray(part)
                zeros = int((tensor == 0).sum())
                entries[name] = {"parameter": of, "shape": list(part.shape), "kept": int(part.sum()), "zeros": zeros, "sparsity": zeros / part.size}
            else:
                elsewhere += tensor.size
                zeros_elsewhere += int((tensor == 0).sum())
        if not masks:
            continue
        write_masks(place, {name: torch.from_numpy(part) for name, part in masks.items()})
        total, zeros = sum(part.size for part in masks.values()), sum(entry["zeros"] for entry in entries.values())
        write_json(
            place / REPORT,
            {
                "format_version": FORMAT_VERSION,
                "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()},
                "seed": seed,
                "weights": total,
                "kept": sum(entry["kept"] for entry in entries.values()),
                "zeros": zeros,
                "sparsity": zeros / total,
                "other_weights": elsewhere,
                "zeros_in_other_weights": zeros_elsewhere,
                "matrices": entries,
            },
        )


def tensors_of(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of every weight that lies in this folder."""
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == MASKS:
            continue
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)


def digest(values: np.ndarray) -> bytes:
    """Of shape and values."""
    return hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values, dtype=np.float32).tobytes()).digest()
