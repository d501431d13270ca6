"""`advise`: which pre-training helps on this data, how much, at what cost. Looks, tries, extrapolates, and prints the command to run.

Every candidate runs as the full budget would run it, stopped early (`trainer.stop_at`), so nothing is computed twice: the command at the end
continues the winner's own run. Candidates are every implemented method whose card fits the data; a random start is always an arm.

The folder (default runs/advice/NAME, NAME being that of the data folder):

    advice.json      all of it, rewritten after each measurement: the same command goes on after a kill and measures nothing twice
    ARM/             the run of a candidate: an ordinary run folder (causal-lm, causal-lm-continued ...)
    starts/ARM/      the same network before its first step, as a model folder
    stores/          the prepared data, shared by all arms whose settings of it agree

advice.json, format_version 2 (times in seconds, FLOPs are counted training FLOPs, every metric is better when higher):

    kind, format_version    "advice", 2
    status                  "running" or "done"
    settings                what was asked for; the same command has the same
    look                    data, kinds {kind: files}, text {documents, words, exact_duplicates, near_duplicates, languages {name: share}, ...},
                            images,
                            labels {records, classes {name: count}, repeated, contradictory} or null,
                            machine {device, cores, memory_bytes, flops_per_second}
    evidence                "labels", or "no labels": kNN of the halves of held-out documents, weaker evidence
    metric                  "accuracy" or "knn_halves"
    budget                  {minutes, run_minutes, trial_seconds, flops, needed_minutes}: in all; at most of the winner's whole run; of the answer
                            (speeds, training, measuring); of every arm's full run; where no trial fits, those of a budget in which one does
    candidates              [{arm, method, preset, init, run, steps, minutes (full run, here), flops_per_step and seconds_per_step {phase: n},
                            tokens_per_second, plateau_step, setup_s, ...}]
    left_out                [{method, why, minutes}]: minutes is the budget that would do, or null
    plan                    {splits, rates (learning rates an arm tries), curve, documents (without labels), threads, a_score, a_point (seconds),
                            training_s, measuring_s} or null without a trial
    rungs                   [{flops, steps {arm: step}, joins [arms], keep, seconds}], as planned; the trial may end before the last
    arms                    [{arm, kind ("candidate", "random start", "given model"), method, init, network (folder in starts/),
                            points: [{rung, flops, step, wall_s, values [one a split], learning_rate, rankme}],
                            dropped_after (rung) or null, gain_now {value, ci95, p, over (arm)} or null, full {value, ci95} or null,
                            fitted (a curve, or only a range), gain {value, ci95} or null}]
                            `gain_now` is what the last point has over the best random start, paired by split: the one interval that table and
                            sentence show, p corrected for the number of arms; `full` is what the full run should reach, `gain` that over the best
                            random start
    ranking                 [arm names, best first]
    label_curves            {"pretrained" | "random start": {number of labels: [accuracy, one a seed]}}, where it was measured
    labels_worth            {labels, target (accuracy that pre-training reaches with them), random_labels (that a random start needs for it; null:
                            more than largest), ci95, smallest, largest, sentence} or null
    leaks                   {share (of the labelled records that stand in the pre-training text, wholly or nearly), sentence} or null
    verdict                 {word: "helps" | "should help" | "does not help" | "not enough evidence" | "no trial", winner (arm name) or null,
                            sentence, notes [...], gain_now: that of the best arm}
    commands                {pretrain or null, after}
    spent                   {preparing_s (the page and the data: beside the budget), speed_s, training_s, measuring_s}
    hardware, versions, commit, date
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart import methods
from headstart.core import hardware
from headstart.core.config import flag_names, plain, replace_nested, several
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import locked, read_json, sha256_file
from headstart.core.flags import in_words_of
from headstart.core.run import now
from headstart.core.terminal import printable
from headstart.engine.device import resolve_device
from headstart.tasks.leaks import leak_sentences, training_overlaps
from headstart.verbs import _advise_lines, _advise_look, _advise_verdict
from headstart.verbs._advise_candidates import Candidate, candidate, fitting_methods, usable
from headstart.verbs._advise_commands import finetune_command, pretrain_command
from headstart.verbs._advise_measure import Labels, Start, describe_labels, final_recipe, read_labels
from headstart.verbs._advise_points import Book, Measuring, point_at, random_start_of
from headstart.verbs._advise_settings import AdviseSettings, checked, run_settings, wanted_methods
from headstart.verbs._advise_trial import ON_LABELS, TRIAL_SHARE, Rung, beside, earliest, minutes_for, plan, plan_again, shortened
from headstart.verbs._advise_verdict import CANDIDATE, GIVEN, RANDOM
from headstart.verbs.config import flag
from headstart.verbs.pretrain import git_commit, pretrain, versions
from headstart.verbs.sample import newest_export

KIND, FORMAT_VERSION = "advice", 2
MUCH_LEAKED = 0.05
LOGGER = "headstart"


@dataclass
class Advice:
    """An advice: its folder, and what advice.json holds."""

    folder: Path
    info: dict[str, Any]


def advise(
    data: str | Path | Sequence[str | Path] = (),
    *,
    labels: str | Path | None = None,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] | None = None,
    **settings: Any,
) -> Advice:
    """Which pre-training helps on `data`, how much, at what cost: `advise("texts/", labels="labels.jsonl", **{"budget.minutes": 10})`.

    Args:
        data: files, folders, prepared stores, or "builtin:python-docs".
        labels: a file with labelled records of the task that matters.
        say, live: as in `pretrain`.
        settings: fields of `AdviseSettings`.

    Raises:
        BadInput: the data or the labels cannot be used. UsageError: a setting is wrong, or the folder holds another advice.
    """
    entries = several(data)
    given = {"data": tuple(map(str, entries)), "labels": None if labels is None else Path(labels), **settings}
    return advise_with(replace_nested(AdviseSettings(), given), say=say, live=live)


@in_words_of(flag_names(AdviseSettings()))
def advise_with(settings: AdviseSettings, *, say: Callable[[str], None] = print, live: Callable[[str], None] | None = None) -> Advice:
    """As `advise`, from settings."""
    advising = _Advising(settings, checked(settings), lambda line: say(printable(line)), live)
    with locked(advising.out / ".lock", "advises there"):
        return advising.run()


def read_advice(folder: Path) -> dict[str, Any]:
    """advice.json of a folder.

    Raises:
        BadInput: there is none, or it is not one of ours.
    """
    path = folder / "advice.json"
    info = read_json(path)
    if not isinstance(info, dict) or info.get("kind") != KIND or info.get("format_version") != FORMAT_VERSION:
        raise BadInput("was not written by this version of headstart.", f"Format version {FORMAT_VERSION} is expected.", file=path)
    return info


class _Advising:
    """One advice. Everything that it knows is in `info`, which is written after each measurement and read again after a kill."""

    def __init__(self, settings: AdviseSettings, out: Path, say: Callable[[str], None], live: Callable[[str], None] | None) -> None:
        self.settings = settings
        self.out = out
        self.say = say
        self.live = live
        self.warned: set[str] = set()
        resolve_device(settings.device)
        self.book = Book(out)
        most = max(effort.splits for effort in ON_LABELS)
        fields = settings.text_field, settings.label_field
        self.labels = None if settings.labels is None else read_labels(settings.labels, *fields, settings.seed, most)
        self.measuring = Measuring(self.book, settings, self.labels, say)
        self.contents = _advise_look.contents_of(settings.data)
        self.slugs, self.not_yet = fitting_methods(self.contents, wanted_methods(settings), settings.init is not None)
        if self.labels is not None:
            self.leave_out_other_records()
        self.options = {"seed": settings.seed, "device": settings.device, "text_field": settings.text_field} | run_settings(settings.pretrain)
        if not self.slugs:
            self.refuse_data()

    @property
    def info(self) -> dict[str, Any]:
        return self.book.info

    def run(self) -> Advice:
        asked = plain(dataclasses.replace(self.settings, json=False, debug=False, out=None))
        asked["labels_sha256"] = None if self.settings.labels is None else sha256_file(self.settings.labels)
        if (self.out / "advice.json").exists():
            self.book.info = self.earlier(asked)
            if self.info:
                self.say(f"{self.out} is done. Nothing to do." if self.info["status"] == "done" else f"Going on with {self.out}.")
        self.say(_advise_lines.opening_line(asked))
        if not self.info:
            self.book.info = self.looked_at(asked)
            self.book.save()
        self.tell(_advise_lines.look_lines(self.info))
        if "candidates" not in self.info:
            self.find_candidates()
        self.tell(_advise_lines.candidate_lines(self.info))
        if self.info["status"] != "done":
            if self.info["rungs"]:
                self.trial()
            _advise_verdict.judge(self.info)
            self.conclude()
            self.info["status"] = "done"
            self.book.save()
        self.tell(_advise_lines.closing_lines(self.info))
        return Advice(self.out, self.info)

    # --- the steps of `run` -----------------------------------------------------------------------------------------------------------------

    def earlier(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The advice that lies here already; nothing where it was another question and there was no trial: then the prepared data alone is worth
        keeping, and the person does what the answer said.

        Raises:
            UsageError: it was another question, and something was measured.
        """
        info = read_advice(self.out)
        before = info.get("settings", {})
        if asked["preset"] is None and before.get("preset") == "tiny":  # what was written of a preset that nobody named
            before = before | {"preset": None}
        changed = [name for name in asked if before.get(name) != asked[name]]
        if not changed:
            return info
        listed = "; ".join(f"{flag(name)}: {before.get(name)!r} -> {asked[name]!r}" for name in changed)
        if info["status"] != "done" or any(arm["points"] for arm in info["arms"]):
            raise UsageError(f"{self.out} holds an advice on another question ({listed}).", "Repeat its settings, or choose another --out.")
        self.say(f"{self.out} came to no trial; this is another question ({listed}).")
        return {}

    def leave_out_other_records(self) -> None:
        """Labelled texts say nothing of networks that read something else (images).

        Raises:
            UsageError: no other method is left.
        """
        others = [slug for slug in self.slugs if methods.settings(slug).data_group != "text"]
        self.slugs = [slug for slug in self.slugs if slug not in others]
        self.not_yet += [{"method": slug, "why": "its export is no text encoder, and --labels are texts", "minutes": None} for slug in others]
        if others and not self.slugs:
            raise UsageError(
                f"--labels are texts, and {', '.join(others)} read none.",
                "Leave --labels out: held-out records are then the evidence. With labelled images finetune (image-classification) compares"
                " a run with a random start.",
            )

    def refuse_data(self) -> None:
        """No method can be tried: says what lies there and what is missing."""
        kinds = sorted({kind for entry in self.contents for kind in entry.kinds})
        where = ", ".join(self.settings.data)
        if not kinds:
            empty, files = (sum(getattr(entry, name) for entry in self.contents) for name in ("empty", "n_files"))
            what = "nothing to pre-train on was recognised" if not empty else f"there is no data, {empty:,} of {files:,} files are empty"
            raise BadInput(what, "`headstart list` says which data the methods ask for.", file=where)
        named = ", ".join(entry["method"] for entry in self.not_yet) or "none"
        raise UsageError(
            f"{where} holds {', '.join(kinds)}, and no method for that has code yet (in the catalog: {named}).",
            "`headstart list` shows what runs today and which data it asks for.",
        )

    def looked_at(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A new advice: the page on the data."""
        began = time.perf_counter()
        page = _advise_look.look(self.settings.data, self.contents, self.settings.text_field)
        page["labels"] = None if self.labels is None else describe_labels(self.labels.data)
        device = resolve_device(self.settings.device)
        page["machine"] = {
            "device": str(device),
            "cores": hardware.cores(),
            "memory_bytes": hardware.memory_total(),
            "flops_per_second": hardware.matmul_flops(device, torch.float32, seconds=0.3),
        }
        minutes = float(self.settings.budget.minutes or 0)
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "status": "running",
            "settings": asked,
            "look": page,
            "evidence": "no labels" if self.labels is None else "labels",
            "metric": "knn_halves" if self.labels is None else "accuracy",
            "budget": {"minutes": minutes, "run_minutes": (1 - TRIAL_SHARE) * minutes, "trial_seconds": TRIAL_SHARE * 60 * minutes},
            "arms": [],
            "labels_worth": None,
            "leaks": None,
            "spent": {"preparing_s": time.perf_counter() - began, "speed_s": 0.0, "training_s": 0.0, "measuring_s": 0.0},
            "hardware": hardware.describe(),
            "versions": versions(),
            "commit": git_commit(),
            "date": now(),
        }

    def find_candidates(self) -> None:
        """Measures every candidate's speed and what measuring costs, and plans the trial."""
        settings, budget, spent = self.settings, self.info["budget"], self.info["spent"]
        self.say("Preparing the data once, and measuring the speed of each method here ...")
        starts = (None,) if settings.init is None else (None, settings.init)
        wanted = [candidate(slug, self.out, settings.data, settings.preset, init, self.options) for init in starts for slug in self.slugs]
        began = time.perf_counter()
        found, left_out, flops = usable(wanted, budget["run_minutes"], self.out / "starts", self.warnings_of)
        spent["speed_s"] = sum(entry.setup_s for entry in wanted)
        spent["preparing_s"] += time.perf_counter() - began - spent["speed_s"]
        for entry in left_out:
            entry["minutes"] = None if entry["minutes"] is None else entry["minutes"] / (1 - TRIAL_SHARE)
        budget["flops"] = flops
        self.info["plan"], rungs = None, []
        if found:
            prices, threads = self.measuring.prices(found[0])
            before = spent["speed_s"] + spent["measuring_s"]
            trial = plan(found, budget["trial_seconds"] - before, prices)
            for late in trial.late:
                why = f"a fifth of the budget has no time to train it off its unigram plateau (about {earliest(late):,} steps) and to measure it too"
                needed = minutes_for([*trial.candidates, late], budget["minutes"], before, prices)
                left_out.append({"method": late.arm, "why": why, "minutes": needed})
            if not trial.rungs:
                budget["needed_minutes"] = min(minutes_for([entry], budget["minutes"], before, prices) for entry in found)
            found, rungs = trial.candidates, trial.rungs
            costs = {"threads": threads, "a_score": prices.a_score, "a_point": prices.a_point}
            times = {"training_s": trial.training_s, "measuring_s": trial.measuring_s}
            self.info["plan"] = plain(trial.effort) | costs | times if rungs else None
        self.info["left_out"] = [*left_out, *self.not_yet]
        self.info["rungs"] = [rung.to_json() for rung in rungs]
        self.info["arms"] = self.arms(found) if rungs else []
        self.info["candidates"] = [entry.to_json() for entry in found]
        self.book.save()

    def arms(self, found: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Random starts, the user's model as it is, and the candidates."""
        names = {RANDOM: lambda entry: f"random start ({entry.arm} network)", GIVEN: lambda entry: f"{entry.init} as it is"}
        others = [new_arm(names[kind](entry), kind, entry) for kind, entry in beside(found, self.labels is not None)]
        return [*others, *(new_arm(entry.arm, CANDIDATE, entry) for entry in found)]

    def trial(self) -> None:
        """Trains rung by rung and measures each; goes on where it was."""
        candidates = {entry["arm"]: Candidate.from_json(entry) for entry in self.info["candidates"]}
        for arm in self.info["arms"]:
            if arm["kind"] != CANDIDATE:
                start = Start(self.out / "starts" / arm["network"], fresh=arm["kind"] == RANDOM)
                self.measuring.point(arm, 0, candidates[arm["network"]], start, {"flops": 0, "step": 0, "wall_s": 0.0})
        if not any(arm["points"] for arm in self.info["arms"] if arm["kind"] == CANDIDATE):
            self.plan_again([candidates[arm["arm"]] for arm in self.info["arms"] if arm["kind"] == CANDIDATE])
        rungs = [Rung(**entry) for entry in self.info["rungs"]]
        by_name = {arm["arm"]: arm for arm in self.info["arms"]}
        alive: list[dict[str, Any]] = []
        for number in range(len(rungs)):
            alive.sort(key=lambda arm: -sum((point_at(arm, number - 1) or {})["values"]))
            here = [*alive[: rungs[number].keep], *(by_name[name] for name in rungs[number].joins)]
            if not self.fitted_in(number, rungs, [arm["arm"] for arm in here], candidates):
                self.say("The machine is slower than it was measured: the trial ends here, with its share of the budget spent.")
                for rung in rungs[number:]:
                    for name in rung.joins:
                        self.skip(by_name[name], number)
                break
            for arm in alive[rungs[number].keep :]:
                arm["dropped_after"] = number - 1
            alive = here
            for place, arm in enumerate(list(alive)):
                if place and not self.affordable(arm, number, rungs[number], candidates):
                    self.say(f"The machine is slower than it was measured: no time is left for {arm['arm']}.")
                    self.skip(arm, number)
                    alive.remove(arm)
                else:
                    self.rung(arm, number, rungs[number], candidates[arm["arm"]])
            self.book.save()

    def plan_again(self, planned: list[Candidate]) -> None:
        """By now measuring has been paid for once: where it took longer than expected, the rungs and candidates that still fit."""
        effort, prices = self.measuring.pace
        rungs = [Rung(**entry) for entry in self.info["rungs"]]
        left = self.book.left_s(1.0)  # the machine is busier than it was: no more is to be expected of it
        if sum(rung.seconds + self.measuring.seconds_of(rung) for rung in rungs) <= self.book.left_s():
            return
        kept, rungs = plan_again(planned, left, effort, prices)
        self.info["rungs"] = [rung.to_json() for rung in rungs]
        for late in planned:
            if late not in kept:
                minutes = minutes_for(planned, self.info["budget"]["minutes"], self.info["spent"]["speed_s"], prices)
                self.info["left_out"].append({"method": late.arm, "why": "measuring takes longer here than expected", "minutes": minutes})
        names, gone = [entry.arm for entry in kept], [entry.arm for entry in planned if entry not in kept]
        self.info["arms"] = [arm for arm in self.info["arms"] if arm["kind"] != CANDIDATE or arm["arm"] in names]
        self.book.save()
        self.say(_advise_lines.shortened_line(rungs[-1].flops / self.info["budget"]["flops"], names, gone))

    def pace(self, candidates: dict[str, Candidate]) -> float:
        """How many times as long as expected the training so far took."""
        expected = 0.0
        for arm in self.info["arms"]:
            if arm["kind"] == CANDIDATE and arm["points"]:
                wanted = candidates[arm["arm"]]
                expected += wanted.setup_s + wanted.cost_until(arm["points"][-1]["step"], wanted.seconds_per_step)
        return float(self.info["spent"]["training_s"]) / expected if expected else 1.0

    def affordable(self, arm: dict[str, Any], number: int, rung: Rung, candidates: dict[str, Candidate]) -> bool:
        """Whether there is time to train an arm to a rung and to measure it there, of which others have been measured. What was begun is ended."""
        if point_at(arm, number) is not None:
            return True
        wanted, before = candidates[arm["arm"]], arm["points"][-1]["step"] if arm["points"] else 0
        training = wanted.cost_until(rung.steps[wanted.arm], wanted.seconds_per_step) - wanted.cost_until(before, wanted.seconds_per_step)
        effort, prices = self.measuring.pace
        return self.pace(candidates) * (training + wanted.setup_s) + prices.measuring_s(effort, 1, 1) <= self.book.left_s()

    def skip(self, arm: dict[str, Any], number: int) -> None:
        """There is no time for an arm at a rung."""
        if arm["points"]:
            arm["dropped_after"] = number - 1
        elif all(entry["method"] != arm["arm"] for entry in self.info["left_out"]):
            why = "the machine was slower than measured: no time was left for it"
            self.info["left_out"].append({"method": arm["arm"], "why": why, "minutes": None})

    def fitted_in(self, number: int, rungs: list[Rung], alive: Sequence[str], candidates: dict[str, Candidate]) -> bool:
        """Whether the next rung stays within the trial's share at the pace so far; it is shortened where that suffices. The first one was planned
        with what measuring takes; one that was begun before a kill is ended as it is."""
        if number == 0 or any(point_at(arm, number) is not None for arm in self.info["arms"] if arm["kind"] == CANDIDATE):
            return True
        expected, left = self.pace(candidates) * rungs[number].seconds, self.book.left_s() - self.measuring.seconds_of(rungs[number])
        if expected > left:
            shorter = shortened(rungs[number], rungs[number - 1], [candidates[name] for name in alive], left / expected)
            if shorter is None:
                return False
            rungs[number] = shorter
            self.info["rungs"][number] = shorter.to_json()
            self.book.save()
        return True

    def rung(self, arm: dict[str, Any], number: int, rung: Rung, wanted: Candidate) -> None:
        """Trains one candidate to a rung, and measures it there."""
        if self.measuring.complete(point_at(arm, number)):
            return
        step = rung.steps[wanted.arm]
        more = {"budget.flops": self.info["budget"]["flops"], "trainer.stop_at": step, "out": wanted.run, "preset": wanted.preset}
        self.say(f"  {wanted.arm}: training to step {step:,} ...")
        live = None if (show := self.live) is None else (lambda line: show(f"{wanted.arm}: {line}"))
        with self.book.timed("training_s"), self.warnings_of(wanted.arm) as warned:
            run = pretrain(wanted.method, say=warned, live=live or (lambda line: None), **wanted.settings, **more)
        totals = run.info["totals"]
        facts = {"flops": totals["flops"], "step": totals["steps"], "wall_s": totals["wall_s"]}
        self.measuring.point(arm, number, wanted, Start(newest_export(run.folder)), facts)

    def conclude(self) -> None:
        """What follows from the verdict: leaks, what the head start is worth in labels, and the commands."""
        self.info["commands"] = {"pretrain": None, "after": None}
        arms = {arm["arm"]: arm for arm in self.info["arms"]}
        best = next((arms[name] for name in self.info.get("ranking", []) if arms[name]["kind"] != RANDOM), None)
        if best is None:
            return
        if best["kind"] == CANDIDATE:
            wanted = next(Candidate.from_json(entry) for entry in self.info["candidates"] if entry["arm"] == best["arm"])
            self.info["commands"]["pretrain"] = pretrain_command(wanted, self.info["budget"]["flops"])
            if self.labels is not None:
                self.find_leaks(wanted, self.labels)
                if self.info["verdict"]["winner"] is not None:
                    self.measuring.find_labels_worth(best, random_start_of(best, self.info), self.labels)
        init = wanted.run if best["kind"] == CANDIDATE else Path(best["init"])
        settings = self.settings
        config = final_recipe(best["points"][-1]["learning_rate"], settings.text_field, settings.label_field, settings.device)
        self.info["commands"]["after"] = finetune_command(init, self.settings.labels, config)

    def find_leaks(self, wanted: Candidate, labels: Labels) -> None:
        """Which labelled records stand in the pre-training text: every one is a test record of some split."""
        texts = labels.data.leak_texts()
        overlaps = training_overlaps(texts, wanted.run)
        share = max((overlap.share for run, overlap in overlaps if run == wanted.run and overlap is not None), default=0.0)
        self.info["leaks"] = {"share": share, "sentence": " ".join(leak_sentences(overlaps, wanted.run))}
        if share > MUCH_LEAKED:
            self.info["verdict"]["notes"].append(
                f"{share:.0%} of the labelled records stand in the pre-training text, without their labels: on new texts the gain may be smaller."
            )

    # --- what is said ------------------------------------------------------------------------------------------------------------------------

    def tell(self, report: Sequence[str]) -> None:
        for line in report:
            self.say(line)

    @contextmanager
    def warnings_of(self, arm: str) -> Iterator[Callable[[str], None]]:
        """Inside, warnings of what runs are said once, with the arm's name: those of the log, and those among the lines that the result is given."""

        def heard(line: str) -> None:
            if "WARNING" in line:
                self.warn(arm, line.partition("WARNING")[2].strip(" :"))

        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.warn(arm, record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger(LOGGER)
        logger.addHandler(handler)
        try:
            yield heard
        finally:
            logger.removeHandler(handler)

    def warn(self, arm: str, warning: str) -> None:
        line = f"  WARNING    {arm}: {warning}"
        if line not in self.warned:
            self.warned.add(line)
            self.say(line)


def new_arm(name: str, kind: str, network: Candidate) -> dict[str, Any]:
    """An arm without measurements. `network` names the folder in starts/ that holds its network."""
    return {
        "arm": name,
        "kind": kind,
        "method": None if kind != CANDIDATE else network.method,
        "init": None if network.init is None else str(network.init),
        "network": network.arm,
        "points": [],
        "dropped_after": None,
        "gain_now": None,
        "full": None,
        "fitted": False,
        "gain": None,
    }
