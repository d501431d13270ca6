"""The best part of the new text for a planned run: what a model of a little good text finds most probable, none of it from the held-out documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write, read_json
from headstart.core.words import counted, share
from headstart.data.listing import is_store
from headstart.data.text.config import TextConfig
from headstart.data.text.head import documents
from headstart.data.text.store import open_text_store
from headstart.verbs._plan_settings import CptSettings
from headstart.verbs.select import select


def best_part(settings: CptSettings, store: Path, tokenizer: Path, quota: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The chosen documents, written once: {"file", "tokens", "documents", "warnings"}.

    Args:
        store: the whole new text, prepared: says which documents are held out.
        tokenizer: what counts training tokens. quota: how many are chosen.

    Raises:
        UsageError: the new text is given as a store, whose documents are not there to be chosen from; or the guards leave less than is wanted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pool, chosen = folder / "pool.jsonl", folder / "selected.jsonl"
    if not chosen.is_file() or not (folder / "report.json").is_file():
        if any(map(is_store, settings.domain)):
            raise UsageError("--reference chooses among texts, and --domain is a prepared store.", "Give the raw texts as --domain.")
        write_trained_documents(settings, store, pool)
        select(pool, reference=list(settings.reference), quota=float(quota), tokenizer=tokenizer, out=folder, say=lambda line: None)
    report = read_json(folder / "report.json")
    tokens, n_documents = _chosen(chosen, tokenizer)
    found = {"file": str(chosen), "tokens": tokens, "documents": n_documents, "warnings": list(report.get("warnings", []))}
    say(f"Chosen by the reference: {n_documents:,} documents, {counted(tokens)} tokens ({share(tokens / quota)} of what was wanted).")
    return found


def write_trained_documents(settings: CptSettings, store: Path, path: Path) -> None:
    """The documents of the new text that the store trains on, as .jsonl.

    Raises:
        BadInput: the files are not those of the store any more.
    """
    opened = open_text_store(store)
    kept = ~(np.asarray(opened.held_out) | np.asarray(opened.dropped))
    texts = documents(list(settings.domain), TextConfig(text_field=settings.text_field))
    with atomic_write(path) as file:
        number = -1
        for number, text in enumerate(texts):
            if number < len(kept) and kept[number]:
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    if number + 1 != len(kept):
        what = f"holds {len(kept):,} documents, the new text {number + 1:,}."
        raise BadInput(what, "The files have changed since: give another --out.", file=store)


def _chosen(file: Path, tokenizer: Path) -> tuple[int, int]:
    """(tokens, documents) of the chosen text."""
    from headstart.data.text.tokenizer import load_tokenizer

    loaded, _ = load_tokenizer(str(tokenizer), TextConfig())
    texts = list(documents([file], TextConfig()))
    return sum(len(encoding.ids) + 1 for encoding in loaded.encode_batch_fast(texts, add_special_tokens=False)), len(texts)
