"""What `pretrain` does before step 1: imports, plan, rehearsal, budget; and `--smoke`, which does all of it small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import headstart
from headstart import methods
from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.engine.checkpoint import pack
from headstart.engine.trainer import Trainer
from headstart.engine.trial import Trial, decisions_from, total_cost
from headstart.verbs._corpus import open_corpus
from headstart.verbs._rehearsal import rehearse
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import _Pretraining
from headstart.verbs.sample import load_run
from tests.running import METHODS, TINY, environment, files, quiet, records, run_info
from tests.verbs.pretraining import pretrain

LATE = (
    "transformers", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch.distributed.fsdp", "scipy", "tyro", "tensorboard", "pyarrow",
)  # fmt: skip


def test_importing_pretrain_brings_torch_and_none_of_what_comes_later() -> None:
    code = f"import headstart, sys; headstart.pretrain; print(*sorted({{'torch', *{LATE}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == ["torch"]


def trainer_of(slug: str, store: Path, folder: Path, **settings: Any) -> Trainer:
    """The trainer that `pretrain` would build, without the run."""
    method_class = methods.load(slug)
    config = replace_nested(preset_config(method_class, "tiny")[1], {"data": (str(store),), **TINY, "budget.steps": 12, **settings})
    corpus = open_corpus(method_class, config, folder, None)
    torch.manual_seed(0)
    method = method_class(config.method, corpus.store, None)
    loader = Loader(corpus.mixture(config, method), 8)
    device = torch.device("cpu")
    trial = Trial(
        method, config.optimizer, global_batch=8, load=loader.batch, device=device, seed=0, tokens_per_row=loader.tokens_per_row, seconds=0.01
    )
    return Trainer(
        method,
        RunFolder(folder / "run"),
        loader,
        held_out=corpus.held_out_batches(8, 8),
        optimizer=config.optimizer,
        schedule=config.schedule,
        config=config.trainer,
        decisions=trial.decide(config.budget, precision="fp32"),
        device=device,
        seed=0,
        say=quiet,
    )


def test_the_plan_names_data_model_length_phases_machine_cost_plateau_and_where_settings_come_from(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    pretrain("mlm", store, tmp_path / "run", said.append, dry_run=True, **{"method.causal_start": 2})
    plan = {line.split()[0]: line for line in said[1:] if line.startswith("  ")}
    assert said[0] == f"Plan: mlm (tiny) into {tmp_path / 'run'}"
    manifest = json.loads((store / "manifest.json").read_text())
    assert f"{manifest['counts']['documents']:,} documents" in plan["data"]
    assert f"vocabulary {manifest['tokenizer']['vocab_size']}" in plan["model"]
    assert "6 steps of 8 rows = 1,536 tokens" in plan["length"]
    assert "warm-up 0 steps (6.0%)" in plan["schedule"]
    assert "causal 0-2, masked 2-6" in plan["phases"]
    assert "cpu" in plan["machine"]
    assert "fp32: asked for" in plan["precision"]
    assert {"memory", "cost"} <= set(plan)
    assert f"{manifest['unigram_entropy']:.2f} nats" in plan["plateau"]
    assert "--budget.steps" in plan["WARNING"]
    assert "method.hidden_size=32 (argument)" in plan["settings"]
    assert "schedule.warmup_share=0.06 (preset)" in plan["settings"]


@pytest.mark.parametrize("slug", METHODS)
def test_a_dry_run_leaves_run_json_and_nothing_else(slug: str, store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = pretrain(slug, store, tmp_path / "run", said.append, dry_run=True)
    assert files(run.folder) == {"run.json", ".lock"}
    assert any(line.startswith("Rehearsal: ") for line in said)
    assert said[-1] == "Dry run: stopped before step 1."
    assert run_info(run.folder)["status"] == "stopped"


@pytest.mark.promise("The rehearsal changes no weight and leaves no file.")
def test_the_rehearsal_changes_no_weight_and_no_state(store: Path, tmp_path: Path) -> None:
    """Of ELECTRA, whose export completes the discriminator before its phase."""
    trainer = trainer_of("electra", store, tmp_path)
    trainer.prepare_state()
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack(trainer.state() | {"wall_s": 0}, tensors)
    before = {name: value.clone() for name, value in tensors.items()}
    rehearse(trainer, tmp_path / "run", quiet)
    tensors.clear()
    assert pack(trainer.state() | {"wall_s": 0}, tensors) == skeleton
    assert list(tensors) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in tensors.items())


@pytest.mark.slow
def test_after_a_dry_run_the_real_run_begins(store: Path, tmp_path: Path) -> None:
    pretrain("causal-lm", store, tmp_path / "run", dry_run=True)
    assert pretrain("causal-lm", store, tmp_path / "run").info["status"] == "done"


@pytest.mark.promise("What would fail at the end fails before step 1: evaluation, probes, checkpoint, reload and export are rehearsed on real rows.")
def test_the_rehearsal_finds_what_would_fail_at_the_end(store: Path, tmp_path: Path) -> None:
    class Broken(methods.load("causal-lm")):  # type: ignore[misc]
        def export(self, folder: Path) -> None:
            super().export(folder)
            (folder / "model.safetensors").unlink()

    config = replace_nested(preset_config(Broken, "tiny")[1], {"data": [str(store)], "out": tmp_path / "run", **TINY, "budget.steps": 6})
    with pytest.raises(BadInput, match=r"safetensors"):
        _Pretraining("causal-lm", Broken, config, {}, quiet).run()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert run_info(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("slug", METHODS)
def test_smoke_does_the_whole_path_on_64_records(slug: str, corpus: Path, tmp_path: Path) -> None:
    settings = {name: value for name, value in TINY.items() if not name.startswith("trainer.")}
    said: list[str] = []
    run = headstart.pretrain(slug, corpus, say=said.append, out=tmp_path / "run", smoke=True, **settings)
    assert any(line.startswith("All parts work") for line in said)
    assert not any("may hurt" in line or "--probe.labels" in line for line in said), "eight steps are no verdict"
    assert "Next: the same command without --smoke" in said[-1]
    info = run_info(run.folder)
    assert info["status"] == "done"
    assert info["totals"]["steps"] == 8
    manifest = json.loads((run.folder / "smoke" / "store" / "manifest.json").read_text())
    assert manifest["counts"]["documents"] == 64
    assert run.export.is_dir()


def test_a_budget_in_tokens_ends_within_it(store: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", store, tmp_path / "run", **{"budget.steps": None, "budget.tokens": 7 * 256 + 255})
    assert run.info["totals"]["tokens"] == 7 * 256


def test_a_budget_in_flops_ends_within_it_and_one_step_more_would_not(store: Path, tmp_path: Path) -> None:
    """Over phases of different cost: the causal phase of mlm computes logits everywhere."""
    budget = 2e8
    run = pretrain("mlm", store, tmp_path / "run", **{"budget.steps": None, "budget.flops": budget})
    per_step = run.info["decisions"]["flops_per_step"]
    assert per_step["causal"] > per_step["masked"]
    assert run.info["totals"]["flops"] <= budget < run.info["totals"]["flops"] + per_step["causal"]
    assert run.info["totals"]["flops"] == records(run.folder, "metrics")[-1]["flops"]


@pytest.mark.slow
def test_a_budget_in_minutes_becomes_the_steps_that_the_measured_speed_allows(store: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", store, tmp_path / "run", **{"budget.steps": None, "budget.minutes": 0.02})
    decisions = decisions_from(run.info["decisions"], run.folder / "run.json")
    method, _, _ = load_run(run.folder)
    steps = run.info["totals"]["steps"]
    assert steps == decisions.total_steps
    assert total_cost(method, steps, decisions.seconds_per_step) <= 1.2 or steps == 1
    assert total_cost(method, steps + 1, decisions.seconds_per_step) > 1.2


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"budget.steps": None}, "No budget"),
        ({"budget.tokens": 9}, "More than one budget is given: steps, tokens"),
        ({"budget.steps": 0}, r"--budget.steps is 0.\nGive at least 1"),
    ],
)
def test_exactly_one_positive_budget_is_wanted(budget: dict[str, Any], message: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain("causal-lm", store, tmp_path / "run", **budget)
    assert not (tmp_path / "run").exists()


def test_phases_that_do_not_fit_into_the_budget_are_refused_or_shortened(store: Path, tmp_path: Path) -> None:
    run = pretrain("electra", store, tmp_path / "run", dry_run=True, **{"budget.steps": 10})  # the preset asks for 700 steps of start
    assert run.info["decisions"]["total_steps"] == 10
