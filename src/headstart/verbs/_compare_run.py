"""How a comparison runs: what is measured in which order, comparison.json as it grows, verdict, plot, lines. `compare.py` documents the format."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.core import hardware
from headstart.core.config import plain
from headstart.core.errors import MissingDependency, UsageError
from headstart.core.files import atomic_write, write_json
from headstart.core.journal import Known
from headstart.core.run import now
from headstart.core.words import agree, plural, rounded_up
from headstart.engine.device import use_device
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.label_curve import DEV_SHARE, Curve, labels_worth
from headstart.tasks.leaks import find_overlap, training_leaks
from headstart.tasks.metrics import FEWEST_SEEDS
from headstart.verbs import _compare_lines as words
from headstart.verbs._advise_measure import on_threads, time_a_score
from headstart.verbs._advise_verdict import in_words
from headstart.verbs._compare_arms import Arm
from headstart.verbs._compare_measure import Item, Labelled, Measuring, Values
from headstart.verbs._compare_plan import Need, Plan, make_plan
from headstart.verbs._compare_plot import draw
from headstart.verbs._compare_settings import CompareSettings
from headstart.verbs._compare_unlabelled import Documents, halves_found, losses
from headstart.verbs._compare_verdict import at_equal_compute, conclude, interval_of, judged, read
from headstart.verbs.pretrain import git_commit, versions

KIND, FORMAT_VERSION = "comparison", 1
TOLERANCE = 1.2  # what may be planned beyond the minutes that were given before they are refused


@dataclass
class Comparison:
    """A comparison: its folder, and what comparison.json holds."""

    folder: Path
    info: dict[str, Any]


class Comparing:
    """What both kinds of evidence share: the readings, comparison.json, and the end."""

    def __init__(
        self,
        settings: CompareSettings,
        config: FinetuneConfig,
        arms: list[Arm],
        network: dict[int, int],
        out: Path,
        say: Callable[[str], None],
        live: Callable[[str], None] | None,
        continued: list[dict[str, Any]] | None = None,
    ) -> None:
        self.settings, self.config, self.arms, self.network, self.out, self.say, self.live = settings, config, arms, network, out, say, live
        self.began = time.monotonic()
        self.equal, self.readings = at_equal_compute(arms)
        self.test_share = 0.0
        self.metric = ""
        self.info: dict[str, Any] = {
            "kind": KIND, "format_version": FORMAT_VERSION, "name": out.name, "status": "running", "settings": plain(settings), "evidence": None,
            "task": None, "metric": None, "measure": None, "data": {}, "arms": [self.describe(i) for i in range(len(arms))],
            "equal_compute": self.equal, "compared": [], "comparisons": [], "worth": [], "continued": continued or [], "winner": None, "sentence": "",
            "notes": [], "leaks": [],
            "commands": {}, "plan": {}, "spent_s": 0.0, "hardware": hardware.describe(), "versions": versions(), "commit": git_commit(),
            "command": shlex.join(["headstart", *sys.argv[1:]]), "date": now(),
        }  # fmt: skip
        self.say(words.question(arms, settings.labels, settings.budget.minutes))
        for line in words.arms(arms, self.equal):
            self.say(line)

    def describe(self, number: int) -> dict[str, Any]:
        arm, info = self.arms[number], self.arms[number].info
        seeds = [source.seed for source in arm.sources] if arm.kind == "run" else None
        start = self.arms[self.network[number]].name if number in self.network else None
        return {
            "arm": arm.name, "kind": arm.kind, "runs": [str(source.path) for source in arm.sources], "method": info.get("method"),
            "preset": info.get("preset"), "pretraining_seeds": seeds, "network": start, "learning_rate": None, "tried": {}, "points": [],
            "loss": None, "rankme": None,
        }  # fmt: skip

    def keep(self, arm: int, station: int, labels: int | None, values: Values) -> None:
        """Notes a measured point and writes comparison.json."""
        mean, interval = interval_of(values, self.metric, self.test_share)
        export = self.arms[arm].sources[0].exports[station]
        point = {
            "labels": labels, "step": export.step, "flops": self.arms[arm].flops(station), "wall_s": self.arms[arm].wall_s(station),
            "final": station == -1, "values": values.values.tolist(), "mean": mean, "ci95": interval,
        }  # fmt: skip
        points = self.info["arms"][arm]["points"]
        points.append(point)
        points.sort(key=lambda one: (one["step"] or 0, one["labels"] or 0))
        self.say(words.point(self.arms[arm].name, point, self.metric))
        self.write()

    def write(self, **fields: Any) -> None:
        self.info |= fields
        self.info["spent_s"] = round(time.monotonic() - self.began, 1)
        write_json(self.out / "comparison.json", self.info)

    def finish(self, measured: dict[int, dict[int, Values]], notes: list[str], leaks: list[str]) -> Comparison:
        """Verdict, files, and the lines for the person.

        Args:
            measured: arm -> export (from the end) -> values that decide.
        """
        values = [read(measured[i], reading) for i, reading in enumerate(self.readings)]
        comparisons = judged(self.arms, values, self.readings, self.network, self.equal, self.metric, self.test_share)
        winner, sentence = conclude(self.arms, values, comparisons, self.metric)
        rows = [self.row(i, values[i]) for i in range(len(self.arms))]
        rows.sort(key=lambda row: -row["value"])
        self.write(
            status="done", compared=rows, comparisons=comparisons, winner=winner, sentence=sentence, notes=[*notes, *self.notes(comparisons)],
            leaks=leaks, commands=self.commands(winner, rows),
        )  # fmt: skip
        try:
            svg = draw(self.info)
        except MissingDependency as error:
            self.say(f"No plot: {' '.join(str(error).splitlines())}")
        else:
            with atomic_write(self.out / "comparison.svg") as file:
                file.write(svg)
        for line in words.closing(self.info, self.out):
            self.say(line)
        return Comparison(self.out, self.info)

    def row(self, number: int, values: Values) -> dict[str, Any]:
        mean, interval = interval_of(values, self.metric, self.test_share)
        reading = self.readings[number]
        return {"arm": self.arms[number].name, "value": mean, "ci95": interval, "flops": reading.flops, "wall_s": reading.wall_s, "how": reading.how}

    def notes(self, comparisons: list[dict[str, Any]]) -> list[str]:
        """What holds for every kind of evidence."""
        found = []
        single = [arm.name for arm in self.arms if arm.kind == "run" and len(arm.sources) < FEWEST_SEEDS]
        if single:
            found.append(
                f"The seed of the pre-training is not covered for {', '.join(single)}: another seed may give another result."
                f" {FEWEST_SEEDS} runs of each that differ only in --seed cover it; give them all."
            )
        for arm in self.arms:
            if arm.info.get("status") not in (None, "done"):
                found.append(f"{arm.name} has not finished its budget ({arm.info['status']}).")
            verdict = arm.info.get("verdict") or {}
            if verdict.get("plateau") and verdict.get("left_plateau_at") is None:
                found.append(f"{arm.name} never left the plateau: its budget was too small to judge its method by.")
        if len({arm.final.architecture for arm in self.arms if not arm.fresh}) > 1:
            found.append("The networks (or tokenizers) differ: each run stands beside a random start of its own.")
        return found

    def commands(self, winner: str | None, rows: list[dict[str, Any]]) -> dict[str, str]:
        """How to load and fine-tune the winner, or the best arm that is no random start."""
        by_name = {arm.name: i for i, arm in enumerate(self.arms)}
        best = by_name[winner or next(row["arm"] for row in rows if not self.arms[by_name[row["arm"]]].fresh)]
        folder, settings = self.arms[best].final.folder, self.settings
        train, test = settings.labels or "TRAIN.jsonl", settings.test or "TEST.jsonl"
        return {
            "load": f"from transformers import AutoModel, AutoTokenizer; model = AutoModel.from_pretrained({str(folder)!r})",
            "finetune": f"headstart finetune {settings.task} --init {shlex.quote(str(self.arms[best].sources[0].path))}"
            f" --train {shlex.quote(str(train))} --test {shlex.quote(str(test))}{words.recipe_flags(self.config, self.info['arms'][best])}",
        }


class OnLabels(Comparing):
    """Fine-tuning (or a probe) on labelled records."""

    def run(self, labelled: Labelled) -> Comparison:
        self.test_share = labelled.test_share
        points = Known(self.out / "points.jsonl")
        self.measuring = Measuring(self.arms, labelled, self.config, self.settings.measure, points, self.say, self.live)
        self.metric = self.measuring.metric
        prices, threads = self.prices(labelled)
        self.refuse_too_few_minutes(prices)
        with on_threads(threads):
            return self.measured(labelled)

    def measured(self, labelled: Labelled) -> Comparison:
        settings = self.settings
        self.write(evidence="labels", task=settings.task, metric=self.metric, measure=settings.measure, data=self.data(labelled))
        leaks = self.leaks(labelled)
        for line in leaks:
            self.say(line)
        if beyond := self.beyond(labelled):
            self.say(beyond)
        plan = self.plan(labelled)
        labelled = self.measuring.labelled
        measured: dict[int, dict[int, Values]] = {i: {} for i in range(len(self.arms))}
        for arm, reading in enumerate(self.readings):
            for station, _ in reading.parts:
                measured[arm][station] = self.point(arm, station, plan.main, plan.seeds)
        final = {arm: measured[arm].get(-1) for arm in measured}
        curves: list[dict[int, Values]] = [{} if (end := final[arm]) is None else {plan.main: end} for arm in measured]
        for count in plan.counts:
            for arm in measured:
                curves[arm][count] = self.point(arm, -1, count, plan.seeds)
        for arm, station in plan.further:
            measured[arm][station] = self.point(arm, station, plan.main, plan.seeds)
            if station == -1:
                curves[arm][plan.main] = measured[arm][-1]
        self.info["worth"] = self.worth(curves)
        notes = self.label_notes(labelled, plan)
        if stuck := [self.arms[arm].name for arm, at in measured.items() if any(values.stuck for values in at.values())]:
            notes.append(f"Some trainings of {', '.join(stuck)} say the same for every record: they are stuck, and count as they are.")
        return self.finish(measured, notes, leaks)

    def point(self, arm: int, station: int, count: int, seeds: int) -> Values:
        values = self.measuring.values(arm, station, count, seeds)
        self.keep(arm, station, count, values)
        return values

    def prices(self, labelled: Labelled) -> tuple[dict[int, float], int]:
        """(about the seconds of one training of each random start's network with all labels, on how many threads); a probe costs next to nothing."""
        if self.settings.measure == "linear-probe":
            return {}, torch.get_num_threads()
        draw, found = labelled.draws[0], {}
        threads = torch.get_num_threads()
        for number in sorted(set(self.network.values())):
            bench = self.measuring.bench(number, 0, -1)
            found[number], threads = time_a_score(bench, draw.subsets[labelled.main], labelled.test_records)
        return found, threads

    def refuse_too_few_minutes(self, prices: dict[int, float]) -> None:
        """Before anything is measured: the least that gives a verdict is the choice of each arm's rate, and three seeds."""
        minutes = self.settings.budget.minutes
        if minutes is None or not prices or self.measuring.points.found:
            return
        least = 0.0
        for number, (arm, reading) in enumerate(zip(self.arms, self.readings, strict=True)):
            rates = len(self.measuring.config_of(arm.final).learning_rates)
            trainings = (rates * (1 - DEV_SHARE) if rates > 1 else 0.0) + self.fewest * len(arm.sources) * len(reading.parts)
            least += trainings * prices[self.network.get(number, number)]
        self.refuse_unless(least, 60 * minutes)

    @property
    def fewest(self) -> int:
        return min(FEWEST_SEEDS, self.settings.seeds)

    def refuse_unless(self, least_s: float, budget_s: float) -> None:
        """Raises UsageError where even the least takes more than a fifth longer than the minutes that were given."""
        if least_s > TOLERANCE * budget_s:
            minutes = f"--budget.minutes {rounded_up(1.1 * least_s / 60)}"
            mend = f"Give {minutes}, fewer runs, or --measure linear-probe, which asks another question."
            if self.measuring.points.found:  # dearer than the first moments of a training said
                mend = f"What was measured is kept: the same command with {minutes} goes on from {self.out}."
            raise UsageError(
                f"{in_words(budget_s / 60)} will not do for a verdict: {self.fewest} seeds of {len(self.arms)} arms on all labels take about"
                f" {least_s / 60:.1f}.",
                mend,
            )

    def plan(self, labelled: Labelled) -> Plan:
        """Chooses learning rates, measures the first point of each arm, and plans the others from the time that it took."""
        first = {}
        for arm in range(len(self.arms)):
            rate, tried = self.measuring.rate(arm)
            self.info["arms"][arm] |= {"learning_rate": rate if self.settings.measure == "finetune" else None, "tried": tried_json(tried)}
            first[arm] = self.measuring.score(Item(arm, 0, -1, labelled.main, 0))
            self.write()
        needs = []
        for one, reading in zip(self.arms, self.readings, strict=True):
            needed = tuple(station for station, _ in reading.parts)
            needs.append(Need(len(one.sources), needed, tuple(station for station in one.stations() if station not in needed)))
        minutes = self.settings.budget.minutes
        each = float(np.mean([point.train_s + point.test_s for point in first.values()]))
        begun = time.monotonic() - self.began - each * len(first)  # the first points are of the plan
        plan = make_plan(
            needs,
            lambda arm, count: self.measuring.seconds(Item(arm, 0, -1, count, 0), first[arm]),
            seeds=self.settings.seeds,
            main=labelled.main,
            least=labelled.least,
            counts=self.settings.counts or None,
            budget_s=None if minutes is None else max(60 * minutes - begun, 0.0),
        )
        if minutes is not None:
            self.refuse_unless(begun + plan.seconds, 60 * minutes)
        self.measuring.labelled = labelled.with_counts([plan.main, *plan.counts], plan.seeds)
        self.measuring.total = plan.points
        self.write(
            plan={
                "points": plan.points, "measured": len(first), "seconds_a_point": each, "minutes": plan.seconds / 60, "seeds": plan.seeds,
                "labels": [*plan.counts, plan.main], "left_out": plan.left_out,
            }
        )  # fmt: skip
        for line in words.plan(self.info["plan"], minutes):
            self.say(line)
        return plan

    def data(self, labelled: Labelled) -> dict[str, Any]:
        return {
            "labels": str(self.settings.labels), "test": None if self.settings.test is None else str(self.settings.test),
            "records": len(labelled.records), "train_records": labelled.main, "test_records": labelled.test_records,
            "classes": labelled.records.classes, "split": labelled.split(),
        }  # fmt: skip

    def leaks(self, labelled: Labelled) -> list[str]:
        """Test records (without a test file every record is one) in the training records and in what each run was pre-trained on."""
        tested = (labelled.test or labelled.records).leak_texts()
        found = []
        if labelled.test is not None:
            found.append(find_overlap(tested, labelled.records.leak_texts()).sentence("the labelled training records"))
        for arm in self.arms:
            for source in arm.sources if arm.kind == "run" else []:
                found += training_leaks(tested, source.path, arm.name if len(arm.sources) == 1 else str(source.path))
        return found

    def worth(self, curves: list[dict[int, Values]]) -> list[dict[str, Any]]:
        """For each run with a curve: the largest number of labels for which a random start's equivalent is known, else the smallest."""
        found = []
        for arm, start in self.network.items():
            if len(curves[arm]) < 2 or len(curves[start]) < 2:
                continue
            mine, theirs = (
                Curve(self.metric, {count: at[count].values.mean(0).tolist() for count in at}, self.test_share) for at in (curves[arm], curves[start])
            )
            all_worth = [labels_worth(mine, theirs, count) for count in mine.counts]
            known = [one for one in all_worth if one.random_labels is not None]
            one = known[-1] if known else all_worth[0]
            found.append(
                {
                    "arm": self.arms[arm].name, "labels": one.labels, "random_labels": one.random_labels,
                    "ci95": None if one.ci95 is None else list(one.ci95), "more_than": one.largest if one.random_labels is None else None,
                    "sentence": f"{self.arms[arm].name}: {one.sentence()}",
                }
            )  # fmt: skip
        return found

    def beyond(self, labelled: Labelled) -> str | None:
        """What --counts asks for that there is not."""
        above = [f"{count:,}" for count in sorted(set(self.settings.counts)) if count > labelled.main]
        if not above:
            return None
        there = f"{labelled.main:,} labelled training records"
        return f"--counts {' and '.join(above)} cannot be measured: there are {there}, which are the last point of the curve."

    def label_notes(self, labelled: Labelled, plan: Plan) -> list[str]:
        found = [] if (beyond := self.beyond(labelled)) is None else [beyond]
        if plan.seeds < FEWEST_SEEDS:
            few = f"{plural(plan.seeds, 'seed')} {agree(plan.seeds, 'is', 'are')} too few"
            found.append(f"{few} to tell a difference from noise: give --seeds {FEWEST_SEEDS} or more, better 5.")
        if plan.left_out:
            found.append(f"Left out to fit the minutes: {', '.join(plan.left_out)}.")
        if labelled.repeated:
            found.append(f"Labelled records left out because they repeat the text of another one: {labelled.repeated}.")
        if labelled.task == "classification":
            scored = labelled.test or labelled.records
            commonest = int(np.bincount(np.asarray(scored.labels, dtype=np.int64)).max()) / len(scored)
            found.append(f"Always saying the commonest of the {len(labelled.records.classes)} classes gives accuracy {commonest:.3f}.")
        if self.settings.measure == "linear-probe":
            found.append("A linear probe says what is there already, not what fine-tuning reaches: it may rank runs otherwise.")
        return found


class Unlabelled(Comparing):
    """Halves of held-out documents."""

    def run(self, documents: Documents) -> Comparison:
        self.metric = "halves"
        self.write(
            evidence="no labels", metric=self.metric, data={"store": str(documents.store), "documents": len(documents.firsts)},
            plan={"points": sum(len(arm.sources) * len(arm.stations()) for arm in self.arms), "seeds": self.settings.seeds, "labels": []},
        )  # fmt: skip
        for described, loss in zip(self.info["arms"], losses(self.arms), strict=True):
            described["loss"] = loss
        measured: dict[int, dict[int, Values]] = {}
        device = use_device(self.config.device)
        for number, arm in enumerate(self.arms):
            measured[number] = {}
            for station in arm.stations():
                values, rank = halves_found(arm, station, documents, self.settings.seeds, device)
                measured[number][station] = values
                if station == -1:
                    self.info["arms"][number]["rankme"] = rank
                self.keep(number, station, None, values)
        notes = [
            f"Without labels this is weaker evidence: which network finds the other half of a held-out document among {len(documents.firsts)}."
            " It ranks networks by topic, and your task may ask for something else: label a hundred records and give --labels FILE."
        ]
        texts = [*documents.firsts, *documents.seconds]
        leaks = [
            sentence.replace("test records", "held-out halves")
            for arm in self.arms
            if arm.kind == "run"
            for source in arm.sources
            for sentence in training_leaks(texts, source.path, arm.name)
        ]
        return self.finish(measured, notes, leaks)


def tried_json(tried: dict[float, float]) -> dict[str, float]:
    """Learning rate -> metric, as JSON can hold it."""
    return {f"{rate:g}": value for rate, value in tried.items()}
