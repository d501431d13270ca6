"""Settings of self-distillation, with the paper's values. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.interventions import Settings

if TYPE_CHECKING:
    from headstart.engine.config import Settings as MethodSettings
    from headstart.engine.method import Method

WITHOUT_CLASS_TOKEN = ("croco",)
"""Methods whose encoder has no token that stands for the row."""
WITH_ROWS = ("text", "image")
"""Kinds of data whose rows a backbone turns into one vector each."""


@dataclass
class SelfDistillConfig:
    """Further pre-training twice from the same weights: a teacher, then a student that is also pulled towards the teacher's features."""

    rounds: int = 0
    """Students after the teacher, each the teacher of the next; all begin with the weights of --init and have equal shares of the budget. 0: off. The
    paper: 1."""
    weight: float = 1.0
    """Of the distance: squared, summed over the features, meaned over the rows. The paper: 1. 0 leaves the pass over the complete rows out."""
    objective: bool = True
    """Keep the method's own loss in the student's stage. False: the distance alone."""
    teacher: Literal["trained", "initial"] = "trained"
    """trained: the method trains one first, as in the paper; initial: the weights of --init, which leaves the teacher's stage out."""
    student: Literal["initial", "teacher"] = "initial"
    """What the student begins with. The paper: the weights of --init; a student that begins with the teacher's has distance 0."""
    pooling: Literal["class", "mean"] = "class"
    """The feature of a row. class: the token that stands for it (text: the first; causal-lm: the last), as in the paper; mean: of all its tokens."""
    pull_weight: float = 0.0
    """Weight of the squared distance of the backbone's weights from `pull_to`, added to the student's loss: an ablation."""
    pull_to: Literal["initial", "teacher"] = "initial"
    """Where the weights are pulled to."""
    teacher_decay: float | None = None
    """The teacher follows the student: after each update it keeps this share of itself. None: it stays as it is, as in the paper."""
    features: Literal["auto", "stored", "online"] = "auto"
    """stored: the teacher's feature of every row is computed once a round; online: in every step; auto: stored where rows are always seen alike and
    the table takes at most 256 MiB."""
    decoder_steps: int = 0
    """Steps before all stages in which only what lies outside the backbone learns, for --init without a decoder: both stages begin with what it
    gives."""

    @property
    def on(self) -> bool:
        return self != SelfDistillConfig()

    def check(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--self-distill.rounds is {self.rounds}.", "Give the number of students; the paper: 1.")
        for name in ("weight", "pull_weight", "decoder_steps"):
            if getattr(self, name) < 0:
                raise UsageError(f"--self-distill.{name.replace('_', '-')} is {getattr(self, name)}.", "Give 0 or more.")
        if self.teacher_decay is not None and not 0 <= self.teacher_decay < 1:
            raise UsageError(f"--self-distill.teacher-decay is {self.teacher_decay}.", "Give a number from 0 up to, but not, 1.")
        if self.teacher_decay is not None and self.features == "stored":
            raise UsageError("A teacher that follows the student has other features in every step.", "Give --self-distill.features online.")
        if not self.objective and self.weight == 0:
            raise UsageError("Without the method's loss and without the distance there is nothing to learn.", "Keep one of them.")
        if self.student == "teacher" and self.teacher == "initial" and self.rounds == 1:
            raise UsageError("--self-distill.student teacher is what initial says where the teacher is the initial model.", "Leave it out.")


def refuse(method: MethodSettings | type[Method], config: Any) -> str | None:
    """Why self-distillation has no sense here; None where it has."""
    mine: SelfDistillConfig = config.self_distill
    if method.data_group not in WITH_ROWS:
        return "its data has no rows of which a backbone gives one feature each."
    if method.card.slug in WITHOUT_CLASS_TOKEN and mine.pooling == "class":
        return "its encoder has no class token; --self-distill.pooling mean takes the mean of the patches."
    if config.init is None:
        return "it continues a trained model on your data, and from random weights there is nothing to keep: give --init."
    return None


SETTINGS = Settings(catalog.card("self_distill"), "self_distill", SelfDistillConfig, refuse, {"rounds": 1})
