"""The one statistic of all claims: differences paired by seed, a t interval at 95 %, and what it decides (DESIGN, "Claim result").

Oriented so that positive is the paper's side. The margin of no interest m is the claim's own:

    better      reproduced       low > 0 and high > m
                not reproduced   high < 0, or high <= m: every value that the interval holds is on the other side or of no interest
    not worse   reproduced       low > -m
                not reproduced   high < -m
    otherwise   inconclusive
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from headstart.tasks.metrics import paired_difference

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Difference:
    """a minus b, in units of the metric, not oriented."""

    mean: float
    interval: tuple[float, float] | None  # None for fewer than three seeds
    detectable: float | None  # a true difference of this size would be told from none in 80 % of such experiments


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Paired by position (seed)."""
    mean, interval = paired_difference(a, b)
    if interval is None:
        return Difference(mean, None, None)
    freedom = len(a) - 1
    error = (interval[1] - mean) / stdtrit(freedom, 0.975)
    return Difference(mean, interval, float(error * (stdtrit(freedom, 0.975) + stdtrit(freedom, 0.8))))


def verdict(
    interval: tuple[float, float] | None, margin: float = 0.0, higher_is_better: bool = True, claimed: Literal["better", "not worse"] = "better"
) -> Verdict:
    """What an interval of a - b decides, see the module's head. No interval (fewer than three seeds) decides nothing."""
    if interval is None:
        return "inconclusive"
    low, high = interval if higher_is_better else (-interval[1], -interval[0])
    if claimed == "not worse":
        return "reproduced" if low > -margin else "not reproduced" if high < -margin else "inconclusive"
    if low > 0 and high > margin:
        return "reproduced"
    return "not reproduced" if high < 0 or (margin > 0 and high <= margin) else "inconclusive"


def verdict_of_cases(failed: float, reproduced: float, refuted: float) -> Verdict:
    """What the share of failed cases decides: reproduced up to `reproduced`, not reproduced from `refuted` on."""
    return "reproduced" if failed <= reproduced + 1e-9 else "not reproduced" if failed >= refuted - 1e-9 else "inconclusive"


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim with several deciding comparisons: reproduced if all are, not reproduced if one is not."""
    if not verdicts or any(one == "inconclusive" for one in verdicts):
        return "not reproduced" if "not reproduced" in verdicts else "inconclusive"
    return "not reproduced" if "not reproduced" in verdicts else "reproduced"


def bootstrap_over_items(tasks: Sequence[np.ndarray], draws: int = BOOTSTRAP_DRAWS) -> tuple[float, float]:
    """95 % percentile interval of the mean over tasks of a - b, when the test items are drawn anew; the trained models stay as they are.

    Args:
        tasks: of each task float [n, 2], for each item the difference of what it adds to the metric, and its weight. An item without weight (a page
            without formulas, where bits within formulas are counted) is none of the task's.
    """
    random = np.random.default_rng(0)
    total = np.zeros(draws)
    for items in (task[task[:, 1] > 0] for task in tasks):
        n = len(items)
        for draw in range(draws):
            chosen = random.integers(0, n, n)
            added, weight = items[chosen].sum(0)
            total[draw] += added / weight
    low, high = np.percentile(total / len(tasks), [2.5, 97.5])
    return float(low), float(high)


def rank_correlation(x: np.ndarray, y: np.ndarray, draws: int = BOOTSTRAP_DRAWS) -> tuple[float, tuple[float, float] | None]:
    """(Spearman's rho over all entries, its 95 % percentile interval when the seeds are drawn anew; None for fewer than three seeds).

    Args:
        x, y: float [arms, seeds].
    """
    rho = _spearman(x, y)
    seeds = x.shape[1]
    if seeds < 3:
        return rho, None
    random = np.random.default_rng(0)
    found = [_spearman(x[:, chosen], y[:, chosen]) for chosen in random.integers(0, seeds, (draws, seeds))]
    low, high = np.percentile(found, [2.5, 97.5])
    return rho, (float(low), float(high))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """0 where one of the two is constant."""
    ranks = [rankdata(values.ravel()) for values in (x, y)]
    if any(np.ptp(of) == 0 for of in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
