"""A word trigram with Witten-Bell interpolation: how probable a text is, judged by a small corpus of good text.

- Words are `\\w+|[^\\w\\s]` of the lower-cased text. The vocabulary is what the reference has at least `min_count` times; all other words are
  `<unk>`, a word like any other in counts and histories.
- Unknown words are an open class: one of them scores p(<unk> | history) / U, U the number of different reference words that became <unk>. Without
  the division text of unknown words looks *probable*: random letters had a perplexity of 31, medical text one of 97; with it 46,000.
- p_0 = 1 / (|V| + 1); for each history h of 0, 1, 2 words that was seen, p = (c(h, w) + u(h) p_shorter) / (c(h) + u(h)), u(h) the number of
  different followers (Witten and Bell 1991, method C, interpolated).
- Counts lie in sorted arrays. A bigram's key is (word before, word), a trigram's (number of the bigram before, word): exact, nothing is hashed. So a
  block of words is scored by two binary searches in NumPy; benchmarks/ngram.py has the ratio to a loop over dictionaries.
- Perplexity is that of the whole text as one sequence, end counted: exp(-log P / (words + 1)).

    FOLDER/scorer.json      order, normalisation, counts, hashes; written last
    FOLDER/vocabulary.txt   a word a line
    FOLDER/counts.npz       int64 arrays, nothing pickled
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headstart.core.errors import BadInput, MissingDependency, UsageError
from headstart.core.files import atomic_write, own_file, read_bounded, read_json, sha256_file, write_json
from headstart.core.words import first_line
from headstart.data.arrays import HEADER_ERRORS

KIND, FORMAT_VERSION = "word-trigram", 1
NORMALISATION = r"lower-cased \w+|[^\w\s]"
"""How a text becomes words, as it stands in every file of scores."""
BLOCK_WORDS = 2**18
"""Words scored together: their arrays stay in the cache."""
MAX_BYTES = 2**32
REBUILD = "The scorer is damaged or not ours; make it again from its reference."

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """The words of a text, as the scorer sees them."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Scores:
    """Of several texts.

    Attributes:
        perplexity: float64 [texts]; of the whole text, end counted, normalised by words + 1.
        words: int64 [texts].
        unknown: float64 [texts], share of the words that the scorer does not know; 0 for an empty text.
    """

    perplexity: np.ndarray
    words: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.words)


class Scorer(Protocol):
    """What scores texts."""

    @property
    def normalisation(self) -> str:
        """How a text becomes words: perplexities of another kind are not comparable."""

    @property
    def identity(self) -> str:
        """Hash of the model: perplexities of another one are not comparable either (kpu/kenlm#67)."""

    def score(self, texts: Sequence[str]) -> Scores: ...


