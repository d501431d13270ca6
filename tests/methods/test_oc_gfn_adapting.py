"""Which outcomes an adaptation learns from, what its opponents are made of, and what every one of them pays: by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Dna
from headstart.data.environments.store import EnvironmentStore
from headstart.methods.oc_gfn.adapt import Adaptation, Adapter, Edges
from headstart.methods.oc_gfn.baselines import Chains, QLearning, QLearningConfig, Scratch, ScratchConfig
from headstart.methods.oc_gfn.config import AdaptConfig, OCGFNConfig
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.methods.oc_gfn.trajectories import roll, uniform_policy
from headstart.methods.oc_gfn.tune import FullTuning


def flow_of(environment: Environment) -> ConditionalFlow:
    torch.manual_seed(0)
    return OCGFN(OCGFNConfig(hidden_size=16), EnvironmentStore(Path(), {}, environment)).flow


def by_letters(objects: Tensor) -> Tensor:
    """1, and 3 for each first letter of the alphabet."""
    return (objects == 0).sum(-1) * 3.0 + 1.0


class Watched(Scores):
    """Keeps what it is asked for, known objects too."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment, by_letters)
        self.asked: list[Tensor] = []

    def __call__(self, objects: Tensor) -> Tensor:
        self.asked.append(objects)
        return super().__call__(objects)


def test_every_edge_learns_from_what_its_trajectory_reached_and_from_what_q_drew() -> None:
    """With batch 32, 8 edges and m 4 one update asks for up to 32 * 8 * 4 + 32 = 1,056 scores (the specification's figure)."""
    environment, scores = Dna(8), Watched(Dna(8))
    adaptation = Adaptation(flow_of(environment), scores, AdaptConfig(16, batch=32, outcomes=4))
    adaptation.advance()
    (asked,) = scores.asked
    assert asked.shape == (32 * 8, 4 + 1, 8)
    assert torch.equal(asked[:, 0].view(32, 8, 8), adaptation.built[:, None].expand(-1, 8, -1)), "in the order of rows and steps"
    prefix = torch.arange(8) <= torch.arange(8)[:, None]  # what the state after each step has: [steps, letters]
    kept = (asked.view(32, 8, 5, 8) == adaptation.built[:, None, None]) | ~prefix[:, None]
    assert bool(kept.all()), "Q draws what the state can still become"
    assert 32 * 7 * 4 / 2 < scores.distinct <= 1056


def test_q_draws_by_half_of_its_logits() -> None:
    environment, config = Dna(2), AdaptConfig(16)
    adapter = Adapter(environment, config)
    after = environment.step(environment.start(1), torch.tensor([2]))[0]
    one = torch.zeros(1, dtype=torch.int64)
    edges = Edges(environment.start(1), one + 2, after, torch.tensor([False]), after, one, one)
    with torch.no_grad():
        for layer in adapter.q.layers[::2]:
            layer.weight.mul_(3.0)  # farther from uniform
        logits = adapter.q(after, after)[0]  # type: ignore[arg-type]
    uniform = Rng.at(0, 0, torch.arange(1)).uniform("q", 20_000, 2)
    assert config.temperature == 2.0
    shares = torch.bincount(adapter.q.draw(edges, uniform, config.temperature)[0, :, 1], minlength=4) / 20_000
    torch.testing.assert_close(shares, (logits / 2).softmax(-1), rtol=0, atol=0.012)
    assert float((logits.softmax(-1) - (logits / 2).softmax(-1)).abs().max()) > 0.03, "or this test could not fail"


