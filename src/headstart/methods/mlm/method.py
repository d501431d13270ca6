"""mlm: masked language modelling (Devlin et al. 2019, BERT, arXiv 1810.04805), the baseline for encoders.

- Units to mask: single tokens, whole words (BERT's later release) or spans (SpanBERT, arXiv 1907.10529). The 80/10/10 rule can be off.
- `causal_start`: the first steps train the same encoder as a causal language model, whose every token is a target. With few minutes it is worth more
  than anything else: the encoder leaves the unigram plateau at once (docs/plateau.md). The presets tiny have it; the paper does not.
"""

from __future__ import annotations

from pathlib import Path

from headstart.data.text.store import TextStore
from headstart.engine.masked_method import MaskedMethod
from headstart.methods.mlm.config import SETTINGS, MLMConfig


class MLM(MaskedMethod):
    """An encoder that predicts the tokens hidden from it."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets

    config: MLMConfig

    def __init__(self, config: MLMConfig, store: TextStore, init: Path | None = None) -> None:
        config.check()
        super().__init__(config, store, init, config.random_from)


METHOD = MLM
