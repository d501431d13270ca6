"""Named parts of the data: what a command may say, what it trains on, and what it measures apart."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import write_json
from headstart.data.text.store import open_text_store
from headstart.engine.parts import measuring_steps
from headstart.verbs._parts import NamedData, check_parts, mix_of, parts_of
from headstart.verbs.pretrain import Run, pretrain
from tests.corpus import documents, write_jsonl
from tests.running import TINY, records, run_info, untimed, weight_files

SETTINGS: dict[str, Any] = TINY | {
    "method.packing": "stream",
    "text.tokenizer_kind": "bpe",
    "text.vocab_size": 300,
    "text.held_out_share": 0.2,
    "budget.steps": 12,
    "trainer.evaluate_every": 5,
    "trainer.part_rows": 4,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """old.jsonl, new.jsonl and val.jsonl."""
    folder = tmp_path_factory.mktemp("parts")
    for seed, name in enumerate(("old", "new", "val")):
        write_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in documents(60, seed)])
    return folder


def train(data: Sequence[str], out: Path, **settings: Any) -> tuple[Run, list[str]]:
    said: list[str] = []
    run = pretrain("causal-lm", list(data), out=out, say=said.append, **SETTINGS | settings)
    return run, said


@pytest.fixture(scope="module")
def old_run(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train([f"{texts}/old.jsonl"], tmp_path_factory.mktemp("old") / "run", **{"trainer.checkpoint_every": 12})[0]


def test_entries_with_one_name_are_one_part(tmp_path: Path) -> None:
    assert parts_of(["new=a.txt", "old=b.txt", "new=c.txt", "old:held-out=d.txt"]) == [
        NamedData("new", ("a.txt", "c.txt")), NamedData("old", ("b.txt",), ("d.txt",)),
    ]  # fmt: skip
    assert parts_of(["a.txt", "b.txt"]) == []


def test_a_file_whose_name_holds_an_equals_sign_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.txt").write_text("text")
    assert parts_of(["a=b.txt"]) == []


@pytest.mark.parametrize(
    ("data", "mix", "message"),
    [
        (("new=a", "b.txt"), None, "b.txt has none. Give it one: NAME=b.txt"),
        (("new=a", "old="), None, "old= of --data cannot be read as NAME=PATH"),
        (("new=a", "old/x=b.txt"), None, "A name begins with a letter and has letters, digits, - and _"),
        (("old:held-out=a",), None, "All of --data is held-out text"),
        (("new=a", "new=b", "new:held-out=b"), None, "'new' of --data is trained on b and measured on it"),
        (("a.txt",), "new=1", "--data has no names"),
        (("new=a", "old=b"), "new=0.7", "sum to 0.7"),
        (("new=a", "old=b"), "new=70,old=30", "sum to 100"),
        (("new=a", "old=b"), "new=1", "no share to 'old'"),
        (("new=a",), "new=0.5,old=0.5", "gives a share to 'old'"),
        (("new=a", "old=b"), "new=0.5,odl=0.5", "Did you mean old"),
        (("new=a",), "new", "cannot be read at 'new'"),
        (("new=a",), "new=1,new=0", "gives 'new' two shares"),
        (("new=a", "old=b"), "new=1.5,old=-0.5", "cannot be read at 'old=-0.5'"),
        (("new=a", "old=b"), "new=nan,old=1", "cannot be read at 'new=nan'"),
    ],
)
def test_names_and_shares_that_do_not_fit_are_refused(data: tuple[str, ...], mix: str | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_parts(data, mix, has_init=False)
    assert message in f"{caught.value.what} {caught.value.mend}"


def test_shares_are_read_as_they_are_written() -> None:
    assert mix_of("new=0.7, old=0.3") == {"new": 0.7, "old": 0.3}
    assert mix_of(None) is None


def test_parts_are_measured_densely_at_first_and_then_regularly() -> None:
    assert sorted(measuring_steps(100, 20, (33, 400))) == [0, 1, 2, 4, 8, 16, 20, 32, 33, 40, 60, 64, 80, 100]


@pytest.mark.slow
def test_a_run_measures_each_part_apart(texts: Path, tmp_path: Path) -> None:
    """Shares are those of --mix, held-out text may be a file of its own, and each part has its curve from step 0 on."""
    data = [f"new={texts}/new.jsonl", f"old={texts}/old.jsonl", f"old:held-out={texts}/val.jsonl"]
    run, said = train(data, tmp_path / "run", mix="new=0.75,old=0.25")
    assert any("new 75.0%, old 25.0% of the rows" in line for line in said)
    probes = records(run.folder, "probes")
    for name in ("held_out_loss/new", "held_out_loss/old", "bits_per_byte/new", "bits_per_byte/old"):
        assert [line["step"] for line in probes if line["probe"] == name] == [0, 1, 2, 4, 5, 8, 10, 12], name
    measured = {entry["part"]: entry for entry in run.info["measured"]}
    assert [entry["part"] for entry in run.info["data"]] == ["new", "old"]
    assert run.info["data"][1]["counts"]["held_out_documents"] == 0, "the held-out text is a file, so all of old.jsonl is trained on"
    assert measured["old"]["all_held_out"]
    assert not measured["new"]["all_held_out"]

    store = open_text_store(Path(measured["old"]["store"]))
    targets, size = len(store.tokens) + len(store.held_out) - 1, store.as_held_out().text_bytes("held_out")
    assert size == sum(len(json.loads(line)["text"].encode()) for line in (texts / "val.jsonl").read_text().splitlines())
    first = {line["probe"]: line["value"] for line in probes if line["step"] == 0}
    assert first["bits_per_byte/old"] == pytest.approx(first["held_out_loss/old"] / math.log(2) * targets / size)


@pytest.mark.slow
def test_measuring_touches_nothing_of_the_training(texts: Path, tmp_path: Path) -> None:
    """With dropout, which draws from the global generators: measured after every step or hardly ever, the weights are the same bits."""
    data = [f"new={texts}/new.jsonl", f"old={texts}/old.jsonl"]
    dropout = {"method.architecture": "gpt2", "method.dropout": 0.3, "trainer.micro_batch": 8}
    often, _ = train(data, tmp_path / "often", **dropout | {"trainer.evaluate_at": tuple(range(1, 13)), "trainer.part_rows": 50})
    seldom, _ = train(data, tmp_path / "seldom", **dropout | {"trainer.part_rows": 1})
    assert len(records(often.folder, "probes")) > len(records(seldom.folder, "probes"))
    assert weight_files(often.folder) == weight_files(seldom.folder)
    assert untimed(records(often.folder, "metrics")) == untimed(records(seldom.folder, "metrics"))
    one, _ = train([f"new={texts}/new.jsonl"], tmp_path / "named", **dropout)
    never, _ = train([f"{texts}/new.jsonl"], tmp_path / "nameless", **dropout)
    assert weight_files(one.folder) == weight_files(never.folder), "dropout is on again after a measurement"


@pytest.mark.slow
def test_a_share_of_zero_is_measured_and_not_trained_on(texts: Path, tmp_path: Path) -> None:
    alone, _ = train([f"new={texts}/new.jsonl", f"old={texts}/old.jsonl"], tmp_path / "zero", mix="new=1,old=0")
    again, _ = train([f"new={texts}/new.jsonl", f"old={texts}/old.jsonl"], tmp_path / "half", mix="new=0.5,old=0.5")
    assert {line["probe"] for line in records(alone.folder, "probes")} >= {"held_out_loss/new", "held_out_loss/old"}
    assert weight_files(alone.folder) != weight_files(again.folder)


@pytest.mark.slow
def test_the_text_of_the_old_run_is_the_part_old(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """Its store is taken, with its own held-out documents; where --mix leaves it out it is measured all the same."""
    init = {"init": old_run.folder}
    replayed, _ = train([f"new={texts}/new.jsonl"], tmp_path / "replayed", mix="new=0.5,old=0.5", **init)
    assert [entry["store"] for entry in replayed.info["data"]][1] == old_run.info["data"][0]["store"]
    measured, _ = train([f"new={texts}/new.jsonl"], tmp_path / "measured", **init)
    assert [entry["part"] for entry in measured.info["data"]] == ["new"]
    assert {entry["part"] for entry in measured.info["measured"]} == {"new", "old"}


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_parts(texts: Path, old_run: Run, tmp_path: Path) -> None:
    """The same bits as the undisturbed run, also where `old` came from --init."""
    settings = {"init": old_run.folder, "mix": "new=0.5,old=0.5", "trainer.checkpoint_every": 6}
    whole, _ = train([f"new={texts}/new.jsonl"], tmp_path / "whole", **settings)
    shutil.copytree(whole.folder, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "export")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-00000012")
    info = {name: value for name, value in run_info(tmp_path / "again").items() if name not in ("totals", "verdict", "finished")}
    checkpoint = {"step": 6, "folder": str(tmp_path / "again" / "checkpoints")}
    write_json(tmp_path / "again" / "run.json", info | {"status": "running", "checkpoint": checkpoint})
    again, said = train([f"new={texts}/new.jsonl"], tmp_path / "again", **settings)
    assert again.info["resumed_at"] == 6, said
    assert weight_files(again.folder) == weight_files(whole.folder)
    assert records(again.folder, "probes") == records(whole.folder, "probes")


def test_old_is_asked_for_where_nothing_knows_it(texts: Path, old_run: Run, tmp_path: Path) -> None:
    shutil.copytree(old_run.export, tmp_path / "model")
    with pytest.raises(BadInput, match="what 'old' means is not known"):
        train([f"new={texts}/new.jsonl"], tmp_path / "run", init=tmp_path / "model", mix="new=0.5,old=0.5")
