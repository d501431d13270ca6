"""What verbs ask and say of texts (see `_kinds`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import UsageError
from headstart.core.terminal import printable
from headstart.core.words import plural
from headstart.verbs.config import ProbeConfig

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.data.text.describe import Peek
    from headstart.engine.method import Method

PROCESSOR = "AutoTokenizer"
TASK = "text-classification"
FEATURES = "feature-extraction"
WITHOUT_PICTURES = "text"
UNMEASURED = "Whether it helps your task: give --probe.labels FILE, or fine-tune it beside a random start with the command below."

BEGINNING = 100
"""Characters of a document among its neighbours."""
SHOWN = 3000
"""Characters of a document or row that a person is shown."""
LOOKED_AT = 16
"""Tokens of the row on which networks are compared."""


def refuse_stores(stores: Sequence[Any], config: Any) -> None:
    first = stores[0].manifest.get("tokenizer_sha256")
    if any(store.manifest.get("tokenizer_sha256") != first for store in stores):
        raise UsageError("The stores of --data were made with different tokenizers.", "Prepare them with one: --text.tokenizer STORE/tokenizer.json.")
    length, available = getattr(config, "sequence_length", 0), sum(len(store.tokens) for store in stores)
    if length > max(available, 1024):
        raise UsageError(f"Rows of {length:,} tokens are longer than the whole corpus of {available:,}.", "Lower --method.sequence-length.")


def data_words(stores: Sequence[Any], rows: Sequence[Any]) -> str:
    documents = sum(store.manifest["counts"]["documents"] for store in stores)
    tokens, n_rows = sum(part.n_tokens for part in rows), sum(map(len, rows))
    told = shares(rows[0].report, spaced=True)
    in_rows = f"{plural(documents, 'document')}, {plural(tokens, 'training token')} in {plural(n_rows, 'row')} of {rows[0].length}"
    return f"{in_rows} ({told})" if told else in_rows


def input_words(store: Any) -> str:
    return f"vocabulary {store.vocab_size:,}"


def rows_words(rows: Any) -> str:
    return f"{len(rows):,} of {rows.length} tokens ({shares(rows.report)})"


def shares(report: dict[str, Any], spaced: bool = False) -> str:
    """padding 1.20%, cropped 0.00%"""
    names = {name: name.removesuffix("_share") for name in report if name.endswith("_share")}
    return ", ".join(f"{shown.replace('_', ' ') if spaced else shown} {report[name]:.2%}" for name, shown in names.items())


def read_labelled(config: ProbeConfig, method: Method) -> tuple[Sequence[Any], Sequence[int], int]:
    from headstart.tasks.data import read_classification

    assert config.labels is not None
    records = read_classification(config.labels, text_field=config.text_field, label_field=config.label_field, of="probe.")
    return records.texts, [int(label) for label in records.labels], len(records.classes)


def read_records(sources: Sequence[str | Path], store: Any, text_field: str | None = None) -> Iterator[tuple[str, Any]]:
    from headstart.core.config import replace_nested
    from headstart.data.text.config import TextConfig
    from headstart.data.text.head import documents

    made = store.manifest["preparation"]
    config = replace_nested(TextConfig(), {name: made[name] for name in ("text_field", "document_split") if name in made})
    config = config if text_field is None else replace_nested(config, {"text_field": text_field})
    for number, text in enumerate(documents(sources, config), 1):
        yield f"document {number}", text


def show_neighbours(found: Sequence[Sequence[tuple[str, Any, float]]], store: Any, folder: Path) -> list[str]:
    """A document and below it the nearest others, each with its cosine."""
    lines = []
    for (name, text, _), *others in found:
        lines += ["", f"{name}: {_first_words(text)}"]
        lines += [f"  {cosine:.3f}  {other}: {_first_words(words)}" for other, words, cosine in others]
    return [printable(line, one_line=True) if line else line for line in lines]


def _first_words(text: str) -> str:
    words = " ".join(text[: 4 * BEGINNING].split())
    return words if len(words) <= BEGINNING else words[:BEGINNING] + " ..."


def load_line(export: Path) -> str:
    from headstart.engine.text_method import model_folder

    return f"from transformers import AutoModel, AutoTokenizer; model = AutoModel.from_pretrained({str(model_folder(export))!r})"


def answers(export: Path) -> Tensor:
    """Of every model folder in it: the last layer on a row of tokens."""
    import torch

    from headstart.interop.transformers_io import load_encoder

    found = []
    for config in sorted(export.rglob("config.json")):
        encoder = load_encoder(config.parent)
        ids = torch.arange(min(LOOKED_AT, encoder.max_length or LOOKED_AT))[None] % encoder.module.config.vocab_size
        with torch.no_grad():
            found.append(encoder.hidden_states({"input_ids": ids}).float().flatten())
    return torch.cat(found)


def next_lines(folder: Path) -> list[str]:
    return [
        f"Load it:   {load_line(folder / 'export')}",
        f"Fine-tune: headstart finetune classification --init {shlex.quote(str(folder))} --train TRAIN.jsonl --test TEST.jsonl",
        f"Look:      headstart sample {shlex.quote(str(folder))}",
    ]


def peek(store: Path, count: int, seed: int, sheet: Path | None) -> Peek:
    """Documents, and rows of every set of rows made of the store."""
    from headstart.data.text import describe

    return describe.peek(store, count, seed)


def peek_lines(found: Peek) -> list[str]:
    """The report, documents sentence by sentence with their tokens, rows as the network sees them. Nothing of the text reaches the terminal as a
    command to it."""
    return [printable(line) for line in _lines(found)]


def _lines(found: Peek) -> Iterator[str]:
    yield from found.report
    for document in found.documents:
        yield ""
        yield f"document {document.index} of {printable(document.file, one_line=True)} ({document.split.replace('_', ' ')})"
        yield from (f"  {sentence}" for sentence in _beginning(document.sentences))
        yield f"  tokens: {' '.join(document.pieces)}"
    for row in found.rows:
        second = "" if row.second is None else f", second segment from {row.second}"
        yield ""
        yield f"row {row.index} of {row.rows} ({row.length} tokens{second})"
        yield from (f"  {line}" for line in _beginning([row.text]))


def _beginning(sentences: Sequence[str]) -> Iterator[str]:
    """The first `SHOWN` characters, and how much is left out."""
    room = SHOWN
    for number, sentence in enumerate(sentences):
        if len(sentence) > room:
            left = sum(map(len, sentences[number:])) - room
            yield sentence[:room]
            yield f"... {left:,} more characters in {len(sentences) - number:,} sentences; --json prints all"
            return
        room -= len(sentence)
        yield sentence
