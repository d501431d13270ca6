"""An opened official checkpoint -> a folder that transformers loads, checked: what lies there is loaded anew and compared, weight by weight and in
what it computes. Of vision transformers the two are different programs, ours and transformers'."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from headstart.backbones.vit import ViT
from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.core.files import read_json
from headstart.core.words import plural
from headstart.data.text.tokenizer import special_ids
from headstart.interop import cerebras, electra_tf1, pre_norm_bert
from headstart.interop.masks import write_masks
from headstart.interop.model_folder import MAX_CONFIG_BYTES, MAX_SIDE
from headstart.interop.official import Checkpoint
from headstart.interop.transformers_io import learned_positions, load_encoder, load_model, save_model_folder
from headstart.interop.vision_tower import preprocessor
from headstart.interop.vit import has_transformers_class, load_vit, read_vit, save_vit
from headstart.interop.vit import load_encoder as fill_encoder
from headstart.interop.vocabulary import find_tokenizer

TOLERANCE = 1e-4
"""Of what two programs compute with the same weights, as a share of the largest value."""
MAX_PLACES = 2**14
"""Patches of an image that a vision transformer is asked about: 2,048 pixels a side in patches of 16."""


@dataclass(frozen=True)
class Asked:
    """What a person says of a checkpoint that its file does not.

    Attributes:
        tokenizer: file or folder; None: what lies beside the checkpoint.
        heads: of attention.
        activation: of the feed-forward layers of a GPT of Cerebras.
    """

    tokenizer: Path | None = None
    heads: int | None = None
    activation: str = "gelu"


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        used: the folder in it that a task loads; "": itself.
        loader: the class of transformers that loads it.
        parameters: weights of all networks.
        notes: what a person should know, a sentence each.
    """

    used: str
    loader: str
    parameters: int
    notes: list[str]


