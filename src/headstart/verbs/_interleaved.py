"""What verbs ask and say of documents of texts and images (see `_kinds`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headstart.core.errors import UsageError
from headstart.core.terminal import printable
from headstart.core.words import plural
from headstart.verbs import _texts
from headstart.verbs.config import ProbeConfig

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.engine.method import Method

PROCESSOR = "AutoTokenizer"
TASK = "text-generation"
FEATURES = "image-text-to-text"
WITHOUT_PICTURES = ""
LOADER = """\
from headstart.methods.interleaved_lm.network import read_interleaved

model = read_interleaved("FOLDER")
print(model.answer("What is in <image> ?", ["picture.png"]))"""
"""How an export is loaded: its language model alone is a folder of transformers."""
UNMEASURED = "Whether it helps your task: compare its answers with those of the model that it began with, on documents held out of both."


@dataclass(frozen=True)
class Peek:
    """What lies in a store, to look at."""

    kind: ClassVar[str] = "interleaved"
    report: list[str]
    documents: list[str]


def refuse_stores(stores: Sequence[Any], config: Any) -> None:
    first = stores[0].manifest.get("tokenizer_sha256")
    if any(store.manifest.get("tokenizer_sha256") != first for store in stores):
        mend = "Prepare them with one: --interleaved.tokenizer STORE/tokenizer.json."
        raise UsageError("The stores of --data were made with different tokenizers.", mend)
    forms = {(store.images.form.shape, store.images.form.dtype) for store in stores if store.images is not None}
    if len(forms) > 1:
        raise UsageError("The stores of --data hold images of different sizes or colours.", "Prepare them alike: --interleaved.image-size.")


def data_words(stores: Sequence[Any], rows: Sequence[Any]) -> str:
    documents, images = (sum(store.manifest["counts"][name] for store in stores) for name in ("documents", "placed_images"))
    tokens, n_rows = sum(part.n_tokens for part in rows), sum(map(len, rows))
    shares = _texts.shares(rows[0].report, spaced=True)
    there = f"{plural(documents, 'document')} with {plural(images, 'image')}, {plural(tokens, 'place')} to train on"
    return f"{there} in {plural(n_rows, 'row')} of {rows[0].length} ({shares})"


def input_words(store: Any) -> str:
    return f"vocabulary {store.vocab_size:,}" + ("" if store.images is None else f", images {store.images.in_words()}")


def rows_words(rows: Any) -> str:
    return f"{len(rows):,} of {rows.length} places ({_texts.shares(rows.report)}), {plural(rows.report['images'], 'image')}"


def read_labelled(config: ProbeConfig, method: Method) -> tuple[Sequence[Any], Sequence[int], int]:
    """Labelled texts: what the language model knows of them."""
    return _texts.read_labelled(config, method)


def read_records(sources: Sequence[str | Path], store: Any) -> Iterator[tuple[str, Any]]:
    """The texts of the documents, without their images."""
    from headstart.data.interleaved.config import InterleavedConfig
    from headstart.data.interleaved.documents import Text
    from headstart.data.interleaved.head import documents
    from headstart.data.text.read import joined

    for file, document in documents(sources, InterleavedConfig()):
        text = joined([piece.text for piece in document.pieces if isinstance(piece, Text)])
        yield f"{file.name}, record {document.number}", text or ""


show_neighbours = _texts.show_neighbours


def load_line(export: Path) -> str:
    return f"from headstart.methods.interleaved_lm.network import read_interleaved; model = read_interleaved({str(export)!r})"


def answers(export: Path) -> Tensor:
    """What the language model says of a row of tokens, and the tokens that it sees of an image of noise."""
    import torch

    from headstart.methods.interleaved_lm.network import read_interleaved

    network = read_interleaved(export).network
    form, embeddings = network.tower.form, network.model.get_input_embeddings()
    image = 255 * torch.rand(1, 1, form.channels, form.image_size, form.image_size, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(_texts.LOOKED_AT)[None] % embeddings.num_embeddings
    with torch.no_grad():
        seen = network.features({"images": image})
        assert seen is not None
        return torch.cat([network.hidden_states({"input_ids": ids}).float().flatten(), network.visual_tokens(seen).float().flatten()])


def next_lines(folder: Path) -> list[str]:
    return [
        f"Load it:   {load_line(folder / 'export')}",
        f"Next stage: headstart pretrain interleaved-lm --init {shlex.quote(str(folder))} --method.stage instruction --data ASKED.jsonl",
        f"Look:      headstart sample {shlex.quote(str(folder))}",
    ]


def peek(store: Path, count: int, seed: int, sheet: Path | None) -> Peek:
    """Documents drawn from the store, [image NUMBER] where an image stands; the numbers are those of the contact sheet's images.

    Raises:
        UsageError: a contact sheet is asked for, and no document has an image.
    """
    from headstart.data.image import describe
    from headstart.data.interleaved.store import open_interleaved_store
    from headstart.data.permute import draw

    opened = open_interleaved_store(store)
    if sheet is not None:
        if opened.images is None:
            raise UsageError(f"{store} holds texts alone, which have no contact sheet.", "Leave out --sheet.")
        describe.peek(opened.images, count, seed, sheet)
    return Peek(opened.report(), [f"document {index}: {opened.marked(int(index))}" for index in draw(len(opened.held_out), count, seed)])


def peek_lines(found: Peek) -> list[str]:
    limit = _texts.SHOWN
    shown = (text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit:,} more characters)" for text in found.documents)
    return [printable(line) for line in (*found.report, *(part for text in shown for part in ("", text)))]
