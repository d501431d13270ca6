"""Settings and presets of causal-lm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_network


@dataclass
class CausalLMConfig:
    """Size and shape of the decoder."""

    architecture: Literal["llama", "gpt2"] = "llama"
    """llama: rotary positions, RMSNorm, gated MLP; gpt2: learned positions, LayerNorm, GELU."""
    hidden_size: int = 128
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads."""
    intermediate_size: int = 384
    """Width of the MLP (llama: of each of its two gates)."""
    sequence_length: int = 64
    """Tokens of a training row."""
    dropout: float = 0.0
    """GPT-2 only; the paper: 0.1. A pass over fresh text needs none."""
    tie_embeddings: bool = True
    """One table for input and output."""
    packing: Literal["documents", "stream"] = "documents"
    """documents: whole ones fitted into rows, each between begin and end of text; stream: all joined, an end of text after each, cut where a row is
    full: every row is full and every token is predicted once (what the papers on continuing do)."""

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, self.dropout, self.sequence_length)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        CausalLMConfig(),
        batch=32,
        optimizer={"learning_rate": 4e-3, "weight_decay": 0.01, "beta2": 0.99},
        schedule={"name": "linear", "warmup_share": 0.06},
        data={"vocab_size": 2048},
    ),
    "small": Preset(
        CausalLMConfig(hidden_size=512, num_layers=8, num_heads=8, intermediate_size=1408, sequence_length=512),
        batch=128,
        optimizer={"learning_rate": 6e-4, "weight_decay": 0.1, "beta2": 0.95},
        schedule={"name": "cosine", "warmup_share": 0.02, "minimum_share": 0.1},
        data={"vocab_size": 16384, "tokenizer_kind": "bpe", "lowercase": False},
    ),
    "base": Preset(  # GPT-2 124M, with the optimiser of GPT-3 125M (Brown et al. 2020, table 2.1)
        CausalLMConfig("gpt2", hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, sequence_length=1024),
        batch=512,
        optimizer={"learning_rate": 6e-4, "weight_decay": 0.1, "beta2": 0.95},
        schedule={"name": "cosine", "warmup_share": 0.01, "minimum_share": 0.1},
        data={"vocab_size": 50257, "tokenizer_kind": "bpe", "lowercase": False},
    ),
}

SETTINGS = Settings(catalog.card("causal-lm"), CausalLMConfig, PRESETS)
