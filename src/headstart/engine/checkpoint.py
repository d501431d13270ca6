"""Checkpoints: every tensor in safetensors files, everything else in JSON; no pickle anywhere.

A checkpoint is written into a hidden folder beside its place, flushed to disk, and renamed: a kill at any moment leaves either the whole
checkpoint or none. Its manifest
holds a hash of every file; a damaged newest checkpoint falls back to the one before. The training loop pays only for the copy to host memory:
hashing and writing happen in a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from headstart.core.errors import BadInput
from headstart.core.files import read_json, sha256_file, write_json

FORMAT_VERSION = 1
KEEP = 2  # the newest ones; more only when asked for
_NAME = re.compile(r"step-(\d{8,})")


def pack(state: Any, tensors: dict[str, Tensor], path: str = "", seen: dict[Any, str] | None = None) -> Any:
    """Splits a nested state into `tensors` (filled) and a JSON skeleton (returned) with {"__tensor__": name} in their places.

    Tensors that are the same memory (tied weights) are stored once; the skeleton names that entry twice.
    """
    seen = {} if seen is None else seen
    if isinstance(state, Tensor):
        place = (state.data_ptr(), state.shape, state.stride(), state.dtype, str(state.device))
        name = seen.setdefault(place, path) if state.numel() else path
        tensors[name] = state
        return {"__tensor__": name}
    if isinstance(state, dict):
        return {"__items__": [[key, pack(value, tensors, f"{path}/{key}", seen)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return [pack(value, tensors, f"{path}/{i}", seen) for i, value in enumerate(state)]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"{path}: a checkpoint holds tensors, numbers and strings, not {type(state).__name__}")


def unpack(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""
    if isinstance(skeleton, dict):
        if "__tensor__" in skeleton:
            return tensors[skeleton["__tensor__"]]
        return {key: unpack(value, tensors) for key, value in skeleton["__items__"]}
    if isinstance(skeleton, list):
        return [unpack(value, tensors) for value in skeleton]
    return skeleton


class Checkpointer:
    """Writes and finds the checkpoints of one run.

    Args:
        folder: `runs/NAME/checkpoints`.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder = folder
        self.keep = keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None
        for leftover in folder.glob(".writing-*"):  # of a killed process; the run folder's lock says that it is dead
            shutil.rmtree(leftover)

    def save(self, step: int, state: dict[str, Any], export: Callable[[Path], None] | None = None) -> None:
        """Starts writing the state after `step` updates. Returns once the tensors are copied to host memory.

        `export` writes the usable model of this moment; it runs here, while the weights are the checkpoint's.
        """
        self.wait()
        beside = self.folder / f".writing-{step:08d}"
        beside.mkdir(parents=True)
        if export is not None:
            export(beside / "export")
        tensors: dict[str, Tensor] = {}
        skeleton = pack(state, tensors)
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        self._pending = self._pool.submit(self._write, step, beside, copies, skeleton)

    def _write(self, step: int, beside: Path, tensors: dict[str, Tensor], skeleton: Any) -> Path:
        save_file(tensors, beside / "state.safetensors")
        write_json(beside / "state.json", skeleton)
        files = sorted(path for path in beside.rglob("*") if path.is_file())
        for path in files:
            _flush(path)
        hashes = {str(path.relative_to(beside)): sha256_file(path) for path in files}
        write_json(beside / "manifest.json", {"format_version": FORMAT_VERSION, "step": step, "sha256": hashes})
        _flush(beside)
        place = self.folder / f"step-{step:08d}"
        if place.exists():  # a damaged one that the run fell back from
            shutil.rmtree(place)
        beside.rename(place)
        _flush(self.folder)
        for old in self.list()[: -self.keep]:
            shutil.rmtree(old)
        return place

    def wait(self) -> None:
        """Blocks until the checkpoint that is being written is safe on disk; raises what went wrong."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        self.wait()
        self._pool.shutdown()

    def list(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        found = [path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name)] if self.folder.exists() else []
        return sorted(found, key=lambda path: int(path.name[5:]))

    def load_newest(self, say: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
        """(step, state on CPU) of the newest checkpoint that is whole, or None when there is none.

        Raises:
            BadInput: there are checkpoints, and all of them are damaged.
        """
        damaged: list[str] = []
        for path in reversed(self.list()):
            try:
                return load_checkpoint(path)
            except BadInput as error:
                damaged.append(error.what)
                say(f"{error.what} Falling back to the checkpoint before it.")
        if damaged:
            raise BadInput("every checkpoint of this run is damaged.", "Start again in another --out.", file=self.folder)
        return None


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Any]]:
    """(step, state) of one checkpoint, its hashes verified.

    Raises:
        BadInput: a file is missing, changed, or not ours.
    """
    mend = "Remove this folder to use the checkpoint before it."
    try:
        manifest = read_json(folder / "manifest.json")
        if manifest.get("format_version") != FORMAT_VERSION:
            raise BadInput(f"has checkpoint format {manifest.get('format_version')}, not {FORMAT_VERSION}.", mend, file=folder)
        for name in ("state.safetensors", "state.json"):
            if sha256_file(folder / name) != manifest["sha256"][name]:
                raise BadInput(f"is damaged: {name} is not what was written.", mend, file=folder)
        return int(manifest["step"]), unpack(read_json(folder / "state.json"), load_file(folder / "state.safetensors"))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"is damaged: {error}.", mend, file=folder) from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def host_copy(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of a state dict in host memory: what a trial puts back when it is over."""
    return {key: value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
