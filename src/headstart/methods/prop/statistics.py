"""What a store's documents say of its words: counts in each document, and over all that are trained on.

Words are read from the tokens, which every store has: a word as the tokenizer splits text, put together from its pieces, is cut into runs of letters,
without stop words. So statistics, sets and rows are of one text, folded alike; what the vocabulary cannot write ([UNK]) is no word. The work is a few
passes of numpy over the tokens; only a word that was not met before is looked at as text.

    STORE/made/words-KEY/    kept: KEY is of the text, the tokenizer and what a word is
        words.txt            a word a line, by ascending hash
        stats.json           totals, and what it was made from; written last
        df, ctf              int64 [words], over documents that are trained on
        hashes               int64 [words], ascending: how a batch names a word
        pieces, piece_ends   the tokens of each word, one after another
        counted, counts, ends   the distinct words of each document with their counts
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import models

from headstart.core.errors import BadInput
from headstart.core.files import inside, locked, own_file, read_bounded, read_json, whole_folder, write_json
from headstart.core.progress import Reporter
from headstart.data.arrays import map_array
from headstart.data.permute import mix
from headstart.data.retrieval.words import WordPattern, read_stopwords, words_of
from headstart.data.text.store import TextStore
from headstart.data.text.tokenizer import FAILS, library_errors

BLOCK_TOKENS = 1 << 22
FORMAT_VERSION = 1
REBUILD = "Delete this folder; it is made again from its store."
ARRAYS = ("df", "ctf", "hashes", "pieces", "piece_ends", "counted", "counts", "ends")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MAX_WORDS_BYTES = 1 << 32


@dataclass(frozen=True)
class Statistics:
    """Counts of words; the arrays are those of the module's head. Document i of the store has `counted[ends[i]:ends[i + 1]]`."""

    words: list[str]
    hashes: np.ndarray
    df: np.ndarray
    ctf: np.ndarray
    pieces: np.ndarray
    piece_ends: np.ndarray
    counted: np.ndarray
    counts: np.ndarray
    ends: np.ndarray
    documents: int
    """That are trained on."""
    total: int
    """Words of them."""
    alike: int
    """Of them, those whose text another one has too."""

    @property
    def mu(self) -> float:
        """Words of a document on average."""
        return self.total / max(1, self.documents)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [documents of the store]: words of each."""
        sums = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        return np.asarray(np.diff(sums[self.ends]))


def word_hash(word: str) -> int:
    """63 bits of a word's letters."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") >> 1


def statistics_of(store: TextStore, pattern: WordPattern, stopwords: str) -> Statistics:
    """The statistics of a store, made once and kept in it.

    Raises:
        BadInput: what is kept there is damaged, or of another text.
    """
    without = read_stopwords(stopwords)
    told = {"pattern": pattern, "stopwords": hashlib.sha256("\n".join(sorted(without)).encode()).hexdigest()}
    arrays = store.manifest["arrays"]
    told |= {name: arrays[name]["sha256"] for name in ("tokens", "document_offsets", "held_out", "dropped")}
    told |= {"tokenizer": store.manifest["tokenizer_sha256"], "trained_on": str(not store.all_held_out)}
    key = hashlib.sha256(json.dumps([FORMAT_VERSION, told], sort_keys=True).encode()).hexdigest()[:16]
    folder = inside(store.folder, f"made/words-{key}")
    with locked(folder.with_suffix(".lock"), "counts the words of this text"):
        if not (folder / "stats.json").is_file():
            with whole_folder(folder) as new:
                _write(new, count_words(store, pattern, without), told)
        return _read(folder, told, len(store.document_offsets) - 1)


def _write(folder: Path, found: Statistics, told: dict[str, Any]) -> None:
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(found, name))
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in found.words), encoding="utf-8")
    totals = {name: getattr(found, name) for name in ("documents", "total", "alike")}
    write_json(folder / "stats.json", {"format_version": FORMAT_VERSION, "made_from": told, "words": len(found.words), **totals, "mu": found.mu})


