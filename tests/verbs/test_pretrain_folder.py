"""What `pretrain` leaves in the folder of a run, what it says at the end, and the same command again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
)

from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.engine.checkpoint import load_checkpoint
from headstart.verbs.sample import load_run
from tests.corpus import write_corpus
from tests.running import METHODS, TIMES, records, run_info
from tests.verbs.pretraining import pretrain


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


def test_tensorboard_draws_the_plateau_beside_its_loss(trained: Path, store: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tb"))
    events.Reload()
    entropy = json.loads((store / "manifest.json").read_text())["unigram_entropy"]
    assert {round(event.value, 4) for event in events.Scalars("unigram_entropy")} == {round(entropy, 4)}
    assert "loss" in events.Tags()["scalars"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]


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


def test_leftovers_of_a_killed_process_are_removed(store: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", store, tmp_path / "run", dry_run=True).folder
    for name in (".rehearsal-abc/checkpoints", ".export-writing/half", "..export-writing.x1", "checkpoints/.writing-00000006"):
        (run / name).mkdir(parents=True)
    (run / ".run.json.123.tmp").write_text("{")
    pretrain("causal-lm", store, run)
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]
    assert not list((run / "checkpoints").glob(".*"))
