"""causal-lm: next-token prediction, the baseline that everything else is compared with.

- Every token is a target, so it leaves the unigram plateau after fewer steps than any masked objective: in minutes on a CPU it is the head start
  to beat.
- GPT-2 (Radford et al. 2019) or Llama (Touvron et al. 2023, arXiv 2302.13971) from transformers; the export is a transformers folder.
- Rows are right-padded, and a causal model never looks right: no attention mask is needed, so the fused causal kernel always runs.
- Documents packed into one row see each other, as in GPT-2 and GPT-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from headstart.backbones.text import build_llama, decode
from headstart.data.text.rows import Rows, packed_rows
from headstart.data.text.store import TextStore
from headstart.data.text.windows import Windows, windows
from headstart.engine.method import Batch, Context, Predictions
from headstart.engine.text_method import TextMethod, model_folder, refuse_long_rows, sizes_of, special
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model, save_model_folder
from headstart.methods.causal_lm.config import SETTINGS, CausalLMConfig
from headstart.objectives.projected_loss import OfBlock, next_token_loss, nll_and_gradient


class CausalLM(TextMethod):
    """A decoder that predicts the next token of every position."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets

    likelihood = True

    config: CausalLMConfig

    def __init__(self, config: CausalLMConfig, store: TextStore, init: Path | None = None) -> None:
        config.check()
        super().__init__(config, store, init)
        self.model: Any = load_model(init, AutoModelForCausalLM) if init is not None else build(config, store)
        refuse_long_rows(self.model, config.sequence_length)
        self.of_block: OfBlock | None = None  # of the loss, where it is compiled

    @classmethod
    def settings_of(cls, init: Path, config: CausalLMConfig) -> dict[str, Any]:
        found = read_config(model_folder(init))
        settings = {"architecture": found.model_type, **sizes_of(found), "tie_embeddings": found.tie_word_embeddings}
        return settings | ({"dropout": found.resid_pdrop} if found.model_type == "gpt2" else {})

    @classmethod
    def suggestions_of(cls, init: Path, config: CausalLMConfig, data: Any) -> dict[str, dict[str, Any]]:
        """Rows no longer than what the model was trained on."""
        positions = getattr(read_config(model_folder(init)), "max_position_embeddings", None)
        return {"method": {"sequence_length": positions}} if isinstance(positions, int) and 4 <= positions < config.sequence_length else {}

    @classmethod
    def rows(cls, store: TextStore, config: CausalLMConfig, split: Literal["train", "held_out"] = "train") -> Rows | Windows:  # type: ignore[override]
        if config.packing == "stream":
            return windows(store, config.sequence_length, split, special(store, "eos"))
        return packed_rows(
            store,
            config.sequence_length,
            split,
            begin=special(store, "bos"),
            end=special(store, "eos"),
            wrap="document",  # a row in the middle of a document ends without [SEP]: no false end of text is taught
        )

    def predicted_per_row(self) -> float:
        return self.config.sequence_length - (self.config.packing == "documents")

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean -log p(token | tokens before it) over the tokens that are not padding, in nats."""
        output = self.model.get_output_embeddings()
        hidden, mask = self.hidden_states(batch), batch.get("attention_mask")
        loss, predicted = next_token_loss(hidden, output, batch["input_ids"], mask, batch.get("next_ids"), self.of_block)
        return {"loss": loss, "weight": predicted}

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        if one:
            return None
        mask, targets, hidden = batch.get("attention_mask"), batch.get("next_ids"), self.hidden_states(batch)
        if targets is None:
            hidden, targets = hidden[:, :-1], batch["input_ids"][:, 1:]
            mask = None if mask is None else mask[:, 1:]
        weights = torch.ones_like(targets, dtype=torch.float32) if mask is None else mask.float()
        logits = self.model.get_output_embeddings()(hidden)
        return Predictions(logits.flatten(0, 1), targets.flatten(), weights.flatten())

    def hidden_states(self, batch: Batch) -> Tensor:
        return decode(self.model.base_model, input_ids=batch["input_ids"])

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        """class: the last token, which alone has seen the whole row; the first one has seen nothing but itself."""
        if pooling == "mean":
            return super().feature(batch, ctx, pooling)
        hidden, mask = self.hidden_states(batch), batch.get("attention_mask")
        if mask is None:
            return hidden[:, -1]
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]

    def backbone(self) -> nn.Module:
        return self.model.base_model

    def compile_parts(self) -> None:
        super().compile_parts()
        self.of_block = torch.compile(nll_and_gradient)

    def plain_parts(self) -> None:
        super().plain_parts()
        self.of_block = None

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """Continuations, sampled at temperature 0.8, of a person's own texts or of the first thirds of held-out rows."""
        lines = []
        lengths = batch["attention_mask"].sum(1).tolist() if "attention_mask" in batch else [batch["input_ids"].shape[1]] * len(batch["input_ids"])
        for i, (row, length) in enumerate(zip(batch["input_ids"], lengths, strict=True)):
            kept = length - len(special(self.store, "sep")) if own_text else max(2, length // 3)  # `encode` closes a text with [SEP]
            prompt = row[None, :kept]
            with torch.random.fork_rng(devices=[row.device] if row.is_cuda else []):
                torch.manual_seed(int(ctx.rng.integers("continuation", 1 << 31)[i]))
                whole = self.model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=True,
                    temperature=0.8,
                    max_new_tokens=max(8, self.config.sequence_length - kept),
                    pad_token_id=self.special_ids.get("pad", 0),
                )
            lines.append(f"{self.tokenizer.decode(prompt[0].tolist())} >>> {self.tokenizer.decode(whole[0, kept:].tolist())}")
        return lines

    def export(self, folder: Path) -> None:
        save_model_folder(self.model, self.tokenizer, folder)


def build(config: CausalLMConfig, store: TextStore) -> Any:
    """A decoder with random weights."""
    if config.architecture != "gpt2":
        return build_llama(
            vocab_size=store.vocab_size,
            special_ids=store.special_ids,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_length=config.sequence_length,
            tie_embeddings=config.tie_embeddings,
        )
    ends: dict[str, Any] = {f"{name}_token_id": store.special_ids.get(name) for name in ("bos", "eos", "pad")}
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=store.vocab_size,
            n_positions=config.sequence_length,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=config.intermediate_size,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            tie_word_embeddings=config.tie_embeddings,
            **ends,
        )
    )


METHOD = CausalLM
