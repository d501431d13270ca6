"""How torch's distributed checkpoint (DCP) reads and writes our files: each process writes its part of every tensor into one safetensors file, and
reads, of all the files, the parts that it needs, whatever the number of processes was.

DCP's own storage keeps its plan in a pickle, which is code when it is read; its safetensors storage keeps none: the place of each part within its
tensor stands in the header of the file. From that storage we take the reader, and the writer except for the writing itself: torch's first
builds the whole file in memory, in one call that stops the training; this one streams it, hashes it in the same pass, and an error of the
disk stays the OSError that it is.

Importing DCP takes a second, so whoever reads or writes a checkpoint imports this module then (docs/decisions/0001-late-imports.md).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    DefaultLoadPlanner,
    DefaultSavePlanner,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from headstart.engine.checkpoint_files import sendable_errors, write_safetensors
from headstart.engine.distributed import Ranks, local

# Said at each save and load on one process, which is what we mean. Set once: `catch_warnings` is not safe beside another thread.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


# --- writing ----------------------------------------------------------------------------------------------------------------------------------


def plan_of(tensors: dict[str, Tensor], *, first: bool) -> list[WriteItem]:
    """What this process writes: its shard of each DTensor; whole tensors are the same on every process, and the first writes them."""
    if not first:  # no empty shard: it has no memory by which `pack` could tell tied weights, and the first process's names hold
        tensors = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor) and local(tensor).numel()}
    return create_default_local_save_plan(tensors, first).items


def write_tensors(
    folder: Path,
    items: list[WriteItem],
    copies: dict[str, Tensor],
    ranks: Ranks,
    *,
    begin: Callable[[], None],
    written: Callable[[Path], None],
    finish: Callable[[dict[str, str]], None],
) -> None:
    """Writes the parts of all processes into `folder`, one file each. Every process calls this, in its checkpoint thread.

    Args:
        items: from `plan_of`.
        copies: name -> the part of this process, in host memory.
        begin: called on the first process, before any file is written.
        written: called with this process's file when it is on disk.
        finish: called on the first process when all files are, with their names and SHA-256.

    Raises:
        OSError: the disk refused something; on every process, whichever it happened to.
    """
    try:
        dcp.save(
            dict(copies),
            storage_writer=_Writer(folder, begin, written, finish),
            planner=_Planner(items, copies),
            process_group=ranks.saving,
            no_dist=ranks.world == 1,
        )
    except CheckpointException as error:  # what happened on which process
        causes = [failure[0] for _, failure in sorted(error.failures.items())]
        raise next((cause for cause in causes if isinstance(cause, OSError)), causes[0]) from error


class _Planner(DefaultSavePlanner):
    """A plan of tensors that were copied before."""

    def __init__(self, items: list[WriteItem], copies: dict[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.items = items
        self.copies = copies

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan(self.items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self.copies[write_item.index.fqn]


class _Writer(HuggingFaceStorageWriter):
    """DCP's safetensors storage, streamed and hashed."""

    def __init__(
        self, folder: Path, begin: Callable[[], None], written: Callable[[Path], None], finish: Callable[[dict[str, str]], None]
    ) -> None:
        super().__init__(path=str(folder), save_distributed=True)
        self.folder = folder
        self.begin = begin
        self.written = written
        self.commit = finish

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        if is_coordinator:
            with sendable_errors():
                self.begin()

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        if plan.items:
            file = self.folder / f"state-{plan.storage_data['shard_index']:05d}.safetensors"
            tensors = {item.index.fqn: planner.resolve_data(item) for item in plan.items}
            offsets = {item.index.fqn: {"saved_offsets": list(item.tensor_data.chunk.offsets)} for item in plan.items if item.tensor_data is not None}
            with sendable_errors():
                sha256 = write_safetensors(file, tensors, {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"})
                results.append(WriteResult(MetadataIndex(file.name), file.stat().st_size, sha256))
                self.written(file)
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        with sendable_errors():
            self.commit({result.index.fqn: result.storage_data for of_process in results for result in of_process})


# --- reading ----------------------------------------------------------------------------------------------------------------------------------


def read_tensors(folder: Path, wanted: Mapping[str, set[str]], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name -> tensor of a checkpoint whose files were verified. No process waits for another.

    Args:
        wanted: name -> the keys that lead to it in the state.
        like: parameter name -> the live tensor. What one of these keys names, with the shape of a live DTensor, comes back cut like it; anything else
            whole, on the CPU.

    Raises:
        ValueError, KeyError, SafetensorError and others: the files are not those of a checkpoint.
    """
    reader = _Reader(str(folder))
    stored = reader.check()
    tensors: dict[str, Tensor] = {}
    for name, keys in wanted.items():
        size, dtype = stored[name].size, stored[name].properties.dtype
        live = next((like[key] for key in keys if key in like and like[key].shape == size), None)
        # Zeros: where a forged file gives a part twice and another not at all, nobody's memory shows.
        tensors[name] = torch.zeros_like(live, dtype=dtype, requires_grad=False) if isinstance(live, DTensor) else torch.zeros(size, dtype=dtype)
    try:
        dcp.load(tensors, storage_reader=reader, planner=DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False), no_dist=True)
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None
    return tensors


class _Reader(HuggingFaceStorageReader):
    """DCP's safetensors storage, of files that a stranger may have made."""

    def check(self) -> dict[str, TensorStorageMetadata]:
        """Name -> shape, type and parts of every tensor, which has as many values as its parts: what is allocated is no larger than the files.

        safetensors itself refuses a header over 100 MB, and values that do not lie in the file one after another.

        Raises:
            ValueError, SafetensorError and others: the files are no safetensors files, or their parts do not fit.
        """
        self.checked = super().read_metadata()
        stored = {name: of for name, of in self.checked.state_dict_metadata.items() if isinstance(of, TensorStorageMetadata)}
        for name, of in stored.items():
            if sum(math.prod(part.sizes) for part in of.chunks) != math.prod(of.size):
                raise ValueError(f"the parts of {name!r} do not fill it")
        return stored

    def read_metadata(self) -> Metadata:
        return self.checked

