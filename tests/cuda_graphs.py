"""A CUDA graph where there is no GPU: what a captured graph does to a program, done on a CPU.

- While it is captured, nothing is computed: what was written before has its old values again at the end, and what the capture made holds rubbish
  until the first replay (a constant that a capture put into a cache, say).
- A replay repeats the operations, on the same memory and with the numbers that Python had then. A branch, a step count or a list that the host would
  decide anew stays as it was.
- What would wait for the device, or copy from the host, is refused, as a stream that captures refuses it.
- Draws come from the default generator, as its seed is when the replay begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from tests.no_waiting import NoWaiting


class CudaGraph:
    """With the methods of `torch.cuda.CUDAGraph` that the engine uses."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self.replays = 0

    def pool(self) -> int:
        return id(self)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for operation, args, kwargs, made in self.operations:
            for place, value in zip(made, tree_flatten(operation(*args, **kwargs))[0], strict=True):
                if place is not None:
                    place.copy_(value)


class _Capture(NoWaiting):
    def __init__(self, into: CudaGraph) -> None:
        super().__init__()
        self.into = into
        self.own: set[int] = set()  # memory that the capture made; kept by the recorded operations, so no address comes twice
        self.before: dict[int, tuple[Any, Any]] = {}  # memory of before that it wrote to -> what it held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        given = {place(value) for value in tree_flatten([args, kwargs])[0] if isinstance(value, Tensor)}
        for value in written(func, args, kwargs):
            if place(value) not in self.own | self.before.keys():
                self.before[place(value)] = (value.untyped_storage(), value.untyped_storage().clone())
        found = super().__torch_dispatch__(func, types, args, kwargs)
        made = [value if isinstance(value, Tensor) and place(value) not in given else None for value in tree_flatten(found)[0]]
        self.own |= {place(value) for value in made if value is not None}
        self.into.operations.append((func, args, kwargs, [None if value is None else value.detach() for value in made]))
        return found

    def undo(self) -> None:
        """As if nothing had been computed."""
        for storage, held in self.before.values():
            storage.copy_(held)
        for *_, made in self.into.operations:
            for value in made:
                if value is not None and value.dtype != torch.bool and value.untyped_storage().nbytes():
                    value.untyped_storage().fill_(0xFF)  # NaN where it is read as numbers


def place(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes to."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            yield from (entry for entry in tree_flatten(value)[0] if isinstance(entry, Tensor))


@contextmanager
def capture(graph: CudaGraph, pool: Any = None, capture_error_mode: str = "global") -> Iterator[None]:
    """In the place of `torch.cuda.graph`."""
    assert capture_error_mode == "thread_local", "another thread pins memory meanwhile"
    generator = torch.get_rng_state()
    recording = _Capture(graph)
    with recording:
        yield
    recording.undo()
    torch.set_rng_state(generator)


@pytest.fixture
def cuda_graphs(monkeypatch: pytest.MonkeyPatch) -> list[CudaGraph]:
    """The graphs that the test's updates capture, in order."""
    made: list[CudaGraph] = []

    def new() -> CudaGraph:
        made.append(CudaGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    return made
