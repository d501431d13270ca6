"""The numbered checks of the specification of OC-GFN (../shared/papers/oc_gfn.md)."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import RnaBinding, TFBind8, corners, read_targets
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Bits, Dna
from headstart.data.environments.store import EnvironmentStore
from headstart.engine.method import Context
from headstart.methods.oc_gfn.adapt import Adaptation, AdaptConfig, Adapter, Edges
from headstart.methods.oc_gfn.config import OCGFNConfig
from headstart.methods.oc_gfn.conversion import exact_policy, normalised, numerators
from headstart.methods.oc_gfn.exact import end_distribution, l1
from headstart.methods.oc_gfn.losses import augmented_trajectory_balance, detailed_balance, outcome_teleportation, trajectory_balance
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.trajectories import Trajectories, masked_log_softmax, roll, ways_to
from headstart.verbs.adapt import adapt
from headstart.verbs.pretrain import pretrain
from tests.running import lacks, records

LOG_ZERO = -60.0
"""log F of a pair that cannot be reached, in the exact tables: as good as 0."""
ALIVE = torch.ones(1, 1, dtype=torch.bool)
SHARED = Path(os.environ.get("HEADSTART_DATA", Path(__file__).parents[3] / "shared" / "data")) / "tfbind8"
with_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data of TF-Bind-8")


def exact_tree(states: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor]:
    """The perfect OC-GFN of a tree of bits: F = 1 for prefixes of y, else 0; P_F copies the next bit of y."""
    prefix = ((states == outcomes) | (states == 2)).all(-1)
    place = (states != 2).sum(-1, keepdim=True)
    bit = outcomes.gather(-1, place)
    log_pf = torch.where(torch.arange(2) == bit, 0.0, LOG_ZERO)
    return log_pf, torch.where(prefix, 0.0, LOG_ZERO)


def exact_grid(grid: Grid, unreachable: tuple[float, float] | None = None) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The perfect OC-GFN of a grid without ending edges and with uniform P_B, by F(s) = sum over s' of F(s') P_B(s|s').

    Args:
        unreachable: (log F, log P_F) written into pairs that cannot be reached; None: 0 and no flow.
    """

    def flow(cell: tuple[int, ...], y: tuple[int, ...]) -> float:
        if cell == y:
            return 1.0
        total = 0.0
        for d in range(len(cell)):
            after = tuple(c + (i == d) for i, c in enumerate(cell))
            if all(a <= b for a, b in zip(after, y, strict=True)):
                total += flow(after, y) / sum(c > 0 for c in after)
        return total

    def conditional(states: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor]:
        log_pf, log_f = [], []
        for cell, y in zip(map(tuple, states.tolist()), map(tuple, outcomes.tolist()), strict=True):
            here = flow(cell, y) if all(a <= b for a, b in zip(cell, y, strict=True)) else 0.0
            if here == 0.0:
                log_f.append(LOG_ZERO if unreachable is None else unreachable[0])
                log_pf.append([LOG_ZERO if unreachable is None else unreachable[1]] * 3)
                continue
            moves = []
            for d in range(2):
                after = tuple(c + (i == d) for i, c in enumerate(cell))
                ok = all(a <= b for a, b in zip(after, y, strict=True))
                moves.append(flow(after, y) / sum(c > 0 for c in after) / here if ok else 0.0)
            moves.append(1.0 if cell == y else 0.0)
            log_pf.append([math.log(p) if p else (LOG_ZERO if unreachable is None else unreachable[1]) for p in moves])
            log_f.append(math.log(here))
        return torch.tensor(log_pf), torch.tensor(log_f)

    return conditional


def table_reward(environment: Environment, values: dict[str, float]) -> Callable[[Tensor], Tensor]:
    return lambda objects: torch.tensor([values.get(text, 0.0) for text in environment.to_text(objects)])


TREE = Bits(2, 1)
TREE_REWARD = table_reward(TREE, {"00": 1.0, "01": 2.0, "10": 3.0, "11": 4.0})
GRID = Grid(3, 2, edge_ends=False)
GRID_REWARD = table_reward(GRID, {"2,1": 2.0, "0,0": 1.0, "1,1": 1.0})


