"""Tables of losses whose law is known."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.planning.dcpt_law.forms import L3, Cells, Law

DOM = Law.of(L3, (1.20, 0.30, 0.25, 0.08, 0.30, 1.30, 0.45, 0.40, 0.08))
GEN = Law.of(L3, (1.90, 0.35, 0.22, 0.06, 0.25, 1.20, 0.25, 0.30, 0.03))
SIZES, COUNTS, RATIOS = (0.5, 1.8, 4.0), (0.5, 1.0, 2.0, 4.0, 8.0, 10.0), (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)

Rows = list[dict[str, Any]]


def rows(
    sizes: Iterable[float] = SIZES, counts: Iterable[float] = COUNTS, ratios: Iterable[float] = RATIOS, noise: float = 0.002, seed: int = 0
) -> Rows:
    """A row for each size, ratio and token count (in billions), with plain numbers of parameters and tokens."""
    rng = np.random.default_rng(seed)
    grid = [(n, d, r) for n in sizes for r in ratios for d in counts]
    n, d, r = np.array(grid).T
    domain, general = DOM.predict(Cells.of(n, d, r)), GEN.predict(Cells.of(n, d, 1 - r))
    domain, general = (losses * np.exp(rng.normal(0, noise, len(losses))) for losses in (domain, general))
    values = zip(n * 1e9, d * 1e9, r, domain, general, strict=True)
    return [dict(zip(("N", "D", "r_d", "loss_domain", "loss_general"), map(float, row), strict=True)) for row in values]


def write(path: Path, made: Rows) -> Path:
    """As .csv."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path
