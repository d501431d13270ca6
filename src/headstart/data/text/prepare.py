"""Source -> store: find the files, train or take the tokenizer, encode in parts, split off the held-out documents, write the store.

- Resumable: everything unfinished lies in STORE/.work; the same command reuses its parts. What was begun from other files or settings is begun anew.
- The same files and settings give the same bytes, whatever the number of workers.
- A finished store is opened at once if files and settings are unchanged, and refused with the differences if not.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from headstart import __version__
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, reserve, sha256_file
from headstart.core.hardware import cores
from headstart.core.progress import Reporter, patiently
from headstart.core.words import agree, plural
from headstart.data.languages.language import find_language, is_language, parse_spec, write_sentences
from headstart.data.preparing import begin_work, changed_settings, in_words, opened_or_built, put_in_place, write_arrays
from headstart.data.text import tokenizer as text_tokenizer
from headstart.data.text.builtin import write_builtin
from headstart.data.text.config import TextConfig
from headstart.data.text.encode import Part, Tally, content_hash, encode_parts, read_part, split_lines
from headstart.data.text.read import Fault, Reading, bad_input
from headstart.data.text.sources import InputFile, Inputs, find_inputs
from headstart.data.text.split import held_out_documents, near_duplicates
from headstart.data.text.store import ARRAYS, FORMAT_VERSION, KIND, TextStore

logger = logging.getLogger(__name__)

NAMES = ("tokenizer.json", "rows", "made", *(f"{name}.npy" for name in ARRAYS))
"""What lies in a store of texts."""
MUCH_REPEATED = 100
"""Repetitions of a corpus, above which it is said."""
CUT_LENGTHS = (64, 128, 512)
"""The report says what share of the sentences is longer than these numbers of tokens."""


def prepare_text(sources: Sequence[str | Path], out: Path, config: TextConfig) -> TextStore:
    """Prepare `sources` into the store `out`, or open it if that was done.

    Args:
        sources: files, folders, globs, or "builtin:python-docs".
        out: the store's folder; never inside a source folder.
        config: see `TextConfig`.

    Raises:
        BadInput: a source or record cannot be used (see `config.on_bad_input`), or the corpus is empty.
        UsageError: `out` holds something else, or a store of other inputs or settings.
    """
    inputs = find_inputs(sources)
    return opened_or_built(
        out,
        sources,
        names=NAMES,
        open_store=TextStore,
        differences=lambda store: _differences(store, inputs, config),
        build=lambda: _build(sources, inputs, out, config),
    )


def _build(sources: Sequence[str | Path], inputs: Inputs, out: Path, config: TextConfig) -> None:
    work = out / ".work"
    workers = config.workers or cores()
    taken = text_tokenizer.load_tokenizer(config.tokenizer, config) if config.tokenizer is not None else None
    plan = {
        "format_version": FORMAT_VERSION,
        "preparation": config.preparation(),
        "on_bad_input": config.on_bad_input,
        "inputs": [[file.name, file.size, file.mtime_ns, file.listing] for file in inputs.files],
        "tokenizer": taken[0].to_str() if taken else None,
    }
    begin_work(work, plan)
    files = [_written_out(file, work, index, workers) for index, file in enumerate(inputs.files)]
    tokenizer_path = work / "tokenizer.json"
    if not tokenizer_path.exists():
        tokenizer = taken[0] if taken else _own_tokenizer(files, config, first=inputs.of_sources[0])
        with atomic_write(tokenizer_path) as file:
            file.write(tokenizer.to_str(pretty=True).encode())
    tokenizer, _ = text_tokenizer.load_tokenizer(tokenizer_path, config)
    parts = encode_parts(files, tokenizer, config, work / "parts", workers)
    infos = [read_part(path)[0] for path in parts]
    quarantined = _write_quarantine(out, files, infos)
    tally = Tally()
    for info in infos:
        tally.add(info.tally)
    records = tally.documents + tally.empty_documents + tally.bad_records
    if tally.bad_records > config.max_bad_share * records:
        bad = f"{tally.bad_records:,} of {records:,} records {agree(tally.bad_records, 'is', 'are')} bad ({tally.bad_records / records:.1%})"
        raise BadInput(
            f"{bad}, more than --text.max-bad-share allows.",
            f"{quarantined} names each: mend the files, or raise the share.",
        )
    if tally.documents == 0:
        raise no_text(sources)

    arrays = _merge(parts, work, len(files), tally)
    _split(arrays, config, generated=all(is_language(file.name) for file in files))
    special_ids = text_tokenizer.special_ids(tokenizer, taken[1] if taken else None)
    _warn_of_duplicates(arrays, inputs.of_sources)
    manifest = _manifest(arrays, tally, tokenizer, special_ids, config)
    text_bytes = Counter[int]()
    for info in infos:
        text_bytes.update({int(index): count for index, count in info.text_bytes.items()})
    hashes = dict(entry for info in infos for entry in info.finished)
    manifest["sources"] = [str(source) for source in sources]
    manifest["files_of_sources"] = inputs.of_sources
    manifest["inputs"] = [
        {
            "name": file.name,
            "bytes": file.size,
            "mtime_ns": file.mtime_ns,
            "listing": file.listing,
            "sha256": hashes[index],
            "text_bytes": text_bytes[index],
        }
        for index, file in enumerate(inputs.files)
    ]
    manifest["passed_over"] = dict(sorted(inputs.passed_over.items()))
    manifest["tokenizer_sha256"] = sha256_file(tokenizer_path)
    manifest["arrays"] = write_arrays(work, arrays, ARRAYS)
    put_in_place(work, out, [*(f"{name}.npy" for name in ARRAYS), "tokenizer.json"], manifest)


def no_text(sources: Sequence[str | Path]) -> BadInput:
    names = ", ".join(str(source) for source in sources[:3])
    return BadInput("the corpus has no document with text.", "Check the files, and --text.text-field.", file=names)


def _differences(store: TextStore, inputs: Inputs, config: TextConfig) -> list[str]:
    """What of inputs and settings differs from those of the store. Sizes and times are compared; content is hashed only where a time or name
    changed."""
    return in_words(preparation_changes(store, config.preparation(), config)) + input_differences(store, inputs)


class Tokenized(Protocol):
    """A store whose texts are token ids."""

    folder: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer


def preparation_changes(store: Tokenized, now: Mapping[str, Any], config: TextConfig) -> dict[str, tuple[Any, Any]]:
    """Setting -> (what the store was made with, what is asked for), where they differ. A tokenizer is compared by its content; one that is taken
    brings the settings of tokenizers with it.

    Args:
        now: the settings that are asked for; config: those of texts among them.
    """
    before = store.manifest["preparation"]
    changes = changed_settings(before if config.tokenizer is None else {name: before.get(name) for name in now}, now)
    if config.tokenizer is not None:
        taken, _ = text_tokenizer.load_tokenizer(config.tokenizer, config)
        if json.loads(taken.to_str()) != json.loads(store.tokenizer.to_str()):
            changes["tokenizer"] = (f"{store.folder}/tokenizer.json", config.tokenizer)
    return changes


def input_differences(store: TextStore, inputs: Inputs) -> list[str]:
    """What of the files differs from those that the store was made of; nothing when all are the same."""
    old = store.manifest["inputs"]
    if len(old) != len(inputs.files):
        known = {entry["name"] for entry in old}
        there = {file.name for file in inputs.files}
        examples = [f"new {name}" for name in sorted(there - known)[:3]] + [f"missing {name}" for name in sorted(known - there)[:3]]
        return [f"{len(old)} -> {len(inputs.files)} input files ({', '.join(examples)})"]
    changed = [file.name for entry, file in zip(old, inputs.files, strict=True) if not _same(entry, file)]
    return [f"{len(changed)} changed input files ({', '.join(changed[:3])})"] if changed else []


def _same(entry: dict[str, Any], file: InputFile) -> bool:
    if file.listing or entry["listing"]:
        return bool(entry["listing"] == file.listing)
    if entry["bytes"] != file.size:
        return False
    if entry["name"] == file.name and entry["mtime_ns"] == file.mtime_ns:
        return True
    return file.size >= 0 and bool(sha256_file(file.path) == entry["sha256"])


def _written_out(file: InputFile, work: Path, index: int, workers: int) -> InputFile:
    """The built-in corpus becomes a file, because it is read twice and costs more to collect than to tokenise; other files are themselves."""
    if file.format != "builtin":
        return file
    path = work / f"builtin-{index}.jsonl"
    if not path.exists():
        if is_language(file.name):
            write_sentences(parse_spec(file.name), path)
        else:
            write_builtin(file.name, path, workers)
    status = path.stat()
    return replace(file, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _warn_of_duplicates(arrays: dict[str, np.ndarray], of_sources: list[int]) -> None:
    """Says how many documents of the first of several sources stand in another too: what is measured apart is then not apart."""
    if len(of_sources) > 1:
        last = int(arrays["file_offsets"][of_sources[0]])
        if shared := len(np.intersect1d(arrays["hashes"][:last], arrays["hashes"][last:])):
            counted, verb = plural(shared, "document"), agree(shared, "stands", "stand")
            logger.warning("%s of the first entry of --data %s in another too, word for word", counted, verb)


def _own_tokenizer(files: list[InputFile], config: TextConfig, first: int) -> Tokenizer:
    """Trained on the corpus; where that is nothing but languages with known statistics, one token a word of theirs.

    Args:
        first: so many of the files are of the first source.
    """
    if all(is_language(file.name) for file in files):
        return text_tokenizer.word_tokenizer(dict.fromkeys(word for file in files for word in find_language(file.name).words))
    sample = _sample(files, config, first)
    return patiently("train the tokenizer", lambda: text_tokenizer.train_tokenizer(sample, config))


def amplification(first_bytes: int, other_bytes: int) -> int:
    """How often the first corpus is repeated beside the others, so that both weigh about the same: their ratio, half to even (create_vocab.py of
    sy-wada/blue_benchmark_with_transformers).

    Raises:
        BadInput: the first one is the larger, or has no text.
    """
    if not first_bytes:
        raise BadInput("--text.vocabulary amplified: the first entry of --data has no text.", "Give one with text, or --text.vocabulary plain.")
    rate = round(other_bytes / first_bytes)
    if rate < 1:
        what = f"--text.vocabulary amplified: the first entry of --data has {first_bytes:,} bytes of text, the others {other_bytes:,}."
        raise BadInput(what, "Give the smaller one first, or --text.vocabulary plain.")
    if rate > MUCH_REPEATED:
        logger.warning("the first entry of --data is so small that it counts %s times in the vocabulary: its rare words become tokens", f"{rate:,}")
    return rate


def _sample(files: list[InputFile], config: TextConfig, first: int) -> list[str]:
    """Sentences to train the tokenizer on: of documents chosen by their hash, so neither file order nor size of the corpus matters; never of
    held-out ones. Amplified, those of the first source stand several times.

    Args:
        first: so many of the files are of the first source.
    """
    wanted = config.tokenizer_sample_mb * 1e6
    expected = sum(max(file.size, 0) * (4 if file.compression or file.format == "parquet" else 1) for file in files)
    share = int(min(wanted / max(expected, 1), 1.0) * 2**32)
    keep_line_ends = config.tokenizer_kind == "bpe" and config.falls_back_to_bytes
    chosen: tuple[list[str], list[str]] = [], []  # of the first source, and of the others
    held_out: list[str] = []
    total, size = [0, 0], 0
    with Reporter("read for the tokenizer", expected / 1e6, "MB") as reporter:
        for index, file in enumerate(files):
            source = int(index >= first)
            for item in Reading(file, config):
                if isinstance(item, Fault):
                    if config.on_bad_input == "stop":
                        raise bad_input(file, item)
                    continue
                reporter.advance(len(item.data) / 1e6)
                total[source] += 0 if item.text.isspace() else len(item.data)
                code = content_hash(item.data)
                if code & 0xFFFFFFFF > share or size > 2 * wanted:
                    continue
                if code < config.held_out_share * 2.0**64:
                    held_out += split_lines(item.text, keep_line_ends)
                    continue
                chosen[source].extend(split_lines(item.text, keep_line_ends))
                size += len(item.data)
    if not any(chosen) and not held_out:
        raise no_text([file.name for file in files])
    rate = amplification(*total) if config.vocabulary == "amplified" and first < len(files) else 1
    return chosen[0] * rate + chosen[1] or held_out  # a corpus so small that chance held out all of it


def _write_quarantine(out: Path, files: list[InputFile], infos: list[Part]) -> Path:
    path = out / "quarantine.jsonl"
    lines = [
        json.dumps({"file": files[index].name, "record": number, "what": what, "mend": mend}, ensure_ascii=False) + "\n"
        for info in infos
        for index, number, what, mend in info.faults
    ]
    if lines:
        with atomic_write(path) as file:
            file.write("".join(lines).encode())
    return path


def _merge(parts: list[Path], work: Path, n_files: int, tally: Tally) -> dict[str, np.ndarray]:
    """Concatenate the parts. `tokens` goes to disk as it comes, the rest is small."""
    dtype = read_part(parts[0], "tokens")[1].dtype
    tokens = np.lib.format.open_memmap(work / "tokens.npy", mode="w+", dtype=dtype, shape=(tally.tokens,))
    reserve(work / "tokens.npy")
    done = 0
    for path in parts:
        part = read_part(path, "tokens")[1]
        tokens[done : done + len(part)] = part
        done += len(part)
    tokens.flush()
    sentence_lengths = np.concatenate([read_part(path, "sentence_lengths")[1] for path in parts])
    document_sentences = np.concatenate([read_part(path, "document_sentences")[1] for path in parts])
    sentence_offsets = np.append(0, np.cumsum(sentence_lengths))
    files = np.concatenate([read_part(path, "document_files")[1] for path in parts])
    return {
        "tokens": tokens,
        "sentence_offsets": sentence_offsets,
        "document_offsets": sentence_offsets[np.append(0, np.cumsum(document_sentences))],
        "file_offsets": np.searchsorted(files, np.arange(n_files + 1)),
        "hashes": np.concatenate([read_part(path, "document_hashes")[1] for path in parts]),
    }


def _split(arrays: dict[str, np.ndarray], config: TextConfig, generated: bool) -> None:
    """Add `held_out` and `dropped`. An only document is cut in two at the end of a sentence.

    Args:
        generated: the corpus is drawn from a language with known statistics: documents are independent draws, and equal ones are no copies. To leave
            those out that are held out too would change the distribution that is learned.
    """
    if generated:
        n = len(arrays["hashes"])
        arrays["held_out"] = np.arange(n) < round(config.held_out_share * n)
        arrays["dropped"] = np.zeros(n, dtype=bool)
        return
    if config.held_out_share and len(arrays["hashes"]) == 1:
        held_out = _cut_only_document(arrays, config.held_out_share)
    else:
        held_out = held_out_documents(arrays["hashes"], config.held_out_share)
    if config.held_out_share and not held_out.any():
        raise BadInput("all documents are equal, so none can be held out.", "Give more text, or --text.held-out-share 0.")
    arrays["held_out"] = held_out
    arrays["dropped"] = near_duplicates(arrays["tokens"], arrays["document_offsets"], held_out, config.near_duplicate_share)
    if not (~held_out & ~arrays["dropped"]).any():
        raise BadInput("every training document nearly repeats a held-out one.", "Give more varied text, or --text.held-out-share 0.")


def _cut_only_document(arrays: dict[str, np.ndarray], share: float) -> np.ndarray:
    sentences, (_, end) = arrays["sentence_offsets"], arrays["document_offsets"]
    if len(sentences) < 3:
        mend = "Give more text or line ends, or --text.held-out-share 0."
        raise BadInput("the corpus is one document of one line, so nothing can be held out.", mend)
    cut = sentences[1:-1][np.abs(sentences[1:-1] - end * (1 - share)).argmin()]
    arrays["document_offsets"] = np.array([0, cut, end])
    arrays["file_offsets"] = np.where(arrays["file_offsets"] > 0, 2, 0)
    return np.array([False, True])


def _manifest(arrays: dict[str, np.ndarray], tally: Tally, tokenizer: Tokenizer, special_ids: dict[str, int], config: TextConfig) -> dict[str, Any]:
    lengths = np.diff(arrays["document_offsets"])
    sentence_lengths = np.diff(arrays["sentence_offsets"])
    held_out, dropped = arrays["held_out"], arrays["dropped"]
    vocab_size = text_tokenizer.vocabulary_size(tokenizer)
    frequencies = np.zeros(vocab_size, np.int64)
    keep = np.repeat(~(held_out | dropped), lengths)
    block = 2**24
    for start in range(0, len(keep), block):
        frequencies += np.bincount(arrays["tokens"][start : start + block][keep[start : start + block]], minlength=vocab_size)
    counts = {name: value for name, value in asdict(tally).items() if name not in ("unknown_tokens", "bad_records")}
    counts |= {
        "documents": len(lengths),
        "quarantined": tally.bad_records,
        "held_out_documents": int(held_out.sum()),
        "held_out_tokens": int(lengths[held_out].sum()),
        "near_duplicate_documents": int(dropped.sum()),
        "near_duplicate_tokens": int(lengths[dropped].sum()),
        "training_tokens": int(frequencies.sum()),
    }
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "counts": counts,
        "unigram_entropy": unigram_entropy(frequencies),
        "tokens_per_word": tally.tokens / max(tally.words, 1),
        "unknown_share": tally.unknown_tokens / max(tally.tokens, 1),
        "sentences_longer_than": {str(length): float((sentence_lengths > length).mean()) for length in CUT_LENGTHS},
        "preparation": config.preparation(),
        "tokenizer": {"model": type(tokenizer.model).__name__, "vocab_size": vocab_size, "special_ids": special_ids},
        "arrays": {},
    }


def unigram_entropy(frequencies: np.ndarray) -> float:
    """Entropy in nats of single tokens with these counts: the loss of a model that knows their frequencies and nothing else."""
    shares = frequencies[frequencies > 0] / frequencies.sum()
    return float(-(shares * np.log(shares)).sum())
