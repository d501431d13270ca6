"""The D-CPT law (Que et al., NeurIPS 2024, arXiv 2406.01375): do a few mixtures predict unseen ones, and does the recommended one keep the limit?

A sweep is four checkpoints x nine ratios of old and new text at a constant rate; a seed is an order of the data. What is held out are whole runs:

- ratios: three ratios that the fit has not seen; rivals: L1 (no interaction), straight lines in r.
- size: the largest checkpoint; rivals: L1, a Chinchilla law for each ratio.
- tokens: the points above D_max / 2; rivals: L1, a Chinchilla law for each ratio, the last value carried forward.
- recommendation: r_d for limits of 2 % and 5 % on the general loss, trained; it fails where the limit is broken by more than half a per cent, or
  where a tenth more of new text would have kept it and learned more.

The error of a way of predicting is the mean |log L_hat - log L| over held-out cells of both losses. All of them see the same sweep, so their training
costs are equal; what the sweep costs beside a plain grid search is part of the result. Preset smoke has no training: its sweep is a known law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headstart.claims._claim import Arm, Claim, Comparison, Data, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._dcpt_sweep import Case, MeasuredSweep
from headstart.planning.dcpt_law.answers import limit_of, trade_off
from headstart.planning.dcpt_law.fitted import used
from headstart.planning.dcpt_law.forms import CHINCHILLA, L1, L3, Array, Cells, Form, Law
from headstart.planning.dcpt_law.plan import OCTAVES
from headstart.planning.dcpt_law.points import LossTable, Which, rising_in_n
from headstart.planning.dcpt_law.refit import quality
from headstart.planning.dcpt_law.solve import fit

FITTED = (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)
HELD_OUT = (0.35, 0.65, 0.9)
LIMITS = (0.02, 0.05)
GOAL = 0.01
"""The error that is claimed."""
BROKEN = 0.005
"""Of the limit, in L_g0: so much more is noise."""
NO_GAIN = 0.005
"""Nats of domain loss that are not worth a tenth more of new text."""
STEP_UP = 0.1
BOTH: tuple[Which, Which] = ("domain", "general")
GENERAL_TRUTH = Law.of(L3, (1.90, 0.35, 0.22, 0.06, 0.25, 1.20, 0.25, 0.30, 0.03))
DOMAIN_TRUTH = Law.of(L3, (1.20, 0.30, 0.25, 0.08, 0.30, 1.30, 0.45, 0.40, 0.08))
"""The laws of smoke's sweep."""


class Points(NamedTuple):
    """Cells with their losses."""

    cells: Cells
    losses: Array


# --- ways of predicting --------------------------------------------------------------------------------------------------------------------------


def by_form(form: Form) -> Callable[[Points, Cells], Array]:
    """A law fitted to all points."""

    def predict(known: Points, asked: Cells) -> Array:
        return fit(form, *known).law.predict(asked)

    return predict


def by_ratio(known: Points, asked: Cells) -> Array:
    """A Chinchilla law for each ratio, E + A / N^alpha + B / D^beta."""
    predicted = np.empty(len(asked))
    for ratio in np.unique(asked.r):
        at, of_ratio = asked.r == ratio, np.isclose(known.cells.r, ratio)
        predicted[at] = fit(CHINCHILLA, known.cells[of_ratio], known.losses[of_ratio]).law.predict(asked[at])
    return predicted


def interpolated(known: Points, asked: Cells) -> Array:
    """Straight lines in r between the measured ratios at the same size and tokens; on through the outermost two."""
    predicted = np.empty(len(asked))
    for at in range(len(asked)):
        here = np.isclose(known.cells.n, asked.n[at]) & np.isclose(known.cells.d, asked.d[at])
        order = np.argsort(known.cells.r[here])
        r, losses = known.cells.r[here][order], known.losses[here][order]
        right = int(np.clip(np.searchsorted(r, asked.r[at]), 1, len(r) - 1))
        share = (asked.r[at] - r[right - 1]) / (r[right] - r[right - 1])
        predicted[at] = losses[right - 1] + share * (losses[right] - losses[right - 1])
    return predicted


def carried_forward(known: Points, asked: Cells) -> Array:
    """The last measured loss of the same size and ratio: no model of what further tokens do."""
    predicted = np.empty(len(asked))
    for at in range(len(asked)):
        here = np.flatnonzero(np.isclose(known.cells.n, asked.n[at]) & np.isclose(known.cells.r, asked.r[at]))
        predicted[at] = known.losses[here[known.cells.d[here].argmax()]]
    return predicted


