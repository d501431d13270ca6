"""The documents of some sources one after another, and the first of them for a smoke run: read without preparing anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from headstart.core.files import atomic_write
from headstart.data.interleaved.config import InterleavedConfig, our_flags
from headstart.data.interleaved.documents import Text
from headstart.data.interleaved.images import ImageFinder
from headstart.data.interleaved.read import Document, Documents, find_documents
from headstart.data.text.read import Fault, bad_input
from headstart.data.text.sources import InputFile


def documents(sources: Sequence[str | Path], config: InterleavedConfig) -> Iterator[tuple[InputFile, Document]]:
    """Raises BadInput where a record cannot be used; with `on_bad_input` "quarantine" it is left out."""
    for file in find_documents(sources).files:
        for found in Documents(file, config):
            if not isinstance(found, Fault):
                yield file, found
            elif config.on_bad_input == "stop":
                with our_flags():
                    raise bad_input(file, found)


def write_first_documents(sources: Sequence[str | Path], folder: Path, config: InterleavedConfig, count: int) -> Path:
    """Writes the first `count` documents into `folder`, as .jsonl with copies of their images beside it. What are answers stays so.

    Raises:
        BadInput: a record among them cannot be used. Refused: it names an image outside of its folder.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    finder = ImageFinder(config.images)
    path = folder / "documents.jsonl"
    with atomic_write(path) as lines:
        for number, (file, document) in enumerate(islice(documents(sources, config), count)):
            turns: list[dict[str, str]] = []
            images: list[str] = []
            for piece in document.pieces:
                if isinstance(piece, Text):
                    turns.append({"from": "gpt" if piece.answer else "human", "value": piece.text})
                elif (found := finder.find(piece.name, file.path) if piece.data is None else piece.data) is not None:
                    name = f"images/{number:03d}-{len(images):03d}{'' if isinstance(found, bytes) else found.suffix}"
                    with atomic_write(folder / name) as copy:
                        copy.write(found if isinstance(found, bytes) else found.read_bytes())
                    images.append(name)
                    turns.append({"from": "human", "value": "<image>"})
            lines.write(json.dumps({"images": images, "conversations": turns}).encode() + b"\n")
    return path
