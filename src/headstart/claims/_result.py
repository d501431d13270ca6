"""From measurements to a result: equal FLOPs checked, comparisons decided, everything in one JSON (docs/claims.md explains each field)."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.claims._claim import Arm, Claim, Comparison, Correlation, Data, Guard, Model, Scale, Score
from headstart.claims._committed import anchor_words, compared_words, difference_words, few_seeds, measures, of_seeds, shown
from headstart.claims._figure import draw
from headstart.claims._statistics import Verdict, bootstrap_over_items, difference, overall, rank_correlation, verdict, verdict_of_cases
from headstart.core import hardware
from headstart.core.config import plain
from headstart.core.errors import MissingDependency, UsageError
from headstart.core.files import atomic_write, write_json
from headstart.core.run import now
from headstart.core.words import aligned
from headstart.tasks.leaks import training_leaks
from headstart.verbs.pretrain import git_commit, versions

FORMAT_VERSION = 1
EQUAL_SHARE = 0.02
"""Training FLOPs of two arms may differ by this share, or by one step."""


@dataclass(frozen=True)
class SeedRun:
    """One pre-trained model and its test scores."""

    model: Model
    scores: Mapping[str, Sequence[Score]]  # task -> one score a repeat
    guards: Sequence[Guard]

    def metric(self, tasks: Sequence[str] = ()) -> float:
        """The mean over tasks (none: those that the arm is measured on) of the mean over repeats."""
        return float(np.mean([np.mean([score.value for score in self.scores[task]]) for task in tasks or self.scores]))

    def items(self, task: str) -> np.ndarray | None:
        """float [n, 2]: what each test item adds to the metric, the mean over repeats, and its weight."""
        found = [score.items for score in self.scores[task] if score.items is not None]
        return None if len(found) < len(self.scores[task]) else np.mean(found, axis=0)

    def failures(self) -> list[str]:
        """The guards that fail, and downstream trainings that never left their start."""
        where = f"{self.model.arm.name}, seed {self.model.seed}"
        failed = [f"{where}: {guard.sentence()}" for guard in self.guards if not guard.passed]
        return failed + [f"{where}: {task} is stuck, {score.stuck}" for task, scores in self.scores.items() for score in scores if score.stuck]


@dataclass(frozen=True)
class ArmRuns:
    """What was measured of one arm."""

    arm: Arm
    learning_rate: float | None
    settings: Mapping[str, Any]  # task -> the setting that was chosen on dev
    tuning: Mapping[str, Any]
    runs: Sequence[SeedRun]


def refuse_unequal(models: Iterable[Model]) -> None:
    """Arms must have had equal training FLOPs, counted, starts included: within one step, or 2 %.

    Raises:
        UsageError: two have not; both are named with their figures.
    """
    held = [model for model in models if model.arm.trained and not model.arm.unequal]
    if not held:
        return
    least, most = min(held, key=lambda model: model.flops), max(held, key=lambda model: model.flops)
    if most.flops - least.flops > max(EQUAL_SHARE * most.flops, least.step_flops, most.step_flops):
        raise UsageError(
            f"The arms {most.arm.name} (seed {most.seed}) and {least.arm.name} (seed {least.seed}) had unequal training FLOPs,"
            f" {most.flops:.4g} and {least.flops:.4g}.",
            "Give both the same --budget.flops, or say in the arm's `unequal` why they may differ.",
        )


def assemble(
    claim: Claim, preset: str, scale: Scale, data: Data, arms: Sequence[ArmRuns], whole: bool, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """The result, said to the person as well; its last line is the verdict in plain words."""
    by_name = {arm.arm.name: arm for arm in arms}
    declared = [one for one in claim.comparisons_of(scale) if {one.a, one.b, one.base or one.a} <= by_name.keys()]
    comparisons = [compared(claim, one, *(by_name[name].runs for name in (one.a, one.b, one.base) if name)) for one in declared]
    for correlation in claim.correlations:
        if (over := [by_name[name].runs for name in correlation.arms if name in by_name]) and len(over) > 1:
            comparisons.append(correlated(correlation, over))
    scores = {arm.arm.name: mean_scores(arm.runs) for arm in arms}
    hold_back(claim.comparisons_of(scale), comparisons, claim.validity(scores, data))
    decided = overall([comparison["verdict"] for comparison in comparisons if comparison["decides"]])
    means = {arm.arm.name: float(np.mean([run.metric() for run in arm.runs])) for arm in arms}
    machine = hardware.describe()
    result = {
        "kind": "claim",
        "format_version": FORMAT_VERSION,
        "slug": claim.slug,
        "of": list(claim.of),
        "preset": preset,
        "claim": claim.statement,
        "metric": claim.metric,
        "higher_is_better": claim.higher_is_better,
        "percent": claim.percent,
        "paper": asdict(claim.paper),
        "data": dict(data.facts),
        "arms": [arm_json(arm) for arm in arms],
        "comparisons": comparisons,
        "verdict": decided,
        "whole": whole,
        "notes": [
            *claim.notes(means), *claim.remarks({arm.arm.name: mean_figures(arm.runs) for arm in arms}), *meanings(declared, comparisons)
        ],
        "anchors": dict(data.anchors),
        "leaks": [*data.leaks, *corpus_leaks(data, arms)],
        "settings": plain(dict(scale.settings)) | {"seeds": scale.seeds, "repeats": scale.repeats, **plain(dict(scale.options))},
        "hardware": hardware_words(machine, device),
        "machine": machine,
        "versions": versions(),
        "commit": git_commit(),
        "command": " ".join(["headstart", *sys.argv[1:]]),
        "date": now(),
    }
    result["sentence"] = sentence(claim, result)
    for line in lines(result):
        say(line)
    return result


def corpus_leaks(data: Data, arms: Sequence[ArmRuns]) -> list[str]:
    """Sentences on test records that stand in what the arms were pre-trained on, one a task and corpus."""
    models = {arm.arm.corpus: arm.runs[0].model for arm in arms if arm.arm.trained}
    return [
        f"{task.name}: {sentence}" for task in data.tasks if task.texts for model in models.values()
        for sentence in training_leaks(task.texts, model.folder, model.folder.name)
    ]


def arm_json(arm: ArmRuns) -> dict[str, Any]:
    """One arm in the result."""
    runs = [
        {
            "seed": run.model.seed,
            "metric": run.metric(),
            "train_flops": run.model.flops,
            "tokens": run.model.tokens,
            "wall_s": round(run.model.wall_s, 1),
            "tasks": {task: [score.value for score in scores] for task, scores in run.scores.items()},
            "beside": besides(run),
            "guards": [asdict(guard) for guard in run.guards],
            "stuck": [f"{task}: {score.stuck}" for task, scores in run.scores.items() for score in scores if score.stuck],
        }
        for run in arm.runs
    ]
    found: dict[str, Any] = {
        "arm": arm.arm.name,
        "method": arm.arm.method if arm.arm.trained else None,
        "learning_rate": arm.learning_rate,
        "task_settings": plain(dict(arm.settings)),
        "tuning": arm.tuning,
        "mean": float(np.mean([run["metric"] for run in runs])),
        "runs": runs,
    }
    return found | ({"unequal": arm.arm.unequal} if arm.arm.unequal else {})


def compared(claim: Claim, comparison: Comparison, a: Sequence[SeedRun], b: Sequence[SeedRun], base: Sequence[SeedRun] = ()) -> dict[str, Any]:
    """One comparison over the seeds that its arms have. A failed guard of either arm makes it inconclusive, whatever the figures say."""
    pairs = list(zip(a, b, strict=False))
    ours, theirs = zip(*((x.metric(comparison.tasks), y.metric(comparison.tasks)) for x, y in pairs), strict=True)
    if comparison.base:  # a - base against share (b - base), which is a against share b + (1 - share) base
        start = [run.metric(comparison.tasks) for run in base]
        pairs, ours = pairs[: len(start)], ours[: len(start)]
        theirs = tuple(comparison.share * value + (1 - comparison.share) * of_base for value, of_base in zip(theirs, start, strict=False))
    found = difference(ours, theirs)
    failures = [failure for run in (run for pair in pairs for run in pair) if run.model.arm.trained for failure in run.failures()]
    decided: Verdict = verdict(found.interval, comparison.margin, claim.higher_is_better, comparison.claimed)
    if comparison.cases is not None and found.interval is not None:
        decided = verdict_of_cases(float(np.mean(ours)), *comparison.cases)
    why = ""
    if failures:
        decided, why = "inconclusive", "budget too small: " + "; ".join(failures)
    elif found.interval is None:
        why = few_seeds(len(pairs), claim.paired_by)
    elif comparison.cases is not None:
        why = f"it fails in {100 * float(np.mean(ours)):.0f} % of the cases"
    elif decided == "inconclusive" and found.detectable is not None:
        size = shown({"percent": claim.percent}, found.detectable, signed=True).lstrip("+")
        why = f"with {len(pairs)} {claim.paired_by}s a difference of {size} would be found in 80 % of such experiments"
    return {
        "a": comparison.a,
        "b": comparison.b,
        "paired_by": claim.paired_by,
        "seeds": len(pairs),
        "tasks": list(comparison.tasks or a[0].scores),
        "difference": found.mean,
        "ci95": None if found.interval is None else list(found.interval),
        "base": comparison.base,
        "share": comparison.share,
        "ci95_items": None if comparison.base else items_interval(comparison.tasks or tuple(a[0].scores), pairs),
        "detectable": found.detectable,
        "margin": comparison.margin,
        "claimed": comparison.claimed,
        "decides": comparison.decides,
        "verdict": decided,
        "why": why,
    }


def correlated(correlation: Correlation, arms: Sequence[Sequence[SeedRun]]) -> dict[str, Any]:
    """One correlation, in the form of a comparison. A failed guard makes it inconclusive."""
    x, y = (np.array([[run.metric((task,)) for run in runs] for runs in arms]) for task in (correlation.x, correlation.y))  # [arms, seeds]
    rho, interval = rank_correlation(x, y)
    failures = [failure for runs in arms for run in runs for failure in run.failures()]
    seeds = x.shape[1]
    decided: Verdict = verdict(interval)
    if failures:
        decided = "inconclusive"
    return {
        "a": correlation.x,
        "b": correlation.y,
        "correlation": True,
        "arms": [runs[0].model.arm.name for runs in arms],
        "paired_by": "seed",
        "seeds": seeds,
        "tasks": [correlation.x, correlation.y],
        "difference": rho,
        "ci95": None if interval is None else list(interval),
        "base": "",
        "share": 1.0,
        "ci95_items": None,
        "detectable": None,
        "margin": 0.0,
        "claimed": "better",
        "decides": correlation.decides,
        "verdict": decided,
        "why": "; ".join(failures) or (few_seeds(seeds) if interval is None else ""),
    }


def besides(run: SeedRun) -> dict[str, float]:
    """"task: name" -> a further figure of the measurement, the mean over repeats."""
    names = {f"{task}: {name}": (task, name) for task, scores in run.scores.items() for name in scores[0].beside}
    return {shown: float(np.mean([score.beside[name] for score in run.scores[task]])) for shown, (task, name) in names.items()}


def mean_scores(runs: Sequence[SeedRun]) -> dict[str, float]:
    """Task -> the mean of its test scores over seeds and repeats."""
    return {task: float(np.mean([score.value for run in runs for score in run.scores[task]])) for task in runs[0].scores}


def mean_figures(runs: Sequence[SeedRun]) -> dict[str, float]:
    """As `mean_scores`, and with them "task: name" -> each further figure that all seeds have."""
    found = [besides(run) for run in runs]
    return mean_scores(runs) | {name: float(np.mean([one[name] for one in found])) for name in found[0] if all(name in one for one in found)}


def meanings(declared: Sequence[Comparison], comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the verdicts say in the claim's own words, where it has some."""
    return [
        f"{found['a']} - {found['b']} on {', '.join(found['tasks'])}: {one.meaning[found['verdict']]}."
        for one, found in zip(declared, comparisons, strict=False)  # behind them come correlations
        if found["verdict"] in one.meaning
    ]