def test_old_objects_are_learned_from_by_what_was_reached_alone() -> None:
    """[log N + log Q - log r - log F - log P_F]^2 with y the end, edge by edge, and the mean over the edges."""
    environment, scores = Grid(4, edge_ends=False), Watched(Grid(4, edge_ends=False))
    flow = flow_of(environment)
    adaptation = Adaptation(flow, scores, AdaptConfig(16, batch=6))
    trajectories = roll(environment, uniform_policy, Rng.at(0, 0, torch.arange(6)).uniform("w", environment.max_steps, environment.n_actions))
    edges, terms = Edges.of(trajectories), []
    with torch.no_grad():
        for at in range(len(edges.states)):
            state, action, y = edges.states[at : at + 1], edges.actions[at], edges.ends[at : at + 1]
            log_pf, log_f = flow(state, y)
            log_q = adaptation.adapter.q.log_prob(Edges(*(getattr(edges, name)[at : at + 1] for name in vars(edges))), y[:, None])
            said = adaptation.adapter.numerators(state)[0, action] + log_q[0, 0]
            terms.append(float(said - by_letters(y).log()[0] - log_f[0] - log_pf[0, action]) ** 2)
    assert adaptation.learn(trajectories, None) == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert scores.asked[0].shape[:2] == (len(edges.states), 1)


def test_lessons_of_a_tuned_network_cost_64_outcomes() -> None:
    scores = Scores(Dna(8), by_letters)
    FullTuning(flow_of(Dna(8)), scores, AdaptConfig(16, batch=4))
    assert 60 <= scores.distinct <= 64


def test_a_network_from_scratch_is_the_specifications() -> None:
    config = ScratchConfig()
    assert (config.hidden_size, config.num_layers, config.batch, config.epsilon, config.weight, config.objective) == (256, 2, 32, 0.05, 0.9, "tb")
    by_tb, by_db = (Scratch(Scores(Dna(4), by_letters), ScratchConfig(objective=name)) for name in ("tb", "db"))  # type: ignore[arg-type]
    assert [group["lr"] for group in by_tb.optimizer.param_groups] == [1e-3, 0.1]
    assert float(by_tb.log_z.detach()) == 0.0
    assert [group["lr"] for group in by_db.optimizer.param_groups] == [1e-3], "there log F of the start is what log Z was"


def test_chains_on_a_grid_go_to_any_cell() -> None:
    grid = Grid(5, edge_ends=False)
    chains = Chains(Scores(grid, lambda objects: torch.ones(len(objects))), chains=400)
    proposed = chains.proposals(Rng.at(0, 1, chains.rows))
    assert len(set(map(tuple, proposed.tolist()))) == 25
    assert int((proposed - chains.objects).abs().sum(-1).max()) > 2


def test_q_learning_looks_ahead_without_discount_and_is_paid_at_the_end() -> None:
    environment = Dna(2)
    learner = QLearning(Scores(environment, by_letters), QLearningConfig(16, batch=4))
    assert (learner.config.epsilon, learner.config.tau, learner.config.memory) == (0.1, 0.01, 10_000)
    start, half = environment.start(1), environment.step(environment.start(1), torch.tensor([1]))[0]
    action, reward = torch.tensor([1]), torch.tensor([5.0])
    with torch.no_grad():
        of_start, of_half = (learner.network(environment.encode(state))[0, 1] for state in (start, half))
        best = learner.target(environment.encode(half)).max()
        for states, after, done, said, wanted in ((start, half, False, of_start, best), (half, half, True, of_half, reward[0])):
            loss = learner.loss(states, action, after, torch.tensor([done]), reward)
            torch.testing.assert_close(loss, torch.nn.functional.smooth_l1_loss(said, wanted))


def test_the_target_of_q_learning_follows_and_its_memory_forgets() -> None:
    environment = Dna(2)
    learner = QLearning(Scores(environment, by_letters), QLearningConfig(16, batch=4, memory=12, tau=0.5))
    before = [value.clone() for value in learner.target.parameters()]
    for _ in range(3):
        learner.advance()  # 8 transitions each
    assert len(learner.kept[0]) == 12
    assert all(not torch.equal(old, new) for old, new in zip(before, learner.target.parameters(), strict=True))
    apart = [float((own - other).detach().abs().max()) for own, other in zip(learner.network.parameters(), learner.target.parameters(), strict=True)]
    assert 0 < max(apart) < 0.01, "half of the way with every update"
