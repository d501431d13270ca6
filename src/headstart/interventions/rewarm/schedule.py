"""The re-warmed learning rate as a pure function of the step, in peaks.

With w warm-up steps, T the end of the decay (both rounded half up) and steps counted from 0, so that update k uses lr(k - 1):

    t <= w:      max * MAX(1, t) / w                                  (gpt-neox megatron/learning_rates.py), or from the old rate
    w < t <= T:  min + (max - min) / 2 * (cos(pi (t - w) / (T - w)) + 1)
    t > T:       min; gpt-neox lets its cosine rise again here
"""

from __future__ import annotations

import math

from headstart.core.errors import UsageError
from headstart.interventions.rewarm.config import LEAST_STEPS, LEAST_WARMUP, RewarmConfig


def warmup_steps(config: RewarmConfig, total_steps: int) -> int:
    """Steps of the warm-up in a run of this length."""
    config, total_steps = config.resolved(), total_steps - config.moment_warmup_steps
    if config.warmup_steps is not None:
        return config.warmup_steps
    if config.warmup_fraction is not None:
        return rounded(config.warmup_fraction * total_steps)
    return max(LEAST_WARMUP, rounded(0.01 * total_steps))


def decay_end(config: RewarmConfig, total_steps: int) -> int:
    """The step from which the rate is the floor, counted like those of the warm-up."""
    fraction = config.resolved().decay_fraction
    return rounded((1.0 if fraction is None else fraction) * (total_steps - config.moment_warmup_steps))


def share(step: int, total_steps: int, config: RewarmConfig, old_share: float = 0.0) -> float:
    """The rate of a step, counted from 0, in peaks.

    Args:
        old_share: the rate at which the old run ended, in peaks: where a warm-up from the floor starts.
    """
    w, end, config = warmup_steps(config, total_steps), decay_end(config, total_steps), config.resolved()
    if (t := step - config.moment_warmup_steps) < 0:
        return 0.0
    if t <= w and w > 0:
        return max(1, t) / w if config.warmup_start == "zero" else old_share + (1.0 - old_share) * t / w
    if config.shape == "constant":
        return 1.0
    floor = config.min_ratio
    if t >= end or end <= w:
        return floor
    if config.shape == "inv_sqrt_infinite":
        return _infinite(t, w, end, config)
    progress = (t - w) / (end - w)
    if config.shape == "linear":
        return floor + (1.0 - floor) * (1.0 - progress)
    return floor + (1.0 - floor) / 2 * (math.cos(math.pi * progress) + 1)


def _infinite(t: int, w: int, end: int, config: RewarmConfig) -> float:
    """Cool down by an inverse root to the held rate, hold it, anneal it to the floor (Ibrahim et al. 2024, arXiv 2403.08763)."""
    cooled, held = max(w, rounded(config.cooldown_end * end)), max(w, rounded(config.hold_end * end))
    hold = config.hold_ratio
    if t <= cooled and cooled > w:
        return 1.0 + (hold - 1.0) * _inverse_root((t - w) / (cooled - w)) / _inverse_root(1.0)
    if t <= held:
        return hold
    return hold * float((config.min_ratio / hold) ** ((t - held) / (end - held)))


def _inverse_root(x: float) -> float:
    return 1.0 / math.sqrt(1.0 + 10.0 * x) - 1.0


def rounded(value: float) -> int:
    """Half up."""
    return math.floor(value + 0.5)


def refuse_length(config: RewarmConfig, total_steps: int) -> None:
    """Raises UsageError for a continued run that is too short for its schedule."""
    w, end, steps = warmup_steps(config, total_steps), decay_end(config, total_steps), total_steps - config.moment_warmup_steps
    if steps < LEAST_STEPS:
        raise UsageError(
            f"Re-warming needs at least {LEAST_STEPS} steps to rise and decay; this run has {steps}"
            + (f" after {config.moment_warmup_steps} at rate 0." if config.moment_warmup_steps else "."),
            "Give a larger budget, a smaller --batch, or --rewarm.preset off.",
        )
    if config.resolved().shape != "constant" and end <= w:
        raise UsageError(
            f"The decay would end at step {end}, no later than the warm-up, which takes {w} of {steps} steps.",
            "Shorten --rewarm.warmup-steps, or give a larger budget.",
        )
