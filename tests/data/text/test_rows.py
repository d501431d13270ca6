import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.rows import Rows, packed_rows, write_rows
from headstart.data.text.store import TextStore

CLS, SEP, PAD = 2, 3, 0


@pytest.fixture
def fresh(store: TextStore, tmp_path: Path) -> TextStore:
    shutil.copytree(store.folder, tmp_path / "store", ignore=shutil.ignore_patterns("rows"))
    return TextStore(tmp_path / "store")


def pieces_of(rows: Rows, begin: int, end: int) -> list[tuple[int, ...]]:
    """The texts between begin and end tokens, of all rows."""
    found = []
    for ids, length in zip(rows.ids.tolist(), rows.lengths.tolist(), strict=True):
        assert set(ids[length:]) <= {PAD}
        assert ids[0] == begin
        begins = [place for place, token in enumerate(ids[:length]) if token == begin]
        for start, stop in pairwise([*begins, length]):
            assert ids[stop - 1] == end
            found.append(tuple(ids[start + 1 : stop - 1]))
    return found


@pytest.mark.promise("Every token of the training documents is in exactly one training row.")
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_token_of_the_split_is_in_one_row_once(fresh: TextStore, split: Literal["train", "held_out"]) -> None:
    rows = packed_rows(fresh, 64, split, [CLS], [SEP])
    expected = []
    for index in fresh.documents(split):
        ids = fresh.document(index).tolist()
        expected += [tuple(ids[start : start + 62]) for start in range(0, len(ids), 62)]
    assert sorted(pieces_of(rows, CLS, SEP)) == sorted(expected)
    assert rows.n_tokens == rows.lengths.sum() == sum(len(piece) + 2 for piece in expected)
    assert rows.n_documents == len(fresh.documents(split))


def test_documents_cut_for_a_causal_model_have_no_end_inside(fresh: TextStore) -> None:
    rows = packed_rows(fresh, 50, "train", [CLS], [SEP], wrap="document")
    whole = [(CLS, *fresh.document(index).tolist(), SEP) for index in fresh.documents("train")]
    ids = [tuple(row[:length]) for row, length in zip(rows.ids.tolist(), rows.lengths.tolist(), strict=True)]
    assert sum(row.count(CLS) for row in ids) == sum(row.count(SEP) for row in ids) == len(whole)
    assert rows.n_tokens == sum(map(len, whole))
    full_rows = set(ids)
    for document in whole:
        for start in range(0, len(document) - 49, 50):
            assert document[start : start + 50] in full_rows


def test_the_report_is_measured(fresh: TextStore) -> None:
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    assert rows.report["padding_share"] == pytest.approx((rows.ids == PAD).mean())
    assert rows.report["padding_share"] < 0.02
    lengths = np.diff(fresh.document_offsets)[fresh.documents("train")]
    assert rows.report["cut_documents_share"] == (lengths > 62).mean()


