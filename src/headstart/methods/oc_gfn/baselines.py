"""What an adapted sampler is compared with: a flow network from scratch, Markov chains, Q-learning, and chance. All are paid through `Scores`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.core import products
from headstart.core.rng import Rng
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Words
from headstart.engine.flops import count_flops
from headstart.engine.optim import clip_gradients
from headstart.methods.oc_gfn.adapt import REWARD_FLOOR
from headstart.methods.oc_gfn.losses import detailed_balance, sub_trajectory_balance, trajectory_balance
from headstart.methods.oc_gfn.network import mlp
from headstart.methods.oc_gfn.scored import Layers
from headstart.methods.oc_gfn.training import RewardTraining
from headstart.methods.oc_gfn.trajectories import INVALID, Trajectories, backward_log_probs, is_small, masked_log_softmax, roll


@dataclass
class ScratchConfig:
    """A flow network that is trained on the reward from the beginning."""

    hidden_size: int = 256
    """Width of the hidden layers."""
    num_layers: int = 2
    """Hidden layers."""
    objective: Literal["tb", "db", "subtb"] = "tb"
    """Trajectory balance, detailed balance or sub-trajectory balance."""
    batch: int = 32
    """Trajectories of an update."""
    learning_rate: float = 1e-3
    """Adam's."""
    log_z_rate: float = 0.1
    """tb: the learning rate of log Z, which begins at 0."""
    epsilon: float = 0.05
    """Share of uniform actions."""
    weight: float = 0.9
    """subtb: lambda."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    replay: int = 0
    """Further updates for each, on objects that are scored already: they cost no call."""


class Scratch(RewardTraining):
    """Training of such a network."""

    def __init__(self, scores: Scores, config: ScratchConfig, seed: int = 0) -> None:
        super().__init__(scores, config, seed)
        environment, device = self.environment, scores.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = mlp((environment.encoding_size, *[config.hidden_size] * config.num_layers)).to(device)
            self.head_pf = products.Linear(config.hidden_size, environment.n_actions).to(device)
            self.head_logf = products.Linear(config.hidden_size, 1).to(device)
        self.log_z = nn.Parameter(torch.zeros((), device=device))
        parts = [self.trunk, self.head_pf] + ([] if config.objective == "tb" else [self.head_logf])
        self.parameters = [parameter for part in parts for parameter in part.parameters()]
        groups: list[dict[str, Any]] = [{"params": self.parameters, "lr": config.learning_rate}]
        if config.objective == "tb":
            groups.append({"params": [self.log_z], "lr": config.log_z_rate})
        self.optimizer = torch.optim.Adam(groups, fused=True)

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        return masked_log_softmax(self.head_pf(self.trunk(self.environment.encode(states))), valid)

    def layers(self) -> Layers | None:
        """None where the loss needs the flows of all states too."""
        if self.config.objective != "tb":
            return None
        return [(layer.weight, layer.bias) for layer in [*self.trunk, self.head_pf] if isinstance(layer, nn.Linear)]

    def hidden(self, states: Tensor) -> Tensor:
        """[batch, steps, hidden]: the trunk; where there are few states, each is computed once."""
        environment = self.environment
        if self._lazy and is_small(environment, states.shape[0] * states.shape[1]):
            return self.trunk(environment.encode(environment.every_state(states.device)))[environment.keys(states)]
        return self.trunk(environment.encode(states))

    def loss(self, trajectories: Trajectories, log_r: Tensor, log_pf: Tensor | None = None) -> Tensor:
        """float32 [batch]; `log_pf` where it is known from drawing."""
        environment, alive, ends = self.environment, trajectories.alive, trajectories.done[:, 1:]
        log_pb = backward_log_probs(environment, None, trajectories.states[:, 1:], ends, trajectories.actions)
        if log_pf is not None:
            return trajectory_balance(self.log_z, log_pf, log_pb, log_r, alive)
        leaving = trajectories.states[:, :-1]
        hidden = self.hidden(leaving)
        log_pf = masked_log_softmax(self.head_pf(hidden), environment.valid(leaving))
        log_pf = log_pf.gather(-1, trajectories.actions[..., None])[..., 0]
        if self.config.objective == "tb":
            return trajectory_balance(self.log_z, log_pf, log_pb, log_r, alive)
        log_f = self.head_logf(hidden).float()[..., 0]
        if self.config.objective == "db":
            return detailed_balance(log_f, log_pf, log_pb, log_r, alive, ends)
        return sub_trajectory_balance(log_f, log_pf, log_pb, log_r, alive, ends, self.config.weight)

    def learn(self, trajectories: Trajectories, rng: Rng | None, log_pf: Tensor | None = None) -> float:
        loss = self.loss(trajectories, self.scores(trajectories.ends).clamp(min=REWARD_FLOOR).log(), log_pf).mean()
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients([*self.parameters, self.log_z], self.config.clip_norm)
        self.optimizer.step()
        return float(loss.detach())


class Chains:
    """Metropolis: one chain a row, begun at random; a proposal changes one letter (on a grid: goes to any cell), accepted with min(1, r'/r).
    Proposals are scored, and count."""

    def __init__(self, scores: Scores, chains: int = 32, seed: int = 0) -> None:
        self.scores, self.seed, self.environment, self.step = scores, seed, scores.environment, 0
        self.rows = torch.arange(chains, device=scores.device)
        self.objects = self._random()
        self.rewards = scores(self.objects)

    def _random(self) -> Tensor:
        return self.environment.draw(Rng.at(self.seed, self.step, self.rows).uniform("start", self.environment.state_size + 1))

    def proposals(self, rng: Rng) -> Tensor:
        """int64 [chains, state_size]."""
        environment = self.environment
        if not isinstance(environment, Words):
            return environment.draw(rng.uniform("proposal", environment.state_size + 1))
        place = (rng.uniform("place")[:, None] * environment.filled(self.objects)[:, None]).long()
        return self.objects.scatter(-1, place, rng.integers("letter", len(environment.letters), 1))

    def advance(self) -> None:
        """One proposal in every chain."""
        rng = Rng.at(self.seed, self.step, self.rows)
        proposed = self.proposals(rng)
        rewards = self.scores(proposed)
        accepted = rng.uniform("accept") * self.rewards < rewards
        self.objects = torch.where(accepted[:, None], proposed, self.objects)
        self.rewards = torch.where(accepted, rewards, self.rewards)
        self.step += 1


class Chance:
    """Random objects: on 65,536 of them no small opponent."""

    def __init__(self, scores: Scores, batch: int = 32, seed: int = 0) -> None:
        self.scores, self.seed, self.step = scores, seed, 0
        self.rows = torch.arange(batch, device=scores.device)

    def advance(self) -> None:
        numbers = Rng.at(self.seed, self.step, self.rows).uniform("object", self.scores.environment.state_size + 1)
        self.scores(self.scores.environment.draw(numbers))
        self.step += 1


@dataclass
class QLearningConfig:
    """Q-learning with the reward at the end alone, and gamma 1."""

    hidden_size: int = 256
    """Width of the hidden layers."""
    num_layers: int = 2
    """Hidden layers."""
    batch: int = 32
    """Trajectories collected, and transitions learned from for each of their steps."""
    learning_rate: float = 1e-3
    """Adam's."""
    epsilon: float = 0.1
    """Share of uniform actions."""
    tau: float = 0.01
    """How far the target network follows with every update."""
    memory: int = 10_000
    """Transitions that are kept."""


class QLearning:
    """DQN (Mnih et al. 2015) on the environment: it looks for the best object, not for many good ones.

    Attributes:
        flops: of all updates so far, counted on the first.
    """

    def __init__(self, scores: Scores, config: QLearningConfig, seed: int = 0) -> None:
        self.scores, self.config, self.seed, self.environment, self.step = scores, config, seed, scores.environment, 0
        sizes = (self.environment.encoding_size, *[config.hidden_size] * config.num_layers, self.environment.n_actions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, self.target = mlp(sizes, last_linear=True).to(scores.device), mlp(sizes, last_linear=True).to(scores.device)
        self.target.load_state_dict(self.network.state_dict())
        self.target.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        self.rows = torch.arange(config.batch, device=scores.device)
        self.kept: tuple[Tensor, ...] = ()
        self.flops = self._cost = 0

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        """The best action; exploring is left to `roll`."""
        values = self.network(self.environment.encode(states)).masked_fill(~valid, INVALID)
        best = F.one_hot(values.argmax(-1), self.environment.n_actions)
        return torch.where(best.bool(), 0.0, INVALID)

    def advance(self) -> float:
        """Builds `batch` objects, and learns once for each step of theirs from transitions of the memory. Returns the last loss."""
        found: list[float] = []
        if self._cost:
            found.append(self._update())
        else:
            self._cost = count_flops(lambda: found.append(self._update()))
        self.flops += self._cost
        return found[0]

    def _update(self) -> float:
        environment, config = self.environment, self.config
        rng = Rng.at(self.seed, self.step, self.rows)
        built = roll(environment, self.policy, rng.uniform("policy", environment.max_steps, environment.n_actions), config.epsilon)
        row, place = built.alive.nonzero(as_tuple=True)
        rewards = self.scores(built.ends)
        ended = built.done[row, place + 1]
        new = (built.states[row, place], built.actions[row, place], built.states[row, place + 1], ended, torch.where(ended, rewards[row], 0.0))
        both = [torch.cat(pair) for pair in zip(self.kept, new, strict=True)] if self.kept else list(new)
        self.kept = tuple(part[-config.memory :] for part in both)
        loss = torch.zeros(())
        for number in range(environment.max_steps):
            chosen = rng.integers(f"memory {number}", len(self.kept[0]))
            loss = self.loss(*(part[chosen] for part in self.kept))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                for ours, theirs in zip(self.target.parameters(), self.network.parameters(), strict=True):
                    ours.lerp_(theirs, config.tau)
        self.step += 1
        return float(loss.detach())

    def loss(self, states: Tensor, actions: Tensor, after: Tensor, done: Tensor, rewards: Tensor) -> Tensor:
        values = self.network(self.environment.encode(states)).gather(-1, actions[:, None])[:, 0]
        with torch.no_grad():
            best = self.target(self.environment.encode(after)).masked_fill(~self.environment.valid(after), INVALID).amax(-1)
        return F.smooth_l1_loss(values, torch.where(done, rewards, best))
