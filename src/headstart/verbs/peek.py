"""`peek`: documents and training rows of a prepared store, decoded, to look at before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart.core.errors import UsageError
from headstart.core.run import read_run
from headstart.core.terminal import printable
from headstart.data.text import describe
from headstart.data.text.describe import Peek

SHOWN = 3000
"""Characters of a document or row that a person is shown."""


def peek(store: str | Path, *, count: int = 3, seed: int = 0) -> Peek:
    """Draws documents, and rows of every set of rows made of the store; the same seed draws the same.

    Args:
        store: a prepared store, or a run (its store is shown).
        count: documents, and rows of each set.

    Raises:
        BadInput: it is neither.
        UsageError: the run has several stores, or none yet.
    """
    return describe.peek(store_folder(Path(store)), count, seed)


def store_folder(folder: Path) -> Path:
    """The folder itself, or the store of the run that it is."""
    if not (folder / "run.json").is_file():
        if folder.exists() and not (folder / "manifest.json").is_file():
            raise UsageError(f"{folder} is no prepared store.", f"Make one: headstart prepare METHOD --data {folder} --out STORE")
        return folder
    stores = [entry["store"] for entry in read_run(folder).get("data", [])]
    if len(stores) != 1:
        mend = f"Give one of them: {', '.join(stores)}." if stores else "Let it begin first."
        raise UsageError(f"The run {folder} has {len(stores)} stores.", mend)
    return Path(stores[0])


def lines(found: Peek) -> Iterator[str]:
    """What a person reads: the report, documents sentence by sentence with their tokens, rows as the network sees them. Nothing of the text reaches
    the terminal as a command to it."""
    return (printable(line) for line in _lines(found))


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
