"""A small network inside a larger one that computes the same: to compare the sharpness of networks of different sizes in one space.

A trace depends on the width. So the small model is embedded into the shape of the large one (Liuhong99/implicitbiasmlmcode pcfg/enlarge.py), with n
the ratio of their widths:

- embeddings of words, positions and token types: tiled n times along the width and divided by n; the norm after their sum undoes the division;
- norms: tiled; matrices: tiled n x n and divided by n; biases: tiled; the decoder: tiled along the width and divided by n, its bias copied;
- n times as many heads of the same size;
- layers that the small one lacks: all zero, so that a pre-norm residual network passes through them.

Exact for "roberta-prelayernorm" (`headstart.backbones.text`), whose embeddings end in a norm; not for a network without that norm, nor with other
heads.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headstart.core.errors import UsageError

KIND = "roberta-prelayernorm"
_LAYER = re.compile(r"\.layer\.(\d+)\.")


def enlarge(small: PreTrainedModel, config: Any) -> PreTrainedModel:
    """A network of the larger configuration that computes what the small one does, in the small one's precision.

    Args:
        small: a ForMaskedLM of kind roberta-prelayernorm.
        config: of the larger one; widths, heads and feed-forward are the same whole multiple of the small one's, and it has at least as many layers.

    Raises:
        UsageError: the two do not fit; says where.
    """
    own = small.config
    for name, model_type in (("the model", own.model_type), ("the larger one", config.model_type)):
        if model_type != KIND:
            raise UsageError(f"{name.capitalize()} is of kind {model_type}.", f"Only {KIND} is embedded exactly: --method.architecture {KIND}.")
    n, rest = divmod(config.hidden_size, own.hidden_size)
    wanted = {"num_attention_heads": n * own.num_attention_heads, "intermediate_size": n * own.intermediate_size}
    same = {name: getattr(own, name) for name in ("vocab_size", "type_vocab_size", "pad_token_id", "layer_norm_eps", "hidden_act")}
    if rest or n < 1:
        raise UsageError(f"A width of {config.hidden_size} is no multiple of {own.hidden_size}.", "Give a larger network of a multiple of its width.")
    for name, value in {**wanted, **same}.items():
        if getattr(config, name) != value:
            raise UsageError(f"The larger network has {name} {getattr(config, name)}, not {value}.", f"At {n} times the width it must.")
    if config.num_hidden_layers < own.num_hidden_layers or config.max_position_embeddings < own.max_position_embeddings:
        raise UsageError("The larger network has fewer layers or positions.", "Give one with at least as many.")
    network: Any = type(small)(config)
    large: PreTrainedModel = network.to(next(small.parameters()).dtype)
    if (was := own._attn_implementation) != config._attn_implementation:
        large.set_attn_implementation(was)
    given = dict(small.named_parameters())
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            layer = _LAYER.search(name)
            if layer and int(layer[1]) >= own.num_hidden_layers:
                parameter.zero_()
            else:
                parameter.copy_(enlarged(name, given[name], parameter, n))
    return large.train(small.training)


def enlarged(name: str, value: Tensor, into: nn.Parameter, n: int) -> Tensor:
    """One tensor in its larger shape."""
    if "embeddings" in name and value.ndim == 2:  # [rows, width]; the decoder is tied to the table of words
        tiled = value.repeat(1, n) / n
        if len(tiled) < len(into):  # more positions
            tiled = torch.cat([tiled, torch.zeros(len(into) - len(tiled), tiled.shape[1], dtype=value.dtype, device=value.device)])
        return tiled
    if name.endswith("decoder.weight"):
        return value.repeat(1, n) / n
    if value.ndim == 2:
        return value.repeat(n, n) / n
    return value if value.shape == into.shape else value.repeat(n)  # norms and biases; the bias of the decoder stays
