"""The questions of `headstart fit dcpt-law POINTS`, each answered with an interval from the bootstrap and with what to doubt.

An answer is in parameters, tokens, FLOPs and nats a token, whatever the unit of the law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.core.errors import UsageError
from headstart.core.words import counted, share
from headstart.planning.dcpt_law import answers, plan
from headstart.planning.dcpt_law.fitted import Fitted
from headstart.planning.dcpt_law.forms import Cells, Law
from headstart.planning.dcpt_law.refit import LEVEL, interval

Figures = dict[str, float]


@dataclass(frozen=True)
class Value:
    """A figure with the ends of its 90 % interval, None without a bootstrap."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a question got.

    Attributes:
        figures: name -> value; empty if there is no answer.
        reached: share of the bootstrap's laws that have an answer; None without a bootstrap.
        words: one sentence.
        warnings: what to doubt.
    """

    question: str
    figures: Mapping[str, Value]
    reached: float | None
    words: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def with_intervals(
    of: Callable[[Law, float], Figures | None],
    fitted: Fitted,
    at: tuple[float, float] | None = None,
    unsure: float = 0.0,
    otherwise: Figures | None = None,
) -> tuple[dict[str, Value], float | None]:
    """Figures of a law with intervals from its draws, and the share of draws that have an answer.

    Args:
        of: figures of one law, whose losses are multiplied by a factor (`Fitted.factors`); None where it has no answer.
        at: (N, D) of the question, in the law's unit, which decide how much a law errs there; None: losses have no part in the answer.
        unsure: a further standard deviation of losses, in nats.
        otherwise: what a draw without an answer says all the same, at the end of the scale: left out it would make the others look sure.
    """
    best = of(fitted.law, 1.0)
    factors = np.ones(len(fitted.draws)) if at is None else fitted.factors(Cells.of(*at, 1.0), unsure)[:, 0]
    drawn = [of(law, float(factor)) for law, factor in zip(fitted.draws, factors, strict=True)]
    reached = sum(figures is not None for figures in drawn) / len(drawn) if drawn else None
    if best is None:
        return {}, reached
    found = [otherwise if figures is None else figures for figures in drawn]
    told = [figures for figures in found if figures is not None]
    if not told:
        return {name: Value(value) for name, value in best.items()}, reached
    ends = {name: interval(np.array([figures[name] for figures in told])) for name in best}
    return {name: Value(value, float(ends[name][0]), float(ends[name][1])) for name, value in best.items()}, reached


def best_ratio(
    domain: Fitted | None,
    general: Fitted,
    n: float,
    d: float,
    limit: float,
    general_loss: float,
    anneal: tuple[float, float] = (0.0, 0.0),
    unique_tokens: float | None = None,
) -> Answer:
    """Usage 1: the largest share of domain text that keeps the general loss within `limit`.

    Args:
        n, d: of the planned run, in parameters and tokens.
        general_loss: of the checkpoint before training, measured.
        anneal: by how much annealing the rate lowers general and domain loss, where the points are of a constant rate (`_unsure_of`).
        unique_tokens: domain text that there is; the answer then counts epochs.
    """
    at = (n / general.unit_n, d / general.unit_d)

    def of(law: Law, factor: float) -> Figures | None:
        ratio = answers.trade_off(law, *at, limit, general_loss / factor, anneal[0] / factor)
        return None if ratio is None else {"r_d": ratio}

    figures, reached = with_intervals(of, general, at, _unsure_of(anneal, general, d), {"r_d": 0.0})
    bound = answers.limit_of(general_loss, limit)
    question = f"the largest r_d whose general loss stays within {share(limit)} of {general_loss:g} ({bound:.4f}), {_run(n, d)}"
    if not figures:
        least = general.law.loss(*at, 1.0) - anneal[0]
        words = f"none: with general text alone the general loss is {least:.4f}. A lower learning rate, or a larger limit."
        return Answer(question, {}, reached, words, tuple(general.doubts(*at, 1.0)))
    ratio = figures["r_d"].value
    figures |= {"general_loss": _loss(general, *at, 1 - ratio, anneal[0], _unsure_of(anneal, general, d))}
    figures |= {} if domain is None else {"domain_loss": _loss(domain, *at, ratio, anneal[1], _unsure_of(anneal, domain, d))}
    words = f"r_d = {_shown(figures['r_d'])}: general loss {_shown(figures['general_loss'])}"
    words += f", domain loss {_shown(figures['domain_loss'])}" if "domain_loss" in figures else ""
    warnings = general.doubts(*at, 1 - ratio)
    if domain is not None:
        warnings += [line for line in domain.doubts(*at, ratio) if line not in warnings]
    if unique_tokens is not None:
        warnings += _epochs(d, ratio, unique_tokens)
    others = "the others break the limit at any share of domain text, and count as r_d = 0 in its interval"
    return Answer(question, figures, reached, words, tuple(warnings + _unsure(reached, others)))


def limited(domain: Fitted, n: float, domain_tokens: float) -> Answer:
    """Usage 2: how much general text to add when there are `domain_tokens` of the domain, each read once."""

    def of(law: Law, _: float) -> Figures:
        ratio, d = answers.limited_text(law, n / domain.unit_n, domain_tokens / domain.unit_d)
        return {"r_d": ratio, "tokens": d * domain.unit_d}

    figures, reached = with_intervals(of, domain)
    ratio, d = figures["r_d"].value, figures["tokens"].value / domain.unit_d
    figures["domain_loss"] = _loss(domain, n / domain.unit_n, d, ratio)
    figures["domain_loss_alone"] = _loss(domain, n / domain.unit_n, domain_tokens / domain.unit_d, 1.0)
    words = f"r_d = {_shown(figures['r_d'])}, {counted(figures['tokens'].value)} tokens in all: domain loss {_shown(figures['domain_loss'])}"
    words += f" ({figures['domain_loss_alone'].value:.4f} with domain text alone)"
    at = (n / domain.unit_n, d, ratio)
    question = f"the r_d of least domain loss with {counted(domain_tokens)} domain tokens, N = {counted(n)}"
    return Answer(question, figures, reached, words, tuple(domain.doubts(*at)))


def best_size(domain: Fitted, flops: float, ratio: float, sizes: Sequence[float] = ()) -> Answer:
    """Usage 3: which size and how many tokens for a compute budget of 6 N D."""
    budget = flops / domain.unit_n / domain.unit_d

    def of(law: Law, _: float) -> Figures:
        n, d = answers.best_size(law, budget, ratio, [size / domain.unit_n for size in sizes])
        return {"parameters": n * domain.unit_n, "tokens": d * domain.unit_d}

    figures, reached = with_intervals(of, domain)
    n, d = figures["parameters"].value, figures["tokens"].value
    figures["domain_loss"] = _loss(domain, n / domain.unit_n, d / domain.unit_d, ratio)
    words = f"{counted(n)} parameters{_between(figures['parameters'])}, {counted(d)} tokens: domain loss {_shown(figures['domain_loss'])}"
    of_given = " of the sizes given" if sizes else ""
    question = f"the best size{of_given} and tokens for {flops:.3g} FLOPs at r_d = {ratio:g}"
    at = (n / domain.unit_n, d / domain.unit_d, ratio)
    return Answer(question, figures, reached, words, tuple(domain.doubts(*at)))


def least_tokens(domain: Fitted, n: float, ratio: float, target: float) -> Answer:
    """Usage 4: the fewest tokens for a target domain loss."""

    def of(law: Law, factor: float) -> Figures | None:
        d = answers.least_tokens(law, n / domain.unit_n, ratio, target / factor)
        return None if d is None else {"tokens": d * domain.unit_d}

    found = answers.least_tokens(domain.law, n / domain.unit_n, ratio, target)
    figures, reached = with_intervals(of, domain, None if found is None else (n / domain.unit_n, found), otherwise={"tokens": math.inf})
    question = f"the fewest tokens for a domain loss of {target:g}, N = {counted(n)}, r_d = {ratio:g}"
    floor = answers.limit_of_data(domain.law, n / domain.unit_n, ratio)
    if not figures:
        words = f"unreachable: the law's limit for endless tokens is {floor:.4f}."
        return Answer(question, {}, reached, words, tuple(domain.doubts(n / domain.unit_n, None, ratio)))
    d = figures["tokens"].value
    words = f"{counted(d)} tokens{_between(figures['tokens'])} (limit for endless tokens: {floor:.4f})"
    at = (n / domain.unit_n, d / domain.unit_d, ratio)
    return Answer(question, figures, reached, words, (*domain.doubts(*at), *_unsure(reached, "the others reach the loss with no number of tokens")))


def predicted(
    fitted: Sequence[Fitted],
    n: float,
    d: float,
    ratio: float,
    k1: float | None = None,
    k2: float | None = None,
    anneal: tuple[float, float] = (0.0, 0.0),
) -> Answer:
    """Both losses at one point.

    Args:
        k1, k2: of a new domain, for the cross-domain law.
        anneal: as of `best_ratio`.
    """

    figures: dict[str, Value] = {}
    warnings: list[str] = []
    for one in fitted:
        at = (n / one.unit_n, d / one.unit_d, ratio if one.which == "domain" else 1 - ratio)
        lower = anneal[0] if one.which == "general" else anneal[1]
        figures[f"{one.which}_loss"] = _loss(one, *at, lower, _unsure_of(anneal, one, d), k1, k2)
        warnings += [line for line in one.doubts(*at) if line not in warnings]
    words = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in figures.items())
    of_domain = "" if k1 is None else f", a domain of k1 = {k1:g}, k2 = {k2:g}"
    return Answer(f"the losses, {_run(n, d)}, r_d = {ratio:g}{of_domain}", figures, None, words, tuple(warnings))


def _loss(
    one: Fitted, n: float, d: float, r: float, lower: float = 0.0, unsure: float = 0.0, k1: float | None = None, k2: float | None = None
) -> Value:
    """The prediction at one point, in the law's unit, and its interval; `lower` by what annealing does."""
    cells = Cells.of(n, d, r, k1, k2)
    value, ends = float(one.law.predict(cells)[0]) - lower, one.interval(cells, unsure)
    return Value(value) if ends is None else Value(value, float(ends[0][0]) - lower, float(ends[1][0]) - lower)


