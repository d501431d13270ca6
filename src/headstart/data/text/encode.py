"""Documents -> token ids, in parts that survive a kill.

One reader walks through all files in order and hands small batches of documents to threads; the tokenizer works outside Python's lock, so threads
scale like processes without copying text between them (benchmarks/tokenization.py). Results are taken back in order, so the bytes do not depend on
the number of threads. Every 64th of the input is a part, written beside and renamed, with the place where reading goes on; a restarted run reuses
the parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
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
from headstart.data.ordered import in_order
from headstart.data.text.config import SentenceSplit, TextConfig
from headstart.data.text.read import Fault, Reading, Record, bad_input
from headstart.data.text.sentences import cut_sentences
from headstart.data.text.sources import InputFile
from headstart.data.text.tokenizer import FAILS, SENTENCE_END, keeps_line_ends, library_errors, sentence_encoder, special_ids, vocabulary_size

MIN_PART_BYTES, MAX_PART_BYTES = 2**20, 2**26
"""Text in a part: a 64th of the input within these bounds. A kill loses at most one part's work."""
BATCH_BYTES = 2**18
"""Text handed to a thread at a time."""

_IS_SPACE = np.zeros(256, bool)
_IS_SPACE[[9, 10, 11, 12, 13, 32, 0]] = True  # 0: the sentence mark


