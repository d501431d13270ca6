"""Attention of transformers' models: SDPA, but on a CPU plain matrix products where those are faster.

- Short rows in bf16: torch's fused kernel does not use the bf16 matrix units (AMX) well in its backward pass. Forward and backward of one layer, 2 to
  12 heads of 64, one thread: 18 times as fast with 48 tokens a row, 5 times with 128, 3 times with 256, and slower from 512 on, where the scores no
  longer fit the cache (`python -m benchmarks.attention`). In fp32 the two are about equal, so SDPA stays.
- With dropout the fused kernel cannot be used at all, and what SDPA then does draws slowly (`headstart.backbones.dropout`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from headstart.backbones.dropout import dropout as drop

NAME = "headstart"
"""As transformers' registry of attention functions knows it; no export mentions it."""
MASKED = torch.finfo(torch.bfloat16).min
"""The score of a key that may not be seen. Not minus infinity: a padded position whose window holds only padding would become NaN."""
LONGEST_ROW = 256
"""Tokens up to which matrix products are the faster way."""


def use_fast_attention(network: nn.Module) -> None:
    """Lets the transformers models in a network that have SDPA attention choose the faster way for each batch. Outputs agree within the rounding of
    bf16, and exactly where nothing is gained."""
    for module in network.modules():
        if isinstance(module, PreTrainedModel) and module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(NAME)


def has_sdpa(model: PreTrainedModel) -> bool:
    """Whether the model takes `is_causal` and boolean masks [batch, 1, length, length]."""
    return model.config._attn_implementation in ("sdpa", NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """One layer's attention, with the signature of transformers' `AttentionInterface`.

    Args:
        query: [batch, heads, length, dim]; key, value: [batch, key heads, key length, dim].
        attention_mask: bool, or to be added, [batch or 1, heads or 1, length, key length]; None, or without entries (`text.decode`): causality
            alone.
        is_causal: None: as the module says.

    Returns:
        [batch, length, heads, dim], and no weights.
    """
    if attention_mask is not None and not attention_mask.numel():
        attention_mask = None
    if not _wins(query, key, dropout) or settings.get("position_bias") is not None or settings.get("softcap") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **settings
        )
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    causal = attention_mask is None and query.shape[2] > 1 and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    dtype = torch.bfloat16 if _in_bf16(query) else query.dtype
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    with torch.autocast("cpu", enabled=False):  # softmax in bf16 computes in fp32 inside; autocast would write its fp32 result out
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = torch.matmul(query * scale, key.transpose(-1, -2))  # [batch, heads, length, key length]
        if causal:
            scores = scores.masked_fill_(_later(query.shape[2], key.shape[2]), MASKED)
        elif attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill_(~attention_mask, MASKED)
        elif attention_mask is not None:
            scores = scores + attention_mask.to(dtype)
        weights = scores.softmax(-1)
        mixed = torch.matmul(drop(weights, dropout) if dropout else weights, value)
    return mixed.transpose(1, 2).contiguous(), None


def _wins(query: Tensor, key: Tensor, dropout: float) -> bool:
    """Whether matrix products are the faster way."""
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return (key.shape[2] <= LONGEST_ROW and _in_bf16(query)) or (0 < dropout < 1)


def _in_bf16(query: Tensor) -> bool:
    """Whether SDPA would compute in bf16 here."""
    return query.dtype == torch.bfloat16 or (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16)


@lru_cache(maxsize=16)
def _later(length: int, key_length: int) -> Tensor:
    """bool [length, key length]: the keys that come after each query."""
    return torch.ones(length, key_length, dtype=torch.bool).triu(1)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
