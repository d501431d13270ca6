"""The contract of an environment: discrete objects that are built by one action after another, from one start, on a graph without cycles.

A batch of states is an int64 tensor [..., state_size] on any device, and a bool tensor [...] that says which of them are complete objects ("done").
Whatever an environment does, it does to the whole batch with tensor operations, never to one object after another in Python.

An environment of your own is a subclass with six attributes and six functions (examples/baskets.py is one):

    sizes, n_actions, max_steps      what a state is, how many actions there are, how long the longest way to an object is
    valid, step, can_reach           the graph
    draw                             objects at random
    to_text, from_text               objects as a person, a table and a reward function see them

`contract.check` plays it and refuses one that breaks the contract, naming the state.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.core.errors import UsageError

ENUMERABLE = 2**21
"""An environment with at most so many objects can list them all."""


class Environment(abc.ABC):
    """A subclass sets the attributes and writes the abstract functions; the others have defaults that it may replace.

    Attributes:
        name: what a run and its export call it.
        sizes: how many values each of the ints of a state may have, 0 up to that; all ints together are the state.
        n_actions: actions are numbered from 0; which of them a state allows, `valid` says.
        max_steps: no object needs more actions.
        tree: every state has exactly one way to it (letters that are only appended); otherwise `parents` must be written.
        n_objects: how many objects there are; None: too many to list.
    """

    name: ClassVar[str] = ""
    sizes: tuple[int, ...]
    n_actions: int
    max_steps: int
    tree: bool = True
    n_objects: int | None = None

    # --- the graph ----------------------------------------------------------------------------------------------------------------------------

    def start(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """int64 [count, state_size]: the one state that everything begins in; all zeros unless said otherwise."""
        return torch.zeros(count, self.state_size, dtype=torch.int64, device=device)

    @abc.abstractmethod
    def valid(self, states: Tensor) -> Tensor:
        """bool [..., n_actions]: which actions states allow; at least one each. It is also asked of done states and of any ints within `sizes`, where
        the answer is not used."""

    @abc.abstractmethod
    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(int64 [..., state_size], bool [...]): the states after `actions` int64 [...], as a new tensor, and whether they are complete objects. Of
        done states and of actions that are not valid the answer is not used, but it must not fail."""

    @abc.abstractmethod
    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        """bool [...]: whether the object `outcomes` [..., state_size] can still come of a state, exactly; all three broadcast. A done state reaches
        itself alone."""

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        """bool [..., n_actions]: the actions by which a state may have been entered; each leads back to one state. The start has none.

        Only asked where `tree` is False. An action that completes an object without changing its ints ("stop") is the only one into that object.
        """
        raise NotImplementedError(f"{self.name} is no tree: it must say the parents of a state.")

    def undo(self, states: Tensor, done: Tensor, actions: Tensor) -> Tensor:
        """int64 [..., state_size]: the state from which `actions`, each one of `parents`, led here. Only asked where scored objects are learned from
        again (`replay`)."""
        raise NotImplementedError(f"{self.name} cannot go back from an object to its start.")

    # --- objects ------------------------------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def draw(self, numbers: Tensor) -> Tensor:
        """int64 [..., state_size]: objects made of float32 [..., state_size + 1] uniform in [0, 1): equal numbers, equal objects."""

    def log_draw(self, objects: Tensor) -> Tensor:
        """float32 [...]: the log-probability of each object under `draw`; by default all objects are equally likely."""
        if self.n_objects is None:
            raise NotImplementedError(f"{self.name} must say how likely `draw` makes an object.")
        return torch.full(objects.shape[:-1], -math.log(self.n_objects), device=objects.device)

    @abc.abstractmethod
    def to_text(self, objects: Tensor) -> list[str]:
        """One line for each of [n, state_size]."""

    @abc.abstractmethod
    def from_text(self, texts: Sequence[str]) -> Tensor:
        """The inverse, int64 [n, state_size]. Raises BadInput that names the first one that is no object of this environment."""

    def objects(self) -> Tensor:
        """int64 [n_objects, state_size]: all of them, each once, in the order of `keys`.

        Raises:
            UsageError: there are too many.
        """
        raise UsageError(f"{self.name} has too many objects to list them.", "Take the amortised predictor, or the conversion by sampling.")

    # --- what follows from these --------------------------------------------------------------------------------------------------------------

    @property
    def state_size(self) -> int:
        return len(self.sizes)

    @property
    def encoding_size(self) -> int:
        return sum(self.sizes)

    def encode(self, states: Tensor) -> Tensor:
        """float32 [..., encoding_size]: what networks see; every int one-hot, one after another (GAFN/grid/toy_grid_dag.py)."""
        places = states + offsets(self.sizes, states.device)
        return torch.zeros(*states.shape[:-1], self.encoding_size, device=states.device).scatter_(-1, places, 1.0)

    @property
    def n_states(self) -> int:
        """How many values the ints of a state can have together."""
        return math.prod(self.sizes)

    def keys(self, states: Tensor) -> Tensor:
        """int64 [...]: a number for every state, the first int most significant. Only where `n_states` fits 62 bits."""
        key = torch.zeros(states.shape[:-1], dtype=torch.int64, device=states.device)
        for place, size in enumerate(self.sizes):
            key = key * size + states[..., place]
        return key

    def every_state(self, device: torch.device | str = "cpu") -> Tensor:
        """int64 [n_states, state_size]: all values of the ints, in the order of `keys`; some may be no state that can be reached."""
        key = torch.arange(self.n_states, device=device)
        ints = []
        for size in reversed(self.sizes):
            ints.append(key % size)
            key = key // size
        return torch.stack(ints[::-1], -1)

    def describe(self) -> dict[str, Any]:
        """What config.json of an export says of it, so that an adapter of another environment is refused."""
        return {"name": self.name, "sizes": list(self.sizes), "n_actions": self.n_actions, "max_steps": self.max_steps}


def offsets(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 [state_size]: where the one-hot of each int begins."""
    key = (sizes, str(device))
    if key not in _OFFSETS:
        _OFFSETS[key] = torch.tensor([0, *sizes[:-1]], device=device).cumsum(0)
    return _OFFSETS[key]


_OFFSETS: dict[tuple[tuple[int, ...], str], Tensor] = {}
