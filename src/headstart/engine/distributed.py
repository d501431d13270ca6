"""The processes of a run, as `torchrun` started them. A run on one process talks to nobody: every function here then returns at once.

Three ways of talking, each with a process group of its own, because what the training, the host and the checkpoint thread say must not mix:
the device's tensors (NCCL or gloo), small host messages (gloo, with hours of patience: one rank may prepare a store while the others wait), and
the checkpoint thread's (gloo).
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from headstart.core.errors import FirstRankFailed, HeadstartError, Interrupted
from headstart.core.words import first_line

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

T = TypeVar("T")

PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    """Processes on this machine."""
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

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, on the device; the host does not wait for it. The tensor itself where there is one process."""
        if self.world == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` gives on the first rank, on every rank; where it fails there, no rank goes on.

        Raises:
            FirstRankFailed: on the other ranks, with the exit code of what the first rank raised.
        """
        if self.world == 1:
            return work()
        if not self.first:
            failed, value = self.broadcast((None, None))
            if failed is not None:
                raise FirstRankFailed(failed)
            return value  # type: ignore[return-value]
        try:
            result = work()
        except BaseException as error:
            self.broadcast((error.exit_code if isinstance(error, HeadstartError) else 130 if isinstance(error, KeyboardInterrupt) else 1, None))
            raise
        self.broadcast((None, result))
        return result

    def first_then_others(self, work: Callable[[], T]) -> T:
        """`work` on the first rank, and when that is done on the others: it prepares a store, they find it ready."""
        if self.first:
            box = []
            self.on_first(lambda: box.append(work()))
            return box[0]
        self.on_first(lambda: None)
        return work()


ALONE = Ranks()
"""A run on one process."""


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """The ranks of this run: those of torchrun's environment, or one process alone. A program that makes several runs joins once.

    Args:
        device_type: "cuda" or "cpu"; decides which library carries the tensors.
    """
    ranks = _join(device_type) if "WORLD_SIZE" in os.environ and "RANK" in os.environ else ALONE
    try:
        yield ranks
    except BaseException:
        atexit.unregister(_leave)  # it would wait for processes that may be gone
        raise


@functools.cache
def _join(device_type: str) -> Ranks:
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        store, rank, world = next(rendezvous("env://"))
        # After `torchrun --max-restarts` the store still has the addresses of the processes before: each attempt needs names of its own.
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("cuda:nccl,cpu:gloo" if device_type == "cuda" else "gloo", store=store, rank=rank, world_size=world)
        atexit.register(_leave)
    control = dist.new_group(backend="gloo", timeout=PATIENCE)
    saving = dist.new_group(backend="gloo", timeout=PATIENCE)
    if dist.get_rank():
        logging.getLogger("headstart").setLevel(logging.ERROR)  # the first process says it
    return Ranks(dist.get_rank(), dist.get_world_size(), local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), control, saving)


def _leave() -> None:
    dist.destroy_process_group()
    time.sleep(0.2)  # a thread of gloo that still frees its tensors while Python ends aborts the process (torch 2.13, one exit of ten at worst)


class StopVote:
    """Whether any rank was asked to stop, known on every rank at the same step. The question goes out at one step and the answer is read at the next,
    so no step waits for it."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._asked: Any = None

    def __call__(self, wish: bool) -> bool:
        """The answer to the question of the step before (of this step, on one process)."""
        if self.ranks.world == 1:
            return wish
        answer = False
        if self._asked is not None:
            self._asked.wait()
            answer = bool(self._flag.item())
        self._flag.fill_(wish)
        self._asked = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self.ranks.control, async_op=True)
        return answer

    def close(self) -> None:
        """Takes the last answer, which nobody needs any more."""
        if self._asked is not None:
            self._asked.wait()
            self._asked = None


def is_cut(tensor: object) -> TypeIs[DTensor]:
    """Whether FSDP2 cut the tensor over the processes. Only who imported torch's module of them can have made one; for a run on one process that
    import would be a second of waiting for nothing."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP2 cut; the same memory. Any other tensor as it is."""
    return tensor.to_local() if is_cut(tensor) else tensor


def as_cut(part: Tensor, parameter: DTensor) -> DTensor:
    """The tensor of which this process has the part, cut as a parameter of the same shape is."""
    mesh, placements = parameter.device_mesh, parameter.placements
    return type(parameter).from_local(part, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride())


@contextmanager
def lost_ranks_explained(ranks: Ranks) -> Iterator[None]:
    """Turns what the network libraries raise when another process of the run is gone into our own error.

    Raises:
        Interrupted: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.world == 1 or not (isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "Connection"))):
            raise
        raise Interrupted(
            f"Process {ranks.rank} of {ranks.world} lost another process of this run ({first_line(error)}).",
            "The same command continues from the last checkpoint.",
        ) from error
