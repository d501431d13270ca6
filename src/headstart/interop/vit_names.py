"""Names of a vision transformer's weights: timm's (which MAE, DropPos and we use) and those of transformers' ViT, ViTMAE and DINOv2 folders.

transformers keeps queries, keys and values apart; timm's `qkv` is the three on top of each other, in that order. What transformers 5 holds in memory
(`layers.0.attention.q_proj`) is written to disk under the older names (`encoder.layer.0.attention.attention.query`): both are read, the older ones
written, which every version loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_pos_embed": "decoder_pos_embed",
    "decoder.decoder_embed": "decoder_embed",
    "decoder.decoder_norm": "decoder_norm",
    "decoder.decoder_pred": "decoder_pred",
}
_INSIDE = {  # of a block; the first name of each is written
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_ALSO = {"norm1": "norm1", "norm2": "norm2", "attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_SCALES = {"layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
_THIRDS = {"attention.attention.query": 0, "attention.attention.key": 1, "attention.attention.value": 2}
_ALSO_THIRDS = {"attention.q_proj": 0, "attention.k_proj": 1, "attention.v_proj": 2}
_BLOCK = re.compile(r"(?:(decoder)\.decoder_(?:layers|encoder\.layer)|encoder\.layers?|layers)\.(\d+)\.(.+)")
_PREFIX = re.compile(r"^(?:vit|dinov2)\.")


def is_transformers(names: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of transformers."""
    return any("embeddings.patch_embeddings.projection" in name for name in names)


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ViT, ViTMAE or DINOv2 folder under timm's names. Names that have no counterpart (pooler, classifier) stay as they are."""
    renamed: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor | None]] = {}
    for name, value in weights.items():
        name = _PREFIX.sub("", name)
        if match := _BLOCK.fullmatch(name):
            block = f"{'decoder_' if match[1] else ''}blocks.{match[2]}"
            if (scale := _SCALES.get(match[3])) is not None:
                renamed[f"{block}.{scale}"] = value
                continue
            part, kind = match[3].rsplit(".", 1)
            third = (_THIRDS | _ALSO_THIRDS).get(part)
            if third is None:
                renamed[f"{block}.{(_INSIDE | _ALSO).get(part, part)}.{kind}"] = value
            else:
                thirds.setdefault(f"{block}.attn.qkv.{kind}", [None, None, None])[third] = value
            continue
        part, _, kind = name.rpartition(".")
        if name in _OUTSIDE:
            renamed[_OUTSIDE[name]] = value
        elif part in _OUTSIDE:
            renamed[f"{_OUTSIDE[part]}.{kind}"] = value
        else:
            renamed[name] = value
    for name, parts in thirds.items():
        renamed[name] = torch.cat([part for part in parts if part is not None])  # one missing shows as a wrong shape
    return renamed


def to_transformers(weights: Mapping[str, Tensor], encoder_prefix: str = "") -> dict[str, Tensor]:
    """Weights under timm's names as a transformers folder holds them: ViTModel, or with the prefix "vit." and a decoder ViTMAEForPreTraining.

    Raises:
        KeyError: a name that transformers' classes have no place for.
    """
    outside = {timm: theirs for theirs, timm in _OUTSIDE.items()}
    inside = {timm: theirs for theirs, timm in _INSIDE.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(decoder_)?blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None:
            part, _, kind = name.rpartition(".")
            found = outside[name] if name in outside else f"{outside[part]}.{kind}"
            renamed[found if found.startswith("decoder.") else encoder_prefix + found] = value
            continue
        layer = f"decoder.decoder_layers.{match[2]}" if match[1] else f"{encoder_prefix}encoder.layer.{match[2]}"
        if match[3] == "attn.qkv":
            for third, rows in zip(_THIRDS, value.chunk(3), strict=True):
                renamed[f"{layer}.{third}.{match[4]}"] = rows.clone()
        else:
            renamed[f"{layer}.{inside[match[3]]}.{match[4]}"] = value
    return renamed


def fold_layer_scale(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without `ls1.gamma` and `ls2.gamma` (DINOv2, CaiT), which multiply what a branch gives: its last matrix takes them."""
    folded = {name: value for name, value in weights.items() if not name.endswith((".ls1.gamma", ".ls2.gamma"))}
    for name, gamma in weights.items():
        for scale, last in ((".ls1.gamma", ".attn.proj"), (".ls2.gamma", ".mlp.fc2")):
            if name.endswith(scale):
                matrix = name.removesuffix(scale) + last
                folded[f"{matrix}.weight"] = folded[f"{matrix}.weight"] * gamma[:, None]
                folded[f"{matrix}.bias"] = folded[f"{matrix}.bias"] * gamma
    return folded
