import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.text.spans import SPAN
from headstart.data.text.split import held_out_documents, near_duplicates


def drop(documents: list[list[int]], held_out: list[bool], share: float = 0.5) -> list[bool]:
    offsets = np.append(0, np.cumsum([len(document) for document in documents]))
    return near_duplicates(np.concatenate(documents).astype(np.uint16), offsets, np.array(held_out), share).tolist()


def text(n: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 5000, n).tolist()


def test_an_exact_copy_is_dropped_and_other_text_is_not() -> None:
    assert drop([text(50, 1), text(50, 1), text(50, 2)], [True, False, False]) == [False, True, False]


def test_a_document_that_is_contained_in_a_held_out_one() -> None:
    whole = text(1000, 1)
    assert drop([whole, whole[400:450], text(50, 2)], [True, False, False]) == [False, True, False]


def test_a_document_that_contains_a_held_out_one() -> None:
    part = text(60, 1)
    assert drop([part, text(1000, 2) + part + text(1000, 3)], [True, False]) == [False, True]


def test_a_copy_put_together_from_two_held_out_documents() -> None:
    one, two = text(400, 1), text(400, 2)
    assert drop([one, two, one[:100] + two[:100]], [True, True, False]) == [False, False, True]


def test_the_threshold_counts_shared_spans() -> None:
    """100 tokens have 93 spans. A copied head of h tokens shares h - 7 of them: 54 tokens share 47 (50.5 %), 53 share 46 (49.5 %)."""
    assert SPAN == 8
    original = text(100, 1)
    assert drop([original, original[:54] + text(46, 2)], [True, False]) == [False, True]
    assert drop([original, original[:53] + text(47, 2)], [True, False]) == [False, False]
    assert drop([original, original[:53] + text(47, 2)], [True, False], share=0.4) == [False, True]


def test_scattered_edits_of_a_copy_are_still_found() -> None:
    original = text(200, 1)
    edited = list(original)
    for place in range(0, 200, 40):
        edited[place] = 6000
    assert drop([original, edited], [True, False]) == [False, True]


def test_short_documents_must_be_equal() -> None:
    assert drop([[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 2], [1, 2, 3, 4]], [True, False, False, False, False]) == [False, True, False, False, False]


def test_a_span_does_not_cross_documents() -> None:
    whole = text(100, 1)
    assert drop([whole, whole[:7], whole[7:14], whole[14:21], text(50, 2)], [True] + [False] * 4) == [False] * 5


def test_boilerplate_of_many_held_out_documents_does_not_drop_by_itself() -> None:
    """A licence of 40 tokens at the head of 30 held-out and one training document of 200 tokens."""
    licence = text(40, 99)
    documents = [licence + text(160, seed) for seed in range(31)]
    assert drop(documents, [True] * 30 + [False]) == [False] * 31


def test_blocks_do_not_matter() -> None:
    """Documents far apart, over several blocks of the pass, with one document larger than a block."""
    copy = text(300, 1)
    documents = [copy, *(text(500_000, seed) for seed in range(2, 12)), text(5_000_000, 50) + copy, copy]
    assert drop(documents, [True] + [False] * 12) == [False] * 11 + [True, True]


@given(hashes=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=50, unique=True), share=st.floats(1e-6, 0.999))
def test_both_sides_have_a_document_whatever_the_order(hashes: list[int], share: float) -> None:
    held_out = held_out_documents(np.array(hashes, np.uint64), share)
    assert 0 < held_out.sum() < len(hashes)
    backwards = held_out_documents(np.array(hashes[::-1], np.uint64), share)
    assert (backwards[::-1] == held_out).all()


def test_chance_does_not_leave_a_side_empty() -> None:
    assert held_out_documents(np.array([2**63, 2**62], np.uint64), 1e-6).tolist() == [False, True]
    assert held_out_documents(np.array([5, 7], np.uint64), 0.9).tolist() == [True, False]


def test_the_share_is_kept_and_a_document_keeps_its_side_when_others_come() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    held_out = held_out_documents(hashes, 0.02)
    assert abs(held_out.mean() - 0.02) < 0.002
    assert (held_out_documents(hashes[:1000], 0.02) == held_out[:1000]).all()
    assert not held_out_documents(hashes, 0.0).any()
