"""What a policy samples, exactly: the distribution of its ends, for environments small enough to walk through every state."""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.data.environments.environment import Environment
from headstart.data.environments.scores import Reward
from headstart.methods.oc_gfn.conversion import successors
from headstart.methods.oc_gfn.trajectories import Policy

CHUNK = 2**14


@torch.no_grad()
def end_distribution(environment: Environment, policy: Policy) -> Tensor:
    """float64 [n_objects], in the order of `environment.objects()`: the probability of each object.

    Level by level: all states that some trajectory can be in after t actions, each once, with their probability.
    """
    objects = environment.objects()
    keys, order = environment.keys(objects).sort()
    found = torch.zeros(len(objects), dtype=torch.float64)
    states, mass = environment.start(1), torch.ones(1, dtype=torch.float64)
    for _ in range(environment.max_steps):
        reached: list[Tensor] = []
        masses: list[Tensor] = []
        for part, of_part in zip(states.split(CHUNK), mass.split(CHUNK), strict=True):
            valid = environment.valid(part)
            chances = policy(part, valid).double().exp() * valid * of_part[:, None]  # [n, actions]
            after, done = successors(environment, part)
            ended = valid & done
            place = order[torch.searchsorted(keys, environment.keys(after[ended]))]
            found.index_add_(0, place, chances[ended])
            reached.append(after[valid & ~done])
            masses.append(chances[valid & ~done])
        every, of_every = torch.cat(reached), torch.cat(masses)
        if not len(every):
            break
        states, which = torch.unique(every, dim=0, return_inverse=True)
        mass = torch.zeros(len(states), dtype=torch.float64).index_add_(0, which, of_every)
    return found


def target_distribution(environment: Environment, reward: Reward) -> Tensor:
    """float64 [n_objects]: r / sum r, what a perfect sampler has."""
    r = reward(environment.objects()).double()
    return r / r.sum()


def l1(found: Tensor, wanted: Tensor) -> float:
    """sum |p - p*|: 0 up to 2."""
    return float((found - wanted).abs().sum())
