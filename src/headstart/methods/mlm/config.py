"""Settings and presets of mlm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.core.bounds import COUNT, COUNT_FROM_0, Bounds, refuse_outside
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_masks, check_network

BOUNDS = {
    "mask_ratio": Bounds(0, 1, "Give a share between 0 and 1; BERT: 0.15.", above=True, below=True),
    "most_masked": COUNT,
    "causal_start": COUNT_FROM_0,
}


@dataclass
class MLMConfig:
    """Size of the encoder and what is masked."""

    architecture: Literal["modernbert", "bert", "electra", "roberta", "roberta-prelayernorm"] = "modernbert"
    """modernbert: rotary positions, pre-norm, gated MLP; bert: learned positions, post-norm, as in the paper; roberta-prelayernorm: BERT with a norm
    before each part and after the last."""
    hidden_size: int = 128
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads."""
    intermediate_size: int = 256
    """Width of the MLP (modernbert: of each of its two gates)."""
    sequence_length: int = 64
    """Tokens of a training row."""
    dropout: float = 0.0
    """BERT: 0.1. A pass over fresh text needs none."""
    mask_ratio: float = 0.15
    """Share of the tokens of a row that are predicted. BERT: 0.15."""
    mask_unit: Literal["token", "whole-word", "span"] = "token"
    """What is masked together."""
    mask_share: float = 0.8
    """Share of the chosen tokens that become [MASK]. BERT: 0.8; 1 turns the 80/10/10 rule off."""
    random_share: float = 0.1
    """Share of the chosen tokens that become a random token. BERT: 0.1; the rest stays as it is."""
    random_from: Literal["vocabulary", "words"] = "vocabulary"
    """Where random tokens come from. vocabulary: all of it, as BERT; words: no special token."""
    most_masked: int | None = None
    """Tokens of a row that are predicted at most; None: no limit."""
    packing: Literal["documents", "single"] = "documents"
    """documents: rows are filled with several whole documents; single: one document a row, the rest padding."""
    causal_start: int = 0
    """Steps of causal language modelling before masking begins, at most a third of the run; none when continuing with --init. BERT: none."""

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        self.check_own()
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, self.dropout, self.sequence_length)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside(self, BOUNDS, "method.")
        check_masks(self.mask_share, self.random_share)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        MLMConfig(mask_ratio=0.25, causal_start=300),
        batch=32,
        optimizer={"learning_rate": 4e-3, "beta2": 0.99},
        schedule={"name": "linear", "warmup_share": 0.06},
        data={"vocab_size": 2048},
    ),
    "small": Preset(
        MLMConfig("bert", hidden_size=512, num_layers=4, num_heads=8, intermediate_size=2048, sequence_length=128, dropout=0.1),
        batch=256,
        optimizer={"name": "adam-uncorrected", "learning_rate": 5e-4, "epsilon": 1e-6},
        schedule={"name": "electra", "warmup_steps": 10_000},
        data={"vocab_size": 30522},
    ),
    "base": Preset(  # BERT-base, google-research/bert run_pretraining.py: batch 256, 1e-4, 10,000 warm-up steps of 1,000,000
        MLMConfig("bert", hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, sequence_length=512, dropout=0.1),
        batch=256,
        optimizer={"name": "adam-uncorrected", "learning_rate": 1e-4, "epsilon": 1e-6},
        schedule={"name": "electra", "warmup_steps": 10_000},
        data={"vocab_size": 30522},
        steps=1_000_000,
    ),
}

SETTINGS = Settings(catalog.card("mlm"), MLMConfig, PRESETS)
