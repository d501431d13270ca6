"""rts: random token substitution (Di Liello et al. 2021, arXiv 2104.09694).

Some tokens become random ones; a binary head says for every token whether it was. ELECTRA without a generator, and without a vocabulary head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel

from headstart import catalog
from headstart.backbones.text import build_encoder, encode
from headstart.data.text.store import TextStore
from headstart.engine.method import Batch, Context, Preset
from headstart.engine.text_method import TextMethod, refuse_long_rows
from headstart.interop.transformers_io import load_model, save_model_folder
from headstart.objectives.masking import choose_positions, masking_slots, scatter
from headstart.objectives.token_loss import rtd_loss


@dataclass
class RTSConfig:
    """Size of the encoder and how many tokens are replaced."""

    hidden_size: int = 128
    """Width."""
    num_layers: int = 2
    """Transformer blocks."""
    sequence_length: int = 64
    """Tokens of a training row."""
    replaced_ratio: float = 0.15
    """Share of the tokens that become random ones. The paper: 0.15."""


class RTS(TextMethod):
    """An encoder that finds the tokens that do not belong."""

    card = catalog.card("rts")
    Config = RTSConfig
    presets: ClassVar = {"tiny": Preset(RTSConfig(), batch=32, optimizer={"learning_rate": 3e-3}, data={"vocab_size": 2048})}
    predicts_tokens = False  # a binary loss: no unigram plateau

    def __init__(self, config: RTSConfig, store: TextStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        shape = {"hidden_size": config.hidden_size, "num_layers": config.num_layers, "num_heads": 2, "intermediate_size": 2 * config.hidden_size}
        rest = {"vocab_size": store.vocab_size, "max_length": config.sequence_length, "dropout": 0.0, "special_ids": store.special_ids}
        self.encoder = build_encoder("modernbert", **shape, **rest) if init is None else load_model(init, AutoModel)
        refuse_long_rows(self.encoder, config.sequence_length)
        self.head = nn.Linear(self.encoder.config.hidden_size, 1)
        self.slots = masking_slots(config.replaced_ratio, config.sequence_length)
        self.register_buffer("specials", torch.tensor(sorted(set(self.special_ids.values()))), persistent=False)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Binary cross-entropy of "was replaced" over all tokens that are not padding, in nats (section 3)."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")  # [batch, length]
        words = ~torch.isin(ids, self.specials)  # [batch, length]: what may be replaced
        places, used = choose_positions(ctx.rng, words, words.sum(1), self.config.replaced_ratio, self.slots, replacement=False)
        replaced, _ = scatter(ids, places, used, ctx.rng.integers("replacement", self.vocab_size, self.slots))
        labels = replaced != ids  # a draw may hit the original: then nothing was replaced
        logits = self.head(self.hidden_states({**batch, "input_ids": replaced})).squeeze(-1)  # [batch, length]
        weight = torch.ones_like(ids).sum() if mask is None else mask.sum()  # the loss is a mean over so many tokens
        return {"loss": rtd_loss(logits, labels, mask), "replaced_share": labels.float().mean(), "weight": weight}

    def hidden_states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch)

    def backbone(self) -> nn.Module:
        return self.encoder

    def export(self, folder: Path) -> None:
        save_model_folder(self.encoder, self.tokenizer, folder)


METHOD = RTS
