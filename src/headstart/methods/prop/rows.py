"""The training rows of prop: a document each, with the distinct words that its sets are drawn from. Nothing is written: tokens are the store's, words
those of its statistics.

A row becomes two when it is trained on: one for each of its sets (`method.Prop.pairs`).
"""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.words import agree, plural
from headstart.data.text.rows import MAX_LENGTH
from headstart.data.text.store import TextStore
from headstart.methods.prop.background import background_of
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.statistics import Statistics, statistics_of

logger = logging.getLogger(__name__)

FEW_DOCUMENTS = 1000
MOST_REMOVED = 0.9
WIDTH = 64
"""The distinct words of a batch are filled up to a multiple of it: few shapes, so that a captured update fits."""
SHOWN = 80


class PropRows:
    """Documents of a split.

    Attributes:
        documents: int64 [rows]: numbers in the store; a long document comes several times where short ones come more seldom.
        length: tokens of the pair of rows that each becomes.
        report, n_tokens, n_documents: as of `Rows`.
    """

    def __init__(self, store: TextStore, found: Statistics, documents: np.ndarray, length: int, skipped: int) -> None:
        self.store, self.found, self.documents, self.length = store, found, documents, 2 * length
        self._room = length - 2
        self._row = length
        self.ids = (store.special_ids["cls"], store.special_ids["sep"], store.special_ids["pad"])
        offsets = np.asarray(store.document_offsets)
        sizes = (offsets[1:] - offsets[:-1])[documents]
        self.n_documents = len(np.unique(documents))
        kept = np.minimum(sizes, self._room)
        self.n_tokens = int(kept.sum()) + 2 * len(documents)
        self.n_targets = self.n_tokens
        self.report: dict[str, Any] = {
            "padding_share": 1 - self.n_tokens / max(1, len(documents) * length),
            "cropped_share": 1 - float(kept.sum()) / max(1, int(sizes.sum())),
            "skipped": skipped,
        }

    def __len__(self) -> int:
        return len(self.documents)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """`input_ids` int64 [batch, length / 2], [CLS] document [SEP], and `attention_mask` bool where one is padded; `words` int64 [batch, words],
        the hashes of the document's distinct words, ascending, and `counts`, 0 at padding."""
        documents = self.documents[rows]
        offsets = np.asarray(self.store.document_offsets)
        cls, sep, pad = self.ids
        sizes = np.minimum(offsets[documents + 1] - offsets[documents], self._room)
        place = np.arange(self._row) - 1
        at = offsets[documents][:, None] + np.clip(place, 0, np.maximum(sizes - 1, 0)[:, None])
        ids = np.asarray(self.store.tokens)[at].astype(np.int64)
        if ids.max(initial=0) >= self.store.vocab_size:
            what = f"holds token ids beyond its vocabulary of {self.store.vocab_size}."
            raise BadInput(what, "It is damaged; prepare it again.", file=self.store.folder)
        ids = np.where(place < sizes[:, None], ids, np.where(place == sizes[:, None], sep, pad))
        ids[:, 0] = cls
        batch = {"input_ids": ids}
        if (sizes < self._room).any():
            batch["attention_mask"] = place <= sizes[:, None]
        ends = self.found.ends
        numbers = ends[documents + 1] - ends[documents]
        width = -(-int(numbers.max()) // WIDTH) * WIDTH
        column = np.arange(width)
        word_at = np.minimum(ends[documents][:, None] + column, len(self.found.counted) - 1)
        there = column < numbers[:, None]
        batch["words"] = np.where(there, self.found.hashes[self.found.counted[word_at]], 0)
        batch["counts"] = np.where(there, self.found.counts[word_at], 0).astype(np.int64)
        return batch


def prop_rows(store: TextStore, config: PropConfig, split: Literal["train", "held_out"] = "train") -> PropRows:
    """The documents of a split that have words enough.

    Raises:
        BadInput: none has.
    """
    if config.sequence_length > MAX_LENGTH:
        raise BadInput(f"rows of {config.sequence_length:,} tokens.", f"Give at most {MAX_LENGTH:,}.")
    found = statistics_of(store, config.word_pattern, config.stopwords)
    documents = store.documents(split)
    full = found.lengths >= config.min_doc_words
    kept = documents[full[documents]]
    if split == "train":  # documents that are only measured on are scored by the statistics that training has
        background = background_of(found, config)
        drawable = np.diff(np.concatenate([[0], np.cumsum(background.probability[found.counted] > 0)])[found.ends])
        kept = kept[drawable[kept] > 0]
        _warn(found, background.probability, config, len(documents) - len(kept))
        if not len(kept):
            raise _nothing(store, found, config, documents)
    return PropRows(store, found, _thinned(store, kept, config), config.sequence_length, len(documents) - len(kept))


def _thinned(store: TextStore, documents: np.ndarray, config: PropConfig) -> np.ndarray:
    """The documents, long ones so often that short ones come `1 - short_doc_skip` times as often."""
    offsets = np.asarray(store.document_offsets)
    short = (offsets[1:] - offsets[:-1])[documents] < config.short_doc_tokens
    share = Fraction(1 - config.short_doc_skip).limit_denominator(20)
    if not short.any() or share == 1:
        return documents
    if share == 0:
        return documents[~short] if not short.all() else documents
    if short.all():
        return documents
    return np.repeat(documents, np.where(short, share.numerator, share.denominator))


def _warn(found: Statistics, background: np.ndarray, config: PropConfig, skipped: int) -> None:
    lower = "" if config.least_count <= 2 else "lower --method.least-count to 2, or "
    if found.documents < FEW_DOCUMENTS:
        what = "%s to count words in, under %d: %sgive --method.statistics, a table of the language"
        logger.warning(what, plural(found.documents, "document"), FEW_DOCUMENTS, lower)
    removed = 1 - np.count_nonzero(background) / max(1, len(background))
    if removed > MOST_REMOVED and config.statistics is None:
        what = "%.0f %% of the %s words are rarer than --method.least-count %d and are never drawn: %sgive more text"
        logger.warning(what, 100 * removed, f"{len(background):,}", config.least_count, lower)
    if skipped:
        logger.warning("%s under %d words, stop words not counted, left out", plural(skipped, "document"), config.min_doc_words)
    if found.alike:
        has = agree(found.alike, "has", "have")
        logger.warning("%s %s the same text as another: its words count too often", plural(found.alike, "document"), has)


def _nothing(store: TextStore, found: Statistics, config: PropConfig, documents: np.ndarray) -> BadInput:
    """Why no document can be used, with one of them."""
    example = ""
    if len(documents):
        longest = int(documents[np.argmax(found.lengths[documents])])
        text = store.decode(store.document(longest)[:SHOWN]).strip()
        example = f" The one with most has {found.lengths[longest]:,}: {text[:SHOWN]!r}."
    if len(documents) and found.lengths[documents].max() >= config.min_doc_words:
        what = f"no word comes {config.least_count} times or more in the {len(documents):,} documents, so none can be drawn.{example}"
        return BadInput(what, "Lower --method.least-count, or give more text.", file=store.folder)
    listed = f"{config.stopwords} stop words" if config.stopwords in ("english", "none") else f"the stop words of {config.stopwords}"
    what = f"no document has {config.min_doc_words} words ({config.word_pattern} letters, without {listed}).{example}"
    mend = "Of another language: give --method.stopwords FILE or none, and the unicode pattern. Of shorter texts: lower --method.min-doc-words."
    return BadInput(what, mend, file=store.folder)
