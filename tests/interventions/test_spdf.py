"""Sparse pre-training as a person runs it: what is refused, phases, other masks, the plan, and several processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headstart.core.errors import UsageError
from headstart.data.environments.sequences import Dna
from headstart.engine.flops import uncounted
from headstart.interop.masks import read_masks
from headstart.interventions.spdf.export import REPORT
from headstart.interventions.spdf.intervention import counter
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, records, run_info, torchrun, untimed

SHORT: dict[str, Any] = {**TINY, "budget.steps": 6, "method.architecture": "gpt2", "method.intermediate_size": 64}


def run(store: Path, out: Path, said: list[str] | None = None, **settings: Any) -> Path:
    say = (lambda line: None) if said is None else said.append
    return pretrain("causal-lm", store, out=out, say=say, **SHORT | settings).folder


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"level": 1.0}, "--sparsity.level is 1.0."),
        ({"level": -0.5}, "--sparsity.level is -0.5."),
        ({"distribution": "erk"}, "--sparsity.level is 0.0."),
        ({"level": 0.9999}, "keeps no weight of model.transformer.h.0.attn.c_attn.weight"),
        ({"level": 0.5, "include": ("*nothing*",)}, "--sparsity.include *nothing* matches no weight."),
        ({"level": 0.5, "include": ("*.weight",)}, "matches weights that are no matrix of a dense layer: model.transformer.wte.weight, "),
        ({"n_of_m": "4:2"}, "--sparsity.n-of-m is 4:2."),
        ({"n_of_m": "2:4", "level": 0.75}, "--sparsity.level is 0.75, but 2:4 keeps 0.5."),
        ({"n_of_m": "1:5"}, "no multiple of 5"),
        ({"init": "from-weights"}, "no starting weight is zero"),
        ({"level": 0.5, "then": (0.0,)}, "--sparsity.then and --sparsity.then-steps do not fit."),
        ({"level": 0.5, "then": (1.5,), "then_steps": (2,)}, "--sparsity.then is 1.5."),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(settings: dict[str, Any], what: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(store, tmp_path / "run", **{f"sparsity.{name}": value for name, value in settings.items()})
    assert what in caught.value.what
    assert not (tmp_path / "run").exists()


def test_the_plan_and_the_last_lines_say_both_counts_of_flops(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    info = run_info(run(store, tmp_path / "run", said, **{"sparsity.level": 0.75}))
    text = "\n".join(said)
    assert "counted without zeros" in text
    assert "a machine of dense kernels is no faster" in text
    assert "  sparsity   6,144 of 8,192 weights in 4 matrices stay zero (0.75, uniform; drawn from the seed)" in text
    last = records(tmp_path / "run", "metrics")[-1]
    assert info["totals"]["executed_flops"] == last["executed_flops"] > last["flops"] == info["totals"]["flops"]
    done = next(line for line in said if line.startswith("Done:"))
    assert f"{info['totals']['executed_flops']:.3g} executed" in done


def test_phases_free_the_weights_with_a_fresh_optimiser_and_schedule(store: Path, tmp_path: Path) -> None:
    given = {"sparsity.level": 0.75, "sparsity.then": (0.5, 0.0), "sparsity.then_steps": (2, 2), "trainer.log_every": 1,
             "trainer.checkpoint_every": 1, "trainer.keep_checkpoints": 9, "schedule.warmup_share": 0.0}  # fmt: skip
    folder = run(store, tmp_path / "run", **given)
    lines = records(folder, "metrics")
    assert [line["phase"] for line in lines] == ["sparse-0.75"] * 2 + ["sparse-0.5"] * 2 + ["dense"] * 2
    rates = [line["learning_rate"] for line in lines]
    assert rates[:2] == rates[2:4] == rates[4:], "each has a schedule of its own"
    name = "transformer.h.0.mlp.c_fc.weight"
    weights = [load_file(folder / "checkpoints" / f"step-{step:08d}" / "export" / "model.safetensors")[name] for step in range(1, 7)]
    assert [float((weight == 0).float().mean()) for weight in weights] == [0.75, 0.75, 0.5, 0.5, 0.0, 0.0]
    assert ((weights[1] != 0) <= (weights[3] != 0)).all(), "what was kept stays kept"
    flops = run_info(folder)["decisions"]["flops_per_step"]
    assert flops["sparse-0.75"] < flops["sparse-0.5"] < flops["dense"]
    again = run(store, tmp_path / "again", **given | {"trainer.stop_at": 3})
    run(store, again, **given)
    assert untimed(records(again, "metrics")) == untimed(lines)


def test_two_of_four_inputs_in_a_row(store: Path, tmp_path: Path) -> None:
    folder = run(store, tmp_path / "run", **{"sparsity.n_of_m": "2:4"})
    for mask in read_masks(folder / "export").values():
        assert (mask.numpy().T.reshape(mask.shape[1], -1, 4).sum(-1) == 2).all(), "along the inputs of [out, in]"


def test_magnitude_keeps_the_largest_starting_weights(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "dense", **{"budget.steps": 1, "schedule.warmup_share": 1.0})  # its first rate is 0
    folder = run(store, tmp_path / "run", **{"sparsity.level": 0.5, "sparsity.init": "magnitude"})
    name = "transformer.h.0.mlp.c_fc.weight"
    start = load_file(tmp_path / "dense" / "export" / "model.safetensors")[name].abs()
    kept = read_masks(folder / "export")[name]
    assert start[kept].min() >= start[~kept].max()


def test_a_sparse_model_goes_on_with_its_own_zeros(store: Path, tmp_path: Path) -> None:
    first = run(store, tmp_path / "first", **{"sparsity.level": 0.75})
    second = run(store, tmp_path / "second", init=first, **{"sparsity.init": "from-weights"})
    before, after = read_masks(first / "export"), read_masks(second / "export")
    assert all(torch.equal(before[name], after[name]) for name in before)
    dense = run(store, tmp_path / "dense", init=first)
    weights = load_file(dense / "export" / "model.safetensors")
    assert all((weights[name] != 0).all() for name in before), "without the setting its zeros learn"
    assert not (dense / "export" / REPORT).exists()


def test_rescaled_weights_begin_as_large_as_the_dense_ones(store: Path, tmp_path: Path) -> None:
    name = "transformer.h.0.mlp.c_fc.weight"
    stds = []
    for rescale in (False, True):
        settings = {"sparsity.level": 0.75, "sparsity.rescale_init": rescale, "budget.steps": 1, "schedule.warmup_share": 1.0}
        weight = load_file(run(store, tmp_path / str(rescale), **settings) / "export" / "model.safetensors")[name]
        stds.append(float(weight[weight != 0].std()))
    assert stds[1] / stds[0] == pytest.approx(2.0, rel=1e-3)


def test_other_settings_are_another_run(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run", **{"sparsity.level": 0.75})
    with pytest.raises(UsageError, match=r"sparsity.level: 0.75 -> 0.5"):
        run(store, tmp_path / "run", **{"sparsity.level": 0.5})


@pytest.mark.slow
def test_on_two_processes_masks_are_the_same_and_a_run_resumes(store: Path, tmp_path: Path) -> None:
    """DDP and FSDP2; the latter, where each process has its parts of the masks, is stopped at half and continued."""
    given = {**SHORT, "sparsity.level": 0.75, "trainer.log_every": 1, "method.num_layers": 2}
    alone = pretrain("causal-lm", store, out=tmp_path / "alone", say=lambda line: None, **given)
    common = {"slug": "causal-lm", "data": str(store), **given}
    cut = {**common, "trainer.parallel": "fsdp"}
    plan = [{**common, "out": str(tmp_path / "ddp")}, {**cut, "out": str(tmp_path / "whole")}]
    plan += [{**cut, "out": str(tmp_path / "fsdp"), "trainer.stop_at": 3}, {**cut, "out": str(tmp_path / "fsdp")}]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = torchrun(2, "tests.distributed.runs", tmp_path / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = read_masks(alone.export)
    for mode in ("ddp", "fsdp"):
        masks = read_masks(tmp_path / mode / "export")
        assert masks.keys() == expected.keys()
        assert all(torch.equal(masks[name], expected[name]) for name in masks)
        weights = load_file(tmp_path / mode / "export" / "model.safetensors")
        assert all(np.array_equal(weights[name] == 0, ~mask) for name, mask in masks.items())
        losses = [[line["loss"] for line in records(folder, "metrics")] for folder in (alone.folder, tmp_path / mode)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert untimed(records(tmp_path / "fsdp", "metrics")) == untimed(records(tmp_path / "whole", "metrics"))


def test_zeros_are_counted_where_flops_are() -> None:
    """A pass that is left out of the counts has no zeros to take off them."""
    layer, skipped = torch.nn.Linear(3, 2, bias=False), []  # type: ignore[var-annotated]
    layer.register_forward_hook(counter(skipped, 2 * 0.5 * 2))
    x = torch.ones(4, 3)
    with uncounted():
        layer(x)
    assert skipped == []
    layer(x)
    assert skipped == [2 * 0.5 * 3 * 2 * 4 * 2], "forward, and the gradient of the weight"


def test_zeros_of_a_layer_whose_halves_are_multiplied_apart_are_counted_in_each() -> None:
    """The first layer of an OC-GFN: the outcome meets its columns once a trajectory, the state its own at each step."""
    flow, skipped = ConditionalFlow(Dna(), hidden_size=6, num_layers=1), []  # type: ignore[var-annotated]
    size = flow.environment.encoding_size
    handle = flow.trunk[0].register_forward_hook(counter(skipped, 2 * 0.5 * 6))
    outcomes = torch.zeros(2, flow.environment.state_size, dtype=torch.int64)
    states = flow.environment.start(2, outcomes.device)[:, None].expand(2, 5, -1)  # 5 states of each of 2 trajectories
    hidden = flow.hidden(states, flow.condition(outcomes)[:, None])
    handle.remove()
    forward_and_weight = 2  # a one-hot state takes no gradient
    assert skipped == [2 * 0.5 * 6 * size * 2 * forward_and_weight, 2 * 0.5 * 6 * size * 10 * forward_and_weight]
    weight, bias = flow.trunk[0].weight, flow.trunk[0].bias
    both = torch.cat([flow.environment.encode(states), flow.environment.encode(outcomes)[:, None].expand(2, 5, -1)], -1)
    assert torch.allclose(hidden, torch.nn.functional.leaky_relu(both @ weight.t() + bias, 0.01), atol=1e-6), "the halves are the whole"


def test_an_update_of_an_oc_gfn_counts_the_zeros_of_its_first_layer(tmp_path: Path) -> None:
    """By hand, for 4 strings of 8 letters: one attempt without gradients, then success and attempt with."""
    settings = {"batch": 4, "device": "cpu", "precision": "fp32", "budget.steps": 1, "method.hidden_size": 6, "method.num_layers": 1}
    sparse = {"sparsity.level": 0.5, "sparsity.include": ("*flow.trunk.0.weight",)}
    done = pretrain("oc_gfn", "builtin:tfbind8", out=tmp_path / "run", say=lambda line: None, dry_run=True, **settings, **sparse)
    decided = done.info["decisions"]
    half, steps = Dna().encoding_size, Dna().max_steps
    attempt = 4 * half + steps * 4 * half  # rows times columns: the outcome once, the state at each step
    scored = 2 * (8 * half + steps * 8 * half)  # success and attempt, forward and the gradient of the weight
    saved = sum(decided["executed_flops_per_step"].values()) - sum(decided["flops_per_step"].values())
    assert saved == 2 * 0.5 * 6 * (attempt + scored)
