"""Whether an environment keeps its contract (`environment.py`): random objects are built, and the first thing that is wrong is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment

PLAYED = 64
"""Random objects that `check` builds."""


def check(environment: Environment) -> None:
    """Builds random objects and looks whether the environment keeps the contract.

    Raises:
        UsageError: it does not; the sentence names the function and a state.
    """
    if not environment.name:
        _refuse(environment, "has no name", "Give the class an attribute `name`.")
    if min(environment.sizes, default=0) < 1 or environment.n_actions < 1 or environment.max_steps < 1:
        _refuse(environment, "has no sizes, no actions or no steps", "`sizes`, `n_actions` and `max_steps` are positive.")
    rng = Rng.at(0, 0, torch.arange(PLAYED))
    played = _play(environment, rng.uniform("check", environment.max_steps, environment.n_actions))
    _check_graph(environment, played)
    _check_objects(environment, played.states[-1], rng)


@dataclass
class Played:
    """The states that `PLAYED` objects were built through, at the same time.

    Attributes:
        states: int64 [PLAYED, state_size], of the start and after each step; a done object stays as it is.
        done: bool [PLAYED] beside each.
        acted: int64 [PLAYED], the actions of each step; of done objects without meaning.
    """

    states: list[Tensor]
    done: list[Tensor]
    acted: list[Tensor]


def _play(environment: Environment, noise: Tensor) -> Played:
    """Takes the valid action of the highest noise [PLAYED, max_steps, n_actions] until all objects are done, and looks at every step."""
    states, done = environment.start(PLAYED), torch.zeros(PLAYED, dtype=torch.bool)
    if states.shape != (PLAYED, environment.state_size) or states.dtype != torch.int64:
        _refuse(environment, f"starts in {states.dtype} {list(states.shape)}", f"`start` gives int64 [count, {environment.state_size}].")
    if not environment.tree:
        named = environment.parents(states, done).any(-1)
        _refuse_where(named, states, environment, "names a parent of its start", "Correct `parents`: the start has none.")
    played = Played([states], [done], [])
    for t in range(environment.max_steps):
        alive = ~done
        if not bool(alive.any()):
            break
        allowed = environment.valid(states)
        if allowed.shape != (PLAYED, environment.n_actions) or allowed.dtype != torch.bool:
            mend = f"`valid` gives bool [..., {environment.n_actions}]."
            _refuse(environment, f"says {allowed.dtype} {list(allowed.shape)} as valid actions", mend)
        stuck = alive & ~allowed.any(-1)
        _refuse_where(stuck, states, environment, "has a state that is not done and allows no action", "`valid` must allow one.")
        actions = (noise[:, t] * allowed).argmax(-1)
        after, finished = _step(environment, states, done, actions)
        states, done = torch.where(alive[:, None], after, states), done | (alive & finished)
        for earlier, was_done in zip(played.states, played.done, strict=True):
            again = alive & (earlier == states).all(-1) & (was_done == done)
            _refuse_where(again, states, environment, "has a cycle: a state came twice", "The graph of a GFlowNet has no cycles.")
        played.states.append(states)
        played.done.append(done)
        played.acted.append(actions)
    _refuse_where(~done, states, environment, f"has no object after {environment.max_steps} steps", "Raise `max_steps`, or mend `step`.")
    return played


def _step(environment: Environment, states: Tensor, done: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """(states [PLAYED, state_size], done [PLAYED]) after the actions, of which those of done states have no meaning."""
    alive, before = ~done, states.clone()
    after, finished = environment.step(states, actions)
    if not torch.equal(states, before):
        _refuse(environment, "changes the states that `step` is given", "Return a new tensor.", before[0])
    if after.shape != states.shape or finished.shape != done.shape or finished.dtype != torch.bool:
        _refuse(environment, "gives other shapes after a step", "`step` gives int64 [..., state_size] and bool [...].")
    outside = ((after < 0) | (after >= torch.tensor(environment.sizes))).any(-1) & alive
    _refuse_where(outside, after, environment, "leaves its sizes", "Every int lies in 0 ... size - 1.")
    one, one_done = environment.step(states[:1], actions[:1])
    if not (torch.equal(one[0], after[0]) and bool(one_done[0] == finished[0])):
        _refuse(environment, "steps one state otherwise than a batch of them", "A state's step may depend on nothing else.", states[0])
    if not environment.tree:
        entered = environment.parents(after, finished).gather(-1, actions[:, None])[:, 0]
        what = "does not name the action that was taken among the parents"
        _refuse_where(alive & ~entered, after, environment, what, "Correct `parents`.")
    return after, finished


def _check_graph(environment: Environment, played: Played) -> None:
    """What is said of the ways: which states reach which objects, and where a state was entered from."""
    states, done = played.states[-1], played.done[-1]
    for earlier, was_done in zip(played.states, played.done, strict=True):
        lost = ~environment.can_reach(earlier, was_done, states)
        _refuse_where(lost, earlier, environment, "says of a state that it cannot reach the object that came of it", "Correct `can_reach`.")
    other = states.roll(1, 0)
    wrong = environment.can_reach(states, done, other) & ~(states == other).all(-1)
    _refuse_where(wrong, states, environment, "says that an object reaches another one", "A done state reaches itself alone.")
    if environment.tree and (twice := _entered_twice(played)) is not None:
        _refuse(environment, "has two ways to a state, and says that it is a tree", "Set `tree = False` and write `parents`.", twice)
    if not environment.tree and (astray := _no_parent(environment, played)) is not None:
        _refuse(environment, "names a parent whose step leads elsewhere", "Correct `parents` or `undo`.", astray)
    for earlier, was_done in zip(played.states, played.done, strict=True):
        unlike = ~was_done & (environment.can_reach(earlier, was_done, other) != _successors_reach(environment, earlier, other))
        what = "says otherwise of a state than of what follows it whether an object can be reached"
        _refuse_where(unlike, earlier, environment, what, "Correct `can_reach`: it is exact.")


def _check_objects(environment: Environment, states: Tensor, rng: Rng) -> None:
    """What is said of objects [PLAYED, state_size]: their texts, and those that are drawn."""
    if not torch.equal(environment.from_text(environment.to_text(states)), states):
        _refuse(environment, "does not read back the texts that it writes", "`from_text` is the inverse of `to_text`.", states[0])
    drawn = environment.draw(rng.uniform("draw", environment.state_size + 1))
    nothing = ~environment.can_reach(environment.start(PLAYED), torch.zeros(PLAYED, dtype=torch.bool), drawn)
    _refuse_where(nothing, drawn, environment, "draws an object that its start cannot reach", "Correct `draw`.")


def _refuse_where(wrong: Tensor, states: Tensor, environment: Environment, what: str, mend: str) -> None:
    """Refuses for the first of the states [n, state_size] that is wrong (bool [n]); none is: nothing happens."""
    if bool(wrong.any()):
        _refuse(environment, what, mend, states[wrong][0])


def _refuse(environment: Environment, what: str, mend: str, state: Tensor | None = None) -> NoReturn:
    at = "" if state is None else f" The state: {state.tolist()}."
    raise UsageError(f"The environment {environment.name or type(environment).__name__} {what}.{at}", mend)


def _entered_twice(played: Played) -> Tensor | None:
    """A state [state_size] that the played trajectories entered from two states, or by two actions."""
    entered: dict[bytes, bytes] = {}
    for t, actions in enumerate(played.acted):
        befores = torch.cat([played.states[t], actions[:, None]], -1).numpy()
        afters = torch.cat([played.states[t + 1], played.done[t + 1][:, None]], -1).numpy()
        for row in (~played.done[t]).nonzero()[:, 0].tolist():
            before = befores[row].tobytes()
            if entered.setdefault(afters[row].tobytes(), before) != before:
                return played.states[t + 1][row]
    return None


def _no_parent(environment: Environment, played: Played) -> Tensor | None:
    """A state [state_size] with a parent from which the action does not lead to it. None where there is no `undo` to go back with."""
    for states, done in zip(played.states[1:], played.done[1:], strict=True):
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
