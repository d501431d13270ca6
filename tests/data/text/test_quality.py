"""What is taken of a pool, and what is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from headstart.core.errors import UsageError
from headstart.data.text.quality import (
    BOUND,
    EXACT,
    KEPT,
    LOW,
    NEAR,
    REFERENCE,
    SHORT,
    Guards,
    Looker,
    apply_bounds,
    fates,
    find_duplicates,
    halves_agree,
    take,
)


def prose(number: int) -> str:
    """60 words that no other number has."""
    return " ".join(f"w{number}x{place}" for place in range(60))


def fate_of(texts: list[str], reference: tuple[str, ...] = (), order: list[int] | None = None, **guards: float) -> list[int]:
    looker = Looker()
    words = np.array([len(text.split()) for text in texts])
    at = np.arange(len(texts)) if order is None else np.array(order)
    return find_duplicates(looker.look(texts), at, words, looker.look(reference), Guards(**guards)).tolist()  # type: ignore[arg-type]


def test_short_documents_go() -> None:
    assert fate_of([prose(0), "too short", prose(1)]) == [KEPT, SHORT, KEPT]
    assert fate_of([prose(0), "too short"], min_words=2) == [KEPT, KEPT]


def test_exact_duplicates_but_for_case_and_blanks_go() -> None:
    shouted = prose(0).upper().replace(" ", "  \n")
    assert fate_of([prose(0), shouted, prose(1)]) == [KEPT, EXACT, KEPT]
    assert fate_of([prose(0), shouted], order=[1, 0]) == [EXACT, KEPT]  # the first in the order stays


def test_near_duplicates_go_by_more_than_half_of_their_windows() -> None:
    whole = prose(0)
    words = whole.split()
    mostly = " ".join(words[:45] + prose(1).split()[:15])  # 33 of its 48 windows are whole's
    hardly = " ".join(words[:30] + prose(2).split()[:30])  # 18 of 48
    assert fate_of([whole, mostly, hardly]) == [KEPT, NEAR, KEPT]
    assert fate_of([mostly, whole]) == [KEPT, NEAR]  # the order decides which one stays


def test_half_of_the_windows_stays_and_one_more_goes() -> None:
    """60 words have 48 windows of 13; 36 common words at the start are 24 of them, 37 are 25."""
    words, others = prose(0).split(), prose(1).split()
    half, more = (" ".join(words[:common] + others[: 60 - common]) for common in (36, 37))
    assert fate_of([prose(0), half]) == [KEPT, KEPT]
    assert fate_of([prose(0), more]) == [KEPT, NEAR]


def test_fifty_words_are_enough_and_49_are_not() -> None:
    texts = [" ".join(prose(number).split()[:length]) for number, length in enumerate((50, 49))]
    assert fate_of(texts) == [KEPT, SHORT]


def test_what_was_dropped_does_not_count_as_seen() -> None:
    a = prose(0).split()
    b = a[:40] + prose(1).split()[:20]  # near a: goes
    c = b[20:] + prose(2).split()[:20]  # shares most windows with b, with a only 8 of 48
    assert fate_of([" ".join(text) for text in (a, b, c)]) == [KEPT, NEAR, KEPT]


def test_punctuation_is_no_word_of_a_window() -> None:
    assert fate_of([prose(0), ", ".join(prose(0).split()) + "."]) == [KEPT, NEAR]


def test_texts_of_the_reference_go() -> None:
    part = " ".join(prose(0).split()[:55])
    assert fate_of([prose(0).upper(), part, prose(1)], reference=(prose(0),)) == [REFERENCE, REFERENCE, KEPT]


def test_without_near_duplicates_no_windows_are_kept() -> None:
    seen = Looker().look([prose(0), prose(1)], windows=False)
    assert len(seen.windows) == 0
    fate = find_duplicates(seen, np.arange(2), np.array([60, 60]), Looker().look([]), Guards(near_duplicates=False))
    assert fate.tolist() == [KEPT, KEPT]


def test_bounds_and_the_lowest_share() -> None:
    perplexity, fate = np.array([1.0, 5.0, 3.0, 9.0, 2.0, 7.0]), np.array([KEPT, KEPT, KEPT, KEPT, SHORT, KEPT], np.int8)
    assert apply_bounds(perplexity, fate, Guards(lower=2.0, upper=8.0)).tolist() == [BOUND, KEPT, KEPT, BOUND, SHORT, KEPT]
    assert apply_bounds(perplexity, fate, Guards(lower=2.0, upper=8.0, drop_lowest=0.34)).tolist() == [BOUND, KEPT, LOW, BOUND, SHORT, KEPT]
    assert fate[0] == KEPT  # not changed in place


def test_ties_go_by_the_order() -> None:
    perplexity, tokens, fate = np.array([2.0, 1.0, 1.0]), np.array([5, 5, 5]), np.zeros(3, np.int8)
    assert take(perplexity, tokens, np.array([0, 2, 1]), fate, 10).tolist() == [2, 1]


def test_what_was_dropped_is_not_taken() -> None:
    perplexity, tokens, fate = np.array([1.0, 2.0, 3.0]), np.array([5, 5, 5]), np.array([NEAR, KEPT, KEPT], np.int8)
    assert take(perplexity, tokens, np.arange(3), fate, 10).tolist() == [1, 2]
    with pytest.raises(UsageError, match="10 tokens after the guards, the quota is 11"):
        take(perplexity, tokens, np.arange(3), fate, 11)
    with pytest.raises(UsageError, match="quota of 0"):
        take(perplexity, tokens, np.arange(3), fate, 0)


@pytest.mark.parametrize("guards", [{"min_words": -1}, {"drop_lowest": 1.0}, {"lower": 5.0, "upper": 5.0}], ids=["words", "share", "bounds"])
def test_impossible_guards_are_refused(guards: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Guards(**guards)  # type: ignore[arg-type]


def test_the_numbers_of_windows_are_the_same_in_every_process() -> None:
    code = "from headstart.data.text.quality import Looker; print(Looker().look(['one two three four five']).windows.tolist())"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert outputs == {f"{Looker().look(['one two three four five']).windows.tolist()}\n"}


def test_halves_of_one_kind_agree_more_than_halves_of_noise() -> None:
    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    likely = np.arange(1, 51) ** -1.5
    texts = [" ".join(random.choice(words, 40, p=likely / likely.sum())) for _ in range(60)]
    noise = [" ".join(random.choice(words, 40)) for _ in range(60)]
    same, other = halves_agree(texts[:40], texts[40:] + noise[:20], 1), halves_agree(noise[:2], noise[20:60], 1)
    assert same is not None
    assert other is not None
    assert same > 0.8 > other
    assert halves_agree(["one"], texts, 1) is None


def test_fates_are_counted_in_the_order_of_the_guards() -> None:
    assert fates(np.array([KEPT, SHORT, SHORT, NEAR], np.int8)) == {"kept": 1, "short": 2, "near duplicate": 1}