WAYS: Mapping[str, tuple[Callable[[Points, Cells], Array], tuple[str, ...]]] = {
    "L3": (by_form(L3), ("ratios", "size", "tokens")),
    "L1": (by_form(L1), ("ratios", "size", "tokens")),
    "interpolation": (interpolated, ("ratios",)),
    "chinchilla": (by_ratio, ("size", "tokens")),
    "carried_forward": (carried_forward, ("tokens",)),
}
"""Arm -> how it predicts, and what it says something about."""


# --- what is held out ----------------------------------------------------------------------------------------------------------------------------


def among(values: Array, wanted: tuple[float, ...]) -> NDArray[np.bool_]:
    return np.isclose(values[:, None], np.array(wanted)).any(1)


def held_out(table: LossTable, test: str, which: Which) -> tuple[Points, Points]:
    """(known, asked) of one loss. Whole runs are held out, and for `tokens` what comes after half of every run."""
    fitted = among(table.r_d, FITTED)
    largest, late = np.isclose(table.n, table.n.max()), table.d > 0.5 * table.d.max() * (1 + 1e-6)
    known, asked = {
        "ratios": (fitted, among(table.r_d, HELD_OUT)),
        "size": (fitted & ~largest, fitted & largest),
        "tokens": (fitted & ~late, fitted & late),
    }[test]
    cells, losses, inside = table.cells(which), table.losses(which), used(table, which)
    return Points(cells[known & inside], losses[known & inside]), Points(cells[asked & inside], losses[asked & inside])


def error(table: LossTable, test: str, way: str) -> Score:
    """The mean |log L_hat - log L| over the held-out cells of both losses; R2 of each beside."""
    residuals, beside = [], {}
    for which in BOTH:
        known, asked = held_out(table, test, which)
        predicted = WAYS[way][0](known, asked.cells)
        residuals.append(np.log(predicted) - np.log(asked.losses))
        beside[f"R2 of the {which} loss"] = quality(predicted, asked.losses).r2
    return Score(float(np.abs(np.concatenate(residuals)).mean()), beside=beside)


def error_task(test: str, sweeps: Sweeps) -> Task:
    def measure(use: Use) -> Score:
        if use.model.arm.name == "goal":
            return Score(GOAL)
        return error(sweeps.table(use.model.seed, "test", use.device), test, use.model.arm.name)

    return Task(test, measure, arms=("goal", *(way for way, (_, tests) in WAYS.items() if test in tests)))


# --- the recommendation --------------------------------------------------------------------------------------------------------------------------


def recommended(table: LossTable, n: float, d: float, limit: float, general_loss: float) -> float | None:
    """The largest r_d whose general loss keeps the limit, from the law of the fitted mixtures."""
    known = among(table.r_d, FITTED) & used(table, "general")
    return trade_off(fit(L3, table.cells("general")[known], table.losses("general")[known]).law, n, d, limit, general_loss)


def fails(case: Case, limit: float) -> bool:
    """Whether a recommendation was wrong: the limit is broken, or a tenth more of new text would have kept it and learned more."""
    if case.general > limit_of(case.before, limit + BROKEN):
        return True
    return case.more_general <= limit_of(case.before, limit) and case.domain - case.more_domain >= NO_GAIN


def recommendation_task(sweeps: Sweeps) -> Task:
    """The share of limits whose recommendation fails, at the third size and D_max."""

    def measure(use: Use) -> Score:
        if use.model.arm.name == "goal":
            return Score(0.0)
        found: list[bool] = []
        beside: dict[str, float] = {}
        for limit in LIMITS:
            ratio = sweeps.ratio_for(limit, use.model.seed, use.device)
            if ratio is None:
                found.append(True)
                continue
            case = sweeps.case(ratio, use.model.seed, use.device)
            found.append(fails(case, limit))
            at = f"T = {100 * limit:g} %"
            beside |= {f"{at}: r_d": ratio, f"{at}: general loss over the limit": case.general / limit_of(case.before, limit) - 1}
            beside |= {f"{at}: domain loss": case.domain, f"{at}: domain loss at r_d + 0.1": case.more_domain}
        sweep, grid = sweeps.cost(use.model.seed, use.device)
        return Score(float(np.mean(found)), beside=beside | {"FLOPs of the sweep": sweep, "FLOPs of a grid search of nine ratios": grid})

    return Task("recommendation", measure, arms=("goal", "L3"))


# --- the sweep -----------------------------------------------------------------------------------------------------------------------------------


