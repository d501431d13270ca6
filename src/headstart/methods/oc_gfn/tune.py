"""The other way to a reward: the pre-trained network itself, its outcome left empty, first taught the conversion by sampling, then trained by
trajectory balance. No N and no Q, so hardly an outcome is scored that was not built; but nothing of the head start stays as it was either."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from headstart.core.rng import Rng
from headstart.data.environments.scores import Scores
from headstart.engine.optim import clip_gradients
from headstart.methods.oc_gfn.adapt import REWARD_FLOOR
from headstart.methods.oc_gfn.config import AdaptConfig
from headstart.methods.oc_gfn.conversion import sampled_policy
from headstart.methods.oc_gfn.losses import trajectory_balance
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.methods.oc_gfn.scored import Layers
from headstart.methods.oc_gfn.training import RewardTraining
from headstart.methods.oc_gfn.trajectories import Policy, Trajectories, backward_log_probs, masked_log_softmax, roll, uniform_policy

LESSONS = 200
"""Updates towards the converted policy, on states of uniform trajectories."""
LOG_Z_RATE = 0.1


class FullTuning(RewardTraining):
    """Training of a copy of the network. The lessons are given at once, when it is made; their outcomes are reward calls.

    Args:
        flow: the pre-trained network; only read.
    """

    def __init__(self, flow: ConditionalFlow, scores: Scores, config: AdaptConfig, seed: int = 0) -> None:
        super().__init__(scores, config, seed)
        self.network = copy.deepcopy(flow).requires_grad_(True)
        self.log_z = nn.Parameter(torch.zeros((), device=scores.device))
        self.parameters = [*self.network.trunk.parameters(), *self.network.head_pf.parameters()]
        groups = [{"params": self.parameters, "lr": config.learning_rate}, {"params": [self.log_z], "lr": LOG_Z_RATE}]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        converted = sampled_policy(self.environment, flow.requires_grad_(False), scores, Rng.at(seed, 0, self.rows[:1]))
        for number in range(LESSONS):
            self._counted("lesson", lambda number=number: self._lesson(converted, number))  # type: ignore[misc]

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        first: nn.Linear = self.network.trunk[0]  # type: ignore[assignment]
        return masked_log_softmax(self.network.head_pf(self.network.hidden(states, first.bias)), valid)  # y's part of the input is zero

    def layers(self) -> Layers:
        first, *others = [layer for layer in [*self.network.trunk, self.network.head_pf] if isinstance(layer, nn.Linear)]
        own = first.weight[:, : self.environment.encoding_size]
        return [(own, first.bias), *((layer.weight, layer.bias) for layer in others)]

    def _lesson(self, converted: Policy, number: int) -> float:
        environment = self.environment
        uniform = Rng.at(self.seed, number, self.rows).uniform("lesson", environment.max_steps, environment.n_actions)
        trajectories = roll(environment, uniform_policy, uniform)
        states = trajectories.states[:, :-1][trajectories.alive]
        valid = environment.valid(states)
        wanted = converted(states, valid).exp()
        return self._step(-(wanted * self.policy(states, valid)).sum(-1).mean())

    def learn(self, trajectories: Trajectories, rng: Rng | None, log_pf: Tensor | None = None) -> float:
        environment, leaving, ends = self.environment, trajectories.states[:, :-1], trajectories.done[:, 1:]
        if log_pf is None:
            log_pf = self.policy(leaving, environment.valid(leaving)).gather(-1, trajectories.actions[..., None])[..., 0]
        log_pb = backward_log_probs(environment, None, trajectories.states[:, 1:], ends, trajectories.actions)
        log_r = self.scores(trajectories.ends).clamp(min=REWARD_FLOOR).log()
        return self._step(trajectory_balance(self.log_z, log_pf, log_pb, log_r, trajectories.alive).mean())

    def _step(self, loss: Tensor) -> float:
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients([*self.parameters, self.log_z], self.config.clip_norm)
        self.optimizer.step()
        return float(loss.detach())
