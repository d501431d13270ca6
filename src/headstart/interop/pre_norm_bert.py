"""The pre-norm BERT of academic-budget-bert, which the official code of implicit_bias trains (Liuhong99/implicitbiasmlmcode): names, both ways.

Its layers are those of transformers' RobertaPreLayerNorm: a norm after the sum of the embeddings, one before attention, one before the feed-forward
part, one at the end, a head of a dense layer, GELU and a norm. What differs is names, and that positions are counted from 0: its row p is our row
p + pad + 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headstart.backbones.text import build_masked_lm
from headstart.core.errors import BadInput
from headstart.interop.model_folder import count_layers, filled

_BODY = "roberta_prelayernorm"
_PAIRS = (  # official, ours; {} is the number of a layer
    ("bert.embeddings.word_embeddings.weight", f"{_BODY}.embeddings.word_embeddings.weight"),
    ("bert.embeddings.position_embeddings.weight", f"{_BODY}.embeddings.position_embeddings.weight"),
    ("bert.embeddings.token_type_embeddings.weight", f"{_BODY}.embeddings.token_type_embeddings.weight"),
    ("bert.embeddings.LayerNorm.*", f"{_BODY}.embeddings.LayerNorm.*"),
    ("bert.encoder.layer.{}.PreAttentionLayerNorm.*", f"{_BODY}.encoder.layer.{{}}.attention.LayerNorm.*"),
    ("bert.encoder.layer.{}.attention.self.query.*", f"{_BODY}.encoder.layer.{{}}.attention.self.query.*"),
    ("bert.encoder.layer.{}.attention.self.key.*", f"{_BODY}.encoder.layer.{{}}.attention.self.key.*"),
    ("bert.encoder.layer.{}.attention.self.value.*", f"{_BODY}.encoder.layer.{{}}.attention.self.value.*"),
    ("bert.encoder.layer.{}.attention.output.dense.*", f"{_BODY}.encoder.layer.{{}}.attention.output.dense.*"),
    ("bert.encoder.layer.{}.PostAttentionLayerNorm.*", f"{_BODY}.encoder.layer.{{}}.intermediate.LayerNorm.*"),
    ("bert.encoder.layer.{}.intermediate.dense_act.*", f"{_BODY}.encoder.layer.{{}}.intermediate.dense.*"),
    ("bert.encoder.layer.{}.output.dense.*", f"{_BODY}.encoder.layer.{{}}.output.dense.*"),
    ("bert.encoder.FinalLayerNorm.*", f"{_BODY}.LayerNorm.*"),
    ("cls.predictions.transform.dense_act.*", "lm_head.dense.*"),
    ("cls.predictions.transform.LayerNorm.*", "lm_head.layer_norm.*"),
    ("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
    ("cls.predictions.bias", "lm_head.bias"),
)
_UNUSED = re.compile(r"^bert\.pooler\.|^cls\.seq_relationship\.|\.position_ids$")
POSITIONS = f"{_BODY}.embeddings.position_embeddings.weight"


def from_official(tensors: Mapping[str, Tensor], pad: int = 0) -> dict[str, Tensor]:
    """Their names -> those of RobertaPreLayerNormForMaskedLM; the pooler is left out, which neither loss nor probes use.

    Args:
        pad: the id of the padding token.

    Raises:
        BadInput: a tensor has another name.
    """
    found = _renamed({name: value for name, value in tensors.items() if not _UNUSED.search(name)}, _PAIRS)
    for name in (POSITIONS, "lm_head.bias"):
        if name not in found:
            raise BadInput(f"has nothing that becomes {name!r}.", "Give the weights of a pre-norm BERT with its MLM head.")
    table = found[POSITIONS]
    if table.ndim != 2:
        raise BadInput("has a table of positions that is no matrix.", "Copy the checkpoint again.")
    found[POSITIONS] = torch.cat([torch.zeros(pad + 1, table.shape[1], dtype=table.dtype), table])
    found["lm_head.decoder.bias"] = found["lm_head.bias"]
    return found


def network(tensors: Mapping[str, Tensor], special_ids: Mapping[str, int], num_heads: int, weights: Path) -> PreTrainedModel:
    """A `RobertaPreLayerNormForMaskedLM` in evaluation mode with all of these weights.

    Args:
        tensors: under the official names.
        special_ids: of the tokenizer: pad, cls, sep.
        num_heads: of attention: the weights do not say it.
        weights: the file that they are from.

    Raises:
        BadInput: weights are missing, left over or of another shape.
    """
    named = from_official(tensors, special_ids["pad"])
    parts = {"words": f"{_BODY}.embeddings.word_embeddings.weight", "up": f"{_BODY}.encoder.layer.0.intermediate.dense.weight"}
    for name in parts.values():
        if name not in named or named[name].ndim != 2:
            raise BadInput(f"has no matrix that becomes {name}.", "Copy the checkpoint again.", file=weights)
    vocabulary, width = named[parts["words"]].shape
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_layers": count_layers(named, f"{_BODY}.encoder.layer.", weights),
        "num_heads": num_heads,
        "intermediate_size": len(named[parts["up"]]),
        "max_length": len(named[POSITIONS]) - special_ids["pad"] - 1,
        "dropout": 0.1,
        "special_ids": special_ids,
    }
    return filled(lambda: build_masked_lm("roberta-prelayernorm", **shape), named, weights)


def to_official(tensors: Mapping[str, Tensor], pad: int = 0) -> dict[str, Tensor]:
    """The inverse; without a pooler."""
    kept = {name: value for name, value in tensors.items() if name != "lm_head.decoder.bias"}
    found = _renamed(kept, [(ours, theirs) for theirs, ours in _PAIRS])
    name = "bert.embeddings.position_embeddings.weight"
    found[name] = found[name][pad + 1 :]
    return found


def _renamed(tensors: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    rules = [(re.compile("^" + re.escape(one).replace(r"\{\}", r"(\d+)").replace(r"\*", "(weight|bias)") + "$"), other) for one, other in pairs]
    found = {}
    for name, value in tensors.items():
        for rule, other in rules:
            if match := rule.match(name):
                new = other
                for group in match.groups():
                    new = re.sub(r"\{\}|\*", group, new, count=1)
                found[new] = value
                break
        else:
            raise BadInput(f"has a tensor {name!r}, which this network does not have.", "Give the weights of a pre-norm BERT with its MLM head.")
    return found
