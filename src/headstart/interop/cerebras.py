"""Checkpoints of Cerebras' modelzoo (GPT-2, GPT-3, sparse ones too) as a transformers folder.

    import_cerebras("checkpoint_4778.mdl", "gpt2-small-75", num_heads=12, tokenizer="gpt2-tokenizer/")

- Names are those of format 1.7 and later (tools/checkpoint_converters/gpt2_hf_cs.py): q, k and v are three matrices [out, in], which transformers
  holds as one [in, 3 out].
- Sparse ones of release 1.8 mark pruned weights, and their moments, as NaN in place (common/pytorch/sparsity/finalizer.py); later ones carry a mask
  `NAME_mask` beside each weight. `finalise` makes zeros and masks of either. A network that is loaded without it is NaN everywhere after one step.
- Facts alone are from there; no code of it is here. Files are read without running a pickle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.core.errors import BadInput
from headstart.data.text.tokenizer import special_ids
from headstart.interop.masks import write_masks
from headstart.interop.model_folder import count_layers, filled
from headstart.interop.transformers_io import save_model_folder
from headstart.interop.vit import read_state

_LAYER = re.compile(r"transformer_decoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")
_OUTSIDE = {
    "embedding_layer.word_embeddings.weight": "transformer.wte.weight",
    "embedding_layer.position_embeddings.weight": "transformer.wpe.weight",
    "transformer_decoder.norm.weight": "transformer.ln_f.weight",
    "transformer_decoder.norm.bias": "transformer.ln_f.bias",
    "lm_head.weight": "lm_head.weight",
}
_INSIDE = {
    "norm1": "ln_1", "norm3": "ln_2", "self_attn.proj_output_dense_layer": "attn.c_proj", "ffn.ffn.0.linear_layer": "mlp.c_fc",
    "ffn.ffn.1.linear_layer": "mlp.c_proj",
}  # fmt: skip
_FUSED = tuple(f"self_attn.proj_{part}_dense_layer" for part in "qkv")
MASK = "_mask"


def finalise(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights with true zeros, name -> mask of each sparse one, True where it is kept), of a state that marks pruned weights as NaN, or carries
    `NAME_mask` tensors; of a dense one the weights as they are, and no mask."""
    weights, masks = {}, {}
    for name, tensor in state.items():
        if name.endswith(MASK) and name.removesuffix(MASK) in state:
            continue
        kept = torch.ones_like(tensor, dtype=torch.bool)
        if tensor.is_floating_point():
            kept &= ~tensor.isnan()
        if (beside := state.get(name + MASK)) is not None:
            kept &= beside.bool()
        weights[name] = tensor if bool(kept.all()) else torch.where(kept, tensor, torch.zeros((), dtype=tensor.dtype))
        if not bool(kept.all()) or beside is not None:
            masks[name] = kept
    return weights, masks


