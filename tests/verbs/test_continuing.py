"""A run that begins with a finished model: the rates and moments it takes from the old run, what it refuses, and what it warns of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import sha256_file
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.engine.text_method import TextMethod
from headstart.interventions.rewarm.config import RewarmConfig
from headstart.verbs._continuing import began_with, has_chat_template, unfamiliar
from headstart.verbs.pretrain import Run, pretrain
from tests.corpus import documents, write_jsonl, write_old_and_new
from tests.running import TINY, records

SETTINGS: dict[str, Any] = TINY | {
    "method.packing": "stream",
    "text.tokenizer_kind": "bpe",
    "text.held_out_share": 0.2,
    "budget.steps": 20,
    "trainer.evaluate_every": 10,
    "trainer.checkpoint_every": 10,
    "trainer.part_rows": 4,
}
OLD_PEAK = 4e-3
RELATIVE = {"rewarm.preset": "relative"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_old_and_new(tmp_path_factory.mktemp("continuing"))


@pytest.fixture(scope="module")
def old_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"optimizer.learning_rate": OLD_PEAK, "schedule.name": "cosine", "schedule.minimum_share": 0.1}
    return pretrain("causal-lm", [str(texts / "old.jsonl")], out=tmp_path_factory.mktemp("old") / "run", say=lambda line: None, **SETTINGS | settings)


@pytest.fixture
def model(old_run: Run, tmp_path: Path) -> Path:
    """Its export alone, which no longer knows its rates."""
    return Path(shutil.copytree(old_run.export, tmp_path / "model"))


def go_on(texts: Path, out: Path, init: Path, data: list[str] | None = None, **settings: Any) -> tuple[Run, list[str]]:
    said: list[str] = []
    run = pretrain("causal-lm", data or [f"new={texts}/new.jsonl"], out=out, say=said.append, init=init, **SETTINGS | settings)
    return run, said


def plan(texts: Path, out: Path, init: Path, data: list[str] | None = None, **settings: Any) -> list[str]:
    """The lines of a dry run."""
    return go_on(texts, out, init, data, dry_run=True, **settings)[1]


# the rates


@pytest.mark.slow
def test_a_run_rises_to_the_recorded_peak_and_says_its_rates(texts: Path, old_run: Run, tmp_path: Path) -> None:
    run, said = go_on(texts, tmp_path / "run", old_run.folder, **RELATIVE | {"rewarm.warmup_steps": 4, "trainer.log_every": 1})
    rates = [line["learning_rate"] for line in records(run.folder, "metrics")]
    assert rates[0] == pytest.approx(OLD_PEAK / 4), "the first update is not at rate 0"
    assert max(rates) == rates[4] == pytest.approx(OLD_PEAK)
    assert rates[-1] < 0.15 * OLD_PEAK
    old_rate = began_with(old_run.folder).last_rate  # type: ignore[union-attr]
    assert old_rate == records(old_run.folder, "metrics")[-1]["learning_rate"]
    (line,) = [line for line in said if line.startswith("  rates ")]
    assert f"the old run ended at {old_rate:.3g}; first 0.001, peak 0.004, last" in line
    assert run.info["config"]["rewarm"]["old_rate"] == old_rate
    assert {"optimizer.learning_rate", "rewarm.old_rate"} <= set(run.info["from_init"])


@pytest.mark.slow
def test_what_was_learned_and_what_it_began_with_lies_beside_the_export(texts: Path, old_run: Run, tmp_path: Path) -> None:
    run, said = go_on(texts, tmp_path / "run", old_run.folder, **RELATIVE)
    record = json.loads((run.export / "rewarm.json").read_text())
    assert record["upstream"]["sha256"] == {"model.safetensors": sha256_file(old_run.export / "model.safetensors")}
    assert (record["upstream"]["peak"], record["peak"], record["steps"]) == (OLD_PEAK, OLD_PEAK, 20)
    assert record["schedule"]["preset"] == "relative"
    at = {(line["step"], line["probe"]): line["value"] for line in records(run.folder, "probes")}
    assert set(record["losses"]) == {"new", "old"}
    assert record["losses"]["old"]["first"] == at[0, "held_out_loss/old"]
    assert record["losses"]["old"]["last"] == at[20, "held_out_loss/old"]
    assert any(line.startswith("Held-out loss (nats a token): new ") for line in said)


@pytest.mark.slow
def test_the_constant_run_goes_on_at_the_last_rate(texts: Path, old_run: Run, tmp_path: Path) -> None:
    run, _ = go_on(texts, tmp_path / "run", old_run.folder, **{"rewarm.preset": "constant"})
    rates = {line["learning_rate"] for line in records(run.folder, "metrics")}
    assert rates == {began_with(old_run.folder).last_rate}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "peak"),
    [
        ({"rewarm.preset": "relative", "rewarm.peak_ratio": 0.5}, 2e-3),
        ({"rewarm.preset": "relative", "optimizer.learning_rate": 7e-3}, 7e-3),
        ({"rewarm.preset": "paper-410m-plastic"}, 6e-4),
    ],
    ids=["half", "given", "paper"],
)
def test_the_peak_is_given_of_the_preset_or_recorded(settings: dict[str, Any], peak: float, texts: Path, old_run: Run, tmp_path: Path) -> None:
    assert any(f"peak {peak:.3g}, last" in line for line in plan(texts, tmp_path / "run", old_run.folder, **settings))


WITHOUT_BATCH = {name: value for name, value in SETTINGS.items() if name != "batch"}


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (RELATIVE, 8),
        ({"rewarm.preset": "constant"}, 8),
        (RELATIVE | {"batch": 12}, 12),
        ({"rewarm.preset": "paper-410m"}, 32),
        ({"optimizer.learning_rate": 1e-3}, 32),
    ],
    ids=["relative", "constant", "given", "paper", "no-re-warming"],
)
def test_the_old_peak_comes_with_the_batch_that_it_was_chosen_for(
    settings: dict[str, Any], rows: int, texts: Path, old_run: Run, tmp_path: Path
) -> None:
    """The old run had 8 rows, the preset has 32."""
    said: list[str] = []
    given = WITHOUT_BATCH | {"dry_run": True} | settings
    run = pretrain("causal-lm", [f"new={texts}/new.jsonl"], out=tmp_path / "run", say=said.append, init=old_run.folder, **given)
    assert any(f"20 steps of {rows} rows" in line for line in said)
    assert run.info["config"]["batch"] == rows
    assert ("batch" in run.info["from_init"]) == (rows == 8)
    assert any("as in the run that the model is of" in line for line in said) == (rows == 8)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"trainer.micro_batch": 16}, "micro-batches of 16 rows do not divide them"),
        ({"method.sequence_length": 16}, "they had 32 tokens, these have 16"),
    ],
    ids=["micro-batch", "row-length"],
)
def test_a_batch_of_the_old_run_that_does_not_fit_is_not_taken_and_that_is_said(
    settings: dict[str, Any], why: str, texts: Path, old_run: Run, tmp_path: Path
) -> None:
    said: list[str] = []
    given = WITHOUT_BATCH | RELATIVE | {"dry_run": True} | settings
    run = pretrain("causal-lm", [f"new={texts}/new.jsonl"], out=tmp_path / "run", say=said.append, init=old_run.folder, **given)
    assert run.info["config"]["batch"] == 32
    assert any(line.startswith("An update has 32 rows, not the 8 of the old run") and why in line for line in said)


def test_a_first_loss_is_judged_for_likelihoods_alone_and_named_where_it_is_no_number() -> None:
    corpus: Any = SimpleNamespace(stores=[SimpleNamespace(unigram_entropy=3.0)])
    told = lambda loss, likelihood=True: list(unfamiliar(SimpleNamespace(likelihood=likelihood), corpus, {"held_out/loss": loss}))  # type: ignore[arg-type]  # noqa: E731
    assert told(float("nan"), likelihood=False) == told(9.0, likelihood=False) == told(2.9) == []
    assert "no better than the shares of the tokens alone would (3.00)" in told(3.1)[0]
    assert "is nan: no finite number" in told(float("nan"))[0]


def test_a_run_with_the_batch_of_the_old_one_goes_on_with_it(texts: Path, old_run: Run, tmp_path: Path) -> None:
    run = lambda **more: pretrain(  # noqa: E731
        "causal-lm", [f"new={texts}/new.jsonl"], out=tmp_path / "run", say=lambda line: None, init=old_run.folder, **WITHOUT_BATCH | RELATIVE | more
    )
    run(**{"trainer.stop_at": 10})
    done = run()
    assert (done.info["status"], done.info["totals"]["tokens"]) == ("done", 20 * 8 * 32)
    with pytest.raises(UsageError, match=r"batch: 8 -> 16"):
        run(batch=16)


def test_a_checkpoint_in_the_middle_ended_at_its_own_rate(old_run: Run) -> None:
    middle = began_with(old_run.folder / "checkpoints" / "step-00000010" / "export")
    assert middle is not None
    assert middle.step == 10
    rates = {line["step"]: line["learning_rate"] for line in records(old_run.folder, "metrics")}
    assert middle.last_rate == rates[10] > rates[20]
    assert middle.checkpoint() == old_run.folder / "checkpoints" / "step-00000010"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RELATIVE, "does not record its peak"),
        ({"rewarm.preset": "constant"}, "does not record the rate at which it ended"),
        (RELATIVE | {"optimizer.learning_rate": 1e-3, "rewarm.warmup_start": "floor"}, "needs the rate at which the old run ended"),
        (RELATIVE | {"optimizer.learning_rate": 1e-3, "rewarm.optimizer_state": "keep"}, "no checkpoint with the moments"),
    ],
    ids=["relative", "constant", "floor", "keep"],
)
def test_a_rate_that_nothing_records_is_asked_for(settings: dict[str, Any], message: str, texts: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        plan(texts, tmp_path / "run", model, **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RELATIVE | {"rewarm.peak_ratio": 2.0, "optimizer.learning_rate": 1e-3}, "both say how high the peak is"),
        (RELATIVE | {"schedule.warmup_share": 0.5}, "--schedule.warmup-share was given, and --rewarm decides the rate"),
        (RELATIVE | {"budget.steps": 19}, "this run has 19"),
        (RELATIVE | {"rewarm.moment_warmup_steps": 1}, "this run has 19 after 1 at rate 0"),
        (RELATIVE | {"rewarm.warmup_steps": 20}, "no later than the warm-up, which takes 20 of 20 steps"),
        (RELATIVE | {"rewarm.decay_fraction": 0.5}, "The decay would end at step 10, no later than the warm-up, which takes 10"),
        (RELATIVE | {"rewarm.optimizer_state": "keep", "optimizer.name": "muon"}, "The moments .* are those of adamw, not of muon"),
        (RELATIVE | {"method.sequence_length": 64}, "Rows of 64 tokens are longer than the 32 positions"),
    ],
)  # fmt: skip
def test_what_no_continued_run_can_have_is_refused_with_its_numbers(
    settings: dict[str, Any], message: str, texts: Path, old_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(texts, tmp_path / "run", old_run.folder, **settings)


def test_rows_are_no_longer_than_the_model_where_nobody_says_so(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """The preset's rows have 64 tokens, the old run's 32."""
    settings = {name: value for name, value in SETTINGS.items() if name != "method.sequence_length"}
    said: list[str] = []
    pretrain("causal-lm", [f"new={texts}/new.jsonl"], out=tmp_path / "run", say=said.append, init=old_run.folder, dry_run=True, **settings | RELATIVE)
    assert any("rows of 32" in line for line in said)


def test_less_text_than_a_batch_is_refused(texts: Path, old_run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "short.jsonl", [{"text": text} for text in documents(8, 3)])
    with pytest.raises(BadInput, match="less than one batch of 200") as caught:
        plan(texts, tmp_path / "run", old_run.folder, [f"new={tmp_path}/short.jsonl"], **RELATIVE | {"batch": 200})
    assert "short.jsonl" in str(caught.value.file)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RewarmConfig(shape="linear"), "but it is off"),
        (RewarmConfig(preset="relative", warmup_fraction=1.0), "--rewarm.warmup-fraction is 1.0"),
        (RewarmConfig(preset="relative", min_ratio=1.5), "above the peak"),
        (RewarmConfig(preset="relative", decay_fraction=1.2), "never ends"),
        (RewarmConfig(preset="relative", warmup_fraction=0.1, warmup_steps=5), "no --rewarm.warmup-fraction beside it"),
        (RewarmConfig(preset="relative", peak_ratio=0.0), "--rewarm.peak-ratio is 0.0"),
        (RewarmConfig(preset="relative", shape="inv_sqrt_infinite", hold_ratio=0.05), "The held rate is 0.05 of the peak"),
        (RewarmConfig(preset="relative", cooldown_end=0.9), "The cool-down ends at 0.9"),
        (RewarmConfig(preset="relative", moment_warmup_steps=-1), "--rewarm.moment-warmup-steps is -1"),
        (RewarmConfig(preset="relative", old_rate=-1.0), "--rewarm.old-rate is -1.0"),
        (RewarmConfig(preset="constant", peak_ratio=2.0), "--rewarm.peak-ratio is given, and --rewarm.preset constant has one rate"),
        (RewarmConfig(preset="constant", warmup_steps=5), "--rewarm.warmup-steps is given, and --rewarm.preset constant has one rate"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_settings_that_make_no_schedule_are_refused(config: RewarmConfig, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.check()
    assert message in f"{caught.value.what} {caught.value.mend}"


# warnings


def warned(lines: list[str]) -> str:
    return "\n".join(line for line in lines if line.startswith("  WARNING"))


def test_a_chat_model_on_raw_text_is_warned_of(texts: Path, model: Path, tmp_path: Path) -> None:
    assert "chat" not in warned(plan(texts, tmp_path / "plain", model, **RELATIVE | {"optimizer.learning_rate": 1e-3}))
    (model / "hashes.json").unlink()
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert "is a chat or instruction model" in warned(plan(texts, tmp_path / "chat", model, **RELATIVE | {"optimizer.learning_rate": 1e-3}))


@pytest.fixture(scope="module")
def able(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has left the plateau, alone."""
    place = tmp_path_factory.mktemp("able")
    settings = SETTINGS | {"budget.steps": 150, "optimizer.learning_rate": 1e-2, "text.vocab_size": 340, "trainer.checkpoint_every": 150}
    run = pretrain("causal-lm", [str(texts / "old.jsonl")], out=place / "run", say=lambda line: None, **settings)
    return Path(shutil.copytree(run.export, place / "model"))


