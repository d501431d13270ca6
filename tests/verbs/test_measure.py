"""`measure`: sharpness of a run of every method, exact loss, model folders, and what is refused."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.files import write_grammar
from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.language import find_language
from headstart.verbs._measure_settings import SharpnessSettings
from headstart.verbs.measure import in_float32, measure, rows_of, sharpness_of, work
from headstart.verbs.pretrain import Run, pretrain
from headstart.verbs.sample import load_run
from tests.corpus import documents, write_jsonl
from tests.golden.record import OF_METHOD, corpus
from tests.running import TINY, records, start, wait_until

QUICK: dict[str, Any] = {"batches": 2, "batch": 4, "probes": 4, "iterations": 2, "device": "cpu"}
ON_TINY: dict[str, Any] = {
    "batch": 32, "budget.steps": 30, "precision": "fp32", "device": "cpu", "optimizer.learning_rate": 1e-2, "trainer.evaluate_rows": 32,
    "method.hidden_size": 16, "method.num_layers": 1, "method.num_heads": 2, "method.intermediate_size": 24, "method.sequence_length": 6,
}  # fmt: skip
PRE_NORM = {"method.architecture": "roberta-prelayernorm", "method.packing": "single", "method.causal_start": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("tiny") / "run"
    settings = ON_TINY | PRE_NORM | {"method.dropout": 0.1}
    return pretrain("mlm", "builtin:pcfg-tiny?sentences=3000", out=out, say=lambda line: None, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(OF_METHOD))
def test_every_method_can_be_measured(method: str, tmp_path: Path) -> None:
    settings = OF_METHOD[method] | {"budget.steps": 2} | ({"method.causal_start": 0} if "method.causal_start" in OF_METHOD[method] else {})
    settings |= {"method.generator_start": 0} if "method.generator_start" in settings else {}
    run = pretrain(method, corpus(method, tmp_path), out=tmp_path / "run", say=lambda line: None, **settings)
    found = measure("sharpness", run.folder, say=lambda line: None, split="train", **QUICK)
    assert np.isfinite([found.loss, found.trace.mean, found.largest_eigenvalue, found.sam, found.adaptive_sam, found.average]).all()
    assert found.sam > 0
    assert sum(part.trace for part in found.layers) == pytest.approx(found.trace.mean, rel=1e-6)
    assert any(part.trace != 0 for part in found.matrices)
    assert any("UNRELIABLE" in note for note in found.notes)  # 8 estimates


@pytest.mark.slow
def test_estimate_and_exact_trace_agree(tiny: Run) -> None:
    settings = QUICK | {"objective": "single", "iterations": 0, "batch": 16}
    exact = measure("sharpness", tiny.folder, say=lambda line: None, exact=True, **settings)
    drawn = measure("sharpness", tiny.folder, say=lambda line: None, **settings | {"probes": 150, "relative_error": 0.0})
    assert exact.trace.standard_error == 0
    assert abs(drawn.trace.mean - exact.trace.mean) < 4 * drawn.trace.standard_error
    assert drawn.loss == pytest.approx(exact.loss)
    by_part = {part.name: part.trace for part in exact.layers}
    assert list(by_part) == ["embeddings", "layer 1", "heads"]
    assert drawn.layers[0].trace == pytest.approx(by_part["embeddings"], rel=0.2)


def test_the_number_of_products_follows_the_time_of_one() -> None:
    settings, said = SharpnessSettings(minutes=1.0), list[str]()
    assert work(settings, 4, 1e-4, said.append) == (200, 30)  # 60 s suffice for all: 600,000 products
    assert said == []  # 0.1 s of work
    assert work(settings, 4, 0.1, said.append) == (120, 30)  # 150 products on each batch: a fifth for the eigenvalue
    assert said[-1].startswith("At most 600 Hessian-vector products of 0.1 s, about 1\u202fmin: 120 x 4 for the trace, fewer where 2% of")
    assert work(settings, 4, 5.0, said.append) == (13, 5)  # never fewer than 50 estimates and 5 iterations
    given = replace(settings, probes=7, iterations=0)
    assert work(given, 4, 5.0, said.append) == (7, 0)
    assert "largest eigenvalue" not in said[-1]


def test_ctrl_c_keeps_what_was_measured(tiny: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    endless = ["--batch", "4", "--batches", "2", "--probes", "1000000", "--relative-error", "0"]
    process = start("measure", "sharpness", tiny.folder, *endless, "--json", log=log)
    wait_until(lambda: "At most 2,000,060 Hessian-vector products" in log.read_text(), process, log)
    time.sleep(3)  # rounds of the trace, which begins at 50 estimates
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    said = log.read_text()
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert found["stopped"]
    assert 50 <= found["trace"]["estimates"] < 2_000_000
    assert found["largest_eigenvalue"] is None
    assert found["sam_sharpness"] > 0


def test_the_fisher_trace_is_of_the_models_own_labels(tiny: Run) -> None:
    settings = QUICK | {"objective": "single", "iterations": 0, "batch": 64, "probes": 200}
    fisher = measure("sharpness", tiny.folder, say=lambda line: None, labels="model", **settings)
    hessian = measure("sharpness", tiny.folder, say=lambda line: None, **settings)
    assert fisher.trace.mean > 0
    assert fisher.trace.mean == pytest.approx(hessian.trace.mean, rel=0.5)  # of one size, not equal: this model is not at the optimum


def test_a_larger_shape_computes_the_same_loss(tiny: Run, tmp_path: Path) -> None:
    wide = {"method.hidden_size": 32, "method.num_heads": 4, "method.intermediate_size": 48, "method.num_layers": 2}
    larger = pretrain("mlm", tiny.info["data"][0]["store"], out=tmp_path / "wide", say=lambda line: None, **ON_TINY | PRE_NORM | wide)
    own = measure("sharpness", tiny.folder, say=lambda line: None, objective="single", **QUICK)
    embedded = measure("sharpness", tiny.folder, say=lambda line: None, objective="single", enlarge_to=larger.folder, **QUICK)
    assert embedded.loss == pytest.approx(own.loss, abs=1e-5)
    assert embedded.parameters > 3 * own.parameters
    assert "what it computes is the same" in embedded.notes[0]
    with pytest.raises(UsageError, match="no multiple of 32"):
        measure("sharpness", larger.folder, say=lambda line: None, enlarge_to=tiny.folder, **QUICK)


def test_exact_loss_is_between_the_optimum_and_the_plateau(tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "loss-exact", str(tiny.folder), "--sentences", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    language = find_language("builtin:pcfg-tiny")
    assert found["optimum"] == pytest.approx(language.optimal_loss(language.test_sentences(100))[0])
    assert 0.05 < found["excess"] < found["unigram_entropy"] - found["optimum"] + 0.2
    assert found["kind"] == "masked"
    on_export = measure("loss-exact", tiny.export, language="builtin:pcfg-tiny", sentences=100, device="cpu", say=lambda line: None)
    assert on_export.loss.excess == pytest.approx(found["excess"])
    other = measure("loss-exact", tiny.folder, language="builtin:pcfg-tiny?seed=1", sentences=100, device="cpu", say=lambda line: None)
    assert other.loss.excess > found["excess"]  # it knows another language


def test_a_causal_model_has_an_exact_loss_too(tmp_path: Path) -> None:
    run = pretrain("causal-lm", "builtin:pcfg-tiny?sentences=3000", out=tmp_path / "run", say=lambda line: None, **ON_TINY)
    found = measure("loss-exact", run.folder, sentences=100, device="cpu", say=lambda line: None)
    assert found.kind == "causal"
    assert found.loss.places == 100 + int((find_language("builtin:pcfg-tiny").test_sentences(100) >= 0).sum())
    assert 0.0 < found.loss.excess < 1.0


def test_a_model_folder_is_measured_on_a_store(tiny: Run) -> None:
    lines: list[str] = []
    found = measure("sharpness", tiny.export, data=tiny.info["data"][0]["store"], say=lines.append, **QUICK)
    own = measure("sharpness", tiny.folder, say=lambda line: None, **QUICK)
    assert found.method == "mlm"
    assert found.trace.mean == pytest.approx(own.trace.mean, rel=0.5)
    assert any(line.startswith("trace of the Hessian") for line in lines)
    with pytest.raises(UsageError, match="its loss needs data"):
        measure("sharpness", tiny.export, say=lambda line: None, **QUICK)


def test_a_run_whose_held_out_text_is_a_file_of_its_own_is_measured_on_that(tmp_path: Path) -> None:
    """Its store has no held-out rows: all of it was trained on."""
    for name, seed in (("new", 0), ("val", 1)):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text} for text in documents(40, seed)])
    data = [f"new={tmp_path}/new.jsonl", f"new:held-out={tmp_path}/val.jsonl"]
    settings = TINY | {"budget.steps": 4, "text.tokenizer_kind": "bpe"}
    run = pretrain("causal-lm", data, out=tmp_path / "run", say=lambda line: None, **settings)
    found = measure("sharpness", run.folder, say=lambda line: None, **QUICK)
    last = [line["value"] for line in records(run.folder, "probes") if line["probe"] == "held_out_loss/new"][-1]
    assert found.loss == pytest.approx(last, abs=0.3)  # of 8 rows
    (apart,) = [entry["store"] for entry in run.info["measured"]]
    train = measure("sharpness", run.folder, data=apart, split="train", say=lambda line: None, **QUICK)
    assert train.loss == found.loss


def test_dropout_and_half_precision_are_switched_off_and_said(tiny: Run) -> None:
    method, store, _ = load_run(tiny.folder)
    settings = SharpnessSettings(tiny.folder, batches=2, batch=4, probes=2, iterations=0)
    one, two = (sharpness_of(method.train(), rows_of(method, store, settings), settings, torch.device("cpu")).loss for _ in range(2))
    assert one == two
    found = measure("sharpness", tiny.folder, say=lambda line: None, **QUICK)
    assert "dropout (0.1) was switched off" in found.notes
    assert not any("float32" in note for note in found.notes)
    assert in_float32(method.half()) == ["weights in float16 were turned into float32"]
    assert next(method.parameters()).dtype == torch.float32


def test_sentences_longer_than_the_table_of_positions_are_refused(tiny: Run) -> None:
    longer = "builtin:pcfg?grammar=" + str(tiny.folder / "grammar.txt")
    write_grammar(random_grammar(0, **SIZES["tiny"] | {"levels": 3}), tiny.folder / "grammar.txt")
    with pytest.raises(BadInput, match="rows of 10 tokens do not fit the 6 positions"):
        measure("loss-exact", tiny.folder, language=longer, sentences=20, device="cpu", say=lambda line: None)


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["measure", "flatness", "x"], "There is no measure 'flatness'."),
        (["measure", "sharpness"], "No model is given."),
        (["measure", "sharpness", "nowhere"], "nowhere is not a folder"),
        (["measure", "sharpness", "."], "."),
        (["measure", "sharpness", ".", "--probes", "0"], "--probes is 0"),
        (["measure", "sharpness", ".", "--relative-error", "1"], "--relative-error is 1."),
        (["measure", "sharpness", ".", "--exact", "--labels", "model"], "--exact is of the Hessian"),
        (["measure", "loss-exact", ".", "--sentences", "-1"], "--sentences is -1"),
        (["measure", "sharpness", ".", "--probe", "uniform"], "--probe cannot be 'uniform'"),
    ],
    ids=["name", "model", "folder", "no-model", "probes", "error", "exact", "sentences", "probe"],
)
def test_wrong_usage_is_two_lines(
    argv: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) in (2, 3)
    said = capsys.readouterr().err.strip().splitlines()
    assert said[0].startswith("headstart measure: ")
    assert what in said[0]
    assert len(said) == 2


def test_methods_without_a_mean_of_predictions_and_other_languages_are_refused(tiny: Run, tmp_path: Path) -> None:
    (tmp_path / "grammar.txt").write_text("S -> A [1.0]\nA -> 'x' [0.5] | 'y' [0.5]\n")
    with pytest.raises(BadInput, match="writes the word 'x'"):
        measure("loss-exact", tiny.folder, language=str(tmp_path / "grammar.txt"), device="cpu", say=lambda line: None)
    with pytest.raises(UsageError, match="has no setting 'probess'"):
        measure("sharpness", tiny.folder, probess=3)
    with pytest.raises(UsageError, match="which language"):
        measure("loss-exact", tiny.export, device="cpu", say=lambda line: None)
