"""The word trigram: against a loop over dictionaries, what it refuses, and KenLM."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.ngram import KenLM, Trigram, open_scorer, words_of

TEXTS = st.lists(st.text("ab cd.,", max_size=30), min_size=1, max_size=6)


def slow_perplexity(reference: list[str], text: str, min_count: int) -> float:
    """The definition, word by word, with dictionaries."""
    counted = Counter(word for document in reference for word in words_of(document))
    vocabulary = {word for word, count in counted.items() if count >= min_count}
    known = lambda word: word if word in vocabulary else "<unk>"  # noqa: E731
    followers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for document in reference:
        words = ["<s>", "<s>", *map(known, words_of(document)), "</s>"]
        for i in range(2, len(words)):
            for n in range(3):
                followers[tuple(words[i - n : i])][words[i]] += 1

    def p(history: tuple[str, ...], word: str) -> float:
        shorter = p(history[1:], word) if history else 1 / (len(vocabulary) + 2)
        seen = followers.get(history)
        return shorter if seen is None else (seen[word] + len(seen) * shorter) / (seen.total() + len(seen))

    words = ["<s>", "<s>", *map(known, words_of(text)), "</s>"]
    open_class = max(len(counted) - len(vocabulary), 1)
    log_p = sum(math.log(p(tuple(words[i - 2 : i]), words[i]) / (open_class if words[i] == "<unk>" else 1)) for i in range(2, len(words)))
    return math.exp(-log_p / (len(words) - 2))


@settings(max_examples=60, deadline=None)
@given(reference=TEXTS, pool=TEXTS, min_count=st.integers(1, 2))
def test_it_is_the_loop_over_dictionaries(reference: list[str], pool: list[str], min_count: int) -> None:
    reference = [*reference, "a"]
    found = Trigram.train(reference, min_count).score(pool)
    assert found.perplexity == pytest.approx([slow_perplexity(reference, text, min_count) for text in pool])
    assert found.words.tolist() == [len(words_of(text)) for text in pool]


def test_every_distribution_sums_to_one() -> None:
    scorer = Trigram.train(["the cat sat on the mat. the cat ran.", "a dog sat on a cat."])
    for before in ((), ("the",), ("the", "cat"), ("mat", "the"), ("zebra",), ("zebra", "cat"), ("cat", "zebra")):
        assert sum(scorer.distribution(before).values()) == pytest.approx(1), before


def test_texts_are_scored_alone_and_in_order() -> None:
    scorer, texts = Trigram.train(["a b a b a c"], 1), ["a b", "", "c c c", "zzz !"]
    together = scorer.score(texts)
    assert together.perplexity.tolist() == [scorer.score([text]).perplexity[0] for text in texts]
    assert together.unknown.tolist() == [0, 0, 0, 1]
    assert len(scorer.score([])) == 0


def test_it_is_saved_and_opened(tmp_path: Path) -> None:
    scorer = Trigram.train(["Good text, good words. Good."], 1)
    scorer.save(tmp_path / "scorer")
    again = open_scorer(tmp_path / "scorer")
    assert again.identity == scorer.identity
    assert again.score(["good words"]).perplexity == scorer.score(["good words"]).perplexity
    with zipfile.ZipFile(tmp_path / "scorer" / "counts.npz") as packed:
        assert all(np.lib.format.read_magic(packed.open(name)) for name in packed.namelist())  # arrays, nothing pickled


def test_words_of_another_kind_are_refused(tmp_path: Path) -> None:
    Trigram.train(["a b"], 1).save(tmp_path)
    about = json.loads((tmp_path / "scorer.json").read_text())
    (tmp_path / "scorer.json").write_text(json.dumps(about | {"normalisation": "split at blanks"}))
    with pytest.raises(BadInput, match="split at blanks"):
        Trigram.open(tmp_path)


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({"bigrams": np.array([3, 1])}, "fit"),
        ({"trigrams": np.array([10**15])}, "fit"),
        ({"unigrams": np.ones(2, np.int64)}, "fit"),
        ({"bigram_counts": np.ones(1)}, "float64"),
    ],
    ids=["unsorted", "beyond", "short", "float"],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, counts: dict[str, np.ndarray], why: str) -> None:
    scorer = Trigram.train(["a b a"], 1)
    scorer.counts |= counts
    scorer.save(tmp_path)
    with pytest.raises(BadInput, match=why):
        Trigram.open(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    Trigram.train(["a b a"], 1).save(tmp_path)
    data = (tmp_path / "counts.npz").read_bytes()
    (tmp_path / "counts.npz").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BadInput, match="hash"):
        Trigram.open(tmp_path)
    (tmp_path / "scorer.json").unlink()
    with pytest.raises(BadInput):
        Trigram.open(tmp_path)


def test_a_reference_without_words_is_refused() -> None:
    with pytest.raises(UsageError, match="no word"):
        Trigram.train(["", " "])


ARPA = r"""\data\
ngram 1=4
ngram 2=1

\1-grams:
-1.0	<unk>
0	<s>	-0.3
-0.5	</s>
-0.4	good	-0.2

\2-grams:
-0.1	<s> good

\end\
"""


def test_kenlm_scores_an_arpa_file(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="the package kenlm is compiled where it is installed: pip install 'headstart[kenlm]'")
    (tmp_path / "model.arpa").write_text(ARPA)
    scorer = KenLM(tmp_path / "model.arpa")
    found = scorer.score(["Good", "good xyz"])
    # good: p(good | <s>) = 10^-.1, then </s> after good backs off: 10^(-.2 - .5); two events
    assert found.perplexity == pytest.approx([10 ** (0.8 / 2), 10 ** ((0.1 + 0.2 + 1.0 + 0.5) / 3)], rel=1e-5)
    assert found.words.tolist() == [1, 2]
    assert found.unknown.tolist() == [0, 0.5]
    (tmp_path / "no.arpa").write_text("nothing")
    with pytest.raises(BadInput, match="KenLM"):
        open_scorer(tmp_path / "no.arpa")