def test_rows_are_in_the_order_of_documents(fresh: TextStore) -> None:
    """So the first held-out rows are no selection by length."""
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    documents = [fresh.document(index).tolist() for index in fresh.documents("train")]
    pieces = [tuple(ids[start : start + 62]) for ids in documents for start in range(0, len(ids), 62)]
    place = {piece: order for order, piece in enumerate(pieces) if pieces.count(piece) == 1}  # short remainders may come twice
    firsts = [tuple(row[1 : row.index(SEP)]) for row in rows.ids.tolist()]
    known = [place[first] for first in firsts if first in place]
    assert len(known) > 0.9 * len(firsts)
    assert known == sorted(known)
    assert (rows.lengths[: len(rows) // 2] < 64).any()


def test_rows_are_written_once(fresh: TextStore) -> None:
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    before = (rows.folder / "ids.npy").stat().st_mtime_ns
    again = packed_rows(fresh, 64, "train", [CLS], [SEP])
    assert again.folder == rows.folder
    assert (rows.folder / "ids.npy").stat().st_mtime_ns == before
    others = [packed_rows(fresh, 64, "train", [CLS], [SEP], "document"), packed_rows(fresh, 32), packed_rows(fresh, 64, "held_out", [CLS], [SEP])]
    assert len({rows.folder, *(other.folder for other in others)}) == 4


def test_rows_of_a_killed_process_are_made_again(fresh: TextStore) -> None:
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    expected = rows.ids.copy()
    (rows.folder / "rows.json").unlink()  # it is written last
    (rows.folder / "ids.npy").write_bytes(b"half")
    (rows.folder / ".ids.npy.123.tmp").write_bytes(b"left over")
    again = packed_rows(fresh, 64, "train", [CLS], [SEP])
    assert (again.ids == expected).all()
    assert not (rows.folder / ".ids.npy.123.tmp").exists()


def test_batches_follow_the_format(fresh: TextStore) -> None:
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    full = np.flatnonzero(rows.lengths == 64)
    padded = np.flatnonzero(rows.lengths < 64)
    batch = rows.batch(full[:4])
    assert list(batch) == ["input_ids"]
    assert batch["input_ids"].dtype == np.int64
    assert (batch["input_ids"] == rows.ids[full[:4]]).all()
    batch = rows.batch(np.append(full[:1], padded[:1]))
    assert list(batch) == ["input_ids", "attention_mask"]
    assert batch["attention_mask"].dtype == bool
    assert batch["attention_mask"].sum(1).tolist() == [64, rows.lengths[padded[0]]]
    assert not batch["attention_mask"][1, rows.lengths[padded[0]] :].any()


def test_rows_of_a_builder_with_two_segments(fresh: TextStore) -> None:
    built = [([2, 9, 3, 8, 3], 3), ([2, 7, 3], 3), ([2, 5, 6, 7, 8, 3], 6)]
    rows = write_rows(fresh, {"builder": "test", "seed": 1}, "train", 6, built, {"cropped_share": 0.25})
    assert (len(rows), rows.n_tokens, rows.report["cropped_share"]) == (3, 14, 0.25)
    assert rows.report["padding_share"] == pytest.approx(4 / 18)
    batch = rows.batch(np.array([0, 1, 2]))
    assert batch["input_ids"].tolist() == [[2, 9, 3, 8, 3, 0], [2, 7, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0], [0] * 6, [0] * 6]
    assert batch["token_type_ids"].dtype == np.int64


def test_a_builder_is_not_run_twice_for_one_key(fresh: TextStore) -> None:
    def never() -> object:
        raise AssertionError("consumed")
        yield

    write_rows(fresh, {"builder": "test"}, "train", 4, [([2, 3], 2)])
    assert len(write_rows(fresh, {"builder": "test"}, "train", 4, never())) == 1  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="consumed"):
        write_rows(fresh, {"builder": "other"}, "train", 4, never())  # type: ignore[arg-type]


def test_a_builder_that_fails_leaves_nothing(fresh: TextStore) -> None:
    def failing() -> object:
        yield [2, 3], 2
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_rows(fresh, {"builder": "failing"}, "train", 4, failing())  # type: ignore[arg-type]
    assert not [path for path in (fresh.folder / "rows").iterdir() if path.is_dir()]
    assert len(write_rows(fresh, {"builder": "failing"}, "train", 4, [([2], 1), ([3], 1)])) == 2


def test_rows_that_do_not_fit_are_refused(fresh: TextStore) -> None:
    with pytest.raises(ValueError, match=r"1\.\.4"):
        write_rows(fresh, {"builder": "long"}, "train", 4, [([2, 3, 4, 5, 6], 5)])
    with pytest.raises(UsageError, match="no room for text"):
        packed_rows(fresh, 2, "train", [CLS], [SEP])


def test_no_rows_at_all(fresh: TextStore) -> None:
    assert len(write_rows(fresh, {"builder": "none"}, "held_out", 4, [])) == 0


def test_tokens_beyond_the_vocabulary_are_found_before_they_reach_a_model(fresh: TextStore) -> None:
    tokens = np.load(fresh.folder / "tokens.npy")
    tokens[fresh.document_offsets[fresh.documents("train")[3]]] = fresh.vocab_size
    np.save(fresh.folder / "tokens.npy", tokens)
    with pytest.raises(BadInput, match="beyond its vocabulary"):
        packed_rows(TextStore(fresh.folder), 64, "train", [CLS], [SEP])


@pytest.mark.parametrize("name", ["ids", "lengths", "second"])
def test_damaged_rows(fresh: TextStore, name: str) -> None:
    rows = packed_rows(fresh, 64, "train", [CLS], [SEP])
    path = rows.folder / f"{name}.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    with pytest.raises(BadInput):
        Rows(rows.folder, fresh.vocab_size)
    path.write_bytes(data)
    for spoilt, value in (("lengths", 65), ("lengths", 0), ("second", 65)):
        good = np.load(rows.folder / f"{spoilt}.npy")
        np.save(rows.folder / f"{spoilt}.npy", np.append(np.int32(value), good[1:]))
        with pytest.raises(BadInput, match="do not fit"):
            Rows(rows.folder, fresh.vocab_size)
        np.save(rows.folder / f"{spoilt}.npy", good)
    Rows(rows.folder, fresh.vocab_size)
    np.save(rows.folder / "lengths.npy", np.load(rows.folder / "lengths.npy")[1:])
    with pytest.raises(BadInput, match="do not fit"):
        Rows(rows.folder, fresh.vocab_size)
    (rows.folder / "rows.json").write_text(json.dumps({"format_version": 0}))
    with pytest.raises(BadInput, match="format version"):
        Rows(rows.folder, fresh.vocab_size)
