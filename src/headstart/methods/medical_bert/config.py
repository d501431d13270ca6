"""Settings and presets of medical_bert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headstart import catalog
from headstart.core.bounds import COUNT, COUNT_FROM_0, SEED, SHARE, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_masks, check_network
from headstart.methods.medical_bert.shards import SMALLEST_BYTES

Composition = Literal["balanced", "union", "small", "large"]
BOUNDS = {
    "mask_ratio": Bounds(0, 1, "Give a share between 0 and 1; BERT: 0.15.", above=True, below=True),
    "most_masked": COUNT,
    "causal_start": COUNT_FROM_0,
    "small_shards": COUNT,
    "large_shards": COUNT,
    "shard_bytes": Bounds(SMALLEST_BYTES, 1 << 40, "Give at least 1,000 bytes; the paper's sample: 100,000."),
    "training_files": COUNT,
    "duplicates": COUNT,
    "short_share": SHARE,
    "example_seed": SEED,
}


@dataclass
class MedicalBertConfig:
    """How two corpora become training files, what is masked, and the size of the BERT. The small corpus is the first entry of --data."""

    composition: Composition = "balanced"
    """What a training file holds. balanced: as many shards of the small corpus as of the others, so that it is repeated (the paper); union: all
    documents once (its ablation); small, large: all documents of that corpus alone. One entry of --data: all its documents."""
    small_shards: int | None = None
    """Shards of the small corpus in a training file. None: 5 as in the paper's sample, or as many as the smaller number of shards there is."""
    large_shards: int | None = None
    """Shards of the others in a training file. None: as many as of the small corpus."""
    shard_bytes: int | None = None
    """Text of a shard, about: documents are kept whole. None: 100,000 as in the paper's sample, or as much as the small corpus has."""
    training_files: int | None = None
    """Training files that are made, each with pairs of its own. None: as many as it takes for every document of the larger corpus to come once."""
    duplicates: int = 1
    """How often each document of a training file is made into pairs (dupe_factor)."""
    short_share: float = 0.1
    """Share of the documents whose pairs aim at a random shorter length. BERT: 0.1."""
    example_seed: int = 12
    """Decides shards, training files and pairs."""
    next_sentence: bool = True
    """Learn whether the second segment follows the first in its document. Without it, it always does."""
    mask_ratio: float = 0.15
    """Share of the tokens of a row that are predicted. BERT: 0.15."""
    mask_unit: Literal["token", "whole-word", "span"] = "token"
    """What is masked together. The paper: token."""
    mask_share: float = 0.8
    """Share of the chosen tokens that become [MASK]. BERT: 0.8."""
    random_share: float = 0.1
    """Share of them that become a random token of the vocabulary; the rest stays as it is. BERT: 0.1."""
    most_masked: int | None = None
    """Tokens of a row that are predicted at most; None: no limit. The paper: 20 for rows of 128, 80 for rows of 512."""
    causal_start: int = 0
    """Steps of causal language modelling before masking begins, at most a third of the run; none when continuing with --init. The paper: none."""
    hidden_size: int = 128
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads."""
    intermediate_size: int = 512
    """Width of the MLP."""
    sequence_length: int = 64
    """Tokens of a training row."""
    dropout: float = 0.0
    """BERT: 0.1. A pass over fresh text needs none."""

    architecture = "bert"  # no other has segments and a pooler in all its forms

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        self.check_own()
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, self.dropout, self.sequence_length)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside(self, BOUNDS, "method.")
        check_masks(self.mask_share, self.random_share)
        if self.sequence_length < 8:
            raise UsageError(f"--method.sequence-length is {self.sequence_length}: two segments need more.", "Give at least 8.")


_BERT_BASE: dict[str, Any] = {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": 3072, "dropout": 0.1}
_LAMB = {"name": "lamb", "epsilon": 1e-6}
_DATA: dict[str, Any] = {"vocab_size": 32_000, "vocabulary": "amplified", "sentence_split": "rules"}


def _schedule(warmup_share: float) -> dict[str, Any]:
    return {"name": "lamb-poly", "warmup_share": warmup_share, "power": 0.5}


PRESETS: dict[str, Preset] = {
    "tiny": Preset(  # ours
        MedicalBertConfig(causal_start=300),
        batch=32,
        optimizer={"learning_rate": 2e-3},
        schedule={"name": "linear", "warmup_share": 0.1},
        data={**_DATA, "vocab_size": 4000},
    ),
    "base": Preset(  # ouBioBERT, phase 1; rates and warm-up are those of NVIDIA's engine, "almost the same" as the paper's (README)
        MedicalBertConfig(**_BERT_BASE, sequence_length=128, most_masked=20),
        batch=65_536,
        optimizer={**_LAMB, "learning_rate": 6e-3},
        schedule=_schedule(0.2843),
        data=_DATA,
        steps=7_038,
    ),
    "base-512": Preset(  # its phase 2, which continues phase 1 with --init
        MedicalBertConfig(**_BERT_BASE, sequence_length=512, most_masked=80),
        batch=32_768,
        optimizer={**_LAMB, "learning_rate": 4e-3},
        schedule=_schedule(0.128),
        data=_DATA,
        steps=1_563,
    ),
    "base-small-corpus": Preset(  # BERT (sP+B+enW); the paper does not give its rate: that of phase 1
        MedicalBertConfig(**_BERT_BASE, sequence_length=128, most_masked=20),
        batch=2_048,
        optimizer={**_LAMB, "learning_rate": 6e-3},
        schedule=_schedule(0.2843),
        data=_DATA,
        steps=125_000,
    ),
}

SETTINGS = Settings(catalog.card("medical_bert"), MedicalBertConfig, PRESETS)
