"""Rows for new tokens from what the old model makes of them in context (the paper's "contextualized weight distillation").

The rows depend on the model, the corpus and the settings alone, so they are kept beside the store: a run that is begun again, its other processes,
and the trials of `advise` and `compare` read them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from headstart.core.files import inside, locked, own_file, sha256_file
from headstart.core.progress import progress
from headstart.core.tensor_files import save_tensors
from headstart.data.text.store import TextStore
from headstart.engine.flops import count_flops
from headstart.methods.bioptimus.contexts import Windows, find_places, old_windows

BATCH_TOKENS = 1 << 14
MATCHED = 2000
"""Shared tokens that say where hidden states lie, at most."""
TINY = 1e-6


@dataclass(frozen=True)
class Reading:
    """How occurrences are read; a part of `BioptimusConfig`."""

    layer: int | None
    pieces: Literal["mean", "max"]
    contexts: int
    context_tokens: int


@dataclass(frozen=True)
class Vectors:
    """What the old model makes of tokens."""

    mean: Tensor
    """float32 [tokens, dim]: over the contexts found; 0 where there is none."""
    found: Tensor
    """int64 [tokens]: contexts."""
    flops: int
    """Of the passes."""


def contextual_vectors(
    model: PreTrainedModel, folder: Path, old: Tokenizer, special: tuple[int, int, int], store: TextStore, tokens: np.ndarray, reading: Reading
) -> Vectors:
    """The vectors of tokens of the store's vocabulary, kept in STORE/made/.

    Args:
        model: the old masked language model; folder: where it was read from.
        special: as of `old_windows`.
        tokens: int64 [tokens], ascending.
    """
    weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin"))
    text = [store.manifest["arrays"]["tokens"]["sha256"], store.manifest["tokenizer_sha256"]]
    made_from = [1, [sha256_file(path) for path in weights], old.to_str(), text, tokens.tolist(), asdict(reading)]
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    place = inside(store.folder, f"made/new-rows-{key}.safetensors")
    place.parent.mkdir(exist_ok=True)
    with locked(place.with_suffix(".lock"), "reads new tokens in context"):
        if not place.exists():
            wanted = np.zeros(store.vocab_size, bool)
            wanted[tokens] = True
            windows = old_windows(store, find_places(store, wanted, reading.contexts), old, special, reading.context_tokens)
            vectors = read_vectors(model, windows, tokens, reading)
            kept = {"mean": vectors.mean, "found": vectors.found, "flops": torch.tensor(vectors.flops)}
            save_tensors({name: value.contiguous() for name, value in kept.items()}, place)
        read = load_file(own_file(place.parent, place.name))
    return Vectors(read["mean"], read["found"], int(read["flops"]))


@torch.no_grad()
def read_vectors(model: PreTrainedModel, windows: Windows, tokens: np.ndarray, reading: Reading) -> Vectors:
    """One pass over the windows, ordered by length; all occurrences of a row are read at once. On a GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    was_training = model.training
    moved: nn.Module = model  # transformers' own `to` has no type of its arguments
    moved.eval().to(device)
    sums = torch.zeros(len(tokens), model.config.hidden_size, dtype=torch.float64, device=device)  # its order on a GPU is not fixed: rounded away
    number = np.searchsorted(tokens, windows.token)
    counted = torch.from_numpy(np.bincount(number, minlength=len(tokens)))
    order = np.argsort(windows.row, kind="stable")
    bounds = np.searchsorted(windows.row[order], np.arange(len(windows.rows) + 1))

    def work() -> None:
        batches = batches_by_length([len(row) for row in windows.rows])
        for rows in progress(batches, len(batches), "read new tokens in context", "batches"):
            longest = max(len(windows.rows[row]) for row in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            mask = torch.zeros(len(rows), longest, dtype=torch.int64)
            for i, row in enumerate(rows):
                ids[i, : len(windows.rows[row])] = torch.from_numpy(windows.rows[row])
                mask[i, : len(windows.rows[row])] = 1
            hidden = states(model, ids.to(device), mask.to(device), reading.layer)
            mine = [order[bounds[row] : bounds[row + 1]] for row in rows]
            occurrence = np.concatenate(mine)
            if not len(occurrence):
                continue
            lengths = windows.first[occurrence + 1] - windows.first[occurrence]
            piece = np.repeat(windows.first[occurrence] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            in_batch = np.repeat(np.repeat(np.arange(len(rows)), [len(part) for part in mine]), lengths)
            vectors = hidden[torch.from_numpy(in_batch).to(device), torch.from_numpy(windows.place[piece]).to(device)].float()
            weights = torch.from_numpy(windows.weight[piece]).to(device)
            reduced = reduce_pieces(vectors, weights, torch.from_numpy(lengths).to(device), reading.pieces)
            sums.index_add_(0, torch.from_numpy(number[occurrence]).to(device), reduced.double())

    flops = count_flops(work)
    moved.to("cpu").train(was_training)
    return Vectors((sums.cpu() / counted.clamp(min=1)[:, None]).float(), counted, flops)


def states(model: PreTrainedModel, ids: Tensor, mask: Tensor, layer: int | None) -> Tensor:
    """[batch, length, dim]: the hidden states of a layer; 0: the embeddings after their norm; None: the last."""
    output = model.base_model(input_ids=ids, attention_mask=mask, output_hidden_states=layer is not None)
    found: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return found


def reduce_pieces(vectors: Tensor, weights: Tensor, lengths: Tensor, how: Literal["mean", "max"]) -> Tensor:
    """f of the paper's figure: [pieces, dim] of all occurrences, one after another -> [occurrences, dim].

    Args:
        weights: [pieces], of the mean.
        lengths: int64 [occurrences]: pieces of each.
    """
    of = torch.repeat_interleave(torch.arange(len(lengths), device=vectors.device), lengths, output_size=len(vectors))
    if how == "max":
        empty = torch.full((len(lengths), vectors.shape[1]), -torch.inf, dtype=vectors.dtype, device=vectors.device)
        return empty.scatter_reduce(0, of[:, None].expand_as(vectors), vectors, "amax")
    sums = torch.zeros(len(lengths), vectors.shape[1], dtype=vectors.dtype, device=vectors.device).index_add_(0, of, vectors * weights[:, None])
    return sums / torch.zeros(len(lengths), dtype=vectors.dtype, device=vectors.device).index_add_(0, of, weights.to(vectors.dtype))[:, None]


def batches_by_length(lengths: list[int]) -> list[list[int]]:
    """Rows of about equal length together, about `BATCH_TOKENS` a batch."""
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches if batches[0] else []


def matched(vectors: Tensor, shared: Tensor, rows: Tensor) -> Tensor:
    """Vectors shifted and scaled, each dimension for itself, so that those of shared tokens have the mean and the spread of their own rows: hidden
    states have passed norms that word embeddings have not.

    Args:
        vectors: [n, dim].
        shared: [m, dim], of shared tokens, made the same way; rows: [m, dim], theirs in the old table.
    """
    spread = (rows.std(0, correction=0) + TINY) / (shared.std(0, correction=0) + TINY)
    return rows.mean(0) + (vectors - shared.mean(0)) * spread


def first_by_hash(names: list[str], most: int = MATCHED) -> list[int]:
    """Numbers of the first names by the SHA-1 of each, ascending."""
    order = sorted(range(len(names)), key=lambda i: hashlib.sha1(names[i].encode(), usedforsecurity=False).digest())
    return sorted(order[:most])
