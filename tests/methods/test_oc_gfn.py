"""The parts of OC-GFN beyond the numbered checks: losses by brute force, the sampler, adaptation and baselines; micro-batches and settings."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Bits, Dna, Peptides
from headstart.data.environments.store import EnvironmentStore
from headstart.engine.method import Context
from headstart.engine.optim import OptimizerConfig, parameter_groups
from headstart.methods.oc_gfn.adapt import Adaptation, Adapter, Edges
from headstart.methods.oc_gfn.baselines import Chains, Chance, QLearning, QLearningConfig, Scratch, ScratchConfig
from headstart.methods.oc_gfn.config import AdaptConfig, OCGFNConfig
from headstart.methods.oc_gfn.conversion import exact_policy, numerators, sampled_policy
from headstart.methods.oc_gfn.exact import end_distribution, l1, target_distribution
from headstart.methods.oc_gfn.losses import outcome_teleportation, sub_trajectory_balance
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.saved import read_flow
from headstart.methods.oc_gfn.scored import roll_scored
from headstart.methods.oc_gfn.training import RewardTraining, run_until
from headstart.methods.oc_gfn.trajectories import INVALID, gumbel, is_small, masked_log_softmax, mixed, roll, uniform_policy, ways_to
from headstart.methods.oc_gfn.tune import FullTuning


def method_of(environment: Environment, **settings: object) -> OCGFN:
    torch.manual_seed(0)
    return OCGFN(OCGFNConfig(**{"hidden_size": 16, **settings}), EnvironmentStore(Path(), {}, environment))  # type: ignore[arg-type]


def context(rows: Tensor, step: int = 3) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, rows), torch.device("cpu"))


def by_letters(objects: Tensor) -> Tensor:
    """A reward: 1, and 3 for each first letter of the alphabet."""
    return (objects == 0).sum(-1) * 3.0 + 1.0


# --- trajectories --------------------------------------------------------------------------------------------------------------------------------


def test_the_noise_of_every_uniform_number_is_finite() -> None:
    """So that no invalid action is ever the largest: 1 - 2^-24 plus 2^-25 is 1 in float32, and -log(-log 1) is infinite."""
    noise = gumbel(torch.tensor([0.0, 2.0**-24, 0.5, 1 - 2.0**-24]))
    assert noise.isfinite().all()
    assert (noise.diff() > 0).all()
    assert float(noise.max()) < -INVALID


def test_rows_collect_the_same_however_the_batch_is_cut() -> None:
    method = method_of(Grid(5, edge_ends=False))
    whole = method.collect({"trajectory": torch.arange(8)}, context(torch.arange(8)))
    part = method.collect({"trajectory": torch.arange(3)}, context(torch.arange(5, 8)))
    for name, values in part.items():
        assert torch.equal(values, whole[name][5:]), name
    other = method.collect({"trajectory": torch.arange(8)}, context(torch.arange(8), step=4))
    assert not torch.equal(other["success_states"], whole["success_states"])


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    method = method_of(Grid(5))
    whole = method.loss({"trajectory": torch.arange(8)}, context(torch.arange(8)))
    parts = [method.loss({"trajectory": torch.arange(4)}, context(torch.arange(at, at + 4))) for at in (0, 4)]
    for name in whole:
        torch.testing.assert_close(sum(part[name] for part in parts) / 2, whole[name])


def test_a_way_to_an_object_is_a_trajectory() -> None:
    for environment in (Grid(5), Grid(4, edge_ends=False), Dna(4), Peptides(3)):
        objects = environment.draw(Rng.at(1, 0, torch.arange(40)).uniform("o", environment.state_size + 1))
        ways = ways_to(environment, objects, Rng.at(1, 1, torch.arange(40)).uniform("w", environment.max_steps, environment.n_actions))
        assert torch.equal(ways.ends, objects)
        assert torch.equal(ways.states[:, 0], environment.start(40))
        row, place = ways.alive.nonzero(as_tuple=True)
        assert bool(environment.valid(ways.states[row, place]).gather(-1, ways.actions[row, place, None]).all())
        after, done = environment.step(ways.states[row, place], ways.actions[row, place])
        assert torch.equal(after, ways.states[row, place + 1])
        assert torch.equal(done, ways.done[row, place + 1])


def test_epsilon_mixes_in_uniform_valid_actions() -> None:
    valid = torch.tensor([[True, True, False, True]])
    log_probs = masked_log_softmax(torch.tensor([[5.0, 1.0, 9.0, 0.0]]), valid)
    found = mixed(log_probs, valid, 0.3).exp()
    torch.testing.assert_close(found, 0.7 * log_probs.exp() + 0.1 * valid)
    assert float(found[0, 2]) == 0.0


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("environment", [Grid(4), Grid(40), Dna(4), Peptides(6)], ids=["few states", "many states", "words", "peptides"])
def test_what_was_answered_while_drawing_is_what_the_network_says(environment: Environment, lazy: bool) -> None:
    """Every state once, the start once, no step after the last end, no product twice: the same objects, log-probabilities and gradients as of the
    network asked for every state anew."""
    network = Scratch(Scores(environment, by_letters), ScratchConfig(16, num_layers=3))
    parameters = [*network.trunk.parameters(), *network.head_pf.parameters()]
    uniform = Rng.at(0, 0, torch.arange(40)).uniform("p", environment.max_steps, environment.n_actions)
    whole = roll(environment, network.policy, uniform, 0.1)
    layers = network.layers()
    assert layers is not None
    found, log_pf = roll_scored(environment, layers, uniform, 0.1, lazy)
    assert is_small(environment, 40 * environment.max_steps) == (environment.n_states == 16)
    assert torch.equal(found.states, whole.states)
    assert torch.equal(found.done, whole.done)
    assert torch.equal(found.actions[found.alive], whole.actions[whole.alive])
    leaving = whole.states[:, :-1]
    wanted = network.policy(leaving, environment.valid(leaving)).gather(-1, whole.actions[..., None])[..., 0]
    torch.testing.assert_close(log_pf[whole.alive], wanted[whole.alive])
    weights = torch.rand(wanted.shape)  # what a loss makes of them
    gradients = [torch.autograd.grad(torch.where(whole.alive, log_pfs * weights, 0).sum(), parameters) for log_pfs in (log_pf, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_tuned_network_learns_through_the_answers_that_its_objects_were_drawn_with() -> None:
    """Its first layer is a part of the pre-trained one: the outcome's part gets no gradient."""
    environment = Dna(3)
    tuned = FullTuning(method_of(environment).flow, Scores(environment, by_letters), AdaptConfig(batch=8))
    uniform = Rng.at(0, 0, torch.arange(8)).uniform("p", 3, 4)
    found, log_pf = roll_scored(environment, tuned.layers(), uniform)
    assert torch.equal(found.states, roll(environment, tuned.policy, uniform).states)
    leaving = found.states[:, :-1]
    wanted = tuned.policy(leaving, environment.valid(leaving)).gather(-1, found.actions[..., None])[..., 0]
    torch.testing.assert_close(log_pf, wanted)
    gradients = [torch.autograd.grad(log_pfs.sum(), tuned.parameters) for log_pfs in (log_pf, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert float(gradients[0][0][:, environment.encoding_size :].abs().max()) == 0.0 < float(gradients[0][0].abs().max())


@pytest.mark.parametrize(("objective", "batch"), [("tb", 8), ("tb", 64), ("db", 8), ("subtb", 64)])
def test_saving_work_changes_no_loss(objective: str, batch: int) -> None:
    grid = Grid(3)
    assert is_small(grid, batch * grid.max_steps)
    losses = {}
    for lazy in (False, True):
        scratch = Scratch(Scores(grid, by_letters), ScratchConfig(16, objective=objective, batch=batch))  # type: ignore[arg-type]
        assert (scratch.layers() is not None) == (objective == "tb")
        first = scratch.advance()  # counts FLOPs, and saves nothing
        if not lazy:
            scratch._cost.clear()
        losses[lazy] = (first, scratch.advance(), scratch.relearn())
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


# --- losses --------------------------------------------------------------------------------------------------------------------------------------


def test_sub_trajectory_balance_is_the_weighted_mean_over_all_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    log_f, log_pf, log_pb = (torch.randn(3, 4, generator=generator) for _ in range(3))
    log_r, lengths = torch.randn(3, generator=generator), [2, 4, 1]
    alive = torch.arange(4)[None] < torch.tensor(lengths)[:, None]
    found = sub_trajectory_balance(log_f, log_pf, log_pb, log_r, alive, alive, weight=0.9)
    for row, length in enumerate(lengths):
        flows = [*log_f[row, :length].tolist(), float(log_r[row])]
        total = weights = 0.0
        for i in range(length):
            for j in range(i + 1, length + 1):
                inside = flows[i] + float(log_pf[row, i:j].sum()) - flows[j] - float(log_pb[row, i:j].sum())
                total, weights = total + 0.9 ** (j - i) * inside**2, weights + 0.9 ** (j - i)
        assert float(found[row]) == pytest.approx(total / weights, rel=1e-4)


def test_the_mean_over_transitions_is_the_sum_over_their_number() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, generator=generator) for _ in range(3)]
    alive = torch.tensor([[True, True, False], [True, True, True]])
    ends = torch.tensor([[False, True, True], [False, False, True]])
    total = outcome_teleportation(*parts, torch.zeros(2), alive, ends)
    mean = outcome_teleportation(*parts, torch.zeros(2), alive, ends, "mean_transitions")
    torch.testing.assert_close(total, mean * torch.tensor([2.0, 3.0]))