def _read(folder: Path, told: dict[str, Any], documents: int) -> Statistics:
    info = read_json(own_file(folder, "stats.json"))
    if not isinstance(info, dict) or info.get("format_version") != FORMAT_VERSION or info.get("made_from") != told:
        raise BadInput("holds statistics of another text, or of another form.", REBUILD, file=folder)
    of_array = {name: map_array(folder, name, REBUILD) for name in ARRAYS}
    words = read_bounded(own_file(folder, "words.txt"), _MAX_WORDS_BYTES, "list of words").decode(errors="replace").splitlines()
    n, totals = len(words), {name: info.get(name) for name in ("documents", "total", "alike")}
    fit = all(isinstance(value, int) for value in totals.values())
    fit = fit and all(array.ndim == 1 and array.dtype.kind == "i" for array in of_array.values())
    fit = fit and all(len(of_array[name]) == n for name in ("df", "ctf", "hashes")) and len(of_array["counts"]) == len(of_array["counted"])
    for ends, flat, count in (("piece_ends", "pieces", n), ("ends", "counted", documents)):
        fit = fit and len(of_array[ends]) == count + 1 and bool((np.diff(of_array[ends]) >= 0).all())
        fit = fit and int(of_array[ends][0]) == 0 and int(of_array[ends][-1]) == len(of_array[flat])
    if not fit or bool((np.diff(of_array["hashes"]) <= 0).any()) or int(of_array["counted"].max(initial=-1)) >= n:
        raise BadInput("holds statistics whose arrays do not fit each other.", REBUILD, file=folder)
    return Statistics(words=words, **of_array, **totals)  # type: ignore[arg-type]


