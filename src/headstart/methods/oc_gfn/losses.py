"""Losses of flow networks, each of tensors alone: log-probabilities and log-flows of a batch of trajectories -> float32 [batch].

Shapes: `log_pf`, `log_pb` and `alive` are [batch, steps], one for each transition; `log_f` [batch, steps] is of the states that they leave,
`ends` bool [batch, steps] says that they enter a complete object; `log_r` [batch] is of that object.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction: TypeAlias = Literal["sum", "mean_transitions"]
EPSILON = 1e-8
"""Added to the reward in GAFN's loss (ling-pan/GAFN, grid/toy_grid_dag.py)."""


def outcome_teleportation(
    log_f: Tensor, log_pf: Tensor, log_pb: Tensor, log_r: Tensor, alive: Tensor, ends: Tensor, reduction: Reduction = "sum"
) -> Tensor:
    """The reward of the end enters every transition: [log F(s|y) + log P_F - log F(s'|y) - log P_B - log R(x|y)]^2.

    log F of the end is pinned to 0: were it free, F(.|y) could be scaled by any constant for each y, and the conversion adds flows of different y.
    """
    into = entered(log_f, torch.zeros_like(log_r), ends)
    return over_transitions((log_f + log_pf - into - log_pb - log_r[:, None]).square(), alive, reduction)


def detailed_balance(
    log_f: Tensor, log_pf: Tensor, log_pb: Tensor, log_r: Tensor, alive: Tensor, ends: Tensor, reduction: Reduction = "sum"
) -> Tensor:
    """[log F(s) + log P_F - log F(s') - log P_B]^2, where the flow of the end is its reward: nothing is predicted for it."""
    return over_transitions((log_f + log_pf - entered(log_f, log_r, ends) - log_pb).square(), alive, reduction)


def entered(log_f: Tensor, log_end: Tensor, ends: Tensor) -> Tensor:
    """[batch, steps]: log F of the state that each transition enters; `log_end` [batch] where it is the object."""
    return torch.where(ends, log_end[:, None], F.pad(log_f[:, 1:], (0, 1)))


def over_transitions(terms: Tensor, alive: Tensor, reduction: Reduction) -> Tensor:
    """[batch]: the sum over a trajectory's transitions, or their mean."""
    total = torch.where(alive, terms, 0).sum(1)
    return total if reduction == "sum" else total / alive.sum(1)


def trajectory_balance(log_z: Tensor, log_pf: Tensor, log_pb: Tensor, log_r: Tensor, alive: Tensor) -> Tensor:
    """[log Z + sum log P_F - log R - sum log P_B]^2 (Malkin et al. 2022)."""
    return (log_z + torch.where(alive, log_pf - log_pb, 0).sum(1) - log_r).square()


def sub_trajectory_balance(
    log_f: Tensor, log_pf: Tensor, log_pb: Tensor, log_r: Tensor, alive: Tensor, ends: Tensor, weight: float = 0.9
) -> Tensor:
    """All parts i < j of a trajectory, each weighted by weight^(j - i), weights normalised to 1 (Madan et al. 2023):
    [log F(s_i) + sum log P_F - log F(s_j) - sum log P_B]^2, the flow of the end := its reward."""
    steps = log_pf.shape[1]
    length = alive.sum(1, keepdim=True)  # [batch, 1]
    place = torch.arange(steps + 1, device=log_pf.device)
    flows = torch.where(place < length, F.pad(log_f, (0, 1)), log_r[:, None])  # [batch, steps + 1]
    moved = F.pad(torch.where(alive, log_pf - log_pb, 0).cumsum(1), (1, 0))
    level = flows - moved  # log F(s_i) + sum over the part = level_i - level_j, both of them shifted alike
    apart = place[None] - place[:, None]  # [steps + 1, steps + 1]: j - i
    inside = (apart > 0) & (place[None] <= length)[:, None]  # [batch, i, j]
    weights = inside * weight ** apart.clamp(min=0)
    terms = (level[:, :, None] - level[:, None]).square()
    return (torch.where(inside, terms, 0) * weights).sum((1, 2)) / weights.sum((1, 2))


def augmented_trajectory_balance(
    log_z: Tensor, log_pf: Tensor, log_pb: Tensor, log_f: Tensor, novelty: Tensor, reward: Tensor, alive: Tensor, ends: Tensor
) -> Tensor:
    """GAFlowNet's (Pan et al. 2023, grid/toy_grid_dag.py): every edge but the last is widened by the novelty of what it enters,
    log Z + sum log P_F - log(R + 1e-8) - sum over edges log(P_B + r_i(s') / F(s')) - log P_B of the last edge, squared.

    Args:
        log_f: [batch, steps], of the states that the transitions *enter*; of the end it is not used.
        novelty: [batch, steps], r_i(s'), without gradient.
        reward: [batch], R = extrinsic + r_i(end).
    """
    widened = torch.logaddexp(log_pb, novelty.log() - log_f)
    edges = torch.where(alive, log_pf - torch.where(ends, log_pb, widened), 0)
    return (log_z + edges.sum(1) - (reward + EPSILON).log()).square()
