"""The candidates of `advise`: every implemented method whose card asks for what lies in the folder, with its measured speed and its plateau.

Nothing here knows a method by name: a new one appears as soon as its module does.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart import catalog, methods
from headstart.catalog.folder import FolderContents, fitting
from headstart.core.config import plain, replace_nested
from headstart.core.errors import BadInput, HeadstartError, MachineError, UsageError
from headstart.data.loader import Loader
from headstart.engine.budget import Budget, steps_within
from headstart.engine.device import use_device
from headstart.engine.method import Method
from headstart.engine.plateau import steps_to_leave
from headstart.engine.text_method import model_folder
from headstart.engine.trial import spans, total_cost
from headstart.verbs._compare_arms import Export
from headstart.verbs._corpus import open_corpus
from headstart.verbs._exports import resolve_init
from headstart.verbs._plan import EARLIEST_LEAVE
from headstart.verbs._sizing import of_images
from headstart.verbs.config import PretrainConfig, preset_config
from headstart.verbs.pretrain import build_method, new_trial

SPEED_SECONDS = 0.5  # a trial corrects itself at each rung
NO_CANDIDATES = ("intervention", "planning", "data-pipeline")
"""Families whose members compose with a method or come before it: nothing that a trial could run by itself."""


@dataclass
class Candidate:
    """One way of pre-training. JSON-ready but for `init` and `run`; what is measured is None until it is."""

    arm: str
    method: str
    preset: str
    init: Path | None
    run: Path
    settings: dict[str, Any]
    """Of `pretrain`, without budget and stop."""
    flops_per_step: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds_per_step: dict[str, float] = dataclasses.field(default_factory=dict)
    tokens_per_step: int = 0
    affordable_flops: float = 0.0
    """What the budget of minutes buys here."""
    plateau_step: int | None = None
    """About where its loss leaves the unigram plateau; None where there is none."""
    setup_s: float = 0.0
    """What every start of the run costs beside training."""
    begin_flops: int = 0
    """What its first weights take (`Method.begin_flops`)."""
    architecture: str = ""
    """Hash of what a random start of its network depends on."""
    spans: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    """(phase, step after its last) of the full run."""

    @property
    def steps(self) -> int:
        """Of the full run."""
        return self.spans[-1][1]

    def cost_until(self, step: int, per_step: dict[str, int] | dict[str, float]) -> float:
        """The cost of the first `step` steps of the full run."""
        total, start = 0.0, 0
        for phase, stop in self.spans:
            total += max(0, min(stop, step) - start) * per_step[phase]
            start = stop
        return total

    def step_at(self, flops: float) -> int:
        """The last step of the full run that `flops` pay for, at least 1."""
        return min(self.steps, steps_within(flops - self.begin_flops, lambda step: self.cost_until(step, self.flops_per_step)))

    def seconds_until(self, flops: float) -> float:
        return self.cost_until(self.step_at(flops), self.seconds_per_step)

    @property
    def minutes(self) -> float:
        """Of the full run here."""
        return self.cost_until(self.steps, self.seconds_per_step) / 60

    @property
    def tokens_per_second(self) -> float:
        return self.steps * self.tokens_per_step / max(1e-9, 60 * self.minutes)

    def to_json(self) -> dict[str, Any]:
        return plain(self) | {"steps": self.steps, "minutes": self.minutes, "tokens_per_second": self.tokens_per_second}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Candidate:
        values = {field.name: record[field.name] for field in dataclasses.fields(cls)}
        values |= {"run": Path(record["run"]), "init": None if record["init"] is None else Path(record["init"])}
        return cls(**values | {"spans": [(phase, stop) for phase, stop in record["spans"]]})


def fitting_methods(contents: Sequence[FolderContents], wanted: Sequence[str], continues: bool) -> tuple[list[str], list[dict[str, Any]]]:
    """(slugs of the methods to try, what was left out and why).

    Args:
        wanted: only these; empty: all that fit.
        continues: whether there is a model to continue.

    Raises:
        UsageError: a wanted method does not exist, has no code, or is no method of pre-training.
    """
    for slug in wanted:
        methods.load(catalog.card(slug).slug)
    names = {catalog.card(slug).slug for slug in wanted}
    everything = [*catalog.BASELINES.values(), *catalog.cards()]
    fits = {card.slug: card for entry in contents for card, _ in fitting(entry, everything)}
    chosen, left_out = [], []
    for card in everything:
        if card.slug in names or (card.slug in fits and not names):
            home = catalog.implementation(card.slug)
            if home is not None and home.startswith("headstart.methods."):
                if why := None if names else lacking(methods.load(card.slug), len(contents), continues):
                    left_out.append({"method": card.slug, "why": why, "minutes": None})
                else:
                    chosen.append(card.slug)
            elif home is None and card.family not in NO_CANDIDATES:
                left_out.append({"method": card.slug, "why": "fits the data, has no code yet", "minutes": None})
    return chosen, left_out


def lacking(method: type[Method], entries: int, continues: bool) -> str | None:
    """What a method is about that is not there; None: nothing.

    Args:
        entries: of --data; continues: whether there is a model to continue.
    """
    if method.wants_init and not continues:
        return "goes on with a trained model: give --init"
    if entries < method.wants_entries:
        return f"is about {method.wants_entries} corpora: give as many entries of --data, the smallest first"
    return None


def candidate(slug: str, folder: Path, data: Sequence[str], preset: str | None, init: Path | None, options: dict[str, Any]) -> Candidate:
    """A candidate that is not measured yet.

    Args:
        preset: taken where the method has it; its first one otherwise. None: tiny, or what the images choose.
        options: further settings of `pretrain`.
    """
    method = methods.load(slug)
    arm = slug if init is None else f"{slug}-continued"
    named = [name for name in (preset, "tiny") if name is not None and name in method.presets]
    name = named[0] if named else next(iter(method.presets))
    settings = {"data": tuple(data)} | ({} if init is None else {"init": init}) | options
    if "text_field" in settings:  # only where the data's own settings know it
        field = settings.pop("text_field")
        if method.data_group == "text":
            settings["text.text_field"] = field
    if preset is None and init is None and method.sizing is not None:
        with suppress(UsageError):  # of a setting that this method has not: said where the candidate is measured
            config = replace_nested(preset_config(method, name)[1], settings)
            if (chosen := of_images(method, data, config.data_config, config.device, settings)) is not None:
                name, settings = chosen[0], {**chosen[1], **settings}
    return Candidate(arm, slug, name, init, folder / arm, settings)


def configuration(wanted: Candidate, **more: Any) -> PretrainConfig:
    """The settings of its run."""
    return replace_nested(preset_config(methods.load(wanted.method), wanted.preset)[1], {**wanted.settings, "out": wanted.run, **more})


def built(wanted: Candidate, weights: Path | None) -> tuple[Method, Any]:
    """(the method on the CPU, its corpus); `weights`: a model folder, None: those that its run begins with."""
    config = configuration(wanted)
    method_class = methods.load(wanted.method)
    init = resolve_init(wanted.init)
    corpus = open_corpus(method_class, config, wanted.run, init)
    if init is not None:
        method_class.refuse_init(corpus.store, init)
    return build_method(method_class, config, corpus.store, weights or init), corpus


def measure_speed(wanted: Candidate, minutes: float, starts: Path) -> Method:
    """Prepares the data (once for all that share it), measures a step of each phase, and writes the network before its first step.

    Returns:
        the method, from which `plan_full_run` takes its phases.

    Raises:
        HeadstartError: the method cannot be used on this data, or cannot continue from `init`.
    """
    config = configuration(wanted, **{"budget.minutes": minutes})
    method, corpus = built(wanted, None)
    started = time.perf_counter()  # the data is prepared: this is what a start costs each time
    device = use_device(config.device)
    loader = Loader(corpus.mixture(config, method), config.global_batch)
    threads = torch.get_num_threads()
    try:
        trial = new_trial(method.to(device), loader, config, device, SPEED_SECONDS)
        decisions = trial.decide(Budget(minutes=minutes), precision=config.precision, compile="off")  # a candidate is timed, not run
    finally:
        torch.set_num_threads(threads)
    wanted.flops_per_step, wanted.seconds_per_step = decisions.flops_per_step, decisions.seconds_per_step
    if config.precision == "auto":
        wanted.settings["precision"] = decisions.precision  # its run need not measure that again
    wanted.tokens_per_step = loader.global_batch * loader.tokens_per_row
    wanted.affordable_flops = total_cost(method, decisions.total_steps, {name: float(n) for name, n in decisions.flops_per_step.items()})
    if method.predicts_tokens and wanted.init is None:
        wanted.plateau_step = steps_to_leave(method.predicted_per_row() * loader.global_batch)
    method.to("cpu").export(starts / wanted.arm)
    folder = model_folder(starts / wanted.arm)
    wanted.architecture = Export(folder, 0, 0.0, 0.0, True).architecture if (folder / "config.json").is_file() else wanted.arm
    wanted.setup_s = time.perf_counter() - started
    return method


def plan_full_run(wanted: Candidate, method: Method, flops: float) -> tuple[str | None, float | None]:
    """Sets the phases of the full run of `flops`, as `pretrain --budget.flops` cuts them.

    Returns:
        why that budget does not suffice (None: it does), and the one that would, in minutes here, where that is known.
    """
    per_step = {name: float(n) for name, n in wanted.flops_per_step.items()}
    wanted.begin_flops = method.begin_flops
    steps = steps_within(flops - method.begin_flops, lambda n: total_cost(method, n, per_step))
    try:
        wanted.spans = [(phase.name, stop) for phase, _, stop in spans(method.phases(steps), steps)]
    except UsageError as error:  # its first phases alone take longer
        return error.what, None
    if wanted.plateau_step is None or wanted.plateau_step <= EARLIEST_LEAVE * steps:
        return None, None
    why = f"its loss would stay on the unigram plateau, which it leaves after about {wanted.plateau_step:,} steps; the budget has {steps:,}"
    return why, wanted.plateau_step / EARLIEST_LEAVE * wanted.minutes / steps


def rounded_down(flops: float) -> float:
    """The largest number of three significant digits that is no more than `flops`: a run of it takes no longer."""
    if flops <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(flops)) - 2)
    return float(f"{math.floor(flops / unit) * unit:.3g}")


def usable(
    candidates: Sequence[Candidate], minutes: float, starts: Path, warnings_of: Callable[[str], AbstractContextManager[Any]]
) -> tuple[list[Candidate], list[dict[str, Any]], float]:
    """Measures and plans all candidates: (those that the budget suffices for, what was left out and why, FLOPs of every full run).

    The full run has the same counted FLOPs for all: what `minutes` buy where they buy least, so that none takes longer.

    Args:
        minutes: of a full run.
        warnings_of: entered with an arm's name while it is measured.

    Raises:
        BadInput: the data cannot be read by any of them.
    """
    measured: list[tuple[Candidate, Method]] = []
    left_out: list[dict[str, Any]] = []
    refused: list[HeadstartError] = []
    for wanted in candidates:
        try:
            with warnings_of(wanted.arm):
                measured.append((wanted, measure_speed(wanted, minutes, starts)))
        except MachineError:
            raise
        except HeadstartError as error:
            refused.append(error)
            left_out.append({"method": wanted.arm, "why": str(error).replace("\n", " "), "minutes": None})
    if len(refused) == len(candidates) and len({str(error) for error in refused}) == 1 and isinstance(refused[0], BadInput):
        raise refused[0]  # a file that none of them can read is no question of methods
    kept: list[tuple[Candidate, Method]] = []
    flops = 0.0
    while kept != measured:  # what is left out must not make the budget of the others smaller
        measured, kept = (kept or measured), []
        flops = rounded_down(min(wanted.affordable_flops for wanted, _ in measured)) if measured else 0.0
        for wanted, method in measured:
            why, needed = plan_full_run(wanted, method, flops)
            if why is None:
                kept.append((wanted, method))
            else:
                left_out.append({"method": wanted.arm, "why": why, "minutes": needed})
        if not kept:
            return [], left_out, flops
    return [wanted for wanted, _ in kept], left_out, flops
