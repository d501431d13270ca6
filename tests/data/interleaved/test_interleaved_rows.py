"""Documents into rows: nothing lost, images whole and in place, at most so many, answers marked; the same from a slow plain way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import BadInput, UsageError
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.rows import InterleavedRows, Layout, interleaved_rows
from headstart.data.interleaved.store import InterleavedStore, prepare_interleaved
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from tests.data.interleaved.conftest import write_images, write_lines


@pytest.fixture
def store(corpus: Path, tmp_path: Path) -> InterleavedStore:
    return prepare_interleaved([corpus], tmp_path / "store", InterleavedConfig(vocab_size=300, image_size=8, held_out_share=0.1))


def unpacked(rows: InterleavedRows) -> list[object]:
    """What stands in the rows, one after another: token ids, and ("image", number) in place of each image."""
    found: list[object] = []
    for ids, length, starts, numbers in zip(rows.ids, rows.lengths, rows.image_starts, rows.image_numbers, strict=True):
        images = {int(start): int(number) for start, number in zip(starts, numbers, strict=True) if start >= 0}
        place = 0
        while place < length:
            if place in images:
                found.append(("image", images[place]))
                place += rows.layout.positions
            else:
                found.append(int(ids[place]))
                place += 1
    return found


def expected(store: InterleavedStore, layout: Layout) -> list[object]:
    found: list[object] = []
    for index in store.documents("train"):
        tokens, places, numbers = store.document(int(index))
        stream: list[object] = [*layout.begin]
        for at, token in enumerate([*tokens.tolist(), None]):
            stream += [("image", int(number)) for place, number in zip(places, numbers, strict=True) if place == at]
            stream += [] if token is None else [token]
        found += [*stream, *layout.end]
    return found


@settings(max_examples=20, deadline=None)
@given(length=st.integers(24, 90), positions=st.integers(1, 20), packed=st.booleans())
def test_rows_hold_every_token_and_image_in_order_with_the_end_between_documents(
    length: int, positions: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "of-rows"
    names = write_images(folder, 3)
    texts = [f"{'one two three ' * n}end" for n in range(1, 7)]
    source = write_lines(folder / "pairs.jsonl", [{"image": names[n % 3], "caption": text} for n, text in enumerate(texts)])
    store = prepare_interleaved([source], folder / "store", InterleavedConfig(vocab_size=300, image_size=8, held_out_share=0))
    layout = Layout(length, positions, 32, packed, begin=(2,), end=(3,))
    rows = interleaved_rows(store, layout)
    assert unpacked(rows) == expected(store, layout)
    assert (rows.image_starts + positions <= length).all()
    assert rows.n_tokens == int(rows.lengths.sum())
    if packed:
        assert (rows.lengths[:-1] > length - max(positions, 1)).all(), "only an image that does not fit ends a row early"
    else:
        assert all(ids[0] == 2 for ids, start in zip(rows.ids, rows.image_starts[:, 0], strict=True) if start == 1), "each begins with its document"


def test_images_beyond_the_number_of_a_row_are_left_out_and_counted(store: InterleavedStore) -> None:
    every = interleaved_rows(store, Layout(256, 4, 32))
    few = interleaved_rows(store, Layout(256, 4, 2))
    assert (few.image_starts >= 0).sum(1).max() == 2
    assert every.report["left_out_image_share"] == 0
    assert few.report["left_out_image_share"] == pytest.approx(1 - few.report["images"] / every.report["images"])
    text = [entry for entry in unpacked(every) if not isinstance(entry, tuple)]
    assert [entry for entry in unpacked(few) if not isinstance(entry, tuple)] == text, "the text stays whole"


def test_a_batch_says_where_the_images_are(store: InterleavedStore) -> None:
    rows = interleaved_rows(store, Layout(64, 4, 32))
    numbers = np.arange(len(rows))
    batch = rows.batch(numbers)
    assert batch["image_slots"].shape == batch["input_ids"].shape
    assert batch["images"].dtype == np.uint8
    assert store.images is not None
    for row in numbers:
        for image, (start, number) in enumerate(zip(rows.image_starts[row], rows.image_numbers[row], strict=True)):
            if start >= 0:
                assert batch["image_slots"][row, start : start + 4].tolist() == [1 + 4 * image + k for k in range(4)]
                assert (batch["images"][row, image] == store.images.read([number])[0]).all()
    assert (batch["image_slots"] > 0).sum() == 4 * (rows.image_starts >= 0).sum()
    without = np.flatnonzero((rows.image_starts < 0).all(1))
    if len(without):
        assert not rows.batch(without).keys() & {"images", "image_slots"}


def test_only_answers_are_asked_for_with_the_end_after_the_last(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 2)
    records = [{"image": names[n % 2], "question": f"what is {n} ?", "answer": f"it is {n}"} for n in range(6)]
    source = write_lines(tmp_path / "data" / "asked.jsonl", records)
    store = prepare_interleaved([source], tmp_path / "store", InterleavedConfig(vocab_size=300, image_size=8, held_out_share=0))
    rows = interleaved_rows(store, Layout(96, 3, 4, begin=(2,), end=(3,)), answers_only=True)
    batch = rows.batch(np.arange(len(rows)))
    asked = [ids[~unasked] for ids, unasked in zip(batch["input_ids"], batch["unasked"], strict=True)]
    assert store.decode(np.concatenate(asked)) == "".join(f"it is {n}[SEP]" for n in range(6))


def test_a_store_without_answers_is_refused_where_only_they_count(store: InterleavedStore) -> None:
    with pytest.raises(UsageError, match="hold no answers"):
        interleaved_rows(store, Layout(64, 4, 32), answers_only=True)


@pytest.mark.parametrize("layout", [{"length": 2}, {"length": 8, "positions": 8}, {"positions": 0}, {"max_images": 0}])
def test_rows_that_cannot_be_are_refused(layout: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Layout(**{"length": 64, "positions": 4, "max_images": 32, **layout})


def test_rows_are_written_once_and_a_damaged_one_is_refused(store: InterleavedStore) -> None:
    rows = interleaved_rows(store, Layout(64, 4, 32))
    made = (rows.folder / "ids.npy").stat().st_mtime_ns
    again = interleaved_rows(store, Layout(64, 4, 32))
    assert (again.folder / "ids.npy").stat().st_mtime_ns == made
    ids = np.array(rows.ids)
    ids[0, 0] = store.vocab_size
    np.save(rows.folder / "ids.npy", ids)
    with pytest.raises(BadInput, match="beyond the vocabulary"):
        interleaved_rows(store, Layout(64, 4, 32)).batch(np.array([0]))


def test_rows_with_and_without_images_can_be_mixed_in_one_batch(store: InterleavedStore, tmp_path: Path) -> None:
    """Filled up with no image: zeros, and slots that say text."""
    source = write_lines(tmp_path / "texts.jsonl", [{"text": f"only {n} words of text"} for n in range(30)])
    config = InterleavedConfig(image_size=8, held_out_share=0, tokenizer=str(store.folder / "tokenizer.json"))
    texts = prepare_interleaved([source], tmp_path / "texts", config)
    assert texts.images is None
    parts = [interleaved_rows(one, Layout(64, 4, 32)) for one in (store, texts)]
    loader = Loader(Mixture(parts, [1, 1], seed=0, by="rows"), 8)
    batch = loader.batch(0)
    of_text = (batch["image_slots"] == 0).all(1)
    assert 1 <= int(of_text.sum()) < 8
    assert (batch["images"][of_text] == 0).all()
