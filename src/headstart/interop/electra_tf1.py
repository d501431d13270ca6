"""ELECTRA checkpoints of google-research/electra (TensorFlow 1 names) to transformers' networks and names, and back.

One TF1 checkpoint holds both networks; transformers keeps them in two folders, each with its own copy of the shared embeddings. Kernels are
[in, out] in TensorFlow and [out, in] in torch. transformers 5 has no TensorFlow loader of its own; `tensorflow_bundle` reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ElectraForMaskedLM, ElectraForPreTraining, ElectraModel, PreTrainedModel

from headstart.backbones.text import encoder_config
from headstart.core.errors import BadInput
from headstart.interop.model_folder import count_layers, filled

_GIVE = "Give the arrays of a google-research/electra checkpoint."
HEAD_SIZE = 64
"""Of the official networks and their generators (configure_pretraining.py, pretrain_helpers.py): no variable says it."""
_SKIPPED = re.compile(r"(^global_step$)|(/adam_[mv]$)")  # optimiser state
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_SUFFIXES = {"gamma": "weight", "beta": "bias", "kernel": "weight", "bias": "bias"}
_TF1_SUFFIX = {("LayerNorm", "weight"): "gamma", ("LayerNorm", "bias"): "beta", ("dense", "weight"): "kernel", ("dense", "bias"): "bias"}

_HEADS = {  # TF1 scope -> transformers module
    "discriminator_predictions/dense_1": "discriminator_predictions.dense_prediction",
    "discriminator_predictions/dense": "discriminator_predictions.dense",
    "generator_predictions/dense": "generator_predictions.dense",
    "generator_predictions/LayerNorm": "generator_predictions.LayerNorm",
}


def from_tf1(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts for `ElectraForPreTraining` and `ElectraForMaskedLM` from the variables of one checkpoint.

    The generator gets copies of the discriminator's embeddings, or its own where the checkpoint has `generator/embeddings/*`. A checkpoint without a
    generator (or without a discriminator head) gives a state dict without those names.

    Raises:
        BadInput: a variable that belongs to no ELECTRA, or no word table.
    """
    if "electra/embeddings/word_embeddings" not in arrays:
        raise BadInput("the checkpoint has no variable electra/embeddings/word_embeddings", _GIVE)
    discriminator: dict[str, Tensor] = {}
    generator: dict[str, Tensor] = {}
    for name, array in arrays.items():
        if _SKIPPED.search(name):
            continue
        scope = name.split("/", 1)[0]
        tensor = _from_array(name, array)
        if scope == "electra":
            discriminator["electra." + _encoder_name(name)] = tensor
        elif scope == "generator":
            generator["electra." + _encoder_name(name)] = tensor
        elif name == "generator_predictions/output_bias":
            generator["generator_lm_head.bias"] = tensor
        elif scope in ("discriminator_predictions", "generator_predictions"):
            (discriminator if scope.startswith("disc") else generator)[_head_name(name)] = tensor
        else:
            raise BadInput(f"the checkpoint has a variable {name}, which no ELECTRA network has", _GIVE)
    if generator:
        for name, tensor in discriminator.items():
            if name.startswith("electra.embeddings."):
                generator.setdefault(name, tensor.clone())
        generator["generator_lm_head.weight"] = generator["electra.embeddings.word_embeddings.weight"]
    return discriminator, generator


def is_state(name: str) -> bool:
    """Whether a variable is the optimiser's: two thirds of a checkpoint."""
    return _SKIPPED.search(name) is not None


def networks(
    arrays: Mapping[str, np.ndarray], special_ids: Mapping[str, int], weights: Path, heads: int | None = None
) -> dict[str, PreTrainedModel]:
    """"discriminator" (`ElectraForPreTraining`; without a head in the checkpoint `ElectraModel`) and, where the checkpoint has one, "generator"
    (`ElectraForMaskedLM`), in evaluation mode, each with all of its weights.

    Args:
        special_ids: of the tokenizer: pad, cls, sep.
        weights: the file that the arrays are from.
        heads: of the discriminator; None: heads of 64, as the official code has them. The generator's are of the same size.

    Raises:
        BadInput: as `from_tf1`; or weights are missing, left over or of another shape.
    """
    main, generator = from_tf1(arrays)
    width = _sizes(main, weights)["hidden_size"]
    if width % (heads or HEAD_SIZE):
        why = f"which is no number of heads of {HEAD_SIZE}" if heads is None else f"which {heads} heads do not divide"
        raise BadInput(f"has a width of {width}, {why}.", "Give the number of heads of its discriminator (--heads).", file=weights)
    head_size = width // heads if heads else HEAD_SIZE
    has_head = any(name.startswith("discriminator_predictions.") for name in main)
    found = {"discriminator": _network(ElectraForPreTraining if has_head else ElectraModel, main, head_size, special_ids, weights)}
    if generator:
        found["generator"] = _network(ElectraForMaskedLM, generator, head_size, special_ids, weights)
    return found


