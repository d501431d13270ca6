"""Settings of fine-tuning, with the values of ELECTRA (Clark et al. 2020; google-research/electra, configure_finetuning.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headstart.core.bounds import ABOVE_0, BELOW_1, COUNT, EPOCHS, FROM_0, SEEDS, SHARE, SHARE_ABOVE_0, Bounds, refuse_outside
from headstart.core.errors import UsageError

Pooling = Literal["auto", "cls", "mean", "last"]
Measure: TypeAlias = Literal["finetune", "linear-probe"]
OF_EVERY_TRAINING: dict[str, Bounds] = {
    "learning_rate": ABOVE_0,
    "learning_rates": ABOVE_0,
    "epochs": EPOCHS,
    "steps": COUNT,
    "batch": COUNT,
    "micro_batch": COUNT,
    "weight_decay": FROM_0,
    "beta2": BELOW_1,
    "layer_decay": SHARE_ABOVE_0,
    "clip_norm": ABOVE_0,
    "warmup_share": SHARE,
    "dropout": BELOW_1,
    "max_length": COUNT,
    **{f"regulariser.{name}": ABOVE_0 for name in ("gamma", "k", "radius", "weight", "noise")},
    "seeds": SEEDS,
}
"""Where the numbers that several kinds of fine-tuning share must lie."""
OF_TEXTS = OF_EVERY_TRAINING | {
    **{f"qa.{name}": COUNT for name in ("max_query_length", "document_stride", "max_answer_length", "beam_size", "n_best")},
    "qa.answerable_weight": FROM_0,
    "tagging.longest": COUNT,
}
TEXT_TASKS = ("classification", "regression")
"""Tasks with one label a text, which label curves and comparisons can draw from."""


class Rates:
    """Settings of a fine-tuning with one peak rate, or several to choose from."""

    learning_rate: float
    learning_rates: tuple[float, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """The peak rates to try, at least one."""
        return self.learning_rates or (self.learning_rate,)


@dataclass
class QuestionAnsweringConfig:
    """Extractive question answering."""

    max_query_length: int = 64
    """Pieces of the question that are kept. ELECTRA: 64."""
    document_stride: int = 128
    """Pieces between the starts of two windows of a document. ELECTRA: 128."""
    max_answer_length: int = 30
    """Longest answer, in pieces. ELECTRA: 30."""
    beam_size: int = 20
    """Starts, and ends for each start, that are tried. ELECTRA: 20."""
    n_best: int = 20
    """Answers that are kept for each question. ELECTRA: 20."""
    answerable_weight: float = 0.5
    """Weight of the answerability loss, where some training questions have no answer. ELECTRA: 0.5."""
    no_answer_threshold: float = -2.75
    """Answer nothing where the logit of "has no answer" is above this. ELECTRA: -2.75 for the SQuAD 2.0 test."""


@dataclass
class TaggingConfig:
    """Tagging of words."""

    f1: Literal["strict", "blue"] = "strict"
    """How found entities are scored. strict: first and last word and type are right; blue: by the scripts of Wada et al. for BLUE, where every I
    belongs to the latest B, also after an O and in a later sentence: for their tables alone."""
    longest: int | None = None
    """Sentences of more words are cut, after a word that is tagged O where there is one. BLUE: 30. None: none is cut."""


@dataclass
class RegulariserConfig:
    """Staying near the model that fine-tuning begins with."""

    name: Literal["none", "recadam", "mars", "r3f"] = "none"
    """recadam: the loss counts more and more, a pull to the first weights less and less; mars: each row of a matrix stays within a distance of where
    it began; r3f: noise on word embeddings must not change the answer (classification of texts)."""
    gamma: float = 5000.0
    """recadam: strength of the pull; times the learning rate at most 1. Its authors: 5000 at rates of 1e-5 and 2e-5."""
    k: float = 0.2
    """recadam: slope of the change from pull to loss. Its authors choose among 0.05, 0.1, 0.2, 0.5 and 1."""
    t0: float = 250.0
    """recadam: the step in the middle of it. Its authors choose among 100, 250, 500 and 1000."""
    radius: float = 8.0
    """mars: largest sum of absolute differences in a row. Its authors tune it for each set; 7.7 and 4.7 for aircraft."""
    weight: float = 1.0
    """r3f: of the symmetric divergence."""
    noise: float = 1e-5
    """r3f: largest noise, uniform."""


@dataclass
class FinetuneConfig(Rates):
    """Fine-tuning of a whole network. The defaults are those of the official ELECTRA code at base size."""

    learning_rate: float = 1e-4
    """Peak learning rate. ELECTRA: 1e-4, large 5e-5, small 3e-4 in the paper."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each arm takes its best on the dev file with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 3.0
    """Passes over the training file. ELECTRA: 3; 10 for RTE and STS, 2 for SQuAD. With few labels 10 or more."""
    batch: int = 32
    """Examples (windows for question answering) a step. ELECTRA: 32."""
    micro_batch: int | None = None
    """Examples on the device at once; None: the whole batch."""
    layer_decay: float = 0.8
    """Each layer below the head learns this much slower. ELECTRA: 0.8, large 0.9."""
    official_llrd_gap: bool = True
    """The official code leaves an empty depth below the head (google-research/electra#51); False is what the paper means."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """Loss of a batch: ELECTRA sums over its examples, so that nearly every step is clipped to `clip_norm`."""
    optimizer: Literal["adam-uncorrected", "adamw"] = "adam-uncorrected"
    """ELECTRA: Adam without bias correction."""
    weight_decay: float = 0.01
    """ELECTRA: 0.01 in the code, 0 in the paper."""
    clip_norm: float | None = 1.0
    """Global norm of the gradients. ELECTRA: 1."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises; not rounded to whole steps. ELECTRA: 0.1."""
    max_length: int | None = None
    """Pieces a row; None: 128, for question answering 512, and never more than the network has positions. ELECTRA: 128; 256 for chunking; 512."""
    dropout: float = 0.1
    """Dropout inside the network and before the head. ELECTRA: 0.1."""
    pooling: Pooling = "auto"
    """Vector of a text: cls, the first position (ELECTRA); mean over all positions; last position. auto: cls; mean if the network is causal or has
    no [CLS]."""
    double_unordered: bool = False
    """Train on pairs in both orders. ELECTRA: for MRPC and STS."""
    text_field: str = "text"
    """Field with the text."""
    second_field: str | None = None
    """Field with the second text of a pair."""
    label_field: str = "label"
    """Field with the class or the number."""
    labels: tuple[str, ...] = ()
    """The classes or tags that may occur; empty: those of the training file."""
    minimum: float | None = None
    """Regression: least possible number; None: the least of the training file."""
    maximum: float | None = None
    """Regression: greatest possible number; None: the greatest of the training file."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)
    """Staying near the pre-trained weights."""
    qa: QuestionAnsweringConfig = field(default_factory=QuestionAnsweringConfig)
    """Question answering only."""
    tagging: TaggingConfig = field(default_factory=TaggingConfig)
    """Tagging only."""

    def check(self, of: str = "") -> None:
        """Refuses the first number that no fine-tuning can have.

        Args:
            of: what stands before the names in flags: "finetune." for --finetune.epochs.

        Raises:
            UsageError: by its flag.
        """
        refuse_outside(self, OF_TEXTS, of)
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            raise UsageError(f"--{of}minimum is {self.minimum:g}, --{of}maximum {self.maximum:g}.", "Give a least number below the greatest.")
