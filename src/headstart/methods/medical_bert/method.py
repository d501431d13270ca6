"""Pre-training technique to localize medical BERT and enhance biomedical BERT (Wada et al. 2020, arXiv 2005.07202).

1. The vocabulary is trained on both corpora, the small one repeated until it weighs as much (--text.vocabulary amplified).
2. Training files hold as much of the small corpus as of the large one (`shards`), and pairs of segments are made anew in each (`pairs`, `rows`).
3. BERT: masked tokens, and whether the second segment follows the first; both losses summed.

Every arm is evaluated by one rule (whole words, 15 %, all shown as [MASK]), and in nats per character: per token, two vocabularies cannot be
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertForPreTraining, PreTrainedModel

from headstart.backbones.text import encode, encoder_config
from headstart.core.errors import UsageError
from headstart.data.text.rows import Rows
from headstart.data.text.store import TextStore
from headstart.engine.masked_method import EVALUATED, MaskedMethod
from headstart.engine.method import Batch, Context
from headstart.engine.text_method import model_folder, refuse_long_rows
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model
from headstart.methods.medical_bert.config import SETTINGS, MedicalBertConfig
from headstart.methods.medical_bert.rows import CORPUS, LABEL, medical_bert_rows, told

CORPORA = ("small", "large")


class MedicalBert(MaskedMethod):
    """A BERT with both its heads."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    wants_entries = 2
    part_metric, part_unit = "nats_per_character", "nats per character of hidden words"

    config: MedicalBertConfig

    def __init__(self, config: MedicalBertConfig, store: TextStore, init: Path | None = None) -> None:
        config.check_own() if init is not None else config.check()
        super().__init__(config, store, init)
        self.count_characters()
        self.has_corpora = len(store.sources()) > 1

    def random(self) -> PreTrainedModel:
        return BertForPreTraining(encoder_config("bert", **self.shape()))  # type: ignore[arg-type]  # of "bert" it is a BertConfig

    def loaded(self, init: Path) -> PreTrainedModel:
        """The BERT of --init; heads and a pooler that it lacks begin random."""
        model = load_model(init, BertForPreTraining, may_lack=r"^cls\.|^bert\.pooler\.")
        refuse_long_rows(model, self.config.sequence_length)
        return model

    @classmethod
    def settings_of(cls, init: Path, config: MedicalBertConfig) -> dict[str, Any]:
        folder = model_folder(init)
        kind = read_config(folder).model_type
        if kind != "bert":
            raise UsageError(f"{folder} holds a {kind} model; medical_bert continues a BERT.", "Continue others with mlm, or leave --init out.")
        found = super().settings_of(init, config)
        del found["architecture"]
        return found

    @classmethod
    def rows(cls, store: TextStore, config: MedicalBertConfig, split: Literal["train", "held_out"] = "train") -> Rows:
        store.require_specials("pad", "cls", "sep", "mask")
        return medical_bert_rows(store, config, split)

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        """The masked tokens, and the rows."""
        if ctx.phase == "causal":
            return None
        return {"masked": self.choose(batch, ctx)[1].sum(), "rows": _count(batch)}

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Mean -log p over the masked tokens plus mean -log p over the rows of whether the second segment follows; in the phase "causal" over all
        tokens, from those before them."""
        if ctx.phase == "causal":
            return self.causal_loss(batch)
        positions, weights = self.choose(batch, ctx)
        hidden = encode(self.encoder, {**batch, "input_ids": self.hide(batch, ctx, positions, weights)})
        masked = self.score_hidden(hidden, batch, positions, weights) * ctx.share("masked")
        if not self.config.next_sentence:
            return {"loss": masked, "mlm_loss": masked.detach()}
        following, right = (value * ctx.share("rows") for value in self.score_pairs(hidden, batch))
        scalars = {"mlm_loss": masked, "next_sentence_loss": following, "next_sentence_accuracy": right}
        return {"loss": masked + following, **{name: value.detach() for name, value in scalars.items()}}

    def score_pairs(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(mean -log p, share that is right) of whether the second segment follows, from the pooled state of [CLS].

        Args:
            hidden: [batch, length, dim].
        """
        model: Any = self.model
        logits = model.cls.seq_relationship(model.bert.pooler(hidden)).float()  # [batch, 2]
        labels = batch[LABEL]
        return F.cross_entropy(logits, labels), (logits.argmax(-1) == labels).float().mean()

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """By one rule: nats per token and per character of the hidden words, of both corpora and of each; and whether the second segment follows."""
        positions, weights = self.choose(batch, ctx, EVALUATED)
        hidden = encode(self.encoder, {**batch, "input_ids": self.hide_all(batch, ctx, positions, weights)})
        scalars = self.evaluated(hidden, batch, positions, weights)
        for number, name in enumerate(CORPORA if self.has_corpora else ()):
            scalars |= self.evaluated(hidden, batch, positions, weights * (batch[CORPUS] == number)[:, None], f"_{name}")
        if self.config.next_sentence:
            following, right = self.score_pairs(hidden, batch)
            rows = _count(batch)
            scalars |= {"next_sentence_loss": following, "weight/next_sentence_loss": rows}
            scalars |= {"next_sentence_accuracy": right, "weight/next_sentence_accuracy": rows}
        return scalars

    def plan_lines(self) -> list[str]:
        return [*super().plan_lines(), *told(self.rows(self.store, self.config), self.store)]

    def training_rows(self, parts: Sequence[Any]) -> list[Any]:
        if len(parts) > 1:
            what = "medical_bert makes its training files of both corpora together; --data has several parts, stores or weights."
            mend = "Give the files of the small corpus, then of the large one, without names or weights (--data my/notes my/texts), or one store."
            raise UsageError(what, mend)
        return list(parts)


def _count(batch: Batch) -> Tensor:
    ids = batch["input_ids"]
    return torch.ones((), device=ids.device) * len(ids)


METHOD = MedicalBert