def with_tokenizer(model: Path, place: Path, entries: int, texts: Path) -> Path:
    """The model beside a tokenizer of another text."""
    shutil.copytree(model, place)
    (place / "hashes.json").unlink()
    store = prepare_text([texts / "new.jsonl"], place.parent / f"store-{entries}", TextConfig(vocab_size=entries, tokenizer_kind="bpe"))
    assert store.vocab_size == entries
    shutil.copy(store.folder / "tokenizer.json", place / "tokenizer.json")
    return place


@pytest.mark.parametrize("entries", [300, 340], ids=["fewer", "as-many"])
def test_a_tokenizer_that_is_not_the_models_own_is_warned_of(entries: int, texts: Path, able: Path, tmp_path: Path) -> None:
    """By its size where it is smaller; by the first loss in any case: the pieces mean something else to the network."""
    peak = RELATIVE | {"optimizer.learning_rate": 1e-3}
    own = warned(plan(texts, tmp_path / "own", able, **peak | {"text.vocab_size": 340}))
    assert "the tokenizer has" not in own
    assert "no better than the shares" not in own
    other = warned(plan(texts, tmp_path / "other", with_tokenizer(able, tmp_path / "model", entries, texts), **peak | {"text.vocab_size": entries}))
    assert ("the tokenizer has 300 entries, the network 340 rows" in other) == (entries == 300)
    assert "no better than the shares of the tokens alone would" in other