@dataclass
class Tally:
    """Counts over a part or a whole store."""

    documents: int = 0
    empty_documents: int = 0
    sentences: int = 0
    words: int = 0
    text_bytes: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    bad_records: int = 0

    def add(self, other: Tally) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Part:
    """Consecutive documents, encoded.

    Attributes:
        file, record: where reading goes on: index of the input file, and how many of its records and faults are done.
        finished: input files that ended in this part: (index, sha256).
        text_bytes: index of an input file -> bytes of its documents in this part.
        faults: (file index, record number, what, mend).
    """

    file: int = 0
    record: int = 0
    finished: list[tuple[int, str]] = field(default_factory=list)
    text_bytes: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[int, int, str, str]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def metadata(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_metadata(cls, text: str) -> Part:
        fields = json.loads(text)
        return cls(**(fields | {"tally": Tally(**fields["tally"])}))


ARRAYS = ("tokens", "sentence_lengths", "document_sentences", "document_hashes", "document_files")
"""Of a part: token ids; tokens of each sentence; sentences, content hash (uint64) and input file index of each document."""


@dataclass
class _Batch:
    """Documents on their way to a thread."""

    marked: list[str] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    sentences: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    size: int = 0
    position: int = 0  # bytes of all input files that were read when it was cut
    part: Part = field(default_factory=Part)


def split_sentences(text: str, keep_line_ends: bool, by: SentenceSplit = "line") -> list[str]:
    """The sentences of a document: its lines, or by rules those within them. White space around them and empty lines go, unless the tokenizer can
    keep line ends (`keep_line_ends`): then a sentence is a line with its end and the empty lines after it, and joining them gives the text back
    without white space around it."""
    lines = split_lines(text, keep_line_ends)
    if by == "line":
        return lines
    return [sentence if keep_line_ends else sentence.strip() for line in lines for sentence in cut_sentences(line)]


def split_lines(text: str, keep_line_ends: bool) -> list[str]:
    """The lines of a document, see `split_sentences`."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not keep_line_ends:
        return [line for raw in text.split("\n") if (line := raw.strip())]
    sentences: list[str] = []
    for line in text.strip("\n").rstrip().splitlines(keepends=True) if "\n" in text else [text.rstrip()]:
        if sentences and not line.strip():
            sentences[-1] += line
        elif line:
            sentences.append(line)
    return sentences


def content_hash(data: bytes) -> int:
    """64-bit hash of a document's text; decides whether it is held out."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def encode_parts(files: list[InputFile], tokenizer: Tokenizer, config: TextConfig, folder: Path, workers: int) -> list[Path]:
    """Encode all documents of `files` into parts in `folder`; parts that are there already are kept. Returns their paths, in order.

    Raises BadInput at the first bad record if `config.on_bad_input` is "stop"; else the parts carry the faults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    paths = sorted(folder.glob("*.safetensors"))
    done = [read_part(path)[0] for path in paths]
    start = done[-1] if done else Part()
    already = sum(file.size for file in files[: start.file]) / 1e6
    total = sum(file.size for file in files) / 1e6
    encoder, mark = sentence_encoder(tokenizer)
    unknown = special_ids(tokenizer).get("unk", -1)
    dtype = token_dtype(vocabulary_size(tokenizer))
    part_bytes = min(max(sum(file.size for file in files) // 64, MIN_PART_BYTES), MAX_PART_BYTES)

    def encode(batch: _Batch) -> tuple[_Batch, dict[str, np.ndarray]]:
        return batch, _encode(batch, encoder, mark, unknown, dtype)

    batches = _batches(files, start, config, keeps_line_ends(tokenizer))
    with Reporter("tokenise", total, "MB", already) as reporter, tokenizer_threads(workers) as pool:
        part, arrays = Part(start.file, start.record), []  # type: Part, list[dict[str, np.ndarray]]
        for batch, encoded in in_order(pool, encode, batches, 2 * workers + 1):
            arrays.append(encoded)
            part.tally.add(batch.part.tally)
            part.faults += batch.part.faults
            part.finished += batch.part.finished
            for file, count in batch.part.text_bytes.items():
                part.text_bytes[file] = part.text_bytes.get(file, 0) + count
            part.file, part.record = batch.part.file, batch.part.record
            reporter.advance(batch.position / 1e6 - reporter.done)
            if part.tally.text_bytes >= part_bytes or part.file == len(files):
                paths.append(_write_part(folder / f"{len(paths):06d}.safetensors", part, arrays))
                part, arrays = Part(part.file, part.record), []
    return paths


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def _batches(files: list[InputFile], start: Part, config: TextConfig, keep_line_ends: bool) -> Iterator[_Batch]:
    """Read on from `start` and cut into batches; the last batch has `part.file == len(files)`. Every batch knows where reading goes on after it."""
    batch = _Batch()
    before = sum(file.size for file in files[: start.file])
    for index in range(start.file, len(files)):
        skip = start.record if index == start.file else 0
        reading = Reading(files[index], config)
        count = 0
        for count, item in enumerate(reading, 1):
            if count > skip:
                _add(batch, item, index, files[index], config, keep_line_ends)
                if batch.size >= BATCH_BYTES:
                    batch.part.file, batch.part.record = index, count
                    batch.position = before + reading.position
                    yield batch
                    batch = _Batch()
        batch.part.finished.append((index, reading.sha256))
        before += files[index].size
    batch.part.file, batch.position = len(files), before
    yield batch


def _add(batch: _Batch, item: Record | Fault, index: int, file: InputFile, config: TextConfig, keep_line_ends: bool) -> None:
    tally = batch.part.tally
    if isinstance(item, Fault):
        if config.on_bad_input == "stop":
            raise bad_input(file, item)
        tally.bad_records += 1
        batch.part.faults.append((index, item.number, item.what, item.mend))
        return
    sentences = split_sentences(item.text, keep_line_ends, config.sentence_split)
    if not sentences:
        tally.empty_documents += 1
        return
    batch.marked.append(SENTENCE_END.join(sentences) + SENTENCE_END)
    batch.hashes.append(content_hash(item.data))
    batch.sentences.append(len(sentences))
    batch.files.append(index)
    batch.size += len(item.data)
    tally.text_bytes += len(item.data)
    batch.part.text_bytes[str(index)] = batch.part.text_bytes.get(str(index), 0) + len(item.data)


def _encode(batch: _Batch, encoder: Tokenizer, mark: int, unknown: int, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    with library_errors(FAILS, None, any_error=False):
        encodings = encoder.encode_batch_fast(batch.marked, add_special_tokens=False)
    marked = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.uint32, sum(map(len, encodings)))
    is_mark = marked == mark
    tokens = marked[~is_mark]
    ends = np.flatnonzero(is_mark) - np.arange(int(is_mark.sum()))  # tokens before each mark
    lengths = np.diff(ends, prepend=0).astype(np.int64)
    document = np.repeat(np.arange(len(batch.sentences)), batch.sentences)
    sentences = np.bincount(document[lengths > 0], minlength=len(batch.sentences))  # a line of control characters has no tokens
    kept = sentences > 0
    space = _IS_SPACE[np.frombuffer("".join(batch.marked).encode(), np.uint8)]
    tally = batch.part.tally
    tally.tokens = len(tokens)
    tally.words = int((space[1:] & ~space[:-1]).sum())
    tally.unknown_tokens = int((tokens == unknown).sum())
    tally.documents, tally.sentences = int(kept.sum()), int(sentences.sum())
    tally.empty_documents += int((~kept).sum())
    return {
        "tokens": tokens.astype(dtype),
        "sentence_lengths": lengths[lengths > 0],
        "document_sentences": sentences[kept],
        "document_hashes": np.array(batch.hashes, np.uint64)[kept],
        "document_files": np.array(batch.files, np.int64)[kept],
    }


def _write_part(path: Path, part: Part, arrays: list[dict[str, np.ndarray]]) -> Path:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with writing(path):
        save_tensors({name: np.concatenate([array[name] for array in arrays]) for name in ARRAYS}, temporary, metadata={"part": part.metadata()})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    return path


def read_part(path: Path, name: str | None = None) -> tuple[Part, np.ndarray]:
    """What is known of a part, and one of its arrays (empty if no name is given).

    Raises BadInput if it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            part = Part.from_metadata(file.metadata()["part"])
            array = file.get_tensor(name) if name else np.empty(0)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        refuse_limits(error, path)
        raise BadInput(f"is damaged ({error}).", f"Delete {path.parent.parent} and start the same command again.", file=path) from error
    if name == "tokens" and len(array) != part.tally.tokens:
        raise BadInput("is damaged: its counts differ.", f"Delete {path.parent.parent} and start the same command again.", file=path)
    return part, array


@contextmanager
def tokenizer_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads each encode on one core: the library's own threads are switched off, so that `workers` is what is used."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tokenise")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
