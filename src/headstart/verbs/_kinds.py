"""What verbs ask and say differently for each kind of data: `kind_of(method)` has one answer for texts, one for images, one for documents of both
and one for environments.

A further kind of data is one more module with these functions, and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.verbs import _environments, _images, _interleaved, _texts

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.engine.method import Method
    from headstart.verbs.config import ProbeConfig


class Kind(Protocol):
    """The functions of `_texts`, `_images`, `_interleaved` and `_environments`."""

    PROCESSOR: str
    """The class of transformers that turns records into batches, for the card."""
    TASK: str
    """What the hub calls classification of such records."""
    FEATURES: str
    """What the hub calls a model that gives vectors of them."""
    UNMEASURED: str
    """The last line of a run without labels: how to learn whether it helped."""

    WITHOUT_PICTURES: str
    """What a store of this kind holds where it has no pictures for a contact sheet; "" where it may have."""

    def refuse_stores(self, stores: Sequence[Any], config: Any) -> None:
        """Raises UsageError where the stores of --data cannot be trained on together, or not with the method's `config`."""

    def data_words(self, stores: Sequence[Any], rows: Sequence[Any]) -> str:
        """The data line of the plan."""

    def input_words(self, store: Any) -> str:
        """What the network reads, for the plan: "vocabulary 2,048"."""

    def rows_words(self, rows: Any) -> str:
        """What `prepare` says of a split's rows."""

    def read_labelled(self, config: ProbeConfig, method: Method) -> tuple[Sequence[Any], Sequence[int], int]:
        """(records as `Method.encode` takes them, class of each, number of classes) of --probe.labels. Raises BadInput."""

    def read_records(self, sources: Sequence[str | Path], store: Any) -> Iterator[tuple[str, Any]]:
        """(name, record as `Method.encode` takes it) of raw data, one after another. Raises BadInput."""

    def show_neighbours(self, found: Sequence[Sequence[tuple[str, Any, float]]], store: Any, folder: Path) -> list[str]:
        """Shows rows of (name, record, cosine with the row's first): writes pictures into `folder`, or gives lines."""

    def load_line(self, export: Path) -> str:
        """Python that loads an export, in one line."""

    def answers(self, export: Path) -> Tensor:
        """float32 [n]: what the networks of an export, loaded anew, say of made-up records; the same networks say the same. Raises BadInput where
        they cannot be loaded."""

    def next_lines(self, folder: Path) -> list[str]:
        """How to load the export of the run in `folder`, and the next commands."""

    def peek(self, store: Path, count: int, seed: int, sheet: Path | None) -> Any:
        """What lies in a store, to look at: a dataclass."""

    def peek_lines(self, found: Any) -> list[str]:
        """The same as a person reads it."""


KINDS: dict[str, Kind] = {
    "text": cast(Kind, _texts),
    "image": cast(Kind, _images),
    "interleaved": cast(Kind, _interleaved),
    "environment": cast(Kind, _environments),
}
"""By the group of the data's settings, which is also the kind in a store's manifest."""


def kind_of(method: type[Method] | Method) -> Kind:
    """The functions for the data that a method reads."""
    return KINDS[method.data_group]


def kind_of_store(folder: Path) -> Kind:
    """The functions for what a store holds.

    Raises:
        BadInput: no store is there, or one of a kind that this version does not know.
    """
    path = folder / "manifest.json"
    if not path.is_file():  # its own opening says what is missing
        return KINDS["text"]
    manifest = read_json(path)
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    if kind not in KINDS:
        raise BadInput("is no store of a kind that this version reads.", f"It reads stores of kind {', '.join(KINDS)}.", file=path)
    return KINDS[kind]


def refuse_texts(method: Method) -> None:
    """Raises UsageError where a person's own texts are given to a method that reads none."""
    if method.data_group != "text":
        raise UsageError(f"{method.card.slug} does not read texts.", "Leave out --text: rows of its held-out data are shown.")
