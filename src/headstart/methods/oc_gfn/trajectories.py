"""Trajectories of a whole batch at once: every step is one forward pass and a few tensor operations, and nothing waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

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
    rows = torch.arange(batch, device=uniform.device)
    table: Tensor | None = None
    if lazy and is_small(environment, batch * steps):
        every = environment.every_state(uniform.device)
        table = policy(every, environment.valid(every))
    noise = gumbel(uniform).unbind(1)
    explores = isinstance(epsilon, Tensor) or epsilon > 0
    states = environment.start(batch, uniform.device)
    done = torch.zeros(batch, dtype=torch.bool, device=uniform.device)
    some_done = not lazy  # a device that must not be waited for is not asked
    all_states, all_done, all_actions, all_rows = [states], [done], [], []
    asked, ways, way = 0, 1, torch.zeros_like(rows)  # ways: so many sequences of actions can have been taken; way: which of them a row took
    for t in range(steps):
        valid = environment.valid(states)
        together = lazy and table is None and 2 * ways <= batch
        if table is not None:
            all_rows.append(environment.keys(states))
            log_probs = table[all_rows[-1]]
        elif together:  # one row asks for all that took the same actions
            one = torch.zeros(ways, dtype=torch.int64, device=uniform.device).scatter_(0, way, rows)
            all_rows.append(asked + way)
            log_probs = policy(states[one], valid[one])[way]
            asked += ways
        else:
            log_probs = policy(states, valid)
        actions = ((mixed(log_probs, valid, epsilon) if explores else log_probs) + noise[t]).argmax(-1)
        after, finished = environment.step(states, actions)
        states = torch.where(done[:, None], states, after) if some_done else after
        done = done | finished if some_done else finished
        some_done = some_done or bool(done.any())
        if together:
            ways, way = ways * environment.n_actions, way * environment.n_actions + actions
        all_states.append(states)
        all_done.append(done)
        all_actions.append(actions)
        if lazy and some_done and bool(done.all()):
            break
    alone = len(all_actions) - len(all_rows)  # steps in which every row asked for itself
    all_rows += (asked + torch.arange(alone * batch, device=uniform.device)).view(alone, batch).unbind()
    missing = steps - len(all_actions)
    trajectories = Trajectories(
        _by_row(all_states + [states] * missing), _by_row(all_done + [done] * missing), _by_row(all_actions + [torch.zeros_like(actions)] * missing)
    )
    return trajectories, _by_row(all_rows)


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
