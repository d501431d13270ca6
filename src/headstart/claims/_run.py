"""Running a claim: every pre-training is an ordinary run folder, every measurement is written down at once. The same call again continues.

    OUT/measured.json, OUT/items/     scores and guards, see `_record`
    OUT/runs/ARM-rate-RATE-seed-SEED/ one pre-training each; `headstart watch`, `compare` and `report` read them like any run
    OUT/runs/stores/                  the prepared corpus, shared by them
    OUT/../shared/NAME-KEY-seed-SEED/ what several claims begin with, trained once
    OUT/data/                         what the claim's `open_data` writes
    OUT/result.json, OUT/result.svg   the result; of a whole claim also claims/results/SLUG-PRESET.json and .svg
    OUT/result-curves.svg             the paper's own figure, where the claim draws it; put beside the result too

Tuning effort is equal by construction: each arm tries the same pre-training rates, and on each task the same settings, once, with seed 0, on dev.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from headstart import methods
from headstart.claims import CLAIM, load_claim, refuse_no_seeds
from headstart.claims._claim import Arm, Claim, Guard, Model, Scale, Score, Split, Task, Use
from headstart.claims._committed import results_folder
from headstart.claims._record import Record, identity, refuse_other_claim
from headstart.claims._result import ArmRuns, SeedRun, assemble, publish, refuse_unequal
from headstart.core.config import plain, replace_nested
from headstart.core.errors import MissingDependency, UsageError
from headstart.core.files import atomic_write, locked, sha256_file
from headstart.core.places import refuse_folder
from headstart.core.run import read_run
from headstart.engine.device import resolve_device
from headstart.verbs._corpus import open_corpus
from headstart.verbs._parts import path_of, split_entry
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import build_method, pretrain

SMOKE = "smoke"
"""The preset that only shows that all parts work. Its figures say nothing, so they are never put among the results."""


def claim(
    slug: str | Claim,
    preset: str = "cpu",
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    only_arm: str | None = None,
    device: str = "auto",
    results: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs a claim, or goes on with it, and returns its result (the JSON of docs/claims.md).

    Args:
        slug: the method whose claim it is, or a `Claim` itself.
        preset: smoke, cpu, gpu ... as the claim has them.
        out: the claim's folder; None: runs/claims/SLUG-PRESET.
        seeds: pre-training seeds; None: as the preset says. With fewer the result is partial.
        only_arm: run this arm alone; the result is partial, and stays in `out`.
        device: auto, cpu or cuda.
        results: where a whole result is put; None: claims/results of the checkout, if this is one.

    Raises:
        BadInput: data is missing. MissingDependency: a package is.
        UsageError: a wrong name, a folder of another state of the claim, or arms with unequal training FLOPs.
    """
    declared = load_claim(slug) if isinstance(slug, str) else slug
    scale = declared.scale(preset)
    if only_arm is not None and only_arm not in (names := [arm.name for arm in scale.arms]):
        raise UsageError(f"The claim {declared.slug} has no arm '{only_arm}' at preset {preset}.", f"Its arms: {', '.join(names)}.")
    refuse_no_seeds(seeds)
    for module, extra in declared.packages.items():
        if importlib.util.find_spec(module) is None:
            raise MissingDependency(module.replace("_", "-"), extra, f"The claim {declared.slug}")
    folder = Path(out) if out is not None else Path("runs") / "claims" / f"{declared.slug}-{preset}"
    refuse_folder(folder, ours=CLAIM if out is not None else None)
    refuse_other_claim(folder, declared.slug, preset)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", "runs this claim"):
        claiming = _Claiming(declared, preset, scale, folder, seeds, only_arm, str(resolve_device(device)), say)
        result = claiming.run()
    places = [folder / "result"]
    if claiming.whole and preset != SMOKE and (committed := Path(results) if results is not None else results_folder()) is not None:
        places.append(committed / f"{declared.slug}-{preset}")
    for place in places:
        publish(result, place, say)
        publish_curves(declared, list(claiming.models.values()), place, say)
    return result


