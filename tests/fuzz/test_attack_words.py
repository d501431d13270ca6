"""What a person sees of names and texts from outside: no control characters, no text without end, and what is left of a damaged run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.core.run import read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.verbs._texts import SHOWN
from tests.corpus import documents, labelled, write_jsonl
from tests.running import headstart as command

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

clean_terminal = pytest.mark.promise("Names and texts from outside reach a terminal without their control characters.")

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
"""Renames the window, clears the screen, turns red by a one-byte sequence, and reverses what follows."""


def assert_clean(text: str) -> None:
    assert not set(text) & set("\x1b\x07\x9b\u202e")


@pytest.mark.slow
@clean_terminal
def test_escape_sequences_do_not_reach_the_terminal(sound_model: Path, tmp_path: Path) -> None:
    folder, strange = tmp_path / "data", f"name{ESCAPE}\nheadstart: all is well.txt"
    folder.mkdir()
    text = "\n\n".join(f"{document} {ESCAPE}\n{ESCAPE}" for document in documents(30))
    (folder / strange).write_text(text)
    flags = ["--text.tokenizer-kind", "bpe", "--text.vocab-size", "400"]
    prepared = command("prepare", "causal-lm", "--data", folder, "--out", tmp_path / "store", *flags)
    assert prepared.returncode == 0, prepared.stderr
    shown = command("peek", tmp_path / "store", "--count", "30")
    assert shown.returncode == 0
    assert "\\x1b" in shown.stdout
    (folder / "bad.jsonl").write_text('{"text": 1}')
    refused = command("prepare", "causal-lm", "--data", folder / strange, folder / "bad.jsonl", "--out", tmp_path / "no")
    assert refused.returncode == 3
    train = write_jsonl(tmp_path / "train.jsonl", [record | {"label": record["label"] + ESCAPE} for record in labelled(8, 0)])
    flags = ["--seeds", "1", "--epochs", "1", "--device", "cpu", "--no-baseline"]
    tuned = command("finetune", "classification", "--init", sound_model, "--train", train, "--test", train, *flags)
    assert tuned.returncode == 0, tuned.stderr
    for done in (prepared, shown, refused, tuned):
        assert_clean(done.stdout + done.stderr)
        assert "\nheadstart: all is well" not in done.stdout + done.stderr


@clean_terminal
def test_messages_quote_records_of_any_length_and_kind(tmp_path: Path) -> None:
    error = BadInput(f"the label '{ESCAPE}' {'x' * 10**6}", f"mend {ESCAPE}", file=tmp_path / "a\nb\ud800")
    assert_clean(str(error))
    assert len(str(error).encode()) < 5000
    assert "a\\nb\\ud800" in str(error)


@pytest.mark.slow
def test_what_peek_shows_of_a_document_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(documents(400)))
    prepare_text([tmp_path / "a.txt"], tmp_path / "store", TextConfig(vocab_size=300, document_split="file"))
    shown = command("peek", tmp_path / "store", "--count", "1")
    assert "more characters in" in shown.stdout
    assert len(shown.stdout) < 2 * SHOWN
    whole = json.loads(command("peek", tmp_path / "store", "--count", "1", "--json").stdout)
    assert sum(map(len, whole["documents"][0]["sentences"])) > 2 * SHOWN


@pytest.mark.promise("A damaged run.json ends in a message that names the weights which are still there.")
def test_a_damaged_run_says_what_is_left(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(BadInput, match=r"(?s)not valid JSON.*run/export.*checkpoints/step-\d+/export.*--init") as caught:
        read_run(tmp_path / "run")
    assert str(tmp_path / "run" / "export") in caught.value.mend
    shutil.rmtree(tmp_path / "run" / "export")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(BadInput, match="cannot be continued"):
        read_run(tmp_path / "run")
