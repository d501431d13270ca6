"""The store of interleaved documents: token ids of all documents, and where their images stand; the images in a store of their own.

    STORE/manifest.json           counts, inputs with sizes and hashes, preparation, tokenizer; written last: its presence means "complete"
    STORE/tokenizer.json
    STORE/tokens.npy              uint16 or uint32 [n_tokens], documents one after another, no special tokens
    STORE/answers.npy             bool [n_tokens], what an instruction model has to say
    STORE/document_offsets.npy    int64 [n_documents + 1], into tokens
    STORE/image_offsets.npy       int64 [n_documents + 1], into the two arrays below
    STORE/image_places.npy        int64 [n_placed], tokens of its document that stand before the image
    STORE/image_numbers.npy       int64 [n_placed], of the image in the store of images
    STORE/file_offsets.npy        int64 [n_files + 1], into documents
    STORE/held_out.npy, dropped.npy   bool [n_documents]
    STORE/images/                 an image store (`data.image.store`), each image once; missing where no document has one
    STORE/quarantine.jsonl        bad records, one JSON object a line
    STORE/rows/KEY/               training rows made from it (`rows.py`)

A store may come from someone else: nothing in it is executed or unpickled, no path in its manifest is opened, and sizes are checked before anything
is used. `prepare.py` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import inside, own_file
from headstart.core.words import agree, plural
from headstart.data.image.store import ImageStore
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.stored import REBUILD, checked_manifest, hashes_of_arrays, numbers_of, refuse_unfit, stated_array, verify_hashes
from headstart.data.text import tokenizer as text_tokenizer
from headstart.data.text.config import TextConfig

KIND = "interleaved"
FORMAT_VERSION = 1
TYPES = {
    "tokens": ("uint16", "uint32"), "answers": ("bool",), "document_offsets": ("int64",), "image_offsets": ("int64",), "image_places": ("int64",),
    "image_numbers": ("int64",), "file_offsets": ("int64",), "held_out": ("bool",), "dropped": ("bool",),
}  # fmt: skip
"""Of each array, the types that it may have."""
COUNTS = (
    "documents", "tokens", "answer_tokens", "training_tokens", "held_out_documents", "near_duplicate_documents", "empty_documents", "images",
    "placed_images", "missing_images", "damaged_images", "quarantined",
)  # fmt: skip


class InterleavedStore:
    """An opened store. Arrays are read-only and memory-mapped.

    Attributes:
        folder, manifest: where it lies, and what is known of it.
        tokenizer: without padding and truncation.
        vocab_size: one more than the largest token id.
        special_ids: role ("pad", "unk", "bos", "eos", ...) -> id, of those that the vocabulary has.
        images: the store of its images; None where no document has one.
        unigram_entropy: nats, of the training tokens.
        tokens, answers, document_offsets, image_offsets, image_places, image_numbers, held_out, dropped: see the module's head.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = checked_manifest(folder, KIND, FORMAT_VERSION, "a store of interleaved documents", _is_sound)
        self.tokenizer, _ = text_tokenizer.load_tokenizer(own_file(folder, "tokenizer.json"), TextConfig())
        self.vocab_size: int = self.manifest["tokenizer"]["vocab_size"]
        self.special_ids: dict[str, int] = self.manifest["tokenizer"]["special_ids"]
        self.unigram_entropy: float = self.manifest["unigram_entropy"]
        arrays = {name: stated_array(folder, self.manifest, name) for name in TYPES}
        refuse_unfit(folder, {name: array.ndim == 1 and str(array.dtype) in TYPES[name] for name, array in arrays.items()})
        self.tokens, self.answers, self.document_offsets = arrays["tokens"], arrays["answers"], arrays["document_offsets"]
        self.image_offsets, self.image_places, self.image_numbers = arrays["image_offsets"], arrays["image_places"], arrays["image_numbers"]
        self.file_offsets, self.held_out, self.dropped = arrays["file_offsets"], arrays["held_out"], arrays["dropped"]
        self.images = ImageStore(inside(folder, "images")) if self.manifest["counts"]["images"] else None
        self._check()

    def documents(self, split: str) -> np.ndarray:
        """int64: numbers of the documents of `split`, "train" or "held_out", in order."""
        return numbers_of(split, self.held_out, self.dropped)

    def document(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(token ids, tokens before each image, number of each image) of a document."""
        start, stop = self.document_offsets[index : index + 2]
        first, last = self.image_offsets[index : index + 2]
        return self.tokens[start:stop], self.image_places[first:last], self.image_numbers[first:last]

    @property
    def file_names(self) -> list[str]:
        """Of the input files, in the order of `file_offsets`."""
        return [entry["name"] for entry in self.manifest["inputs"]]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode([int(index) for index in ids], skip_special_tokens=False)

    def marked(self, index: int) -> str:
        """A document as a person reads it, its images as [image NUMBER]."""
        tokens, places, numbers = self.document(index)
        found, before = "", 0
        for place, number in zip(places, numbers, strict=True):
            found += f"{self.decode(tokens[before:place])}[image {number}]"
            before = place
        return found + self.decode(tokens[before:])

    def verify(self) -> None:
        """Read everything: hashes of all arrays, the tokenizer and the images. Raises BadInput at the first difference."""
        verify_hashes(self.folder, [*hashes_of_arrays(self.manifest, TYPES), ("tokenizer.json", self.manifest["tokenizer_sha256"])])
        if self.images is not None:
            self.images.verify()

    def report(self) -> list[str]:
        """What a person wants to know of the corpus, as lines."""
        counts = self.manifest["counts"]
        per_image = counts["tokens"] / max(counts["placed_images"], 1)
        form = "" if self.images is None else f" of {self.images.in_words()}"
        asked = f"; {counts['answer_tokens']:,} of them in answers" if counts["answer_tokens"] else ""
        near = counts["near_duplicate_documents"]
        lines = [
            f"{plural(counts['documents'], 'document')}, {counts['tokens']:,} tokens{asked}; vocabulary {self.vocab_size:,}",
            f"{counts['placed_images']:,} images in their places, {counts['images']:,} different ones{form}; {per_image:,.0f} tokens an image",
            f"held out {plural(counts['held_out_documents'], 'document')}; {plural(near, 'near-duplicate')} of them kept out of training",
            f"unigram entropy {self.unigram_entropy:.3f} nats",
        ]
        if missing := counts["missing_images"]:
            marker = agree(missing, "its marker", "their markers")
            where = "--interleaved.images says where they lie"
            lines.append(f"{plural(missing, 'image')} {agree(missing, 'is', 'are')} not there: left out with {marker} ({where})")
        if counts["damaged_images"]:
            quarantine = self.folder / "images" / "quarantine.jsonl"
            lines.append(f"{plural(counts['damaged_images'], 'place')} of damaged images left out; {quarantine} names each")
        if counts["empty_documents"]:
            lines.append(f"{plural(counts['empty_documents'], 'document')} without text left out")
        if counts["quarantined"]:
            lines.append(f"{plural(counts['quarantined'], 'bad record')} in {self.folder / 'quarantine.jsonl'}")
        return lines

    def _check(self) -> None:
        n, lengths, of_images = len(self.held_out), np.diff(self.document_offsets), np.diff(self.image_offsets)
        n_images = 0 if self.images is None else len(self.images)
        numbers, places = self.image_numbers, self.image_places
        owner = np.repeat(np.arange(n), of_images) if len(of_images) == n and (of_images >= 0).all() else None
        checks = {
            "answers": len(self.answers) == len(self.tokens),
            "document_offsets": len(lengths) == n and self.document_offsets[0] == 0 and self.document_offsets[-1] == len(self.tokens)
            and bool((lengths > 0).all()),
            "image_offsets": owner is not None and self.image_offsets[0] == 0 and self.image_offsets[-1] == len(places),
            "image_places": owner is not None and len(owner) == len(places) and bool(((places >= 0) & (places <= lengths[owner])).all()),
            "image_numbers": len(numbers) == len(places) and bool(((numbers >= 0) & (numbers < n_images)).all()),
            "file_offsets": bool((np.diff(self.file_offsets) >= 0).all()) and len(self.file_offsets) == len(self.manifest["inputs"]) + 1,
            "dropped": len(self.dropped) == n,
        }  # fmt: skip
        refuse_unfit(self.folder, checks)
        if self.vocab_size != text_tokenizer.vocabulary_size(self.tokenizer):
            raise BadInput("states another size of the vocabulary than its tokenizer has.", REBUILD, file=self.folder / "manifest.json")


def open_interleaved_store(folder: str | Path) -> InterleavedStore:
    """Open a finished store. Raises BadInput if it is missing, unfinished, damaged or of another format version."""
    return InterleavedStore(Path(folder))


def prepare_interleaved(sources: Sequence[str | Path], out: str | Path, config: InterleavedConfig | None = None) -> InterleavedStore:
    """Source -> store, see `prepare.prepare_interleaved`."""
    from headstart.data.interleaved import prepare  # it writes what this module opens

    return prepare.prepare_interleaved(sources, Path(out), config or InterleavedConfig())


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether what is read of a manifest has the types that it is read as; an error of a missing entry says no (`checked_manifest`)."""
    arrays, tokenizer = [manifest["arrays"][name] for name in TYPES], manifest["tokenizer"]
    entries: list[tuple[Any, type]] = [(array[key], str) for array in arrays for key in ("dtype", "sha256")]
    entries += [(array["shape"], list) for array in arrays]
    entries += [(manifest["counts"][name], int) for name in COUNTS] + [(manifest["preparation"], dict)]
    entries += [(tokenizer["vocab_size"], int), (manifest["tokenizer_sha256"], str), *((entry["name"], str) for entry in manifest["inputs"])]
    specials = tokenizer["special_ids"].values()
    return (
        all(isinstance(value, kind) for value, kind in entries)
        and isinstance(manifest["unigram_entropy"], float)
        and math.isfinite(manifest["unigram_entropy"])
        and all(isinstance(index, int) and 0 <= index < tokenizer["vocab_size"] for index in specials)
    )
