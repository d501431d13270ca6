"""The training rows of ELECTRA: its examples over a store of text, written once and memory-mapped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.data.text.rows import Rows, write_rows
from headstart.data.text.store import TextStore
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.examples import assemble, build_examples

logger = logging.getLogger(__name__)

CROPPED_TOO_MUCH = 0.1
SHORT_LINES = 5
"""Tokens of a line on average, below which it is hardly a sentence."""
GIANT = 100
"""Rows that an only document fills, from which on it is hardly one."""
BUILDER_VERSION = 2
"""Part of the rows' key: raise it when the builder's output changes."""


def electra_rows(store: TextStore, config: ElectraConfig, split: Literal["train", "held_out"] = "train") -> Rows:
    """The rows `[CLS] A [SEP] B [SEP]` of a split, at most `config.sequence_length` tokens each; see `examples`."""
    key = {
        "builder": "electra",
        "version": BUILDER_VERSION,
        "seed": config.example_seed,
        "blank_lines_separate_documents": config.blank_lines_separate_documents,
        "split_long_sentences": config.split_long_sentences,
    }
    report: dict[str, float] = {}
    rows = write_rows(store, key, split, config.sequence_length, _rows(store, config, split, report), report)
    if split == "train":
        _warn_of_odd_text(store, config)
    if rows.report["cropped_share"] > CROPPED_TOO_MUCH and split == "train":
        logger.warning(
            "%.0f %% of the text is cut away: its lines are long beside rows of %d tokens, and the official builder drops what does not fit. Lengthen"
            " --method.sequence-length%s",
            100 * rows.report["cropped_share"],
            config.sequence_length,
            "" if config.split_long_sentences else ", or give --method.split-long-sentences",
        )
    if skipped := rows.report.get("rows_without_maskable_token"):
        logger.warning("%d rows had no maskable token and were left out", skipped)
    return rows


def _warn_of_odd_text(store: TextStore, config: ElectraConfig) -> None:
    """Lines that are no sentences, and documents that nothing separates: the builder takes both as they are."""
    counts = store.manifest["counts"]
    a_line = counts["tokens"] / max(counts["sentences"], 1)
    if a_line < SHORT_LINES:
        logger.warning("a line has %.1f tokens on average, under %d: is there a sentence or a paragraph a line?", a_line, SHORT_LINES)
    if len(store.documents("train")) == 1 and config.blank_lines_separate_documents and counts["tokens"] > GIANT * config.sequence_length:
        logger.warning("all %s tokens are one document: if they are many, put a blank line between them", f"{counts['tokens']:,}")


def _rows(store: TextStore, config: ElectraConfig, split: str, report: dict[str, float]) -> Iterator[tuple[np.ndarray, int]]:
    """(ids, where segment B starts) of every example, files in order; counts what is left out into `report`."""
    cls_id, sep_id = store.special_ids["cls"], store.special_ids["sep"]
    maskable = np.ones(store.vocab_size, dtype=bool)
    maskable[[i for name, i in store.special_ids.items() if name != "unk"]] = False
    tokens = np.asarray(store.tokens)
    report["rows_without_maskable_token"] = 0
    kept = total = 0
    longest = config.sequence_length // 4 if config.split_long_sentences else None
    for file, name in enumerate(store.file_names):
        documents = [cut_sentences(bounds, longest) for bounds in sentence_bounds(store, split, file)]
        total += sum(int(bounds[-1] - bounds[0]) for bounds in documents)
        for example in build_examples(documents, config.sequence_length, config.example_seed, Path(name).name, config.blank_lines_separate_documents):
            ids, second = assemble(example, tokens, cls_id, sep_id)
            kept += len(ids) - (3 if second < len(ids) else 2)
            if not maskable[ids].any():  # the official code divides by zero on such a row
                report["rows_without_maskable_token"] += 1
                continue
            yield ids, second
    report["cropped_share"] = 1 - kept / max(total, 1)


def cut_sentences(bounds: np.ndarray, longest: int | None) -> np.ndarray:
    """The boundaries int64 [n + 1] with further ones, so that no sentence is longer than `longest`; None leaves them."""
    if longest is None or len(bounds) < 2 or np.diff(bounds).max() <= longest:
        return bounds
    return np.concatenate([*(np.arange(start, stop, longest) for start, stop in pairwise(bounds.tolist())), bounds[-1:]])


def sentence_bounds(store: TextStore, split: str, file: int) -> Iterator[np.ndarray]:
    """For each document of an input file that belongs to the split: its sentence boundaries in the token array, int64 [sentences + 1]."""
    documents = store.documents(split)
    first, last = np.searchsorted(documents, store.file_offsets[file : file + 2])
    of_file = documents[first:last]
    starts = np.searchsorted(store.sentence_offsets, store.document_offsets[of_file])
    stops = np.searchsorted(store.sentence_offsets, store.document_offsets[of_file + 1])
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield store.sentence_offsets[start : stop + 1]
