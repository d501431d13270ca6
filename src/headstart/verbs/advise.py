"""`advise`: which pre-training helps on this data, how much, at what cost. Looks, tries, extrapolates, and prints the command to run.

Every candidate runs as the full budget would run it, stopped early (`trainer.stop_at`), so nothing is computed twice: the command at the end
continues the winner's own run. Candidates are every implemented method whose card fits the data; a random start is always an arm.

The folder (default runs/advice/NAME, NAME being that of the data folder):

    advice.json      all of it, rewritten after each measurement: the same command goes on after a kill and measures nothing twice
    ARM/             the run of a candidate: an ordinary run folder (causal-lm, causal-lm-continued ...)
    starts/ARM/      the same network before its first step, as a model folder
    stores/          the prepared data, shared by all arms whose settings of it agree

advice.json, format_version 1 (times in seconds, FLOPs are counted training FLOPs, every metric is better when higher):

    kind, format_version    "advice", 1
    status                  "running" or "done"
    settings                what was asked for; the same command has the same
    look                    data, kinds {kind: files}, text {documents, words, exact_duplicates, near_duplicates, languages {name: share}, ...},
                            images,
                            labels {records, classes {name: count}, repeated, contradictory} or null,
                            machine {device, cores, memory_bytes, flops_per_second}
    evidence                "labels", or "no labels": kNN of the halves of held-out documents, weaker evidence
    metric                  "accuracy" or "knn_halves"
    budget                  {minutes, flops, trial_seconds, needed_minutes, seconds_a_point}: flops is that of every arm's full run; needed_minutes,
                            where no trial fits into a fifth of the budget, is one in which it does; seconds_a_point is what a measurement should take
    candidates              [{arm, method, preset, init, run, steps, minutes (full run, here), flops_per_step and seconds_per_step {phase: n},
                            tokens_per_second, plateau_step, setup_s, ...}]
    left_out                [{method, why, minutes}]: minutes is the budget that would do, or null
    rungs                   [{flops, steps {arm: step}, keep, seconds}], as planned; the trial may end before the last
    arms                    [{arm, kind ("candidate", "random start", "given model"), method, init, network (folder in starts/),
                            points: [{rung, flops, step, wall_s, values [one a split], learning_rate, rankme}],
                            dropped_after (rung) or null, full {value, ci95} or null, fitted (a curve, or only a range), gain {value, ci95} or null}]
                            `full` is what the full budget should reach, `gain` that over the best random start, paired by split
    ranking                 [arm names, best first]
    label_curves            {"pretrained" | "random start": {number of labels: [accuracy, one a seed]}}, where it was measured
    labels_worth            {labels, target (accuracy that pre-training reaches with them), random_labels (that a random start needs for it; null:
                            more than largest), ci95, smallest, largest, sentence} or null
    leaks                   {share (of the labelled records that stand in the pre-training text, wholly or nearly), sentence} or null
    verdict                 {word: "helps" | "should help" | "does not help" | "not enough evidence" | "no trial", winner (arm name) or null,
                            sentence, notes [...], gain_now {value, ci95}: at the last rung, not extrapolated}
    commands                {pretrain or null, after}
    spent                   {training_s, measuring_s}
    hardware, versions, commit, date
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.core import hardware
from headstart.core.config import plain, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import locked, read_json, sha256_file, write_json
from headstart.core.run import now
from headstart.core.terminal import printable
from headstart.engine.device import resolve_device
from headstart.engine.text_method import model_folder
from headstart.tasks.label_curve import Curve, labels_worth
from headstart.tasks.leaks import leak_sentences, training_overlaps
from headstart.verbs import _advise_lines, _advise_look, _advise_verdict
from headstart.verbs._advise_candidates import Candidate, candidate, fitting_methods, usable
from headstart.verbs._advise_commands import finetune_command, pretrain_command, run_settings
from headstart.verbs._advise_measure import (
    CURVE_TEST_SHARE,
    SPLITS,
    Labels,
    Start,
    curve_draws,
    describe_labels,
    final_recipe,
    fine_tuning,
    read_labels,
    seconds_a_point,
    without_labels,
)
from headstart.verbs._advise_settings import AdviseSettings, checked
from headstart.verbs._advise_trial import TRIAL_SHARE, Rung, earliest, minutes_for, plan, shortened
from headstart.verbs._advise_verdict import CANDIDATE, GIVEN, RANDOM
from headstart.verbs.config import flag
from headstart.verbs.pretrain import git_commit, pretrain, versions
from headstart.verbs.sample import newest_export

KIND, FORMAT_VERSION = "advice", 1
MUCH_LEAKED = 0.05
TOLERANCE = 1.1  # the trial ends before a rung that would take it beyond a fifth of the budget by more than this


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
    entries = [data] if isinstance(data, str | Path) else list(data)
    given = {"data": tuple(map(str, entries)), "labels": None if labels is None else Path(labels), **settings}
    return advise_with(replace_nested(AdviseSettings(), given), say=say, live=live)


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
        self.info: dict[str, Any] = {}
        self.labels = None if settings.labels is None else read_labels(settings.labels, settings.text_field, settings.label_field, settings.seed)
        self.contents = _advise_look.contents_of(settings.data)
        wanted = [slug for entry in settings.methods for slug in entry.split(",") if slug]
        self.slugs, self.not_yet = fitting_methods(self.contents, wanted)
        self.options = {"seed": settings.seed, "device": settings.device, "text_field": settings.text_field} | run_settings(settings.pretrain)
        if not self.slugs:
            self.refuse_data()

    def run(self) -> Advice:
        asked = plain(dataclasses.replace(self.settings, json=False, debug=False, out=None))
        asked["labels_sha256"] = None if self.settings.labels is None else sha256_file(self.settings.labels)
        if (self.out / "advice.json").exists():
            self.info = read_advice(self.out)
            self.refuse_changes(asked)
            self.say(f"{self.out} is done. Nothing to do." if self.info["status"] == "done" else f"Going on with {self.out}.")
        if not self.info:
            self.info = self.looked_at(asked)
            self.save()
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
            self.save()
        self.tell(_advise_lines.closing_lines(self.info))
        return Advice(self.out, self.info)

    # --- the steps of `run` -----------------------------------------------------------------------------------------------------------------

    def refuse_changes(self, asked: dict[str, Any]) -> None:
        before = self.info.get("settings", {})
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            listed = "; ".join(f"{flag(name)}: {before.get(name)!r} -> {asked[name]!r}" for name in changed)
            raise UsageError(f"{self.out} holds an advice on another question ({listed}).", "Repeat its settings, or choose another --out.")

    def refuse_data(self) -> None:
        """No method can be tried: says what lies there and what is missing."""
        kinds = sorted({kind for entry in self.contents for kind in entry.kinds})
        where = ", ".join(self.settings.data)
        if not kinds:
            raise BadInput("nothing to pre-train on was recognised", "`headstart list` says which data the methods ask for.", file=where)
        named = ", ".join(entry["method"] for entry in self.not_yet) or "none"
        raise UsageError(
            f"{where} holds {', '.join(kinds)}, and no method for that has code yet (in the catalog: {named}).",
            "`headstart list` shows what runs today and which data it asks for.",
        )

    def looked_at(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A new advice: the page on the data."""
        page = _advise_look.look(self.settings.data, self.contents, self.settings.text_field)
        page["labels"] = None if self.labels is None else describe_labels(self.labels.data)
        device = resolve_device(self.settings.device)
        page["machine"] = {
            "device": str(device),
            "cores": hardware.cores(),
            "memory_bytes": hardware.memory_total(),
            "flops_per_second": hardware.matmul_flops(device, torch.float32, seconds=0.3),
        }
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "status": "running",
            "settings": asked,
            "look": page,
            "evidence": "no labels" if self.labels is None else "labels",
            "metric": "knn_halves" if self.labels is None else "accuracy",
            "budget": {"minutes": self.settings.budget.minutes},
            "arms": [],
            "labels_worth": None,
            "leaks": None,
            "spent": {"training_s": 0.0, "measuring_s": 0.0},
            "hardware": hardware.describe(),
            "versions": versions(),
            "commit": git_commit(),
            "date": now(),
        }

    def find_candidates(self) -> None:
        """Measures every candidate's speed, and plans the trial."""
        settings, minutes = self.settings, float(self.settings.budget.minutes or 0)
        self.say("Preparing the data once, and measuring the speed of each method here ...")
        starts = (None,) if settings.init is None else (None, settings.init)
        wanted = [candidate(slug, self.out, settings.data, settings.preset, init, self.options) for init in starts for slug in self.slugs]
        found, left_out, flops = usable(wanted, minutes, self.out / "starts")
        trial_s = TRIAL_SHARE * 60 * minutes
        self.info["budget"] |= {"flops": flops, "trial_seconds": trial_s}
        found, rungs, late = plan(found, trial_s)
        for entry in late:
            why = f"a fifth of the budget ends on its unigram plateau (left after about {earliest(entry):,} steps), where nothing can be measured"
            left_out.append({"method": entry.arm, "why": why, "minutes": minutes_for([*found, entry], minutes)})
        if found and not rungs:
            self.info["budget"]["needed_minutes"] = min(minutes_for([entry], minutes) for entry in found)
        self.info["left_out"] = [*left_out, *self.not_yet]
        self.info["rungs"] = [rung.to_json() for rung in rungs]
        self.info["arms"] = self.arms(found) if rungs else []
        self.info["candidates"] = [entry.to_json() for entry in found]
        self.save()

    def arms(self, found: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Candidates, the random start of each different network among them, and the user's model as it is."""
        arms, networks = [], set()
        for entry in found:
            config = model_folder(self.out / "starts" / entry.arm) / "config.json"
            network = config.read_bytes() if config.is_file() else entry.arm.encode()
            if network not in networks and (entry.init is None or self.labels is not None):
                networks.add(network)
                arms.append(new_arm(f"random start ({entry.arm} network)", RANDOM, entry))
        if given := [entry for entry in found if entry.init is not None]:
            arms.append(new_arm(f"{given[0].init} as it is", GIVEN, given[0]))
        return [*arms, *(new_arm(entry.arm, CANDIDATE, entry) for entry in found)]

    def trial(self) -> None:
        """Trains rung by rung and measures each; goes on where it was."""
        candidates = {entry["arm"]: Candidate.from_json(entry) for entry in self.info["candidates"]}
        rungs = [Rung(**entry) for entry in self.info["rungs"]]
        self.tell(_advise_lines.spending_lines(self.info, self.seconds_a_point()))
        for arm in self.info["arms"]:
            if arm["kind"] != CANDIDATE:
                start = Start(self.out / "starts" / arm["network"], fresh=arm["kind"] == RANDOM)
                self.point(arm, 0, candidates[arm["network"]], start, {"flops": 0, "step": 0, "wall_s": 0.0})
        alive = [arm for arm in self.info["arms"] if arm["kind"] == CANDIDATE]
        for number in range(len(rungs)):
            if number and not self.fitted_in(number, rungs, [candidates[arm["arm"]] for arm in alive]):
                self.say("The machine is slower than it was measured: the trial ends here, with its share of the budget spent.")
                break
            for arm in alive:
                self.rung(arm, number, rungs[number], candidates[arm["arm"]])
            alive.sort(key=lambda arm: -sum(arm["points"][number]["values"]))
            for arm in alive[rungs[number + 1].keep :] if number + 1 < len(rungs) else []:
                arm["dropped_after"] = number
            alive = [arm for arm in alive if arm["dropped_after"] is None]
            self.save()

    def fitted_in(self, number: int, rungs: list[Rung], alive: Sequence[Candidate]) -> bool:
        """Whether the next rung stays within the trial's share at the pace so far; it is shortened where that suffices. A rung that was begun before
        a kill is ended as it is."""
        if any(len(arm["points"]) > number for arm in self.info["arms"]):
            return True
        spent, planned = self.info["spent"]["training_s"], sum(rung.seconds for rung in rungs[:number])
        expected = rungs[number].seconds * spent / max(planned, 1e-9)
        left = TOLERANCE * self.info["budget"]["trial_seconds"] - spent
        if expected > left:
            shorter = shortened(rungs[number], rungs[number - 1], alive, left / expected)
            if shorter is None:
                return False
            rungs[number] = shorter
            self.info["rungs"][number] = shorter.to_json()
            self.save()
        return True

    def rung(self, arm: dict[str, Any], number: int, rung: Rung, wanted: Candidate) -> None:
        """Trains one candidate to a rung, and measures it there."""
        if len(arm["points"]) > number and self.complete(arm["points"][number]):
            return
        step = rung.steps[wanted.arm]
        more = {"budget.flops": self.info["budget"]["flops"], "trainer.stop_at": step, "out": wanted.run, "preset": wanted.preset}
        heard = lambda line: self.say(f"    {wanted.arm}: {line}") if telling(line) else None  # noqa: E731
        with self.timed("training_s"):
            run = pretrain(wanted.method, say=heard, live=self.live, **wanted.settings, **more)
        totals = run.info["totals"]
        facts = {"flops": totals["flops"], "step": totals["steps"], "wall_s": totals["wall_s"]}
        self.point(arm, number, wanted, Start(newest_export(run.folder)), facts)

    def point(self, arm: dict[str, Any], number: int, wanted: Candidate, start: Start, facts: dict[str, Any]) -> None:
        """Measures one arm at one rung, a split at a time; what is there is not measured again."""
        if len(arm["points"]) == number:
            arm["points"].append({"rung": number, **facts, "values": [], "learning_rate": None, "rankme": None})
        point = arm["points"][number]
        with self.timed("measuring_s"):
            if self.labels is None and not self.complete(point):
                weights = None if arm["kind"] != CANDIDATE else start.folder
                point["values"], point["rankme"] = without_labels(wanted, weights, self.settings.seed)
            elif self.labels is not None and not self.complete(point):
                bench = fine_tuning(start, self.labels, self.settings.device)
                if point["learning_rate"] is None:  # chosen once an arm, with the same effort for all
                    point["learning_rate"] = arm["points"][0]["learning_rate"] or bench.best_rate(self.labels.splits[0])[0]
                for split in self.labels.splits[len(point["values"]) :]:
                    point["values"].append(bench.score(split.train, split.test, split.seed, point["learning_rate"]).value)
                    self.save()
        self.save()
        self.say(_advise_lines.point_line(arm, point, self.info))

    def complete(self, point: dict[str, Any]) -> bool:
        return len(point["values"]) == SPLITS

    def seconds_a_point(self) -> float | None:
        """About what measuring one arm once takes, from one epoch of fine-tuning; None without labels, where it takes a moment."""
        first = next(arm for arm in self.info["arms"])
        if self.labels is None or "seconds_a_point" in self.info["budget"]:
            return self.info["budget"].get("seconds_a_point")
        with self.timed("measuring_s"):
            bench = fine_tuning(Start(self.out / "starts" / first["network"], fresh=True), self.labels, self.settings.device)
            self.info["budget"]["seconds_a_point"] = seconds_a_point(bench, self.labels)
        return float(self.info["budget"]["seconds_a_point"])

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
                    self.find_labels_worth(best, self.labels)
        init = wanted.run if best["kind"] == CANDIDATE else Path(best["init"])
        settings = self.settings
        config = final_recipe(best["points"][-1]["learning_rate"], settings.text_field, settings.label_field, settings.device)
        self.info["commands"]["after"] = finetune_command(init, self.settings.labels, config)

    def find_labels_worth(self, best: dict[str, Any], labels: Labels) -> None:
        """How many labels a random start of the same network needs for what the trial's network reaches with few."""
        draws = curve_draws(labels)
        few = min(draws[0].subsets)
        starts = {"pretrained": Start(newest_export(self.out / best["arm"]))}
        starts["random start"] = Start(self.out / "starts" / best["network"], fresh=True)
        rates = {"pretrained": best, "random start": self.random_start_of(best)}
        kept = self.info.setdefault("label_curves", {name: {} for name in starts})
        curves = {}
        for name, start in starts.items():
            counts = sorted(draws[0].subsets) if name == "random start" else [few]
            with self.timed("measuring_s"):
                bench = fine_tuning(start, labels, self.settings.device)
                for count in counts:
                    values = kept[name].setdefault(str(count), [])
                    for draw in draws[len(values) :]:
                        values.append(bench.score(draw.subsets[count], draw.test, draw.seed, rates[name]["points"][-1]["learning_rate"]).value)
                        self.save()
            curves[name] = Curve("accuracy", {count: kept[name][str(count)] for count in counts}, test_share=CURVE_TEST_SHARE)
        worth = labels_worth(curves["pretrained"], curves["random start"], few)
        share = best["points"][-1]["flops"] / self.info["budget"]["flops"]
        sentence = f"{worth.sentence()} The pre-training was that of the trial, {share:.0%} of the budget."
        self.info["labels_worth"] = plain(worth) | {"sentence": sentence}

    def random_start_of(self, best: dict[str, Any]) -> dict[str, Any]:
        """The random start whose network is that of an arm; one of another network with equal settings stands for it."""
        starts = [arm for arm in self.info["arms"] if arm["kind"] == RANDOM]
        return next((arm for arm in starts if arm["network"] == best["network"]), starts[0])

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

    # --- keeping -----------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.info["spent"][what] += time.perf_counter() - started

    def save(self) -> None:
        write_json(self.out / "advice.json", self.info)

    def tell(self, report: Sequence[str]) -> None:
        for line in report:
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
        "full": None,
        "fitted": False,
        "gain": None,
    }


def telling(line: str) -> bool:
    """Which lines of a run are passed on: its progress and its warnings, not its plan again at every rung."""
    return line.startswith("step ") or "WARNING" in line
