"""What masked language models share: a network of transformers with its head, the choice of what is hidden, and the loss on it.

Masks are drawn on the device, anew each time (RoBERTa); vocabulary logits exist only at the masked positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from headstart.backbones.text import build_masked_lm, encode, mlm_head, mlm_logits
from headstart.data.text.rows import Rows, packed_rows
from headstart.data.text.store import TextStore
from headstart.engine.method import Batch, Context, Phase, Predictions
from headstart.engine.text_method import TextMethod, model_folder, refuse_long_rows, sizes_of, suggested_length
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model, save_model_folder
from headstart.objectives.masking import (
    apply_masking,
    choose_groups,
    choose_independently,
    choose_positions,
    independent_slots,
    masking_slots,
    span_groups,
    word_groups,
)
from headstart.objectives.projected_loss import next_token_loss, projected_lm_loss
from headstart.objectives.token_loss import gather_positions


@dataclass(frozen=True)
class MaskRule:
    """What is hidden of a row, and how."""

    unit: Literal["token", "whole-word", "span"]
    ratio: float
    """Share of the row's tokens."""
    mask_share: float
    """Share of the chosen tokens that become [MASK]."""
    random_share: float
    """Share of them that become a random token; the rest stays as it is."""
    most: int | None = None
    """Tokens of a row at most."""
    independent: bool = False
    """Tokens: each is chosen for itself, so that their number is a draw too (transformers); otherwise a row has its share of them (BERT)."""
    whole: bool = False
    """Whole words: a row in which none fits hides nothing; otherwise its first one is cut."""
    padding: bool = False
    """Whole words: padding counts as text, and takes its share of what is chosen."""

    def slots(self, length: int) -> int:
        """Places of a row of `length` tokens that are kept for what is predicted."""
        if self.independent:
            return independent_slots(self.ratio, length)
        slots = max(1, masking_slots(self.ratio, length))
        return slots if self.most is None else min(self.most, length)


EVALUATED = MaskRule("whole-word", 0.15, 1.0, 0.0)
"""By which methods are measured whose vocabularies or masks differ: whole words, all shown as [MASK]."""


