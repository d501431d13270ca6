"""What a person reads of a fitted law. Pure: laws and answers in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from headstart.core.words import counted, number, share
from headstart.planning.dcpt_law.ask import Answer
from headstart.planning.dcpt_law.fitted import Fitted
from headstart.planning.dcpt_law.points import LossTable
from headstart.planning.dcpt_law.refit import Over, Quality, Rival

WIDTH = 110
NO_QUESTION = (
    "\nNothing was asked. For the largest share of domain text within 3 % of the old general loss:"
    "\n  --limit 0.03 --general-loss L --at-n N --at-d D   (others: --domain-tokens, --flops, --target; `headstart fit --help`)"
)
HELD_OUT: tuple[Over, ...] = ("sizes", "tokens", "ratios")


def points(table: LossTable) -> str:
    """What was read."""
    sizes, counts, ratios = (np.unique(values) for values in (table.n, table.d, table.r_d))
    n, d = ([counted(float(value) * unit) for value in (values[0], values[-1])] for values, unit in ((sizes, table.unit_n), (counts, table.unit_d)))
    several = f"{len(sizes)} sizes, N = {n[0]} to {n[1]}" if len(sizes) > 1 else f"one size, N = {n[0]}"
    mixtures = f"{len(ratios)} ratios, r_d = {ratios[0]:g} to {ratios[-1]:g}"
    return f"{len(table):,} points of {table.n_runs} runs: {several}; D = {d[0]} to {d[1]}; {mixtures}"


def law(one: Fitted) -> list[str]:
    """Form, parameters, quality, and how the fit went."""
    fit = one.fit
    of = "r is r_d, the share of domain text" if one.which == "domain" else "r is r_g, the share of general text"
    units = f"N and D in {'billions' if one.unit_n == 1e9 else 'millions'}"
    values = [f"{name} {value:.4g}{' (given)' if name in fit.fixed else ''}" for name, value in one.law.parameters.items()]
    rows = [f"{one.which} loss = {one.law.form.formula}   ({of}; {units})"]
    rows += textwrap.wrap("   ".join(values), WIDTH, initial_indent="  ", subsequent_indent="  ")
    good = f"R2 {one.quality.r2:.5f}, mean |error| {share(one.quality.error)}, mean Huber {number(one.quality.huber)}"
    rows.append(f"  {good}; {fit.agreeing} of {fit.starts} starts end here")
    rows += [] if one.errors is None else [f"  {one.errors.words()}"]
    if "eta" in one.law.parameters:
        least = one.law.least_d
        if least is None:
            rows.append("  eta is below 1: near r = 0 the law rises in r, which the paper rules out; do not use it there")
        elif least > one.ranges.d[0]:
            rows.append(f"  falls in r everywhere from D = {counted(least * one.unit_d)} on; below, more of the text could seem to harm")
    return rows


def rivals(one: Fitted) -> list[str]:
    """The law beside its rivals: mean |error| on what was fitted and on what was held out, in per cent."""
    if not one.rivals:
        return []
    rows = [["form", "parameters", "R2", "error", *(f"held-out {name}" for name in HELD_OUT)]]
    rows += [_row(rival) for rival in one.rivals]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(["", row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows]


def _row(rival: Rival) -> list[str]:
    within = ["–", "–"] if rival.within is None else [f"{rival.within.r2:.5f}", share(rival.within.error)]
    return [rival.name, str(rival.parameters), *within, *(_error(rival.held_out.get(over)) for over in HELD_OUT)]


def _error(found: Quality | None) -> str:
    return "–" if found is None else share(found.error)


def held_out(which: str, found: Quality) -> str:
    """The points that were only predicted."""
    return f"held out, {which} loss: {found.n} points, R2 {found.r2:.4f}, mean |error| {share(found.error)}"


def answers(found: Sequence[Answer]) -> list[str]:
    """Question, answer, doubts."""
    rows = []
    for answer in found:
        rows += textwrap.wrap(f"? {answer.question}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        rows += textwrap.wrap(answer.words, WIDTH, initial_indent="  = ", subsequent_indent="    ", break_on_hyphens=False)
        rows += [line for warning in answer.warnings for line in textwrap.wrap(warning, WIDTH, initial_indent="  ! ", subsequent_indent="    ")]
    return rows
