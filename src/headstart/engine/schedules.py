"""Learning-rate schedules as one pure function of the step: no state, so a resumed run needs nothing and a plan can draw the curve beforehand.

The rate of step t (counted from 0) is `learning_rate * multiplier(t, total_steps, config)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headstart.core.errors import UsageError

ScheduleName = Literal["linear", "cosine", "constant", "inverse-sqrt", "wsd", "electra", "lamb-poly"]


@dataclass
class ScheduleConfig:
    """How the learning rate moves over the run."""

    name: ScheduleName = "linear"
    """linear, cosine: decay after the warm-up to `minimum_share`; constant; inverse-sqrt: sqrt(warmup / step) (Vaswani et al. 2017); wsd: warm-up,
    stable, decay over the last `decay_share` (Hu et al. 2024); electra: (1 - t/T)^power * min(1, t/warmup), the schedule of BERT and ELECTRA;
    lamb-poly: after the warm-up (1 - t/T)^power, which begins below the peak (NVIDIA's BERT)."""
    warmup_steps: int | None = None
    """Length of the warm-up in steps; None takes `warmup_share` of the run."""
    warmup_share: float = 0.1
    """Length of the warm-up as a share of all steps, not rounded to whole steps."""
    minimum_share: float = 0.0
    """The rate never decays below this share of the peak."""
    power: float = 1.0
    """Exponent of the decay of `electra` (its paper and code: 1) and `lamb-poly` (NVIDIA's: 0.5)."""
    decay_share: float = 0.2
    """wsd: the share of all steps in which the rate decays, as 1 - sqrt(progress) (Hägele et al. 2024)."""
    run_share: float = 1.0
    """linear, cosine: the run ends at this share of the schedule, before the rate has come down to its minimum (CroCo: 0.5)."""


def multiplier(step: int, total_steps: int, config: ScheduleConfig) -> float:
    """The share of the peak learning rate at `step` of 0..total_steps.

    To go on from a finished ELECTRA run as its README says (rate wanted * (old + extra) / extra over old + extra steps) is the same as `electra` over
    `extra` steps with `warmup_steps=0`.

    Raises:
        UsageError: a setting outside its range, or no step to schedule.
    """
    _check(total_steps, config)
    warmup = config.warmup_share * total_steps if config.warmup_steps is None else float(config.warmup_steps)
    warm = min(1.0, step / warmup) if warmup > 0 else 1.0
    if config.name == "electra":  # decays from step 0, under the warm-up too: the peak stays below the full rate
        return warm * max(config.minimum_share, max(0.0, 1.0 - step / total_steps) ** config.power)
    if step < warmup:
        return warm
    return max(config.minimum_share, _after_warmup(step, warmup, total_steps, config))


def _after_warmup(step: int, warmup: float, total_steps: int, config: ScheduleConfig) -> float:
    end = total_steps / config.run_share
    progress = min(1.0, (step - warmup) / max(end - warmup, 1e-12))  # 0 at the end of the warm-up, 1 at the end of the schedule
    floor = config.minimum_share
    if config.name == "linear":
        return floor + (1.0 - floor) * (1.0 - progress)
    if config.name == "cosine":
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if config.name == "inverse-sqrt":
        return math.sqrt(max(warmup, 1.0) / max(step, warmup, 1.0))
    if config.name == "lamb-poly":  # PolyWarmUpScheduler (schedulers.py): progress counts from step 0
        return max(0.0, 1.0 - step / total_steps) ** config.power
    if config.name == "wsd":
        decay = config.decay_share * total_steps
        done = min(1.0, max(0.0, step - (total_steps - decay)) / decay) if decay > 0 else 0.0
        return floor + (1.0 - floor) * (1.0 - math.sqrt(done))
    return 1.0


def _check(total_steps: int, config: ScheduleConfig) -> None:
    if total_steps < 1:
        raise UsageError(f"A schedule needs at least one step, not {total_steps}.", "Give the run a larger budget.")
    if config.name not in ScheduleName.__args__:  # type: ignore[attr-defined]
        raise UsageError(f"There is no schedule '{config.name}'.", f"Choose one of: {', '.join(ScheduleName.__args__)}.")  # type: ignore[attr-defined]
    if config.warmup_steps is not None and config.warmup_steps < 0:
        raise UsageError(f"warmup_steps is {config.warmup_steps}.", "Give a number of steps, 0 or more.")
    for field in ("warmup_share", "minimum_share", "decay_share"):
        value = getattr(config, field)
        if not 0.0 <= value <= 1.0:
            raise UsageError(f"{field} is {value}, which is not a share.", "Give a number from 0 to 1.")
    if not 0.0 < config.run_share <= 1.0:
        raise UsageError(f"run_share is {config.run_share}.", "Give a share above 0, at most 1.")
