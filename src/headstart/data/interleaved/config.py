"""How interleaved documents become a store. The flags are `--interleaved.NAME`; the resolved values are in the store's manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.core.errors import HeadstartError
from headstart.data.image.config import Fit, ImageConfig, Storage
from headstart.data.text.config import TextConfig, TokenizerKind

_SHARED = ("on-bad-input", "max-bad-share", "max-megapixels", "workers")
"""Settings of images that have the same name here."""


@dataclass
class InterleavedConfig:
    """Preparation of interleaved documents. Two runs with equal values and equal files write equal bytes."""

    images: str | None = None
    """Folder that the images lie in. A path in a document counts from there (None: from the document's own file); an address is looked up in its
    images.jsonl, images.parquet or answers.jsonl (columns url and file; the last is what `headstart curate` writes), or is the file named by the
    SHA-256 of the address. An image that is not there is left out with its marker, and counted."""

    image_size: int = 64
    """Height and width of the stored images, in pixels: those that the vision tower sees, which decides it where a model is continued."""

    image_fit: Fit = "squash"
    """What becomes of an image that is not square: see --image.fit. squash is what SigLIP's own preparation does."""

    image_mode: Literal["rgb", "grey"] = "rgb"
    """Whether the vision tower sees colours."""

    image_storage: Storage = "decoded"
    """decoded: pixels, nothing is left to do while training. encoded: the files' own bytes, decoded in threads while training; about a tenth of the
    disk."""

    tokenizer: str | None = None
    """A tokenizer to take as it is: a tokenizer.json, a vocab.txt (WordPiece) or a folder of transformers. None: train one on the corpus."""

    tokenizer_kind: TokenizerKind = "bpe"
    """What to train. bpe is byte-level: line ends and blanks are kept."""

    vocab_size: int = 4096
    """Vocabulary to train, special tokens included. A small corpus may give fewer."""

    lowercase: bool | None = None
    """Fold case. None: yes for wordpiece, no for bpe and unigram."""

    held_out_share: float = 0.02
    """Share of documents, chosen by the hash of their content, kept for validation. 0: none."""

    near_duplicate_share: float = 0.5
    """A training document is dropped if this share of its 8-token spans is found in held-out documents, or the other way round, and it has no image,
    or one that a held-out document has too."""

    on_bad_input: Literal["stop", "quarantine"] = "stop"
    """stop: the first bad document or damaged image ends the preparation. quarantine: write it to quarantine.jsonl and go on."""

    max_bad_share: float = 0.05
    """With quarantine: stop after all when more than this share of the documents (or images) is bad."""

    max_document_mb: float | None = None
    """Largest document (MB of UTF-8). None: a tenth of this machine's memory."""

    max_megapixels: float = 89.0
    """Largest image, in million pixels; decided from its header, before memory is taken."""

    workers: int | None = None
    """Threads that decode images. None: one a core. Does not change the result."""

    def __post_init__(self) -> None:
        self.of_texts()
        self.of_images()

    def of_texts(self) -> TextConfig:
        """The same settings as those of texts."""
        with our_flags():
            return TextConfig(
                tokenizer=self.tokenizer,
                tokenizer_kind=self.tokenizer_kind,
                vocab_size=self.vocab_size,
                lowercase=self.lowercase,
                held_out_share=self.held_out_share,
                near_duplicate_share=self.near_duplicate_share,
                on_bad_input=self.on_bad_input,
                max_bad_share=self.max_bad_share,
                max_document_mb=self.max_document_mb,
                workers=self.workers,
            )

    def of_images(self) -> ImageConfig:
        """The same settings as those of images. None is held out or left out as a copy: documents are."""
        with our_flags():
            return ImageConfig(
                size=self.image_size,
                fit=self.image_fit,
                mode=self.image_mode,
                storage=self.image_storage,
                animated="first",
                held_out_share=0.0,
                duplicates="keep",
                on_bad_input=self.on_bad_input,
                max_bad_share=self.max_bad_share,
                max_megapixels=self.max_megapixels,
                workers=self.workers,
            )

    def preparation(self) -> dict[str, Any]:
        """The fields that decide the bytes of the store, resolved. What only decides how it is made (workers, limits) is left out."""
        of_texts = self.of_texts().preparation()
        kept = {name: of_texts[name] for name in asdict(self) if name in of_texts}
        images = None if self.images is None else str(Path(self.images).absolute())
        return {"images": images, **kept, **{name: value for name, value in asdict(self).items() if name.startswith("image_")}}


@contextmanager
def our_flags() -> Iterator[None]:
    """Messages of texts and of images name their own flags: here they name ours."""
    try:
        yield
    except HeadstartError as error:
        error.what, error.mend = _ours(error.what), _ours(error.mend)
        error.args = (error.what if not error.mend else f"{error.what}\n{error.mend}",)
        raise


def _ours(message: str) -> str:
    message = message.replace("--text.", "--interleaved.")
    return re.sub(r"--image\.([\w-]+)", lambda found: f"--interleaved.{'' if found[1] in _SHARED else 'image-'}{found[1]}", message)
