"""`pretrain` from source to verdict, on real files with tiny models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

import headstart
from headstart import methods
from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, Diverged, UsageError
from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.data.text.config import TextConfig
from headstart.data.text.store import open_text_store, prepare_text
from headstart.engine.checkpoint import load_checkpoint, pack
from headstart.engine.trainer import Trainer
from headstart.engine.trial import Trial, decisions_from, total_cost
from headstart.interop.transformers_io import save_model_folder
from headstart.verbs._corpus import open_corpus
from headstart.verbs._rehearsal import rehearse
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import Run, _Pretraining
from headstart.verbs.sample import load_run
from tests.corpus import documents, write_corpus, write_jsonl
from tests.running import METHODS, TIMES, TINY, environment, files, last_step, records, run_info, untimed, weight_files

LATE = (
    "transformers", "torch.distributed.tensor", "torch.distributed.checkpoint", "torch.distributed.fsdp", "scipy", "tyro", "tensorboard", "pyarrow",
)  # fmt: skip


def test_importing_pretrain_brings_torch_and_none_of_what_comes_later() -> None:
    code = f"import headstart, sys; headstart.pretrain; print(*sorted({{'torch', *{LATE}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == ["torch"]


def quiet(line: str) -> None:
    pass


def pretrain(slug: str, data: Any, out: Path, say: Any = quiet, **settings: Any) -> Run:
    return headstart.pretrain(slug, data, say=say, out=out, **{**TINY, "budget.steps": 6, **settings})


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


# the plan, the rehearsal, and stopping before step 1


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
    run = headstart.pretrain(slug, corpus, say=quiet, out=tmp_path / "run", smoke=True, **settings)
    info = run_info(run.folder)
    assert info["status"] == "done"
    assert info["totals"]["steps"] == 8
    manifest = json.loads((run.folder / "smoke" / "store" / "manifest.json").read_text())
    assert manifest["counts"]["documents"] == 64
    assert run.export.is_dir()


# the run folder


def test_the_run_folder_has_exactly_the_files_of_the_design(trained: Path) -> None:
    names = {"run.json", "metrics.jsonl", "probes.jsonl", "samples.jsonl", "tb", "checkpoints", "export", ".lock"}
    assert {path.name for path in trained.iterdir()} == names
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["step-00000018", "step-00000024"]
    for checkpoint in (trained / "checkpoints").iterdir():
        assert {path.name for path in checkpoint.iterdir()} == {"manifest.json", "state.json", "state-00001.safetensors", "export"}
    assert {path.name for path in (trained / "tb").iterdir() if not path.name.startswith("events.out.tfevents")} == set()
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= {path.name for path in (trained / "export").iterdir()}


def test_run_json_says_everything_about_the_run(trained: Path, store: Path) -> None:
    info = run_info(trained)
    assert info["status"] == "done"
    assert (info["method"], info["preset"], info["seed"]) == ("causal-lm", "tiny", 0)
    assert info["config"]["method"]["hidden_size"] == 32
    assert info["config"]["optimizer"]["learning_rate"] == 4e-3
    assert {"headstart", "python", "torch", "transformers", "tokenizers"} <= set(info["versions"])
    assert info["hardware"]
    assert info["command"]
    assert info["started"] <= info["finished"]
    assert info["error"] is None
    assert info["data"][0]["store"] == str(store)
    assert info["data"][0]["tokenizer_sha256"] == json.loads((store / "manifest.json").read_text())["tokenizer_sha256"]
    assert info["decisions"]["total_steps"] == 24
    assert set(info["decisions"]["why"]) == {"threads", "precision", "micro_batch", "compile", "cuda_graph"}
    totals = info["totals"]
    assert totals["steps"] == 24
    assert totals["tokens"] == 24 * 8 * 32
    assert totals["flops"] == 24 * info["decisions"]["flops_per_step"]["train"]
    assert totals["wall_s"] > 0
    assert totals["peak_memory_bytes"] > 0


def test_metrics_have_one_line_a_log_step(trained: Path) -> None:
    lines = records(trained, "metrics")
    assert [line["step"] for line in lines] == list(range(2, 25, 2))
    assert [line["tokens"] for line in lines] == [step * 8 * 32 for step in range(2, 25, 2)]
    per_step = run_info(trained)["decisions"]["flops_per_step"]["train"]
    assert [line["flops"] for line in lines] == [step * per_step for step in range(2, 25, 2)]
    names = {"loss", "gradient_norm", "learning_rate", "phase", *TIMES}
    assert all(names <= set(line) for line in lines)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    peak = max(line["learning_rate"] for line in lines)
    assert 0.9 * 4e-3 < peak <= 4e-3
    assert lines[-1]["learning_rate"] < 0.1 * peak


def test_probes_hold_the_held_out_loss_and_rankme_of_each_evaluation(trained: Path) -> None:
    lines = records(trained, "probes")
    assert [(line["step"], line["probe"]) for line in lines] == [(s, p) for s in (6, 12, 18, 24) for p in ("held_out/loss", "rankme")]
    losses = [line["value"] for line in lines if line["probe"] == "held_out/loss"]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.promise("The export answers as the trained model does: it is reloaded and compared before a run says done.")
@pytest.mark.parametrize("slug", METHODS)
def test_the_export_answers_like_the_last_checkpoint(slug: str, store: Path, tmp_path: Path) -> None:
    """Loaded by transformers alone, tokenizer included, on a text of which the method knows nothing."""
    run = pretrain(slug, store, tmp_path / "run")
    method, _, _ = load_run(run.folder)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.zero_()  # whatever load_run found: the weights are those of the checkpoint
    step, state = load_checkpoint(run.folder / "checkpoints" / "step-00000006")
    assert step == 6
    method.load_state_dict(state["method"])
    method.eval()
    folder = run.export / "discriminator" if slug == "electra" else run.export
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    text = "The old boat returns after the rain."
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True).replace(" .", ".") == text.lower()
    with torch.no_grad():
        ours = method.hidden_states({"input_ids": ids})
        theirs = model(input_ids=ids).last_hidden_state
    assert float(ours.abs().max()) > 0.1
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_the_last_lines_are_cost_plateau_verdict_load_snippet_and_next_commands(store: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = pretrain("causal-lm", store, tmp_path / "run", said.append)
    last = said[said.index(next(line for line in said if line.startswith("Done: "))) :]
    assert last[0].startswith("Done: 6 steps, 1,536 tokens, ")
    assert "never left the unigram plateau" in last[1]
    assert "--probe.labels" in last[2]
    code = last[3].removeprefix("Load it:").strip()
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # the snippet that a person copies
    assert namespace["model"].config.hidden_size == 32
    assert f"headstart finetune classification --init {run.folder}" in last[4]
    assert f"headstart sample {run.folder}" in last[5]


# budgets


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
        ({"budget.steps": 0}, r"--budget.steps is 0.\nGive a number above 0"),
    ],
)
def test_exactly_one_positive_budget_is_wanted(budget: dict[str, Any], message: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain("causal-lm", store, tmp_path / "run", **budget)
    assert not (tmp_path / "run").exists()


def test_phases_that_do_not_fit_into_the_budget_are_refused_or_shortened(store: Path, tmp_path: Path) -> None:
    run = pretrain("electra", store, tmp_path / "run", dry_run=True, **{"budget.steps": 10})  # the preset asks for 700 steps of start
    assert run.info["decisions"]["total_steps"] == 10


# the same command again


@pytest.mark.promise("The command of a finished run says that it is done, and changes nothing.")
def test_a_finished_run_is_not_repeated(trained: Path, store: Path) -> None:
    before = {name: (trained / name).read_bytes() for name in ("run.json", "metrics.jsonl", "probes.jsonl")}
    said: list[str] = []
    run = pretrain("causal-lm", store, trained, said.append, **{"budget.steps": 24})
    assert said[0] == f"{trained} is done: 24 steps. Nothing to do."
    assert any("AutoModel.from_pretrained" in line for line in said)
    assert run.info["totals"]["steps"] == 24
    assert {name: (trained / name).read_bytes() for name in before} == before


@pytest.mark.promise("Continued with other settings, a run is refused: each setting with its old and new value, and the --init line to use instead.")
def test_changed_settings_are_refused_with_old_and_new_value_and_the_init_line(trained: Path, store: Path) -> None:
    before = (trained / "run.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        pretrain("causal-lm", store, trained, **{"budget.steps": 30, "optimizer.learning_rate": 1e-3})
    assert "budget.steps: 24 -> 30" in str(caught.value)
    assert "optimizer.learning_rate: 0.004 -> 0.001" in str(caught.value)
    assert f"--init {trained} --out " in str(caught.value)
    assert caught.value.exit_code == 2
    assert (trained / "run.json").read_bytes() == before, "a refused command leaves the run as it was"


def test_another_method_in_the_same_folder_is_refused(trained: Path, store: Path) -> None:
    before = (trained / "run.json").read_bytes()
    with pytest.raises(UsageError, match="holds a run of causal-lm, not of mlm"):
        pretrain("mlm", store, trained)
    assert (trained / "run.json").read_bytes() == before


def test_where_it_runs_and_how_it_prints_may_change(trained: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.parent)
    said: list[str] = []
    pretrain("causal-lm", store, Path(trained.name), said.append, json=True, debug=True, device="auto", **{"budget.steps": 24})
    assert said[0] == f"{trained.name} is done: 24 steps. Nothing to do."


def test_resume_never_refuses_a_folder_with_a_run(trained: Path, store: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run"):
        pretrain("causal-lm", store, trained, resume="never", **{"budget.steps": 24})


@pytest.mark.slow
def test_a_run_does_not_continue_on_other_data(corpus: Path, tmp_path: Path) -> None:
    """The store was made anew from other texts between two starts: the old checkpoint belongs to other token ids."""
    data = tmp_path / "store"
    prepare_text([corpus], data, TextConfig(vocab_size=300, held_out_share=0.1))
    pretrain("causal-lm", data, tmp_path / "run")
    info = run_info(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(info | {"status": "stopped"}))
    shutil.rmtree(data)
    prepare_text([write_corpus(tmp_path / "other", seed=5)], data, TextConfig(vocab_size=300, held_out_share=0.1))
    with pytest.raises(UsageError, match=r"other data"):
        pretrain("causal-lm", data, tmp_path / "run")


# continuing from weights


@pytest.mark.slow
@pytest.mark.parametrize("slug", METHODS)
def test_init_continues_from_the_weights_of_a_run(slug: str, store: Path, tmp_path: Path) -> None:
    """With a rate of nearly zero, what comes out is what went in."""
    first = pretrain(slug, store, tmp_path / "first")
    second = pretrain(slug, store, tmp_path / "second", init=first.folder, seed=9, **{"optimizer.learning_rate": 1e-12})
    other = pretrain(slug, store, tmp_path / "other", seed=9, **{"optimizer.learning_rate": 1e-12})
    for name, raw in weight_files(first.folder).items():
        mine = load(weight_files(second.folder)[name])
        fresh = load(weight_files(other.folder)[name])
        largest = 0.0
        for key, value in load(raw).items():
            torch.testing.assert_close(mine[key], value, atol=1e-6, rtol=0, msg=f"{name} {key}")
            largest = max(largest, float((fresh[key] - value).abs().max()))
        assert largest > 1e-2, "another seed alone begins elsewhere"


@pytest.mark.slow
def test_init_of_a_masked_model_does_not_start_causally_again(store: Path, tmp_path: Path) -> None:
    first = pretrain("mlm", store, tmp_path / "first")
    second = pretrain("mlm", store, tmp_path / "second", init=first.folder)
    assert {line["phase"] for line in records(first.folder, "metrics")} == {"causal", "masked"}
    assert {line["phase"] for line in records(second.folder, "metrics")} == {"masked"}


def test_init_brings_its_tokenizer_to_raw_data(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", corpus, tmp_path / "run", init=trained, dry_run=True)
    mine = json.loads((Path(run.info["data"][0]["store"]) / "tokenizer.json").read_text())
    assert mine["model"]["vocab"] == json.loads((trained / "export" / "tokenizer.json").read_text())["model"]["vocab"]


def test_init_brings_its_tokenizer_to_a_smoke_run(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", corpus, tmp_path / "run", init=trained, dry_run=True, smoke=True)
    mine = json.loads((Path(run.info["data"][0]["store"]) / "tokenizer.json").read_text())
    assert mine["model"]["vocab"] == json.loads((trained / "export" / "tokenizer.json").read_text())["model"]["vocab"]


def test_a_store_of_another_vocabulary_than_the_model_is_refused(corpus: Path, trained: Path, tmp_path: Path) -> None:
    other = prepare_text([corpus], tmp_path / "store", TextConfig(vocab_size=200)).folder
    with pytest.raises(UsageError, match="tokenizer"):
        pretrain("causal-lm", other, tmp_path / "run", init=trained)


@pytest.mark.parametrize(("slug", "kind", "limit"), [("mlm", "bert", 16), ("mlm", "roberta", 31), ("causal-lm", "gpt2", 16)])
def test_rows_longer_than_the_positions_of_the_model_are_refused(slug: str, kind: str, limit: int, store: Path, tmp_path: Path) -> None:
    """RoBERTa's first position is its padding id + 1, so two rows of its table are never used."""
    opened = open_text_store(store)
    size: dict[str, Any] = {"vocab_size": opened.vocab_size, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    wide: dict[str, Any] = {**size, "intermediate_size": 48}
    model: Any = {
        "bert": lambda: BertForMaskedLM(BertConfig(**wide, max_position_embeddings=16)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**wide, max_position_embeddings=33, pad_token_id=1)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**size, n_inner=48, n_positions=16)),
    }[kind]()
    save_model_folder(model, opened.tokenizer, tmp_path / "model")
    settings = {"init": tmp_path / "model", "text.vocab_size": opened.vocab_size}
    with pytest.raises(UsageError, match=f"Rows of 32 tokens do not fit the {limit} positions"):
        pretrain(slug, store, tmp_path / "run", **settings)
    run = pretrain(slug, store, tmp_path / "short", **settings, **{"method.sequence_length": limit, "budget.steps": 1})
    assert run.info["status"] == "done"


