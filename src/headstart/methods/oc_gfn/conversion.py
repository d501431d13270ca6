"""From outcomes to a reward without training (Eq. 6): P_F^r(s'|s) is proportional to sum_y r(y) F(s|y) P_F(s'|s, y).

The sum runs over the y that s' can still reach. The paper does not say so, and it is needed: a good sampler never visits (s, y) where y cannot be
reached, so F(s|y) is untrained there. On the 8 x 8 grid the L1 to the target is 1.44 without it (as bad as uniform) and 0.13 with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.scores import Reward, Scores
from headstart.methods.oc_gfn.trajectories import INVALID, Policy, masked_log_softmax

Conditional: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(states [n, state_size], outcomes [n, state_size]) -> (log P_F [n, actions], log F [n]): a `ConditionalFlow`, or exact flows in a test."""

PAIRS = 2**18
"""Of states and outcomes, that are in memory at once."""
OUTCOMES = 64
"""K: outcomes that the conversion by sampling draws."""


@torch.no_grad()
def numerators(
    environment: Environment, conditional: Conditional, states: Tensor, outcomes: Tensor, log_weights: Tensor, pairs: int = PAIRS
) -> Tensor:
    """log sum_y w(y) F(s|y) P_F(a|s, y) over the y that the state after a can reach; float32 [n, actions], -inf where there is none.

    Args:
        states: int64 [n, state_size], not done.
        outcomes: int64 [m, state_size]. log_weights: float32 [m], log r(y), or log r(y)/u(y) of outcomes that were drawn.
        pairs: (state, outcome) pairs that are looked at at once.
    """
    rows = max(1, pairs // max(1, len(outcomes)))
    distinct, which = torch.unique(states, dim=0, return_inverse=True)
    return torch.cat([_numerators(environment, conditional, part, outcomes, log_weights) for part in distinct.split(rows)])[which]


def _numerators(environment: Environment, conditional: Conditional, states: Tensor, outcomes: Tensor, log_weights: Tensor) -> Tensor:
    n, actions = len(states), environment.n_actions
    not_done = torch.zeros(n, 1, dtype=torch.bool, device=states.device)
    row, which = environment.can_reach(states[:, None], not_done, outcomes[None]).nonzero(as_tuple=True)  # [pairs]
    if not len(row):
        return torch.full((n, actions), -torch.inf, device=states.device)
    log_pf, log_f = conditional(states[row], outcomes[which])
    terms = log_weights[which][:, None] + log_f[:, None] + log_pf  # [pairs, actions]
    after, done = successors(environment, states)  # [n, actions, state_size]
    kept = environment.can_reach(after[row], done[row], outcomes[which][:, None]) & environment.valid(states)[row]
    terms = terms.masked_fill(~kept, -torch.inf)
    index = row[:, None].expand_as(terms)
    most = torch.full((n, actions), -torch.inf, device=states.device).scatter_reduce(0, index, terms, "amax")
    shift = most.clamp(min=-1e30)
    total = torch.zeros(n, actions, device=states.device).scatter_add(0, index, (terms - shift[row]).exp())
    return total.log() + shift


def successors(environment: Environment, states: Tensor) -> tuple[Tensor, Tensor]:
    """(states int64 [n, actions, state_size], done bool [n, actions]) after each action, valid or not."""
    n, actions = len(states), environment.n_actions
    each = torch.arange(actions, device=states.device).repeat(n)
    after, done = environment.step(states.repeat_interleave(actions, 0), each)
    return after.view(n, actions, -1), done.view(n, actions)


def exact_policy(environment: Environment, conditional: Conditional, reward: Reward, device: torch.device | str = "cpu") -> Policy:
    """The converted policy from all objects: it asks for the whole table of rewards, so it is an arm only where all objects may be
    scored, and an upper bound elsewhere.

    Args:
        device: where the reward is asked.
    """
    outcomes = environment.objects().to(device)
    log_r = reward(outcomes).log()

    def policy(states: Tensor, valid: Tensor) -> Tensor:
        return normalised(numerators(environment, conditional, states, outcomes.to(states.device), log_r.to(states.device)), valid)

    return policy


def sampled_policy(environment: Environment, conditional: Conditional, reward: Reward, rng: Rng, count: int = OUTCOMES) -> Policy:
    """The converted policy from `count` random outcomes, weighted by r(y) / u(y); the same outcomes for every state and step, so that nothing else is
    built where one of them can be reached.

    Args:
        rng: of one row.
    """
    numbers = rng.uniform("outcomes", count, environment.state_size + 1)[0]
    outcomes = environment.draw(numbers)
    weights = reward(outcomes).log() - environment.log_draw(outcomes) - math.log(count)

    def policy(states: Tensor, valid: Tensor) -> Tensor:
        return normalised(numerators(environment, conditional, states, outcomes, weights), valid)

    return policy


def normalised(log_numerators: Tensor, valid: Tensor) -> Tensor:
    """The policy of numerators; uniform over the valid actions where all of them are 0."""
    nothing = log_numerators.isneginf().all(-1, keepdim=True)
    return masked_log_softmax(torch.where(nothing, 0.0, log_numerators.clamp(min=INVALID)), valid)


class Converted:
    """The pre-trained network converted to a reward. Nothing is trained; all reward calls are those of the sum.

    Args:
        outcomes: so many random objects are summed over, and only these can be built; None: all there are.

    Raises:
        UsageError: all objects are wanted, and there are too many to list.
    """

    def __init__(self, conditional: Conditional, scores: Scores, outcomes: int | None, seed: int = 0) -> None:
        self.scores = scores
        how = (scores.environment, conditional, scores)
        one_row = torch.zeros(1, dtype=torch.int64, device=scores.device)
        self.policy: Policy = (
            exact_policy(*how, scores.device) if outcomes is None else sampled_policy(*how, Rng.at(seed, 0, one_row), outcomes)
        )
