"""Loss spikes: a logged loss far above the recent ones, said once, with the checkpoint before it.

A spike is measured against the last log steps themselves: their median, and their spread as the median absolute deviation, which one outlier does
not widen. It must pass three thresholds at once, so that neither a quiet curve's last digit nor a small batch's noise is one:

- `DEVIATIONS` times the spread (times 1.4826, the factor that makes it a standard deviation where losses are normal);
- `SHARE` of the median;
- `NATS` in absolute terms.

A loss that climbs over many log steps is none: its window climbs with it.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any

WINDOW = 20
NEEDED = 8  # log steps before anything is judged
DEVIATIONS = 8.0  # 6 spoke up in one of 4,000 log steps of normal noise of 0.5 nats, 8 in none of 40,000
SHARE = 0.25
NATS = 0.3


class Spikes:
    """Notes the logged losses of a run."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._phase = ""
        self._high = False  # within a spike: it was said

    def note(self, step: int, loss: float, phase: str = "") -> str | None:
        """The sentence for the person when a spike begins at this log step; None otherwise. A new phase has another loss: its window is new."""
        if phase != self._phase:
            self._recent.clear()
            self._phase, self._high = phase, False
        if not math.isfinite(loss):
            return None
        before = list(self._recent)
        self._recent.append(loss)
        if len(before) < NEEDED:
            return None
        usual = median(before)
        spread = 1.4826 * median(abs(value - usual) for value in before)
        was_high, self._high = self._high, loss - usual > max(DEVIATIONS * spread, SHARE * abs(usual), NATS)
        if was_high or not self._high:
            return None
        return f"The loss jumped from {usual:.3g} (median of the last {len(before)} log steps) to {loss:.3g} at step {step:,}."

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "phase": self._phase, "high": self._high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recent = deque(state["recent"], maxlen=WINDOW)
        self._phase, self._high = state["phase"], state["high"]
