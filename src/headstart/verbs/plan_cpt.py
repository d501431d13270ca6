"""`plan cpt`: from a model, new text and a budget to the run that keeps the old skills, and what it will cost them.

    1  measure both losses and the speed; planning gets at most a fifth of the budget
    2  with a reference and more new text than the run reads: its best part, several times (stability_gap)
    3  the schedule: re-warmed to the old peak, or the old rate where the run is too short (rewarm)
    4  a sweep of five mixtures at a constant rate, and one mixture with the planned schedule: by how much annealing lowers the losses
    5  the law of both losses; the largest share of new text that keeps the limit, with an interval (dcpt_law)
    6  the command; with --run the run, and the naive one beside it
    7  the report (`_plan_cpt_report`)
    8  on request, of the last checkpoints of equal loss the flattest (`_plan_flattest`)

OUT/cpt.json is all of it; OUT/runs/ holds the runs, OUT/law/ the fit. The same call goes on where it stopped.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headstart.core.config import differences, plain
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, write_json
from headstart.core.run import read_run
from headstart.core.words import counted, share, signed
from headstart.engine.device import resolve_device
from headstart.planning.dcpt_law import ask
from headstart.planning.dcpt_law import plan as arithmetic
from headstart.planning.dcpt_law.answers import limit_of
from headstart.planning.dcpt_law.fitted import Fitted
from headstart.planning.dcpt_law.plan import ANNEALED_RATIO, RATIOS, Fitting, Split, looks, split_budget
from headstart.verbs._exports import run_of
from headstart.verbs._fit_settings import FitSettings
from headstart.verbs._plan_cpt_report import OldItems, report
from headstart.verbs._plan_flattest import flattest, kept
from headstart.verbs._plan_settings import CptSettings, check_cpt
from headstart.verbs._plan_subset import best_part
from headstart.verbs._sweep import (
    DOMAIN,
    GENERAL,
    RATE_SHARE,
    Sweep,
    before_training,
    constant_name,
    final_losses,
    held_out_tokens,
    in_words_of_a_plan,
    is_measured,
    mix,
    named_data,
    origin_of,
    trained_tokens,
    warned,
)
from headstart.verbs._sweep_points import losses_of, points_of_runs, write_points
from headstart.verbs.fit import fit_with
from headstart.verbs.forgetting import curves
from headstart.verbs.plan import POINTS, cost_of, run_settings
from headstart.verbs.pretrain import pretrain

CPT = "cpt.json"
FORMAT_VERSION = 1
FEW_STEPS = 150
"""A re-warmed run that is shorter seldom pays its transient back: it goes on at the old rate."""
WARMUP_SHARE = 0.05
FLOOR_SHARE = 0.1
"""Of the peak: where the cosine ends, and the rate of the naive run where the old one is not known."""
FEW_HELD_OUT = 30_000
"""Tokens below which the losses are as uncertain as what is asked of them."""
FREE = ("json", "debug", "run", "baseline", "flattest", "items", "keep_weights", "out", "limit", "draws")
"""Settings that change nothing of what is measured: with another limit the same command answers at once."""
ANNEALED = f"annealed-r{ANNEALED_RATIO:g}-seed-{{}}"
"""The folder of the annealed run of a seed."""


@dataclass(frozen=True)
class CptPlan:
    """What `plan cpt` found.

    Attributes:
        info: cpt.json. `recommended` in it is None where even the smallest share of new text breaks the limit.
    """

    folder: Path
    info: dict[str, Any]

    @property
    def command(self) -> str | None:
        """What to run next."""
        found: str | None = self.info["command"]
        return found


@dataclass(frozen=True)
class _Laws:
    """What the sweep gave.

    Args:
        offsets: by how much annealing lowers the (general, domain) loss. unique: tokens of the new text.
    """

    domain: Fitted
    general: Fitted
    offsets: tuple[float, float]
    unique: float


def plan_cpt(settings: CptSettings, say: Callable[[str], None] = print) -> CptPlan:
    """Plans, and with `settings.run` runs, the continuation of one model."""
    check_cpt(settings)
    resolve_device(settings.device)
    folder = settings.out or Path("runs") / "plans" / f"cpt-{Path(settings.domain[0]).name.split('.')[0]}"
    return _Planning(settings, folder, say).plan()


def given_budget(settings: CptSettings) -> tuple[str, float]:
    """(unit, amount)"""
    return next((unit, amount) for unit, amount in asdict(settings.budget).items() if amount is not None)


class _Planning:
    def __init__(self, settings: CptSettings, folder: Path, say: Callable[[str], None]) -> None:
        assert settings.init is not None
        self.settings, self.folder, self.say = settings, folder, say
        self.init = settings.init
        self.origin = origin_of(settings.init, settings.peak, settings.batch, settings.sequence_length)
        self.info = {name: value for name, value in self.earlier().items() if name != "report"}
        self.warnings: list[str] = []
        self.old_tokens = 0  # of the old text that is trained on
        self.common = run_settings(settings, settings.init)

    def plan(self) -> CptPlan:
        self.refuse_no_old_text()
        items = OldItems(self.settings.items if self.settings.run else None, self.origin.folder, self.settings.device)  # refused before anything runs
        look = self.look()
        shutil.rmtree(self.folder / "runs" / "look", ignore_errors=True)  # what it found is written down, and it is no run
        split = split_budget(look["steps"], self.settings.planning_share, given=given_budget(self.settings))
        d = split.left * self.origin.tokens_per_step
        data, subset = self.text(look, d)
        unique = look["unique"] if subset is None else subset["tokens"]
        self.old_tokens = look.get("old_tokens") or trained_tokens(Path(look["stores"][GENERAL]))  # a plan of an earlier version does not say
        self.tell_plan(look, split, subset)
        self.refuse_repeats(split, unique)
        planned = self.schedule(split.left)
        runs, annealed = self.sweep(data, split, planned)
        before = before_training(runs[0])
        offsets = self.anneal_offsets(runs, annealed, split.of_each)
        laws = _Laws(*self.fit(runs, before, offsets, d, unique), offsets, unique)
        answer = ask.best_ratio(laws.domain, laws.general, self.origin.parameters, d, self.settings.limit, before[GENERAL], offsets, unique)
        self.info |= {
            "format_version": FORMAT_VERSION,
            "asked": self.asked(),
            "limit": self.settings.limit,
            "look": look,
            "budget": {"steps": look["steps"], **asdict(split), "tokens_per_step": self.origin.tokens_per_step},
            "before": before,
            "before_bits_per_byte": {name: curve.bits_per_byte[0] for name, curve in curves(runs[0]).items()},
            "subset": subset,
            "schedule": plain(planned),
            "sweep": {"ratios": list(RATIOS), "rate": RATE_SHARE * self.origin.peak, "cost": cost_of([*runs, annealed])},
            "anneal": {"general": offsets[0], "domain": offsets[1]},
            "answer": answer.to_json(),
            "errors": {one.which: one.errors.to_json() for one in (laws.general, laws.domain) if one.errors is not None},
        }
        chosen = self.choose(answer, laws, d, before[GENERAL])
        self.info |= self.recommended(chosen, laws, data, planned, subset)
        self.warn_of_old_repeats()
        self.info["warnings"] = list(dict.fromkeys([*answer.warnings, *self.warnings]))
        self.save()
        self.tell_answer()
        if self.settings.run and chosen is not None:
            self.run_it(chosen, data, planned, subset, items)
        return CptPlan(self.folder, self.info)

    # --- 1: what is there ----------------------------------------------------------------------------------------------------------------------

    def asked(self) -> dict[str, Any]:
        """What decides the plan: the same call again must ask the same."""
        return {name: value for name, value in plain(self.settings).items() if name not in FREE}

    def earlier(self) -> dict[str, Any]:
        """What an earlier call of this command left.

        Raises:
            UsageError: the folder is of another plan, or of something else.
        """
        path = self.folder / CPT
        if not path.is_file():
            if self.folder.is_dir() and any(entry.name != "runs" for entry in self.folder.iterdir()):
                raise UsageError(f"{self.folder} holds other files.", "Give another --out.")
            return {}
        info = read_json(path)
        before = info.get("asked") if isinstance(info, dict) else None
        if not isinstance(before, dict):
            raise BadInput("is no plan of ours.", "Give another --out.", file=path)
        defaults = {name: value for name, value in plain(CptSettings()).items() if name not in FREE}  # a setting that was added since had its default
        if changed := differences({**defaults, **before}, self.asked()):
            if not any((self.folder / "runs").glob("*/probes.jsonl")):  # it was refused before anything was measured
                for name in ("subset", "runs"):  # chosen and begun for the plan of before
                    if (self.folder / name).exists():
                        shutil.rmtree(self.folder / name)
                return {}
            listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in changed[:6])
            raise UsageError(f"{self.folder} holds another plan ({listed}).", "Repeat its settings to go on, or give another --out.")
        return dict(info)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / CPT, self.info)

    def refuse_no_old_text(self) -> None:
        if self.settings.general:
            return
        if run_of(self.origin.folder) is None:
            mend = "Give a sample of text like what it was trained on, --general FILES: without it nobody can say what the new text costs."
            raise UsageError(f"{self.init} is no run of ours, so its old text is not known.", mend)
        self.say(f"Old text: what {self.init} was trained on stands for it.")

    def look(self) -> dict[str, Any]:
        """Speed, steps of the whole budget, precision and the amount of text: from a dry run. Measured once, for everything after depends on it."""
        if isinstance(found := self.info.get("look"), dict):
            self.common |= {"precision": found["precision"]}
            return found
        data = named_data(self.settings.domain, self.settings.general, self.settings.domain_held_out, self.settings.general_held_out)
        budget = {f"budget.{name}": value for name, value in asdict(self.settings.budget).items() if value is not None}
        if "budget.tokens" in budget:
            budget["budget.tokens"] = int(budget["budget.tokens"])
        settings = {**self.origin.settings, **self.common, **budget, "optimizer.learning_rate": self.origin.peak, "init": self.init}
        settings |= {"mix": mix(ANNEALED_RATIO), "seed": self.settings.seed, "out": self.folder / "runs" / "look", "dry_run": True}
        said: list[str] = []
        with in_words_of_a_plan():
            info = pretrain("causal-lm", list(data), say=said.append, **settings).info
        decisions = info["decisions"]
        stores = {entry["part"]: Path(entry["store"]) for entry in info["data"]}
        look = {
            "steps": decisions["total_steps"],
            "seconds_per_step": max(decisions["seconds_per_step"].values()),
            "precision": decisions["precision"],
            "unique": trained_tokens(stores[DOMAIN]),
            "old_tokens": trained_tokens(stores[GENERAL]),
            "stores": {name: str(store) for name, store in stores.items()},
            "held_out_tokens": {entry["part"]: held_out_tokens(entry) for entry in info["measured"]},
            "warnings": warned(said),
        }
        self.common |= {"precision": look["precision"]}
        self.info |= {"asked": self.asked(), "look": look}
        self.save()
        return look

    # --- 2 and 3: which text, which schedule -------------------------------------------------------------------------------------------------

    def text(self, look: Mapping[str, Any], d: float) -> tuple[tuple[str, ...], dict[str, Any] | None]:
        """--data of all runs, and what was chosen of the new text; None: all of it."""
        s = self.settings
        self.warnings += look.get("warnings", [])
        for part, tokens in look["held_out_tokens"].items():
            if tokens < FEW_HELD_OUT:
                few = f"the losses of '{part}' are of {tokens:,} held-out tokens"
                self.warnings.append(f"{few}: below {FEW_HELD_OUT:,} they are as uncertain as what is asked of them")
        quota = arithmetic.subset_tokens(d, look["unique"]) if s.reference else None
        if quota is None:
            return named_data(s.domain, s.general, s.domain_held_out, s.general_held_out), None
        chosen = best_part(s, Path(look["stores"][DOMAIN]), self.origin.folder, int(quota), self.folder / "subset", self.say)
        held_out = s.domain_held_out or (look["stores"][DOMAIN],)  # the held-out documents of the whole text, for every run
        return named_data((str(chosen["file"]),), s.general, held_out, s.general_held_out), chosen

    def schedule(self, steps: int) -> dict[str, Any]:
        """Settings of the learning rate of the long run."""
        if steps < FEW_STEPS:
            self.warnings.append(f"{steps} steps are fewer than {FEW_STEPS}: re-warming would not pay back, the run goes on at the old rate")
            return self.constant_rate()
        return {
            "rewarm.preset": "relative",
            "rewarm.warmup_fraction": WARMUP_SHARE,
            "rewarm.min_ratio": FLOOR_SHARE,
            "optimizer.learning_rate": self.origin.peak,
        }

    def constant_rate(self) -> dict[str, Any]:
        """The rate at which the old run ended; where nobody knows it, a tenth of the peak."""
        floor = self.origin.floor or FLOOR_SHARE * self.origin.peak
        return {"schedule.name": "constant", "schedule.warmup_steps": 0, "optimizer.learning_rate": floor}

    def tell_plan(self, look: Mapping[str, Any], split: Split, subset: Mapping[str, Any] | None) -> None:
        per_step = self.origin.tokens_per_step
        text = f"all {counted(look['unique'])} tokens of new text"
        if subset is not None:
            text = f"the best {counted(subset['tokens'])} of {counted(look['unique'])} tokens of new text"
        self.say(
            f"Budget: {look['steps']:,} steps of {per_step:,} tokens; planning takes {split.planning:,} ({split.planning / look['steps']:.0%}) in"
            f" {split.runs} runs of {split.of_each}; the run has {split.left:,} = {counted(split.left * per_step)} tokens, of {text}."
        )

    def refuse_repeats(self, split: Split, unique: float) -> None:
        """Raises UsageError where the short runs alone would read the new text more than four times; more than once, of either text, is a warning,
        and of a sweep that is there already whatever it read."""
        seed = self.settings.seed
        names = [*(constant_name(self.origin, ratio, seed) for ratio in RATIOS), ANNEALED.format(seed)]
        finished = all(is_measured(self.folder / "runs" / name, split.of_each) for name in names)
        tokens = split.of_each * self.origin.tokens_per_step
        try:
            self.warnings += arithmetic.sweep_epochs(tokens, RATIOS, unique, self.old_tokens, finished=finished)
        except UsageError as error:
            mend = "Give more new text, a smaller budget or a smaller --planning-share."
            raise UsageError(f"In the runs of the sweep {error.what}", mend) from None

    def warn_of_old_repeats(self) -> None:
        """Where the long run learns a small sample of old text by heart: its held-out part then says little of what is replayed."""
        if (chosen := self.info["recommended"]) is None:
            return
        chosen["old_epochs"], warning = arithmetic.old_repeats(chosen["r_d"], chosen["tokens"], self.old_tokens)
        self.warnings += [] if warning is None else [warning]

    # --- 4 and 5: the sweep and its law --------------------------------------------------------------------------------------------------------

    def sweep(self, data: tuple[str, ...], split: Split, planned: Mapping[str, Any]) -> tuple[list[Path], Path]:
        """The runs at a constant rate, and the annealed one."""
        steps = looks(split.of_each, sum(ratio < 1 for ratio in RATIOS))
        told = set(self.warnings)
        sweep = Sweep(self.folder, data, split.of_each, steps, self.common, self.settings.keep_weights, self.say, told)
        runs = [sweep.constant(self.origin, ratio, self.settings.seed) for ratio in RATIOS]
        return runs, sweep.run(self.origin, ANNEALED_RATIO, self.settings.seed, planned, ANNEALED.format(self.settings.seed))

    def anneal_offsets(self, runs: list[Path], annealed: Path, last: int) -> tuple[float, float]:
        """(general, domain): by how much the planned schedule ends lower than the constant rate, at D_max. Assumed to be the same at D."""
        constant, planned = (final_losses(run, last) for run in (runs[RATIOS.index(ANNEALED_RATIO)], annealed))
        return constant[GENERAL] - planned[GENERAL], constant[DOMAIN] - planned[DOMAIN]

    def fit(
        self, runs: list[Path], before: Mapping[str, float], offsets: tuple[float, float], d: float, unique: float
    ) -> tuple[Fitted, Fitted]:
        """(domain, general): the laws of this size, from the sweep; law.json holds the question too."""
        records, notes = points_of_runs(runs, DOMAIN, GENERAL)
        self.warnings += notes
        write_points(self.folder / POINTS, records)
        asked: dict[str, Any] = {}
        last = max(final_losses(run, max(losses_of(run, (DOMAIN, GENERAL))))[GENERAL] for run in runs)
        if before[GENERAL] > last:
            self.warnings.append(
                f"the general loss before training, {before[GENERAL]:.4f}, is above that after it at every ratio ({last:.4f} at most): the model was"
                " not converged on the old text, and the limit asks nothing"
            )
        else:
            asked = {"limit": (self.settings.limit,), "general_loss": before[GENERAL], "at_d": d, "unique_tokens": unique}
            asked |= {"anneal_general": offsets[0], "anneal_domain": offsets[1]}
        law = fit_with(
            FitSettings(points=(self.folder / POINTS,), without="N", draws=self.settings.draws, out=self.folder / "law", **asked),
            say=lambda line: None,
        )
        self.warnings += [line for line in law.warnings if line not in self.warnings]
        for which, one in law.laws.items():
            assert one.errors is not None
            self.say(f"Law of the {which} loss: R2 {one.quality.r2:.4f}, mean |error| {share(one.quality.error)}; {one.errors.words()}")
        return law.laws["domain"], law.laws["general"]

    def choose(self, answer: ask.Answer, laws: _Laws, d: float, general_loss: float) -> Fitting | None:
        """The run, in tokens; None where the limit is broken by all that was tried."""
        ratio = answer.figures["r_d"].value if answer.figures else 0.0
        if ratio < min(RATIOS):
            return None
        bound, unit = limit_of(general_loss, self.settings.limit, laws.offsets[0]), laws.general.unit_d
        at = (self.origin.parameters / laws.general.unit_n, d / unit)
        found = arithmetic.within_epochs(laws.domain.law, laws.general.law, *at, ratio, laws.unique / unit, bound)
        if found.lowered:
            what = {"r": "less of it new", "D": "a shorter run", "r and D": "a shorter run, less of it new"}[found.lowered]
            often = f"the new text would be read {ratio * d / laws.unique:.3g} times"
            self.warnings.append(f"{often}: {what}, so that it is read {arithmetic.MOST_EPOCHS:g} times")
        return replace(found, tokens=found.tokens * unit)

    # --- 6: the run -----------------------------------------------------------------------------------------------------------------------------

    def recommended(
        self, chosen: Fitting | None, laws: _Laws, data: tuple[str, ...], planned: Mapping[str, Any], subset: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The entries of cpt.json that say what to do, and what will come of it."""
        if chosen is None:
            return {"recommended": None, "predicted": None, "command": None}
        steps = self.steps_of(chosen)
        r_d = round(chosen.ratio, 4)
        tokens = steps * self.origin.tokens_per_step
        predicted = ask.predicted([laws.domain, laws.general], self.origin.parameters, tokens, r_d, anneal=laws.offsets).figures
        found = arithmetic.epochs(tokens, min(r_d, arithmetic.MOST_EPOCHS * laws.unique / tokens), laws.unique)
        return {
            "recommended": {"r_d": r_d, "steps": steps, "tokens": tokens, "lowered": chosen.lowered, "epochs": found},
            "predicted": {name: asdict(value) for name, value in predicted.items()},
            "command": self.command(data, self.long_run(chosen, planned, subset)),
        }

    def steps_of(self, chosen: Fitting) -> int:
        return max(1, int(chosen.tokens / self.origin.tokens_per_step * (1 + 1e-9)))

    def long_run(self, chosen: Fitting, planned: Mapping[str, Any], subset: Mapping[str, Any] | None) -> dict[str, Any]:
        """Settings of the recommended run, as `pretrain` takes them."""
        steps = self.steps_of(chosen)
        out = self.folder / "runs" / f"recommended-r{round(chosen.ratio, 4):g}"
        settings = {**self.origin.settings, **self.common, **planned, "budget.steps": steps, "mix": mix(round(chosen.ratio, 4))}
        if subset is not None:  # strategy III: the new part is drawn anew each epoch
            epoch = arithmetic.epoch_tokens(steps * self.origin.tokens_per_step, chosen.ratio, subset["tokens"], subset["tokens"])
            if (old := 1 - round(chosen.ratio, 4)) > 0:
                epoch = min(epoch, self.old_tokens / old)  # a small sample of old text is drawn from more often
            begun = read_run(out)["config"].get("epochs", {}).get("tokens") if (out / "run.json").is_file() else None
            settings |= {"epochs.tokens": begun or int(epoch), "epochs.draw": "dynamic"}  # an earlier version may have begun it with another length
        if self.settings.flattest:
            settings |= kept(steps)
        return settings | {"init": str(self.init), "seed": self.settings.seed, "out": str(out)}

    def command(self, data: tuple[str, ...], settings: Mapping[str, Any]) -> str:
        """The same as a person types it."""
        words = ["headstart", "pretrain", "causal-lm", "--data", *data]
        for name, value in settings.items():
            group, dot, leaf = name.replace("_", "-").rpartition(".")
            if isinstance(value, bool):
                words.append(f"--{group}{dot}{'' if value else 'no-'}{leaf}")
            else:
                words += [f"--{group}{dot}{leaf}", f"{value:.12g}" if isinstance(value, float) else str(value)]
        return shlex.join(words)

    def run_it(
        self, chosen: Fitting, data: tuple[str, ...], planned: Mapping[str, Any], subset: Mapping[str, Any] | None, items: OldItems
    ) -> None:
        """Runs it, and the naive one beside it, and reports."""
        settings = self.long_run(chosen, planned, subset)
        recommended, naive = self.trained(data, settings), None
        if self.settings.baseline:
            s = self.settings
            whole = named_data(s.domain, s.general, s.domain_held_out, s.general_held_out)  # held out are the same documents
            plain_run = {name: value for name, value in settings.items() if not name.startswith(("rewarm.", "epochs.", "schedule."))}
            plain_run |= {**self.constant_rate(), "mix": mix(1.0), "out": str(self.folder / "runs" / f"naive-{settings['budget.steps']}")}
            naive = self.trained(whole, plain_run)
        self.info["report"] = report(recommended, naive, self.info, items.of, self.say)
        if self.settings.flattest:
            self.info["report"]["flattest"] = flattest(recommended, chosen.ratio, self.settings.device, self.say)
        self.save()

    def trained(self, data: tuple[str, ...], settings: Mapping[str, Any]) -> Path:
        """A run of the ordinary kind; the same call continues it."""
        out = Path(settings["out"])
        if not is_measured(out, settings["budget.steps"]):
            given: dict[str, Any] = {name: Path(value) if name in ("out", "init") else value for name, value in settings.items()}
            with in_words_of_a_plan():
                pretrain("causal-lm", list(data), say=lambda line: self.say(f"    {line}"), **given)
        return out

    def tell_answer(self) -> None:
        """What a person reads at the end."""
        info, limit = self.info, share(self.settings.limit)
        before, bits = info["before"], info["before_bits_per_byte"]
        told = [f"{name} loss {before[part]:.4f} ({bits[part]:.3f} bits a byte)" for name, part in (("general", GENERAL), ("domain", DOMAIN))]
        self.say(f"Before: {', '.join(told)}; nats a token, held-out text.")
        cost = info["sweep"]["cost"]
        changed = ", ".join(f"{which} {signed(-info['anneal'][which])}" for which in ("general", "domain"))
        self.say(f"At the end of a short run the planned schedule changes the losses by {changed}; planning cost {counted(cost['tokens'])} tokens.")
        for warning in info["warnings"]:
            self.say(f"  ! {warning}")
        if info["recommended"] is None:
            self.say(
                f"No mixture that was tried keeps the general loss within {limit}: even {min(RATIOS):g} of new text breaks it. A lower rate forgets"
                f" less: --peak {self.origin.peak / 2:g} in another --out; or allow more with --limit."
            )
            return
        chosen, predicted = info["recommended"], info["predicted"]
        interval = info["answer"]["figures"]["r_d"]
        ends = "" if interval["low"] is None else f" (90 % {interval['low']:.2f} to {interval['high']:.2f}, from {len(RATIOS)} runs)"
        self.say(f"Take r_d = {chosen['r_d']:g}{ends}: the largest share of new text that keeps the general loss within {limit}.")
        for name, part in (("general_loss", GENERAL), ("domain_loss", DOMAIN)):
            value = predicted[name]
            low_high = "" if value["low"] is None else f" (90 % {value['low']:.4f} to {value['high']:.4f})"
            self.say(f"  predicted {name.replace('_', ' ')} {value['value']:.4f}{low_high}, before {before[part]:.4f}")
        self.say(f"  {chosen['steps']:,} steps, the new text is read {chosen['epochs']:.2g} times")
        self.say(f"Run it:\n  {info['command']}")