def chances(policy: Callable[[Tensor, Tensor], Tensor], environment: Environment, state: list[int]) -> list[float]:
    states = torch.tensor([state])
    return policy(states, environment.valid(states)).exp()[0].tolist()


def test_01_an_exact_flow_converts_to_the_reward() -> None:
    policy = exact_policy(TREE, exact_tree, TREE_REWARD)
    assert chances(policy, TREE, [2, 2])[0] == pytest.approx(0.3, abs=1e-6)
    assert chances(policy, TREE, [0, 2])[1] == pytest.approx(2 / 3, abs=1e-6)
    assert end_distribution(TREE, policy).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)


def test_02_the_exact_flow_of_a_grid() -> None:
    """That these are the flows, and not only our table's, the loss says: it is 0 on every trajectory to y."""
    conditional, y = exact_grid(GRID), torch.tensor([[2, 1]])
    flows = {(0, 0): 1.0, (1, 0): 0.75, (0, 1): 0.25, (1, 1): 0.5, (2, 0): 0.5, (2, 1): 1.0}
    for cell, flow in flows.items():
        log_pf, log_f = conditional(torch.tensor([cell]), y)
        assert float(log_f.exp()) == pytest.approx(flow, abs=1e-6)
        assert float(log_pf[0, 2].exp()) == pytest.approx(1.0 if cell == (2, 1) else 0.0, abs=1e-6)
    assert float(conditional(torch.tensor([[0, 0]]), y)[0][0, 0].exp()) == pytest.approx(0.75, abs=1e-6)
    assert float(conditional(torch.tensor([[1, 0]]), y)[0][0, 0].exp()) == pytest.approx(2 / 3, abs=1e-4)
    ways = ways_to(GRID, y.expand(32, -1), Rng.at(0, 0, torch.arange(32)).uniform("way", GRID.max_steps, 3))
    assert len({tuple(way.flatten().tolist()) for way in ways.states}) == 3
    log_pf, log_f = conditional(ways.states[:, :-1].flatten(0, 1), y.expand(32 * GRID.max_steps, -1))
    log_pf = log_pf.view(32, -1, 3).gather(-1, ways.actions[..., None])[..., 0]
    log_pb = -GRID.parents(ways.states[:, 1:], ways.done[:, 1:]).sum(-1).float().log()
    loss = outcome_teleportation(log_f.view(32, -1), log_pf, log_pb, torch.zeros(32), ways.alive, ways.done[:, 1:])
    assert float(loss.max()) < 1e-9


def test_03_the_numerators_of_a_grid() -> None:
    outcomes = GRID.objects()
    found = numerators(GRID, exact_grid(GRID), torch.tensor([[0, 0], [1, 1]]), outcomes, GRID_REWARD(outcomes).log()).exp()
    assert found[0].tolist() == pytest.approx([2.0, 1.0, 1.0], abs=1e-5)
    assert float(found[0].sum()) == pytest.approx(4.0, abs=1e-5)
    assert found[1].tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-5)
    policy = exact_policy(GRID, exact_grid(GRID), GRID_REWARD)
    assert chances(policy, GRID, [0, 0]) == pytest.approx([0.5, 0.25, 0.25], abs=1e-6)
    assert_ends(policy)


def assert_ends(policy: Callable[[Tensor, Tensor], Tensor]) -> None:
    ends = dict(zip(GRID.to_text(GRID.objects()), end_distribution(GRID, policy).tolist(), strict=True))
    assert [ends["2,1"], ends["0,0"], ends["1,1"]] == pytest.approx([0.5, 0.25, 0.25], abs=1e-6)