def test_init_of_something_else_is_refused(store: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        pretrain("causal-lm", store, tmp_path / "run", init=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: config\.json is missing"):
        pretrain("causal-lm", store, tmp_path / "run2", init=tmp_path / "empty")


# numbers that are not numbers, averages, micro-batches


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(store: Path, tmp_path: Path) -> None:
    late = {"trainer.evaluate_every": 40, "trainer.checkpoint_every": 40}  # only log steps can see it
    with pytest.raises(Diverged) as caught:
        pretrain("causal-lm", store, tmp_path / "run", **late, **{"optimizer.learning_rate": 1e30, "budget.steps": 40})
    assert caught.value.exit_code == 5
    step = last_step(tmp_path / "run") - 1  # the log step after it
    assert caught.value.what.startswith(f"Loss or gradient is no finite number at step {step}. The first module that made one: model.")
    assert last_step(tmp_path / "run") < 40
    info = run_info(tmp_path / "run")
    assert info["status"] == "failed"
    assert "Diverged" in info["error"]
    assert records(tmp_path / "run", "metrics")[-1]["gradient_norm"] is None, "JSON has no NaN"
    assert not (tmp_path / "run" / "export").exists()


def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(store: Path, tmp_path: Path) -> None:
    """Checkpoints come more often than log lines here: the divergence must be seen before the checkpoint."""
    settings = {"optimizer.learning_rate": 1e30, "trainer.log_every": 20, "trainer.checkpoint_every": 1, "trainer.evaluate_every": 40}
    with pytest.raises(Diverged):
        pretrain("causal-lm", store, tmp_path / "run", **settings, **{"budget.steps": 40})
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-*"):
        state = load_checkpoint(checkpoint)[1]["method"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point()), checkpoint.name


def test_the_average_of_the_weights_is_exported_and_the_weights_themselves_go_on(store: Path, tmp_path: Path) -> None:
    plain = pretrain("causal-lm", store, tmp_path / "plain")
    run = pretrain("causal-lm", store, tmp_path / "run", **{"trainer.ema_decay": 0.9})
    _, state = load_checkpoint(run.folder / "checkpoints" / "step-00000006")
    exported = AutoModel.from_pretrained(run.export)
    average = state["ema"]["average"]
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, average[f"model.model.{name}"], atol=0, rtol=0)
    own = load_checkpoint(plain.folder / "checkpoints" / "step-00000006")[1]["method"]
    assert all(torch.equal(own[name], value) for name, value in state["method"].items()), "averaging does not change training"
    assert any(not torch.equal(average[name], own[name]) for name in average)


@pytest.mark.slow
def test_the_average_follows_weights_that_a_phase_puts_in_place(store: Path, tmp_path: Path) -> None:
    """ELECTRA copies its generator into the discriminator; an average that remembers the random discriminator would be neither."""
    run = pretrain("electra", store, tmp_path / "run", **{"trainer.ema_decay": 0.99, "budget.steps": 10, "method.generator_start": 8})
    state = load_checkpoint(run.folder / "checkpoints" / "step-00000010")[1]
    average, own = state["ema"]["average"], state["method"]
    name = next(name for name in average if name.startswith("main.") and name.endswith("mlp.Wi.weight"))
    assert float((average[name] - own[name]).abs().max()) < 0.2 * float(own[name].abs().max())


@pytest.mark.promise("The micro-batch changes memory, not results: the loss is the mean over the global batch however it is cut.")
@pytest.mark.slow
@pytest.mark.parametrize("slug", METHODS)
def test_micro_batches_give_the_losses_of_the_whole_batch(slug: str, store: Path, tmp_path: Path) -> None:
    """Also where rows are padded, so that micro-batches hold different numbers of tokens."""
    settings = {"budget.steps": 12, "trainer.log_every": 1, "schedule.warmup_share": 0.5, "optimizer.learning_rate": 1e-3}
    whole = pretrain(slug, store, tmp_path / "whole", **settings)
    cut = pretrain(slug, store, tmp_path / "cut", **settings, **{"trainer.micro_batch": 2})
    assert cut.info["decisions"]["micro_batch"] == 2
    for one, other in zip(records(whole.folder, "metrics"), records(cut.folder, "metrics"), strict=True):
        for name in ("loss", "mlm_loss", "disc_loss", "causal_loss"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=3e-6, abs=1e-6), f"{name} at step {one['step']}"


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="micro-batch 3 does not divide the global batch 8"):
        pretrain("causal-lm", store, tmp_path / "run", **{"trainer.micro_batch": 3})


