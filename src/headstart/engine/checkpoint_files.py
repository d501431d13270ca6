"""The files of a checkpoint: written in a stream, hashed in the same pass, flushed to the disk; and errors that name the file and can travel to the
other processes of a run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headstart.engine.checkpoint_state import as_bytes

_BLOCK = 16 * 2**20  # bytes written, or hashed, at a time: each block is one wait for the interpreter that the training shares
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def sendable_errors() -> Iterator[None]:
    """Within the block, an error that could not travel to the other processes becomes one that can: they would wait for it."""
    try:
        yield
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise


def write_safetensors(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str]) -> str:
    """Writes contiguous CPU tensors as a safetensors file, flushed to disk; returns its SHA-256.

    The format (https://huggingface.co/docs/safetensors): the length of the header in 8 bytes, a JSON header of names, types, shapes and places, then
    the values. Larger types come first, so that every value is aligned.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(tensors.items(), key=lambda named: (-named[1].element_size(), named[0]))
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with named_errors(path), path.open("xb", buffering=0) as file:

        def put(data: Any) -> None:
            digest.update(data)
            view = memoryview(data)
            while view:  # a raw file may take less than it is given
                view = view[file.write(view) :]

        put(struct.pack("<Q", len(text)))
        put(text)
        for _, tensor in ordered:
            values = as_bytes(tensor)
            for at in range(0, len(values), _BLOCK):
                put(values[at : at + _BLOCK])
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Within the block, an error of the disk names the file; that of a write or a flush does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush_and_hash(path: Path) -> str:
    """The SHA-256 of a file that is on disk when this returns."""
    digest = hashlib.sha256()
    with named_errors(path), path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
        os.fsync(file.fileno())
    return digest.hexdigest()