def test_04_successes_alone_are_not_enough() -> None:
    """P_F = 1/2 and F(s_t) = 2^(T - t) as a table: no loss and no gradient on successes, so a masked failure leaves it there; a floor does not."""
    depth = 3
    log_half = torch.full((1, depth), math.log(0.5), requires_grad=True)
    log_f = ((depth - torch.arange(depth)) * math.log(2.0))[None].requires_grad_()
    alive, ends = torch.ones(1, depth, dtype=torch.bool), torch.arange(depth)[None] == depth - 1
    success = outcome_teleportation(log_f, log_half, torch.zeros(1, depth), torch.zeros(1), alive, ends)
    gradients = torch.autograd.grad(success.sum(), [log_half, log_f])
    assert float(success.detach()) < 1e-12
    assert all(float(gradient.abs().max()) < 1e-6 for gradient in gradients)
    failure = outcome_teleportation(log_f, log_half, torch.zeros(1, depth), torch.tensor([1e-4]).log(), alive, ends)
    assert float(failure.detach()) == pytest.approx(254.49, abs=0.01)
    assert all(float(gradient.abs().max()) > 1 for gradient in torch.autograd.grad(failure.sum(), [log_half, log_f]))


def test_04_a_masked_failure_gives_no_gradient() -> None:
    """With `mask_fail` an attempt that misses adds nothing to the loss of the method."""
    masked, plain = (method_of(Bits(6, 1), hidden_size=16, explore="uniform", mask_fail=mask) for mask in (True, False))
    batch = masked.collect({"trajectory": torch.arange(16)}, context())
    missed = ~(batch["attempt_states"][:, -1] == batch["success_states"][:, -1]).all(-1)
    assert bool(missed.all())
    plain.load_state_dict(masked.state_dict())
    success = Trajectories.of(batch, "success")
    alone = plain.flow_losses(success, success.ends, torch.zeros(16)).mean() / 2
    ours, theirs = (float(method.score(batch, context())["loss"].detach()) for method in (masked, plain))
    assert ours == pytest.approx(float(alone.detach()), rel=1e-5)
    assert theirs > 10 * ours


@pytest.mark.parametrize(("log_r", "expected"), [(0.0, 0.25), (math.log(1e-4), 75.87003), (math.log(1e-8), 321.1508)])
def test_05_one_transition(log_r: float, expected: float) -> None:
    """log F(s) = -0.2, log P_F = -0.7, log F(s') = 0.1, log P_B = -0.5."""
    log_f = torch.tensor([[-0.2, 0.1]])
    alive, ends = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    found = outcome_teleportation(log_f, torch.tensor([[-0.7, 9.0]]), torch.tensor([[-0.5, 9.0]]), torch.tensor([log_r]), alive, ends)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_06_a_success_is_detailed_balance() -> None:
    generator = torch.Generator().manual_seed(0)
    log_f, log_pf, log_pb = (torch.randn(5, 7, generator=generator) for _ in range(3))
    length = torch.randint(1, 8, (5, 1), generator=generator)
    alive, ends = torch.arange(7) < length, torch.arange(7) >= length - 1
    ours = outcome_teleportation(log_f, log_pf, log_pb, torch.zeros(5), alive, ends)
    torch.testing.assert_close(ours, detailed_balance(log_f, log_pf, log_pb, torch.zeros(5), alive, ends), rtol=0, atol=1e-6)
    failed = outcome_teleportation(log_f, log_pf, log_pb, torch.full((5,), -2.0), alive, ends)
    assert float((failed - detailed_balance(log_f, log_pf, log_pb, torch.full((5,), -2.0), alive, ends)).abs().max()) > 1


def test_07_the_exploring_network_is_paid_on_every_edge_but_the_last() -> None:
    log_pf, log_pb = torch.tensor([[-0.7, -0.5, -0.3]]), torch.tensor([[0.5, 1.0, 1.0]]).log()
    alive, ends = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[False, False, True]])
    log_f, novelty = torch.tensor([[2.0, 4.0, 99.0]]).log(), torch.tensor([[0.2, 0.1, 0.7]])
    found = augmented_trajectory_balance(torch.tensor(1.0), log_pf, log_pb, log_f, novelty, torch.tensor([0.35]), alive, ends)
    assert float(found) == pytest.approx(1.073203, abs=1e-5)
    assert float(found.sqrt()) == pytest.approx(1.035955, abs=1e-6)
    without = augmented_trajectory_balance(torch.tensor(1.0), log_pf, log_pb, log_f, torch.zeros(1, 3), torch.tensor([0.35]), alive, ends)
    plain = trajectory_balance(torch.tensor(1.0), log_pf, log_pb, (torch.tensor([0.35]) + 1e-8).log(), alive)
    assert float(without) == pytest.approx(float(plain), abs=1e-6)


