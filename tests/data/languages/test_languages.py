"""Languages with known statistics: exact values against enumeration, files both ways, and what is refused."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.files import distinct_sentences, write_corpus, write_grammar, write_masked, write_task
from headstart.data.languages.generated import SIZES, random_grammar
from headstart.data.languages.grammar import Grammar, read_grammar
from headstart.data.languages.hmm import HMM
from headstart.data.languages.language import PAD, Language, find_language, is_language, parse_spec
from headstart.data.languages.pcfg import PCFG
from headstart.data.text.config import TextConfig
from headstart.data.text.prepare import prepare_text

SMALL = """
S -> R [0.7] | T [0.3]
R -> A B [0.6] | B A [0.4]
T -> A A [1.0]
A -> B B [0.25] | 'x' [0.5] | 'y' [0.25]
B -> 'y' [0.5] | 'z' [0.5]
"""


def enumerated(language: Language, lengths: range) -> dict[tuple[int, ...], float]:
    """Every sentence with its probability, by trying all."""
    assert isinstance(language, PCFG)
    found = {}
    for length in lengths:
        rows = np.array(list(itertools.product(range(len(language.words)), repeat=length)))
        padded = np.full((len(rows), language.longest), PAD)
        padded[:, :length] = rows
        found |= dict(zip(map(tuple, rows.tolist()), language.probabilities(padded)[:, 0].tolist(), strict=True))
    return {sentence: p for sentence, p in found.items() if p > 0}


def array(language: Language, sentences: list[tuple[int, ...]]) -> np.ndarray:
    found = np.full((len(sentences), language.longest), PAD)
    for row, sentence in zip(found, sentences, strict=True):
        row[: len(sentence)] = sentence
    return found


@pytest.fixture(scope="module")
def small() -> tuple[PCFG, dict[tuple[int, ...], float]]:
    language = PCFG(Grammar.from_text(SMALL))
    return language, enumerated(language, range(1, 5))


def test_probabilities_of_all_sentences_sum_to_one(small: tuple[PCFG, dict[tuple[int, ...], float]]) -> None:
    language, all_sentences = small
    assert language.longest == 4
    assert sum(all_sentences.values()) == pytest.approx(1, abs=1e-12)


def test_conditionals_are_those_of_the_joint_distribution(small: tuple[PCFG, dict[tuple[int, ...], float]]) -> None:
    language, known = small
    sentences = list(known)
    found = language.conditionals(array(language, sentences))
    for sentence, of_sentence in zip(sentences, found, strict=True):
        for at in range(len(sentence)):
            joint = np.array([known.get((*sentence[:at], word, *sentence[at + 1 :]), 0.0) for word in range(len(language.words))])
            np.testing.assert_allclose(of_sentence[at], joint / joint.sum(), atol=1e-12)
        assert (of_sentence[len(sentence) :] == 0).all()


def test_next_words_are_those_of_the_joint_distribution(small: tuple[PCFG, dict[tuple[int, ...], float]]) -> None:
    language, known = small
    sentences = list(known)
    found = language.next_words(array(language, sentences))
    for sentence, of_sentence in zip(sentences, found, strict=True):
        for t in range(len(sentence) + 1):
            begun = {other: p for other, p in known.items() if other[:t] == sentence[:t]}
            mass = np.zeros(len(language.words) + 1)
            for other, p in begun.items():
                mass[other[t] if len(other) > t else -1] += p
            np.testing.assert_allclose(of_sentence[t], mass / mass.sum(), atol=1e-12)


def test_both_samplers_draw_from_the_distribution(small: tuple[PCFG, dict[tuple[int, ...], float]]) -> None:
    language, known = small
    for drawn in (language.sample(20_000, np.random.default_rng(0)), language.draw(20_000, np.random.default_rng(0))):
        rows, counts = np.unique(drawn, axis=0, return_counts=True)
        assert {tuple(word for word in row if word != PAD) for row in rows.tolist()} <= known.keys()
        for row, count in zip(rows.tolist(), counts, strict=True):
            p = known[tuple(word for word in row if word != PAD)]
            assert abs(count / 20_000 - p) < 5 * np.sqrt(p * (1 - p) / 20_000)


def test_shares_of_words_are_exact(small: tuple[PCFG, dict[tuple[int, ...], float]]) -> None:
    language, known = small
    counts = sum(p * np.bincount(sentence, minlength=3) for sentence, p in known.items())
    np.testing.assert_allclose(language.unigram, counts / counts.sum(), atol=1e-12)
    hmm = HMM(0)
    drawn = hmm.sample(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=48) / drawn.size, hmm.unigram, atol=0.004)


def test_a_hidden_chain_is_exact() -> None:
    """Two states, three words, three places: by all paths of states."""
    hmm = HMM(2, states=2, words=3, length=3)
    sentences = np.array(list(itertools.product(range(3), repeat=3)))
    paths = np.array(list(itertools.product(range(2), repeat=3)))
    of_path = hmm.start[paths[:, 0]] * hmm.transition[paths[:, 0], paths[:, 1]] * hmm.transition[paths[:, 1], paths[:, 2]]
    shown = hmm.emission[paths[None], sentences[:, None]].prod(-1) * of_path  # [sentences, paths]
    joint = shown.sum(1).reshape(3, 3, 3)
    assert joint.sum() == pytest.approx(1)
    found = hmm.conditionals(sentences)
    for sentence, of_sentence in zip(sentences, found, strict=True):
        for at in range(3):
            index = tuple(slice(None) if place == at else word for place, word in enumerate(sentence))
            np.testing.assert_allclose(of_sentence[at], joint[index] / joint[index].sum(), atol=1e-12)
    for place in range(3):
        by_state = np.stack([shown[:, paths[:, place] == state].sum(1) for state in range(2)], 1)
        assert len(np.unique(by_state.argmax(1))) == 2
        np.testing.assert_array_equal(hmm.state(sentences, place + 1), by_state.argmax(1))


def test_a_grammar_survives_both_forms_of_file(tmp_path: Path) -> None:
    grammar = random_grammar(0, **SIZES["tiny"])
    for name in ("grammar.json", "grammar.txt"):
        write_grammar(grammar, tmp_path / name)
    sentences = PCFG(grammar).test_sentences(50)
    for name in ("grammar.json", "grammar.txt"):
        again = PCFG(read_grammar(tmp_path / name))
        spelled = PCFG(grammar).spell(sentences)
        np.testing.assert_allclose(again.optimal_loss(again.read(spelled)), PCFG(grammar).optimal_loss(sentences), rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("A -> 'x' [1.0]", "no start symbol"),
        ("S -> A [1.0]\nA -> 'x' [0.6] | 'y' [0.3]", "rules of A probabilities that sum to 0.9"),
        ("S -> A [1.0]\nA -> 'x' [1.0]\nB -> 'x' [1.0]", "never reaches the symbol B"),
        ("S -> A [1.0]\nA -> A A [0.5] | 'x' [0.5]", "lets A derive itself"),
        ("S -> A [1.0]\nA -> B B [1.0]\nB -> A A [1.0]", "derives itself and never a word"),
        ("S -> A [1.0]\nA -> B B [1.0]", "no rule for B"),
        ("S -> A [1.0]\nA -> 'x' [-1] | 'y' [2]", "the probability -1.0"),
        ("S -> A [1.0]\nA -> B [1.0]\nB -> 'x' [1.0]", "has the rule A -> B"),
        ("S -> 'x' [1.0]", "has the rule S -> x"),
    ],
    ids=["no-start", "sum", "unreachable", "cycle", "endless", "no-rule", "negative", "unary", "start-word"],
)
def test_a_grammar_that_is_none_is_refused_with_the_symbol(text: str, what: str) -> None:
    with pytest.raises(BadInput) as caught:
        Grammar.from_text(text)
    assert what in str(caught.value)


def test_rows_of_the_official_grammar_that_are_off_by_little_are_normalised() -> None:
    grammar = Grammar.from_text("S -> A [1.0]\nA -> 'x' [0.5] | 'y' [0.49977]")
    assert sum(rule.probability for rule in grammar.rules["A"]) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(("line", "number"), [("A 'x' [1]", 2), ("A -> 'x' [one]", 2), ("A -> 'x'", 2)], ids=["arrow", "number", "bare"])
def test_a_line_that_is_no_rule_is_named(line: str, number: int) -> None:
    with pytest.raises(BadInput) as caught:
        Grammar.from_text(f"S -> A [1.0]\n{line}")
    assert caught.value.record == number


def test_strange_sentences_are_refused() -> None:
    language = PCFG(random_grammar(0, **SIZES["tiny"]), "pcfg-tiny")
    with pytest.raises(BadInput, match="sentence 2 has the word '99'"):
        language.read(["3 0 0 5", "3 99"])
    with pytest.raises(BadInput, match="sentence 1 has 5 words"):
        language.read(["3 0 0 5 5"])
    with pytest.raises(BadInput, match="is no sentence of pcfg-tiny: 3"):
        language.conditionals(language.read(["3 0 0 5", "3"]))
    with pytest.raises(UsageError, match="first 4 words"):
        language.tasks["B"].of(language.read(["12 0 0"]))
    with pytest.raises(BadInput, match="have 16 words"):
        HMM(0).conditionals(np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("builtin:pcfg-mini?size=3", "no option 'size'"),
        ("builtin:pcfg-mini?seed=x", "cannot take seed=x"),
        ("builtin:pcfg-mini?sentences=1", "cannot take sentences=1"),
        ("builtin:pcfg", "needs grammar=FILE"),
        ("builtin:hmm?root_prior=1", "cannot take root_prior=1"),
    ],
    ids=["option", "seed", "sentences", "grammar", "prior"],
)
def test_a_wrong_name_is_refused(source: str, what: str) -> None:
    assert is_language(source)
    with pytest.raises(UsageError) as caught:
        parse_spec(source)
    assert what in caught.value.what


def test_a_store_has_a_token_a_word_and_keeps_the_distribution(tmp_path: Path) -> None:
    """Held out are some draws, not some sentences: to leave equal ones out of training would teach another language."""
    store = prepare_text(["builtin:pcfg-tiny?sentences=4000"], tmp_path / "store", TextConfig(held_out_share=0.1))
    language = find_language("builtin:pcfg-tiny")
    assert store.vocab_size == 5 + len(language.words)
    assert store.manifest["counts"]["held_out_documents"] == 400
    assert not store.dropped.any()
    texts = [store.decode(store.document(index)) for index in range(50)]
    assert language.spell(language.read(texts)) == texts
    held_out = {tuple(store.document(index)) for index in store.documents("held_out")}
    trained = [tuple(store.document(index)) for index in store.documents("train")]
    assert sum(sentence in held_out for sentence in trained) > 500
    assert prepare_text(["builtin:pcfg-tiny?sentences=4000"], tmp_path / "store", TextConfig(held_out_share=0.1)).folder == store.folder
    with pytest.raises(UsageError):
        prepare_text(["builtin:pcfg-tiny?sentences=4001"], tmp_path / "store", TextConfig(held_out_share=0.1))


def test_files_for_other_programs(tmp_path: Path) -> None:
    language = PCFG(random_grammar(0, **SIZES["tiny"]), "pcfg-tiny")
    write_corpus(language, tmp_path / "corpus.txt", 30)
    lines = (tmp_path / "corpus.txt").read_text().split("\n\n")
    assert language.spell(language.read([line.strip() for line in lines])) == [line.strip() for line in lines]
    assert len(lines) == 30
    sentences = distinct_sentences(language, 40, 4, np.random.default_rng(0))
    assert sentences is not None
    assert len({tuple(row) for row in sentences.tolist()}) == 40
    assert language.lengths(sentences).min() == 4
    assert distinct_sentences(PCFG(Grammar.from_text(SMALL)), 100, 4, np.random.default_rng(0)) is None  # there are 16
    write_task(language, "A", tmp_path / "task_A.csv", sentences)
    with (tmp_path / "task_A.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == language.spell(sentences)
    assert [row["label"] for row in rows] == [f"S{label + 1}" for label in language.tasks["A"].of(sentences)]


def test_masked_samples_have_the_official_names_and_hide_what_they_say(tmp_path: Path) -> None:
    language = PCFG(random_grammar(0, **SIZES["mini"]), "pcfg-mini")
    sentences = language.sample(2000, np.random.default_rng(1))
    write_masked(language, tmp_path / "masked.npz", sentences, copies=2)
    found = np.load(tmp_path / "masked.npz")
    ids, positions, targets = found["input_ids"], found["masked_lm_positions"], found["masked_lm_ids"]
    assert ids.shape == found["input_mask"].shape == found["segment_ids"].shape == (4000, language.longest + 2)
    words = list(found["vocabulary"])
    assert words[:4] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    whole = ids.copy()
    for row, (places, hidden) in enumerate(zip(positions, targets, strict=True)):
        whole[row, places[places > 0]] = hidden[places > 0]
    spelled = [" ".join(words[token] for token in row[1:] if token > 3) for row in whole]
    assert spelled == [line for line in language.spell(sentences) for _ in range(2)]
    lengths = found["input_mask"].sum(1)
    assert ((positions > 0).sum(1) == np.clip(np.rint(0.15 * lengths), 1, 5)).all()
    assert (ids[np.arange(4000), lengths - 1] == 2).all()
    shown = ids[np.arange(4000)[:, None], positions][positions > 0]
    assert (shown == 3).mean() == pytest.approx(0.8, abs=0.02)
    kept = (shown == targets[positions > 0]).mean()
    assert kept == pytest.approx(0.1 + 0.1 / len(language.words), abs=0.02)
    assert (positions[::2] != positions[1::2]).any()
    assert not found["segment_ids"].any()
