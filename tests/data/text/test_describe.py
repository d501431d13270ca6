from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.describe import draw, peek
from headstart.data.text.rows import packed_rows, write_rows
from headstart.data.text.store import TextStore


def test_documents_and_rows_are_shown_as_text(store: TextStore) -> None:
    packed_rows(store, 48, "train", [2], [3])
    write_rows(store, {"builder": "pairs"}, "train", 8, [([2, 70, 3, 80, 3], 3)])
    shown = peek(store.folder, n=2, seed=1)
    assert shown.report == store.report()
    assert len(shown.documents) == 2
    for document in shown.documents:
        assert document.sentences == [store.decode(ids) for ids in store.sentences(document.index)]
        assert document.file.endswith("corpus.jsonl")
        assert document.split == ("held_out" if store.held_out[document.index] else "train")
        assert len(document.pieces) <= 40
    assert {row.rows.rsplit("-", 1)[0] for row in shown.rows} == {"train-48", "train-8"}
    for row in shown.rows:
        assert row.text.startswith("[CLS]")
        assert "[PAD]" not in row.text
    (pair,) = [row for row in shown.rows if row.second is not None]
    assert (pair.length, pair.second) == (5, 3)


def test_a_seed_draws_the_same_and_another_draws_others(store: TextStore) -> None:
    assert peek(store, 3, seed=5).documents == peek(store, 3, seed=5).documents
    assert peek(store, 3, seed=5).documents != peek(store, 3, seed=6).documents


def test_what_cannot_be_shown(store: TextStore, tmp_path: Path) -> None:
    assert draw(2, 5, 0).tolist() == [0, 1]
    assert draw(0, 5, 0).tolist() == []
    with pytest.raises(UsageError):
        peek(store, 0)
    with pytest.raises(BadInput):
        peek(tmp_path)
