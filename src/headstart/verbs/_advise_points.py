"""The measured points of an advice: each a few values of one arm at one rung, kept in advice.json one by one, so that a kill loses one value."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.config import plain
from headstart.core.files import write_json
from headstart.tasks.label_curve import Curve, labels_worth
from headstart.verbs import _advise_lines
from headstart.verbs._advise_candidates import Candidate
from headstart.verbs._advise_fit import TEST_SHARE
from headstart.verbs._advise_measure import (
    Labels,
    Start,
    curve_draws,
    fine_tuning,
    on_threads,
    prices_on_documents,
    prices_on_labels,
    without_labels,
)
from headstart.verbs._advise_settings import AdviseSettings
from headstart.verbs._advise_trial import CURVE_SPLITS, Effort, Prices, Rung
from headstart.verbs._advise_verdict import CANDIDATE, RANDOM
from headstart.verbs.sample import newest_export

TOLERANCE = 1.1  # the answer may take this times its share of the budget


@dataclass
class Book:
    """advice.json as it grows."""

    out: Path
    info: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        write_json(self.out / "advice.json", self.info)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the seconds inside to `spent`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.info["spent"][what] += time.perf_counter() - started

    def left_s(self, tolerance: float = TOLERANCE) -> float:
        """Seconds that the answer may still take."""
        spent = self.info["spent"]
        return float(tolerance * self.info["budget"]["trial_seconds"] - spent["speed_s"] - spent["training_s"] - spent["measuring_s"])


class Measuring:
    """Measures arms as the plan in advice.json says.

    Args:
        labels: None: by held-out documents.
        say: gets a line for each point.
    """

    def __init__(self, book: Book, settings: AdviseSettings, labels: Labels | None, say: Callable[[str], None]) -> None:
        self.book, self.settings, self.labels, self.say = book, settings, labels, say

    @property
    def plan(self) -> dict[str, Any]:
        return dict(self.book.info["plan"])

    def prices(self, entry: Candidate) -> tuple[Prices, int]:
        """What measuring costs here, and on how many threads."""
        with self.book.timed("measuring_s"):
            if self.labels is None:
                return prices_on_documents(entry, self.settings.seed)
            return prices_on_labels(Start(self.book.out / "starts" / entry.arm, fresh=True), self.labels, self.settings.device)

    def complete(self, point: dict[str, Any] | None) -> bool:
        return point is not None and len(point["values"]) == self.plan["splits"]

    def point(self, arm: dict[str, Any], rung: int, wanted: Candidate, start: Start, facts: dict[str, Any]) -> None:
        """Measures one arm at one rung, a split at a time; what is there is not measured again."""
        found = point_at(arm, rung)
        if found is None:
            found = {"rung": rung, **facts, "values": [], "learning_rate": None, "rankme": None}
            arm["points"].append(found)
        if not self.complete(found):
            with self.book.timed("measuring_s"), on_threads(self.plan["threads"]):
                if self.labels is None:
                    weights = None if arm["kind"] != CANDIDATE else start.folder
                    found["values"], found["rankme"] = without_labels(
                        wanted, weights, self.settings.seed, self.plan["documents"], self.plan["splits"]
                    )
                else:
                    self.on_labels(self.labels, arm, found, start)
        self.book.save()
        self.say(_advise_lines.point_line(arm, found, self.book.info))

    def on_labels(self, labels: Labels, arm: dict[str, Any], point: dict[str, Any], start: Start) -> None:
        bench = fine_tuning(start, labels, self.settings.device, self.plan["rates"])
        if point["learning_rate"] is None:  # chosen once an arm, with the same effort for all
            point["learning_rate"] = arm["points"][0]["learning_rate"] or bench.best_rate(labels.splits[0])[0]
        took: list[float] = []
        for split in labels.splits[len(point["values"]) : self.plan["splits"]]:
            scored = bench.score(split.train, split.test, split.seed, point["learning_rate"])
            point["values"].append(scored.value)
            took.append(scored.train_s + scored.test_s)
            self.book.info["plan"]["a_score"] = sum(took) / len(took)  # by now
            self.book.save()

    @property
    def pace(self) -> tuple[Effort, Prices]:
        """How thoroughly arms are measured, and what that costs by now."""
        plan = self.plan
        effort = Effort(plan["splits"], plan["rungs"], rates=plan["rates"], documents=plan["documents"])
        return effort, Prices(self.labels is not None, plan["a_score"], plan["a_point"])

    def seconds_of(self, rung: Rung) -> float:
        """About what measuring a rung takes, at the pace of the last measurement."""
        effort, prices = self.pace
        return prices.measuring_s(effort, rung.measured, len(rung.joins))

    def find_labels_worth(self, best: dict[str, Any], start: dict[str, Any], labels: Labels) -> None:
        """How many labels a random start of the same network needs for what the trial's network reaches with few: as far as there is time for.

        Args:
            best, start: the arm that won, and the random start of its network.
        """
        info, splits = self.book.info, min(self.plan["splits"], CURVE_SPLITS)
        affordable = [smaller for smaller in (2, 1) if (smaller + 1) * splits * self.plan["a_score"] <= self.book.left_s()]
        smaller = info["plan"].setdefault("curve_measured", affordable[0] if affordable else 0)
        if not smaller:
            info["verdict"]["notes"].append("What the head start is worth in labels was not measured: this budget has no time for it.")
            return
        draws = curve_draws(labels, smaller, splits)
        counts, everything = sorted(draws[0].subsets), len(draws[0].train)
        sides = {
            "pretrained": (best, Start(newest_export(self.book.out / best["arm"])), counts[:1]),
            "random start": (start, Start(self.book.out / "starts" / start["network"], fresh=True), counts),
        }
        kept = info.setdefault("label_curves", {name: {} for name in sides})
        with self.book.timed("measuring_s"), on_threads(self.plan["threads"]):
            for name, (arm, network, wanted) in sides.items():
                bench, last = fine_tuning(network, labels, self.settings.device, self.plan["rates"]), arm["points"][-1]
                kept[name][str(everything)] = last["values"][:splits]  # the trial measured it
                for count in wanted:
                    values = kept[name].setdefault(str(count), [])
                    for draw in draws[len(values) :]:
                        values.append(bench.score(draw.subsets[count], draw.test, draw.seed, last["learning_rate"]).value)
                        self.book.save()
        curves = {name: Curve("accuracy", {int(n): found for n, found in at.items()}, test_share=TEST_SHARE) for name, at in kept.items()}
        worth = labels_worth(curves["pretrained"], curves["random start"], counts[0])
        share = best["points"][-1]["flops"] / info["budget"]["flops"]
        sentence = f"{worth.sentence()} The pre-training was that of the trial, {share:.0%} of the run."
        info["labels_worth"] = plain(worth) | {"sentence": sentence}


def point_at(arm: dict[str, Any], rung: int) -> dict[str, Any] | None:
    """The arm's point at a rung."""
    return next((point for point in arm["points"] if point["rung"] == rung), None)


def random_start_of(arm: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """The random start of an arm's network; one of another network stands for it where that one was not measured."""
    networks = {entry["arm"]: entry["architecture"] for entry in info["candidates"]}
    starts = [entry for entry in info["arms"] if entry["kind"] == RANDOM]
    return next((entry for entry in starts if networks[entry["network"]] == networks[arm["network"]]), starts[0])
