"""Settings of re-warming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.interventions import Settings

if TYPE_CHECKING:
    from headstart.engine.config import Settings as MethodSettings
    from headstart.engine.method import Method

Preset = Literal["off", "relative", "constant", "paper-410m", "paper-410m-stable", "paper-410m-plastic"]

PAPER_PEAKS: Mapping[str, float] = {"paper-410m": 3e-4, "paper-410m-stable": 1.5e-4, "paper-410m-plastic": 6e-4}
"""Preset -> its peak rate, for Pythia 410M with batches of 1104 rows of 2048 tokens."""
PAPER_DECAY = 240 / 297
"""The paper's cosine reaches its floor after 240 of 297 billion tokens."""
LEAST_WARMUP = 10
"""Steps of the default warm-up at least: a hundredth of a short run warms nothing up."""
OF_A_RISE = (
    "shape", "peak_ratio", "min_ratio", "warmup_fraction", "warmup_steps", "warmup_start", "decay_fraction", "hold_ratio", "cooldown_end", "hold_end",
)  # fmt: skip
"""Settings that say how the rate moves: none of a run at one rate."""
LEAST_STEPS = 20
"""Of a continued run: fewer have no room for a rise and a decay."""


@dataclass
class RewarmConfig:
    """How the rate rises again and decays when training goes on from a finished model (Gupta et al. 2023). It takes the place of `--schedule`; the
    peak is `--optimizer.learning-rate` where that is given, else `peak_ratio` times the peak that the run of --init recorded."""

    preset: Preset = "off"
    """relative: warm up to the old peak and decay again; constant: go on at the rate at which the old run ended, to compare with; paper-410m and its
    -stable and -plastic: the paper's rates."""
    shape: Literal["cosine", "linear", "constant", "inv_sqrt_infinite"] = "cosine"
    """What follows the warm-up: a decay to the floor by a cosine or a line; the peak until the end; or cool-down, hold and anneal (Ibrahim et al.
    2024)."""
    peak_ratio: float = 1.0
    """The peak in old peaks. Higher learns more of the new text and forgets more of the old. The paper: 0.5, 1 and 2."""
    min_ratio: float = 0.1
    """The floor of the decay as a share of the peak."""
    warmup_fraction: float | None = None
    """Length of the warm-up as a share of all steps; None: a hundredth, and at least 10 steps. The paper: 0 to 0.02."""
    warmup_steps: int | None = None
    """Length of the warm-up in steps, instead; 0: none."""
    warmup_start: Literal["zero", "floor"] = "zero"
    """Where the warm-up starts: near zero (the paper's code), or at the rate at which the old run ended."""
    decay_fraction: float | None = None
    """Where the decay ends, as a share of all steps; from there the rate is the floor. None: at the end; the paper: 240/297."""
    hold_ratio: float = 0.5
    """inv_sqrt_infinite: the rate that is held, as a share of the peak."""
    cooldown_end: float = 0.6
    """inv_sqrt_infinite: where the cool-down ends, as a share of the decay's end."""
    hold_end: float = 0.8
    """inv_sqrt_infinite: where the rate is no longer held, as a share of the decay's end."""
    optimizer_state: Literal["reset", "keep"] = "reset"
    """reset: new moments; keep: those of the old run's checkpoint with their step counts, where --init is a run that has it."""
    moment_warmup_steps: int = 0
    """Steps at rate 0 before the warm-up, in which the moments fill and no weight moves."""
    old_rate: float | None = None
    """The rate at which the old run ended; None: as it recorded."""

    @property
    def on(self) -> bool:
        return self != RewarmConfig()

    def check(self) -> None:
        if self.preset == "off":
            raise UsageError("Settings of --rewarm are given, but it is off.", "Add --rewarm.preset relative.")
        if idle := self._without_effect():
            raise UsageError(
                f"--rewarm.{idle[0].replace('_', '-')} is given, and --rewarm.preset constant has one rate for the whole run.",
                "Leave it out, or take --rewarm.preset relative.",
            )
        shares = {"warmup_fraction": self.warmup_fraction, "cooldown_end": self.cooldown_end, "hold_end": self.hold_end}
        for name, value in shares.items():
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"--rewarm.{name.replace('_', '-')} is {value}.", "Give a share of the steps, from 0 up to, but not, 1.")
        for name in ("min_ratio", "hold_ratio"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                what = f"--rewarm.{name.replace('_', '-')} is {value}: that rate would lie above the peak."
                raise UsageError(what, "Give a share of the peak, 0 to 1.")
        if self.shape == "inv_sqrt_infinite" and not 0 < self.min_ratio <= self.hold_ratio:
            raise UsageError(
                f"The held rate is {self.hold_ratio} of the peak, the floor {self.min_ratio}.", "Hold no less than the floor, and a floor above 0."
            )
        if self.cooldown_end > self.hold_end:
            raise UsageError(f"The cool-down ends at {self.cooldown_end}, the hold at {self.hold_end}.", "Let the hold end later.")
        if self.decay_fraction is not None and not 0 < self.decay_fraction <= 1:
            raise UsageError(
                f"--rewarm.decay-fraction is {self.decay_fraction}.", "Give a share above 0, at most 1: a decay that ends after the run never ends."
            )
        if not self.peak_ratio > 0:
            raise UsageError(f"--rewarm.peak-ratio is {self.peak_ratio}.", "Give how many old peaks, above 0.")
        if self.warmup_steps is not None and (self.warmup_steps < 0 or self.warmup_fraction is not None):
            raise UsageError(f"--rewarm.warmup-steps is {self.warmup_steps}.", "Give 0 or more, and no --rewarm.warmup-fraction beside it.")
        if self.moment_warmup_steps < 0:
            raise UsageError(f"--rewarm.moment-warmup-steps is {self.moment_warmup_steps}.", "Give 0 or more.")
        if self.old_rate is not None and not self.old_rate >= 0:
            raise UsageError(f"--rewarm.old-rate is {self.old_rate}.", "Give a rate of 0 or more.")

    def _without_effect(self) -> list[str]:
        """What is given of a rise or a decay although there is none."""
        if self.preset != "constant":
            return []
        usual = RewarmConfig(preset="constant")
        meant = usual.resolved()
        return [name for name in OF_A_RISE if getattr(self, name) not in (getattr(usual, name), getattr(meant, name))]

    def resolved(self) -> RewarmConfig:
        """With what the preset says, where nothing else is given."""
        if self.preset == "constant":
            return replace(self, shape="constant", warmup_fraction=None, warmup_steps=0)
        if self.preset in PAPER_PEAKS:
            length = 0.01 if self.warmup_fraction is self.warmup_steps is None else self.warmup_fraction
            return replace(self, warmup_fraction=length, decay_fraction=PAPER_DECAY if self.decay_fraction is None else self.decay_fraction)
        return self


def refuse(method: MethodSettings | type[Method], config: Any) -> str | None:
    if method.data_group == "environment":
        return "its runs learn from what they try themselves and continue from no text."
    if config.rewarm.optimizer_state == "keep" and config.trainer.parallel == "fsdp":
        return "the old moments are read whole and cannot be cut over processes. Take --rewarm.optimizer-state reset."
    return None


SETTINGS = Settings(catalog.card("rewarm"), "rewarm", RewarmConfig, refuse, {"preset": "relative"})
