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
from headstart.interop.masks import write_masks
from headstart.interop.model_folder import MAX_LAYERS, refuse_unexplained
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
    weights, masks = finalise(read_checkpoint(path))
    named = to_gpt2(weights)
    needed = ("transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.mlp.c_fc.weight")
    for name in needed:
        if name not in named:
            raise BadInput(f"has nothing that becomes {name}.", "Only GPT-2 and GPT-3 networks with learned positions are read.", file=path)
    n_layers = 1 + max(int(name.split(".")[2]) for name in named if name.startswith("transformer.h."))
    if n_layers > MAX_LAYERS or any(named[name].ndim != 2 for name in needed):
        raise BadInput(f"has {n_layers:,} layers, or no matrices of a GPT-2", "Copy the checkpoint again.", file=path)
    vocabulary, width = named["transformer.wte.weight"].shape
    tied = "lm_head.weight" not in named or torch.equal(named["lm_head.weight"], named["transformer.wte.weight"])
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_positions=len(named["transformer.wpe.weight"]),
        n_layer=n_layers,
        n_head=num_heads,
        n_inner=named["transformer.h.0.mlp.c_fc.weight"].shape[1],
        activation_function=activation,
        tie_word_embeddings=tied,
    )
    refuse_unexplained(lambda: GPT2LMHeadModel(config), path, path)
    model = GPT2LMHeadModel(config)
    missing, _ = model.load_state_dict({name: value.float() for name, value in named.items()}, strict=False)
    missing = [name for name in missing if not (tied and name == "lm_head.weight")]
    if missing:
        raise BadInput(f"lacks {len(missing)} weights, for example {missing[0]}: they would start random.", "Copy the checkpoint again.", file=path)
    model.tie_weights()
    save_model_folder(model, tokenizer, folder)
    kept = to_gpt2(with_whole_parts(masks, weights))
    if kept:
        write_masks(folder, kept)
    return {name: float((~mask).float().mean()) for name, mask in kept.items()}


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
