"""From a mixture to batches: the batch of a step is a function of (seed, step), nothing else.

So there is no state to save or to skip through: a run continues at step n by asking for batch n, and ranks and micro-batches only choose which rows
of the global batch they ask for. Why rows are memory-mapped and gathered, and no worker processes are used: docs/decisions/0006-loader.md.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch

from headstart.core.errors import UsageError

T = TypeVar("T")

BLOCK_SAMPLES = 2**14


class Order(Protocol):
    """An endless order of samples: a `Mixture`, or epochs that are drawn (`data.text.epochs`)."""

    shares: list[Fraction]
    """Of the sources in what comes."""

    @property
    def parts(self) -> Sequence[Any]:
        """What batches are asked of: each has `batch(rows)`."""

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part and row of the samples with these numbers, int64 [k] each."""

    def epochs(self, samples: int) -> list[float]:
        """Passes over what there is after so many samples."""


class Loader:
    """Batches of a mixture.

    Args:
        mixture: decides the order of samples.
        global_batch: rows of a step, over all ranks and micro-batches.

    Attributes:
        tokens_per_row: length of the rows in `unit`, padding included; 0 if the parts have no `length`.
        unit: what rows are measured in: "tokens", or "images" of which each row is one.
    """

    def __init__(self, mixture: Order, global_batch: int) -> None:
        if global_batch < 1:
            raise UsageError(f"a global batch of {global_batch} rows.", "Give at least 1.")
        self.mixture = mixture
        self.global_batch = global_batch
        self.tokens_per_row: int = getattr(mixture.parts[0], "length", 0)
        self.unit: str = getattr(mixture.parts[0], "unit", "tokens")
        self._located = functools.lru_cache(maxsize=4)(self._locate_block)

    def batch(self, step: int, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """Rows `start`..`stop` (exclusive, at most the global batch) of the global batch of `step`, as CPU tensors.

        Steps count from 0. Which keys there are is decided by the rows asked for: see `Rows.batch`.
        """
        stop = self.global_batch if stop is None else min(stop, self.global_batch)
        if not 0 <= start < stop:
            raise ValueError(f"rows {start}..{stop} of a global batch of {self.global_batch}")
        first = step * self.global_batch
        parts, rows = self._locate(first + start, first + stop)
        if (parts == parts[0]).all():
            batch = self.mixture.parts[parts[0]].batch(rows)
        else:
            batch = self._mixed(parts, rows)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def epoch(self, step: int) -> float:
        """Passes over the data before `step`: of the part that was seen most often."""
        return max(self.mixture.epochs(step * self.global_batch))

    def _locate(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Part and row of consecutive samples. They are located in large blocks: a permutation costs some 200 numpy calls however few rows are
        asked for, which would be most of the time of a small batch (benchmarks/loader.py)."""
        blocks = [self._located(block) for block in range(start // BLOCK_SAMPLES, (stop - 1) // BLOCK_SAMPLES + 1)]
        here = slice(start % BLOCK_SAMPLES, start % BLOCK_SAMPLES + stop - start)
        parts, rows = (np.concatenate(arrays) if len(blocks) > 1 else arrays[0] for arrays in zip(*blocks, strict=True))
        return parts[here], rows[here]

    def _locate_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        return self.mixture.locate(np.arange(block * BLOCK_SAMPLES, (block + 1) * BLOCK_SAMPLES))

    def _mixed(self, parts: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Rows of several parts in the order of the samples. A key that only some parts give is filled with what its absence means: attend to all,
        segment 0, no image; so is what one part has less of than another (images of a row)."""
        of_parts = [(parts == index, self.mixture.parts[index].batch(rows[parts == index])) for index in np.unique(parts)]
        batch: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(name for _, found in of_parts for name in found):
            having = [found[name] for _, found in of_parts if name in found]
            largest = np.max([values.shape[1:] for values in having], axis=0).astype(int)
            batch[name] = np.full((len(rows), *largest), name == "attention_mask", having[0].dtype)
            for mine, found in of_parts:
                if name in found:
                    batch[name][(mine, *(slice(size) for size in found[name].shape[1:]))] = found[name]
        return batch


class Prefetcher(Generic[T]):
    """A thread that loads steps ahead of the one that is used.

    Args:
        load: step -> batch, any structure of dictionaries and lists of tensors; called in the thread, in order.
        first, last: steps `first`..`last` (exclusive).
        pin: copy tensors into pinned memory, so that copies to a CUDA device run beside the computation.
        ahead: batches kept ready.

    Attributes:
        waited: seconds that `next` has waited for data so far.

    `next` raises what `load` raised, and StopIteration after the last step. Close it, or use it as a context manager: the thread then ends.
    """

    def __init__(self, load: Callable[[int], T], first: int, last: int, pin: bool = False, ahead: int = 2) -> None:
        self.waited = 0.0
        self._load, self._pin = load, pin
        self._ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=ahead)
        self._closing = threading.Event()
        self._ended: tuple[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, args=(first, last), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetcher[T]:
        return self

    def __next__(self) -> T:
        if self._ended is None:
            start = time.perf_counter()
            kind, value = self._ready.get()
            self.waited += time.perf_counter() - start
            if kind == "batch":
                return cast(T, value)
            self._ended = kind, value
        kind, value = self._ended
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """End the thread. `next` raises StopIteration afterwards."""
        self._closing.set()
        while self._thread.is_alive():  # it may be waiting for a place in the queue
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)
        self._ended = self._ended or ("end", None)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, first: int, last: int) -> None:
        try:
            for step in range(first, last):
                batch = self._load(step)
                self._put("batch", _pinned(batch) if self._pin else batch)
                if self._closing.is_set():
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("error", error)

    def _put(self, kind: str, value: Any) -> None:
        self._ready.put((kind, value))


def _pinned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {name: _pinned(item) for name, item in value.items()}
    return [_pinned(item) for item in value] if isinstance(value, list) else value
