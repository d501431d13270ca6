"""BIOptimus (BioNLP 2023, arXiv 2308.08625): a domain's vocabulary for a trained masked language model, and a curriculum of masks.

1. The vocabulary of the data replaces that of --init. Shared tokens keep their rows; the row of a new one is made from the old model's own vectors
   of it in sentences of the corpus (`swap`, `contexts`, `distil`).
2. Masked language modelling goes on in phases that become harder: tokens 15 %, whole words 15 %, whole words 20 %, the same all as [MASK].

There is no official training code; see docs/methods/bioptimus.md for what is known and what is ours. Every arm is evaluated by one rule (whole words,
15 %, all shown as [MASK]), whatever its phase, and in nats per character: per token, two vocabularies cannot be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from headstart.backbones.text import encode
from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_bounded
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore
from headstart.data.text.tokenizer import described, load_tokenizer
from headstart.engine.masked_method import EVALUATED, MaskedMethod, MaskRule
from headstart.engine.method import Batch, Context, Phase
from headstart.engine.text_method import model_folder, refuse_larger_tokenizer
from headstart.methods.bioptimus.config import SETTINGS, BioptimusConfig
from headstart.methods.bioptimus.swap import refuse_layer, refuse_swap, swapped

MOST_MASKED = 512
"""Tokens of a row, of the paper's library."""
LEAST_STEPS = 4
"""Of a phase with a schedule of its own: in a shorter one warm-up and decay leave no rate."""
LISTING = "new_tokens.tsv"
_LISTING_BYTES = 1 << 28


class Bioptimus(MaskedMethod):
    """An encoder with the vocabulary of its domain."""

    card = SETTINGS.card
    Config = SETTINGS.Config
    presets = SETTINGS.presets
    wants_init = True
    keeps_vocabulary = False
    part_metric, part_unit = "nats_per_character", "nats per character of hidden words"

    config: BioptimusConfig

    def __init__(self, config: BioptimusConfig, store: TextStore, init: Path | None = None) -> None:
        config.check_own() if init is not None else config.check()
        self._listing: str | None = None
        self._said: list[str] = []
        self.begin_flops = 0
        super().__init__(config, store, init, config.random_from)
        self.count_characters()
        for number, unit in enumerate(config.units, 1):
            if unit != "token" and not store.continues_word.any():
                raise BadInput(f"the tokenizer marks no words, and phase {number} masks by {unit}.", "Give --method.units token for each phase.")

    def random(self) -> PreTrainedModel:
        self._said = ["  vocabulary every row begins random: what is set of new rows and contexts has an effect with --init alone"]
        return super().random()

    def loaded(self, init: Path) -> PreTrainedModel:
        model = super().loaded(init)
        folder = model_folder(init)
        if (path := folder / LISTING).is_file():  # an export of this method
            self._listing = read_bounded(own_file(folder, path.name), _LISTING_BYTES, "list of new tokens").decode(errors="replace")
        old, _ = load_tokenizer(folder, TextConfig())
        if old.get_vocab(with_added_tokens=True) == self.tokenizer.get_vocab(with_added_tokens=True):
            self._said = ["  vocabulary the one of the model: no token is new"]
            return model
        found = swapped(model, folder, old, self.store, self.config)
        self._listing, self._said, self.begin_flops = found.listing, found.lines, found.flops
        return found.model

    @classmethod
    def data_config_for(cls, data: TextConfig, init: Path) -> TextConfig:
        return data  # a vocabulary of its own is what this is about

    @classmethod
    def data_settings_of(cls, init: Path, data: TextConfig) -> dict[str, Any]:
        old = refuse_larger_tokenizer(model_folder(init))
        given = old if data.tokenizer is None else load_tokenizer(data.tokenizer, data)[0]
        refuse_swap(given, old, model_folder(init))  # before a corpus is tokenised with it
        return {}

    @classmethod
    def settings_of(cls, init: Path, config: BioptimusConfig) -> dict[str, Any]:
        found = super().settings_of(init, config)
        refuse_layer(config.layer, found["num_layers"])
        return found

    @classmethod
    def suggestions_of(cls, init: Path, config: Any, data: Any) -> dict[str, dict[str, Any]]:
        """Rows that fit its positions, and a vocabulary as large as the old one, that folds what it folds."""
        rows = super().suggestions_of(init, config, data)
        if data.tokenizer is not None:
            return rows
        found = described(load_tokenizer(str(model_folder(init)), TextConfig())[0])
        return {**rows, "text": {name: found[name] for name in ("vocab_size", "lowercase", "strip_accents")}}

    @classmethod
    def refuse_init(cls, store: TextStore, init: Path) -> None:
        folder = model_folder(init)
        refuse_swap(store.tokenizer, refuse_larger_tokenizer(folder), folder)

    def phases(self, total_steps: int) -> list[Phase]:
        config = self.config
        ends = [round(total_steps * sum(config.lengths[: i + 1]) / sum(config.lengths)) for i in range(len(config.lengths))]
        lengths = [stop - start for start, stop in zip([0, *ends], ends, strict=False)]
        last = max(i for i, length in enumerate(lengths) if length)
        anew = config.restart_schedule and min(filter(None, lengths)) >= LEAST_STEPS
        return [
            Phase(name, None if i == last else length, fresh_schedule=anew, rate=rate)
            for i, (name, length, rate) in enumerate(zip(self.names(), lengths, config.rates, strict=True))
        ]

    def names(self) -> list[str]:
        """Of the phases."""
        return [f"{i}-{unit}-{ratio:g}" for i, (unit, ratio) in enumerate(zip(self.config.units, self.config.mask_ratios, strict=True), 1)]

    def rule(self, phase: str) -> MaskRule:
        config = self.config
        i = self.names().index(phase) if phase in self.names() else len(config.units) - 1
        unit, ratio, share = config.units[i], config.mask_ratios[i], config.mask_shares[i]
        return MaskRule(
            unit,  # type: ignore[arg-type]
            ratio,
            share,
            (1 - share) / 2,
            most=min(MOST_MASKED, max(1, round(ratio * config.sequence_length))),
            independent=unit == "token",
            whole=True,
            padding=config.padding_counts and unit != "token",
        )

    def predicted_per_row(self) -> float:
        return self.config.sequence_length * max(self.config.mask_ratios)

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """By one rule in all phases: nats per token and per character of the hidden words."""
        positions, weights = self.choose(batch, ctx, EVALUATED)
        hidden = encode(self.encoder, {**batch, "input_ids": self.hide_all(batch, ctx, positions, weights)})
        return self.evaluated(hidden, batch, positions, weights)

    def plan_lines(self) -> list[str]:
        return self._said

    def export(self, folder: Path) -> None:
        super().export(folder)
        if self._listing is not None:
            (folder / LISTING).write_text(self._listing, encoding="utf-8")


METHOD = Bioptimus
