"""The documents of some sources one after another, and the first of them for a smoke run: read without preparing anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from headstart.core.files import atomic_write
from headstart.data.languages.language import is_language, parse_spec, sentences
from headstart.data.text import builtin
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, Reading, bad_input
from headstart.data.text.sources import find_inputs


def write_first_documents(sources: Sequence[str | Path], path: Path, config: TextConfig, count: int) -> None:
    """Writes the first `count` documents as .jsonl with the field `text`.

    Raises:
        BadInput: a record among them cannot be used; with `on_bad_input` "quarantine" it is left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for text in islice(documents(sources, config), count):
            file.write(json.dumps({"text": text}).encode() + b"\n")


def documents(sources: Sequence[str | Path], config: TextConfig) -> Iterator[str]:
    """Raises BadInput where a record cannot be used; with `on_bad_input` "quarantine" it is left out."""
    for source in sources:
        if is_language(str(source)):
            yield from sentences(parse_spec(str(source)))
            continue
        if str(source).startswith(builtin.PREFIX):
            for package_file in builtin.package_files(str(source)):
                document = builtin.read_document(package_file)
                if document is not None:
                    yield document.text
            continue
        for file in find_inputs([source]).files:
            for record in Reading(file, config):
                if not isinstance(record, Fault):
                    yield record.text
                elif config.on_bad_input == "stop":
                    raise bad_input(file, record)
