"""Trajectories of a whole batch at once: every step is one forward pass and a few tensor operations, and nothing waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from headstart.data.environments.environment import Environment

Policy: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(states [batch, state_size], valid actions bool [batch, actions]) -> float32 log-probabilities [batch, actions]."""
INVALID = -1e9
"""The logit of an invalid action: its probability is exactly 0 in float32."""


@dataclass(frozen=True)
class Trajectories:
    """A batch of ways from the start to objects. Those that end early stand still afterwards.

    Attributes:
        states: int64 [batch, steps + 1, state_size].
        done: bool [batch, steps + 1]: the state is a complete object.
        actions: int64 [batch, steps]; without meaning after the end.
    """

    states: Tensor
    done: Tensor
    actions: Tensor

    @property
    def ends(self) -> Tensor:
        """int64 [batch, state_size]: the objects."""
        return self.states[:, -1]

    @property
    def alive(self) -> Tensor:
        """bool [batch, steps]: whether there is such a transition."""
        return ~self.done[:, :-1]

    def flat(self, name: str) -> dict[str, Tensor]:
        """The three tensors as entries of a batch."""
        return {f"{name}_states": self.states, f"{name}_done": self.done, f"{name}_actions": self.actions}

    @classmethod
    def of(cls, batch: dict[str, Tensor], name: str) -> Trajectories:
        """The inverse of `flat`."""
        return cls(*(batch[f"{name}_{part}"] for part in ("states", "done", "actions")))

    @classmethod
    def stacked(cls, *several: Trajectories) -> Trajectories:
        """One batch of several."""
        return cls(*(torch.cat([getattr(one, part) for one in several]) for part in ("states", "done", "actions")))


def masked_log_softmax(logits: Tensor, valid: Tensor) -> Tensor:
    """float32 [..., actions]; in float32 whatever the precision of the network."""
    return torch.where(valid, logits.float(), INVALID).log_softmax(-1)


def uniform_policy(states: Tensor, valid: Tensor) -> Tensor:
    """Every valid action equally likely."""
    return masked_log_softmax(torch.zeros(valid.shape, device=valid.device), valid)