class Constant(torch.nn.Module):
    """A network that says the same of everything."""

    def __init__(self, said: list[float]) -> None:
        super().__init__()
        self.said = torch.tensor(said)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.said.expand(*inputs.shape[:-1], -1)


def test_08_the_amortised_loss_is_zero_at_the_solution() -> None:
    """N(0|root) = 3 = 1 + 2 and Q(00|0, root) = 1/3; N(1|root) = 7 and Q(10|1, root) = 3/7."""
    for bit, total, shares in ((0, 3.0, [1 / 3, 2 / 3]), (1, 7.0, [3 / 7, 4 / 7])):
        adapter = Adapter(TREE, AdaptConfig(hidden_size=8))
        adapter.numerators.layers = Constant([math.log(3.0), math.log(7.0)])  # type: ignore[assignment]
        adapter.q.layers = Constant([math.log(share) for share in shares])  # type: ignore[assignment]
        outcomes = torch.tensor([[[bit, 0], [bit, 1]]])
        one = torch.tensor([0])
        edges = Edges(torch.tensor([[2, 2]]), torch.tensor([bit]), torch.tensor([[bit, 2]]), torch.tensor([False]), outcomes[:, 0], one, one)
        loss = adapter.loss(exact_tree, edges, outcomes, TREE_REWARD(outcomes[0])[None].log())  # type: ignore[arg-type]
        assert float(loss) < 1e-10
        adapter.numerators.layers = Constant([math.log(total) + 0.1] * 2)  # type: ignore[assignment]
        assert float(adapter.loss(exact_tree, edges, outcomes, TREE_REWARD(outcomes[0])[None].log())) == pytest.approx(0.01, rel=1e-3)  # type: ignore[arg-type]


def test_09_the_pretrained_network_stays_as_it_is_while_adapting() -> None:
    environment = Dna(4)
    method = method_of(environment, hidden_size=16)
    scores = Scores(environment, lambda objects: (objects == 0).sum(-1) + 1.0)
    before = {name: value.clone() for name, value in method.flow.state_dict().items()}
    adaptation = Adaptation(method.flow, scores, AdaptConfig(hidden_size=16, batch=8, outcomes=2, replay=1))
    first = {name: value.clone() for name, value in adaptation.adapter.state_dict().items()}
    for _ in range(3):
        adaptation.advance()
    assert all(torch.equal(value, before[name]) for name, value in method.flow.state_dict().items())
    assert all(parameter.grad is None for parameter in method.flow.parameters())
    assert any(not torch.equal(value, first[name]) for name, value in adaptation.adapter.state_dict().items())
    assert scores.distinct > 0


COUNTED = """
from pathlib import Path

def score(texts):
    with open(Path(__file__).with_name("asked"), "a") as file:
        file.writelines(f"{text}\\n" for text in texts)
    return [1.0 + text.count("egg") for text in texts]
"""


@pytest.mark.slow
def test_09_no_reward_is_asked_for_while_pretraining(tmp_path: Path) -> None:
    """The file that is pre-trained on has a reward too, and writes down whatever it is asked: nothing, until it is adapted to."""
    baskets = Path(__file__).parents[2] / "examples" / "baskets.py"
    (tmp_path / "counted.py").write_text(baskets.read_text() + COUNTED)
    settings = {"batch": 8, "device": "cpu", "precision": "fp32", "method.hidden_size": 16, "budget.steps": 4}
    often = {"trainer.log_every": 1, "trainer.evaluate_every": 2, "trainer.evaluate_rows": 8}
    run = pretrain("oc_gfn", tmp_path / "counted.py", out=tmp_path / "run", say=lambda line: None, **settings, **often).folder
    assert records(run, "probes")
    assert records(run, "samples")
    assert not (tmp_path / "asked").exists()
    more = {"calls": 20, "baseline": False, "device": "cpu", "out": tmp_path / "adapted", "adapter.batch": 4}
    found = adapt(run, reward=f"{tmp_path / 'counted.py'}:score", say=lambda line: None, **more)["arms"][0]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == found["calls"] + found["more"] >= 20
    assert len(set(asked)) == len(asked), "each object once"


