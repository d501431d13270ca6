"""The token store: all documents of a corpus as token ids, written once and memory-mapped.

    STORE/manifest.json               counts, inputs with sizes and hashes, preparation, tokenizer; written last: its presence means "complete"
    STORE/tokenizer.json
    STORE/tokens.npy                  uint16 or uint32 [n_tokens], documents one after another, no special tokens
    STORE/document_offsets.npy        int64 [n_documents + 1], into tokens
    STORE/sentence_offsets.npy        int64 [n_sentences + 1], into tokens
    STORE/file_offsets.npy            int64 [n_files + 1], into documents
    STORE/held_out.npy, dropped.npy   bool [n_documents]
    STORE/quarantine.jsonl            bad records, one JSON object a line
    STORE/rows/KEY/                   training rows made from it (`rows.py`)
    STORE/made/                       what a method made from it and keeps

A store may come from someone else: nothing in it is executed or unpickled, no path in its manifest is opened, and sizes are checked before anything
is used. `prepare.py` writes it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from headstart.core.errors import BadInput
from headstart.core.files import own_file
from headstart.core.words import plural
from headstart.data.stored import REBUILD, checked_manifest, hashes_of_arrays, numbers_of, refuse_unfit, stated_array, verify_hashes
from headstart.data.text import tokenizer as text_tokenizer
from headstart.data.text.config import TextConfig

KIND = "text"
FORMAT_VERSION = 1
ARRAYS = ("tokens", "document_offsets", "sentence_offsets", "file_offsets", "held_out", "dropped")
BYTES_BLOCK = 256
"""Documents that are decoded at a time."""


class TextStore:
    """An opened store. Arrays are read-only and memory-mapped.

    Attributes:
        folder, manifest: where it lies, and what is known of it.
        tokenizer: without padding and truncation.
        vocab_size: one more than the largest token id.
        special_ids: role ("pad", "unk", "cls", "sep", "mask", "bos", "eos") -> id, of those that the vocabulary has.
        tokens: [n_tokens].
        document_offsets: int64 [n_documents + 1]; document i is `tokens[document_offsets[i]:document_offsets[i + 1]]`.
        sentence_offsets: int64 [n_sentences + 1]; a sentence is a line of the source text or, cut by rules, a part of one; it
            is never empty and never crosses a document.
        file_offsets: int64 [n_files + 1]; input file i holds documents `file_offsets[i]:file_offsets[i + 1]`.
        held_out: bool [n_documents], kept for validation.
        dropped: bool [n_documents], near-duplicates of held-out documents; neither trained nor validated on.
        unigram_entropy: nats, of the training tokens.
        all_held_out: whether this is `as_held_out` of a store.
    """

    all_held_out = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = checked_manifest(folder, KIND, FORMAT_VERSION, "a store of texts", _is_sound)
        self.tokenizer = _open_tokenizer(folder)
        self.vocab_size: int = self.manifest["tokenizer"]["vocab_size"]
        self.special_ids: dict[str, int] = self.manifest["tokenizer"]["special_ids"]
        self.unigram_entropy: float = self.manifest["unigram_entropy"]
        arrays = {name: stated_array(folder, self.manifest, name) for name in ARRAYS}
        refuse_unfit(folder, {name: array.ndim == 1 for name, array in arrays.items()})
        self.tokens, self.document_offsets, self.sentence_offsets = arrays["tokens"], arrays["document_offsets"], arrays["sentence_offsets"]
        self.file_offsets, self.held_out, self.dropped = arrays["file_offsets"], arrays["held_out"], arrays["dropped"]
        self._check_arrays()
        if self.vocab_size != (found := text_tokenizer.vocabulary_size(self.tokenizer)):  # the size of tables that a model will allocate
            raise BadInput(f"states a vocabulary of {self.vocab_size}, its tokenizer has {found}.", REBUILD, file=folder / "manifest.json")

    @cached_property
    def continues_word(self) -> np.ndarray:
        """bool [vocab_size]: the token continues the word of the token before it."""
        return text_tokenizer.continues_word(self.tokenizer)

    @cached_property
    def characters(self) -> dict[int, str]:
        """Token id -> its characters, without the mark of a continuation."""
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        return {index: text_tokenizer.plain(name, bool(self.continues_word[index])) for name, index in vocabulary.items()}

    @cached_property
    def sentence_counts(self) -> np.ndarray:
        """int64 [n_documents]: sentences of each document."""
        return np.diff(np.searchsorted(self.sentence_offsets, self.document_offsets))

    @property
    def file_names(self) -> list[str]:
        """Of the input files, in the order of `file_offsets`."""
        return [entry["name"] for entry in self.manifest["inputs"]]

    def sources(self) -> list[tuple[int, int]]:
        """(first document, document after the last) of each source that the store was made of, where it knows; otherwise all in one. Sources without
        documents are left out, but for the first: no other takes its place."""
        counts = self.manifest.get("files_of_sources")
        if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != len(self.file_names):
            return [(0, len(self.document_offsets) - 1)]
        ends = self.file_offsets[np.cumsum([0, *counts])].tolist()
        found = [*pairwise(ends)]
        return [*found[:1], *((start, stop) for start, stop in found[1:] if start < stop)]

    def as_held_out(self) -> TextStore:
        """The same store with every document held out: text that is only measured on."""
        view = copy.copy(self)
        view.held_out, view.dropped, view.all_held_out = np.ones_like(self.held_out), np.zeros_like(self.dropped), True
        return view

    def text_bytes(self, split: str) -> int:
        """UTF-8 bytes of the documents of `split`, as their tokens say them: without white space around a document; for a tokenizer that changes its
        text, of the changed one."""
        numbers, total = self.documents(split), 0
        for first in range(0, len(numbers), BYTES_BLOCK):
            block = [self.document(int(number)).tolist() for number in numbers[first : first + BYTES_BLOCK]]
            total += sum(len(text.encode()) for text in self.tokenizer.decode_batch(block, skip_special_tokens=False))
        return total

    def documents(self, split: str) -> np.ndarray:
        """int64: numbers of the documents of `split`, "train" or "held_out", in order."""
        return numbers_of(split, self.held_out, self.dropped)

    def document(self, index: int) -> np.ndarray:
        """Token ids of a document."""
        return self.tokens[self.document_offsets[index] : self.document_offsets[index + 1]]

    def sentences(self, index: int) -> list[np.ndarray]:
        """Token ids of each sentence of a document."""
        first, last = np.searchsorted(self.sentence_offsets, self.document_offsets[index : index + 2])
        bounds = self.sentence_offsets[first : last + 1]
        return [self.tokens[start:stop] for start, stop in pairwise(bounds)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode([int(index) for index in ids], skip_special_tokens=False)

    def require_specials(self, *roles: str) -> None:
        """Raise BadInput naming the special tokens among `roles` that the vocabulary lacks."""
        text_tokenizer.require_specials(self.special_ids, roles)

    def verify(self) -> None:
        """Read everything: hashes of all arrays and the tokenizer, token ids below the vocabulary size. Raises BadInput at the first difference."""
        verify_hashes(self.folder, [*hashes_of_arrays(self.manifest, ARRAYS), ("tokenizer.json", self.manifest["tokenizer_sha256"])])
        if len(self.tokens) and int(self.tokens.max()) >= self.vocab_size:
            raise BadInput(f"holds token ids beyond the vocabulary of {self.vocab_size}.", REBUILD, file=self.folder / "tokens.npy")

    def report(self) -> list[str]:
        """What a person wants to know of the corpus, as lines."""
        counts, tokenizer = self.manifest["counts"], self.manifest["tokenizer"]
        cut = ", ".join(f"{share:.1%} over {length}" for length, share in self.manifest["sentences_longer_than"].items())
        lines = [
            ", ".join(plural(counts[unit], unit) for unit in ("documents", "sentences", "words", "tokens")),
            f"vocabulary {self.vocab_size:,} ({tokenizer['model']}): {self.manifest['tokens_per_word']:.2f} tokens a word, "
            f"{self.manifest['unknown_share']:.2%} unknown; sentences of too many tokens: {cut}",
            f"held out {plural(counts['held_out_documents'], 'document')} ({counts['held_out_tokens']:,} tokens); "
            f"{plural(counts['near_duplicate_documents'], 'near-duplicate')} of them kept out of training",
            f"unigram entropy {self.unigram_entropy:.3f} nats",
        ]
        if counts["quarantined"]:
            lines.append(f"{plural(counts['quarantined'], 'bad record')} in {self.folder / 'quarantine.jsonl'}")
        if (unknown := self.unknown()) is not None:
            lines.append(f"WARNING: {unknown}")
        return lines

    def unknown(self) -> str | None:
        """What is said where the vocabulary lacks many characters of the corpus; otherwise None."""
        if self.manifest["unknown_share"] <= 0.05:
            return None
        trained = "vocab_size" in self.manifest["preparation"]
        advice = "give a larger --text.vocab-size" if trained else "train a tokenizer on this corpus"
        return f"{self.manifest['unknown_share']:.1%} of the tokens are unknown; {advice}, or use one with byte fallback"

    def _check_arrays(self) -> None:
        n_documents = len(self.document_offsets) - 1
        checks = {
            "tokens": self.tokens.dtype in (np.uint16, np.uint32),
            "document_offsets": _are_offsets(self.document_offsets, len(self.tokens)),
            "sentence_offsets": _are_offsets(self.sentence_offsets, len(self.tokens))
            and bool(np.isin(self.document_offsets, self.sentence_offsets, assume_unique=False).all()),
            "file_offsets": _are_offsets(self.file_offsets, n_documents, strict=False) and len(self.file_offsets) == len(self.manifest["inputs"]) + 1,
            "held_out": self.held_out.dtype == bool and len(self.held_out) == n_documents,
            "dropped": self.dropped.dtype == bool and len(self.dropped) == n_documents,
        }
        refuse_unfit(self.folder, checks)


def open_text_store(folder: str | Path) -> TextStore:
    """Open a finished store. Raises BadInput if it is missing, unfinished, damaged or of another format version."""
    return TextStore(Path(folder))


def prepare_text(sources: Sequence[str | Path], out: str | Path, config: TextConfig | None = None) -> TextStore:
    """Source -> store, see `prepare.prepare_text`."""
    from headstart.data.text import prepare  # it writes what this module opens

    return prepare.prepare_text(sources, Path(out), config or TextConfig())


def _are_offsets(offsets: np.ndarray, end: int, strict: bool = True) -> bool:
    """Whether `offsets` rises from 0 to `end`."""
    if offsets.dtype != np.int64 or not len(offsets) or offsets[0] != 0 or offsets[-1] != end:
        return False
    steps = np.diff(offsets)
    return bool((steps > 0).all() if strict else (steps >= 0).all())


def _open_tokenizer(folder: Path) -> Tokenizer:
    tokenizer, _ = text_tokenizer.load_tokenizer(own_file(folder, "tokenizer.json"), TextConfig())
    return tokenizer


COUNTS = ("documents", "sentences", "words", "tokens", "held_out_documents", "held_out_tokens", "near_duplicate_documents", "quarantined")


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether what is read of a manifest has the types that it is read as; an error of a missing entry says no (`checked_manifest`)."""
    arrays, tokenizer, counts = manifest["arrays"], manifest["tokenizer"], manifest["counts"]
    entries: list[tuple[Any, type]] = [(array[name], str) for array in arrays.values() for name in ("dtype", "sha256")]
    entries += [(array["shape"], list) for array in arrays.values()]
    entries += [(tokenizer["vocab_size"], int), (tokenizer["model"], str), (manifest["tokenizer_sha256"], str)]
    entries += [(entry[name], kind) for entry in manifest["inputs"] for name, kind in INPUT.items()]
    entries += [(manifest["preparation"], dict), *((counts[name], int) for name in COUNTS)]
    numbers = [manifest[name] for name in ("unigram_entropy", "tokens_per_word", "unknown_share")] + [*manifest["sentences_longer_than"].values()]
    specials = tokenizer["special_ids"].values()
    return (
        set(arrays) == set(ARRAYS)
        and all(isinstance(value, kind) for value, kind in entries)
        and all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        and all(isinstance(index, int) and 0 <= index < tokenizer["vocab_size"] for index in specials)
    )


INPUT = {"name": str, "bytes": int, "mtime_ns": int, "listing": str, "sha256": str}
"""What the manifest says of each input file."""