# data


@pytest.mark.promise("Nothing is ever written into the user's data.")
def test_nothing_is_written_into_the_data_folder(corpus: Path, tmp_path: Path) -> None:
    before = files(corpus)
    pretrain("causal-lm", corpus, tmp_path / "run", dry_run=True)
    assert files(corpus) == before
    assert next((tmp_path / "stores").iterdir()).name.startswith("text-")


def test_bad_records_stop_the_run_before_training_or_are_set_aside_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "good.jsonl", [{"text": text} for text in documents(120)])
    with (folder / "good.jsonl").open("a") as file:
        file.write('{"text": "half a rec\n')
    with pytest.raises(BadInput, match=r"good\.jsonl, record 121") as caught:
        pretrain("causal-lm", folder, tmp_path / "run")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    said: list[str] = []
    run = pretrain("causal-lm", folder, tmp_path / "run", said.append, **{"text.on_bad_input": "quarantine"})
    store = Path(run.info["data"][0]["store"])
    assert run.info["data"][0]["counts"]["quarantined"] == 1
    assert json.loads((store / "quarantine.jsonl").read_text())["record"] == 121
    assert "1 bad record" in said[-1]
    assert str(store / "quarantine.jsonl") in said[-1]


def test_a_corpus_without_held_out_documents_still_trains(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": text} for text in documents(40)])
    run = pretrain("causal-lm", path, tmp_path / "run", **{"text.held_out_share": 0.0})
    assert run.info["status"] == "done"
    assert not (run.folder / "probes.jsonl").exists()


def test_one_short_document_is_enough_to_run(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("The old boat returns.\n")
    run = pretrain("mlm", path, tmp_path / "run", **{"text.held_out_share": 0.0})
    assert run.info["status"] == "done"


def test_no_data_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No data is given"):
        pretrain("causal-lm", (), tmp_path / "run")


def test_a_run_folder_that_cannot_be_made_is_wrong_usage(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        pretrain("causal-lm", store, tmp_path / "file" / "run")


def test_a_folder_with_other_files_is_no_place_for_a_run(store: Path, tmp_path: Path) -> None:
    """Also not for cleaning up."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".rehearsal-mine").mkdir()
    with pytest.raises(UsageError, match="holds other files"):
        pretrain("causal-lm", store, tmp_path)
    assert (tmp_path / ".rehearsal-mine").is_dir()


def test_a_run_inside_the_data_folder_is_refused(corpus: Path) -> None:
    before = files(corpus)
    with pytest.raises(UsageError, match="would lie inside the data folder"):
        pretrain("causal-lm", corpus, corpus / "runs" / "mine")
    assert files(corpus) == before


def test_leftovers_of_a_killed_process_are_removed(store: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", store, tmp_path / "run", dry_run=True).folder
    for name in (".rehearsal-abc/checkpoints", ".export-writing/half", "..export-writing.x1", "checkpoints/.writing-00000006"):
        (run / name).mkdir(parents=True)
    (run / ".run.json.123.tmp").write_text("{")
    pretrain("causal-lm", store, run)
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]
    assert not list((run / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_the_seed_decides_everything(store: Path, tmp_path: Path) -> None:
    one, again, other = (pretrain("mlm", store, tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert weight_files(one.folder) == weight_files(again.folder)
    assert untimed(records(one.folder, "metrics")) == untimed(records(again.folder, "metrics"))
    assert not np.isclose(records(one.folder, "metrics")[0]["loss"], records(other.folder, "metrics")[0]["loss"], atol=1e-6)


def test_tensorboard_draws_the_plateau_beside_its_loss(trained: Path, store: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tb"))
    events.Reload()
    entropy = json.loads((store / "manifest.json").read_text())["unigram_entropy"]
    assert {round(event.value, 4) for event in events.Scalars("unigram_entropy")} == {round(entropy, 4)}
    assert "loss" in events.Tags()["scalars"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
