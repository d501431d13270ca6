"""The plateau line: token prediction sits on the unigram entropy of the corpus until the network looks at context.

Until the loss has left it, pre-training hurts: the network forgets its useful random features and has learned nothing. How soon it is left depends
on text and network; `benchmarks/results/plateau.json` has what was measured (docs/plateau.md), and the estimate below lies at the slow end of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MARGIN = 0.3  # nats below the unigram entropy: off the plateau (the guard of the claims)
TOKENS_TO_LEAVE = 150_000
WINDOW = 3  # log steps that must lie below it together: one lucky batch is not a departure


@dataclass
class Plateau:
    """Follows one token-prediction metric of a run.

    Args:
        entropy: unigram entropy of the training pieces, nats.
        metric: the name of the loss, as `Method.loss` returns it.
    """

    entropy: float
    metric: str
    recent: list[float] = field(default_factory=list)
    left_at: int | None = None

    def note(self, step: int, values: dict[str, float]) -> bool:
        """Takes the values of a log step; True at the step where the plateau is left."""
        value = values.get(self.metric)
        if value is None or self.left_at is not None:
            return False
        self.recent = [*self.recent, value][-WINDOW:]
        if not self.mean() <= self.entropy - MARGIN:  # also where it is no number
            return False
        self.left_at = step
        return True

    def mean(self) -> float:
        """Over the last log steps."""
        return sum(self.recent) / len(self.recent)

    def left_line(self) -> str:
        return (
            f"step {self.left_at}: {self.metric} is {self.mean():.2f}, {MARGIN} nats below the unigram entropy {self.entropy:.2f}: off the plateau."
        )

    def verdict(self) -> str:
        """One sentence for the end of the run."""
        if self.left_at is not None:
            return f"{self.metric} left the unigram plateau ({self.entropy:.2f} nats) at step {self.left_at}."
        seen = f"it ended at {self.recent[-1]:.2f}" if self.recent else "it was never logged"
        return (
            f"{self.metric} never left the unigram plateau ({self.entropy:.2f} nats; {seen}): the budget was too small, and this head start may hurt."
        )

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self.recent, "left_at": self.left_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent, self.left_at = state["recent"], state["left_at"]


def steps_to_leave(predicted_per_step: float) -> int:
    """About how many steps a run needs to leave the plateau, from the tokens that it predicts in one step."""
    return round(TOKENS_TO_LEAVE / max(predicted_per_step, 1e-9))
