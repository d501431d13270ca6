"""Source -> store: find the files, train or take the tokenizer, encode in parts, store the images once each, split off the held-out documents.

- Resumable: everything unfinished lies in STORE/.work and STORE/images/.work; the same command reuses its parts.
- The same files and settings give the same bytes.
- A finished store is opened at once if files and settings are unchanged, and refused with the differences if not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from headstart import __version__
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, reserve, sha256_file
from headstart.core.listing import readable
from headstart.core.progress import patiently
from headstart.core.words import agree
from headstart.data.image.opening import require_libraries
from headstart.data.image.prepare import input_differences as image_differences
from headstart.data.image.prepare import prepare_inputs
from headstart.data.image.sources import InputFile as ImageFile
from headstart.data.image.sources import Inputs as ImageFiles
from headstart.data.image.store import ImageStore, read_inputs
from headstart.data.interleaved.config import InterleavedConfig, our_flags
from headstart.data.interleaved.documents import Text
from headstart.data.interleaved.encode import Part, encode_parts, faults_of, read_part
from headstart.data.interleaved.images import WORK, is_embedded
from headstart.data.interleaved.read import Documents, find_documents
from headstart.data.interleaved.store import COUNTS, FORMAT_VERSION, KIND, TYPES, InterleavedStore
from headstart.data.preparing import begin_work, in_words, opened_or_built, put_in_place, write_arrays
from headstart.data.text import tokenizer as text_tokenizer
from headstart.data.text.prepare import input_differences, preparation_changes, unigram_entropy
from headstart.data.text.read import Fault, bad_input
from headstart.data.text.sources import InputFile, Inputs
from headstart.data.text.split import held_out_documents, near_duplicates

NAMES = ("tokenizer.json", "rows", "features", "images", *(f"{name}.npy" for name in TYPES))
"""What lies in a store of interleaved documents."""
SAMPLE_BYTES = 32e6
"""About so much text trains a tokenizer."""


def prepare_interleaved(sources: Sequence[str | Path], out: Path, config: InterleavedConfig) -> InterleavedStore:
    """Prepare `sources` into the store `out`, or open it if that was done.

    Args:
        sources: files, folders or globs of .jsonl and .parquet.
        out: the store's folder; never inside a source folder.
        config: see `InterleavedConfig`.

    Raises:
        BadInput: a source, record or image cannot be used (see `config.on_bad_input`), or there is no document with text.
        UsageError: `out` holds something else, or a store of other inputs or settings.
        MissingDependency: Pillow is not installed.
    """
    require_libraries()
    inputs = find_documents(sources)
    return opened_or_built(
        out,
        sources,
        names=NAMES,
        open_store=InterleavedStore,
        differences=lambda store: in_words(preparation_changes(store, config.preparation(), config.of_texts())) + source_differences(store, inputs),
        build=lambda: _build(sources, inputs, out, config),
    )


def source_differences(store: InterleavedStore, inputs: Inputs) -> list[str]:
    """What of the documents' files, or of the images that they have, differs from what the store was made of."""
    changed = input_differences(store, inputs)  # type: ignore[arg-type]
    if store.images is not None:
        known = read_inputs(store.images.folder)
        now = _image_files([Path(name) for name in known["name"]])
        for place, file in enumerate(now.files):
            if is_embedded(file.path):  # part of a documents' file, which is compared
                now.files[place] = replace(file, size=known["bytes"][place], mtime_ns=known["mtime_ns"][place])
        changed += [f"images: {change}" for change in image_differences(store.images, now)]
    return changed


def _image_files(paths: Sequence[Path]) -> ImageFiles:
    found = ImageFiles()
    for path in paths:
        try:
            status = path.stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:  # gone since: the reader reports it as bad input, with the others
            size, mtime_ns = -1, 0
        found.files.append(ImageFile(path, readable(path), "picture", size, mtime_ns))
    return found


