"""The contract of an environment: discrete objects that are built by one action after another, from one start, on a graph without cycles.

A batch of states is an int64 tensor [..., state_size] on any device, and a bool tensor [...] that says which of them are complete objects ("done").
Whatever an environment does, it does to the whole batch with tensor operations, never to one object after another in Python.

An environment of your own is a subclass with six attributes and six functions (examples/baskets.py is one):

    sizes, n_actions, max_steps      what a state is, how many actions there are, how long the longest way to an object is
    valid, step, can_reach           the graph
    draw                             objects at random
    to_text, from_text               objects as a person, a table and a reward function see them

`check` plays it and refuses one that breaks the contract, naming the state.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from headstart.core.errors import UsageError
from headstart.core.rng import Rng

ENUMERABLE = 2**21
"""An environment with at most so many objects can list them all."""
PLAYED = 64
"""Random objects that `check` builds."""


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
        offsets = _offsets(self.sizes, states.device)
        return torch.zeros(*states.shape[:-1], self.encoding_size, device=states.device).scatter_(-1, states + offsets, 1.0)

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


def _offsets(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Where the one-hot of each int begins."""
    key = (sizes, str(device))
    if key not in _OFFSETS:
        _OFFSETS[key] = torch.tensor([0, *sizes[:-1]], device=device).cumsum(0)
    return _OFFSETS[key]


_OFFSETS: dict[tuple[tuple[int, ...], str], Tensor] = {}


def check(environment: Environment) -> None:
    """Builds random objects and looks whether the environment keeps the contract.

    Raises:
        UsageError: it does not; the sentence names the function and a state.
    """
    name = environment.name or type(environment).__name__

    def refuse(what: str, mend: str, state: Tensor | None = None) -> None:
        at = "" if state is None else f" The state: {state.tolist()}."
        raise UsageError(f"The environment {name} {what}.{at}", mend)

    if not environment.name:
        refuse("has no name", "Give the class an attribute `name`.")
    if min(environment.sizes, default=0) < 1 or environment.n_actions < 1 or environment.max_steps < 1:
        refuse("has no sizes, no actions or no steps", "`sizes`, `n_actions` and `max_steps` are positive.")
    rng = Rng.at(0, 0, torch.arange(PLAYED))
    noise = rng.uniform("check", environment.max_steps, environment.n_actions)
    states, done = environment.start(PLAYED), torch.zeros(PLAYED, dtype=torch.bool)
    if states.shape != (PLAYED, environment.state_size) or states.dtype != torch.int64:
        refuse(f"starts in {states.dtype} {list(states.shape)}", f"`start` gives int64 [count, {environment.state_size}].")
    if not environment.tree and bool((named := environment.parents(states, done).any(-1)).any()):
        refuse("names a parent of its start", "Correct `parents`: the start has none.", states[named][0])
    way = [states]
    done_at = [done]
    acted: list[Tensor] = []
    for t in range(environment.max_steps):
        alive = ~done
        if not bool(alive.any()):
            break
        allowed = environment.valid(states)
        if allowed.shape != (PLAYED, environment.n_actions) or allowed.dtype != torch.bool:
            refuse(f"says {allowed.dtype} {list(allowed.shape)} as valid actions", f"`valid` gives bool [..., {environment.n_actions}].")
        stuck = alive & ~allowed.any(-1)
        if bool(stuck.any()):
            refuse("has a state that is not done and allows no action", "`valid` must allow one.", states[stuck][0])
        actions = (noise[:, t] * allowed).argmax(-1)
        before = states.clone()
        after, finished = environment.step(states, actions)
        if not torch.equal(states, before):
            refuse("changes the states that `step` is given", "Return a new tensor.", before[0])
        if after.shape != states.shape or finished.shape != done.shape or finished.dtype != torch.bool:
            refuse("gives other shapes after a step", "`step` gives int64 [..., state_size] and bool [...].")
        outside = (after < 0) | (after >= torch.tensor(environment.sizes))
        if bool((outside.any(-1) & alive).any()):
            refuse("leaves its sizes", "Every int lies in 0 ... size - 1.", after[outside.any(-1) & alive][0])
        one, one_done = environment.step(states[:1], actions[:1])
        if not (torch.equal(one[0], after[0]) and bool(one_done[0] == finished[0])):
            refuse("steps one state otherwise than a batch of them", "A state's step may depend on nothing else.", states[0])
        if not environment.tree:
            entered = environment.parents(after, finished).gather(-1, actions[:, None])[:, 0]
            if bool((alive & ~entered).any()):
                refuse("does not name the action that was taken among the parents", "Correct `parents`.", after[alive & ~entered][0])
        states, done = torch.where(alive[:, None], after, states), done | (alive & finished)
        for earlier, was_done in zip(way, done_at, strict=True):
            again = alive & (earlier == states).all(-1) & (was_done == done)
            if bool(again.any()):
                refuse("has a cycle: a state came twice", "The graph of a GFlowNet has no cycles.", states[again][0])
        way.append(states)
        done_at.append(done)
        acted.append(actions)
    if not bool(done.all()):
        refuse(f"has no object after {environment.max_steps} steps", "Raise `max_steps`, or mend `step`.", states[~done][0])
    for earlier, was_done in zip(way, done_at, strict=True):
        lost = ~environment.can_reach(earlier, was_done, states)
        if bool(lost.any()):
            refuse("says of a state that it cannot reach the object that came of it", "Correct `can_reach`.", earlier[lost][0])
    other = states.roll(1, 0)
    wrong = environment.can_reach(states, done, other) & ~(states == other).all(-1)
    if bool(wrong.any()):
        refuse("says that an object reaches another one", "A done state reaches itself alone.", states[wrong][0])
    if environment.tree and (twice := _entered_twice(way, done_at, acted)) is not None:
        refuse("has two ways to a state, and says that it is a tree", "Set `tree = False` and write `parents`.", twice)
    if not environment.tree and (astray := _no_parent(environment, way, done_at)) is not None:
        refuse("names a parent whose step leads elsewhere", "Correct `parents` or `undo`.", astray)
    for earlier, was_done in zip(way, done_at, strict=True):
        unlike = ~was_done & (environment.can_reach(earlier, was_done, other) != _successors_reach(environment, earlier, other))
        if bool(unlike.any()):
            what = "says otherwise of a state than of what follows it whether an object can be reached"
            refuse(what, "Correct `can_reach`: it is exact.", earlier[unlike][0])
    if not torch.equal(environment.from_text(environment.to_text(states)), states):
        refuse("does not read back the texts that it writes", "`from_text` is the inverse of `to_text`.", states[0])
    drawn = environment.draw(rng.uniform("draw", environment.state_size + 1))
    nothing = ~environment.can_reach(environment.start(PLAYED), torch.zeros(PLAYED, dtype=torch.bool), drawn)
    if bool(nothing.any()):
        refuse("draws an object that its start cannot reach", "Correct `draw`.", drawn[nothing][0])


