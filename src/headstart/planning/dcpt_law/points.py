"""The table of losses: one row for each evaluation of a short run. Read strictly: a law is fitted to thousandths, so one wrong row is seen in it.

    N                parameters of the model
    D                tokens of continued training so far, repeats included
    r_d (or r)       share of domain text in the mixture; r_g beside or instead
    loss_domain, loss_general    nats a token, on the same windows for all runs; one of them may be missing
    run, seed        optional: which run a row belongs to; without them every (N, r_d) is one run
    domain, k1, k2   optional: several domains in one table, for the cross-domain law

A fit never mixes tokenizers: losses a token of different ones are different quantities, and nothing in a table tells.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import BadInput
from headstart.core.words import did_you_mean
from headstart.data.tables import wrong_delimiter
from headstart.planning.dcpt_law.forms import Array, Cells, Form
from headstart.planning.dcpt_law.refit import FEWEST_RATIOS, FEWEST_SIZES

FEWEST_POINTS = 30
MOST_SPAN = 1e9
"""Largest over smallest N or D: beyond it the unit changes within the table."""
LEAST_N = 1000.0
"""Parameters. A table whose largest model is smaller counts in millions or billions and does not say so."""
LARGE = 3e7
"""Median N from which the law counts in billions; in millions below."""

COLUMNS = ("N", "D", "r", "r_d", "r_g", "loss_general", "loss_domain", "run", "seed", "domain", "k1", "k2")
LOSSES = ("loss_domain", "loss_general")
TOPIC = ("domain", "k1", "k2")
"""Columns of a domain among others."""
Which = Literal["domain", "general"]
Record = tuple[str, int, Mapping[str, Any]]
"""(file, line or record number, column -> value)."""


@dataclass(frozen=True, eq=False)
class LossTable:
    """Points as columns, float64 [points] unless said.

    Attributes:
        n, d: in the law's unit, which is `unit_n` parameters and `unit_d` tokens.
        r_d: share of domain text.
        domain, general: losses, None where the table has no such column.
        run: int64, number of the run.
        topic: names of the domains, None without such a column.
        k1, k2: of the row's domain, None without such columns.
        places: "file, record 3" of each row.
    """

    n: Array
    d: Array
    r_d: Array
    domain: Array | None
    general: Array | None
    run: NDArray[np.int64]
    topic: NDArray[np.str_] | None
    k1: Array | None
    k2: Array | None
    places: NDArray[np.str_]
    unit_n: float
    unit_d: float

    def __len__(self) -> int:
        return len(self.n)

    def __getitem__(self, chosen: Any) -> LossTable:
        """The rows of a mask or of indices."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: values[chosen] for name, values in arrays.items() if isinstance(values, np.ndarray)})

    @property
    def n_runs(self) -> int:
        return len(np.unique(self.run))

    def has(self, which: Which) -> bool:
        return getattr(self, which) is not None

    def losses(self, which: Which) -> Array:
        found: Array | None = getattr(self, which)
        if found is None:
            raise BadInput(f"The points have no loss_{which}.", f"Add the column loss_{which}, or ask for the other loss only.")
        return found

    def cells(self, which: Which) -> Cells:
        """Of one loss: r is the share of **its** corpus."""
        return Cells(self.n, self.d, self.r_d if which == "domain" else np.round(1 - self.r_d, 12), self.k1, self.k2)


def read_points(
    records: Iterable[Record],
    columns: Mapping[str, str] | None = None,
    unit_n: float = 1.0,
    unit_d: float = 1.0,
    law_unit: float | None = None,
    topic: Collection[str] = TOPIC,
) -> LossTable:
    """The table.

    Args:
        columns: our name -> the column's name there, for logs of other trainers.
        unit_n, unit_d: how many parameters and tokens a 1 in N and D stands for.
        law_unit: of N and D in the law; None: millions or billions, by the median N. Points that a law is to predict take its unit.
        topic: the columns of `TOPIC` that are asked for. What is not may be missing in some rows; names of several domains are read in any case.

    Raises:
        BadInput: a column is missing, or a row cannot be used; names it.
    """
    columns = dict(columns or {})
    if wrong := [name for name in columns if name not in COLUMNS]:
        raise BadInput(f"The mapping of columns names '{wrong[0]}'.", f"{did_you_mean(wrong[0], COLUMNS)}It may name {', '.join(COLUMNS)}.")
    rows = [_Row(file, number, record, columns) for file, number, record in records]
    if not rows:
        raise BadInput("There are no points.", "Give a .csv or .parquet file with a row for each evaluation.")
    present = [name for name in COLUMNS if any(row.has(name) for row in rows)]
    _refuse_columns(rows[0], present)
    several = len({row.text("domain") for row in rows} - {""}) > 1
    present = [name for name in present if name not in TOPIC or name in topic or (name == "domain" and several)]
    n = np.array([row.number("N", above=0) for row in rows]) * unit_n
    d = np.array([row.number("D", above=0) for row in rows]) * unit_d
    _refuse_units(rows, n, "N")
    _refuse_units(rows, d, "D")
    if n.max() < LEAST_N:
        raise BadInput(f"The largest model has {n.max():g} parameters.", "If N counts in billions, say so: --unit-n 1e9 (and --unit-d for D).")
    r_d = np.array([_ratio(row, present) for row in rows])
    losses = {name: np.array([row.number(name, above=0) for row in rows]) if name in present else None for name in LOSSES}
    names = [name for name in ("run", "seed", "domain") if name in present]
    keys = [tuple(row.text(name) for name in names) for row in rows]
    _refuse_twice(rows, list(zip(keys, n, d, r_d, strict=True)), losses)
    own = [i for i, name in enumerate(names) if name == "run"]
    of_run = [tuple(key[i] for i in own) if own else (*key, n[at], r_d[at]) for at, key in enumerate(keys)]
    if own and "domain" in names:
        of_run = [(*run, key[names.index("domain")]) for run, key in zip(of_run, keys, strict=True)]
    numbers = {run: number for number, run in enumerate(dict.fromkeys(of_run))}
    unit = law_unit or (1e9 if np.median(n) >= LARGE else 1e6)
    return LossTable(
        n=n / unit,
        d=d / unit,
        r_d=r_d,
        domain=losses["loss_domain"],
        general=losses["loss_general"],
        run=np.array([numbers[run] for run in of_run], dtype=np.int64),
        topic=np.array([row.text("domain") for row in rows]) if "domain" in present else None,
        k1=np.array([row.number("k1", above=0) for row in rows]) if "k1" in present else None,
        k2=np.array([row.number("k2", above=0) for row in rows]) if "k2" in present else None,
        places=np.array([row.place for row in rows]),
        unit_n=unit,
        unit_d=unit,
    )


