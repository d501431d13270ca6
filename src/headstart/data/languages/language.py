"""What a language with known statistics can say, and how one is named: builtin:pcfg-tiny?seed=1&sentences=50000."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write, sha256_file
from headstart.core.words import did_you_mean

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

PAD = -1
"""Where a sentence has ended in an array of words."""
PREFIX = "builtin:"
DEFAULT_SENTENCES = 100_000
MOST_SENTENCES = 1 << 27
BLOCK = 1 << 17
"""Sentences that are made at a time."""
TEST_SEED = 100
"""Test sentences are those of default_rng(TEST_SEED + seed), as in the checks of the specification; training sentences never are."""


@dataclass(frozen=True)
class Label:
    """A task on the sentences of a language."""

    of: Callable[[Ints], Ints]
    """int64 [n, longest] -> the class of each."""
    classes: list[str]
    shortest: int
    """Words that a sentence must have."""


class Language(ABC):
    """Sentences are int64 [n, longest], word numbers and then `PAD`."""

    name: str
    words: list[str]
    longest: int

    @abstractmethod
    def sample(self, count: int, rng: np.random.Generator) -> Ints:
        """Sentences by draws in a fixed order: equal generators give equal sentences."""

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """Sentences of the same distribution, as fast as possible."""
        return self.sample(count, rng)

    @abstractmethod
    def conditionals(self, sentences: Ints) -> Floats:
        """What a perfect masked model says: float64 [n, longest, words], the probabilities of each word at a place given all others; zero at padding.

        Raises:
            BadInput: one is no sentence of the language.
        """

    @property
    @abstractmethod
    def unigram(self) -> Floats:
        """float64 [words]: shares of the words in a long text."""

    @property
    def tasks(self) -> dict[str, Label]:
        """Downstream tasks by name."""
        return {}

    @property
    def unigram_entropy(self) -> float:
        """Nats: the loss of a model that knows the shares of the words and nothing else, the plateau on which training begins."""
        return float(entropy(self.unigram))

    def optimal_loss(self, sentences: Ints) -> tuple[float, float]:
        """(least loss of a masked model on these sentences, one place hidden at a time, in nats; its standard error as an estimate for the language).
        The mean is over all places of all sentences."""
        entropies = entropy(self.conditionals(sentences))[sentences != PAD]
        return float(entropies.mean()), float(entropies.std() / np.sqrt(len(entropies)))

    def test_sentences(self, count: int, seed: int = 0) -> Ints:
        """The first sentences of default_rng(100 + seed)."""
        return self.sample(count, np.random.default_rng(TEST_SEED + seed))

    @staticmethod
    def lengths(sentences: Ints) -> Ints:
        return (sentences != PAD).sum(-1)

    def spell(self, sentences: Ints) -> list[str]:
        """Sentences as text, words with a space between."""
        return [" ".join(self.words[word] for word in row if word != PAD) for row in sentences.tolist()]

    def read(self, texts: Sequence[str]) -> Ints:
        """The inverse of `spell`.

        Raises:
            BadInput: a word that the language does not have, or too many; with the number of the sentence.
        """
        number = {word: index for index, word in enumerate(self.words)}
        rows = []
        for at, text in enumerate(texts, 1):
            row = [number.get(word, PAD) for word in text.split()]
            if PAD in row:
                strange = text.split()[row.index(PAD)]
                raise BadInput(f"sentence {at} has the word {strange!r}, which {self.name} does not have.", "Give sentences of the language.")
            if not 1 <= len(row) <= self.longest:
                raise BadInput(f"sentence {at} has {len(row)} words; {self.name} has 1 to {self.longest}.", "Give sentences of the language.")
            rows.append(row)
        return padded(rows, self.longest)


def entropy(probabilities: Floats) -> Floats:
    """Over the last axis, in nats."""
    return -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))).sum(-1)


def padded(rows: Sequence[Sequence[int]], longest: int) -> Ints:
    """int64 [rows, longest], filled up with `PAD`."""
    found = np.full((len(rows), longest), PAD, dtype=np.int64)
    for place, row in zip(found, rows, strict=True):
        place[: len(row)] = row
    return found


# --- names ----------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A language and how much of it: `builtin:NAME?seed=0&sentences=100000&draw=0`.

    NAME is pcfg-paper, pcfg-mini, pcfg-tiny, hmm, or pcfg with `grammar=FILE`. `seed` is that of the grammar; `draw` that of the sentences.
    """

    name: str
    seed: int = 0
    sentences: int = DEFAULT_SENTENCES
    draw: int = 0
    grammar: Path | None = None
    root_prior: bool = False

    def open(self) -> Language:
        """Raises BadInput for a grammar that cannot be used."""
        from headstart.data.languages import generated, grammar, hmm, pcfg

        if self.name == "hmm":
            return hmm.HMM(self.seed)
        if self.grammar is not None:
            return pcfg.PCFG(grammar.read_grammar(self.grammar), f"the grammar {self.grammar}", self.root_prior)
        kind = self.name.removeprefix("pcfg-")
        return pcfg.PCFG(generated.random_grammar(self.seed, **generated.SIZES[kind]), self.name, self.root_prior)

    @property
    def listing(self) -> str:
        """Changes when the sentences would."""
        content = None if self.grammar is None else sha256_file(self.grammar)
        return hashlib.sha256(json.dumps([1, self.name, self.seed, self.sentences, self.draw, content]).encode()).hexdigest()