@pytest.mark.parametrize(("side", "total", "cells"), [(8, 16.064, (48, 12, 4)), (16, 50.256, (192, 55, 9))])
def test_10_the_corners_reward(side: int, total: float, cells: tuple[int, int, int]) -> None:
    grid = Grid(side, edge_ends=False)
    r = corners(grid)(grid.objects())
    assert float(r.double().sum()) == pytest.approx(total, abs=1e-4)
    assert tuple(int((r.sub(value).abs() < 1e-6).sum()) for value in (0.001, 0.501, 2.501)) == cells


@with_data
def test_11_the_table_of_tf_bind_8() -> None:
    table, environment = TFBind8.read(SHARED / "tfbind8.npz"), Dna()
    six6 = table.y[0]
    assert table.names[0] == "SIX6_REF_R1"
    words = dict(zip(environment.to_text(environment.objects()), six6, strict=True))
    assert words["AAAAAAAA"] == pytest.approx(0.524750, abs=1e-6)
    assert words["GATATCAA"] == pytest.approx(0.993506, abs=1e-6)
    complement = str.maketrans("ACGT", "TGCA")
    assert all(words[word] == words[word.translate(complement)[::-1]] for word in words)
    assert six6.mean() == pytest.approx(0.46377, abs=1e-5)
    assert (six6**3).sum() == pytest.approx(9504.9, abs=0.05)
    assert (six6**3 @ six6) / (six6**3).sum() == pytest.approx(0.6473, abs=5e-5)
    assert (six6**8 @ six6) / (six6**8).sum() == pytest.approx(0.8191, abs=5e-5)
    r = table.reward(0)(environment.objects())
    np.testing.assert_allclose(r.numpy(), np.maximum(six6**3, 1e-3), rtol=1e-6)


@with_data
def test_12_modes_are_counted_on_both_strands() -> None:
    table = TFBind8.read(SHARED / "tfbind8.npz")
    assert [int(table.modes(task).sum()) for task in range(12)] == [44, 34, 16, 34, 43, 33, 28, 14, 20, 25, 43, 40]
    assert (table.names[0], table.names[-1].split("_")[0]) == ("SIX6_REF_R1", "ZNF200")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_13_a_trained_tree_reaches_what_is_asked(bits: int) -> None:
    environment = Bits(bits, 1)
    torch.manual_seed(0)
    method = method_of(environment, explore="uniform")
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, fused=True)
    for step in range(2000):
        loss = method.loss({"trajectory": torch.arange(16)}, context(step, 16))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 10.0)
        optimizer.step()
    outcomes = environment.objects()
    ways = ways_to(environment, outcomes, torch.zeros(len(outcomes), bits, 2))
    with torch.no_grad():
        log_pf, log_f = method.flow(ways.states[:, :-1], outcomes[:, None].expand(-1, bits, -1))
    success = log_pf.gather(-1, ways.actions[..., None]).sum((1, 2)).exp()
    assert float(success.mean()) >= 0.98
    assert float(log_f[:, 0].abs().mean()) < 0.25


def test_14_an_invalid_action_has_no_probability_and_no_nan() -> None:
    logits, valid = torch.tensor([[30.0, 1.0, -3.0]]), torch.tensor([[False, True, True]])
    log_probs = masked_log_softmax(logits, valid)
    assert float(log_probs.exp()[0, 0]) == 0.0
    method = method_of(Grid(5, edge_ends=True), hidden_size=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scalars = method.loss({"trajectory": torch.arange(32)}, context(0, 32))
        log_pf, log_f = method.flow(torch.tensor([[3, 3]]), torch.tensor([[3, 3]]))
    assert log_pf.dtype == log_f.dtype == scalars["loss"].dtype == torch.float32
    scalars["loss"].backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in method.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in method.flow.parameters())


