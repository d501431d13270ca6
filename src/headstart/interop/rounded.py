"""Weights of a model folder in bfloat16: half the size, and the numbers that a network computes with on a GPU anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from headstart.core.files import read_json, write_json
from headstart.core.tensor_files import save_tensors

NAMES = ("dtype", "torch_dtype")
"""Of the entry of a config.json that says what the weights are stored in."""


def round_weights(folder: Path) -> None:
    """Rounds the floating-point weights of every .safetensors file in a folder that was just written, a file in memory at a time; config.json says so
    afterwards. Masks and other whole numbers stay."""
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            said = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        rounded = {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in tensors.items()}
        path.unlink()  # it may still be mapped
        save_tensors(rounded, path, said)
    for path in folder.rglob("config.json"):
        write_json(path, _said(read_json(path)))
    for path in folder.rglob("*.index.json"):
        index = read_json(path)
        index["metadata"] = {**index.get("metadata", {}), "total_size": sum(part.stat().st_size for part in path.parent.glob("*.safetensors"))}
        write_json(path, index)


def _said(config: Any) -> Any:
    """A configuration, and those in it, with the type that its weights have now."""
    if isinstance(config, dict):
        return {name: "bfloat16" if name in NAMES and value else _said(value) for name, value in config.items()}
    return [_said(value) for value in config] if isinstance(config, list) else config
