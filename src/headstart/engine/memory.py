"""Out of memory: how much a micro-batch holds, how much is free, and what to change when it was too much."""

from __future__ import annotations

import gc
import resource
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor

from headstart.core import hardware
from headstart.core.errors import HeadstartError, MachineError
from headstart.core.rng import Rng
from headstart.engine.distributed import Ranks
from headstart.engine.method import Batch, Context, Method

_SAID = ("out of memory", "can't allocate memory", "annot allocate memory", "bad_alloc", "ALLOC_FAILED")  # torch, the C library, C++, cuBLAS

PLENTY_OF_MEMORY = 0.5  # of what is free: a micro-batch may take this share, where that is extrapolated
ROOMY = 0.8  # the same, where it is measured by trying; the rest is for evaluations, beside what a captured step keeps


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take: of the GPU, or of the machine within the limits of its container and of `ulimit`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    used = psutil.Process().memory_info()
    limits = [(resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", 0))]
    left = [soft - taken for limit, taken in limits if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY]
    machine = hardware.memory_available()
    return max(0, min([*left, psutil.virtual_memory().available if machine is None else machine]))


def held_by_rows(
    method: Method, load: Callable[[int, int, int], Batch], phase: str, rows: int, device: torch.device, seed: int, ranks: Ranks
) -> float:
    """Bytes that the forward pass of the first rows of the run holds when the backward pass begins."""
    batch = {name: value.to(device) for name, value in load(0, 0, rows).items()}
    context = Context(0, 1 << 30, phase, Rng.at(seed, 0, torch.arange(rows, device=device)), device, ranks=ranks)
    held = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.loss(batch, context)
    return float(held)


def largest_that_fits(rows: Iterable[int], attempt: Callable[[int], float]) -> int | None:
    """The first of the descending numbers of rows with which a step leaves room for what comes beside it; None: not even the last.

    Args:
        attempt: makes a step and gives the share of the free memory that it held; raises torch.OutOfMemoryError. The last may take all.
    """
    tried = list(rows)
    for count in tried:
        try:
            share = attempt(count)
        except torch.OutOfMemoryError:
            continue
        if share <= ROOMY or count == tried[-1]:
            return count
    return None


def ran_out(error: BaseException) -> bool:
    """Whether memory was lacking: what torch, numpy, the C library and the GPU libraries raise then."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def explained(device: torch.device, rows: int | None = None, per_row: Callable[[], float] | None = None) -> Iterator[None]:
    """Raises what runs out of memory within the block as a MachineError that says what to change.

    Args:
        rows: of the micro-batch.
        per_row: measures the bytes that a row holds; called after the failure, when memory is free again.
    """
    try:
        yield
    except HeadstartError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too much
        failure = error
    else:
        return
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    free = free_bytes(device)
    estimate, smaller = f"{_size(free)} are free.", "a smaller --trainer.micro-batch"
    if rows is not None and per_row is not None:
        try:
            each = per_row()
        except (MemoryError, RuntimeError):
            estimate = f"not even one row fits; {estimate}"
        else:
            estimate = f"a micro-batch of {rows} rows holds about {_size(rows * each)} ({_size(each)} a row) beside the weights; {estimate}"
            fitting = [fewer for fewer in range(1, rows) if rows % fewer == 0 and fewer * each <= free * PLENTY_OF_MEMORY]
            smaller = f"--trainer.micro-batch {max(fitting, default=1)}" if rows > 1 else ""
    lighter = " or ".join(filter(None, [smaller, "--trainer.activation-checkpointing"]))
    raise MachineError(
        f"Out of memory on {'the GPU' if device.type == 'cuda' else 'this machine'}: {estimate}",
        f"Give {lighter}, and the same command continues; or start with a smaller --preset or shorter rows.",
    ) from failure


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
