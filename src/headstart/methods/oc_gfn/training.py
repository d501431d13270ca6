"""What trainings on a reward share: new objects from the own policy, old ones again for nothing, and FLOPs counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.data.environments.scores import Scores
from headstart.engine.flops import count_flops
from headstart.methods.oc_gfn.scored import Layers, roll_scored
from headstart.methods.oc_gfn.trajectories import Trajectories, roll, ways_to


class RewardTraining:
    """A training, update by update. A subclass has a `policy`, and `learn`s from trajectories.

    Args:
        scores: the reward, with its memory.
        config: has `batch`, `epsilon` and `replay`.
        seed: of every draw.

    Attributes:
        step: updates on new objects so far.
        built: int64 [batch, state_size], what the last update on new objects built (not what else it scored).
        flops: of all updates so far, counted on the first of each kind, every state of every trajectory computed. On a CPU each state is computed
            once where there are few, and steps after the last end not at all: that is speed, and no part of the count.
    """

    def __init__(self, scores: Scores, config: Any, seed: int) -> None:
        self.scores, self.config, self.seed, self.environment = scores, config, seed, scores.environment
        self.rows = torch.arange(config.batch, device=scores.device)
        self.step, self.flops = 0, 0
        self.built = torch.zeros(0, self.environment.state_size, dtype=torch.int64, device=scores.device)
        self._again = 0  # updates on old objects since the last one on new ones
        self._cost: dict[str, int] = {}
        self._lazy = False  # while FLOPs are counted every row is computed: what a CPU may save is no part of them

    def layers(self) -> Layers | None:
        """The policy as a network on one-hot states, where an update learns through the answers that its objects were drawn with; None elsewhere."""
        return None

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        """float32 [batch, actions]: log-probabilities for the reward."""
        raise NotImplementedError

    def learn(self, trajectories: Trajectories, rng: Rng | None, log_pf: Tensor | None = None) -> float:
        """One update; returns its loss.

        Args:
            rng: without it nothing new may be scored.
            log_pf: float32 [batch, max_steps] of the policy as it is, with gradients; of new objects, where there are `layers`.
        """
        raise NotImplementedError

    def advance(self) -> float:
        """One update on new objects, and `replay` ones on old ones. Returns the loss of the first."""
        loss = self._counted("new", self._new)
        self.step += 1
        self._again = 0
        for _ in range(self.config.replay):
            self.relearn()
        return loss

    def relearn(self) -> float:
        """One update on objects that are scored already, drawn uniformly: it costs no call. Returns the loss."""
        self._again += 1
        return self._counted("old", self._old)

    def _new(self) -> float:
        rng = Rng.at(self.seed, self.step, self.rows)
        uniform = rng.uniform("policy", self.environment.max_steps, self.environment.n_actions)
        trajectories, log_pf = self._drawn(uniform)
        self.built = trajectories.ends
        return self.learn(trajectories, rng, log_pf)

    def _drawn(self, uniform: Tensor) -> tuple[Trajectories, Tensor | None]:
        """New objects; their log-probabilities where the update learns through them."""
        how, layers = (uniform, self.config.epsilon, self._lazy), self.layers()
        return (roll(self.environment, self.policy, *how), None) if layers is None else roll_scored(self.environment, layers, *how)

    def _old(self) -> float:
        rng, (objects, _) = Rng.at(self.seed, self.step, self.rows), self.scores.seen()
        chosen = objects[rng.integers(f"object {self._again}", len(objects))]
        uniform = rng.uniform(f"way {self._again}", self.environment.max_steps, self.environment.n_actions)
        return self.learn(ways_to(self.environment, chosen, uniform), None)

    def _counted(self, kind: str, update: Callable[[], float]) -> float:
        """Runs an update; its FLOPs are counted once for each kind."""
        found: list[float] = []
        if kind not in self._cost:
            self._cost[kind] = count_flops(lambda: found.append(update()))
        else:
            self._lazy = self.rows.device.type == "cpu"
            found.append(update())
            self._lazy = False
        self.flops += self._cost[kind]
        return found[0]


def run_until(advance: Callable[[], object], scores: Scores, calls: int, patience: int = 200) -> int:
    """Calls `advance` until so many distinct objects are scored, or `patience` calls in a row score nothing new. Returns how often it was called."""
    count = idle = 0
    while scores.distinct < calls and idle < patience:
        before = scores.distinct
        advance()
        count += 1
        idle = 0 if scores.distinct > before else idle + 1
    return count
