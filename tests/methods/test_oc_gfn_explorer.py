"""Where outcomes come from, by hand: the exploring network, its novelty and its loss; and what the presets say beside the specification's table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.sequences import Dna
from headstart.data.environments.store import EnvironmentStore
from headstart.engine.method import Context
from headstart.methods.oc_gfn.config import PRESETS, OCGFNConfig
from headstart.methods.oc_gfn.losses import detailed_balance, outcome_teleportation
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.network import Explorer
from headstart.methods.oc_gfn.trajectories import Trajectories, masked_log_softmax, roll, uniform_policy


def method_of(environment: Environment, **settings: object) -> OCGFN:
    torch.manual_seed(0)
    return OCGFN(OCGFNConfig(**{"hidden_size": 16, **settings}), EnvironmentStore(Path(), {}, environment))  # type: ignore[arg-type]


def context(step: int = 0, rows: int = 12) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def explored(method: OCGFN, rows: int = 12) -> Trajectories:
    """Random trajectories, of several lengths on a grid."""
    environment = method.environment
    return roll(environment, uniform_policy, Rng.at(3, 0, torch.arange(rows)).uniform("w", environment.max_steps, environment.n_actions))


def widths(network: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_its_networks_have_the_published_sizes() -> None:
    grid, words = Explorer(Grid(8), 256, 2), Explorer(Dna(8), 256, 2)
    assert widths(grid.trunk) == [(16, 256), (256, 256)]
    assert widths(grid.predictor) == [(16, 256), (256, 256), (256, 128)]
    assert [tuple(value.shape) for value in grid.fixed.buffers()][::2] == [(256, 16), (256, 256), (128, 256)]
    assert {layer.negative_slope for layer in grid.modules() if isinstance(layer, nn.LeakyReLU)} == {0.01}
    assert grid.head_pb is not None
    assert words.head_pb is None, "letters have one parent"
    assert float(grid.log_z.detach()) == 0.0
    assert not any("fixed" in name for name, _ in grid.named_parameters())


@pytest.mark.parametrize(("side", "eta"), [(8, 0.005), (16, 0.005), (32, 0.001), (64, 0.005), (128, 0.001), (20, 0.005)])
def test_novelty_weighs_what_it_weighs_in_the_published_code(side: int, eta: float) -> None:
    assert method_of(Grid(side)).novelty == eta
    assert method_of(Grid(side), novelty=0.2).novelty == 0.2


def test_of_strings_novelty_weighs_as_on_other_grids() -> None:
    assert method_of(Dna(4)).novelty == 0.005


@pytest.mark.parametrize("environment", [Grid(4), Grid(4, edge_ends=False), Dna(3)], ids=["edge ends", "hypergrid", "words"])
def test_its_loss_is_that_of_the_published_code(environment: Environment) -> None:
    """State by state in plain Python: log Z + sum log P_F - log(R + 1e-8) - sum over all edges but the last of log(P_B + r_i / F) - log P_B of the
    last, squared; R is the novelty of the end, for there is no other reward."""
    method = method_of(environment, novelty=0.3)
    explorer, trajectories = method.explorer, explored(method)
    assert explorer is not None
    with torch.no_grad():
        explorer.log_z.fill_(0.7)
        found, surprise = method.explorer_losses(trajectories)
        losses, surprises = [], []
        for row in range(len(trajectories.actions)):
            length = int(trajectories.alive[row].sum())
            states, done, actions = trajectories.states[row], trajectories.done[row], trajectories.actions[row]
            total, of_row = 0.7, []
            for t in range(length):
                here, after = explorer.trunk(environment.encode(states[t])), explorer.trunk(environment.encode(states[t + 1]))
                total += float(masked_log_softmax(explorer.head_pf(here), environment.valid(states[t]))[actions[t]])
                log_pb = 0.0
                if explorer.head_pb is not None:
                    log_pb = float(masked_log_softmax(explorer.head_pb(after), environment.parents(states[t + 1], done[t + 1]))[actions[t]])
                of_row.append(float(explorer.surprise(states[t + 1])))
                widened = math.exp(log_pb) + 0.3 * of_row[-1] / math.exp(float(explorer.head_logf(after)))
                total -= log_pb if t == length - 1 else math.log(widened)
            losses.append((total - math.log(0.3 * of_row[-1] + 1e-8)) ** 2)
            surprises.append(sum(of_row) / length)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert float(surprise) == pytest.approx(sum(surprises) / len(surprises), rel=1e-5), "without eta"


def test_novelty_trains_its_predictor_and_nothing_else() -> None:
    method = method_of(Grid(5))
    explorer = method.explorer
    assert explorer is not None

    def reached(loss: Tensor) -> set[str]:
        method.zero_grad()
        loss.backward()
        return {name.partition(".")[0] for name, value in explorer.named_parameters() if value.grad is not None and bool((value.grad != 0).any())}

    balance, surprise = method.explorer_losses(explored(method))
    assert reached(surprise) == {"predictor"}
    balance, _ = method.explorer_losses(explored(method))
    assert reached(balance) == {"trunk", "head_pf", "head_pb", "head_logf", "log_z"}, "in its own loss novelty is a constant"


def test_novelty_is_a_distance_and_not_its_square() -> None:
    method = method_of(Dna(3))
    explorer = method.explorer
    assert explorer is not None
    states = explored(method).states[:, 1]
    with torch.no_grad():
        before = explorer.surprise(states)
        last = [layer for layer in explorer.predictor if isinstance(layer, nn.Linear)][-1]
        for value in (last.weight, last.bias):
            value.mul_(2.0)
        for name in ("4_weight", "4_bias"):
            getattr(explorer.fixed, name).mul_(2.0)
        torch.testing.assert_close(explorer.surprise(states), 2 * before)


def test_random_actions_of_attempts_can_fall_to_none_over_the_first_half() -> None:
    steady, falling = method_of(Dna(3), epsilon=0.4), method_of(Dna(3), epsilon=0.4, anneal_epsilon=True)
    assert [float(steady.epsilon(context(step))) for step in (0, 25, 50, 99)] == [0.4] * 4
    assert [float(falling.epsilon(context(step))) for step in (0, 25, 50, 99)] == pytest.approx([0.4, 0.2, 0.0, 0.0])


def test_a_learned_backward_policy_is_over_the_parents() -> None:
    """In the loss of the flow: its logits of the entered state and the outcome, normalised over the actions that lead there."""
    method = method_of(Grid(4, edge_ends=False), backward="learned")
    environment, flow, trajectories = method.environment, method.flow, explored(method)
    assert flow.head_pb is not None
    outcomes, total = trajectories.ends, []
    with torch.no_grad():
        found = method.flow_losses(trajectories, outcomes, torch.full((len(outcomes),), -2.0))
        for row in range(len(outcomes)):
            y, of_row = outcomes[row], 0.0
            for t in range(int(trajectories.alive[row].sum())):
                state, after, action = trajectories.states[row, t], trajectories.states[row, t + 1], trajectories.actions[row, t]
                log_pf, log_f = flow(state, y)
                ended = bool(trajectories.done[row, t + 1])
                into = 0.0 if ended else float(flow(after, y)[1])
                logits = flow.head_pb(flow.hidden(after, flow.condition(y)))
                parents = environment.parents(after, trajectories.done[row, t + 1])
                log_pb = float(logits[parents].log_softmax(-1)[int(parents[: int(action)].sum())])
                assert (log_pb == 0.0) == (int(parents.sum()) == 1), "stopping has one parent"
                of_row += (float(log_f) + float(log_pf[action]) - into - log_pb + 2.0) ** 2
            total.append(of_row)
    assert found.tolist() == pytest.approx(total, rel=1e-4)


def test_the_reward_enters_every_transition_or_the_last_alone() -> None:
    """Two transitions by hand, R = e^-2. Detailed balance: (.3 - .7 + .2 + .1)^2 + (-.2 - .5 + 2)^2; with teleportation the 2 is in the first as
    well, and log F of the end is 0."""
    log_f, log_pf, log_pb = torch.tensor([[0.3, -0.2]]), torch.tensor([[-0.7, -0.5]]), torch.tensor([[-0.1, 0.0]])
    given = (log_f, log_pf, log_pb, torch.tensor([-2.0]), torch.ones(1, 2, dtype=torch.bool), torch.tensor([[False, True]]))
    assert float(detailed_balance(*given)) == pytest.approx(0.1**2 + 1.3**2)
    assert float(outcome_teleportation(*given)) == pytest.approx(1.9**2 + 1.3**2)


@pytest.mark.parametrize(
    ("name", "width", "batch", "rate", "log_z", "steps"),
    [
        ("grid", 256, 16, 1e-3, 0.1, 20_000),
        ("bits", 512, 32, 1e-3, 0.1, 50_000),
        ("tfbind8", 256, 32, 1e-3, 0.1, 10_000),
        ("rna", 512, 32, 5e-4, 0.1, 30_000),
        ("amp", 1024, 32, 1e-4, 5e-3, 50_000),
    ],
)
def test_presets_are_the_specifications_columns(name: str, width: int, batch: int, rate: float, log_z: float, steps: int) -> None:
    """The exploring networks learn at 1e-3 in all of them."""
    preset = PRESETS[name]
    config: OCGFNConfig = preset.method
    assert (config.hidden_size, config.num_layers, preset.batch, preset.steps) == (width, 2, batch, steps)
    assert preset.optimizer["learning_rate"] == rate
    assert preset.optimizer["clip_norm"] == 10.0
    assert rate * config.explorer_rate == pytest.approx(1e-3)
    assert rate * config.log_z_rate == pytest.approx(log_z)
    assert (config.epsilon, config.fail_floor, config.objective, config.contrastive, config.explore) == (0.0, 1e-4, "ot", True, "gafn")
