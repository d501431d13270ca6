"""The fit of the D-CPT law from its 128 starts: all at once, against L-BFGS-B (SciPy) from each in turn, as the literature fits such laws; and
SciPy's `curve_fit` from one start, which has no robust loss.

The points are the 540 of the specification, exact and with 0.2 % noise. Seconds are CPU time of this process, on one core; the plain way runs from
every eighth start and its time is counted eight times.

python -m benchmarks.law_fit [--out benchmarks/results/law_fit.json]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.result import write_result
from headstart.planning.dcpt_law.forms import L3, Array, Cells, Law
from headstart.planning.dcpt_law.solve import fit, objective, plain, start_grid

TRUTH = Law.of(L3, (1.20, 0.30, 0.25, 0.08, 0.30, 1.30, 0.45, 0.40, 0.08))
GRID = [(n, d, r) for n in (0.5, 1.8, 4.0) for d in np.arange(1, 21) / 2 for r in (0, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1)]
EVERY = 8


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def least_squares(cells: Cells, losses: Array) -> float:
    """The objective where `curve_fit` ends, from the first start."""
    law = lambda _, *logs: L3.losses(np.array([logs]), cells)[0]  # noqa: E731
    found, _ = curve_fit(law, np.arange(len(losses)), losses, p0=start_grid(L3, losses)[0], maxfev=20_000)
    return float(objective(found[None], L3, cells, losses)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/law_fit.json"))
    args = parser.parse_args()
    cells = Cells.of(*np.array(GRID).T)
    exact = TRUTH.predict(cells)
    ours: dict[str, float] = {}
    peer: dict[str, float] = {}
    for name, losses in (("exact", exact), ("noise", exact * np.exp(np.random.default_rng(0).normal(0, 0.002, len(exact))))):
        starts = start_grid(L3, losses)
        ours[f"{name}: seconds"], quick = seconds(lambda losses=losses: fit(L3, cells, losses))
        some, slow = seconds(lambda losses=losses, starts=starts: plain(L3, cells, losses, starts=starts[::EVERY]))
        peer[f"{name}: seconds"] = some * EVERY
        peer[f"{name}: seconds of curve_fit, one start"], squares = seconds(lambda losses=losses: least_squares(cells, losses))
        ours |= {f"{name}: objective": quick.objective, f"{name}: starts that agree, of 128": quick.agreeing}
        peer |= {f"{name}: objective": slow.objective, f"{name}: starts that agree, of {len(starts[::EVERY])}": slow.agreeing}
        peer[f"{name}: objective of curve_fit"] = squares
    for side, figures in (("ours", ours), ("peer", peer)):
        for name, value in figures.items():
            print(f"{side}, {name}: {value:.4g}")
    write_result(
        args.out,
        name="law_fit",
        what="seconds (CPU) of a fit of the D-CPT law to 540 points with 0.2 % noise from 128 starts; the peer is L-BFGS-B from each in turn",
        ours={name: float(f"{value:.4g}") for name, value in ours.items()},
        peer={name: float(f"{value:.4g}") for name, value in peer.items()},
        ratio=peer["noise: seconds"] / ours["noise: seconds"],
        must=1.0,
        command="python -m benchmarks.law_fit",
    )


if __name__ == "__main__":
    main()
