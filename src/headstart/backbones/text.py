"""Text encoders: transformers' own modules, built by name and run without the masks that they do not need.

- `build_encoder` / `build_masked_lm` give the plain transformers classes, so every export is theirs and parameter names are the field's.
- `encode` runs any of them. Full rows pass no mask at all (SDPA then takes its fastest kernel); padded rows pass a [batch, 1, 1, length] mask.
  Nothing here waits for the device: transformers itself asks `mask.all()`, a host sync that would also break a CUDA graph.
- `causal=True` lets a bidirectional encoder train as a causal language model first. Padding is on the right, so causality hides it: no mask.
- "roberta-prelayernorm" is BERT with pre-LayerNorm: a norm before attention and feed-forward, one after the embeddings, one at the end.
- "modernbert" is the rotary encoder of the `tiny` presets: pre-LayerNorm, gated feed-forward, global attention in every layer, no token types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
)

from headstart.backbones.attention import NAME, has_sdpa
from headstart.core.errors import BadInput

Architecture = Literal["bert", "electra", "modernbert", "roberta", "roberta-prelayernorm"]

_MASKED_LM: dict[str, type[PreTrainedModel]] = {
    "bert": BertForMaskedLM,
    "electra": ElectraForMaskedLM,
    "modernbert": ModernBertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "roberta-prelayernorm": RobertaPreLayerNormForMaskedLM,
}


def encoder_config(
    architecture: Architecture,
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_length: int,
    dropout: float,
    special_ids: Mapping[str, int],
    embedding_size: int | None = None,
) -> PreTrainedConfig:
    """The transformers configuration of an encoder.

    Args:
        max_length: rows of the position table; for the rotary "modernbert" only what the configuration says.
        dropout: on embeddings, attention probabilities and residual branches.
        special_ids: ids named "pad", "cls", "sep" (and "bos", "eos" if they differ from "cls", "sep").
        embedding_size: width of the word table, "electra" only; None is `hidden_size`.

    Raises:
        BadInput: `hidden_size` is no multiple of `num_heads`.
    """
    if hidden_size % num_heads:
        raise BadInput(f"a hidden size of {hidden_size} cannot be split over {num_heads} heads", "choose a multiple of the number of heads")
    begin, end = special_ids["cls"], special_ids["sep"]
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": intermediate_size,
        "pad_token_id": special_ids["pad"],
        "bos_token_id": special_ids.get("bos", begin),
        "eos_token_id": special_ids.get("eos", end),
        "attn_implementation": "sdpa",
    }
    if architecture == "modernbert":
        rope = {"rope_type": "default", "rope_theta": 10_000.0}  # ModernBERT's 160,000 is for rows of 8192
        return ModernBertConfig(
            **common,
            max_position_embeddings=max_length,
            cls_token_id=begin,
            sep_token_id=end,
            layer_types=["full_attention"] * num_layers,
            rope_parameters={"full_attention": rope, "sliding_attention": dict(rope)},
            embedding_dropout=dropout,
            attention_dropout=dropout,
            mlp_dropout=dropout,
        )
    common |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "layer_norm_eps": 1e-12}
    if architecture == "electra":
        return ElectraConfig(**common, embedding_size=embedding_size or hidden_size, max_position_embeddings=max_length)
    if architecture == "bert":
        return BertConfig(**common, max_position_embeddings=max_length)
    positions = max_length + special_ids["pad"] + 1  # they are counted from pad_token_id + 1
    if architecture == "roberta-prelayernorm":
        return RobertaPreLayerNormConfig(**common, max_position_embeddings=positions, type_vocab_size=2)
    return RobertaConfig(**common, max_position_embeddings=positions, type_vocab_size=1)


def build_masked_lm(architecture: Architecture, **settings: Any) -> PreTrainedModel:
    """An encoder with its masked-language-model head, output matrix tied to the word table; arguments as `encoder_config`."""
    return _MASKED_LM[architecture](encoder_config(architecture, **settings))


def build_encoder(architecture: Architecture, **settings: Any) -> PreTrainedModel:
    """The encoder alone, without pooler or head; arguments as `encoder_config`."""
    model: Any = build_masked_lm(architecture, **settings)
    return model.base_model


def build_llama(
    *,
    vocab_size: int,
    special_ids: Mapping[str, int],
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_length: int,
    tie_embeddings: bool = True,
) -> LlamaForCausalLM:
    """A Llama with random weights and as many heads of keys and values as of queries.

    Args:
        special_ids: ids named "bos", "eos" and "pad", of those that there are.
    """
    sizes: dict[str, Any] = {"hidden_size": hidden_size, "num_hidden_layers": num_layers, "intermediate_size": intermediate_size}
    sizes |= {"num_attention_heads": num_heads, "num_key_value_heads": num_heads, "max_position_embeddings": max_length}
    ends: dict[str, Any] = {f"{name}_token_id": special_ids.get(name) for name in ("bos", "eos", "pad")}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=tie_embeddings, **sizes, **ends))


def mlm_head(model: Any) -> tuple[Callable[[Tensor], Tensor], nn.Linear]:
    """The two parts of the head of a transformers ForMaskedLM: [..., hidden] -> [..., dim], and the output layer [..., dim] -> [..., vocab]."""
    if hasattr(model, "cls"):  # BERT
        return model.cls.predictions.transform, model.cls.predictions.decoder
    if hasattr(model, "generator_predictions"):  # ELECTRA
        return model.generator_predictions, model.generator_lm_head
    if hasattr(model, "lm_head"):  # RoBERTa
        head = model.lm_head
        return (lambda hidden: head.layer_norm(F.gelu(head.dense(hidden)))), head.decoder
    if hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        return model.head, model.decoder
    raise BadInput(f"{type(model).__name__} has no masked-language-model head known here", "use a BERT, ELECTRA, RoBERTa or ModernBERT model")


def mlm_logits(model: Any, hidden: Tensor) -> Tensor:
    """[..., hidden] -> [..., vocab] through the head of a transformers ForMaskedLM: give it gathered positions, not whole rows."""
    before, output = mlm_head(model)
    return output(before(hidden))


def word_embeddings(model: Any) -> nn.Embedding:
    """The word table of any transformers text model."""
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


def encode(model: PreTrainedModel, batch: Mapping[str, Tensor], causal: bool = False) -> Tensor:
    """[batch, length, hidden]: the last hidden states of a transformers base encoder.

    Args:
        batch: `input_ids` int64 [batch, length]; `attention_mask` (right-padded) and `token_type_ids` where they say something. Token types are
            left out for encoders that have none.
        causal: no position sees a later one.

    Raises:
        BadInput: causal use of an encoder without SDPA attention.
    """
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
    if "token_type_ids" in batch and getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = batch["token_type_ids"]
    if not has_sdpa(model):
        if causal:
            raise BadInput(f"{type(model).__name__} has no SDPA attention, so it cannot run causally", "leave out the causal start")
        return model(**inputs, attention_mask=batch.get("attention_mask")).last_hidden_state

    padding = None if causal else batch.get("attention_mask")
    mask = None if padding is None else padding[:, None, None, :].to(torch.bool)
    layer_types = getattr(model.config, "layer_types", None)
    if layer_types is None:
        inputs["attention_mask"] = mask
    else:  # ModernBERT takes one mask a kind of layer
        sliding = _sliding_mask(model.config, batch["input_ids"], mask, causal) if "sliding_attention" in layer_types else None
        inputs["attention_mask"] = {"full_attention": mask, "sliding_attention": sliding}
    if causal:
        inputs["is_causal"] = True  # reaches scaled_dot_product_attention, which honours it where no mask is given
    return model(**inputs).last_hidden_state


_DECODERS = ("gpt2", "gpt_neox", "llama")
"""Those whose layers all see every earlier position, and whose mask goes to the attention alone."""


def decode(model: Any, **inputs: Tensor) -> Tensor:
    """[batch, length, hidden]: the last hidden states of a transformers base decoder. Padding stands on the right, where no position looks: no mask.

    Without one transformers reads back from the device whether rows are packed (`masking_utils.find_packed_sequence_indices`). Where it cannot,
    under torch.compile and in a CUDA graph, it makes a mask of every pair, with which SDPA has no fast kernel. A mask of four axes is passed on as
    it is, and one without entries is none to our attention.

    Args:
        inputs: `input_ids` int64 [batch, length], or `inputs_embeds` [batch, length, hidden].
    """
    if model.config.model_type in _DECODERS and model.config._attn_implementation == NAME:
        given = next(iter(inputs.values()))
        inputs["attention_mask"] = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=given.device)
    return model(**inputs, use_cache=False).last_hidden_state


def _sliding_mask(config: PreTrainedConfig, ids: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """bool [1 or batch, 1, length, length] of ModernBERT's local layers, or `mask` itself when the rows are shorter than the window."""
    length = ids.shape[1]
    if length <= config.sliding_window + 1:
        return mask
    place = torch.arange(length, device=ids.device)
    distance = place[:, None] - place[None, :]
    near = (distance.abs() <= config.sliding_window)[None, None]
    if causal:
        near = near & (distance >= 0)
    return near if mask is None else near & mask
