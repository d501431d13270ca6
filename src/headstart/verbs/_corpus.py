"""The data of a run: --data as one store, or as several that are mixed by weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.core.config import plain, replace_nested
from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.data.listing import is_store
from headstart.data.mixture import Mixture
from headstart.engine.method import Batch, Method
from headstart.engine.parts import HeldOutPart
from headstart.verbs._epochs import epoch_mixture, epoch_rows
from headstart.verbs._exports import run_of
from headstart.verbs._kinds import kind_of
from headstart.verbs._parts import OLD, NamedData, mix_of, parts_of, path_of
from headstart.verbs.config import SMOKE_RECORDS, PretrainConfig

if TYPE_CHECKING:
    from headstart.data.text.epochs import Epochs


@dataclass
class Corpus:
    """What a run trains on, and what it is measured on apart."""

    stores: list[Any]
    train: list[Any]  # the method's rows of each store
    held_out: list[Any]
    names: list[str] = field(default_factory=list)  # of the stores, where --data names its parts
    measured: dict[str, Any] = field(default_factory=dict)  # named part -> the store of its held-out text, which may be one of `stores`
    measured_rows: dict[str, Any] = field(default_factory=dict)  # ... -> the method's held-out rows of it

    @property
    def store(self) -> Any:
        """The store whose tokenizer, vocabulary or statistics stand for all."""
        return self.stores[0]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.train)

    def mixture(self, config: PretrainConfig, method: Method) -> Mixture | Epochs:
        """The endless order of rows, with what the method or an intervention around it says of each."""
        if config.epochs.on:
            return epoch_mixture(self, config, method)
        rows, shares = method.training_rows(self.train), mix_of(config.mix)
        if shares is not None:
            return Mixture(rows, [shares[name] for name in self.names], config.seed, by="tokens")
        weights = config.mixture.weights or None
        return Mixture(rows, weights, config.seed, by=config.mixture.by if weights else "rows")

    def held_out_batches(self, batch: int, limit: int) -> list[Batch]:
        """The first held-out rows of each store, `limit` in all, as CPU batches."""
        found: list[Batch] = []
        for rows in self.held_out:
            count = min(len(rows), max(1, limit // len(self.held_out)))
            for start in range(0, count, batch):
                values = rows.batch(np.arange(start, min(start + batch, count)))
                found.append({name: torch.as_tensor(value) for name, value in values.items()})
        return found

    def parts(self, method: Method) -> list[HeldOutPart]:
        """The named parts whose held-out losses are measured apart."""
        found = []
        for name, store in self.measured.items():
            rows, density = self.measured_rows[name], None
            if method.likelihood:
                density = rows.n_targets / max(1, store.text_bytes("held_out"))
            found.append(HeldOutPart(name, rows, density))
        return found


def open_corpus(method: type[Method], config: PretrainConfig, out: Path, init: Path | None) -> Corpus:
    """Prepares what is raw (once, cached beside the runs) and opens it.

    Raises:
        BadInput: the data cannot be used. UsageError: weights and --data do not fit, or the stores each other.
    """
    entries = [str(entry) for entry in config.data]
    if parts := parts_of(entries):
        return named_corpus(method, config, *make_parts(method, config, parts, out, init))
    weights = config.mixture.weights
    if weights and len(weights) != len(entries):
        raise UsageError(f"--mixture.weights has {len(weights)} numbers for {len(entries)} entries of --data.", "Give one weight for each.")
    return corpus_of(method, config, make_stores(method, config, entries, out, init))


def reopen_corpus(method: type[Method], config: PretrainConfig, info: dict[str, Any], say: Callable[[str], None]) -> Corpus | None:
    """The stores that a run began with, for its continuation; None where one of them is gone or made anew. What the files hold by now is said, not
    used.

    Args:
        info: run.json.
    """
    corpus = recorded_corpus(method, config, info)
    if corpus is None or not is_same_data(info, corpus):
        return None
    entries = [str(entry) for entry in config.data]
    if not config.smoke and not any(is_store(path_of(entry)) for entry in entries):
        groups = [entries] if len(corpus.stores) == 1 else [[entry] for entry in entries]
        if parts := parts_of(entries):
            groups = [list(part.train) for part in parts if part.train]
        for store, sources in zip(corpus.stores, groups, strict=False):
            if changed := method.source_changes(store, sources):
                say(f"The data changed since this run began ({'; '.join(changed)}): it goes on with what it began with, {store.folder}.")
    return corpus


def recorded_corpus(method: type[Method], config: PretrainConfig, info: dict[str, Any]) -> Corpus | None:
    """The stores that run.json names; None where one of them is gone."""
    recorded, measured = info.get("data", []), info.get("measured", [])
    if not recorded or not all(is_store(entry["store"]) for entry in [*recorded, *measured]):
        return None
    stores = [method.open_store(Path(entry["store"])) for entry in recorded]
    if "part" not in recorded[0]:
        return corpus_of(method, config, stores)
    trained = {entry["part"]: store for entry, store in zip(recorded, stores, strict=True)}
    apart = {entry["part"]: method.open_store(Path(entry["store"])) for entry in measured}
    held_out = {entry["part"]: apart[entry["part"]].as_held_out() if entry.get("all_held_out") else apart[entry["part"]] for entry in measured}
    return named_corpus(method, config, trained, held_out)


def make_parts(
    method: type[Method], config: PretrainConfig, parts: list[NamedData], out: Path, init: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(part -> the store that it is trained on, part -> the store of its held-out text): what is raw is prepared, with one tokenizer for all.

    Raises:
        UsageError: held-out files of what is no text. BadInput: the text of the old run is asked for, and gone.
    """
    parts = with_old(parts, config) if method.keeps_vocabulary else parts
    if method.data_group != "text" and any(part.held_out for part in parts):
        raise UsageError("NAME:held-out=FILE is for texts.", "Leave it out: a share of each part is held out.")
    data = config.data_config if init is None else method.data_config_for(config.data_config, init)
    entries = [entry for part in parts for entry in (*part.train, *part.held_out)]
    if ready := next((entry for entry in entries if is_store(entry)), None):
        data = method.share_preparation(method.open_store(Path(ready)), data)
    elif getattr(data, "tokenizer", ready) is None and not config.smoke:
        texts = [entry for part in parts for entry in part.train]
        data = method.share_preparation(prepared(method, texts, data, out), data)

    def store_of(name: str, sources: tuple[str, ...], **settings: Any) -> Any:
        nonlocal data
        if any(map(is_store, sources)):
            if len(sources) > 1:
                raise UsageError(f"The part '{name}' mixes a prepared store with other entries.", "Give the store alone, or another name.")
            return method.open_store(Path(sources[0]))
        if not config.smoke:
            return prepared(method, list(sources), replace_nested(data, settings), out)
        few, of_few = method.smoke_source(list(sources), out / "smoke" / name, data, SMOKE_RECORDS)
        store = method.prepare(few, out / "smoke" / name / "store", replace_nested(of_few, settings))
        data = method.share_preparation(store, data)
        return store

    trained, held_out = {}, {}
    for part in parts:
        own = {"held_out_share": 0.0} if part.held_out else {}
        if part.train:
            trained[part.name] = held_out[part.name] = store_of(part.name, part.train, **own)
        if part.held_out:
            apart = store_of(f"{part.name}-held-out", part.held_out, **own)
            held_out[part.name] = apart if is_store(part.held_out[0]) else apart.as_held_out()
    return trained, held_out