NAMES = ("pcfg-tiny", "pcfg-mini", "pcfg-paper", "hmm", "pcfg")
OPTIONS = ("seed", "sentences", "draw", "grammar", "root_prior")


def is_language(source: str) -> bool:
    """Whether a source names a language."""
    return source.startswith(PREFIX) and source.removeprefix(PREFIX).partition("?")[0] in NAMES


def parse_spec(source: str) -> Spec:
    """What `builtin:...` asks for.

    Raises:
        UsageError: an unknown name or option, or a value that it does not take.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if name not in NAMES:
        raise UsageError(f"There is no language '{name}'.", f"{did_you_mean(name, NAMES)}The languages: {', '.join(NAMES)}.")
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise UsageError(f"builtin:{name} has no option '{unknown[0]}'.", f"{did_you_mean(unknown[0], OPTIONS)}Its options: {', '.join(OPTIONS)}.")
    numbers: dict[str, int] = {}
    for key in ("seed", "sentences", "draw"):
        value = options.get(key, str(getattr(Spec(name), key)))
        if not value.isdecimal() or (key == "sentences" and not 2 <= int(value) <= MOST_SENTENCES) or int(value) >= 1 << 63:
            raise UsageError(f"builtin:{name} cannot take {key}={value}.", f"Give a whole number{' of at least 2' if key == 'sentences' else ''}.")
        numbers[key] = int(value)
    if (name == "pcfg") != ("grammar" in options):
        raise UsageError(f"builtin:{name} {'needs' if name == 'pcfg' else 'takes no'} grammar=FILE.", "builtin:pcfg?grammar=FILE is one of your own.")
    prior = options.get("root_prior", "0")
    if prior not in ("0", "1") or (name == "hmm" and prior == "1"):
        raise UsageError(f"builtin:{name} cannot take root_prior={prior}.", "Give 0 or 1, to a grammar.")
    grammar = Path(options["grammar"]) if "grammar" in options else None
    return Spec(name, **numbers, grammar=grammar, root_prior=prior == "1")


def find_language(source: str) -> Language:
    """The language of `builtin:...`; raises as `parse_spec` and `Spec.open`."""
    return parse_spec(source).open()


def write_sentences(spec: Spec, path: Path) -> None:
    """The sentences of a spec as .jsonl with the field `text`, one a line."""
    with atomic_write(path) as file:
        for text in sentences(spec):
            file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")


def sentences(spec: Spec) -> Iterator[str]:
    """The sentences of a spec as text, made as they are asked for."""
    language = spec.open()
    rng = np.random.default_rng([spec.seed, spec.draw, 1])  # a list never gives the stream of a plain number: test sentences are others
    for start in range(0, spec.sentences, BLOCK):
        yield from language.spell(language.draw(min(BLOCK, spec.sentences - start), rng))