def count_words(store: TextStore, pattern: WordPattern, stopwords: frozenset[str]) -> Statistics:
    """Counts the words of every document of a store."""
    dictionary = _Dictionary(store, pattern, stopwords)
    counted, counts, lengths, texts = [], [], [], []
    offsets = np.asarray(store.document_offsets)
    with Reporter("count words", int(offsets[-1]), "tokens") as reporter:
        for first, last in _blocks(offsets):
            words, document = dictionary.words_of(first, last)
            pairs, of_pair = np.unique(document * len(dictionary.names) + words, return_counts=True)
            document, word = np.divmod(pairs, max(1, len(dictionary.names)))
            counted.append(word)
            counts.append(of_pair)
            lengths.append(np.bincount(document, minlength=last - first))
            texts.append(dictionary.texts)
            reporter.advance(int(offsets[last] - offsets[first]))
    names = dictionary.names
    hashes = np.array([word_hash(name) for name in names], np.int64)
    order = np.argsort(hashes)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    n = len(offsets) - 1
    of_document = np.repeat(np.arange(n), np.concatenate(lengths) if lengths else np.zeros(n, np.int64))
    word, count = rank[_joined(counted)], _joined(counts)
    sort = np.lexsort((word, of_document))
    word, count = word[sort], count[sort]
    trained = ~(np.asarray(store.held_out) | np.asarray(store.dropped))
    mine = trained[of_document]
    _, copies = np.unique(_joined(texts).astype(np.uint64)[trained], return_counts=True)
    pieces = _pieces([names[i] for i in order], store)
    return Statistics(
        words=[names[i] for i in order],
        hashes=hashes[order],
        df=np.bincount(word[mine], minlength=len(names)).astype(np.int64),
        ctf=np.bincount(word[mine], count[mine], minlength=len(names)).astype(np.int64),
        pieces=np.array([piece for of_word in pieces for piece in of_word], np.int32),
        piece_ends=np.concatenate([[0], np.cumsum([len(of_word) for of_word in pieces])]).astype(np.int64),
        counted=word.astype(np.int32),
        counts=count.astype(np.int32),
        ends=np.concatenate([[0], np.cumsum(np.bincount(of_document, minlength=n))]).astype(np.int64),
        documents=int(trained.sum()),
        total=int(count[mine].sum()),
        alike=int(copies.sum() - len(copies)),
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of whole documents of about `BLOCK_TOKENS` tokens."""
    cuts = np.searchsorted(offsets, np.arange(0, offsets[-1], BLOCK_TOKENS))
    return ((int(first), int(last)) for first, last in pairwise([*np.unique(cuts), len(offsets) - 1]) if last > first)


class _Dictionary:
    """Written words, as the tokenizer splits text, and the words to count in each: "covid19" has one, "1984" none."""

    def __init__(self, store: TextStore, pattern: WordPattern, stopwords: frozenset[str]) -> None:
        self.store, self.pattern, self.stopwords = store, pattern, stopwords
        self.names: list[str] = []
        self.texts = np.zeros(0, np.uint64)  # of the last block: a hash of each document's tokens
        self._numbers: dict[str, int] = {}
        self._written: dict[int, int] = {}  # hash of a written word -> its place in the two below
        self._counted: list[int] = []
        self._ends = [0]
        special = np.zeros(store.vocab_size, bool)
        special[list(store.special_ids.values())] = True
        self._begins = ~store.continues_word | special

    def words_of(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(number of each word to count, its document, from 0) of the documents `first`..`last`, in order."""
        offsets = np.asarray(self.store.document_offsets)[first : last + 1]
        tokens = np.asarray(self.store.tokens[offsets[0] : offsets[-1]]).astype(np.int64)
        places = offsets - offsets[0]
        filled = places[:-1][np.diff(places) > 0]
        self.texts = np.zeros(last - first, np.uint64)
        if not len(tokens):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        begins = self._begins[tokens]
        begins[filled] = True
        starts = np.flatnonzero(begins)
        lengths = np.diff(starts, append=len(tokens))
        within = (np.arange(len(tokens)) - np.repeat(starts, lengths)).astype(np.uint64)
        keys = np.add.reduceat(mix(tokens.astype(np.uint64) + (within + np.uint64(1)) * _GOLDEN), starts)
        at = np.arange(len(tokens)).astype(np.uint64)
        in_document = at - np.repeat(places[:-1].astype(np.uint64), np.diff(places))
        self.texts[np.diff(places) > 0] = np.add.reduceat(mix(tokens.astype(np.uint64) + (in_document + np.uint64(1)) * _GOLDEN), filled)
        unique, example, inverse = np.unique(keys, return_index=True, return_inverse=True)
        self._learn(unique.tolist(), [tokens[starts[i] : starts[i] + lengths[i]].tolist() for i in example])
        written = np.array([self._written[key] for key in unique.tolist()], np.int64)[inverse]
        ends = np.array(self._ends)
        sizes = (ends[1:] - ends[:-1])[written]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(ends[written], sizes)
        document = np.searchsorted(places, starts, side="right") - 1
        return np.array(self._counted, np.int64)[place], np.repeat(document, sizes)

    def _learn(self, keys: list[int], pieces: list[list[int]]) -> None:
        new = [(key, ids) for key, ids in zip(keys, pieces, strict=True) if key not in self._written]
        for (key, _), text in zip(new, self._texts([ids for _, ids in new]), strict=True):
            self._written[key] = len(self._ends) - 1
            self._counted += [self._number(word) for word in words_of(text, self.pattern, self.stopwords)]
            self._ends.append(len(self._counted))

    def _texts(self, words: list[list[int]]) -> list[str]:
        """The letters of written words; none of what the vocabulary cannot write."""
        tokenizer, special = self.store.tokenizer, set(self.store.special_ids.values())
        if not isinstance(tokenizer.model, models.WordPiece):
            with library_errors(FAILS, None, any_error=False):
                return list(tokenizer.decode_batch(words, skip_special_tokens=True))
        return ["".join("" if i in special else self.store.characters[i] for i in ids) for ids in words]

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = len(self.names)
            self.names.append(word)
        return self._numbers[word]


def _pieces(words: list[str], store: TextStore) -> list[list[int]]:
    """The tokens of each word as it stands after a blank; none for a word that the vocabulary cannot write."""
    with library_errors(FAILS, None, any_error=False):
        found = store.tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    unknown = store.special_ids.get("unk", -1)
    return [[] if unknown in encoding.ids else encoding.ids for encoding in found]
