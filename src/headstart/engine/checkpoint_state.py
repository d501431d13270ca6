"""The state of a run as tensors and JSON, and its copy in host memory.

`pack` splits a nested state into named tensors and a skeleton that JSON can hold; `unpack` puts them together again. `HostBuffers` copies the tensors
to where the training cannot change them: that copy is all that a checkpoint costs the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.engine.distributed import local

_COPIERS = 8
_PIECE = 16 * 2**20  # bytes that one thread copies at a time


def pack(state: Any, tensors: dict[str, Tensor]) -> Any:
    """Splits a nested state into `tensors` (filled) and a JSON skeleton (returned) with {"__tensor__": name} in their places.

    Tensors that are the same memory (tied weights) are stored once; the skeleton names that entry twice.

    Raises:
        TypeError: the state holds something else than dicts, lists, tensors, numbers and strings.
    """
    return _pack(state, tensors, "", {})


def _pack(state: Any, tensors: dict[str, Tensor], path: str, seen: dict[Any, str]) -> Any:
    if isinstance(state, Tensor):
        own = local(state).detach()
        place = (own.data_ptr(), state.shape, own.stride(), own.dtype, str(own.device))
        name = path
        while name in tensors:  # {"a/b": ..., "a": {"b": ...}}
            name += "'"
        if own.numel():
            name = seen.setdefault(place, name)
        tensors[name] = state
        return {"__tensor__": name}
    if isinstance(state, dict):
        for key in state:
            if not isinstance(key, str | int):
                raise TypeError(f"{path}: a key of a checkpoint is a string or a whole number, not {key!r}")
        return {"__items__": [[key, _pack(value, tensors, f"{path}/{key}", seen)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return [_pack(value, tensors, f"{path}/{i}", seen) for i, value in enumerate(state)]
    if isinstance(state, float) and not math.isfinite(state):
        return {"__float__": str(state)}  # JSON has no infinity
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"{path}: a checkpoint holds tensors, numbers and strings, not {type(state).__name__}")


def unpack(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""
    if isinstance(skeleton, dict):
        if "__tensor__" in skeleton:
            return tensors[skeleton["__tensor__"]]
        if "__float__" in skeleton:
            return float(skeleton["__float__"])
        return {key: unpack(value, tensors) for key, value in skeleton["__items__"]}
    if isinstance(skeleton, list):
        return [unpack(value, tensors) for value in skeleton]
    return skeleton


def keys_of(skeleton: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, the keys that lead to it) of every place of a tensor in the skeleton."""
    if isinstance(skeleton, dict) and "__tensor__" in skeleton:
        yield skeleton["__tensor__"], keys
    elif isinstance(skeleton, dict):
        for key, value in skeleton.get("__items__", []):
            yield from keys_of(value, (*keys, str(key)))
    elif isinstance(skeleton, list):
        for value in skeleton:
            yield from keys_of(value, keys)


class HostBuffers:
    """Copies of tensors in host memory, in buffers that every save uses again: fresh memory costs the first touch of each page, pinning it more."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name -> a contiguous CPU tensor with the values of now (of a DTensor: this process's shard). They hold until the next call."""
        before, self._buffers = self._buffers, {}
        pieces: list[tuple[Any, Any]] = []
        streams = set()
        for name, tensor in tensors.items():
            source = local(tensor).detach()
            buffer = before.get(name)
            if buffer is None or buffer.shape != source.shape or buffer.dtype != source.dtype or buffer.is_pinned() != source.is_cuda:
                buffer = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            self._buffers[name] = buffer
            if source.is_cuda:
                buffer.copy_(source, non_blocking=True)
                streams.add(torch.cuda.current_stream(source.device))
            elif source.device.type == "cpu" and source.is_contiguous() and not source.is_conj() and not source.is_neg():
                to, of = as_bytes(buffer), as_bytes(source)
                pieces += [(to[at : at + _PIECE], of[at : at + _PIECE]) for at in range(0, len(of), _PIECE)]
            else:
                buffer.copy_(source)
        _copy_bytes(pieces)
        for stream in streams:
            stream.synchronize()
        return dict(self._buffers)

    def free(self) -> None:
        self._buffers = {}


def as_bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The memory of a contiguous CPU tensor, not copied."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def _copy_bytes(pieces: list[tuple[Any, Any]]) -> None:
    """Copies with as many threads as torch computes with.

    Not torch's own: its threads meet after each tensor, and on a busy machine of two cores that took 0.5 s for 1 GB instead of 0.06 s.
    """
    threads = min(_COPIERS, torch.get_num_threads())
    if threads == 1 or len(pieces) < 2 or sum(len(of) for _, of in pieces) < _PIECE:
        for to, of in pieces:
            np.copyto(to, of)
        return

    def share(start: int) -> None:
        for to, of in pieces[start::threads]:
            np.copyto(to, of)

    with ThreadPoolExecutor(threads, thread_name_prefix="checkpoint-copy") as pool:
        list(pool.map(share, range(threads)))