def test_the_networks_learn_at_their_own_rates() -> None:
    method = method_of(Dna(4), explorer_rate=2.0, log_z_rate=200.0)
    of_name = {name: group["lr_scale"] for group in parameter_groups(method.named_parameters(), OptimizerConfig()) for name in group["names"]}
    assert of_name["explorer.log_z"] == 200.0
    assert of_name["explorer.trunk.0.weight"] == of_name["explorer.predictor.0.weight"] == 2.0
    assert of_name["flow.trunk.0.weight"] == 1.0


def test_every_network_learns_and_the_fixed_one_does_not() -> None:
    for environment in (Dna(4), Grid(5)):
        method = method_of(environment, backward="learned")
        method.loss({"trajectory": torch.arange(16)}, context(torch.arange(16)))["loss"].backward()
        assert {name for name, parameter in method.named_parameters() if parameter.grad is None} == set()
        assert {name for name, _ in method.named_buffers()} >= {"explorer.fixed.0_weight", "last"}


def test_a_learned_backward_policy_of_a_grid_is_over_the_parents() -> None:
    method = method_of(Grid(4, edge_ends=False), backward="learned")
    assert method.flow.head_pb is not None
    assert method_of(Dna(4), backward="learned").flow.head_pb is None, "a tree has one parent"