def with_old(parts: list[NamedData], config: PretrainConfig) -> list[NamedData]:
    """The parts, and what the run of --init was trained on as `old`, where nothing else is: trained on if --mix says so, measured in any case."""
    old = next((part for part in parts if part.name == OLD), None)
    wanted = OLD in (mix_of(config.mix) or {})
    if (old is not None and (old.train or not wanted)) or config.init is None:
        return parts
    stores = [store for store in trained_stores(config.init) if is_store(store)]
    if len(stores) == 1:
        others = [part for part in parts if part is not old]
        held_out = old.held_out if old is not None else () if wanted else (stores[0],)
        return [*others, NamedData(OLD, (stores[0],) if wanted else (), held_out)]
    if wanted:
        why = "was trained on several parts" if stores else "is no run of ours, or its store is gone"
        raise BadInput(f"{why}: what 'old' means is not known.", "Name its text: --data new=... old=FILE.", file=config.init)
    return parts


def trained_stores(init: Path) -> list[str]:
    """The stores of the run that a model folder lies in; none where it lies in no run."""
    found = run_of(init)
    return [] if found is None else [str(entry["store"]) for entry in found[1].get("data", [])]


def named_corpus(method: type[Method], config: PretrainConfig, trained: dict[str, Any], held_out: dict[str, Any]) -> Corpus:
    """The rows of named parts.

    Args:
        trained: part -> its store; held_out: part -> the store of its held-out text.

    Raises:
        UsageError: as `corpus_of`. BadInput: a part has nothing to train on.
    """
    corpus = corpus_of(method, config, list(trained.values()))
    for name, rows in zip(trained, corpus.train, strict=True):
        if not len(rows):
            raise BadInput(f"the part '{name}' fills no row of {rows.length} tokens.", "Give more text.", file=trained[name].folder)
    others = [store for name, store in held_out.items() if store is not trained.get(name)]
    kind_of(method).refuse_stores([*trained.values(), *others], config.method)
    rows_of = {name: method.rows(store, config.method, "held_out") for name, store in held_out.items()}
    known = {name: rows for name, rows in rows_of.items() if len(rows)}
    corpus.held_out = [known[name] for name in trained if name in known]
    corpus.names = list(trained)
    corpus.measured = {name: held_out[name] for name in known}
    corpus.measured_rows = known
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
    held_out = [method.rows(store, config.method, "held_out") for store in stores]
    train: list[Any] = [epoch_rows(method, store, config) if config.epochs.on else method.rows(store, config.method, "train") for store in stores]
    n_rows = sum(map(len, train))
    if (config.batch or 0) > max(64 * n_rows, 4096):
        raise UsageError(f"A batch of {config.batch:,} rows is far more than the {n_rows:,} rows of the corpus.", "Lower --batch.")
    return Corpus(stores, train, [part for part in held_out if len(part)])


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


