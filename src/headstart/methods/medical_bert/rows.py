"""The training rows of medical_bert: training files of shards of both corpora. Each is one pool in which pairs are made; rows are written once and
memory-mapped."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write
from headstart.core.progress import progress
from headstart.core.words import plural
from headstart.data.text.rows import Rows, rows_folder, write_rows
from headstart.data.text.store import TextStore
from headstart.methods.medical_bert.config import MedicalBertConfig
from headstart.methods.medical_bert.pairs import Pair, make_pairs
from headstart.methods.medical_bert.shards import SAMPLE_BYTES, SMALLEST_BYTES, compose, number_of_shards, shards_of, shards_of_a_file

logger = logging.getLogger(__name__)

BUILDER_VERSION = 2
"""Part of the rows' key: raise it when the builder's output changes."""
LABEL, CORPUS, OTHER = "next_sentence_label", "corpus", "other_corpus"
"""Columns: 1 where the second segment was drawn; the number of the corpus, 0 the small one, that each segment is of."""
MANY_PIECES = 0.5
"""Share of the documents that have one sentence, from which on it is said."""
MANY_DRAWN = 0.8
"""Share of the pairs whose second segment is drawn, from which on it is said."""
MUCH_REPEATED = 100
"""Times that the small corpus comes in a pass over the large one, above which it is said."""
COMPOSITION = "composition.json"
OF_FILES = ("composition", "small_shards", "large_shards", "shard_bytes", "training_files", "duplicates")
"""Settings that decide the training files."""


@dataclass(frozen=True)
class Plan:
    """What the training files of a store hold.

    Attributes:
        pools: documents of each file, ascending.
        composition: the shards of each file, by corpus; None where a file is no draw of shards.
        repeated: how often the small corpus comes for each time that the large one does, where they are composed.
        doubts: what is said of them when rows are made.
    """

    pools: list[np.ndarray]
    composition: list[tuple[list[int], list[int]]] | None = None
    repeated: float | None = None
    doubts: Sequence[str] = ()


def medical_bert_rows(store: TextStore, config: MedicalBertConfig, split: Literal["train", "held_out"] = "train") -> Rows:
    """The rows `[CLS] A [SEP] B [SEP]` of a split; those of held-out documents are one pool, made once.

    Raises:
        UsageError: the settings do not fit the corpora. BadInput: no pair can be made of these documents.
    """
    key: dict[str, Any] = {"builder": "pairs", "version": BUILDER_VERSION, "seed": config.example_seed}
    key |= {"short": config.short_share, "next_sentence": config.next_sentence}
    if split == "train":
        key |= {name: getattr(config, name) for name in OF_FILES}
    report: dict[str, float] = {}
    folder = rows_folder(store, key, split, config.sequence_length)
    pairs = _rows(store, config, split, report, folder)
    return write_rows(store, key, split, config.sequence_length, pairs, report, columns=(LABEL, CORPUS, OTHER))


def plan_of(store: TextStore, config: MedicalBertConfig) -> Plan:
    """The training files of a store.

    Raises:
        UsageError: the first corpus is the larger one, or has too few shards.
    """
    corpora = corpora_of(store)
    documents = [part[np.isin(part, store.documents("train"), assume_unique=True)] for part in corpora]
    if len(documents) == 1 or config.composition == "union":
        return Plan([np.concatenate(documents)] * (config.training_files or 1))
    if config.composition != "balanced":
        chosen = documents[config.composition == "large"]
        return Plan([chosen] * (config.training_files or 1))
    sizes = bytes_of(store, corpora)
    if sizes[0] > sizes[1]:
        what = f"The first entry of --data, the small corpus, has {sizes[0]:,} bytes of text, the others {sizes[1]:,}."
        raise UsageError(what, "Give the smaller one first, or --method.composition union.")
    if not all(map(len, documents)):
        mend = "Give more text, or a smaller --text.held-out-share."
        raise BadInput("one of the two corpora has no document to train on.", mend, file=store.folder)
    sentences = store.sentence_counts
    counts = [number_of_shards(size, config.shard_bytes or min(SAMPLE_BYTES, max(sizes[0], SMALLEST_BYTES))) for size in sizes]
    small, large = (shards_of(of, sentences[of], count) for of, count in zip(documents, counts, strict=True))
    of_small, of_large = shards_of_a_file(len(small), len(large), config.small_shards, config.large_shards)
    files = config.training_files or -(-len(large) // of_large)
    composition = compose(len(small), len(large), of_small, of_large, files, config.example_seed)
    pools = [np.sort(np.concatenate([small[i] for i in first] + [large[i] for i in second])) for first, second in composition]
    repeated = (of_small * len(large)) / (of_large * len(small))
    doubts = [
        f"a document of the {name} corpus has {sentences[of].max():,} sentences, a shard about {sentences[of].sum() / count:,.0f}, so training files"
        " are not balanced: cut it (blank lines, --text.document-split line), or give a larger --method.shard-bytes"
        for name, of, count in zip(("small", "large"), documents, counts, strict=True)
        if sentences[of].max() * count > sentences[of].sum()
    ]
    if repeated > MUCH_REPEATED:
        doubts.append(f"the small corpus comes {repeated:,.0f} times in a pass over the large one and is learned by heart: give more of it")
    return Plan(pools, composition, repeated, doubts)


def corpora_of(store: TextStore) -> list[np.ndarray]:
    """int64, the documents of the small corpus and of the others together; of all where the store has one source.

    Raises BadInput if the first of several sources has none: another would be taken for the small corpus.
    """
    (start, stop), *others = store.sources()
    if others and start == stop:
        raise BadInput("the first entry of --data, the small corpus, has no text.", "Give one with text.", file=store.folder)
    first = np.arange(start, stop)
    return [first, np.arange(stop, others[-1][1])] if others else [first]


def bytes_of(store: TextStore, corpora: Sequence[np.ndarray]) -> list[int]:
    """Text of each corpus; of a store that says nothing of its files, by their share of the tokens."""
    files = np.searchsorted(store.file_offsets, [part[0] for part in corpora], side="right") - 1
    stated = [entry.get("text_bytes") for entry in store.manifest["inputs"]]
    if all(isinstance(count, int) for count in stated):
        return [sum(stated[start:stop]) for start, stop in zip(files, [*files[1:], len(stated)], strict=True)]
    total = store.manifest["counts"]["text_bytes"]
    tokens = [int(store.document_offsets[part[-1] + 1] - store.document_offsets[part[0]]) for part in corpora]
    return [round(total * count / max(1, sum(tokens))) for count in tokens]


def _refuse_pools(store: TextStore, plan: Plan, config: MedicalBertConfig) -> None:
    """Raises BadInput where no pair has a second segment to be told from another; says where many have none of their own."""
    if not config.next_sentence:
        return
    off = "or give --method.no-next-sentence"
    if min(map(len, plan.pools)) < 2:
        what = "a training file holds one document, so no segment of another can be drawn."
        raise BadInput(what, f"Put blank lines between documents (or --text.document-split line), {off}.", file=store.folder)
    documents = np.unique(np.concatenate(plan.pools))
    sentences = store.sentence_counts[documents]
    if (sentences < 2).all():
        what = f"each of the {len(documents):,} documents is one sentence, so every second segment is drawn and there is nothing to learn of it."
        raise BadInput(what, f"Give --text.sentence-split rules where a line holds several, {off}.", file=store.folder)
    if (share := float((sentences < 2).mean())) > MANY_PIECES:
        logger.warning("%.0f %% of the documents are one sentence: their second segment is always drawn", 100 * share)


def _rows(
    store: TextStore, config: MedicalBertConfig, split: Literal["train", "held_out"], report: dict[str, float], folder: Path
) -> Iterator[tuple[Any, ...]]:
    """(ids, where the second segment begins, label, corpus of either segment) of every pair, files in order; the composition goes into the folder of
    the rows, which is there by then."""
    plan = plan_of(store, config) if split == "train" else Plan([store.documents("held_out")])
    if split == "train":
        _refuse_pools(store, plan, config)
        for doubt in plan.doubts:
            logger.warning("%s", doubt)
    report["training_files"], last_of_small = len(plan.pools), len(corpora_of(store)[0])
    if plan.composition is not None and plan.repeated is not None:
        small, large = plan.composition[0]
        report |= {"small_shards": len(small), "large_shards": len(large), "repeated": plan.repeated}
        with atomic_write(folder / COMPOSITION) as file:
            file.write(json.dumps([{"small": of_small, "large": of_large} for of_small, of_large in plan.composition]).encode())
        report["small_share"] = _small_share(store, plan.pools, last_of_small)
    cls_id, sep_id = (np.array([store.special_ids[name]], store.tokens.dtype) for name in ("cls", "sep"))
    tokens = np.asarray(store.tokens)
    drawn = count = 0
    for number, pool in enumerate(progress(plan.pools, len(plan.pools), "make pairs", "files")):
        for pair, of, other in pairs_of_pool(store, config, pool, number):
            first = tokens[pair.first_start : pair.first_stop]
            second = tokens[pair.second_start : pair.second_stop]
            parts = (cls_id, first, sep_id, second, sep_id) if len(second) else (cls_id, first, sep_id)
            drawn, count = drawn + pair.is_random, count + 1
            yield np.concatenate(parts), len(first) + 2, int(pair.is_random), int(of >= last_of_small), int(other >= last_of_small)
    report["drawn_share"] = drawn / max(count, 1)


def _small_share(store: TextStore, pools: Sequence[np.ndarray], last_of_small: int) -> float:
    """Of the tokens of all training files."""
    lengths = np.diff(store.document_offsets)
    small = sum(int(lengths[pool[pool < last_of_small]].sum()) for pool in pools)
    return small / sum(int(lengths[pool].sum()) for pool in pools)


def pairs_of_pool(store: TextStore, config: MedicalBertConfig, pool: np.ndarray, number: int) -> Iterator[tuple[Pair, int, int]]:
    """The pairs of a training file, with the documents that their segments are of.

    Args:
        number: of the file, which has a generator of its own.
    """
    rng = random.Random(f"{config.example_seed}:{number}")
    order = pool.tolist()
    rng.shuffle(order)
    shuffled = np.array(order, np.int64)
    starts, stops = (np.searchsorted(store.sentence_offsets, store.document_offsets[shuffled + i]).tolist() for i in (0, 1))
    bounds = [store.sentence_offsets[start : stop + 1].tolist() for start, stop in zip(starts, stops, strict=True)]
    for _ in range(config.duplicates):
        for pair in make_pairs(bounds, config.sequence_length, rng, config.short_share, config.next_sentence):
            yield pair, order[pair.document], order[pair.other]


def told(rows: Rows, store: TextStore) -> list[str]:
    """What a person should know of the training files, as lines of the plan."""
    report = rows.report
    files = plural(report["training_files"], "training file")
    lines = [f"  pairs      {len(rows):,} in {files}, {report['drawn_share']:.0%} with a drawn second segment"]
    if report["drawn_share"] > MANY_DRAWN:
        what = f"a sentence mostly fills a row of {rows.length} tokens, so there is little to learn of whether the second segment follows"
        lines.append(f"  WARNING    {what}. Lengthen --method.sequence-length, or give --text.sentence-split rules.")
    corpora = corpora_of(store)
    sizes = bytes_of(store, corpora)
    if "repeated" in report:
        held = f"{plural(report['small_shards'], 'shard')} of the small corpus and {report['large_shards']:,} of the large one"
        lines.append(f"  corpora    a training file holds {held}; {report['small_share']:.0%} of its tokens are of the small one,")
        lines.append(f"             which comes {report['repeated']:.1f} times in a pass over the large one")
    elif len(sizes) == 1:
        lines.append("  corpora    one, so there is nothing to balance: two entries of --data, the small corpus first, are")
    if len(sizes) == 2:
        how = "amplified" if store.manifest["preparation"].get("vocabulary") == "amplified" else "given, or of both as they are"
        tokens = [int(store.document_offsets[of[-1] + 1] - store.document_offsets[of[0]]) for of in corpora]
        small, large = (f"{size:,} bytes of text ({size / count:.2f} a token)" for size, count in zip(sizes, tokens, strict=True))
        lines.append(f"  vocabulary {how}; the small corpus has {small}, the large one {large}")
    return lines