def _unsure_of(anneal: tuple[float, float], one: Fitted, d: float) -> float:
    """What annealing does is measured once, at the end of a short run. Of a longer one it may be another amount: a standard deviation as large as the
    larger of the two that were measured (a choice; at 24 times a short run they were seen to differ by 0.06 and 0.09 nats)."""
    return max(map(abs, anneal)) if d / one.unit_d > one.ranges.d[1] * (1 + 1e-6) else 0.0


def _run(n: float, d: float) -> str:
    return f"N = {counted(n)}, D = {counted(d)}"


def _shown(value: Value) -> str:
    """2.0348 (90 % 2.0301 to 2.0390)"""
    return f"{value.value:.4f}" if value.low is None else f"{value.value:.4f} ({LEVEL:.0%} {value.low:.4f} to {value.high:.4f})"


def _between(value: Value) -> str:
    if value.low is None or value.high is None:
        return ""
    low, high = (counted(end) if math.isfinite(end) else "no number of them" for end in (value.low, value.high))
    return f" ({LEVEL:.0%} {low} to {high})"


def _unsure(reached: float | None, others: str) -> list[str]:
    return [] if reached is None or reached == 1 else [f"only {share(reached)} of the refits have an answer: {others}"]


def _epochs(d: float, ratio: float, unique_tokens: float) -> list[str]:
    try:
        found = plan.repeats(plan.epochs(d, ratio, unique_tokens))
    except UsageError as error:
        return [f"{error.what} {error.mend}"]
    return [] if found is None else [found]