def _build(sources: Sequence[str | Path], inputs: Inputs, out: Path, config: InterleavedConfig) -> None:
    work, files = out / WORK, inputs.files
    taken = text_tokenizer.load_tokenizer(config.tokenizer, config.of_texts()) if config.tokenizer is not None else None
    plan = {
        "format_version": FORMAT_VERSION,
        "preparation": config.preparation(),
        "on_bad_input": config.on_bad_input,
        "inputs": [[file.name, file.size, file.mtime_ns] for file in files],
        "tokenizer": taken[0].to_str() if taken else None,
    }
    begin_work(work, plan, beside=[out / "images"])
    tokenizer_path = work / "tokenizer.json"
    if not tokenizer_path.exists():
        with our_flags():
            tokenizer = taken[0] if taken else _own_tokenizer(files, config)
        with atomic_write(tokenizer_path) as file:
            file.write(tokenizer.to_str(pretty=True).encode())
    tokenizer, _ = text_tokenizer.load_tokenizer(tokenizer_path, config.of_texts())
    paths = encode_parts(files, tokenizer, config, work / "parts")
    parts = [read_part(path)[0] for path in paths]
    _refuse_bad(out, files, parts, paths, config)
    arrays, image_paths = _merge(paths, work, len(files))
    counts = dict.fromkeys(COUNTS, 0) | {
        "missing_images": sum(part.missing_images for part in parts),
        "empty_documents": sum(part.empty_documents for part in parts),
        "quarantined": sum(len(part.faults) for part in parts),
    }
    images = _store_images(image_paths, out, config)
    counts["damaged_images"] = _number_images(arrays, images, len(image_paths))
    _split(arrays, images, config)
    special_ids = text_tokenizer.special_ids(tokenizer, taken[1] if taken else None)
    frequencies = _frequencies(arrays, text_tokenizer.vocabulary_size(tokenizer))
    counts |= {
        "documents": len(arrays["held_out"]),
        "tokens": len(arrays["tokens"]),
        "answer_tokens": int(arrays["answers"].sum()),
        "training_tokens": int(frequencies.sum()),
        "held_out_documents": int(arrays["held_out"].sum()),
        "near_duplicate_documents": int(arrays["dropped"].sum()),
        "images": 0 if images is None else len(images),
        "placed_images": len(arrays["image_places"]),
    }
    hashes = {index: sha256 for part in parts for index, sha256 in part.finished}
    manifest: dict[str, Any] = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "counts": counts,
        "unigram_entropy": unigram_entropy(frequencies),
        "preparation": config.preparation(),
        "tokenizer": {"model": type(tokenizer.model).__name__, "vocab_size": len(frequencies), "special_ids": special_ids},
        "tokenizer_sha256": sha256_file(tokenizer_path),
        "sources": [str(source) for source in sources],
        "inputs": [
            {"name": file.name, "bytes": file.size, "mtime_ns": file.mtime_ns, "listing": "", "sha256": hashes[index]}
            for index, file in enumerate(files)
        ],
        "passed_over": dict(sorted(inputs.passed_over.items())),
        "arrays": write_arrays(work, arrays, TYPES),
    }
    if images is not None:  # a run knows its data again by the hashes of all arrays
        pixels = json.dumps({name: entry["sha256"] for name, entry in sorted(images.manifest["arrays"].items())})
        manifest["arrays"]["images"] = {"sha256": hashlib.sha256(pixels.encode()).hexdigest()}
    put_in_place(work, out, [*(f"{name}.npy" for name in TYPES), "tokenizer.json"], manifest)


def _own_tokenizer(files: list[InputFile], config: InterleavedConfig) -> Tokenizer:
    """Trained on the texts of the documents."""
    sample = _sample(files, config)
    return patiently("train the tokenizer", lambda: text_tokenizer.train_tokenizer(sample, config.of_texts()))


def _sample(files: list[InputFile], config: InterleavedConfig) -> list[str]:
    """Texts to train the tokenizer on: of documents chosen by their hash, so the order of the files does not matter; never of held-out ones."""
    expected = sum(max(file.size, 0) * (4 if file.compression or file.format == "parquet" else 1) for file in files)
    share = int(min(SAMPLE_BYTES / max(expected, 1), 1.0) * 2**32)
    chosen: list[str] = []
    held_out: list[str] = []
    size = 0
    for file in files:
        for found in Documents(file, config):
            if isinstance(found, Fault):
                if config.on_bad_input == "stop":
                    with our_flags():
                        raise bad_input(file, found)
                continue
            if found.hash & 0xFFFFFFFF > share or size > 2 * SAMPLE_BYTES:
                continue
            texts = [piece.text for piece in found.pieces if isinstance(piece, Text)]
            if found.hash < config.held_out_share * 2.0**64:
                held_out += texts
                continue
            chosen += texts
            size += found.size
    if not any(text.strip() for text in chosen + held_out):
        raise _no_text([file.name for file in files])
    return chosen or held_out  # a corpus so small that chance held out all of it


def _no_text(names: Sequence[str]) -> BadInput:
    return BadInput("the corpus has no document with text.", "Check the files.", file=", ".join(names[:3]))


def _refuse_bad(out: Path, files: list[InputFile], parts: list[Part], paths: list[Path], config: InterleavedConfig) -> None:
    """Writes the quarantine; refuses too much of it, and a corpus without text."""
    quarantine = out / "quarantine.jsonl"
    lines = [
        json.dumps({"file": files[index].name, "record": number, "what": what, "mend": mend}, ensure_ascii=False) + "\n"
        for index, number, what, mend in faults_of(parts)
    ]
    quarantine.unlink(missing_ok=True)  # of an attempt before the files were mended
    if lines:
        with atomic_write(quarantine) as file:
            file.write("".join(lines).encode())
    good = sum(len(read_part(path, "document_lengths")[1]["document_lengths"]) for path in paths)
    records = good + len(lines) + sum(part.empty_documents for part in parts)
    if len(lines) > config.max_bad_share * records:
        bad = f"{len(lines):,} of {records:,} records {agree(len(lines), 'is', 'are')} bad ({len(lines) / records:.1%})"
        raise BadInput(
            f"{bad}, more than --interleaved.max-bad-share allows.",
            f"{quarantine} names each: mend the files, or raise the share.",
        )
    if not good:
        raise _no_text([file.name for file in files])


