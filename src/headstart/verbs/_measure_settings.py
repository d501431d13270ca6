"""What `measure` takes: the same fields in Python and on the command line. No torch here, so that a wrong flag is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import ABOVE_0, BELOW_1, COUNT, COUNT_FROM_0, MINUTES, SEED, refuse_outside
from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean
from headstart.verbs.config import refuse_no_folder

MEASURES = ("sharpness", "loss-exact")
BOUNDS = {
    **dict.fromkeys(("batches", "batch", "probes", "sentences"), COUNT),
    **dict.fromkeys(("rho", "adaptive_rho", "sigma"), ABOVE_0),
    "minutes": MINUTES,
    "relative_error": BELOW_1,
    "iterations": COUNT_FROM_0,
    "seed": SEED,
}


@dataclass
class SharpnessSettings:
    """How sharp the minimum is that a model stands in."""

    target: Path | None = None
    """A run, or a folder of transformers with a masked or causal language model (then with --data)."""
    data: Path | None = None
    """A prepared store to measure on; None: that of the run."""
    split: Literal["held-out", "train"] = "held-out"
    """Which of its rows."""
    batches: int = 4
    """Fixed batches; the loss is the mean over them."""
    batch: int = 64
    """Rows of each."""
    objective: Literal["method", "single"] = "method"
    """method: the method's own loss, with fixed draws; single: of a masked model, one place of each row hidden, as the exact loss has it."""
    labels: Literal["data", "model"] = "data"
    """data: the Hessian of the loss; model: with labels from the model's own prediction, which is the trace of the Fisher matrix."""
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    """Random directions: signs have the smaller variance."""
    probes: int | None = None
    """At most so many for each batch; None: 200, or as many as --minutes allow, but 50 estimates in all."""
    relative_error: float = 0.02
    """Stop at this relative standard error of the trace; 0: make all probes."""
    exact: bool = False
    """The exact trace, one product for each parameter: tiny networks only."""
    leave_out: tuple[str, ...] | None = None
    """Patterns of parameter names, * for anything, that are left out; None: pooler and output bias of token prediction, as the paper."""
    enlarge_to: Path | None = None
    """A run with a wider or deeper network of the same kind: the model is embedded into it first, without changing what it computes."""
    rho: float = 0.05
    """Length of the ascent step of the SAM sharpness."""
    adaptive_rho: float = 0.5
    """The same relative to each weight's size."""
    sigma: float = 0.01
    """Relative size of the random steps of the average sharpness."""
    iterations: int | None = None
    """Of the power iteration for the largest eigenvalue, at most; None: 30, or as many as a quarter of --minutes allows, but 5; 0: leave it out."""
    minutes: float = 2.0
    """How long it may take, about, where --probes and --iterations are not given: from the time of the first products."""
    seed: int = 0
    """Decides rows, draws and probes."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show tracebacks."""


@dataclass
class ExactLossSettings:
    """How far a model is from the optimum of a language with known statistics."""

    target: Path | None = None
    """A run, or a folder of transformers with a masked or causal language model (then with --language)."""
    language: str | None = None
    """builtin:pcfg-mini and the like, or a grammar file; None: that of the run's data."""
    sentences: int = 300
    """Test sentences: the first of default_rng(100 + seed)."""
    seed: int = 0
    """Of the test sentences."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show tracebacks."""


SETTINGS: dict[str, type[SharpnessSettings] | type[ExactLossSettings]] = {"sharpness": SharpnessSettings, "loss-exact": ExactLossSettings}


def check_measure(name: str) -> str:
    """The name itself. Raises UsageError for one that does not exist."""
    if name not in MEASURES:
        raise UsageError(f"There is no measure '{name}'.", f"{did_you_mean(name, MEASURES)}The measures: {', '.join(MEASURES)}.")
    return name


def check(settings: SharpnessSettings | ExactLossSettings) -> None:
    """Refuses, before torch is imported, what no measurement can have.

    Raises:
        UsageError: the first value, by its flag.
    """
    check_device(settings.device)
    refuse_outside(settings, BOUNDS)
    if settings.target is None:
        raise UsageError("No model is given.", "Give a run: headstart measure sharpness runs/mlm-tiny-0.")
    refuse_no_folder(settings.target)
    if isinstance(settings, SharpnessSettings):
        if settings.exact and settings.labels == "model":
            raise UsageError("--exact is of the Hessian.", "Leave out --labels model, whose trace is estimated.")
        if settings.enlarge_to is not None:
            refuse_no_folder(settings.enlarge_to)