def test_the_exploring_network_is_left_out_where_actions_are_uniform() -> None:
    method = method_of(Dna(2), explore="uniform")
    scalars = method.loss({"trajectory": torch.arange(512)}, context(torch.arange(512)))
    assert scalars.keys() == {"loss", "flow_loss", "success"}
    ends = method.collect({"trajectory": torch.arange(4096)}, context(torch.arange(4096)))["success_states"][:, -1]
    shares = torch.bincount(Dna(2).keys(ends) // 5 * 4 + ends[:, 1], minlength=16) / 4096
    assert shares.tolist() == pytest.approx([1 / 16] * 16, abs=0.02)


def test_without_contrast_there_is_no_success_in_the_loss() -> None:
    both, alone = (method_of(Dna(4), explore="uniform", contrastive=flag) for flag in (True, False))
    alone.load_state_dict(both.state_dict())
    batch, ctx = {"trajectory": torch.arange(16)}, context(torch.arange(16))
    ours, theirs = (float(method.loss(batch, ctx)["loss"].detach()) for method in (alone, both))
    assert ours > 1.5 * theirs, "its misses are not halved by successes"


@pytest.mark.parametrize("settings", [{"hidden_size": 0}, {"fail_floor": 0.0}, {"epsilon": 1.5}, {"novelty": 0.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        method_of(Dna(4), **settings)


def test_an_export_of_another_environment_is_refused_with_both(tmp_path: Path) -> None:
    method = method_of(Dna(4))
    method.export(tmp_path)
    again = read_flow(tmp_path, Dna(4))
    states, outcomes = Dna(4).start(3), Dna(4).draw(torch.rand(3, 5))
    torch.testing.assert_close(again(states, outcomes), method.flow(states, outcomes))
    with pytest.raises(UsageError, match=r"'tfbind8'.*'bits'"):
        read_flow(tmp_path, Bits(4, 1))


# --- conversion ----------------------------------------------------------------------------------------------------------------------------------


def test_sampled_outcomes_converge_to_the_sum_over_all() -> None:
    """With 16,384 draws of 64 objects the weighted sum is close to the exact one, for a network as it comes."""
    environment = Dna(3)
    flow = method_of(environment).flow
    exact = end_distribution(environment, exact_policy(environment, flow, by_letters))
    drawn = end_distribution(environment, sampled_policy(environment, flow, by_letters, Rng.at(0, 0, torch.arange(1)), 16_384))
    few = end_distribution(environment, sampled_policy(environment, flow, by_letters, Rng.at(0, 0, torch.arange(1)), 4))
    assert l1(drawn, exact) < 0.1 < l1(few, exact)
    assert float(drawn.sum()) == pytest.approx(1.0)


def test_numerators_do_not_depend_on_how_states_are_cut() -> None:
    environment = Dna(3)
    flow, outcomes = method_of(environment).flow, environment.objects()
    states = torch.cat([environment.start(2), environment.step(environment.start(4), torch.arange(4))[0]])
    whole = numerators(environment, flow, states, outcomes, by_letters(outcomes).log())
    cut = numerators(environment, flow, states, outcomes, by_letters(outcomes).log(), pairs=64)
    torch.testing.assert_close(cut, whole)


# --- the amortised predictor ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [Dna(3), Peptides(2), Grid(4), Grid(4, edge_ends=False)])
def test_q_is_a_distribution_over_what_can_be_reached_and_draws_from_it(environment: Environment) -> None:
    """Its probabilities sum to 1 over the reachable objects, and its draws have their frequencies."""
    torch.manual_seed(0)
    adapter = Adapter(environment, AdaptConfig(hidden_size=16))
    built = roll(environment, uniform_policy, Rng.at(0, 0, torch.arange(4)).uniform("b", environment.max_steps, environment.n_actions))
    edges, objects = Edges.of(built), environment.objects()
    n = len(edges.states)
    reached = environment.can_reach(edges.after[:, None], edges.done[:, None], objects[None])
    edge, which = reached.nonzero(as_tuple=True)
    picked = Edges(*(getattr(edges, name)[edge] for name in ("states", "actions", "after", "done", "ends", "row", "place")))
    log_q = adapter.q.log_prob(picked, objects[which][:, None])[:, 0]
    sums = torch.zeros(n).index_add(0, edge, log_q.exp().detach())
    assert sums.tolist() == pytest.approx([1.0] * n, abs=1e-5)
    uniform = Rng.at(0, 1, torch.arange(n)).uniform("q", 2000, environment.state_size)
    drawn = adapter.q.draw(edges, uniform, 1.0)
    assert bool(environment.can_reach(edges.after[:, None], edges.done[:, None], drawn).all())
    place = torch.searchsorted(environment.keys(objects), environment.keys(drawn[0]))
    shares = torch.bincount(place, minlength=len(objects)) / 2000
    wanted = torch.zeros(len(objects)).index_put((which[edge == 0],), log_q[edge == 0].exp().detach())
    assert float((shares - wanted).abs().max()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("environment", [Bits(3, 1), Grid(4, edge_ends=False)], ids=["bits", "hypergrid"])
def test_an_adapted_sampler_samples_in_proportion_to_the_reward(environment: Environment) -> None:
    """The honest test: the exact distribution of its ends against r / sum r, from a pre-trained network."""
    method = method_of(environment, explore="uniform", hidden_size=128)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, fused=True)
    for step in range(1200):
        loss = method.loss({"trajectory": torch.arange(16)}, context(torch.arange(16), step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 10.0)
        optimizer.step()
    scores = Scores(environment, by_letters)
    adaptation = Adaptation(method.flow, scores, AdaptConfig(hidden_size=128, learning_rate=3e-3))
    wanted = target_distribution(environment, by_letters)
    before_training = {name: value.clone() for name, value in method.flow.state_dict().items()}
    tuned = FullTuning(method.flow, Scores(environment, by_letters), AdaptConfig(learning_rate=3e-3))
    lesson = sampled_policy(environment, method.flow, by_letters, Rng.at(0, 0, torch.arange(1)))
    taught = end_distribution(environment, tuned.policy)
    assert l1(taught, end_distribution(environment, lesson)) < 0.1, "the lessons are learnt, the noise of 64 outcomes with them"
    for _ in range(300):
        tuned.advance()
    assert l1(end_distribution(environment, tuned.policy), wanted) < min(0.1, l1(taught, wanted))
    assert all(torch.equal(value, before_training[name]) for name, value in method.flow.state_dict().items())
    before = l1(end_distribution(environment, adaptation.policy), wanted)
    for _ in range(500):
        adaptation.advance()
    assert l1(end_distribution(environment, adaptation.policy), wanted) < min(0.15, before / 2)
    assert adaptation.flops > 0


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["tb", "db", "subtb"])
def test_a_network_from_scratch_learns_the_reward_by_each_loss(objective: str) -> None:
    grid = Grid(4, edge_ends=False)
    scratch = Scratch(Scores(grid, by_letters), ScratchConfig(64, objective=objective, learning_rate=3e-3))  # type: ignore[arg-type]
    wanted = target_distribution(grid, by_letters)
    for _ in range(600):
        scratch.advance()
    assert l1(end_distribution(grid, scratch.policy), wanted) < 0.12


def test_learning_again_costs_no_call_and_counts_its_flops() -> None:
    environment = Dna(4)
    trainings: list[RewardTraining] = [
        Adaptation(method_of(environment).flow, Scores(environment, by_letters), AdaptConfig(16, batch=8, outcomes=1)),
        Scratch(Scores(environment, by_letters), ScratchConfig(16, batch=8)),
    ]
    for training in trainings:
        training.advance()
        calls, flops = training.scores.distinct, training.flops
        assert calls > 0
        assert training.relearn() != training.relearn(), "other objects each time"
        assert training.scores.distinct == calls
        assert training.flops > flops


def test_the_same_seed_repeats_an_adaptation() -> None:
    environment = Dna(4)

    def losses(seed: int) -> list[float]:
        adaptation = Adaptation(method_of(environment).flow, Scores(environment, by_letters), AdaptConfig(16, batch=8, replay=1), seed)
        return [adaptation.advance() for _ in range(3)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_a_run_ends_with_its_calls_or_when_nothing_is_new() -> None:
    scores = Scores(Dna(2), by_letters)
    assert run_until(Chance(scores, batch=4).advance, scores, calls=8) < 8
    assert 8 <= scores.distinct <= 11
    assert run_until(Chance(scores, batch=64).advance, scores, calls=17, patience=20) > 20
    assert scores.distinct == 16


# --- other ways of looking -----------------------------------------------------------------------------------------------------------------------


def test_markov_chains_have_the_reward_as_their_distribution() -> None:
    environment = Dna(2)
    chains = Chains(Scores(environment, by_letters), chains=256, seed=0)
    counts = torch.zeros(environment.n_objects or 0)
    for step in range(120):
        chains.advance()
        if step >= 20:
            counts += torch.bincount(chains.objects[:, 0] * 4 + chains.objects[:, 1], minlength=16)
    assert l1(counts / counts.sum(), target_distribution(environment, by_letters)) < 0.06
    assert chains.scores.distinct == 16


def test_a_chain_of_peptides_keeps_its_length() -> None:
    peptides = Peptides(5)
    chains = Chains(Scores(peptides, lambda objects: torch.ones(len(objects))), chains=32)
    lengths = peptides.filled(chains.objects)
    for _ in range(5):
        before = chains.objects
        chains.advance()
        assert int((chains.objects != before).sum(-1).max()) == 1
    assert torch.equal(peptides.filled(chains.objects), lengths)


@pytest.mark.slow
def test_q_learning_finds_the_best_object() -> None:
    environment = Dna(3)
    learner = QLearning(Scores(environment, lambda objects: (objects == 2).sum(-1).float()), QLearningConfig(64))
    for _ in range(60):
        learner.advance()
    best = roll(environment, learner.policy, torch.full((1, 3, 4), 0.5)).ends
    assert environment.to_text(best) == ["GGG"]


@pytest.mark.parametrize("environment", [Grid(5), Grid(4, edge_ends=False), Dna(4), Peptides(3)])
def test_a_step_never_waits_for_the_device(environment: Environment) -> None:
    """Fake tensors hold no values: an `.item()`, a boolean index or a shape that depends on data would raise. So a CUDA graph can hold the step, the
    building of its own data included."""
    model = method_of(environment, backward="learned", epsilon=0.1, anneal_epsilon=True, mask_fail=True)
    rows = torch.arange(4)
    model.loss({"trajectory": rows}, context(rows))  # what is made once, is made
    rng, mode = Rng.at(0, 0, rows), FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        fake_model = copy.deepcopy(model)
    with mode:
        ctx = Context(0, 100, "train", Rng(mode.from_tensor(rng.key), mode.from_tensor(rng.rows)), torch.device("cpu"))
        scalars = fake_model.loss({"trajectory": mode.from_tensor(rows)}, ctx)
        scalars["loss"].backward()
    assert all(value.shape == () for value in scalars.values())


@pytest.mark.slow
def test_torchgfn_says_the_same_of_an_exported_network() -> None:
    pytest.importorskip("gfn", reason="torchgfn asks for numpy below 2: pip install --no-deps torchgfn, and what it imports")
    from gfn.gym import BitSequence, HyperGrid

    from headstart.methods.oc_gfn.torchgfn import estimators

    peers = [(Grid(8, edge_ends=False), HyperGrid(2, 8, validate_modes=False)), (Bits(16, 4), BitSequence(4, 16, n_modes=5))]
    for environment, peer in peers:
        flow = method_of(environment).flow
        policy, log_flow = estimators(flow)
        built = roll(environment, uniform_policy, Rng.at(0, 0, torch.arange(8)).uniform("b", environment.max_steps, environment.n_actions))
        row, place = built.alive.nonzero(as_tuple=True)
        states, outcomes = built.states[row, place], built.ends[row]
        theirs = peer.states_from_tensor(torch.where(states == 16, -1, states))  # no letter yet; a grid has no such cell
        conditions = environment.encode(outcomes)
        log_pf, log_f = flow(states, outcomes)
        logits = policy(theirs, conditions).masked_fill(~theirs.forward_masks, -torch.inf)
        torch.testing.assert_close(logits.log_softmax(-1)[:, : environment.n_actions].exp(), log_pf.exp())
        torch.testing.assert_close(log_flow(theirs, conditions)[:, 0], log_f)


def test_torchgfn_has_no_grid_whose_edge_ends() -> None:
    from headstart.methods.oc_gfn.torchgfn import estimators

    with pytest.raises(UsageError, match="no environment like hypergrid"):
        estimators(method_of(Grid(8)).flow)