@dataclass(frozen=True)
class _Row:
    """A record, and where it stands."""

    file: str
    record: int
    values: Mapping[str, Any]
    columns: Mapping[str, str]

    @property
    def place(self) -> str:
        return f"{self.file}, record {self.record}"

    def has(self, name: str) -> bool:
        return self.columns.get(name, name) in self.values

    def text(self, name: str) -> str:
        return str(self.values.get(self.columns.get(name, name), "")).strip()

    def number(self, name: str, above: float | None = None) -> float:
        column = self.columns.get(name, name)
        raw = self.values.get(column)
        try:
            found = math.nan if raw is None or isinstance(raw, bool) else float(raw)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise self.wrong(f"{column} is {raw!r}, which is no finite number.", "Correct or remove the row.")
        if above is not None and found <= above:
            raise self.wrong(f"{column} is {found:g}; it must be above {above:g}.", "Correct or remove the row.")
        return found

    def wrong(self, what: str, mend: str) -> BadInput:
        return BadInput(what, mend, file=self.file, record=self.record)


def _refuse_columns(row: _Row, present: list[str]) -> None:
    """What every table must have."""
    for name in ("N", "D"):
        if name not in present:
            close = did_you_mean(name, row.values)
            what = f"has no column {name}, only {', '.join(map(str, row.values))}."
            raise BadInput(what, wrong_delimiter(row.file, row.values) or f"{close}--columns FILE.yaml maps other names.", file=row.file)
    if not {"r", "r_d", "r_g"} & set(present):
        raise BadInput("has no column r_d (or r): the share of domain text.", "--columns FILE.yaml maps other names.", file=row.file)
    if {"r", "r_d"} <= set(present):
        raise BadInput("has both r and r_d, which mean the same.", "Remove one of them.", file=row.file)
    if not set(LOSSES) & set(present):
        raise BadInput("has neither loss_domain nor loss_general.", "--columns FILE.yaml maps other names.", file=row.file)


def _ratio(row: _Row, present: list[str]) -> float:
    """r_d of a row; r_g is checked against it, or stands for it."""
    name = next((name for name in ("r", "r_d") if name in present), None)
    shares = {column: row.number(column) for column in (name, "r_g") if column is not None and column in present}
    for column, share in shares.items():
        if 1 < share <= 100:
            raise row.wrong(f"{column} is {share:g}: a percentage?", "Ratios are from 0 to 1; divide the column by 100 if that is what it is.")
        if not 0 <= share <= 1:
            raise row.wrong(f"{column} is {share:g}; a ratio is from 0 to 1.", "Correct or remove the row.")
    if len(shares) == 2 and abs(sum(shares.values()) - 1) > 1e-6:
        raise row.wrong(f"r_d and r_g sum to {sum(shares.values()):g}, not to 1.", "Correct the row.")
    return round(1 - shares["r_g"], 12) if name is None else shares[name]


def _refuse_units(rows: list[_Row], values: Array, name: str) -> None:
    if values.max() / values.min() > MOST_SPAN:
        odd = rows[int(values.argmin())]
        raise odd.wrong(f"{name} spans more than nine orders of magnitude; here it is smallest.", "Give every row in the same unit.")