def test_15_the_sampler_draws_what_the_policy_says() -> None:
    policy = exact_policy(TREE, exact_tree, TREE_REWARD)
    uniform = Rng.at(0, 0, torch.arange(20_000)).uniform("policy", 2, 2)
    ends = TREE.keys(roll(TREE, policy, uniform).ends)
    shares = torch.stack([(ends == key).float().mean() for key in TREE.keys(TREE.objects())])
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.012)


@with_data
def test_16_the_binding_of_rna() -> None:
    if find_spec("RNA") is None:
        lacks("needs viennarna: pip install 'headstart[design]'")
    binding = RnaBinding(list(read_targets(SHARED / "rna_targets.tsv").values()), length=14)
    assert binding.norms == pytest.approx([-36.414, -37.842, -30.184, -27.818], abs=1e-3)
    scores = binding.scores(["AUGGGCCGGACCCC", "AAAAAAAAAAAAAA"])
    assert scores[0] == pytest.approx([0.543747, 0.824481, 0.546647, 0.625494], abs=1e-5)
    assert (scores[1] < 0).all()
    assert scores[1, 0] == pytest.approx(-0.074, abs=1e-3)
    assert binding(["AAAAAAAAAAAAAA"]).tolist() == [0.0]


def test_17_what_cannot_be_reached_does_not_count() -> None:
    """F := 1 and a uniform P_F in every pair that cannot be reached still convert to 0.25, 0.5, 0.25."""
    assert_ends(exact_policy(GRID, exact_grid(GRID, unreachable=(0.0, math.log(1 / 3))), GRID_REWARD))


def test_two_outcomes_give_two_policies() -> None:
    """GFNOrg/torchgfn#385: a condition that changes nothing."""
    method = method_of(Dna(4), hidden_size=16)
    states = method.environment.start(2)
    log_pf, log_f = method.flow(states, torch.tensor([[0, 0, 0, 0], [3, 3, 3, 3]]))
    assert not torch.allclose(log_pf[0], log_pf[1])
    assert not torch.allclose(log_f[0], log_f[1])


def test_nothing_can_be_reached_falls_back_to_uniform() -> None:
    valid = torch.tensor([[True, True, False]])
    assert normalised(torch.full((1, 3), -torch.inf), valid).exp()[0].tolist() == [0.5, 0.5, 0.0]


def test_the_l1_of_a_uniform_policy_is_known() -> None:
    """By hand on the 3 x 3 grid: every state stops with 1 over its valid actions."""
    def uniform(states: Tensor, valid: Tensor) -> Tensor:
        return masked_log_softmax(torch.zeros(valid.shape), valid)

    ends = dict(zip(GRID.to_text(GRID.objects()), end_distribution(GRID, uniform).tolist(), strict=True))
    assert ends["0,0"] == pytest.approx(1 / 3)
    assert ends["1,0"] == pytest.approx(1 / 9)
    assert ends["2,0"] == pytest.approx(1 / 9 / 2)
    assert sum(ends.values()) == pytest.approx(1.0)
    assert l1(torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75])) == pytest.approx(1.5)


def method_of(environment: Environment, **settings: object) -> OCGFN:
    torch.manual_seed(0)
    return OCGFN(OCGFNConfig(**settings), EnvironmentStore(Path(), {}, environment))  # type: ignore[arg-type]


def context(step: int = 0, rows: int = 16) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def test_every_object_is_listed_once() -> None:
    for environment in (Grid(5), Grid(4, 3, edge_ends=False), Dna(3), Bits(6, 2)):
        listed = environment.to_text(environment.objects())
        assert len(set(listed)) == len(listed) == environment.n_objects
    assert list(itertools.islice(Dna(2).to_text(Dna(2).objects()), 5)) == ["AA", "AC", "AG", "AT", "CA"]
