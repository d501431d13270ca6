"""Weight averaging: one model of several that share a beginning, each tensor the weighted mean of theirs.

An old and a continued model that are averaged keep part of what each is good at, at no cost of training; practitioners use it beside replay (Wortsman
et al. 2022, arXiv 2203.05482; 2109.01903 for old and fine-tuned). It has a meaning only along one line of descent: networks from different random
starts order their units differently, and their mean is noise.

- A tensor at a time, in float32, a file of weights at a time: no model is ever whole in memory.
- The result has the files of the first model: its sharding, its precision, its configuration and tokenizer.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_json
from headstart.core.tensor_files import save_tensors
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer
from headstart.interop.model_folder import read_config, weight_files

VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures"}
"""Entries of config.json that say nothing of the network's shape."""
KEPT = (
    "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
"""Files of the first model that the result has as they are."""
KIN = 0.5
"""Cosine of two models' matrices, all as one vector, below which they hardly have a beginning in common: independent starts have about 0, a continued
model well over 0.9."""


@dataclass(frozen=True)
class Kinship:
    """How far a model is from the first one.

    Attributes:
        distance: ||w - w_1|| / ||w_1|| over all matrices; norms and biases, which begin alike in every network, are left out.
        cosine: of the two as vectors.
        farthest: the matrix with the largest relative distance, and that distance.
    """

    distance: float
    cosine: float
    farthest: tuple[str, float]


@dataclass(frozen=True)
class Merged:
    """What was averaged.

    Attributes:
        tensors, parameters: how many of each were averaged.
        kin: of each model but the first.
    """

    tensors: int
    parameters: int
    kin: tuple[Kinship, ...]


def merge_folders(folders: Sequence[Path], shares: Sequence[float], out: Path) -> Merged:
    """Writes the weighted mean of transformers folders into the new folder `out`.

    Args:
        folders: models of one architecture and one tokenizer, as safetensors.
        shares: one a model, with a sum of 1.

    Raises:
        BadInput: a folder is no model, is of another architecture, tokenizer or shape than the first, or holds a weight that is no finite number.
    """
    for folder in folders:
        read_config(folder)
    first, *others = folders
    for other in others:
        _refuse_other_network(first, other)
        _refuse_other_tokenizer(first, other)
    with ExitStack() as stack:
        places = [_tensor_files(folder) for folder in folders]
        _refuse_other_names(folders, places)
        opened = [_open_all(stack, of_model) for of_model in places]
        sums = [_Sums() for _ in others]
        out.mkdir(parents=True, exist_ok=True)
        for file in dict.fromkeys(places[0].values()):  # in the first model's own shards
            names = [name for name, place in places[0].items() if place == file]
            mean = {name: _mean(name, folders, [of_model[name] for of_model in opened], shares, sums) for name in names}
            save_tensors(mean, out / file.name, metadata={"format": "pt"})
    for name in KEPT:
        if (first / name).is_file():
            shutil.copyfile(own_file(first, name), out / name)
    counted = sums[0]
    return Merged(counted.tensors, counted.parameters, tuple(one.kinship() for one in sums))


class _Sums:
    """Running sums of one model beside the first."""

    def __init__(self) -> None:
        self.tensors = self.parameters = 0
        self.squared_first = self.squared_other = self.product = self.squared_distance = 0.0
        self.farthest = ("", 0.0)

    def add(self, name: str, first: Tensor, other: Tensor) -> None:
        self.tensors += 1
        self.parameters += first.numel()
        if first.dim() < 2:
            return
        a, b = first.double().flatten(), other.double().flatten()
        own, moved = float(a @ a), float((b - a).square().sum())
        self.squared_first += own
        self.squared_other += float(b @ b)
        self.product += float(a @ b)
        self.squared_distance += moved
        relative = math.sqrt(moved / own) if own > 0 else (math.inf if moved > 0 else 0.0)
        if math.isfinite(relative) and relative > self.farthest[1]:
            self.farthest = (name, relative)

    def kinship(self) -> Kinship:
        norms = math.sqrt(self.squared_first * self.squared_other)
        distance = math.sqrt(self.squared_distance / self.squared_first) if self.squared_first else 0.0
        return Kinship(distance, self.product / norms if norms else 0.0, self.farthest)


def _mean(name: str, folders: Sequence[Path], readers: Sequence[Any], shares: Sequence[float], sums: Sequence[_Sums]) -> Tensor:
    """The weighted mean of one tensor, in the precision of the first model; tensors of whole numbers must be equal."""
    tensors = [reader.get_tensor(name) for reader in readers]
    first = tensors[0]
    for folder, tensor in zip(folders, tensors, strict=True):
        if tensor.shape != first.shape:
            what = f"{name} has the shape {list(tensor.shape)}, in {folders[0]} {list(first.shape)}."
            raise BadInput(what, "Average models of one size.", file=folder)
        if tensor.is_floating_point() != first.is_floating_point():
            raise BadInput(f"{name} is {tensor.dtype}, in {folders[0]} {first.dtype}.", "Average models of one kind.", file=folder)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadInput(f"{name} holds numbers that are not finite.", "Take an earlier checkpoint of this model.", file=folder)
        if not tensor.is_floating_point() and not torch.equal(tensor, first):
            raise BadInput(f"{name} holds whole numbers that differ from those in {folders[0]}.", "They have no mean.", file=folder)
    if not first.is_floating_point():
        return first
    for of_other, other in zip(sums, tensors[1:], strict=True):
        of_other.add(name, first, other)
    mean = sum((share * tensor.float() for share, tensor in zip(shares, tensors, strict=True) if share), start=torch.zeros(first.shape))
    return mean.to(first.dtype)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Name of each tensor -> its file."""
    files = weight_files(folder, read_json(folder / "config.json"))
    if not files or any(file.suffix != ".safetensors" for file in files):
        raise BadInput("has no weights as safetensors.", "Save the model again with save_pretrained.", file=folder)
    found: dict[str, Path] = {}
    for file in files:
        with _reading(file), safe_open(file, "pt") as reader:
            found |= dict.fromkeys(reader.keys(), file)
    return found


def _open_all(stack: ExitStack, places: Mapping[str, Path]) -> dict[str, Any]:
    """Name of each tensor -> the opened file that holds it."""
    readers = {file: stack.enter_context(safe_open(file, "pt")) for file in dict.fromkeys(places.values())}
    return {name: readers[file] for name, file in places.items()}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns what safetensors raises on a damaged file into our error."""
    try:
        yield
    except SafetensorError as error:
        raise BadInput(f"cannot be read ({error}).", "Copy or export the model again.", file=file) from None


def _refuse_other_names(folders: Sequence[Path], places: Sequence[Mapping[str, Path]]) -> None:
    first = places[0].keys()
    for folder, of_model in zip(folders, places, strict=True):
        missing, more = sorted(first - of_model.keys()), sorted(of_model.keys() - first)
        if missing or more:
            what = f"lacks {missing[0]}, which {folders[0]} has" if missing else f"holds {more[0]}, which {folders[0]} lacks"
            raise BadInput(f"{what} ({len(missing)} tensors fewer, {len(more)} more).", "Average models of one architecture.", file=folder)


def _refuse_other_network(first: Path, other: Path) -> None:
    ours, theirs = (dict(_shape_entries(read_json(folder / "config.json"))) for folder in (first, other))
    for name in sorted(ours.keys() | theirs.keys(), key=lambda name: (name != "model_type", name)):  # another kind differs in everything
        if ours.get(name) != theirs.get(name):
            what = f"config.json says {name} = {theirs.get(name)!r}, that of {first} {ours.get(name)!r}."
            raise BadInput(what, "Average models of one architecture, of which one became the other.", file=other)


def _shape_entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What config.json says of the network; an entry that is null says nothing."""
    return ((name, value) for name, value in config.items() if name not in VOLATILE and value is not None)


def _refuse_other_tokenizer(first: Path, other: Path) -> None:
    """Raises BadInput where a token id does not mean the same in both."""
    ours, theirs = (_pieces(folder) for folder in (first, other))
    if ours != theirs:
        part = next(name for name in ours if ours[name] != theirs.get(name))
        what = f"The tokenizer is not the one of {first}: its {part} differs."
        raise BadInput(what, "Average models of one tokenizer: the rows of their embeddings mean different pieces otherwise.", file=other)


def _pieces(folder: Path) -> dict[str, Any]:
    """What decides how text becomes ids."""
    tokenizer, _ = load_tokenizer(str(folder), TextConfig())
    parts = json.loads(tokenizer.to_str())
    return {"vocabulary": tokenizer.get_vocab(), **{name: parts.get(name) for name in ("model", "normalizer", "pre_tokenizer")}}
