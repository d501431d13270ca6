"""The amortised predictor (Algorithm 2): two small networks learn, for one reward, what the conversion would have to sum over all outcomes.

    N(s'|s)     about sum_y r(y) F(s|y) P_F(s'|s, y); normalised over s' it is the policy for the reward
    Q(y|s', s)  which outcomes the sum consists of; only over those that s' can reach

The pre-trained network is frozen. Every outcome that Q draws is scored, so it costs a reward call like every object that the policy builds (`Scores`
counts both).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Words
from headstart.engine.optim import clip_gradients
from headstart.methods.oc_gfn.config import AdaptConfig
from headstart.methods.oc_gfn.network import ConditionalFlow, Numerators, mlp
from headstart.methods.oc_gfn.training import RewardTraining
from headstart.methods.oc_gfn.trajectories import INVALID, Trajectories

REWARD_FLOOR = 1e-8
"""log r of an object without reward."""
BELOW_ONE = 1 - 1e-6
"""A uniform number times this never reaches the end of a cumulative sum by rounding."""


@dataclass(frozen=True)
class Edges:
    """Transitions, one a row, with what was built in the end.

    Attributes:
        states, after: int64 [edges, state_size]. actions: int64 [edges]. done: bool [edges], of `after`.
        ends: int64 [edges, state_size].
        row, place: int64 [edges]: trajectory and step that it comes from.
    """

    states: Tensor
    actions: Tensor
    after: Tensor
    done: Tensor
    ends: Tensor
    row: Tensor
    place: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories) -> Edges:
        row, place = trajectories.alive.nonzero(as_tuple=True)
        states, done, actions = trajectories.states, trajectories.done, trajectories.actions
        return cls(states[row, place], actions[row, place], states[row, place + 1], done[row, place + 1], trajectories.ends[row], row, place)


class LetterQ(nn.Module):
    """Q of sequences, letter by letter: one network on (letters so far, s'), the same for every place. What s' has already is copied."""

    def __init__(self, environment: Words, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.environment = environment
        self.layers = mlp((2 * environment.encoding_size, *[hidden_size] * num_layers, environment.n_actions), last_linear=True)

    def forward(self, prefixes: Tensor, after: Tensor) -> Tensor:
        """float32 [..., actions]: logits of the next letter (or the end)."""
        return self.layers(torch.cat([self.environment.encode(prefixes), self.environment.encode(after)], -1)).float()

    @torch.no_grad()
    def draw(self, edges: Edges, uniform: Tensor, temperature: float) -> Tensor:
        """int64 [edges, m, state_size], of `uniform` [edges, m, state_size] in [0, 1)."""
        m = uniform.shape[1]
        after, done = edges.after.repeat_interleave(m, 0), edges.done.repeat_interleave(m)
        found, numbers = after.clone(), uniform.flatten(0, 1)
        begins = self.environment.filled(after)
        for place in range(self.environment.length):
            rows = (~done & (begins <= place)).nonzero()[:, 0]
            if not len(rows):
                continue
            letters = pick((self(found[rows], after[rows]) / temperature).softmax(-1), numbers[rows, place])
            found[rows, place] = letters
            if self.environment.ends:
                ended = letters == self.environment.n_actions - 1  # the number of 'empty'
                done = done.index_put((rows[ended],), torch.ones_like(ended[ended]))
        return found.view(-1, m, found.shape[-1])

    def log_prob(self, edges: Edges, outcomes: Tensor) -> Tensor:
        """float32 [edges, m] of outcomes int64 [edges, m, state_size]; all prefixes of all of them in one pass."""
        length = self.environment.length
        places = torch.arange(length, device=outcomes.device)
        last = self.environment.filled(outcomes)  # [edges, m]: where the end is said, if it is before the full length
        asked = (places >= self.environment.filled(edges.after)[:, None, None]) & (places <= last[..., None]) & ~edges.done[:, None, None]
        edge, which, place = asked.nonzero(as_tuple=True)
        whole = outcomes[edge, which]
        prefixes = torch.where(places < place[:, None], whole, self.environment.empty)
        terms = self(prefixes, edges.after[edge]).log_softmax(-1).gather(-1, whole.gather(-1, place[:, None]))[:, 0]
        at = edge * outcomes.shape[1] + which
        return torch.zeros(last.numel(), device=terms.device).index_add(0, at, terms).view(last.shape)


class TableQ(nn.Module):
    """Q where all outcomes can be listed: one logit each, from a network on (s, s')."""

    def __init__(self, environment: Environment, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.environment = environment
        objects = environment.objects()
        self.layers = mlp((2 * environment.encoding_size, *[hidden_size] * num_layers, len(objects)), last_linear=True)
        self.register_buffer("objects", objects, persistent=False)
        self.register_buffer("keys", environment.keys(objects), persistent=False)

    objects: Tensor
    keys: Tensor

    def forward(self, edges: Edges) -> Tensor:
        """float32 [edges, outcomes]: logits; of those that s' cannot reach -1e9."""
        logits = self.layers(torch.cat([self.environment.encode(edges.states), self.environment.encode(edges.after)], -1)).float()
        reached = self.environment.can_reach(edges.after[:, None], edges.done[:, None], self.objects[None])
        return logits.masked_fill(~reached, INVALID)

    @torch.no_grad()
    def draw(self, edges: Edges, uniform: Tensor, temperature: float) -> Tensor:
        chances = (self(edges) / temperature).softmax(-1)
        return self.objects[pick(chances[:, None], uniform[..., 0])]

    def log_prob(self, edges: Edges, outcomes: Tensor) -> Tensor:
        places = torch.searchsorted(self.keys, self.environment.keys(outcomes))
        return self(edges).log_softmax(-1).gather(-1, places)


def pick(chances: Tensor, uniform: Tensor) -> Tensor:
    """int64 [...]: the number that `uniform` [...] falls on, of chances [..., n]; never one of chance 0."""
    upto = chances.cumsum(-1)
    return (upto <= (uniform * BELOW_ONE)[..., None] * upto[..., -1:]).sum(-1)


class Adapter(nn.Module):
    """N and Q for one reward."""

    def __init__(self, environment: Environment, config: AdaptConfig) -> None:
        super().__init__()
        if not isinstance(environment, Words) and environment.n_objects is None:
            raise UsageError(f"{environment.name} neither lists its objects nor is a sequence: Q cannot draw them.", "Make it a subclass of Words.")
        self.environment = environment
        self.numerators = Numerators(environment, config.hidden_size, config.num_layers)
        letters = isinstance(environment, Words)
        self.q: LetterQ | TableQ = (LetterQ if letters else TableQ)(environment, config.hidden_size, config.num_layers)  # type: ignore[arg-type]

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        """The policy for the reward."""
        return self.numerators.policy(states, valid)

    def loss(self, flow: ConditionalFlow, edges: Edges, outcomes: Tensor, log_r: Tensor) -> Tensor:
        """Mean over edges and outcomes of [log N + log Q - log r - log F - log P_F]^2.

        Args:
            outcomes: int64 [edges, m, state_size], each one that `edges.after` can reach. log_r: float32 [edges, m].
        """
        log_n = self.numerators(edges.states).gather(-1, edges.actions[:, None])  # [edges, 1]
        log_q = self.q.log_prob(edges, outcomes)
        with torch.no_grad():
            log_pf, log_f = flow(edges.states[:, None].expand_as(outcomes), outcomes)
            log_pf = log_pf.gather(-1, edges.actions[:, None, None].expand(*log_f.shape, 1))[..., 0]
        return (log_n + log_q - log_r - log_f - log_pf).square().mean()


class Adaptation(RewardTraining):
    """Training of an `Adapter`.

    Args:
        flow: the pre-trained network; frozen here.
        scores: the reward, with its memory.
        seed: decides N's and Q's first weights and every draw.
    """

    def __init__(self, flow: ConditionalFlow, scores: Scores, config: AdaptConfig, seed: int = 0) -> None:
        super().__init__(scores, config, seed)
        self.flow = flow.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = Adapter(self.environment, config).to(scores.device)
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=config.learning_rate, fused=True)

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        return self.adapter.policy(states, valid)

    def learn(self, trajectories: Trajectories, rng: Rng | None, log_pf: Tensor | None = None) -> float:
        edges, config = Edges.of(trajectories), self.config
        outcomes = edges.ends[:, None]
        if rng is not None:
            numbers = rng.uniform("outcomes", self.environment.max_steps, config.outcomes, self.environment.state_size)
            outcomes = torch.cat([outcomes, self.adapter.q.draw(edges, numbers[edges.row, edges.place], config.temperature)], 1)
        log_r = self.scores(outcomes).clamp(min=REWARD_FLOOR).log()
        loss = self.adapter.loss(self.flow, edges, outcomes, log_r)
        self.optimizer.zero_grad()
        loss.backward()
        clip_gradients(self.adapter.parameters(), config.clip_norm)
        self.optimizer.step()
        return float(loss.detach())
