"""The data of a run: --data as one store, or as several that are mixed by weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.core.config import plain
from headstart.core.errors import OtherStore, UsageError
from headstart.data.mixture import Mixture
from headstart.engine.method import Batch, Method
from headstart.verbs._kinds import kind_of
from headstart.verbs.config import SMOKE_RECORDS, PretrainConfig


@dataclass
class Corpus:
    """What a run trains on."""

    stores: list[Any]
    train: list[Any]  # the method's rows of each store
    held_out: list[Any]

    @property
    def store(self) -> Any:
        """The store whose tokenizer, vocabulary or statistics stand for all."""
        return self.stores[0]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.train)

    def mixture(self, config: PretrainConfig, method: Method) -> Mixture:
        """The endless order of rows, with what the method or an intervention around it says of each."""
        weights = config.mixture.weights or None
        return Mixture(method.training_rows(self.train), weights, config.seed, by=config.mixture.by if weights else "rows")

    def held_out_batches(self, batch: int, limit: int) -> list[Batch]:
        """The first held-out rows of each store, `limit` in all, as CPU batches."""
        found: list[Batch] = []
        for rows in self.held_out:
            count = min(len(rows), max(1, limit // len(self.held_out)))
            for start in range(0, count, batch):
                values = rows.batch(np.arange(start, min(start + batch, count)))
                found.append({name: torch.as_tensor(value) for name, value in values.items()})
        return found


def open_corpus(method: type[Method], config: PretrainConfig, out: Path, init: Path | None) -> Corpus:
    """Prepares what is raw (once, cached beside the runs) and opens it.

    Raises:
        BadInput: the data cannot be used. UsageError: weights and --data do not fit, or the stores each other.
    """
    entries = [str(entry) for entry in config.data]
    weights = config.mixture.weights
    if weights and len(weights) != len(entries):
        raise UsageError(f"--mixture.weights has {len(weights)} numbers for {len(entries)} entries of --data.", "Give one weight for each.")
    return corpus_of(method, config, make_stores(method, config, entries, out, init))


def reopen_corpus(method: type[Method], config: PretrainConfig, recorded: list[dict[str, Any]], say: Callable[[str], None]) -> Corpus | None:
    """The stores that a run began with, for its continuation; None where one of them is gone or made anew. What the files hold by now is said, not
    used.

    Args:
        recorded: what run.json has of them (`manifests`).
    """
    if not recorded or not all(is_store(entry["store"]) for entry in recorded):
        return None
    corpus = corpus_of(method, config, [method.open_store(Path(entry["store"])) for entry in recorded])
    if not is_same_data(recorded, corpus):
        return None
    entries = [str(entry) for entry in config.data]
    if not config.smoke and not any(map(is_store, entries)):
        groups = [entries] if len(corpus.stores) == 1 else [[entry] for entry in entries]
        for store, sources in zip(corpus.stores, groups, strict=False):
            if changed := method.source_changes(store, sources):
                say(f"The data changed since this run began ({'; '.join(changed)}): it goes on with what it began with, {store.folder}.")
    return corpus


def make_stores(method: type[Method], config: PretrainConfig, entries: list[str], out: Path, init: Path | None) -> list[Any]:
    """The stores of --data; what is raw is prepared."""
    data = config.data_config if init is None else method.data_config_for(config.data_config, init)
    weights = config.mixture.weights
    if config.smoke:
        entries, data = method.smoke_source(entries, out / "smoke", data, SMOKE_RECORDS)
        return [method.prepare(entries, out / "smoke" / "store", data)]
    if all(is_store(entry) for entry in entries):
        return [method.open_store(Path(entry)) for entry in entries]
    if any(is_store(entry) for entry in entries):
        raise UsageError(
            "--data mixes prepared stores and raw files.", "Prepare the raw ones first: headstart prepare METHOD --data FILES --out STORE."
        )
    store = prepared(method, entries, data, out)
    if not weights:
        return [store]
    data = method.share_preparation(store, data)  # one tokenizer for all, trained on all; each entry a store of its own
    return [prepared(method, [entry], data, out) for entry in entries]


def corpus_of(method: type[Method], config: PretrainConfig, stores: list[Any]) -> Corpus:
    """The training rows of the stores.

    Raises:
        UsageError: they do not fit each other (different tokenizers, sizes of images), or have too little for what is asked.
    """
    kind_of(method).refuse_stores(stores, config.method)
    rows = {split: [method.rows(store, config.method, split) for store in stores] for split in ("train", "held_out")}
    n_rows = sum(map(len, rows["train"]))
    if (config.batch or 0) > max(64 * n_rows, 4096):
        raise UsageError(f"A batch of {config.batch:,} rows is far more than the {n_rows:,} rows of the corpus.", "Lower --batch.")
    return Corpus(stores, rows["train"], [part for part in rows["held_out"] if len(part)])


def is_store(entry: str) -> bool:
    return (Path(entry) / "manifest.json").is_file()


def prepared(method: type[Method], entries: list[str], data: Any, out: Path) -> Any:
    """The store of these entries and settings, made where it is missing: beside the runs, under a name made from both.

    When the files have changed since a store was made, it stays for the runs that began on it, and theirs gets the next number. The content decides:
    files that were only touched or copied are hashed, and find their store again.
    """
    places = [entry if entry.startswith("builtin:") else str(Path(entry).absolute()) for entry in entries]
    settings = plain(data)
    settings |= {name: None for name in settings if name == "workers"}  # does not change the store
    key = hashlib.sha256(json.dumps([places, settings], sort_keys=True).encode()).hexdigest()[:12]
    for number in count(1):
        name = f"{method.data_group}-{key}" + (f"-{number}" if number > 1 else "")
        try:
            return method.prepare(entries, out.parent / "stores" / name, data)
        except OtherStore:
            continue
    raise AssertionError("count() ended")


def is_same_data(recorded: list[dict[str, Any]], corpus: Corpus) -> bool:
    """Whether `manifests` was this when a run recorded it: the same arrays, and of texts the same tokenizer."""

    def identity(entries: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
        return [(entry.get("tokenizer_sha256"), entry.get("arrays_sha256")) for entry in entries]

    return identity(recorded) == identity(manifests(corpus))


def manifests(corpus: Corpus) -> list[dict[str, Any]]:
    """What run.json keeps of the data: enough to know it again."""
    keep = ("kind", "format_version", "counts", "tokenizer_sha256", "unigram_entropy", "inputs")
    found = []
    for store in corpus.stores:
        arrays = {name: entry["sha256"] for name, entry in store.manifest["arrays"].items()}
        kept = {key: store.manifest[key] for key in keep if key in store.manifest}
        found.append({"store": str(store.folder.absolute()), **kept, "arrays_sha256": arrays})
    return found


