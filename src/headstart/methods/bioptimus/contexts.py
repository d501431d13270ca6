"""Where new tokens stand in the corpus, and how the old vocabulary writes these places.

The corpus is a store that was tokenised with the new vocabulary, so every token has its places already, continuation pieces ("##idine") and the
beginnings of words ("networ") too, which never stand alone. A word is written in the old vocabulary once; a new piece is then the old ones that its
characters overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from headstart.core.progress import progress
from headstart.data.permute import mix
from headstart.data.text.store import TextStore

BLOCK_TOKENS = 1 << 22
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Places:
    """Occurrences of tokens, at most so many a token, each in another sentence; ordered by token."""

    token: np.ndarray
    """int64 [n]"""
    sentence: np.ndarray
    """int64 [n], a number in `TextStore.sentence_offsets`."""
    at: np.ndarray
    """int64 [n], the token's index in `TextStore.tokens`."""


def find_places(store: TextStore, wanted: np.ndarray, most: int, seed: int = 0) -> Places:
    """The places of the wanted tokens in the training sentences: of each token those in the first `most` sentences of a shuffle by the sentences'
    content, so that the order of a file decides nothing. Sentences that are equal count once.

    Args:
        wanted: bool [vocab_size].
    """
    offsets = store.sentence_offsets
    document = np.searchsorted(store.document_offsets, offsets[:-1], side="right") - 1
    trained = ~(store.held_out | store.dropped)[document]  # of each sentence
    kept = np.zeros((4, 0), np.int64)  # token, key, sentence, at
    for first, last in _blocks(offsets):
        tokens = store.tokens[offsets[first] : offsets[last]].astype(np.int64)
        starts = offsets[first:last] - offsets[first]
        lengths = np.diff(offsets[first : last + 1])
        sentence = np.repeat(np.arange(last - first), lengths)
        keys = _keys(tokens, starts, lengths, seed)
        (at,) = np.nonzero(wanted[tokens] & trained[first:last][sentence])
        of = sentence[at]
        kept = _first(np.concatenate([kept, np.stack([tokens[at], keys[of], of + first, at + offsets[first]])], axis=1), most)
    return Places(kept[0], kept[2], kept[3])


def count_tokens(store: TextStore) -> np.ndarray:
    """int64 [vocab_size]: how often each token stands in the documents that are trained on."""
    counts = np.zeros(store.vocab_size, np.int64)
    bounds, trained = store.document_offsets, ~(store.held_out | store.dropped)
    for first, last in _blocks(bounds):
        tokens = store.tokens[bounds[first] : bounds[last]]
        counts += np.bincount(tokens[np.repeat(trained[first:last], np.diff(bounds[first : last + 1]))], minlength=len(counts))
    return counts


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of whole sentences (or documents) of about `BLOCK_TOKENS` tokens."""
    cuts = np.searchsorted(offsets, np.arange(0, offsets[-1], BLOCK_TOKENS))
    return ((int(first), int(last)) for first, last in pairwise([*np.unique(cuts), len(offsets) - 1]) if last > first)


def _keys(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, seed: int) -> np.ndarray:
    """int64 [sentences]: a hash of each sentence's tokens."""
    within = (np.arange(len(tokens)) - np.repeat(starts, lengths)).astype(np.uint64)
    mixed = mix(tokens.astype(np.uint64) + within * _GOLDEN + mix(np.full(1, seed, np.uint64) + _GOLDEN))
    return (mix(np.add.reduceat(mixed, starts)) >> np.uint64(1)).astype(np.int64)


def _first(places: np.ndarray, most: int) -> np.ndarray:
    """Of [token, key, sentence, at] the first `most` keys of each token, each once."""
    token, key, sentence, at = places
    places = places[:, np.lexsort((at, sentence, key, token))]
    token, key = places[:2]
    new = np.ones(len(token), bool)
    new[1:] = (token[1:] != token[:-1]) | (key[1:] != key[:-1])
    places = places[:, new]
    token = places[0]
    starts = np.flatnonzero(np.diff(token, prepend=-1))
    rank = np.arange(len(token)) - np.repeat(starts, np.diff([*starts, len(token)]))
    return places[:, rank < most]


@dataclass(frozen=True)
class Windows:
    """Rows of the old vocabulary, and which of their pieces an occurrence is made of."""

    rows: list[np.ndarray]
    """int64 [length] each: [CLS] pieces [SEP]."""
    token: np.ndarray
    """int64 [occurrences], of the new vocabulary."""
    row: np.ndarray
    """int64 [occurrences]"""
    first: np.ndarray
    """int64 [occurrences + 1]: occurrence i has the pieces `first[i]:first[i + 1]` of the two below."""
    place: np.ndarray
    """int64 [pieces], in the row."""
    weight: np.ndarray
    """float32 [pieces]: the share of the piece's characters that the new token has; 1 for whole words."""


@dataclass(frozen=True)
class _Word:
    """A word in the old vocabulary."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Characters of each piece."""