def _network(kind: Any, state: Mapping[str, Tensor], head_size: int, special_ids: Mapping[str, int], weights: Path) -> PreTrainedModel:
    sizes = _sizes(state, weights)
    shape: Any = encoder_config("electra", num_heads=max(1, sizes["hidden_size"] // head_size), dropout=0.1, special_ids=special_ids, **sizes)
    if kind is ElectraModel:
        state = {name.removeprefix("electra."): value for name, value in state.items()}
    found: PreTrainedModel = filled(lambda: kind(shape), state, weights)
    return found


def _sizes(state: Mapping[str, Tensor], weights: Path) -> dict[str, int]:
    """The sizes of a network, from the shapes of its weights."""
    parts = {"word": "embeddings.word_embeddings", "position": "embeddings.position_embeddings", "query": "encoder.layer.0.attention.self.query",
             "up": "encoder.layer.0.intermediate.dense"}  # fmt: skip
    shapes = {part: tuple(state[name].shape) if (name := f"electra.{place}.weight") in state else () for part, place in parts.items()}
    if any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
        part = next(part for part, shape in shapes.items() if len(shape) != 2 or 0 in shape)
        raise BadInput(f"has no matrix {parts[part].replace('.', '/')}.", _GIVE, file=weights)
    return {
        "vocab_size": shapes["word"][0],
        "embedding_size": shapes["word"][1],
        "max_length": shapes["position"][0],
        "hidden_size": shapes["query"][0],
        "intermediate_size": shapes["up"][0],
        "num_layers": count_layers(state, "electra.encoder.layer.", weights),
    }


def to_tf1(discriminator: Mapping[str, Tensor], generator: Mapping[str, Tensor] | None = None) -> dict[str, np.ndarray]:
    """The inverse of `from_tf1`: the variables of one checkpoint. The generator's embeddings are left out where they equal the discriminator's."""
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in discriminator.items():
        arrays[_tf1_name(name, "electra")] = _to_array(name, tensor)
    for name, tensor in (generator or {}).items():
        if name == "generator_lm_head.weight":
            continue
        shared = name.startswith("electra.embeddings.") and name in discriminator
        if shared and discriminator[name].shape == tensor.shape and torch.equal(discriminator[name].cpu(), tensor.cpu()):
            continue
        tf1 = "generator_predictions/output_bias" if name == "generator_lm_head.bias" else _tf1_name(name, "generator")
        arrays[tf1] = _to_array(name, tensor)
    return arrays


def _encoder_name(tf1: str) -> str:
    """electra/encoder/layer_3/output/dense/kernel -> encoder.layer.3.output.dense.weight"""
    parts = re.sub(r"/layer_(\d+)/", r"/layer/\1/", tf1).split("/")[1:]
    if parts[-1] in _TABLES:
        return ".".join([*parts, "weight"])
    if parts[-1] not in _SUFFIXES:
        raise BadInput(f"the checkpoint has a variable {tf1}, which no ELECTRA network has", _GIVE)
    return ".".join([*parts[:-1], _SUFFIXES[parts[-1]]])


def _head_name(tf1: str) -> str:
    scope, _, suffix = tf1.rpartition("/")
    if scope not in _HEADS or suffix not in _SUFFIXES:
        raise BadInput(f"the checkpoint has a variable {tf1}, which no ELECTRA network has", _GIVE)
    return f"{_HEADS[scope]}.{_SUFFIXES[suffix]}"


def _tf1_name(name: str, scope: str) -> str:
    module, _, kind = name.rpartition(".")
    for tf1, ours in _HEADS.items():
        if module == ours:
            return f"{tf1}/{_suffix(module, kind)}"
    module = re.sub(r"\.layer\.(\d+)\.", r".layer_\1.", module.removeprefix("electra.") + ".").rstrip(".")
    path = f"{scope}/{module.replace('.', '/')}"
    return path if path.endswith(_TABLES) else f"{path}/{_suffix(module, kind)}"


def _suffix(module: str, kind: str) -> str:
    return _TF1_SUFFIX["LayerNorm" if module.endswith("LayerNorm") else "dense", kind]


def _from_array(tf1: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise BadInput(f"the checkpoint's variable {tf1} is of {array.dtype}, not of floating-point numbers", _GIVE)
    return torch.from_numpy(np.array(array.T if tf1.endswith("/kernel") else array, dtype=np.float32, order="C"))


def _to_array(name: str, tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu().numpy()
    is_kernel = name.endswith(".weight") and "embeddings." not in name and "LayerNorm" not in name
    return np.ascontiguousarray(array.T if is_kernel else array)
