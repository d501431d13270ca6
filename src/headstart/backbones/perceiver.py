"""The Perceiver resampler: any number of image features -> a fixed number of tokens (Alayrac et al. 2022, Flamingo, arXiv 2204.14198, figure 5).

- Learned latents ask; image features *and the latents themselves* are keys and values.
- No positions are added: the patches' own are in their features, so their order does not matter here.
- No biases, norms apart. Parameter names are those of OpenFlamingo, whose weights load as they are; Idefics' by a key map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_STD = 0.02


@dataclass(frozen=True)
class ResamplerConfig:
    """Shape of a resampler.

    Attributes:
        dim: width of the image features, of the latents, and of the output.
        depth: blocks. latents: tokens that come out.
        heads, dim_head: of the attention; `heads * dim_head` need not be `dim`.
        activation: of the MLP; Idefics has relu.
    """

    dim: int
    depth: int = 3
    latents: int = 64
    heads: int = 16
    dim_head: int = 72
    activation: Literal["gelu", "relu"] = "gelu"


class PerceiverAttention(nn.Module):
    """z + Attn(q = LN(z), k = v = [LN(x); LN(z)]), without the sum."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.norm_media = nn.LayerNorm(config.dim)
        self.norm_latents = nn.LayerNorm(config.dim)
        self.to_q = nn.Linear(config.dim, inner, bias=False)
        self.to_kv = nn.Linear(config.dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.dim, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x: [n, patches, dim]; z: [n, latents, dim] -> [n, latents, dim]."""
        z = self.norm_latents(z)
        keys, values = self.to_kv(torch.cat([self.norm_media(x), z], dim=1)).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q(z), keys, values))  # [n, heads, tokens, dim_head]
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def feed_forward(config: ResamplerConfig) -> nn.Sequential:
    """W2 act(W1 LN(z)), four times as wide inside."""
    activation = nn.GELU() if config.activation == "gelu" else nn.ReLU()
    wide = 4 * config.dim
    return nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, wide, bias=False), activation, nn.Linear(wide, config.dim, bias=False))


class Block(nn.Sequential):
    """Attention ("0") and MLP ("1"), each added to the latents."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__(PerceiverAttention(config), feed_forward(config))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        attention, mlp = self
        z = z + attention(x, z)
        return z + mlp(z)


class PerceiverResampler(nn.Module):
    """[n, patches, dim] -> [n, latents, dim], whatever the number of patches and their order."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(LATENT_STD * torch.randn(config.latents, config.dim))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor) -> Tensor:
        z = self.latents.expand(len(x), -1, -1)
        for block in self.layers:
            z = block(x, z)
        return self.norm(z)


_FLAMINGO = re.compile(r"^(?:module\.)?(?:perceiver\.)?")
_IDEFICS = {
    "0.context_layer_norm": "0.norm_media", "0.latents_layer_norm": "0.norm_latents", "0.q_proj": "0.to_q", "0.output_proj": "0.to_out",
    "1.ln": "1.0", "1.fc": "1.1", "1.c_proj": "1.3",
}  # fmt: skip


def from_flamingo(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The resampler's weights out of an OpenFlamingo checkpoint ("perceiver.latents", "perceiver.layers.0.0.to_q.weight" ...); what lies beside it is
    left out, embeddings of frames and times too, which only video has."""
    named = any("perceiver." in name for name in state)
    found = {_FLAMINGO.sub("", name): value for name, value in state.items() if "perceiver." in name or not named}
    return {name: value for name, value in found.items() if name == "latents" or name.startswith(("layers.", "norm."))}


def from_idefics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The resampler's weights out of an Idefics model of transformers ("perceiver_resampler.blocks.0.0.q_proj.weight" ...). Its MLP has ReLU, and
    norms of queries and keys, if there are any, have no place here.

    Raises:
        ValueError: it has such norms.
    """
    found: dict[str, Tensor] = {}
    keys: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.rpartition("perceiver_resampler.")[2]
        if "q_layer_norm" in name or "k_layer_norm" in name:
            raise ValueError("norms of queries and keys have no place in this resampler")
        if name == "latents" or name.startswith("layer_norm."):
            found[name.replace("layer_norm.", "norm.")] = value
        elif match := re.fullmatch(r"blocks\.(\d+)\.(\d\.\w+)\.(weight|bias)", name):
            layer, inner, kind = match.groups()
            if inner in ("0.k_proj", "0.v_proj"):
                keys[f"{layer}.{inner}"] = value
            else:
                found[f"layers.{layer}.{_IDEFICS[inner]}.{kind}"] = value
    for layer in {name.partition(".")[0] for name in keys}:
        found[f"layers.{layer}.0.to_kv.weight"] = torch.cat([keys[f"{layer}.0.k_proj"], keys[f"{layer}.0.v_proj"]])
    return found