def convert(checkpoint: Checkpoint, kind: str, asked: Asked, folder: Path) -> Converted:
    """Writes the networks of a checkpoint into the new folder.

    Args:
        kind: cerebras, electra-tf1, pre-norm-bert or vit.

    Raises:
        BadInput: it is no such checkpoint, weights are missing or left over. UsageError: it does not say something that must be given.
        HeadstartError: what was written computes something else.
    """
    if kind == "vit":
        return _vision(checkpoint, asked, folder)
    tokenizer, where = find_tokenizer(asked.tokenizer, checkpoint.folder)
    notes = [f"Tokenizer: {where}."]
    ids = special_ids(tokenizer.backend_tokenizer if isinstance(tokenizer, PreTrainedTokenizerFast) else tokenizer)
    if kind == "cerebras":
        heads = _heads(asked.heads, checkpoint, "num_heads of the model in the parameters of its training")
        model, masks = cerebras.network(checkpoint.tensors(), checkpoint.weights, heads, asked.activation)
        cerebras.end_texts(model, tokenizer)
        _write(model, tokenizer, folder)
        if masks:
            write_masks(folder, masks)
            zeros, total = sum(int((~mask).sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
            notes.append(f"Sparse: {zeros / total:.1%} of the weights in {len(masks)} matrices are zero, masks.safetensors says which.")
        return Converted("", "AutoModelForCausalLM", _count(model), [*notes, f"{plural(heads, 'head')}, activation {asked.activation}, as given."])
    if lacking := [name for name in ("pad", "cls", "sep") if name not in ids]:
        raise BadInput(f"has no [{lacking[0].upper()}] token, which this network needs.", "Give --tokenizer: the one of its training.", file=where)
    if kind == "electra-tf1":
        found = electra_tf1.networks(checkpoint.arrays(), ids, checkpoint.weights, asked.heads)
        for name, network in found.items():
            _write(network, tokenizer, folder / name)
            heads_of = plural(network.config.num_attention_heads, "head") + ("" if asked.heads else " of 64, as the official code has them")
            notes.append(f"{name}: {_count(network):,} weights, {heads_of}.")
        return Converted("discriminator", "AutoModel", sum(map(_count, found.values())), notes)
    heads = _heads(asked.heads or _stated_heads(checkpoint.folder), checkpoint, "num_attention_heads of its config.json")
    bert = pre_norm_bert.network(checkpoint.tensors(), ids, heads, checkpoint.weights)
    _write(bert, tokenizer, folder)
    notes.append(f"{plural(heads, 'head')}; the pooler, which was never trained, is left out.")
    return Converted("", "AutoModelForMaskedLM", _count(bert), notes)


def _heads(found: int | None, checkpoint: Checkpoint, where: str) -> int:
    if found is None:
        raise UsageError(f"{checkpoint.path} does not say how many heads its attention has.", f"Give --heads: {where}.")
    return found


def _stated_heads(folder: Path) -> int | None:
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES) if (folder / "config.json").is_file() else {}
    heads = raw.get("num_attention_heads") if isinstance(raw, dict) else None
    return heads if type(heads) is int and heads > 0 else None


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _write(model: PreTrainedModel, tokenizer: Tokenizer | PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a network, loads it anew, and compares."""
    save_model_folder(model, tokenizer, folder)
    load_encoder(folder)  # refuses a tokenizer that does not fit
    again: Any = load_model(folder, type(model))
    own, theirs = model.state_dict(), again.state_dict()
    ids = torch.arange(min(8, learned_positions(model) or 8))[None] % model.config.vocab_size
    with torch.no_grad():
        same = _equal(model(input_ids=ids)[0], again.eval()(input_ids=ids)[0], 0.0)
    if not same or own.keys() != theirs.keys() or any(not torch.equal(value, theirs[name]) for name, value in own.items()):
        raise HeadstartError(f"The network that was written into {folder} is not the one of the checkpoint.", "This is a bug: please report it.")


def _equal(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and bool(((one - other).abs().max() <= tolerance * one.abs().max()).item())


def _vision(checkpoint: Checkpoint, asked: Asked, folder: Path) -> Converted:
    found = read_vit(checkpoint.path)
    shape = found.shape(**({} if asked.heads is None else {"num_heads": asked.heads}))
    if not has_transformers_class(shape):
        raise UsageError(
            f"{checkpoint.path} holds a vision transformer that transformers has no class for: it has no class token, or no positions.",
            f"Methods take it as it is: --init {checkpoint.path}.",
        )
    if math.prod(shape.grid) > MAX_PLACES or max(shape.image_size) > MAX_SIDE:
        sides = " x ".join(f"{side:,}" for side in shape.image_size)
        what = f"is made for images of {sides} pixels in patches of {shape.patch_size}."
        raise BadInput(what, "Such a network is not run here.", file=checkpoint.path)
    network = ViT(shape)
    if fresh := [note for note in fill_encoder(network, found) if "fresh" in note]:
        raise BadInput(f"lacks weights of a whole encoder. {fresh[0]}", f"Methods take it as it is: --init {checkpoint.path}.", file=checkpoint.path)
    beside = {name: value for name, value in found.state.items() if name not in network.state_dict()}
    save_vit(network, folder, _preprocessor(checkpoint.folder, network), beside)
    image = torch.rand(1, shape.channels, *shape.image_size, generator=torch.Generator().manual_seed(0))
    theirs: Any = load_model(folder, AutoModel)
    with torch.no_grad():
        tokens = network.eval()(image)
        same = _equal(tokens, load_vit(folder)[0].eval()(image), 0.0)
        same &= _equal(tokens, theirs.eval()(pixel_values=image).last_hidden_state, TOLERANCE)
    if not same:
        raise HeadstartError(f"The network that was written into {folder} is not the one of the checkpoint.", "This is a bug: please report it.")
    sides = " x ".join(map(str, shape.image_size))
    sizes = f"{plural(shape.num_layers, 'layer')} of {shape.hidden_size}, {plural(shape.num_heads, 'head')}"
    notes = [f"{sizes}, patches of {shape.patch_size}, images of {sides}."]
    if beside:
        notes.append(f"{plural(len(beside), 'tensor')} beside the encoder ({', '.join(sorted(beside)[:3])} ...) are kept in method.safetensors.")
    if not (folder / "preprocessor_config.json").is_file():
        notes.append("The file does not say how its images were normalised: there is no preprocessor_config.json.")
    return Converted("", "AutoModel", _count(network), notes)


def _preprocessor(folder: Path, network: ViT) -> dict[str, Any] | None:
    """What a folder of timm says of its images, as transformers' ViTImageProcessor has it; None where it says nothing."""
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES) if (folder / "config.json").is_file() else {}
    stated = raw.get("pretrained_cfg") if isinstance(raw, dict) else None
    mean, std = (stated.get(name) if isinstance(stated, dict) else None for name in ("mean", "std"))
    numbers = [*mean, *std] if isinstance(mean, list) and isinstance(std, list) else []
    if len(numbers) != 2 * network.config.channels or not all(isinstance(number, int | float) for number in numbers):
        return None
    assert isinstance(mean, list)
    assert isinstance(std, list)
    return preprocessor(network.config.image_size, mean, std)
