"""Windows of a stream: what is in them, in every split and for every length."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.data.text.store import TextStore
from headstart.data.text.windows import Windows, windows

END = 3


@pytest.fixture
def fresh(store: TextStore, tmp_path: Path) -> TextStore:
    shutil.copytree(store.folder, tmp_path / "store", ignore=shutil.ignore_patterns("rows"))
    return TextStore(tmp_path / "store")


def stream(store: TextStore, split: str) -> list[int]:
    return [token for number in store.documents(split) for token in (*store.document(int(number)).tolist(), END)]


def targets(found: Windows) -> list[int]:
    batch = found.batch(np.arange(len(found)))
    mask = batch.get("attention_mask", np.ones_like(batch["next_ids"], dtype=bool))
    return batch["next_ids"][mask].tolist()


@pytest.mark.parametrize("length", [1, 7, 64, 1000])
def test_every_token_but_the_first_is_a_target_once(fresh: TextStore, length: int) -> None:
    whole = stream(fresh, "held_out")
    found = windows(fresh, length, "held_out", [END])
    assert targets(found) == whole[1:]
    assert found.n_tokens == len(whole) - 1
    inputs = found.batch(np.arange(len(found)))["input_ids"]
    assert inputs[0].tolist() == (whole + [0] * length)[:length]


def test_training_leaves_out_what_fills_no_window(fresh: TextStore) -> None:
    whole = stream(fresh, "train")
    found = windows(fresh, 64, "train", [END])
    assert len(found) == (len(whole) - 1) // 64
    assert targets(found) == whole[1 : 64 * len(found) + 1]
    assert "attention_mask" not in found.batch(np.arange(len(found)))
    assert found.report["padding_share"] == 0


def test_blocks_do_not_show(fresh: TextStore) -> None:
    """Written in small blocks of documents the windows are the same."""
    at_once = targets(windows(fresh, 33, "train", [END]))
    shutil.rmtree(fresh.folder / "rows")
    assert targets(windows(fresh, 33, "train", [END], block=50)) == at_once


def test_a_store_that_is_only_measured_has_rows_of_its_own(fresh: TextStore) -> None:
    """All documents are held out, and neither cache is taken for the other's."""
    part = windows(fresh, 16, "held_out", [END])
    everything = windows(fresh.as_held_out(), 16, "held_out", [END])
    assert everything.n_documents == len(fresh.held_out) > part.n_documents
    assert windows(fresh, 16, "held_out", [END]).n_tokens == part.n_tokens
    assert len(fresh.as_held_out().documents("train")) == 0


def test_no_end_of_text_is_refused(fresh: TextStore) -> None:
    with pytest.raises(BadInput, match="no end-of-text token"):
        windows(fresh, 16, "train", [])


def test_bytes_of_a_split_are_those_of_its_text(fresh: TextStore) -> None:
    total = sum(fresh.text_bytes(split) for split in ("train", "held_out")) + fresh_bytes_of(fresh, fresh.dropped)
    assert total == sum(len(fresh.decode(fresh.document(i)).encode()) for i in range(len(fresh.held_out)))
    assert json.loads((fresh.folder / "manifest.json").read_text())["counts"]["documents"] == len(fresh.held_out)


def fresh_bytes_of(store: TextStore, which: np.ndarray) -> int:
    return sum(len(store.decode(store.document(int(i))).encode()) for i in np.flatnonzero(which))