def mixed(log_probs: Tensor, valid: Tensor, epsilon: float | Tensor) -> Tensor:
    """float32 [..., actions]: the policy with a share of uniform valid actions."""
    uniform = valid / valid.sum(-1, keepdim=True).clamp(min=1)
    return ((1 - epsilon) * log_probs.exp() + epsilon * uniform).log().clamp(min=INVALID)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise of uniform [0, 1) numbers: the largest of log-probabilities with such noise is a draw of them."""
    inside = (uniform + 2.0**-25).clamp(max=1 - 2.0**-24)  # the largest number below 1 would round to 1, whose noise is infinite
    return -(-inside.log()).log()


@torch.no_grad()
def roll(environment: Environment, policy: Policy, uniform: Tensor, epsilon: float | Tensor = 0.0, lazy: bool = False) -> Trajectories:
    """Builds an object in every row.

    Args:
        uniform: float32 [batch, max_steps, actions] in [0, 1): the randomness, drawn by who asks.
        epsilon: share of uniform valid actions; a tensor may change from step to step of a run.
        lazy: ask the policy once for all rows that came the same way, while these ways are few, and once for every state there is where these are
            few; stop when all objects are done: shapes then depend on values, which a CPU does not mind and a CUDA graph does. Only for policies that
            depend on the state alone.
    """
    return built(environment, policy, uniform, epsilon, lazy)[0]


def built(environment: Environment, policy: Policy, uniform: Tensor, epsilon: float | Tensor, lazy: bool) -> tuple[Trajectories, Tensor]:
    """What `roll` gives, and int64 [batch, steps taken]: which of all rows that the policy was asked for, counted over its calls, decided."""
    batch, steps, _ = uniform.shape
    asking = who_asks(environment, policy, batch, steps, lazy, uniform.device)
    noise = gumbel(uniform).unbind(1)
    explores = isinstance(epsilon, Tensor) or epsilon > 0
    states = environment.start(batch, uniform.device)
    done = torch.zeros(batch, dtype=torch.bool, device=uniform.device)
    some_done = not lazy  # a device that must not be waited for is not asked
    all_states, all_done, all_actions = [states], [done], []
    actions: Tensor | None = None
    for t in range(steps):
        valid = environment.valid(states)
        log_probs = asking(states, valid, actions)
        actions = ((mixed(log_probs, valid, epsilon) if explores else log_probs) + noise[t]).argmax(-1)
        after, finished = environment.step(states, actions)
        states = torch.where(done[:, None], states, after) if some_done else after
        done = done | finished if some_done else finished
        some_done = some_done or bool(done.any())
        all_states.append(states)
        all_done.append(done)
        all_actions.append(actions)
        if lazy and some_done and bool(done.all()):
            break
    assert actions is not None
    missing = steps - len(all_actions)
    trajectories = Trajectories(
        _by_row(all_states + [states] * missing), _by_row(all_done + [done] * missing), _by_row(all_actions + [torch.zeros_like(actions)] * missing)
    )
    return trajectories, _by_row(asking.decided())


class Asking(Protocol):
    """Asks a policy for a batch, step by step."""

    def __call__(self, states: Tensor, valid: Tensor, taken: Tensor | None) -> Tensor:
        """float32 [batch, actions]: what the policy says of `states` [batch, state_size]; `taken` [batch] are the actions that led there."""

    def decided(self) -> list[Tensor]:
        """int64 [batch] of each step so far: the row that decided, of all that the policy was asked for."""


class Each:
    """Every row asks for itself.

    Args:
        first: how many rows the policy was asked for before.
    """

    def __init__(self, policy: Policy, batch: int, device: torch.device, first: int = 0) -> None:
        self.policy, self.batch, self.device, self.first, self.calls = policy, batch, device, first, 0

    def __call__(self, states: Tensor, valid: Tensor, taken: Tensor | None) -> Tensor:
        self.calls += 1
        return self.policy(states, valid)

    def decided(self) -> list[Tensor]:
        return list((self.first + torch.arange(self.calls * self.batch, device=self.device)).view(self.calls, self.batch))


class Together:
    """One row asks for all that took the same actions, while there are few such ways; then every row for itself."""

    def __init__(self, policy: Policy, n_actions: int) -> None:
        self.policy, self.n_actions = policy, n_actions
        self.ways, self.asked = 1, 0  # ways: so many sequences of actions can have been taken
        self.way: Tensor | None = None  # int64 [batch]: which of them a row took
        self.rows: list[Tensor] = []
        self.each: Each | None = None

    def __call__(self, states: Tensor, valid: Tensor, taken: Tensor | None) -> Tensor:
        if self.each is not None:
            return self.each(states, valid, taken)
        if self.way is None or taken is None:
            self.way = torch.zeros(len(states), dtype=torch.int64, device=states.device)
        else:
            self.ways, self.way = self.ways * self.n_actions, self.way * self.n_actions + taken
        if 2 * self.ways > len(states):
            self.each = Each(self.policy, len(states), states.device, self.asked)
            return self.each(states, valid, taken)
        rows = torch.arange(len(states), device=states.device)
        one = torch.zeros(self.ways, dtype=torch.int64, device=states.device).scatter_(0, self.way, rows)
        self.rows.append(self.asked + self.way)
        self.asked += self.ways
        return self.policy(states[one], valid[one])[self.way]

    def decided(self) -> list[Tensor]:
        return self.rows + ([] if self.each is None else self.each.decided())


class Table:
    """All states there can be ask once, at the beginning; then each row looks its state up."""

    def __init__(self, environment: Environment, policy: Policy, device: torch.device) -> None:
        every = environment.every_state(device)
        self.environment, self.log_probs = environment, policy(every, environment.valid(every))
        self.rows: list[Tensor] = []

    def __call__(self, states: Tensor, valid: Tensor, taken: Tensor | None) -> Tensor:
        self.rows.append(self.environment.keys(states))
        return self.log_probs[self.rows[-1]]

    def decided(self) -> list[Tensor]:
        return self.rows


def who_asks(environment: Environment, policy: Policy, batch: int, steps: int, lazy: bool, device: torch.device) -> Asking:
    """The way to ask with the fewest rows; with `lazy` off every row asks."""
    if not lazy:
        return Each(policy, batch, device)
    return Table(environment, policy, device) if is_small(environment, batch * steps) else Together(policy, environment.n_actions)


def _by_row(of_steps: list[Tensor]) -> Tensor:
    """[batch, steps, ...] of tensors [batch, ...]; the steps lie one after another in memory, which is the fast way to put them together."""
    return torch.stack(of_steps).transpose(0, 1)


def is_small(environment: Environment, states: int) -> bool:
    """Whether all states there can be are fewer than half of so many: then a network is asked for each of them once."""
    return 2 * environment.n_states <= states


def backward_log_probs(environment: Environment, logits: Tensor | None, states: Tensor, done: Tensor, actions: Tensor) -> Tensor:
    """float32 [...]: log P_B of the transition by `actions` into `states`; 0 in a tree, and for the action that stops.

    Args:
        logits: [..., actions] of a learned P_B; None: uniform over the parents.
        states, done: what was entered.
    """
    if environment.tree:
        return torch.zeros(actions.shape, device=actions.device)
    parents = environment.parents(states, done)
    if logits is None:
        return -parents.sum(-1).clamp(min=1).float().log()
    return masked_log_softmax(logits, parents).gather(-1, actions[..., None])[..., 0]


@torch.no_grad()
def ways_to(environment: Environment, objects: Tensor, uniform: Tensor) -> Trajectories:
    """A way to each object, drawn backwards by the uniform P_B (in a tree there is one).

    Args:
        objects: int64 [batch, state_size].
        uniform: float32 [batch, max_steps, actions] in [0, 1).
    """
    noise = gumbel(uniform)
    steps = environment.max_steps
    states, done = objects, torch.ones(len(objects), dtype=torch.bool, device=objects.device)
    all_states, all_actions, length = [states], [], torch.zeros(len(objects), dtype=torch.int64, device=objects.device)
    for t in range(steps):
        parents = environment.parents(states, done)
        further = parents.any(-1)  # the start has none
        actions = (uniform_policy(states, parents) + noise[:, t]).argmax(-1)
        states = torch.where(further[:, None], environment.undo(states, done, actions), states)
        done = done & ~further
        length = length + further
        all_states.append(states)
        all_actions.append(actions)
    back = (length[:, None] - torch.arange(steps + 1, device=objects.device)).clamp(min=0)  # [batch, steps + 1]: forwards in time
    forward = torch.stack(all_states, 1).gather(1, back[..., None].expand(-1, -1, environment.state_size))
    acted = torch.stack(all_actions, 1).gather(1, (back[:, :-1] - 1).clamp(min=0))
    return Trajectories(forward, back == 0, acted)
