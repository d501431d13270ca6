"""The device that a person asks for, and the batches that lie on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.data.loader import Loader, Prefetcher
from headstart.engine.method import Batch


def resolve_device(name: str) -> torch.device:
    """The device of "auto", "cpu", "cuda", or "cuda:1" where there are several. Nothing in the process changes.

    Raises:
        UsageError: it is not there.
    """
    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda was given, but torch sees no GPU here.", "`headstart doctor` shows what there is.")
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None and device.index >= (there := torch.cuda.device_count()):
        raise UsageError(f"There is no device '{name}'.", f"torch sees {there}, counted from 0; `headstart doctor` shows what there is.")
    return device


def use_device(name: str) -> torch.device:
    """`resolve_device`, for whoever begins to compute: the GPU is then the one that "cuda" means in this process, the one whose generator is seeded
    and whose stream is captured.

    Raises:
        UsageError: it is not there.
    """
    device = resolve_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


class DeviceBatches:
    """Iterates over steps; each item is the list of this process's micro-batches of one step, on the device.

    Args:
        rows_of: step of the run -> step of the loader, where they differ.
    """

    def __init__(
        self,
        loader: Loader,
        first: int,
        last: int,
        starts: Sequence[int],
        micro_batch: int,
        device: torch.device,
        rows_of: Callable[[int], int] = lambda step: step,
    ) -> None:
        self.device = device

        def load(step: int) -> list[Batch]:
            return [loader.batch(rows_of(step), start, start + micro_batch) for start in starts]

        self._prefetcher = Prefetcher(load, first, last, pin=device.type == "cuda")

    def __next__(self) -> list[Batch]:
        batches = next(self._prefetcher)
        if self.device.type == "cpu":
            return batches
        return [{name: value.to(self.device, non_blocking=True) for name, value in batch.items()} for batch in batches]

    @property
    def waited(self) -> float:
        """Seconds that `next` waited for data so far."""
        return self._prefetcher.waited

    def close(self) -> None:
        self._prefetcher.close()