class Trigram:
    """A trained trigram.

    Ids: the vocabulary in the order of `vocabulary`, then `</s>`, `<unk>`, `<s>`. A text is `<s> <s>`, its words, `</s>`.

    Args:
        vocabulary: the known words, sorted.
        counts: "unigrams" int64 [ids]; "bigrams", "trigrams": sorted int64 keys, and "bigram_counts", "trigram_counts" of each.
        unknown_types: U, different words of the reference that are not in the vocabulary.
        min_count: how often a word had to come.
    """

    order = 3
    normalisation = NORMALISATION

    def __init__(self, vocabulary: Sequence[str], counts: Mapping[str, np.ndarray], unknown_types: int, min_count: int) -> None:
        self.vocabulary, self.counts = list(vocabulary), dict(counts)
        self.unknown_types, self.min_count = unknown_types, min_count
        n = len(self.vocabulary)
        self.end, self.unknown, self.start, self.n_ids = n, n + 1, n + 2, n + 3
        self._ids = _Ids(zip(self.vocabulary, range(n), strict=True))
        self._ids.unknown = self.unknown
        self._open_class = math.log(max(unknown_types, 1))
        self._tabulate()

    def _tabulate(self) -> None:
        """Probabilities of what was seen, and the weights of what was not."""
        c = self.counts
        unigrams, self._bigrams, self._trigrams = c["unigrams"], c["bigrams"], c["trigrams"]
        before, word = np.divmod(self._bigrams, self.n_ids)
        total, different = unigrams.sum(), np.count_nonzero(unigrams)
        self._p1 = (unigrams + different / (self.n_ids - 1)) / max(total + different, 1)  # p_0 = 1 / (|V| + 1): V has </s>; <s> is never predicted
        self._rest1, self._p2 = _interpolate(before, c["bigram_counts"], self._p1[word], self.n_ids)
        history, word = np.divmod(self._trigrams, self.n_ids)
        # The bigram before a trigram is its history; one more stands for <s> <s>, which is no bigram of words.
        shorter = self._below(np.append(self._bigrams % self.n_ids, self.start)[history], word)
        self._rest2, self._p3 = _interpolate(history, c["trigram_counts"], shorter, len(self._bigrams) + 1)

    def _below(self, before: np.ndarray, word: np.ndarray) -> np.ndarray:
        """p(word | one word before)."""
        at = _find(self._bigrams, before * self.n_ids + word)
        return np.where(at >= 0, self._p2[at] if len(self._p2) else 0.0, self._rest1[before] * self._p1[word])

    @classmethod
    def train(cls, texts: Iterable[str], min_count: int = 2) -> Trigram:
        """A trigram of a reference corpus.

        Raises:
            UsageError: the reference has no word.
        """
        if min_count < 1:
            raise UsageError(f"a count cut of {min_count}.", "Give at least 1; 2 keeps words that come twice.")
        types: dict[str, int] = {}
        documents = []
        for text in texts:
            words = words_of(text)
            documents.append(np.fromiter((types.setdefault(word, len(types)) for word in words), np.int64, len(words)))
        if not types:
            raise UsageError("The reference has no word.", "Give texts of the kind that you want more of.")
        often = np.bincount(np.concatenate(documents), minlength=len(types)) >= min_count
        kept = sorted(word for word, known in zip(types, often.tolist(), strict=True) if known)
        n = len(kept)
        number = {word: index for index, word in enumerate(kept)}
        to_id = np.fromiter((number.get(word, n + 1) for word in types), np.int64, len(types))
        events, starts = _events([to_id[document] for document in documents], end=n)
        ids = n + 3
        before = _shifted(events, starts, n + 2)
        bigrams, of_bigram, bigram_counts = np.unique(before * ids + events, return_inverse=True, return_counts=True)
        history = _shifted(of_bigram.astype(np.int64), starts, len(bigrams))
        trigrams, trigram_counts = np.unique(history * ids + events, return_counts=True)
        counts = {
            "unigrams": np.bincount(events, minlength=ids).astype(np.int64),
            "bigrams": bigrams, "bigram_counts": bigram_counts, "trigrams": trigrams, "trigram_counts": trigram_counts,
        }  # fmt: skip
        return cls(kept, counts, int((~often).sum()), min_count)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\n".join([str(self.unknown_types), *self.vocabulary]).encode())
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(self.counts[name], np.int64).tobytes())
        return digest.hexdigest()

    def score(self, texts: Sequence[str]) -> Scores:
        """Perplexities of texts, each as one sequence."""
        found = [self._score_block(block) for block in _blocks(texts)]
        if not found:
            return Scores(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
        return Scores(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))

    def _score_block(self, documents: list[list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = [np.fromiter(map(self._ids.__getitem__, words), np.int64, len(words)) for words in documents]
        events, starts = _events(ids, self.end)
        log_p = np.log(self.probabilities(events, starts))
        strange = events == self.unknown
        log_p -= self._open_class * strange
        words = np.diff(starts, append=len(events)) - 1
        log_ps = np.add.reduceat(log_p, starts)
        return np.exp(-log_ps / (words + 1)), words, np.add.reduceat(strange.astype(np.int64), starts) / np.maximum(words, 1)

    def probabilities(self, events: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """float64 [events]: p of each given the two before it; <unk> as one word.

        Args:
            events: int64 [events], texts one after another, each with its end.
            starts: int64 [texts], where each begins.
        """
        before = _shifted(events, starts, self.start)
        bigram = _find(self._bigrams, before * self.n_ids + events)
        shorter = np.where(bigram >= 0, self._p2[bigram], self._rest1[before] * self._p1[events])
        history = _shifted(bigram, starts, len(self._bigrams))  # -1: never seen, the shorter history decides
        trigram = np.full(len(events), -1)
        seen = history >= 0
        trigram[seen] = _find(self._trigrams, history[seen] * self.n_ids + events[seen])
        return np.where(trigram >= 0, self._p3[trigram], np.where(seen, self._rest2[history], 1.0) * shorter)

    def distribution(self, before: Sequence[str] = ()) -> dict[str, float]:
        """Every word of the vocabulary, `</s>` and `<unk>` -> p after these words at the start of a text; they sum to 1."""
        history = np.array([self._ids[word] for word in before], np.int64)
        length = len(history) + 1
        events = np.tile(np.append(history, 0), self.start)
        events[length - 1 :: length] = np.arange(self.start)
        p = self.probabilities(events, np.arange(0, len(events), length))[length - 1 :: length]
        return dict(zip([*self.vocabulary, "</s>", "<unk>"], p.tolist(), strict=True))

    def save(self, folder: Path) -> None:
        """Writes it; complete when scorer.json is there."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "vocabulary.txt") as file:
            file.write("\n".join(self.vocabulary).encode())
        with atomic_write(folder / "counts.npz") as file:
            np.savez(file, **{name: self.counts[name] for name in ARRAYS})  # type: ignore[arg-type]
        hashes = {name: sha256_file(folder / name) for name in ("vocabulary.txt", "counts.npz")}
        about = {"kind": KIND, "format_version": FORMAT_VERSION, "order": self.order, "normalisation": NORMALISATION, "identity": self.identity}
        about |= {"min_count": self.min_count, "unknown_types": self.unknown_types, "words": len(self.vocabulary), "sha256": hashes}
        write_json(folder / "scorer.json", about)

    @classmethod
    def open(cls, folder: Path) -> Trigram:
        """Raises BadInput where it is damaged, of another format, or of words that are cut otherwise."""
        about = read_json(own_file(folder, "scorer.json"), 2**20)
        if not isinstance(about, dict) or about.get("kind") != KIND or about.get("format_version") != FORMAT_VERSION:
            raise BadInput("is no scorer of this version.", "Make it again from its reference.", file=folder / "scorer.json")
        if about.get("normalisation") != NORMALISATION:
            what = f"was made of words as {about.get('normalisation')!r}; here they are {NORMALISATION!r}."
            raise BadInput(what, "Make it again from its reference: such perplexities cannot be compared.", file=folder / "scorer.json")
        for name in ("vocabulary.txt", "counts.npz"):
            if sha256_file(own_file(folder, name)) != (about.get("sha256") or {}).get(name):
                raise BadInput("differs from its hash in scorer.json.", REBUILD, file=folder / name)
        try:
            text = read_bounded(folder / "vocabulary.txt", MAX_BYTES, "vocabulary").decode()
            vocabulary = text.split("\n") if text else []
            counts = _read_counts(folder / "counts.npz")
            _check(vocabulary, counts)
            return cls(vocabulary, counts, int(about["unknown_types"]), int(about["min_count"]))
        except (*HEADER_ERRORS, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(f"cannot be read ({first_line(error)}).", REBUILD, file=folder) from None


ARRAYS = ("unigrams", "bigrams", "bigram_counts", "trigrams", "trigram_counts")


class KenLM:
    """An ARPA or binary model of KenLM (Heafield 2011), scored by its own package.

    Args:
        path: the model.
        as_words: the texts are given to it as our words, blanks between them: right for a model that was made of such text. False: as they are, cut
            at white space.

    Raises:
        MissingDependency: the package kenlm is not installed. BadInput: the file is no model.
    """

    def __init__(self, path: Path, as_words: bool = True) -> None:
        try:
            import kenlm
        except ImportError:
            raise MissingDependency("kenlm", "kenlm", "a KenLM model") from None
        if not path.is_file():
            raise BadInput("is not there.", "Give an ARPA or binary file of KenLM, or a folder of ours.", file=path)
        try:
            self._model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise BadInput(f"is no model of KenLM ({first_line(error)}).", "Make it again with lmplz.", file=path) from None
        self.as_words = as_words
        self.normalisation = NORMALISATION if as_words else "cut at white space"
        self.identity = sha256_file(path)

    def score(self, texts: Sequence[str]) -> Scores:
        found = []
        for text in texts:
            words = words_of(text) if self.as_words else text.split()
            scores = list(self._model.full_scores(" ".join(words), bos=True, eos=True))  # (log10 p, length of the n-gram, unknown)
            log10_p = sum(score for score, _, _ in scores)
            strange = sum(unknown for _, _, unknown in scores) / max(len(words), 1)
            found.append((10.0 ** (-log10_p / (len(words) + 1)), len(words), strange))
        perplexity, n_words, unknown = zip(*found, strict=True) if found else ((), (), ())
        return Scores(np.array(perplexity, np.float64), np.array(n_words, np.int64), np.array(unknown, np.float64))


def open_scorer(path: Path, as_words: bool = True) -> Scorer:
    """A folder that `Trigram.save` wrote, or a file of KenLM."""
    return Trigram.open(path) if path.is_dir() else KenLM(path, as_words)


class _Ids(dict[str, int]):
    """Word -> id; what it does not know is unknown. A look-up without a call of Python for known words."""

    unknown = 0

    def __missing__(self, word: str) -> int:
        return self.unknown


def _blocks(texts: Iterable[str]) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    size = 0
    for text in texts:
        block.append(words_of(text))
        size += len(block[-1]) + 1
        if size >= BLOCK_WORDS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _events(documents: Sequence[np.ndarray], end: int) -> tuple[np.ndarray, np.ndarray]:
    """Words of all texts, `end` after each; and where each text begins."""
    lengths = np.array([len(document) + 1 for document in documents])
    ends = np.cumsum(lengths)
    events = np.full(int(ends[-1]), end, np.int64)
    is_word = np.ones(len(events), bool)
    is_word[ends - 1] = False
    events[is_word] = np.concatenate(documents)
    return events, ends - lengths


def _shifted(values: np.ndarray, starts: np.ndarray, first: int) -> np.ndarray:
    """Of each event the value of the one before; `first` where a text begins."""
    before = np.roll(values, 1)
    before[starts] = first
    return before


def _find(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """int64: where each key stands among the sorted `known`; -1 where it does not."""
    if not len(known):
        return np.full(len(keys), -1)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, at, -1)


def _interpolate(history: np.ndarray, counts: np.ndarray, shorter: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each history the weight of the shorter one, u / (c + u), 1 for what was never seen; of each n-gram (c + u p) / (c(h) + u)."""
    total = np.bincount(history, weights=counts, minlength=n)
    different = np.bincount(history, minlength=n)
    rest = np.where(different > 0, different / np.maximum(total + different, 1), 1.0)
    return rest, (counts + different[history] * shorter) / (total + different)[history]


def _read_counts(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(read_bounded(path, MAX_BYTES, "scorer"))) as packed:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in packed.infolist()):
            raise ValueError("it is compressed, ours are not")
        return {name: _array(packed.read(f"{name}.npy")) for name in ARRAYS}


def _array(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim != 1 or array.dtype != np.int64:
        raise ValueError(f"an array is {array.dtype}{list(array.shape)}")
    return array


def _check(vocabulary: list[str], counts: dict[str, Any]) -> None:
    """Raises ValueError for arrays that do not fit each other: they index each other later."""
    ids = len(vocabulary) + 3
    bigrams, trigrams = counts["bigrams"], counts["trigrams"]
    fits = (
        len(set(vocabulary)) == len(vocabulary)
        and len(counts["unigrams"]) == ids
        and len(counts["bigram_counts"]) == len(bigrams)
        and len(counts["trigram_counts"]) == len(trigrams)
        and all(len(array) and (array >= 0).all() for array in counts.values())
        and all((np.diff(keys) > 0).all() for keys in (bigrams, trigrams))
        and bigrams[-1] < ids * ids
        and trigrams[-1] < (len(bigrams) + 1) * ids
    )
    if not fits:
        raise ValueError("its arrays do not fit each other")