def _entered_twice(way: Sequence[Tensor], done_at: Sequence[Tensor], acted: Sequence[Tensor]) -> Tensor | None:
    """A state [state_size] that the played trajectories entered from two states, or by two actions."""
    entered: dict[bytes, bytes] = {}
    for t, actions in enumerate(acted):
        befores = torch.cat([way[t], actions[:, None]], -1).numpy()
        afters = torch.cat([way[t + 1], done_at[t + 1][:, None]], -1).numpy()
        for row in (~done_at[t]).nonzero()[:, 0].tolist():
            before = befores[row].tobytes()
            if entered.setdefault(afters[row].tobytes(), before) != before:
                return way[t + 1][row]
    return None


def _no_parent(environment: Environment, way: Sequence[Tensor], done_at: Sequence[Tensor]) -> Tensor | None:
    """A state [state_size] with a parent from which the action does not lead to it. None where there is no `undo` to go back with."""
    for states, done in zip(way[1:], done_at[1:], strict=True):
        row, actions = environment.parents(states, done).nonzero(as_tuple=True)
        try:
            before = environment.undo(states[row], done[row], actions)
        except NotImplementedError:
            return None
        after, finished = environment.step(before, actions)
        back = environment.valid(before).gather(-1, actions[:, None])[:, 0] & (after == states[row]).all(-1) & (finished == done[row])
        if not bool(back.all()):
            return states[row[~back]][0]
    return None


def _successors_reach(environment: Environment, states: Tensor, outcomes: Tensor) -> Tensor:
    """bool [n]: whether some valid action leads [n, state_size], not done, to a state that can reach its outcome."""
    n, actions = len(states), environment.n_actions
    each = torch.arange(actions).repeat(n)
    after, done = environment.step(states.repeat_interleave(actions, 0), each)
    reached = environment.can_reach(after.view(n, actions, -1), done.view(n, actions), outcomes[:, None])
    return (reached & environment.valid(states)).any(-1)
