"""`plan`: short runs before a long one.

    plan dcpt   a sweep of several sizes and mixtures, and the D-CPT law that is fitted to it (arXiv 2406.01375)
    plan cpt    one model and one budget: which mixture, schedule and epochs; what it costs the old skills; with --run, the run itself

OUT/runs/ holds the runs of the sweep, OUT/points.parquet their losses, OUT/law/ what `fit` makes of them. The same call goes on where it stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from headstart.core.config import replace_nested
from headstart.core.errors import UsageError
from headstart.core.run import read_run
from headstart.core.words import counted, did_you_mean, duration
from headstart.engine.device import resolve_device
from headstart.planning.dcpt_law import plan as arithmetic
from headstart.planning.dcpt_law.plan import looks
from headstart.verbs._fit_settings import FitSettings
from headstart.verbs._plan_settings import PLANS, CptSettings, SweepSettings, check_sweep, sweep_folder
from headstart.verbs._sweep import (
    DOMAIN,
    GENERAL,
    Origin,
    Sweep,
    before_training,
    constant_name,
    held_out_share_of,
    is_measured,
    named_data,
    origin_of,
    texts_of,
)
from headstart.verbs._sweep_points import domain_figures, parameters, points_of_runs, write_points
from headstart.verbs.fit import FittedLaw, fit_with

POINTS = "points.parquet"


@dataclass(frozen=True)
class PlannedSweep:
    """What `plan dcpt` made.

    Attributes:
        folder: with runs/, points.parquet and law/.
        points: the table of losses.
        law: what was fitted, and the answers.
        general_loss: of the largest checkpoint before training.
        cost: steps, tokens, FLOPs and seconds of all runs of the sweep.
    """

    folder: Path
    points: Path
    law: FittedLaw
    general_loss: float
    cost: dict[str, float]


def plan(what: str, *, say: Callable[[str], None] = print, **settings: Any) -> Any:
    """Plans a continued training.

    Args:
        what: "dcpt" (a sweep and its law, returns `PlannedSweep`) or "cpt" (one model and a budget, returns `CptPlan`).
        settings: those of `SweepSettings` or `CptSettings`: `plan("cpt", init="runs/x", domain="new.jsonl", **{"budget.minutes": 60})`.

    Raises:
        BadInput: data or a model that cannot be used. UsageError: a setting.
    """
    if what not in PLANS:
        raise UsageError(f"There is no plan '{what}'.", f"{did_you_mean(what, PLANS)}The plans: {', '.join(PLANS)}.")
    if what == "dcpt":
        return plan_sweep(replace_nested(SweepSettings(), settings), say)
    from headstart.verbs.plan_cpt import plan_cpt

    return plan_cpt(replace_nested(CptSettings(), settings), say)


def plan_sweep(settings: SweepSettings, say: Callable[[str], None] = print) -> PlannedSweep:
    """`plan dcpt`: makes the runs, writes their losses, fits the law."""
    check_sweep(settings)
    resolve_device(settings.device)
    assert settings.tokens is not None
    origins = [origin_of(folder, settings.peak, settings.batch, settings.sequence_length) for folder in settings.checkpoints]
    folder = sweep_folder(settings)
    data = named_data(settings.domain, settings.general, settings.domain_held_out, settings.general_held_out)
    n_runs = len(origins) * len(settings.ratios) * settings.seeds
    say(f"Sweep: {n_runs} runs of {counted(settings.tokens)} tokens ({len(origins)} sizes x {len(settings.ratios)} ratios x {settings.seeds} seeds)")
    of_old_text = n_runs - n_runs // len(settings.ratios) * (1.0 in settings.ratios)  # the general law leaves r_g = 0 out
    runs: list[Path] = []
    common = run_settings(settings, settings.checkpoints[0])
    texts = texts_of(data, common, origins[0], folder / "runs" / "any")
    finished = is_finished(settings, origins, folder)
    for warning in arithmetic.sweep_epochs(settings.tokens, settings.ratios, texts[DOMAIN], texts[GENERAL], finished=finished):
        say(f"  ! {warning}")
    for origin in origins:
        steps = round(settings.tokens / origin.tokens_per_step)
        sweep = Sweep(folder, data, steps, looks(steps, of_old_text), common, settings.keep_weights, say)
        for seed in range(settings.seed, settings.seed + settings.seeds):
            for ratio in settings.ratios:
                runs.append(sweep.constant(origin, ratio, seed))
                common |= decided(runs[0])  # the first run tries the precision for all: a law is of thousandths
    refuse_twice(runs)
    records, notes = points_of_runs(runs, DOMAIN, GENERAL)
    topic = domain_columns(runs, f"{Path(settings.domain[0]).name.split('.')[0]}-{text_known_by(runs[0])}", say)
    write_points(folder / POINTS, records, topic)
    for note in notes:
        say(f"note: {note}")
    largest = max(runs, key=lambda run: parameters(run, read_run(run)))
    before = before_training(largest)
    cost = cost_of(runs)
    say(f"The sweep took {counted(cost['tokens'])} tokens, {cost['flops']:.3g} FLOPs, {duration(cost['seconds'])}.")
    law = fit_with(law_settings(settings, folder, len(origins), parameters(largest, read_run(largest)), before[GENERAL]), say)
    say(f"Further questions: headstart fit dcpt-law {shlex.quote(str(folder / POINTS))} --general-loss {before[GENERAL]:.6g} --limit 0.03 --at-d D")
    return PlannedSweep(folder, folder / POINTS, law, before[GENERAL], cost)


def domain_columns(runs: list[Path], name: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """What points.parquet says of the new text as a domain among others, so that sweeps of several can be fitted together (`--across-domains`)."""
    if (found := domain_figures(runs, DOMAIN, GENERAL)) is None:
        return None
    say(
        f"Among other domains (for a law across them): k1 = {found.k1:.4f}, k2 = {found.k2:.4f} a thousand steps, over the first {found.steps} at"
        " r_d = 1 on the smallest size."
    )
    return {"domain": name, "k1": found.k1, "k2": found.k2}


def is_finished(settings: SweepSettings, origins: list[Origin], folder: Path) -> bool:
    """Whether every run of a sweep is there: then it is too late to refuse them."""
    assert settings.tokens is not None
    seeds = range(settings.seed, settings.seed + settings.seeds)
    return all(
        is_measured(folder / "runs" / constant_name(origin, ratio, seed), round(settings.tokens / origin.tokens_per_step))
        for origin in origins
        for seed in seeds
        for ratio in settings.ratios
    )


def text_known_by(run: Path) -> str:
    """Eight hexadecimal digits of the new text that a run was trained on: two sweeps of one text are of one domain, whatever their folders."""
    files = [file["sha256"] for entry in read_run(run)["data"] if entry.get("part") == DOMAIN for file in entry.get("inputs", [])]
    return sha256("".join(files).encode()).hexdigest()[:8]


def run_settings(settings: SweepSettings | CptSettings, init: Path) -> dict[str, Any]:
    """Of every run of a plan.

    Args:
        init: what is continued; with several sizes the first.
    """
    share = settings.held_out_share
    return {
        "device": settings.device,
        "precision": settings.precision,
        "text.text_field": settings.text_field,
        "text.held_out_share": held_out_share_of(init) if share is None else share,
    }


def decided(run: Path) -> dict[str, Any]:
    """The precision that the first run of a sweep found for this machine."""
    return {"precision": read_run(run)["decisions"]["precision"]}


def refuse_twice(runs: list[Path]) -> None:
    """Raises UsageError where two checkpoints of one size wrote the same runs."""
    if len(set(runs)) < len(runs):
        raise UsageError("Two of --checkpoints are of one size.", "The law is over sizes: give one checkpoint of each.")


def cost_of(runs: list[Path]) -> dict[str, float]:
    """Steps, tokens, training FLOPs and seconds of runs."""
    totals = [read_run(run)["totals"] for run in runs]
    names = {"steps": "steps", "tokens": "tokens", "flops": "flops", "seconds": "wall_s"}
    return {name: float(sum(of_run[key] for of_run in totals)) for name, key in names.items()}


def law_settings(settings: SweepSettings, folder: Path, sizes: int, n: int, general_loss: float) -> FitSettings:
    """What `fit` is asked of a sweep."""
    asked: dict[str, Any] = {}
    if settings.limit:
        asked = {"limit": settings.limit, "general_loss": general_loss, "at_n": float(n), "at_d": settings.at_d}
    return FitSettings(
        points=(folder / POINTS,), without="N" if sizes == 1 else None, fix=settings.fix, draws=settings.draws, out=folder / "law", **asked
    )