def hold_back(declared: Sequence[Comparison], comparisons: Sequence[dict[str, Any]], reasons: Sequence[str] | Mapping[str, str] = ()) -> None:
    """Where a gate does not hold, or the claim has `reasons` of its own, what decides is inconclusive, for these reasons. Reasons of single tasks
    make every comparison over them so, and no other."""
    if isinstance(reasons, Mapping):
        for comparison in comparisons:
            if why := [reasons[task] for task in comparison["tasks"] if task in reasons]:
                comparison["verdict"], comparison["why"] = "inconclusive", "; ".join(why)
        reasons = ()
    of_pair = {(comparison["a"], comparison["b"]): comparison["verdict"] for comparison in comparisons if not comparison["decides"]}
    closed = [gate.gate for gate in declared if gate.gate and of_pair.get((gate.a, gate.b), "reproduced") != "reproduced"] + [*reasons]
    for comparison in comparisons:
        if closed and comparison["decides"]:
            comparison["verdict"], comparison["why"] = "inconclusive", "; ".join(closed)


def items_interval(tasks: Sequence[str], pairs: Sequence[tuple[SeedRun, SeedRun]]) -> list[float] | None:
    """The interval of the difference when test items are drawn anew, seeds and repeats averaged; None where a task keeps no item scores."""
    of_tasks = []
    for task in tasks:
        both = [(a.items(task), b.items(task)) for a, b in pairs]
        if any(a is None or b is None for a, b in both):
            return None
        differences = [np.column_stack([a[:, 0] - b[:, 0], a[:, 1]]) for a, b in both if a is not None and b is not None]
        of_tasks.append(np.mean(differences, axis=0))
    return list(bootstrap_over_items(of_tasks))


