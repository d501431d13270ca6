"""The folder of a fit: law.json (what was fitted, how well, the answers), predictions.csv (every point), bootstrap.csv (the parameters of every
refit)."""

from __future__ import annotations

import csv
import io
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, read_json, write_json
from headstart.planning.dcpt_law.fitted import Fitted, used
from headstart.planning.dcpt_law.points import LossTable

FORMAT = 1


def write_law(folder: Path, fitted: Sequence[Fitted], **more: Any) -> dict[str, Any]:
    """Writes law.json and bootstrap.csv, and gives the former back. What is infinite (a beta near 0 does that) is null there.

    Args:
        more: further keys: answers, warnings, where the points come from.
    """
    software = {"python": platform.python_version(), "numpy": np.__version__, "scipy": version("scipy")}
    laws = {one.which: one.to_json() for one in fitted}
    record: dict[str, Any] = _finite({"format": FORMAT, "slug": "dcpt_law", "laws": laws, **more, "software": software})
    write_json(folder / "law.json", record)
    rows: list[list[Any]] = [["loss", "draw", "parameter", "value"]]
    for one in fitted:
        rows += [[one.which, draw, name, repr(value)] for draw, law in enumerate(one.draws) for name, value in law.parameters.items()]
    _write_csv(folder / "bootstrap.csv", rows)
    return record


def read_laws(path: Path) -> dict[str, Fitted]:
    """The laws of a law.json (or of the folder that holds it): "domain", "general".

    Raises:
        BadInput: none of ours, or of another format.
    """
    path = path / "law.json" if path.is_dir() else path
    record = read_json(path)
    if not isinstance(record, Mapping) or record.get("slug") != "dcpt_law" or not isinstance(record.get("laws"), Mapping):
        raise BadInput("is no law of ours.", "Give the law.json of `headstart fit dcpt-law POINTS`.", file=path)
    if record.get("format") != FORMAT:
        raise BadInput(f"has format {record.get('format')}; this version reads {FORMAT}.", "Fit the points again.", file=path)
    return {which: Fitted.from_json(record["laws"][which], which) for which in ("domain", "general") if which in record["laws"]}


def write_predictions(path: Path, tables: Mapping[str, LossTable], fitted: Sequence[Fitted]) -> None:
    """predictions.csv: each point with what the law says of it.

    Args:
        tables: what a point was for: "fitted", "held out".
    """
    rows: list[list[Any]] = [["loss", "N", "D", "r_d", "measured", "predicted", "low", "high", "log_error", "used", "place"]]
    for one in fitted:
        for role, table in tables.items():
            if not table.has(one.which):
                continue
            cells, losses, inside = table.cells(one.which), table.losses(one.which), used(table, one.which)
            values = one.law.predict(cells)
            ends = one.interval(cells)
            for at in range(len(table)):
                low, high = ("", "") if ends is None else (f"{ends[0][at]:.7g}", f"{ends[1][at]:.7g}")
                n, d = f"{table.n[at] * table.unit_n:.12g}", f"{table.d[at] * table.unit_d:.12g}"
                error = f"{np.log(values[at] / losses[at]):.3e}"
                how = role if inside[at] or role != "fitted" else "left out: no general text"
                seen, said = f"{losses[at]:.7g}", f"{values[at]:.7g}"
                rows.append([one.which, n, d, f"{table.r_d[at]:g}", seen, said, low, high, error, how, table.places[at]])
    _write_csv(path, rows)


def _finite(value: Any) -> Any:
    """The value with null for each float that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
