"""Arithmetic of a plan, all of it before and after the runs: where a sweep looks at its losses, what planning may cost, how often text is read, and
what gives way when the domain text is too short."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.core.errors import UsageError
from headstart.core.words import counted, rounded_up
from headstart.planning.dcpt_law.answers import limited_text
from headstart.planning.dcpt_law.forms import Law
from headstart.planning.dcpt_law.points import FEWEST_POINTS

MANY_EPOCHS, MOST_EPOCHS = 1.0, 4.0
"""Up to about four epochs repeats are nearly as good as new text (Muennighoff et al. 2023); beyond, D no longer says what was learnt."""

WARMUP_STEPS = 20
"""Of every run of a sweep; then the rate stays, so that a loss in mid-run is that of a shorter run."""
RATE_SHARE = 0.5
"""Of the planned peak: the constant rate of a sweep."""
OCTAVES = 3
"""A run is looked at from D_max / 8 on: what comes before is the transient, which no term of the law knows."""

RATIOS = (0.1, 0.2, 0.5, 0.8, 1.0)
"""r_d of the sweep of `plan cpt`."""
ANNEALED_RATIO = 0.5
"""r_d of the run that has the planned schedule instead: it says by how much annealing lowers the losses."""
FEWEST_SWEEP_STEPS = 2 * WARMUP_STEPS
"""Of a run of a sweep: half of it must lie behind the warm-up."""
MARGIN = {"minutes": 1.1}
"""Unit of a budget -> what it is told larger by: the next call measures the speed anew."""
SUBSETS = 4
"""A subset is a quarter of the run, read four times (Guo et al. 2025)."""
LEAST_SUBSET = 0.1
"""Of the domain text: what is better than nine tenths of a pool is a small part of it already."""


def evaluation_steps(total_steps: int, per_octave: int = 2) -> tuple[int, ...]:
    """The steps at which a run of a sweep is looked at, D_max 2^(-k / per_octave) from D_max / 8 on, ascending; never within the warm-up.

    Raises:
        UsageError: the run is too short to have a constant rate.
    """
    if total_steps < FEWEST_SWEEP_STEPS:
        what = f"A run of the sweep would have {total_steps} steps, {WARMUP_STEPS} of them warm-up."
        raise UsageError(what, f"Give at least {FEWEST_SWEEP_STEPS}: more tokens, or a smaller --batch.")
    steps = {round(total_steps * 2 ** (-k / per_octave)) for k in range(OCTAVES * per_octave + 1)}
    return tuple(sorted(step for step in steps if step > WARMUP_STEPS))


def looks(total_steps: int, runs: int) -> tuple[int, ...]:
    """`evaluation_steps`, two an octave (7 a run), or as many more as few runs need to give a law its 30 points.

    Args:
        runs: whose points one law is fitted to; of the general loss those with old text.

    Raises:
        UsageError: the runs are too short for so many points.
    """
    for per_octave in (2, 4, 8):
        steps = evaluation_steps(total_steps, per_octave)
        if len(steps) * runs >= FEWEST_POINTS:
            return steps
    what = f"{runs} runs of {total_steps} steps give {len(steps) * runs} points behind the warm-up; a law needs {FEWEST_POINTS}."
    raise UsageError(what, "Give longer runs: more tokens, or a smaller --batch; `plan dcpt` makes more of them with --ratios and --seeds.")


@dataclass(frozen=True)
class Split:
    """How a budget is divided, in steps.

    Attributes:
        of_each: of every run of the sweep. runs: how many there are. left: of the long run.
    """

    of_each: int
    runs: int
    left: int

    @property
    def planning(self) -> int:
        return self.of_each * self.runs


def split_budget(total_steps: int, share: float, runs: int = len(RATIOS) + 1, given: tuple[str, float] | None = None) -> Split:
    """Planning gets at most `share`, in equal runs; the long run gets the rest.

    Args:
        given: the budget as the person gave it: ("minutes", 30.0). None: as steps.

    Raises:
        UsageError: the runs of the sweep would be too short to say anything.
    """
    of_each = int(share * total_steps / runs)
    if of_each < FEWEST_SWEEP_STEPS:
        need = math.ceil(FEWEST_SWEEP_STEPS * runs / share - 1e-6)
        unit, amount = given or ("steps", total_steps)
        steps = f"{total_steps:,} steps"
        budget = steps if unit == "steps" else f"{amount:g} {unit} ({steps})"
        enough = str(need) if unit == "steps" else rounded_up(MARGIN.get(unit, 1.0) * amount * need / total_steps)
        what = f"A budget of {budget} leaves {of_each} steps for each of the {runs} runs of the sweep ({share:.3g} of it, together)."
        beside = "a larger --planning-share, a smaller --batch, or choose a ratio yourself: pretrain --mix."
        mend = f"Give --budget.{unit} {enough} or more, {beside}"
        raise UsageError(what, mend)
    return Split(of_each, runs, total_steps - runs * of_each)


def epochs(tokens: float, ratio: float, unique_tokens: float) -> float:
    """How often the domain text is read: r D / U.

    Args:
        tokens: of the run, D. ratio: r_d. unique_tokens: of the domain, U.

    Raises:
        UsageError: above four epochs.
    """
    found = ratio * tokens / unique_tokens
    if found > MOST_EPOCHS * (1 + 1e-9):
        what = f"{ratio:.3g} of {tokens:,.0f} tokens read {unique_tokens:,.0f} domain tokens {found:.3g} times."
        fitting = f"At most {MOST_EPOCHS:g} epochs: r_d {MOST_EPOCHS * unique_tokens / tokens:.3g} at these tokens"
        raise UsageError(what, f"{fitting}, {MOST_EPOCHS * unique_tokens / ratio:,.0f} tokens at this r_d, or more domain text.")
    return found


def old_repeats(ratio: float, tokens: float, old_tokens: float) -> tuple[float, str | None]:
    """(how many times a run reads its old text, the warning where that is more than four)."""
    found = (1 - ratio) * tokens / old_tokens
    if found <= MOST_EPOCHS:
        return found, None
    read = f"the old text is read {found:.3g} times by the run, its {counted(old_tokens)} tokens are learnt by heart"
    return found, f"{read}: give more of it as --general"


def repeats(found: float) -> str | None:
    """The warning for more than one epoch."""
    return f"the domain text is read {found:.3g} times: the law was made for new text" if found > MANY_EPOCHS else None


def sweep_epochs(tokens: float, ratios: Sequence[float], domain_tokens: float, general_tokens: float, *, finished: bool = False) -> list[str]:
    """The warnings of a sweep whose runs read a text more than once: the law was made for new text, and D counts repeats as if they were new.

    Args:
        tokens: of each run. ratios: its r_d. domain_tokens, general_tokens: that there are to train on. finished: its runs are there already.

    Raises:
        UsageError: a run that is still to be made reads the domain text more than four times.
    """
    of_domain = max(ratios) * tokens / domain_tokens if finished else epochs(tokens, max(ratios), domain_tokens)
    read = {"domain": of_domain, "general": (1 - min(ratios)) * tokens / general_tokens}
    most = {"domain": max(ratios), "general": min(ratios)}
    return [
        f"in the sweep the {which} text is read up to {found:.3g} times (r_d = {most[which]:g}): the law was made for new text"
        for which, found in read.items()
        if found > MANY_EPOCHS
    ]


def subset_tokens(tokens: float, unique_tokens: float) -> float | None:
    """How much of the domain text to choose by quality: a quarter of the run, not below a tenth of the text. None: all of it, because the run is as
    long as it."""
    return max(tokens / SUBSETS, LEAST_SUBSET * unique_tokens) if unique_tokens > tokens else None


def epoch_tokens(tokens: float, ratio: float, unique_tokens: float, subset: float | None) -> float:
    """Tokens, general text included, after which the domain text is drawn anew: a quarter of the run with a subset, U / r with everything; at most
    the run."""
    return tokens / SUBSETS if subset is not None else min(tokens, unique_tokens / ratio)


@dataclass(frozen=True)
class Fitting:
    """A run whose domain text suffices.

    Attributes:
        tokens, ratio: D and r_d. lowered: which of the two gave way, "", "r", "D" or "r and D".
    """

    tokens: float
    ratio: float
    lowered: str = ""


def within_epochs(domain: Law, general: Law, n: float, tokens: float, ratio: float, unique_tokens: float, bound: float) -> Fitting:
    """The run of least predicted domain loss that reads the domain text four times at most and keeps the general loss.

    Where r D / U is more, domain tokens are fixed at 4 U (usage 2) and D = 4 U / r: r may be anything from 4 U / D (the whole run, less of it domain
    text) to `ratio` (a shorter run of the same mixture).

    Args:
        n, tokens, unique_tokens: in the laws' unit.
        ratio: r_d that keeps the limit at `tokens`.
        bound: what the constant-rate general loss may reach (`answers.limit_of`).
    """
    most = MOST_EPOCHS * unique_tokens
    if ratio * tokens <= most:
        return Fitting(tokens, ratio)
    least = most / tokens
    best, _ = limited_text(domain, n, most)
    best = min(max(best, least), ratio)
    if general.loss(n, most / best, 1 - best) > bound:  # a shorter run has recovered less of the general loss
        low, high = least, best
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if general.loss(n, most / middle, 1 - middle) <= bound else (low, middle)
        best = low
    if best <= least * (1 + 1e-6):
        return Fitting(tokens, least, "r")
    return Fitting(most / best, best, "D" if best >= ratio * (1 - 1e-6) else "r and D")