def is_same_data(info: dict[str, Any], corpus: Corpus) -> bool:
    """Whether a run recorded this corpus: the same arrays, and of texts the same tokenizer.

    Args:
        info: run.json, or what of it is `manifests`.
    """

    def identity(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [tuple(entry.get(name) for name in ("part", "tokenizer_sha256", "arrays_sha256")) for entry in entries]

    now = manifests(corpus)
    return all(identity(info.get(name, [])) == identity(now.get(name, [])) for name in ("data", "measured"))


def manifests(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """What run.json keeps of the data, enough to know it again: "data" of what is trained on, "measured" of what is measured apart."""
    found = {"data": [manifest(store) for store in corpus.stores]}
    if corpus.names:
        found["data"] = [{"part": name, **entry} for name, entry in zip(corpus.names, found["data"], strict=True)]
        found["measured"] = [
            {"part": name, "all_held_out": getattr(store, "all_held_out", False), **manifest(store)} for name, store in corpus.measured.items()
        ]
    return found


def manifest(store: Any) -> dict[str, Any]:
    """Of one store."""
    keep = ("kind", "format_version", "counts", "tokenizer_sha256", "unigram_entropy", "inputs")
    arrays = {name: entry["sha256"] for name, entry in store.manifest["arrays"].items()}
    kept = {key: store.manifest[key] for key in keep if key in store.manifest}
    return {"store": str(store.folder.absolute()), **kept, "arrays_sha256": arrays}