class _Claiming:
    """One call of `claim`."""

    def __init__(
        self,
        declared: Claim,
        preset: str,
        scale: Scale,
        folder: Path,
        seeds: int | None,
        only_arm: str | None,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self.claim, self.preset, self.scale, self.folder, self.device, self.say = declared, preset, scale, folder, device, say
        self.arms = [arm for arm in scale.arms if only_arm in (None, arm.name)]
        self.seeds = {arm.name: scale.seeds_of(arm) if seeds is None else seeds for arm in self.arms}
        self.whole = only_arm is None and all(self.seeds[arm.name] >= scale.seeds_of(arm) for arm in self.arms)
        (folder / "data").mkdir(exist_ok=True)
        self.data = declared.open_data(scale, folder / "data")
        self.check_names()
        self.record = Record(folder, declared, preset, identity(declared, scale, self.data, device))
        self.told: set[str] = set()
        self.models: dict[str, Model] = {}
        self.total = 0

    def check_names(self) -> None:
        """A comparison of what does not exist would be left out, or fail after hours; so would an arm without a corpus."""
        for one in [part for arm in self.scale.arms for part in (arm, arm.start, *arm.variants) if part is not None]:
            if one.reads and one.corpus not in self.data.corpora:
                what = f"The arm {one.name} of the claim {self.claim.slug} trains on '{one.corpus}', which its data do not have."
                raise UsageError(what, f"The corpora: {', '.join(self.data.corpora)}.")
        arms = {arm.name for scale in self.claim.presets.values() for arm in scale.arms}
        tasks = {task.name for task in self.data.tasks}
        for comparison in self.claim.comparisons if self.scale.comparisons is None else self.scale.comparisons:
            if strange := ({comparison.a, comparison.b, comparison.base or comparison.a} - arms) | (set(comparison.tasks) - tasks):
                raise UsageError(f"The claim {self.claim.slug} compares {', '.join(sorted(strange))}, which it does not have.", "Correct its file.")
            over = set(comparison.tasks or tasks)
            for arm in filter(None, (comparison.a, comparison.b, comparison.base)):
                if missing := over - {task.name for task in self.data.tasks_of(arm)}:
                    what = f"The claim {self.claim.slug} compares {arm} on {', '.join(sorted(missing))}, which it is not measured on."
                    raise UsageError(what, "Correct the comparison's or the task's file.")

    def run(self) -> dict[str, Any]:
        self.say(self.plan())
        runs: list[ArmRuns] = []
        for arm in map(self.settled, self.arms):
            rate, tried = self.tuned_rate(arm)
            settings, settings_tried = self.tuned_settings(arm, rate)
            tuning = {"learning_rates": tried, "settings": settings_tried}
            measured = [self.seed_run(arm, rate, seed, settings) for seed in range(self.seeds[arm.name])]
            runs.append(ArmRuns(arm, rate, settings, tuning, measured))
        return assemble(self.claim, self.preset, self.scale, self.data, runs, self.whole, self.device, self.say)

    def plan(self) -> str:
        rates = {arm.name: len(self.rates(arm)) if arm.trained else 1 for arm in self.arms}
        pretrainings = sum(self.seeds[arm.name] + rates[arm.name] - 1 for arm in self.arms if arm.trained) + sum(self.starts().values())
        dev = sum(rates[arm.name] * len(task.settings) for arm in self.arms for task in self.tuned(arm))
        test = sum(self.seeds[arm.name] * len(self.data.tasks_of(arm)) for arm in self.arms) * self.scale.repeats
        self.total = pretrainings + dev + test
        return (
            f"Claim {self.claim.slug}, preset {self.preset}: {self.claim.statement}\n"
            f"{len(self.arms)} arms, {pretrainings} pre-trainings, {dev} measurements on dev for choices, {test} on test. Folder: {self.folder}"
        )

    def starts(self) -> dict[str, int]:
        """Seeds of each model that is trained only for arms to begin with: an arm's start, what that began with, and so on."""
        needed: dict[str, int] = {}
        for arm in self.arms:
            seeds, start = self.seeds[arm.name], arm.start
            while start is not None:
                seeds = min(seeds, self.scale.seeds_of(start))
                if start.trained and start.name not in self.seeds:
                    needed[start.name] = max(seeds, needed.get(start.name, 0))
                start = start.start
        return needed

    def tell(self, key: str, what: str) -> None:
        """Says which of the pieces of work this is; once for each."""
        if key not in self.told:
            self.told.add(key)
            self.say(f"[{len(self.told)} of {self.total}] {what}")

    def settled(self, arm: Arm) -> Arm:
        """The arm itself, or the first of its variants whose guards hold, or the last."""
        for variant in arm.variants:
            seeds = range(self.seeds[arm.name] if arm.variants_by == "every seed" else 1)
            if all(guard.passed for seed in seeds for guard in self.guards(self.model(variant, self.rates(variant)[0], seed))):
                return variant
        return arm.variants[-1] if arm.variants else arm

    # --- training --------------------------------------------------------------------------------------------------------------------------

    def model(self, arm: Arm, rate: float | None, seed: int) -> Model:
        """Trains an arm, or opens what was trained before."""
        named = f"{arm.name} {arm.tag}".strip()
        key = f"{named}/{'untrained' if rate is None else f'{rate:g}'}/seed {seed}"
        if key not in self.models:
            if arm.trained:
                self.tell(key, f"{named}: pre-training, learning rate {rate:g}, seed {seed}")
            self.models[key] = self.made(arm, rate, seed)
            refuse_unequal(model for model in self.models.values() if model.arm in self.arms)  # a common start alone has less
        return self.models[key]

    def made(self, arm: Arm, rate: float | None, seed: int) -> Model:
        start = self.start_of(arm, seed)
        settings: dict[str, Any] = {**self.scale.settings, **arm.settings, **self.data.settings, **self.data.of_arms.get(arm.name, {})}
        preset = settings.pop("preset", "tiny")
        settings |= {"seed": seed, "device": self.device} | ({} if start is None else {"init": model_of(start, arm)})
        sources: list[str | Path] = [str(path) for path in self.data.corpora[arm.corpus]] if arm.reads else []
        if not arm.trained:
            folder = self.folder / "runs" / f"{arm.name}-seed-{seed}"
            if not arm.method:
                return Model(arm, seed, folder, None, 0.0, 0, 0.0, 0.0)
            if start is not None:
                put_export(folder, lambda half: shutil.copytree(start.export, half))
                return Model(arm, seed, folder, None, start.flops, start.tokens, start.wall_s, 0.0)
            put_export(folder, lambda half: export_untrained(arm.method, preset, sources, folder, half, settings))
            return Model(arm, seed, folder, None, 0.0, 0, 0.0, 0.0)
        settings["optimizer.learning_rate"] = rate
        folder = self.folder / "runs" / "-".join(filter(None, [arm.name, arm.tag, f"rate-{rate:g}-seed-{seed}"]))
        if arm.shared:
            folder = shared_folder(self.folder.parent, arm, preset, settings, sources)
        with locked(folder.with_name(f".{folder.name}.lock"), "trains what several claims begin with") if arm.shared else nullcontext():
            if is_done(folder):  # its settings are those of the record, which was compared, or of its name
                info = read_run(folder)
            else:
                said = lambda line: self.say(f"    {line}")  # noqa: E731
                method = self.claim.methods.get(arm.method, arm.method)
                info = pretrain(method, sources, preset=preset, say=said, out=folder, **settings).info
        totals, step_flops = info["totals"], max(info["decisions"]["flops_per_step"].values())
        flops, tokens, wall_s = totals["flops"], totals["tokens"], totals["wall_s"]
        if start is not None:
            share = 1.0 if arm.start_step is None else arm.start_step / read_run(start.folder)["totals"]["steps"]
            flops, tokens, wall_s = flops + share * start.flops, tokens + round(share * start.tokens), wall_s + share * start.wall_s
        return Model(arm, seed, folder, rate, flops, tokens, wall_s, step_flops)

    def start_of(self, arm: Arm, seed: int) -> Model | None:
        """What an arm continues from: of a start with fewer seeds the last one."""
        if arm.start is None:
            return None
        return self.model(arm.start, self.rates(arm.start)[0], min(seed, self.scale.seeds_of(arm.start) - 1))

    def rates(self, arm: Arm) -> tuple[float, ...]:
        """The pre-training rates that an arm tries."""
        return self.scale.learning_rates if arm.learning_rate is None else (arm.learning_rate,)

    # --- choices, on dev with seed 0 ---------------------------------------------------------------------------------------------------------

    def tuned(self, arm: Arm) -> list[Task]:
        """The tasks with something to choose for this arm: a setting of theirs, or its pre-training rate."""
        many_rates = arm.trained and len(self.rates(arm)) > 1
        return [task for task in self.data.tasks_of(arm) if many_rates or len(task.settings) > 1]

    def dev_scores(self, arm: Arm, rate: float | None) -> dict[str, dict[str, float]]:
        """Tuned task -> setting -> dev score."""
        model = self.model(arm, rate, 0)
        return {
            task.name: {_name(setting): self.score(model, task, "dev", setting, 0).value for setting in task.settings} for task in self.tuned(arm)
        }

    def best(self, scores: Mapping[str, float]) -> str:
        """Of equal ones the first."""
        return (max if self.claim.higher_is_better else min)(scores, key=lambda name: scores[name])

    def tuned_rate(self, arm: Arm) -> tuple[float | None, dict[str, Any]]:
        """The pre-training rate with the best mean dev score of its tasks, each at its best setting; and what was tried."""
        if not arm.trained:
            return None, {}
        rates = {f"{rate:g}": rate for rate in self.rates(arm)}
        if len(rates) == 1:
            return self.rates(arm)[0], {}
        tried: dict[str, Any] = {}
        for name, rate in rates.items():
            scores = self.dev_scores(arm, rate)
            tried[name] = {"mean": float(np.mean([of_task[self.best(of_task)] for of_task in scores.values()])), "tasks": scores}
        return rates[self.best({name: entry["mean"] for name, entry in tried.items()})], tried

    def tuned_settings(self, arm: Arm, rate: float | None) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """Task -> its best setting for this arm; and what was tried."""
        scores = self.dev_scores(arm, rate)
        chosen = {task.name: task.settings[0] for task in self.data.tasks_of(arm)}
        for task in self.tuned(arm):
            chosen[task.name] = {_name(setting): setting for setting in task.settings}[self.best(scores[task.name])]
        return chosen, scores

    # --- the measurements that count -------------------------------------------------------------------------------------------------------

    def seed_run(self, arm: Arm, rate: float | None, seed: int, settings: dict[str, Any]) -> SeedRun:
        """One pre-training, its guards and its test scores."""
        model = self.model(arm, rate, seed)
        guards = self.guards(model) if arm.trained else []
        repeats, tasks = range(self.scale.repeats), self.data.tasks_of(arm)
        scores = {task.name: [self.score(model, task, "test", settings[task.name], repeat) for repeat in repeats] for task in tasks}
        return SeedRun(model, scores, guards)

    def guards(self, model: Model) -> list[Guard]:
        found = self.record.guards(model.folder.name, lambda: self.claim.guards(model, self.data, self.device))
        for guard in found:
            self.say(f"    guard {'holds' if guard.passed else 'FAILS'}: {model.arm.name}, seed {model.seed}: {guard.sentence()}")
        return found

    def score(self, model: Model, task: Task, split: Split, setting: Any, repeat: int) -> Score:
        key = f"{model.folder.name}/{task.name}/{split}/{_name(setting)}/{repeat}"
        score = self.record.score(key, lambda: task.measure(Use(model, split, setting, repeat, self.device)))
        at = "" if setting is None else f", setting {_name(setting)}"
        stuck = f" ({score.stuck})" if score.stuck else ""
        self.tell(key, f"{model.arm.name}, seed {model.seed}: {task.name}, {split}{at}: {score.value:.4f}{stuck}")
        return score


def shared_folder(beside: Path, arm: Arm, preset: str, settings: Mapping[str, Any], sources: Sequence[str | Path]) -> Path:
    """The folder of a run that several claims begin with, named after what decides it: settings, and the content of the files that it reads.

    Args:
        beside: the folder that holds those of the claims.
    """

    def content(value: Any) -> Any:
        name = split_entry(str(value))
        path = Path(path_of(str(value)))
        return [name and name[:2], sha256_file(path)] if isinstance(value, str | Path) and path.is_file() else value

    decided = {name: content(value) for name, value in sorted(settings.items()) if name != "seed"}
    key = json.dumps([arm.method, preset, plain(decided), [content(source) for source in sources]], sort_keys=True)
    return beside / "shared" / f"{arm.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}-seed-{settings['seed']}"


def publish_curves(declared: Claim, models: Sequence[Model], place: Path, say: Callable[[str], None]) -> None:
    """Writes the claim's own figure beside the result's, where it has one."""
    try:
        drawn = declared.curves(models)
    except MissingDependency as error:
        say(f"No curves: {error}")
        return
    if drawn is not None:
        with atomic_write(place.with_name(f"{place.name}-curves.svg")) as file:
            file.write(drawn)


def model_of(start: Model, arm: Arm) -> Path:
    """What an arm continues from: the run of its start, or the export beside one of its checkpoints.

    Raises:
        UsageError: the start has not kept that checkpoint.
    """
    if arm.start_step is None:
        return start.folder
    found = start.folder / "checkpoints" / f"step-{arm.start_step:08d}" / "export"
    if not found.is_dir():
        raise UsageError(f"{start.folder} has not kept step {arm.start_step:,}.", "Give its arm a trainer.keep_every that divides it.")
    return found


def is_done(folder: Path) -> bool:
    """Whether an earlier call finished this run."""
    return (folder / "run.json").exists() and read_run(folder).get("status") == "done" and (folder / "export").is_dir()


def put_export(folder: Path, write: Callable[[Path], object]) -> None:
    """`folder/export`, written beside its place; once."""
    if (folder / "export").is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / ".export-writing"
    shutil.rmtree(half, ignore_errors=True)
    write(half)
    half.rename(folder / "export")


def export_untrained(method: str, preset: str, sources: Sequence[str | Path], folder: Path, place: Path, settings: dict[str, Any]) -> None:
    """Into `place`: the network of a run in `folder` with these settings as it is before step 1."""
    method_class = methods.load(method)
    _, chosen = preset_config(method_class, preset)
    config = replace_nested(chosen, {"data": tuple(map(str, sources)), "out": folder, **settings})
    network = build_method(method_class, config, open_corpus(method_class, config, folder, None).store, None).eval()
    place.mkdir()
    network.export(place)


def _name(setting: Any) -> str:
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