def _refuse_twice(rows: list[_Row], keys: list[Any], losses: Mapping[str, Array | None]) -> None:
    """The same cell of the same run and seed twice."""
    seen: dict[Any, int] = {}
    for at, key in enumerate(keys):
        before = seen.setdefault(key, at)
        if before == at:
            continue
        if all(values is None or values[at] == values[before] for values in losses.values()):
            raise rows[at].wrong(f"is a copy of {rows[before].place}.", "Remove it: it would count twice.")
        what = f"has the N, D and r of {rows[before].place}, with another loss."
        raise rows[at].wrong(what, "Add a column seed (or run) that tells them apart.")


def settled(table: LossTable) -> tuple[LossTable, list[str]]:
    """The table without the transient, and what was left out, in words. A re-warmed run first loses general ability, which no term of the law knows:
    of each size, points count from where the general loss of the run without domain text has passed its maximum.

    Raises:
        BadInput: a size's loss rises to the end.
    """
    if table.general is None or not (table.r_d == 0).any():
        return table, []
    keep = np.ones(len(table), dtype=bool)
    lines = []
    for n in np.unique(table.n[table.r_d == 0]):
        at = (table.n == n) & (table.r_d == 0)
        counts = np.unique(table.d[at])
        means = np.array([table.general[at & (table.d == d)].mean() for d in counts])
        highest = int(means.argmax())
        if highest == len(counts) - 1 and len(counts) > 1:
            what = f"The general loss of N = {n * table.unit_n:,.0f} without domain text rises to its last point: the run is still in its transient."
            raise BadInput(what, "Train longer, or leave this size out.")
        if highest:
            out = (table.n == n) & (table.d <= counts[highest])
            keep &= ~out
            until = f"{counts[highest] * table.unit_d:,.0f} tokens"
            lines.append(f"{int(out.sum())} points of N = {n * table.unit_n:,.0f} up to {until} left out: the transient, which no law knows")
    return table[keep], lines


def rising_in_n(table: LossTable, which: Which) -> tuple[list[str], int]:
    """(the cells in which the largest model has a higher loss than the smallest, how many cells there are with two sizes)."""
    losses, wrong, n_cells = table.losses(which), [], 0
    for d, r in sorted({(d, r) for d, r in zip(table.d, table.r_d, strict=True)}):
        at = (table.d == d) & (table.r_d == r)
        small, large = table.n[at].min(), table.n[at].max()
        if small == large:
            continue
        n_cells += 1
        if losses[at & (table.n == large)].mean() > losses[at & (table.n == small)].mean():
            wrong.append(f"D = {d * table.unit_d:,.0f}, r_d = {r:g}")
    return wrong, n_cells


def rising_in_d(table: LossTable, which: Which) -> tuple[int, int]:
    """(in how many runs with text of that kind the loss is higher at the last look than at the first, how many such runs there are with two looks).

    The law falls in D. What rises is the transient of a run that is too short, or forgetting that goes on: either way the law cannot say it.
    """
    losses, own = table.losses(which), table.r_d if which == "domain" else 1 - table.r_d
    rising = n_runs = 0
    for run in np.unique(table.run):
        at = (table.run == run) & (own > 0)
        d = table.d[at]
        if len(np.unique(d)) > 1:
            n_runs += 1
            rising += bool(losses[at][d.argmax()] > losses[at][d.argmin()])
    return rising, n_runs


def refuse_rising(table: LossTable, which: Which) -> None:
    """Raises BadInput where most cells rise in N."""
    wrong, n_cells = rising_in_n(table, which)
    if 2 * len(wrong) > n_cells:
        first = "; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else "")
        what = f"The {which} loss of the largest model is above that of the smallest in {len(wrong)} of {n_cells} cells ({first})."
        raise BadInput(what, "Were all sizes trained equally well upstream? --allow-nonmonotone fits them all the same.")


def refuse_few(cells: Cells, form: Form, fixed: Mapping[str, float], which: str) -> None:
    """Raises BadInput, with what is missing, for points that cannot tell the parameters of a form."""
    sizes, ratios = len(np.unique(cells.n)), len(np.unique(cells.r))
    has_n = "A" in form.names
    if len(cells) < FEWEST_POINTS:
        missing = f"{FEWEST_POINTS - len(cells)} more are missing."
        raise BadInput(f"{len(cells)} points of the {which} loss can be used; a law needs {FEWEST_POINTS}.", missing)
    if ratios < FEWEST_RATIOS and not {"eta", "gamma"} <= set(fixed):
        mend = "Run more ratios, or give what they cannot tell: --fix eta=1.3 gamma=0.4."
        raise BadInput(f"The {which} loss is measured at {ratios} ratios; a law needs {FEWEST_RATIOS}.", mend)
    if has_n and sizes == 1:
        raise BadInput(f"The {which} loss is measured at one size, which cannot tell how it falls in N.", "Fit it for this size: --without N.")
    if has_n and sizes < FEWEST_SIZES and "alpha" not in fixed:
        mend = "Run another size, or give alpha: --fix alpha=0.25; or fit one size alone: --without N."
        raise BadInput(f"The {which} loss is measured at {sizes} sizes; alpha needs {FEWEST_SIZES}.", mend)
    if not has_n and sizes > 1:
        raise BadInput(f"--without N, but the {which} loss is measured at {sizes} sizes.", "Give the points of one size, or leave the flag out.")
