"""mlm: masked language modelling (Devlin et al. 2019, BERT, arXiv 1810.04805), the baseline for encoders.

- Units to mask: single tokens, whole words (BERT's later release) or spans (SpanBERT, arXiv 1907.10529). The 80/10/10 rule can be off.
- `causal_start`: the first steps train the same encoder as a causal language model, whose every token is a target. With few minutes it is worth more
  than anything else: the encoder leaves the unigram plateau at once (docs/plateau.md). The presets tiny have it; the paper does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.backbones.text import encode, mlm_head
from headstart.data.text.store import TextStore
from headstart.engine.masked_method import MaskedMethod, MaskRule
from headstart.engine.method import Batch, Context, Phase, Predictions
from headstart.methods.mlm.config import SETTINGS, MLMConfig
from headstart.objectives.projected_loss import next_token_loss


class MLM(MaskedMethod):
    """An encoder that predicts the tokens hidden from it."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets

    config: MLMConfig

    def __init__(self, config: MLMConfig, store: TextStore, init: Path | None = None) -> None:
        config.check()
        super().__init__(config, store, init, config.random_from)
        self.causal_start = config.causal_start if init is None else 0  # a trained encoder is off the plateau

    @classmethod
    def settings_of(cls, init: Path, config: MLMConfig) -> dict[str, Any]:
        return {**super().settings_of(init, config), "causal_start": 0}

    def rule(self, phase: str) -> MaskRule:
        config = self.config
        return MaskRule(config.mask_unit, config.mask_ratio, config.mask_share, config.random_share, config.most_masked)

    def predicted_per_row(self) -> float:
        return self.config.sequence_length * (1.0 if self.causal_start else self.config.mask_ratio)

    def phases(self, total_steps: int) -> list[Phase]:
        start = min(self.causal_start, total_steps // 3)
        return [Phase("causal", start), Phase("masked")] if start else [Phase("masked")]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """As of all masked models; in the phase "causal" over all tokens, from those before them."""
        return self.causal_loss(batch) if ctx.phase == "causal" else super().loss(batch, ctx)

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        return None if ctx.phase == "causal" else super().predictions(batch, ctx, one)

    def causal_loss(self, batch: Batch) -> dict[str, Tensor]:
        before, output = mlm_head(self.model)
        hidden = before(encode(self.encoder, batch, causal=True))
        loss, predicted = next_token_loss(hidden, output, batch["input_ids"], batch.get("attention_mask"))
        return {"loss": loss, "causal_loss": loss.detach(), "weight": predicted}


METHOD = MLM
