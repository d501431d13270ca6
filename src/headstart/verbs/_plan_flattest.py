"""The last step of a planned run, on request: which of its last checkpoints of equal loss stands in the flattest minimum (implicit_bias)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.core.run import read_run
from headstart.core.words import plural
from headstart.planning.implicit_bias.choose import Candidate, choose
from headstart.verbs._measure_settings import SharpnessSettings
from headstart.verbs._sweep import DOMAIN, GENERAL
from headstart.verbs.forgetting import curves
from headstart.verbs.measure import measure_sharpness

EQUAL = 0.01
"""Nats within which losses are the same."""
LAST, PARTS = 5, 20
"""So many checkpoints are kept, one after each twentieth of the run."""


def kept(steps: int) -> dict[str, Any]:
    """Settings of a run that keeps its last checkpoints and looks at its losses where it writes them."""
    every = max(1, steps // PARTS)
    return {"trainer.checkpoint_every": every, "trainer.evaluate_every": every, "trainer.keep_checkpoints": LAST}


def flattest(run: Path, ratio: float, device: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The entry "flattest" of the report, said as well; None where there is nothing to choose from.

    Args:
        run: with `kept` checkpoints. ratio: r_d, by which both losses are weighed.
    """
    losses = losses_at(run, ratio)
    exports = {int(path.parent.name.removeprefix("step-")): path for path in (run / "checkpoints").glob("step-*/export")}
    there = {step: loss for step, loss in losses.items() if step in exports}
    near = sorted(step for step, loss in there.items() if loss <= min(there.values()) + EQUAL)
    if len(near) < 2:
        say(f"  Flattest: of {plural(len(there), 'kept checkpoint')} no two have losses within {EQUAL:g} nat.")
        return None
    store, split = measured_store(run)
    found = []
    for step in near:
        settings = SharpnessSettings(exports[step], data=store, split=split, batches=2, batch=32, iterations=0, minutes=1.0, device=device)
        trace = measure_sharpness(settings, lambda line: None).trace
        found.append(Candidate(f"step {step:,}", there[step], trace.mean, trace.standard_error))
    choice = choose(found, EQUAL)
    step = near[[one.name for one in found].index(choice.name)]
    told = ", ".join(f"{one.name} {one.trace:.4g}" for one in found)
    tied = f"; it cannot be told from {' and '.join(choice.tied)}" if choice.tied else ""
    say(f"  Flattest of {len(near)} checkpoints within {EQUAL:g} nat (trace: {told}): {choice.name}{tied}. {exports[step]}")
    figures = zip(near, found, strict=True)
    candidates = [{"step": at, "loss": one.loss, "trace": one.trace, "standard_error": one.trace_error} for at, one in figures]
    return {"step": step, "export": str(exports[step]), "tied": list(choice.tied), "candidates": candidates}


def losses_at(run: Path, ratio: float) -> dict[int, float]:
    """Step -> the held-out loss, both texts weighed by their shares, on the same rows at all steps."""
    found = curves(run)
    domain, general = (dict(zip(found[part].steps, found[part].losses, strict=True)) for part in (DOMAIN, GENERAL))
    return {step: ratio * loss + (1 - ratio) * general[step] for step, loss in domain.items() if step in general}


def measured_store(run: Path) -> tuple[Path, Any]:
    """(the store of the new text's held-out documents, in which split of it they are)."""
    entry = next(entry for entry in read_run(run)["measured"] if entry["part"] == DOMAIN)
    return Path(entry["store"]), "train" if entry.get("all_held_out") else "held-out"