def old_windows(store: TextStore, places: Places, old: Tokenizer, special: tuple[int, int, int], most_tokens: int) -> Windows:
    """The places' sentences as rows of the old vocabulary. A place whose word the old vocabulary cannot write is left out.

    Args:
        special: ids of [CLS], [SEP] and [UNK] in the old vocabulary.
        most_tokens: of a row, the specials included; a longer sentence is cut to whole words around the place.
    """
    cls, sep, unknown = special
    names = store.characters
    words, sentences = _words_of(store, np.unique(places.sentence), names)
    written = _write(words, old, unknown)
    rows: list[np.ndarray] = []
    whole: dict[int, int] = {}  # sentence -> its row, where it is not cut
    measured: dict[int, tuple[list[int], int]] = {}  # sentence -> (pieces of each word, of all): a document on one line has thousands of places
    token, row_of, first, place, weight = [], [], [0], [], []
    for t, number, at in zip(places.token.tolist(), places.sentence.tolist(), places.at.tolist(), strict=True):
        starts, sentence = sentences[number]
        inside = at - int(store.sentence_offsets[number])
        mine = int(np.searchsorted(starts, inside, side="right")) - 1  # its word
        word = written[sentence[mine]]
        begin = sum(len(names[store.tokens[at - back]]) for back in range(1, inside - starts[mine] + 1))
        end = begin + len(names[t])
        parts = list(_overlap(word.spans, begin, end))
        if not parts or len(word.ids) + 2 > most_tokens or any(word.ids[i] == unknown for i, _ in parts):
            continue
        if number not in measured:
            of_words = [len(written[other].ids) for other in sentence]
            measured[number] = of_words, sum(of_words)
        lengths, total = measured[number]
        left, right = (0, len(sentence)) if total + 2 <= most_tokens else around(lengths, mine, most_tokens - 2)
        row = whole.get(number, -1) if (left, right) == (0, len(sentence)) else -1
        if row < 0:
            row = len(rows)
            rows.append(np.array([cls, *(piece for other in sentence[left:right] for piece in written[other].ids), sep], np.int64))
            if (left, right) == (0, len(sentence)):
                whole[number] = row
        before = 1 + sum(lengths[left:mine])
        token.append(t)
        row_of.append(row)
        place += [before + i for i, _ in parts]
        weight += [share for _, share in parts]
        first.append(len(place))
    tokens, of_rows, firsts, at_piece = (np.array(values, np.int64) for values in (token, row_of, first, place))
    return Windows(rows, tokens, of_rows, firsts, at_piece, np.array(weight, np.float32))


def _overlap(spans: Sequence[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, float]]:
    """(number, share that lies within) of each span that has characters of begin..end."""
    for number, (start, stop) in enumerate(spans):
        if (shared := min(end, stop) - max(begin, start)) > 0:
            yield number, shared / (stop - start)


def around(lengths: Sequence[int], middle: int, room: int) -> tuple[int, int]:
    """(first word, word after the last): as many whole words around `middle` as have `room` pieces together, about as many on both sides."""
    left, right, used = middle, middle + 1, lengths[middle]
    while True:
        grown = False
        if left > 0 and used + lengths[left - 1] <= room:
            left, used, grown = left - 1, used + lengths[left - 1], True
        if right < len(lengths) and used + lengths[right] <= room:
            used, right, grown = used + lengths[right], right + 1, True
        if not grown:
            return left, right


def _words_of(
    store: TextStore, numbers: np.ndarray, names: dict[int, str]
) -> tuple[dict[bytes, str | None], dict[int, tuple[np.ndarray, list[bytes]]]]:
    """(each different word -> its characters, None where a piece of it is unknown; sentence -> where its words start, and the words)."""
    unknown = store.special_ids.get("unk", -1)
    words: dict[bytes, str | None] = {}
    sentences: dict[int, tuple[np.ndarray, list[bytes]]] = {}
    for number in progress(numbers.tolist(), len(numbers), "sentences with new tokens", "sentences"):
        ids = store.tokens[store.sentence_offsets[number] : store.sentence_offsets[number + 1]]
        begins = ~store.continues_word[ids]
        begins[0] = True
        starts = np.flatnonzero(begins)
        parts = []
        for start, stop in pairwise([*starts.tolist(), len(ids)]):
            piece = ids[start:stop]
            key = piece.tobytes()
            if key not in words:
                words[key] = None if unknown in piece else "".join(names[index] for index in piece.tolist())
            parts.append(key)
        sentences[number] = (starts, parts)
    return words, sentences


def _write(words: dict[bytes, str | None], old: Tokenizer, unknown: int) -> dict[bytes, _Word]:
    """Each word in the old vocabulary."""
    known = [(key, text) for key, text in words.items() if text is not None]
    found = old.encode_batch([text for _, text in known], add_special_tokens=False)
    written = {key: _Word(encoding.ids, encoding.offsets) for (key, _), encoding in zip(known, found, strict=True)}
    return {key: written.get(key, _Word([unknown], [(0, 1)])) for key in words}
