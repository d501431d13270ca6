"""ELECTRA checkpoints of google-research/electra (TensorFlow 1 names) to transformers' names and back, as dictionaries of arrays.

One TF1 checkpoint holds both networks; transformers keeps them in two folders, each with its own copy of the shared embeddings. Kernels are
[in, out] in TensorFlow and [out, in] in torch. transformers 5 has no TensorFlow loader of its own. To read a checkpoint file into a dictionary,
any TensorFlow will do: `{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}` with `tf.train.load_checkpoint(path)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import BadInput

_GIVE = "Give the arrays of a google-research/electra checkpoint."
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
