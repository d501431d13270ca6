"""Settings and presets of bioptimus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.core.bounds import ABOVE_0, COUNT, COUNT_FROM_0, SHARE_ABOVE_0, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_network

NewRows = Literal["contextual", "subword-mean", "random", "mean"]
UNITS = ("token", "whole-word", "span")
BOUNDS = {
    "mask_ratios": Bounds(0, 1, "Give shares between 0 and 1, one a phase; the paper: 0.15 0.15 0.2 0.2.", above=True, below=True),
    "mask_shares": SHARE_ABOVE_0,
    "lengths": ABOVE_0,
    "rates": ABOVE_0,
    "layer": COUNT_FROM_0,
    "contexts": COUNT,
    "context_tokens": Bounds(8, 1 << 20, "Give at least 8 tokens; 128 holds nearly every sentence."),
}


@dataclass
class BioptimusConfig:
    """How new tokens begin, and what is masked in each phase. A setting of phases has one entry for each."""

    new_rows: NewRows = "contextual"
    """What the row of a token begins with that the old vocabulary lacks. contextual: the old model's vectors of it, meaned over sentences (paper);
    subword-mean: the mean of the old rows of its pieces; random: N(0, 0.02); mean: the mean of all old rows."""
    layer: int | None = None
    """contextual: the hidden states that are meaned; 0: the embeddings after their norm; None: the last."""
    pieces: Literal["mean", "max"] = "mean"
    """contextual: how the vectors of the pieces of one occurrence become one."""
    match_norm: bool = True
    """contextual: shift and scale each dimension so that shared tokens, made the same way, have the mean and spread of their own rows."""
    contexts: int = 20
    """contextual: sentences a token at most, the first of a seeded shuffle."""
    context_tokens: int = 128
    """contextual: tokens of the old vocabulary that one sentence shows at most, cut around the new token."""
    new_bias: Literal["zero", "count"] = "zero"
    """The output's bias of a new token. count: log(occurrences + 1), shifted to the mean of the old biases."""
    units: tuple[str, ...] = ("token", "whole-word", "whole-word", "whole-word")
    """What is masked together in each phase: token, whole-word or span."""
    mask_ratios: tuple[float, ...] = (0.15, 0.15, 0.2, 0.2)
    """Share of a row's tokens that are predicted in each phase."""
    mask_shares: tuple[float, ...] = (0.8, 0.8, 0.8, 1.0)
    """Share of them that become [MASK] in each phase; half of the rest becomes random tokens. 0.8: BERT's 80/10/10; 1: all."""
    lengths: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    """Lengths of the phases, relative to each other. The paper gives that of the last alone: 32,670 steps."""
    rates: tuple[float, ...] = (1.0, 0.5, 0.5, 0.25)
    """Peak learning rates of the phases, relative to --optimizer.learning-rate. The paper gives none."""
    restart_schedule: bool = True
    """Each phase has a schedule of its own, with warm-up; False, or where a phase has under 4 steps: one over the whole run, to which `rates` are
    relative."""
    random_from: Literal["vocabulary", "words"] = "vocabulary"
    """Where random tokens come from. vocabulary: all of it, special tokens too, as the library of the paper; words: no special token."""
    padding_counts: bool = False
    """Whole words: padding counts as text when a row's tokens are counted, and can be chosen, as in the library of the paper: short rows then hide
    next to nothing."""
    architecture: Literal["modernbert", "bert", "electra", "roberta", "roberta-prelayernorm"] = "bert"
    """Of a network from random weights; --init brings its own."""
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
    packing: Literal["documents", "single"] = "documents"
    """documents: rows are filled with several whole documents; single: one document a row, the rest padding (the paper: one abstract)."""

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        self.check_own()
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, self.dropout, self.sequence_length)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        counts = {name: len(getattr(self, name)) for name in ("units", "mask_ratios", "mask_shares", "lengths", "rates")}
        if len(set(counts.values())) > 1 or not self.units:
            words = ", ".join(f"--method.{name.replace('_', '-')} {count}" for name, count in counts.items())
            raise UsageError(f"The phases are not told alike; entries: {words}.", "Give each as many entries as there are phases.")
        for number, unit in enumerate(self.units, 1):
            if unit not in UNITS:
                raise UsageError(f"Phase {number} masks '{unit}', which is no unit of --method.units.", f"Choose one of: {', '.join(UNITS)}.")
        refuse_outside(self, BOUNDS, "method.")


_SINGLE_STEPS = 32_670
"""Of the paper's last phase, the only length that is known (config.json of its released model)."""

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        BioptimusConfig(),
        batch=32,
        optimizer={"learning_rate": 1e-3},
        schedule={"name": "linear", "warmup_share": 0.1},
        data={"vocab_size": 4000},
    ),
    "base": Preset(  # ours: the paper gives no rates, no schedule, and the length of the last phase alone
        BioptimusConfig(hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, sequence_length=128, dropout=0.1),
        batch=2048,
        optimizer={"learning_rate": 2e-4, "beta2": 0.98, "epsilon": 1e-6},
        schedule={"name": "linear", "warmup_share": 0.06, "minimum_share": 0.1},
        data={"vocab_size": 30522},
    ),
    "paper": Preset(  # as far as it is known: batch of 8,192 is inferred from the steps of an epoch
        BioptimusConfig(hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072, sequence_length=128, dropout=0.1, packing="single"),
        batch=8192,
        optimizer={"learning_rate": 2e-4, "beta2": 0.98, "epsilon": 1e-6},
        schedule={"name": "linear", "warmup_share": 0.06, "minimum_share": 0.1},
        data={"vocab_size": 30522},
        steps=4 * _SINGLE_STEPS,
    ),
}

SETTINGS = Settings(catalog.card("bioptimus"), BioptimusConfig, PRESETS)
