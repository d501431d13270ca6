"""Documents -> token ids and places of images, in parts that survive a kill: a restarted preparation reads over what the parts have, and goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from headstart.core.errors import BadInput
from headstart.core.files import sync_folder
from headstart.core.machine import refuse_limits, writing
from headstart.core.progress import Reporter
from headstart.core.tensor_files import save_tensors
from headstart.data.interleaved.config import InterleavedConfig, our_flags
from headstart.data.interleaved.documents import Image, Refused
from headstart.data.interleaved.images import EMBEDDED, EmbeddedImages, ImageFinder
from headstart.data.interleaved.read import Document, Documents
from headstart.data.text.encode import token_dtype
from headstart.data.text.read import Fault, bad_input
from headstart.data.text.sources import InputFile
from headstart.data.text.tokenizer import FAILS, library_errors, sentence_encoder, vocabulary_size

PART_DOCUMENTS, PART_BYTES = 2**14, 2**24
"""A part ends with the first of these. A kill loses at most its work."""
ARRAYS = ("tokens", "answers", "document_lengths", "document_images", "image_places", "image_names", "document_hashes", "document_files")


@dataclass
class Part:
    """Consecutive documents, encoded.

    Attributes:
        file, record: where reading goes on: index of the input file, and how many of its records and faults are done.
        finished: input files that ended in this part: (index, sha256).
        faults: (file index, record number, what, mend).
        names: paths of the images that the part's documents have, each once; `image_names` counts in it.
        missing_images: markers that were dropped because the image is not there.
    """

    file: int = 0
    record: int = 0
    finished: list[tuple[int, str]] = field(default_factory=list)
    faults: list[tuple[int, int, str, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    missing_images: int = 0
    empty_documents: int = 0
    text_bytes: int = 0


class _Growing:
    """The arrays of a part that is being filled."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in ARRAYS}
        self.index: dict[str, int] = {}
        self.dtype = dtype

    def arrays(self) -> dict[str, np.ndarray]:
        types = {"tokens": self.dtype, "answers": np.dtype(bool), "document_hashes": np.dtype(np.uint64)}
        return {name: np.array(values, types.get(name, np.dtype(np.int64))) for name, values in self.values.items()}


def encode_parts(
    files: list[InputFile], tokenizer: Tokenizer, config: InterleavedConfig, folder: Path, per_part: int = PART_DOCUMENTS
) -> list[Path]:
    """Encode all documents of `files` into parts in `folder`; parts that are there already are kept. Returns their paths, in order.

    Raises BadInput at the first bad record if `config.on_bad_input` is "stop"; else the parts carry the faults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    paths = sorted(folder.glob("*.safetensors"))
    start = read_part(paths[-1])[0] if paths else Part()
    encoder, _ = sentence_encoder(tokenizer)
    finder, embedded = ImageFinder(config.images), EmbeddedImages(folder.parent / EMBEDDED)
    dtype = token_dtype(vocabulary_size(tokenizer))
    part, growing = Part(start.file, start.record), _Growing(dtype)
    with Reporter("tokenise", sum(file.size for file in files) / 1e6, "MB", sum(file.size for file in files[: start.file]) / 1e6) as reporter:
        before = sum(file.size for file in files[: start.file])
        for index in range(start.file, len(files)):
            reading, count = Documents(files[index], config), 0
            skip = start.record if index == start.file else 0
            for count, found in enumerate(reading, 1):
                if count <= skip:
                    continue
                _add(part, growing, found, index, files[index], encoder, finder, embedded, config)
                part.file, part.record = index, count
                if max(len(growing.values["document_lengths"]), len(part.faults)) >= per_part or part.text_bytes >= PART_BYTES:
                    paths.append(_write(folder / f"{len(paths):06d}.safetensors", part, growing))
                    part, growing = Part(index, count), _Growing(dtype)
                reporter.advance((before + reading.position) / 1e6 - reporter.done)
            part.finished.append((index, reading.sha256))
            part.file, part.record = index + 1, 0
            before += files[index].size
        if part.finished or not paths:
            paths.append(_write(folder / f"{len(paths):06d}.safetensors", part, growing))
    return paths


def _add(
    part: Part,
    growing: _Growing,
    found: Document | Fault,
    index: int,
    file: InputFile,
    encoder: Tokenizer,
    finder: ImageFinder,
    embedded: EmbeddedImages,
    config: InterleavedConfig,
) -> None:
    """One document into the part."""
    if isinstance(found, Document):
        try:
            located = [
                None if not isinstance(piece, Image) else finder.find(piece.name, file.path) if piece.data is None
                else embedded.keep(piece, f"{file.path.name}-record-{found.number}")
                for piece in found.pieces
            ]  # fmt: skip
        except Refused as refused:
            found = Fault(found.number, refused.what, refused.mend)
    if isinstance(found, Fault):
        if config.on_bad_input == "stop":
            with our_flags():
                raise bad_input(file, found)
        part.faults.append((index, found.number, found.what, found.mend))
        return
    with library_errors(FAILS, None, any_error=False):
        encoded = iter(encoder.encode_batch_fast([piece.text for piece in found.pieces if not isinstance(piece, Image)], add_special_tokens=False))
    tokens: list[int] = []
    answers: list[bool] = []
    places: list[int] = []
    names: list[str] = []
    for piece, path in zip(found.pieces, located, strict=True):
        if not isinstance(piece, Image):
            ids = next(encoded).ids
            tokens += ids
            answers += [piece.answer] * len(ids)
        elif path is None:
            part.missing_images += 1
        else:
            places.append(len(tokens))
            names.append(str(path))
    if not tokens:  # nothing to learn from: an image alone has no text to predict
        part.empty_documents += 1
        return
    for name in names:
        if name not in growing.index:
            growing.index[name] = len(part.names)
            part.names.append(name)
    values = growing.values
    values["tokens"] += tokens
    values["answers"] += answers
    values["document_lengths"].append(len(tokens))
    values["document_images"].append(len(places))
    values["image_places"] += places
    values["image_names"] += [growing.index[name] for name in names]
    values["document_hashes"].append(found.hash)
    values["document_files"].append(index)
    part.text_bytes += found.size


def _write(path: Path, part: Part, growing: _Growing) -> Path:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with writing(path):
        save_tensors(growing.arrays(), temporary, metadata={"part": json.dumps(asdict(part))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    return path


def read_part(path: Path, *names: str) -> tuple[Part, dict[str, np.ndarray]]:
    """What is known of a part, and some of its arrays. Raises BadInput if it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Part(**json.loads(file.metadata()["part"])), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        refuse_limits(error, path)
        raise BadInput(f"is damaged ({error}).", f"Delete {path.parent.parent} and start the same command again.", file=path) from error


def faults_of(parts: list[Part]) -> Iterator[tuple[int, int, str, str]]:
    for part in parts:
        yield from (tuple(fault) for fault in part.faults)  # type: ignore[misc]