def hardware_words(machine: Mapping[str, Any], device: str) -> str:
    """The machine in a few words."""
    if device.startswith("cuda") and machine["devices"]:
        return str(machine["devices"][0]["name"])
    return f"{machine['cpu']}, {machine['cores']} cores"


def sentence(claim: Claim, result: Mapping[str, Any]) -> str:
    """The verdict in plain words."""
    where = f"the claim of {claim.slug} at preset {result['preset']}"
    deciding = [comparison for comparison in result["comparisons"] if comparison["decides"]]
    if not deciding:
        return f"No verdict on {where}: not all arms of a deciding comparison were run."
    told = "; ".join(f"{compared_words(result, c, 'minus')} {difference_words(result, c)}" for c in deciding)
    if not result["whole"]:
        return f"No verdict on {where} yet, only a part was run: {told}."
    head = {"reproduced": "Reproduced", "not reproduced": "Not reproduced", "inconclusive": "Inconclusive"}[result["verdict"]]
    reasons = "; ".join(dict.fromkeys(c["why"] for c in deciding if c["why"] and c["why"] not in told))
    return f"{head}: {where}: {told}" + (f" ({reasons})." if reasons else ".")


def lines(result: Mapping[str, Any]) -> list[str]:
    """What a person reads at the end."""
    columns = measures(result)
    rows = [["arm", *columns, "seeds", "training FLOPs", "tokens", "pre-training", "learning rate"]]
    for arm in result["arms"]:
        first = arm["runs"][0]
        rate = "-" if arm["learning_rate"] is None else f"{arm['learning_rate']:g}"
        cells = [arm["arm"], *(spread_words(result, arm, tasks) for tasks in columns.values()), str(len(arm["runs"]))]
        rows.append([*cells, f"{first['train_flops']:.4g}", f"{first['tokens']:,}", f"{first['wall_s']:.0f} s", rate])
    head = [f"{result['metric']}:"] if len(columns) > 1 else []
    told = ["", *head, *aligned(rows), ""]
    for name in dict.fromkeys(name for arm in result["arms"] for run in arm["runs"] for name in run["beside"]):
        having = {arm["arm"]: arm["runs"] for arm in result["arms"] if all(name in run["beside"] for run in arm["runs"])}
        means = {arm: statistics.fmean(run["beside"][name] for run in runs) for arm, runs in having.items()}
        told.append(f"{name}: {', '.join(f'{arm} {mean:.4g}' for arm, mean in means.items())}")
    for comparison in result["comparisons"]:
        items = comparison["ci95_items"]
        over_items = "" if items is None else f"; over test items {shown(result, items[0], True)} to {shown(result, items[1], True)}"
        why = f" ({comparison['why']})" if comparison["why"] else ""
        compared = f"{compared_words(result, comparison)}: {difference_words(result, comparison)}"
        told.append(f"{compared}{over_items}: {comparison['verdict']}{why}")
    told += [f"{name}: {value}" for name, value in anchor_words(result)]
    return [*told, *result["notes"], *result["leaks"], result["sentence"]]


def spread_words(result: Mapping[str, Any], arm: Mapping[str, Any], tasks: tuple[str, ...]) -> str:
    """82.3 % (81.9 %, 82.7 %): the mean of an arm, and each seed's value; a dash where it is not measured."""
    values = of_seeds(arm, tasks)
    if not values:
        return "-"
    return f"{shown(result, statistics.fmean(values))} ({', '.join(shown(result, value) for value in values)})"


def publish(result: Mapping[str, Any], place: Path, say: Callable[[str], None]) -> None:
    """Writes `place`.json and its figure `place`.svg. Without matplotlib the figure is left out, and the pip line said."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place.with_name(place.name + ".json"), dict(result))
    try:
        figure = draw(result)
    except MissingDependency as error:
        say(f"No figure: {error}")
        return
    with atomic_write(place.with_name(place.name + ".svg")) as file:
        file.write(figure)
