"""The processes of a run, as `torchrun` started them. A run on one process talks to nobody: every function here then returns at once.

Three ways of talking, each with a process group of its own, because what the training, the host and the checkpoint thread say must not mix:
the device's tensors (NCCL or gloo), small host messages (gloo, with hours of patience: one rank may prepare a store while the others wait), and
the checkpoint thread's (gloo).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    control: Any = None
    """Process group of the host messages; None on one process."""
    saving: Any = None
    """Process group of the checkpoint thread; None on one process."""

    @property
    def first(self) -> bool:
        """Whether this process writes the run's files and speaks to the person."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """What the first rank gave, on every rank. Small host values; they travel pickled between processes of one run, never through a file."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: T, group: Any = None) -> list[T]:
        """What every rank gave, in the order of ranks, on every rank.

        Args:
            group: `saving` in the checkpoint thread; by default the host's.
        """
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=group or self.control)
        return found

    def barrier(self, group: Any = None) -> None:
        """Returns when every rank has come here."""
        self.gather(None, group)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, on the device; nothing waits for it. The tensor itself where there is one process."""
        if self.world == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total


ALONE = Ranks()
"""A run on one process."""


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """The ranks of this run while the block lasts: those of torchrun's environment, or one process alone.

    Args:
        device_type: "cuda" or "cpu"; decides which library carries the tensors.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield ALONE
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device_type == "cuda" else "gloo")
    try:
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
        saving = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank, control, saving)
    finally:
        dist.destroy_process_group()