class Sweeps:
    """The sweeps of all seeds: runs, or for smoke a known law with noise."""

    def __init__(self, options: Mapping[str, Any], folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.measured = None if options.get("synthetic") else MeasuredSweep(options, folder, (*FITTED, *HELD_OUT), say)

    def table(self, seed: int, split: str, device: str) -> LossTable:
        """All cells of a seed, with losses on "test" or "val" text."""
        return synthetic(seed) if self.measured is None else self.measured.table(seed, split, device)

    def ratio_for(self, limit: float, seed: int, device: str) -> float | None:
        """r_d that the law recommends for the third size, decided on val."""
        table = self.table(seed, "val", device)
        n, d = np.unique(table.n)[2 if self.measured else 1], table.d.max()
        before = GENERAL_TRUTH.loss(n, d, 1.0) if self.measured is None else self.measured.before(seed, "val", device)
        return recommended(table, n, d, limit, before)

    def case(self, ratio: float, seed: int, device: str) -> Case:
        """What training at it, and at a tenth more, gives."""
        if self.measured is not None:
            return self.measured.case(ratio, min(1.0, ratio + STEP_UP), seed, device)
        n, d, more = 1.8, 10.0, min(1.0, ratio + STEP_UP)
        losses = [law.loss(n, d, r) for r_d in (ratio, more) for law, r in ((GENERAL_TRUTH, 1 - r_d), (DOMAIN_TRUTH, r_d))]
        return Case(GENERAL_TRUTH.loss(n, d, 1.0), *losses)

    def cost(self, seed: int, device: str) -> tuple[float, float]:
        """(FLOPs of the fitted mixtures, FLOPs of a grid search of nine ratios), all sizes."""
        if self.measured is None:
            return 0.0, 0.0
        return self.measured.flops(FITTED, seed, device), self.measured.flops((*FITTED, *HELD_OUT), seed, device)


@lru_cache(maxsize=4)
def synthetic(seed: int) -> LossTable:
    """Losses of two known laws with noise of 0.2 %, in billions."""
    counts = [10.0 * 2 ** (-k / 2) for k in range(2 * OCTAVES + 1)]
    grid = np.array([(n, d, r) for n in (0.5, 1.8, 4.0, 8.0) for d in counts for r in (*FITTED, *HELD_OUT)])
    n, d, r = grid.T
    rng = np.random.default_rng(seed)
    noise = [np.exp(rng.normal(0, 0.002, len(n))) for _ in BOTH]
    domain, general = DOMAIN_TRUTH.predict(Cells.of(n, d, r)) * noise[0], GENERAL_TRUTH.predict(Cells.of(n, d, 1 - r)) * noise[1]
    run = np.unique(np.stack([n, r]), axis=1, return_inverse=True)[1].ravel()
    places = np.array([f"made, record {number}" for number in range(len(n))])
    return LossTable(n, d, r, domain, general, run, None, None, None, places, 1e9, 1e9)


@dataclass(frozen=True)
class LawData(Data):
    """With the sweeps, whose losses say whether a law can be asked of them."""

    sweeps: Sweeps | None = None


def open_data(scale: Scale, folder: Path) -> Data:
    synthetic_only = bool(scale.options.get("synthetic"))
    sweeps = Sweeps(scale.options, folder.parent, say=print)
    train = data_folder("textgen", fixture=synthetic_only) / "train.jsonl.zst"
    facts: dict[str, Any] = {"name": "two known laws", "source": "made up", "train": 0, "test": 0, "split": "none: smoke trains nothing"}
    if sweeps.measured is not None:
        facts = sweeps.measured.facts()
    return LawData(
        facts=facts,
        corpora={"train": [train]},
        tasks=(*(error_task(test, sweeps) for test in ("ratios", "size", "tokens")), recommendation_task(sweeps)),
        files=() if sweeps.measured is None else sweeps.measured.files(),
        sweeps=sweeps,
    )


def validity(scores: Mapping[str, Mapping[str, float]], data: Data) -> list[str]:
    """Why nothing is decided: checkpoints that were not trained equally well, or losses that do not do what a law can say."""
    assert isinstance(data, LawData)
    if data.sweeps is None or data.sweeps.measured is None:
        return []
    measured = data.sweeps.measured
    found = measured.upstream_doubts()
    for seed in measured.seeds():
        found += [f"seed {seed}: {doubt}" for doubt in table_doubts(measured.table(seed, "test", measured.device))]
    return found


def table_doubts(table: LossTable) -> list[str]:
    """What of a sweep's losses no law can say, before one is fitted."""
    found = []
    for which in BOTH:
        wrong, cells = rising_in_n(table, which)
        if 2 * len(wrong) > cells:
            found.append(f"the {which} loss rises with the size in {len(wrong)} of {cells} cells: the checkpoints were not trained equally well")
    last = np.isclose(table.d, table.d.max()) & (table.r_d < 1)
    for n in np.unique(table.n):
        of_size = last & (table.n == n)
        losses = table.losses("general")[of_size][np.argsort(table.r_d[of_size])]
        if losses[-1] <= losses[0]:
            found.append(f"the general loss of N = {n * table.unit_n:,.0f} does not fall with the share of old text")
    return found


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The cost of the sweep, and the paper's R2 beside ours."""
    of_law = figures.get("L3", {})
    said = []
    if grid := of_law.get("recommendation: FLOPs of a grid search of nine ratios"):
        sweep = of_law["recommendation: FLOPs of the sweep"]
        said.append(f"The fitted sweep took {sweep:.3g} training FLOPs a seed, a plain grid search of nine ratios at full length {grid:.3g}.")
    r2 = [of_law[f"ratios: R2 of the {which} loss"] for which in BOTH if f"ratios: R2 of the {which} loss" in of_law]
    if len(r2) == 2:
        said.append(f"R2 on held-out ratios: {r2[0]:.3f} of the domain loss, {r2[1]:.3f} of the general loss (the paper, domain loss: 0.972).")
    return [*said, "The law of the general loss leaves r_g = 0 out: without old text its loss rises with the tokens, which no term can say."]


_ARMS = tuple(Arm(name, "causal-lm", trained=False) for name in ("L3", "goal", "L1", "interpolation", "chinchilla", "carried_forward"))
_SETTINGS = {
    "preset": "tiny", "batch": 8, "method.hidden_size": 32, "method.num_layers": 1, "method.intermediate_size": 48, "method.sequence_length": 32,
    "text.vocab_size": 300,
}  # fmt: skip
"""Of the untrained network that stands for an arm: a law trains nothing of its own."""

CLAIM = Claim(
    slug="dcpt_law",
    statement="The law fitted on a few small mixtures predicts the loss of unseen ratios and of a larger size within 1 %, and the ratio that it"
    " recommends for a limit on general loss keeps the limit.",
    paper=Paper(
        statement="L3 fits losses of continued pre-training over sizes, tokens and mixture ratios, holds on ratios, tokens and sizes that were held"
        " out, and recommends mixtures.",
        value="R2 on held-out sizes, tokens, ratios of the domain loss: 0.952, 0.913, 0.972; chemistry, T = 3 %: r_d = 0.924 keeps the limit",
        where="sections 4.2 to 4.4",
    ),
    metric="mean |log error| of held-out losses; of the recommendation the share that fails",
    comparisons=(
        Comparison("L3", "goal", tasks=("ratios",)),
        Comparison("L3", "goal", tasks=("size",)),
        Comparison("L3", "goal", tasks=("recommendation",), cases=(1 / 6, 3 / 6)),
        Comparison("L3", "goal", decides=False, tasks=("tokens",)),
        Comparison("L3", "L1", decides=False, tasks=("ratios",)),
        Comparison("L3", "interpolation", decides=False, tasks=("ratios",)),
        Comparison("L3", "L1", decides=False, tasks=("size",)),
        Comparison("L3", "chinchilla", decides=False, tasks=("size",)),
        Comparison("L3", "L1", decides=False, tasks=("tokens",)),
        Comparison("L3", "chinchilla", decides=False, tasks=("tokens",)),
        Comparison("L3", "carried_forward", decides=False, tasks=("tokens",)),
    ),
    presets={
        "smoke": Scale(arms=_ARMS, seeds=1, learning_rates=(1e-3,), settings=_SETTINGS, options={"synthetic": True}),
        "cpu": Scale(
            arms=_ARMS,
            seeds=3,
            learning_rates=(1e-3,),
            settings=_SETTINGS,
            options={"network": "cpu", "sizes": ((2, 32), (2, 48), (2, 64), (3, 80)), "heads": 4, "steps": 366, "domain": "textmed"},
        ),
        "gpu": Scale(
            arms=_ARMS,
            seeds=3,
            learning_rates=(1e-3,),
            settings=_SETTINGS,
            options={"network": "gpu", "sizes": ((2, 64), (4, 128), (4, 256), (6, 384)), "heads": 4, "steps": 977, "domain": "textmed"},
        ),
    },
    open_data=open_data,
    validity=validity,
    remarks=remarks,
    higher_is_better=False,
    percent=False,
)