def test_a_tokenizer_with_more_entries_than_the_network_is_refused_before_a_text_is_prepared_with_it(
    texts: Path, able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = with_tokenizer(able, tmp_path / "model", 380, texts)
    monkeypatch.delattr(TextMethod, "prepare")
    with pytest.raises(BadInput, match=r"its tokenizer has 380 entries, the network 340\."):
        plan(texts, tmp_path / "run", larger, **RELATIVE | {"optimizer.learning_rate": 1e-3, "text.vocab_size": 380})


def test_a_chat_template_may_stand_in_the_tokenizer_s_settings(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": ""}')
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert has_chat_template(tmp_path)


@pytest.mark.parametrize(("steps", "is_long"), [(2, False), (3, True)])
def test_a_warm_up_longer_than_a_tenth_is_warned_of(steps: int, is_long: bool, texts: Path, old_run: Run, tmp_path: Path) -> None:
    lines = plan(texts, tmp_path / "run", old_run.folder, **RELATIVE | {"rewarm.warmup_steps": steps})
    assert ("more than a tenth seldom helps" in warned(lines)) == is_long


def test_no_replay_is_warned_of_with_the_flags_that_mend_it(texts: Path, old_run: Run, tmp_path: Path) -> None:
    store = old_run.info["data"][0]["store"]
    lines = warned(plan(texts, tmp_path / "without", old_run.folder, **RELATIVE))
    assert f"--data new={texts}/new.jsonl old={store} --mix new=0.9,old=0.1" in lines
    assert "forgetting will not be seen" not in lines, "the store of the old run is measured"
    assert "replayed" not in warned(plan(texts, tmp_path / "with", old_run.folder, mix="new=0.9,old=0.1", **RELATIVE))


def test_text_without_names_says_that_forgetting_is_not_seen(texts: Path, old_run: Run, tmp_path: Path) -> None:
    lines = warned(plan(texts, tmp_path / "run", old_run.folder, [f"{texts}/new.jsonl"], **RELATIVE))
    assert "forgetting will not be seen" in lines
    assert "--data new=" in lines


def test_held_out_text_that_the_old_run_was_trained_on_is_warned_of(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """A document is held out by its hash: with the share of the old run the same ones are, with a larger one also such as it was trained on."""
    data = [f"new={texts}/new.jsonl", f"old={texts}/old.jsonl"]
    assert "were trained on by" not in warned(plan(texts, tmp_path / "same", old_run.folder, data, **RELATIVE))
    lines = warned(plan(texts, tmp_path / "larger", old_run.folder, data, **RELATIVE | {"text.held_out_share": 0.3}))
    assert f"of the held-out documents of 'old' were trained on by {old_run.folder}: their loss says more of memory" in lines
    assert "--data old:held-out=FILE, or hold out the documents that it held out: --text.held-out-share 0.2" in lines
    assert "documents of 'new' were trained on" not in lines
    nameless = warned(plan(texts, tmp_path / "nameless", old_run.folder, data[1:2], mix=None, **RELATIVE | {"text.held_out_share": 0.3}))
    assert "were trained on by" in nameless
    whole = [f"new={texts}/new.jsonl", f"old:held-out={texts}/old.jsonl"]
    measured = warned(plan(texts, tmp_path / "whole", old_run.folder, whole, **RELATIVE))
    counts = old_run.info["data"][0]["counts"]
    trained = counts["documents"] - counts["held_out_documents"] - counts["near_duplicate_documents"]
    assert f"{trained / counts['documents']:.0%} of the held-out documents of 'old'" in measured


def test_re_warming_without_a_model_is_said_and_the_old_schedule_is_not_shown(texts: Path, old_run: Run, tmp_path: Path) -> None:
    said: list[str] = []
    settings = SETTINGS | RELATIVE | {"schedule.warmup_share": 0.3}
    with pytest.raises(UsageError, match=r"--schedule\.warmup-share was given"):
        pretrain("causal-lm", [f"{texts}/new.jsonl"], out=tmp_path / "both", say=said.append, **settings)
    pretrain("causal-lm", [f"{texts}/new.jsonl"], out=tmp_path / "fresh", say=said.append, dry_run=True, **SETTINGS | RELATIVE)
    assert "there is no --init: this run starts from random weights" in warned(said)
    lines = plan(texts, tmp_path / "run", old_run.folder, **RELATIVE)
    assert "there is no --init" not in warned(lines)
    (shown,) = [line for line in lines if line.startswith("  settings ")]
    assert "rewarm.preset=relative" in shown
    assert "schedule." not in shown, "a preset's warm-up, which re-warming replaces"


def test_held_out_old_text_in_the_new_is_warned_of(texts: Path, old_run: Run, tmp_path: Path) -> None:
    clean = plan(texts, tmp_path / "clean", old_run.folder, **RELATIVE)
    assert "13-word windows" not in warned(clean)
    copied = plan(texts, tmp_path / "copied", old_run.folder, [f"new={texts}/old.jsonl"], **RELATIVE | {"text.held_out_share": 0.0})
    assert "100% of the 13-word windows of the held-out 'old' text stand in 'new'" in warned(copied)


def test_parts_that_are_the_same_text_are_warned_of(texts: Path, old_run: Run, tmp_path: Path) -> None:
    data = [f"new={texts}/new.jsonl", f"old={texts}/old.jsonl"]
    assert "are the same text" not in warned(plan(texts, tmp_path / "two", old_run.folder, data, mix="new=0.7,old=0.3", **RELATIVE))
    (tmp_path / "half.jsonl").write_text("".join((texts / "old.jsonl").read_text().splitlines(keepends=True)[:40]))
    same = [f"new={tmp_path}/half.jsonl", data[1]]
    lines = warned(plan(texts, tmp_path / "same", old_run.folder, same, mix="new=0.7,old=0.3", **RELATIVE))
    assert "'new' and 'old' are the same text for 100% of their held-out documents" in lines


def test_weights_that_are_no_finite_number_are_refused_by_name(texts: Path, model: Path, tmp_path: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = float("inf")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (model / "hashes.json").unlink()
    with pytest.raises(BadInput, match=r"model\.norm\.weight holds numbers that are not finite"):
        plan(texts, tmp_path / "run", model, **RELATIVE | {"optimizer.learning_rate": 1e-3})
