"""mlm: masked language modelling (Devlin et al. 2019, BERT, arXiv 1810.04805), the baseline for encoders.

- Masks are drawn on the device, anew each time (RoBERTa); vocabulary logits exist only at the masked positions.
- Units to mask: single tokens, whole words (BERT's later release) or spans (SpanBERT, arXiv 1907.10529). The 80/10/10 rule can be off.
- `causal_start`: the first steps train the same encoder as a causal language model, whose every token is a target. With few minutes it is worth more
  than anything else: the encoder leaves the unigram plateau at once (docs/plateau.md). The presets tiny have it; the paper does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from headstart.backbones.text import build_masked_lm, encode, mlm_head, mlm_logits
from headstart.data.text.rows import Rows, packed_rows
from headstart.data.text.store import TextStore
from headstart.engine.method import Batch, Context, Phase, Predictions
from headstart.engine.text_method import TextMethod, model_folder, refuse_long_rows, sizes_of
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model, save_model_folder
from headstart.methods.mlm.config import SETTINGS, MLMConfig
from headstart.objectives.masking import apply_masking, choose_groups, choose_positions, masking_slots, span_groups, word_groups
from headstart.objectives.projected_loss import next_token_loss, projected_lm_loss
from headstart.objectives.token_loss import gather_positions


class MLM(TextMethod):
    """An encoder that predicts the tokens hidden from it."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    plateau_metric = "mlm_loss"

    config: MLMConfig
    never_masked: Tensor  # bool [vocab]
    continues_word: Tensor  # bool [vocab]
    random_ids: Tensor | None  # int64 [words], what random tokens are drawn from; None: the whole vocabulary

    def __init__(self, config: MLMConfig, store: TextStore, init: Path | None = None) -> None:
        config.check()
        super().__init__(config, store, init)
        if init is not None:
            self.model: PreTrainedModel = load_model(init, AutoModelForMaskedLM)
            refuse_long_rows(self.model, config.sequence_length)
        else:
            self.model = build_masked_lm(
                config.architecture,
                vocab_size=store.vocab_size,
                hidden_size=config.hidden_size,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_length=config.sequence_length,
                dropout=config.dropout,
                special_ids=store.special_ids,
            )
        self.causal_start = config.causal_start if init is None else 0  # a trained encoder is off the plateau
        store.require_specials("pad", "cls", "sep", "mask")
        self.slots = max(1, masking_slots(config.mask_ratio, config.sequence_length))
        if config.most_masked is not None:
            self.slots = min(config.most_masked, config.sequence_length)
        hidden = torch.zeros(store.vocab_size, dtype=torch.bool)
        hidden[[store.special_ids[name] for name in ("pad", "cls", "sep", "mask")]] = True
        self.register_buffer("never_masked", hidden, persistent=False)
        specials = set(store.special_ids.values())
        words = torch.tensor([i for i in range(store.vocab_size) if i not in specials]) if config.random_from == "words" else None
        self.register_buffer("random_ids", words, persistent=False)
        self.register_buffer("continues_word", torch.from_numpy(store.continues_word.copy()), persistent=False)

    @classmethod
    def rows(cls, store: TextStore, config: MLMConfig, split: Literal["train", "held_out"] = "train") -> Rows:
        ids = store.special_ids
        return packed_rows(store, config.sequence_length, split, [ids["cls"]], [ids["sep"]], pack=config.packing == "documents")

    @classmethod
    def settings_of(cls, init: Path, config: MLMConfig) -> dict[str, Any]:
        found = read_config(model_folder(init))
        dropout = getattr(found, "hidden_dropout_prob", getattr(found, "mlp_dropout", None))
        settings = {"architecture": found.model_type, **sizes_of(found), "causal_start": 0}
        return settings | ({} if dropout is None else {"dropout": dropout})

    def predicted_per_row(self) -> float:
        return self.config.sequence_length * (1.0 if self.causal_start else self.config.mask_ratio)

    def phases(self, total_steps: int) -> list[Phase]:
        start = min(self.causal_start, total_steps // 3)
        return [Phase("causal", start), Phase("masked")] if start else [Phase("masked")]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean -log p(token) over the masked tokens, in nats; in the phase "causal" over all tokens, from those before them."""
        if ctx.phase == "causal":
            return self.causal_loss(batch)
        positions, weights = self.choose(batch, ctx)
        masked = self.hide(batch, ctx, positions, weights)
        loss = self.score(batch, masked, positions, weights)
        return {"loss": loss, "mlm_loss": loss.detach(), "weight": weights.sum()}

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The loss with every slot shown as [MASK]: the usual rule lets some answers through, which flatters by up to a nat."""
        positions, weights = self.choose(batch, ctx)
        masked = apply_masking(batch["input_ids"], positions, weights, self.special_ids["mask"], ctx.rng, mask_share=1.0)
        return {"mlm_loss": self.score(batch, masked, positions, weights)}

    def hide(self, batch: Batch, ctx: Context, positions: Tensor, weights: Tensor) -> Tensor:
        """int64 [batch, length]: the ids with the chosen slots hidden, as the network sees them in training."""
        return apply_masking(
            batch["input_ids"],
            positions,
            weights,
            self.special_ids["mask"],
            ctx.rng,
            self.config.mask_share,
            self.config.random_share,
            self.vocab_size,
            random_ids=self.random_ids,
        )

    def choose(self, batch: Batch, ctx: Context) -> tuple[Tensor, Tensor]:
        """Positions [batch, slots] and weights [batch, slots] of the tokens to predict."""
        ids, mask, config = batch["input_ids"], batch.get("attention_mask"), self.config
        candidates = ~self.never_masked[ids]
        n_tokens = torch.full((len(ids),), ids.shape[1], device=ids.device) if mask is None else mask.sum(1)
        if config.mask_unit == "token":
            return choose_positions(ctx.rng, candidates, n_tokens, config.mask_ratio, self.slots, replacement=False)
        groups = word_groups(ids, self.continues_word)
        if config.mask_unit == "span":
            groups = span_groups(ctx.rng, groups)
        return choose_groups(ctx.rng, groups, candidates, n_tokens, config.mask_ratio, self.slots, cut_last=config.mask_unit == "span")

    def score(self, batch: Batch, masked: Tensor, positions: Tensor, weights: Tensor) -> Tensor:
        hidden = encode(self.encoder, {**batch, "input_ids": masked})
        before, output = mlm_head(self.model)
        kept = before(gather_positions(hidden, positions))  # [batch, slots, dim]
        return projected_lm_loss(kept, output.weight, output.bias, batch["input_ids"].gather(1, positions), weights)

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        if ctx.phase == "causal":
            return None
        if one:
            ids = batch["input_ids"]
            positions, weights = choose_positions(ctx.rng, ~self.never_masked[ids], torch.ones_like(ids[:, 0]), 1.0, 1, replacement=False)
            masked = apply_masking(ids, positions, weights, self.special_ids["mask"], ctx.rng, mask_share=1.0)
        else:
            positions, weights = self.choose(batch, ctx)
            masked = self.hide(batch, ctx, positions, weights)
        logits = mlm_logits(self.model, gather_positions(encode(self.encoder, {**batch, "input_ids": masked}), positions))
        return Predictions(logits.flatten(0, 1), batch["input_ids"].gather(1, positions).flatten(), weights.flatten())

    def causal_loss(self, batch: Batch) -> dict[str, Tensor]:
        before, output = mlm_head(self.model)
        hidden = before(encode(self.encoder, batch, causal=True))
        loss, predicted = next_token_loss(hidden, output, batch["input_ids"], batch.get("attention_mask"))
        return {"loss": loss, "causal_loss": loss.detach(), "weight": predicted}

    @property
    def encoder(self) -> PreTrainedModel:
        return cast(PreTrainedModel, self.model.base_model)

    def hidden_states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch)

    def backbone(self) -> nn.Module:
        return self.encoder

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """The text with each hidden token as [guess|truth]. A person's own [MASK] becomes [guess]; without one, tokens are hidden at random."""
        mask_id = self.special_ids["mask"]
        asked = batch["input_ids"] == mask_id
        if own_text and bool(asked.any()):
            weights, positions = asked.float().topk(int(asked.sum(1).max()), dim=1)
        else:
            positions, weights = self.choose(batch, ctx)
        masked = apply_masking(batch["input_ids"], positions, weights, mask_id, ctx.rng, mask_share=1.0)
        logits = mlm_logits(self.model, gather_positions(encode(self.encoder, {**batch, "input_ids": masked}), positions))
        guesses = logits.argmax(-1).tolist()
        lines = []
        for row, places, used, guessed in zip(batch["input_ids"].tolist(), positions.tolist(), weights.tolist(), guesses, strict=True):
            pieces = [str(self.tokenizer.id_to_token(i)) for i in row]
            for place, weight, guess in zip(places, used, guessed, strict=True):
                if weight:
                    truth = "" if row[place] == mask_id else f"|{pieces[place]}"
                    pieces[place] = f"[{self.tokenizer.id_to_token(guess)}{truth}]"
            lines.append(" ".join(pieces).replace(" ##", "").replace("[PAD]", "").strip())
        return lines

    def export(self, folder: Path) -> None:
        save_model_folder(self.model, self.tokenizer, folder)


METHOD = MLM