def _merge(paths: list[Path], work: Path, n_files: int) -> tuple[dict[str, np.ndarray], list[Path]]:
    """The arrays of all parts, and the paths of the images that `image_numbers` counts in, each once. `tokens` goes to disk as it comes, the rest is
    small."""
    lengths = [len(read_part(path, "tokens")[1]["tokens"]) for path in paths]
    dtype = read_part(paths[0], "tokens")[1]["tokens"].dtype
    tokens = np.lib.format.open_memmap(work / "tokens.npy", mode="w+", dtype=dtype, shape=(sum(lengths),))
    reserve(work / "tokens.npy")
    done, index, numbers = 0, {}, []  # type: int, dict[str, int], list[np.ndarray]
    for path, length in zip(paths, lengths, strict=True):
        part, found = read_part(path, "tokens", "image_names")
        tokens[done : done + length] = found["tokens"]
        done += length
        of_part = np.array([index.setdefault(name, len(index)) for name in part.names], np.int64)
        numbers.append(of_part[found["image_names"]])
    tokens.flush()

    def whole(name: str) -> np.ndarray:
        return np.concatenate([read_part(path, name)[1][name] for path in paths])

    arrays = {
        "tokens": tokens,
        "answers": whole("answers"),
        "document_offsets": np.append(0, np.cumsum(whole("document_lengths"))),
        "image_offsets": np.append(0, np.cumsum(whole("document_images"))),
        "image_places": whole("image_places"),
        "image_numbers": np.concatenate(numbers),
        "file_offsets": np.searchsorted(whole("document_files"), np.arange(n_files + 1)),
        "hashes": whole("document_hashes"),
    }
    return arrays, [Path(name) for name in index]


def _store_images(paths: list[Path], out: Path, config: InterleavedConfig) -> ImageStore | None:
    """The images as a store of their own; None where there are none."""
    if not paths:
        return None
    with our_flags():
        return prepare_inputs(_image_files(paths), [], out / "images", config.of_images(), one_colour="keep", deep=False)


def _number_images(arrays: dict[str, np.ndarray], images: ImageStore | None, n_paths: int) -> int:
    """Turns `image_numbers` from places in the list of paths into numbers of the image store; the places of damaged images go. Returns how many."""
    number_of = np.full(n_paths, -1, np.int64)
    if images is not None:
        number_of[images.places[:, 0]] = np.arange(len(images))
    numbers = number_of[arrays["image_numbers"]]
    kept = numbers >= 0
    arrays["image_offsets"] = np.append(0, np.cumsum(kept))[arrays["image_offsets"]]
    arrays["image_places"], arrays["image_numbers"] = arrays["image_places"][kept], numbers[kept]
    return int((~kept).sum())


def _split(arrays: dict[str, np.ndarray], images: ImageStore | None, config: InterleavedConfig) -> None:
    """Adds `held_out` and `dropped`. Captions repeat each other: a document with images is a near-duplicate only where it has an image of a held-out
    one too."""
    held_out = held_out_documents(arrays["hashes"], config.held_out_share)
    if config.held_out_share and not held_out.any():
        raise BadInput("all documents are equal, so none can be held out.", "Give more documents, or --interleaved.held-out-share 0.")
    dropped = near_duplicates(arrays["tokens"], arrays["document_offsets"], held_out, config.near_duplicate_share)
    if images is not None and dropped.any():
        owner = np.repeat(np.arange(len(held_out)), np.diff(arrays["image_offsets"]))
        looks = images.hashes[arrays["image_numbers"]]
        has_held_out = np.zeros(len(held_out), bool)
        has_held_out[owner[np.isin(looks, looks[held_out[owner]])]] = True
        dropped &= has_held_out | (np.diff(arrays["image_offsets"]) == 0)
    arrays["held_out"], arrays["dropped"] = held_out, dropped
    if not (~held_out & ~dropped).any():
        raise BadInput("every training document nearly repeats a held-out one.", "Give more varied documents, or --interleaved.held-out-share 0.")


def _frequencies(arrays: dict[str, np.ndarray], vocab_size: int) -> np.ndarray:
    """int64 [vocab_size]: how often each token occurs in the training documents."""
    found = np.zeros(vocab_size, np.int64)
    keep = np.repeat(~(arrays["held_out"] | arrays["dropped"]), np.diff(arrays["document_offsets"]))
    for start in range(0, len(keep), 2**24):
        found += np.bincount(arrays["tokens"][start : start + 2**24][keep[start : start + 2**24]], minlength=vocab_size)
    return found