class MaskedMethod(TextMethod):
    """An encoder that predicts the tokens hidden from it. Its Config has the sizes of the network and `packing`; `rule` says what is hidden. Where it
    has a `causal_start`, so many first steps train the same encoder as a causal language model (docs/plateau.md).

    Args:
        random_from: where random tokens come from: all of the vocabulary, as BERT, or no special token.
    """

    plateau_metric = "mlm_loss"

    model: PreTrainedModel
    never_masked: Tensor  # bool [vocab]
    continues_word: Tensor  # bool [vocab]
    characters: Tensor  # float32 [vocab], how many each token has; specials have one. See `count_characters`
    random_ids: Tensor | None  # int64 [words], what random tokens are drawn from; None: the whole vocabulary

    def __init__(
        self, config: Any, store: TextStore, init: Path | None = None, random_from: Literal["vocabulary", "words"] = "vocabulary"
    ) -> None:
        super().__init__(config, store, init)
        store.require_specials("pad", "cls", "sep", "mask")
        hidden = torch.zeros(store.vocab_size, dtype=torch.bool)
        hidden[[store.special_ids[name] for name in ("pad", "cls", "sep", "mask")]] = True
        self.register_buffer("never_masked", hidden, persistent=False)
        specials = set(store.special_ids.values())
        words = torch.tensor([i for i in range(store.vocab_size) if i not in specials]) if random_from == "words" else None
        self.register_buffer("random_ids", words, persistent=False)
        self.register_buffer("continues_word", torch.from_numpy(store.continues_word.copy()), persistent=False)
        self.model = self.loaded(init) if init is not None else self.random()
        self.causal_start = getattr(config, "causal_start", 0) if init is None else 0  # a trained encoder is off the plateau

    def shape(self) -> dict[str, Any]:
        """What `backbones.text.encoder_config` is told of a network of `config`."""
        config = self.config
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": config.hidden_size,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "intermediate_size": config.intermediate_size,
            "max_length": config.sequence_length,
            "dropout": config.dropout,
            "special_ids": self.special_ids,
        }

    def random(self) -> PreTrainedModel:
        """The network of `config` with random weights."""
        return build_masked_lm(self.config.architecture, **self.shape())

    def count_characters(self) -> None:
        """Makes `characters`, for whoever measures by `evaluated`."""
        lengths = torch.tensor([len(self.store.characters.get(index, "?")) for index in range(self.vocab_size)], dtype=torch.float32)
        lengths[list(self.special_ids.values())] = 1.0
        self.register_buffer("characters", lengths, persistent=False)

    def loaded(self, init: Path) -> PreTrainedModel:
        """The network of --init."""
        model = load_model(init, AutoModelForMaskedLM)
        refuse_long_rows(model, self.config.sequence_length)
        return model

    @classmethod
    def rows(cls, store: TextStore, config: Any, split: Literal["train", "held_out"] = "train") -> Rows:
        ids = store.special_ids
        return packed_rows(store, config.sequence_length, split, [ids["cls"]], [ids["sep"]], pack=config.packing == "documents")

    @classmethod
    def settings_of(cls, init: Path, config: Any) -> dict[str, Any]:
        found = read_config(model_folder(init))
        dropout = getattr(found, "hidden_dropout_prob", getattr(found, "mlp_dropout", None))
        settings = {"architecture": found.model_type, **sizes_of(found)}
        settings |= {"causal_start": 0} if hasattr(config, "causal_start") else {}
        return settings | ({} if dropout is None else {"dropout": dropout})

    @classmethod
    def suggestions_of(cls, init: Path, config: Any, data: Any) -> dict[str, dict[str, Any]]:
        """Rows that fit its positions."""
        return {"method": suggested_length(init, config)}

    def rule(self, phase: str) -> MaskRule:
        """What is hidden in a phase; by default what the Config says of masks."""
        config = self.config
        return MaskRule(config.mask_unit, config.mask_ratio, config.mask_share, config.random_share, config.most_masked)

    def predicted_per_row(self) -> float:
        return float(self.config.sequence_length * (1.0 if self.causal_start else self.config.mask_ratio))

    def phases(self, total_steps: int) -> list[Phase]:
        start = min(self.causal_start, total_steps // 3)
        return [Phase("causal", start), Phase("masked")] if start else [Phase("masked")]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean -log p(token) over the masked tokens, in nats; in the phase "causal" over all tokens, from those before them."""
        if ctx.phase == "causal":
            return self.causal_loss(batch)
        positions, weights = self.choose(batch, ctx)
        masked = self.hide(batch, ctx, positions, weights)
        rule = self.rule(ctx.phase)
        most = independent_slots(rule.ratio, batch["input_ids"].numel()) if rule.independent else None
        loss = self.score(batch, masked, positions, weights, most)
        return {"loss": loss, "mlm_loss": loss.detach(), "weight": weights.sum()}

    def causal_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean -log p(next token) over the tokens that are not padding."""
        before, output = mlm_head(self.model)
        hidden = before(encode(self.encoder, batch, causal=True))
        loss, predicted = next_token_loss(hidden, output, batch["input_ids"], batch.get("attention_mask"))
        return {"loss": loss, "causal_loss": loss.detach(), "weight": predicted}

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The loss with every slot shown as [MASK]: the usual rule lets some answers through, which flatters by up to a nat."""
        positions, weights = self.choose(batch, ctx)
        masked = self.hide_all(batch, ctx, positions, weights)
        return {"mlm_loss": self.score(batch, masked, positions, weights)}

    def evaluated(self, hidden: Tensor, batch: Batch, positions: Tensor, weights: Tensor, of: str = "") -> dict[str, Tensor]:
        """Nats per token and per character of the chosen tokens: per token, two vocabularies cannot be compared.

        Args:
            hidden: [batch, length, dim], of the last layer, with those tokens hidden.
            of: what is added to the names of the scalars.
        """
        loss, chosen = self.score_hidden(hidden, batch, positions, weights), weights.sum()
        characters = (self.characters[batch["input_ids"].gather(1, positions)] * weights).sum()
        return {
            f"mlm_loss{of}": loss,
            f"weight/mlm_loss{of}": chosen,
            f"nats_per_character{of}": loss * chosen / characters.clamp(min=1),
            f"weight/nats_per_character{of}": characters,
        }

    def hide(self, batch: Batch, ctx: Context, positions: Tensor, weights: Tensor) -> Tensor:
        """int64 [batch, length]: the ids with the chosen slots hidden, as the network sees them in training."""
        rule = self.rule(ctx.phase)
        return apply_masking(
            batch["input_ids"],
            positions,
            weights,
            self.special_ids["mask"],
            ctx.rng,
            rule.mask_share,
            rule.random_share,
            self.vocab_size,
            random_ids=self.random_ids,
        )

    def hide_all(self, batch: Batch, ctx: Context, positions: Tensor, weights: Tensor) -> Tensor:
        """int64 [batch, length]: the ids with every chosen slot shown as [MASK]."""
        return apply_masking(batch["input_ids"], positions, weights, self.special_ids["mask"], ctx.rng, mask_share=1.0)

    def choose(self, batch: Batch, ctx: Context, rule: MaskRule | None = None) -> tuple[Tensor, Tensor]:
        """Positions [batch, slots] and weights [batch, slots] of the tokens to predict, by the rule of the phase or another."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        rule = rule or self.rule(ctx.phase)
        slots = rule.slots(self.config.sequence_length)
        candidates = ~self.never_masked[ids]
        if rule.independent:
            return choose_independently(ctx.rng, candidates, rule.ratio, slots)
        if rule.padding and mask is not None:
            candidates = candidates | (mask == 0)
        n_tokens = torch.full((len(ids),), ids.shape[1], device=ids.device) if mask is None or rule.padding else mask.sum(1)
        if rule.unit == "token":
            return choose_positions(ctx.rng, candidates, n_tokens, rule.ratio, slots, replacement=False)
        groups = word_groups(ids, self.continues_word)
        if rule.unit == "span":
            groups = span_groups(ctx.rng, groups)
        spans = rule.unit == "span"
        positions, weights = choose_groups(
            ctx.rng, groups, candidates, n_tokens, rule.ratio, slots, cut_last=spans, cut_first=spans or not rule.whole
        )
        return positions, weights * mask.gather(1, positions) if rule.padding and mask is not None else weights

    def score(self, batch: Batch, masked: Tensor, positions: Tensor, weights: Tensor, most: int | None = None) -> Tensor:
        """Mean loss of the chosen tokens, of which the network sees `masked`; other arguments as `score_hidden`."""
        return self.score_hidden(encode(self.encoder, {**batch, "input_ids": masked}), batch, positions, weights, most)

    def score_hidden(self, hidden: Tensor, batch: Batch, positions: Tensor, weights: Tensor, most: int | None = None) -> Tensor:
        """Mean loss of the chosen tokens.

        Args:
            hidden: [batch, length, dim], of the last layer.
            most: of the batch's slots so many are scored, those in use first; None: all.
        """
        before, output = mlm_head(self.model)
        kept, targets = gather_positions(hidden, positions), batch["input_ids"].gather(1, positions)  # [batch, slots, dim], [batch, slots]
        if most is not None and most < weights.numel():
            used = (weights.flatten() == 0).to(torch.uint8).sort(stable=True).indices[:most]
            kept, targets, weights = kept.flatten(0, 1)[used], targets.flatten()[used], weights.flatten()[used]
        return projected_lm_loss(before(kept), output.weight, output.bias, targets, weights)

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        if ctx.phase == "causal":
            return None
        if one:
            ids = batch["input_ids"]
            positions, weights = choose_positions(ctx.rng, ~self.never_masked[ids], torch.ones_like(ids[:, 0]), 1.0, 1, replacement=False)
            masked = self.hide_all(batch, ctx, positions, weights)
        else:
            positions, weights = self.choose(batch, ctx)
            masked = self.hide(batch, ctx, positions, weights)
        logits = mlm_logits(self.model, gather_positions(encode(self.encoder, {**batch, "input_ids": masked}), positions))
        return Predictions(logits.flatten(0, 1), batch["input_ids"].gather(1, positions).flatten(), weights.flatten())

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
        masked = self.hide_all(batch, ctx, positions, weights)
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