def to_gpt2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights (or masks) under the names and in the layouts of transformers' GPT2LMHeadModel.

    Raises:
        BadInput: one has no place there.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        match = _LAYER.search(name)
        outside = next((theirs for theirs in _OUTSIDE if name == theirs or name.endswith(f".{theirs}")), None)
        if match is None and outside is not None:
            found[_OUTSIDE[outside]] = tensor
        elif match is not None and match[2] in _FUSED:
            parts.setdefault(f"transformer.h.{match[1]}.attn.c_attn.{match[3]}", {})[_FUSED.index(match[2])] = tensor
        elif match is not None and match[2] in _INSIDE:
            found[f"transformer.h.{match[1]}.{_INSIDE[match[2]]}.{match[3]}"] = tensor.T if tensor.ndim == 2 else tensor
        elif not name.endswith(("ln_f.weight", "ln_f.bias")):  # format 1.7 holds the final norm twice
            raise BadInput(f"holds {name}, which no GPT-2 has.", "Only GPT-2 and GPT-3 networks with learned positions are read.")
    for name, of_one in parts.items():
        if len(of_one) != 3:
            raise BadInput(f"lacks a part of {name}: it has {len(of_one)} of q, k and v.", "Copy the checkpoint again.")
        fused = torch.cat([of_one[i] for i in range(3)])  # [3 out, in]
        found[name] = fused.T if fused.ndim == 2 else fused
    return found


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The model's tensors of a checkpoint file: torch's format, without its pickled objects, or safetensors.

    Raises:
        BadInput: it is neither.
    """
    try:
        state = read_state(path) if path.is_file() else {}
    except BadInput as error:
        mend = "Checkpoints in Cerebras' HDF5 form are first saved with torch.save(cstorch.load(FILE), OTHER)."
        raise BadInput(error.reason, mend, file=path) from None
    if not state:
        raise BadInput("holds no tensors of a model.", "Give the checkpoint file itself.", file=path)
    return state


def import_cerebras(path: str | Path, folder: str | Path, *, num_heads: int, tokenizer: Any, activation: str = "gelu") -> dict[str, float]:
    """Writes a transformers folder, with masks.safetensors where the checkpoint is sparse.

    Args:
        num_heads: of attention: the weights do not say it.
        tokenizer: a fast tokenizer of transformers or tokenizers.
        activation: Cerebras' GPTs have the exact GELU, OpenAI's GPT-2 "gelu_new".

    Returns:
        name -> share of zeros of each sparse weight.

    Raises:
        BadInput: the file is no such checkpoint, or weights are missing.
    """
    path, folder = Path(path), Path(folder)
    model, masks = network(read_checkpoint(path), path, num_heads, activation)
    end_texts(model, tokenizer)
    save_model_folder(model, tokenizer, folder)
    if masks:
        write_masks(folder, masks)
    return {name: float((~mask).float().mean()) for name, mask in masks.items()}


def network(state: Mapping[str, Tensor], path: Path, num_heads: int, activation: str = "gelu") -> tuple[GPT2LMHeadModel, dict[str, Tensor]]:
    """(the network in evaluation mode, name -> mask of each sparse weight, True where it is kept) of a checkpoint's tensors; as `import_cerebras`."""
    weights, masks = finalise(state)
    named = to_gpt2(weights)
    needed = ("transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.mlp.c_fc.weight")
    for name in needed:
        if name not in named:
            raise BadInput(f"has nothing that becomes {name}.", "Only GPT-2 and GPT-3 networks with learned positions are read.", file=path)
    n_layers = count_layers(named, "transformer.h.", path)
    if any(named[name].ndim != 2 for name in needed):
        raise BadInput("has no matrices of a GPT-2.", "Copy the checkpoint again.", file=path)
    vocabulary, width = named["transformer.wte.weight"].shape
    if width % num_heads:
        raise BadInput(f"has a width of {width}, which {num_heads} heads do not divide.", "Give its own number of heads.", file=path)
    named.setdefault("lm_head.weight", named["transformer.wte.weight"])
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_positions=len(named["transformer.wpe.weight"]),
        n_layer=n_layers,
        n_head=num_heads,
        n_inner=named["transformer.h.0.mlp.c_fc.weight"].shape[1],
        activation_function=activation,
        bos_token_id=None,  # the tokenizer's
        eos_token_id=None,
        tie_word_embeddings=torch.equal(named["lm_head.weight"], named["transformer.wte.weight"]),
    )
    return filled(lambda: GPT2LMHeadModel(config), named, path), to_gpt2(with_whole_parts(masks, weights))


def end_texts(model: GPT2LMHeadModel, tokenizer: Any) -> None:
    """Tells a network the tokens that begin and end a text, as its tokenizer has them: GPT-2's configuration says 50256 for any vocabulary."""
    ids = special_ids(getattr(tokenizer, "backend_tokenizer", tokenizer))
    for settings in (model.config, model.generation_config):
        for name in ("bos", "eos"):
            setattr(settings, f"{name}_token_id", ids.get(name))


def with_whole_parts(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of q, k and v where one of the three is sparse: the others' are whole."""
    found = dict(masks)
    for name in masks:
        for part in _FUSED:
            if part in name:
                for other in _FUSED:
                    beside = name.replace(part, other)
                    if beside in weights:
                        found.setdefault(beside, torch.ones_like(weights[beside], dtype=torch.bool))
    return found
