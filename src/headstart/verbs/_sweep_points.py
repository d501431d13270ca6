"""Points of a law from run folders: what a run with a constant rate measured on the way is what shorter runs would have measured at their end.

    headstart fit dcpt-law runs/sweep            every run in the folder
    headstart fit dcpt-law runs/a runs/b         these runs

A run is of `causal-lm` with `--init`, `--mix` and two named parts of --data, whose held-out losses lie in its probes.jsonl.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.core.run import read_lines, read_run
from headstart.core.words import plural
from headstart.planning.dcpt_law.domains import FEWEST_STEPS, rate_of_decline
from headstart.planning.dcpt_law.plan import OCTAVES
from headstart.planning.dcpt_law.points import Record
from headstart.verbs._parts import mix_of

LOSS = "held_out_loss/"
"""Of a named part, in probes.jsonl."""
COLUMNS = ("N", "D", "r_d", "loss_domain", "loss_general", "run", "seed")
STEADY = 0.02
"""A learning rate that moves by more than this share of itself after the warm-up is not constant."""
NO_STEP = "which made no step ({})"
DECAYS = "whose learning rate is not constant ({}): a loss in mid-run is not that of a shorter run"
OTHER_RATE = "at another constant rate than most of their size ({}): their losses lie on another curve"
"""Why a run has no part in a law."""


def is_runs(path: Path) -> bool:
    """Whether a path is a run, or a folder that holds some."""
    return path.is_dir() and bool(runs_in(path))


def runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs in it and in its folder `runs`."""
    if (folder / "run.json").is_file():
        return [folder]
    return sorted(path.parent for pattern in ("*/run.json", "runs/*/run.json") for path in folder.glob(pattern))


def points_of_runs(
    folders: Iterable[Path], domain: str = "new", general: str = "old", measured: tuple[str, str] | None = None
) -> tuple[list[Record], list[str]]:
    """A record for each evaluation of the runs that counts, and what to know of them, in words. What comes before an eighth of a run is left out, and
    so are runs whose rate decays: their losses in mid-run are not those of shorter runs; and runs that were only planned.

    Args:
        domain, general: names of the parts in --data.
        measured: names of the (domain, general) parts whose losses count, where they are others than those that are trained on.

    Raises:
        BadInput: a run that has no such losses, runs of different tokenizers or held-out texts, or runs whose rates all decay.
    """
    parts = measured or (domain, general)
    steady, left_out = _sorted_out(folders, domain, general, parts)
    records: list[Record] = []
    notes: list[str] = []
    for folder, info, ratio in steady:
        found = points_of_run(folder, info, *parts)
        if lost := [step for step in _asked(info) if 0 < step <= _last_step(info, found) and step not in found]:
            listed = ", ".join(map(str, lost[:4])) + (", ..." if len(lost) > 4 else "")
            notes.append(f"{plural(len(lost), 'look')} of {folder.name} left out (step {listed}): no finite losses of both texts are there")
        for step, losses in found.items():
            row = {"N": float(parameters(folder, info)), "D": step * tokens_per_step(folder, info), "r_d": ratio, **losses}
            records.append((str(folder), step, row | {"run": folder.name, "seed": info["seed"]}))
    shown = {why: ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") for why, names in left_out.items() if names}
    if not records and DECAYS in shown:
        mend = "Give runs at a constant rate (--schedule.name constant, or those of plan dcpt)."
        raise BadInput(f"The learning rate of no run is constant ({shown[DECAYS]}): a loss in mid-run is not that of a shorter run.", mend)
    if not records and NO_STEP in shown:
        raise BadInput(f"No run has made a step ({shown[NO_STEP]}).", "Give runs that were trained; a dry run has no losses.")
    return records, notes + [f"{plural(len(left_out[why]), 'run')} left out, {why.format(listed)}" for why, listed in shown.items()]


def _sorted_out(
    folders: Iterable[Path], domain: str, general: str, parts: tuple[str, str]
) -> tuple[list[tuple[Path, dict[str, Any], float]], dict[str, list[str]]]:
    """(folder, run.json and r_d of each run whose losses lie on the curves of a law; why others do not -> their names)."""
    steady: list[tuple[Path, dict[str, Any], float]] = []
    rates: dict[Path, float] = {}
    left_out: dict[str, list[str]] = {NO_STEP: [], DECAYS: [], OTHER_RATE: []}
    tokenizers: dict[str, Path] = {}
    held_out: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        info = read_run(folder)
        if _is_only_planned(folder, info):
            left_out[NO_STEP].append(folder.name)
            continue
        ratio = _ratio(folder, info, domain, general)
        for entry in info.get("data", []):
            tokenizers.setdefault(str(entry.get("tokenizer_sha256")), folder)
        if len(tokenizers) > 1:
            other = next(iter(tokenizers.values()))
            raise BadInput(f"has another tokenizer than {other}: losses a token of both are different quantities.", "Fit them apart.", file=folder)
        refuse_other_text(folder, info, parts, held_out)
        if (rate := _steady_rate(folder)) is None:
            left_out[DECAYS].append(folder.name)
        else:
            steady.append((folder, info, ratio))
            rates[folder] = rate
    usual = _usual_rates({folder: parameters(folder, info) for folder, info, _ in steady}, rates)
    left_out[OTHER_RATE] = [folder.name for folder, _, _ in steady if folder not in usual]
    return [one for one in steady if one[0] in usual], left_out


def points_of_run(folder: Path, info: Mapping[str, Any], domain: str, general: str) -> dict[int, dict[str, float]]:
    """Step -> both losses, of the steps that were asked for (--trainer.evaluate-at), which score the whole held-out text; without them of all from an
    eighth of the run on, but the last, which scores more rows than those before it."""
    losses = losses_of(folder, (domain, general))
    last = max(losses, default=0)
    asked = _asked(info)
    wanted = [step for step in sorted(losses) if (step in asked if asked else last <= step * 2**OCTAVES < last * 2**OCTAVES) and step > 0]
    found = {step: {"loss_domain": losses[step][domain], "loss_general": losses[step][general]} for step in wanted if len(losses[step]) == 2}
    if not found:
        names = f"'{domain}' and '{general}'"
        mend = f"Give it both as parts: --data {domain}=FILES {general}=FILES; or name its own parts with --domain-part and --general-part."
        raise BadInput(f"has measured no held-out losses of {names} after step 0.", mend, file=folder)
    return found


def _asked(info: Mapping[str, Any]) -> Sequence[int]:
    """The steps at which a run was asked to look."""
    return (info["config"].get("trainer") or {}).get("evaluate_at") or ()


def _last_step(info: Mapping[str, Any], found: Mapping[int, Any]) -> int:
    """Of a run that is done its last step, of one that goes on the last at which it was measured."""
    return int((info.get("totals") or {}).get("steps") or max(found))


def losses_of(folder: Path, names: Sequence[str]) -> dict[int, dict[str, float]]:
    """Step -> name of a part -> its held-out loss, in nats a token."""
    found: dict[int, dict[str, float]] = {}
    path = folder / "probes.jsonl"
    for line in read_lines(path) if path.is_file() else ():
        name, value = str(line.get("probe", "")).removeprefix(LOSS), line.get("value")
        if line.get("probe") == LOSS + name and name in names and isinstance(value, float) and math.isfinite(value):
            found.setdefault(int(line["step"]), {})[name] = value
    return found


def parameters(folder: Path, info: Mapping[str, Any]) -> int:
    """N of the law: non-embedding parameters 12 L d^2."""
    method = info["config"].get("method") or {}
    layers, width = method.get("num_layers"), method.get("hidden_size")
    if not isinstance(layers, int) or not isinstance(width, int):
        raise BadInput("does not say its number of layers and width.", "Give a run of causal-lm.", file=folder / "run.json")
    return 12 * layers * width**2


def tokens_per_step(folder: Path, info: Mapping[str, Any]) -> float:
    """Tokens of a step, repeats included."""
    totals = info.get("totals") or {}
    if totals.get("steps"):
        return float(totals["tokens"] / totals["steps"])
    line = next((line for line in read_lines(folder / "metrics.jsonl") if line.get("step")), None)
    if line is None:
        raise BadInput("has not made a step yet.", "Let it go on: the same command continues.", file=folder)
    return float(line["tokens"] / line["step"])


@dataclass(frozen=True)
class DomainFigures:
    """How hard a domain is to learn, as the cross-domain law knows it.

    Attributes:
        k1: its loss before training.
        k2: how fast that falls, nats per 1,000 steps, over the first `steps` at r_d = 1 on the smallest size.
    """

    k1: float
    k2: float
    steps: int


def domain_figures(folders: Sequence[Path], domain: str = "new", general: str = "old") -> DomainFigures | None:
    """Of the domain of a sweep: mean over its runs at r_d = 1 of the smallest size, at their first look after 1 % of the steps, 50 at least. None: it
    has no such run or look, or its loss did not fall."""
    infos = {folder: read_run(folder) for folder in folders}
    smallest = min(parameters(folder, info) for folder, info in infos.items())
    pure = [f for f, info in infos.items() if parameters(f, info) == smallest and _ratio(f, info, domain, general) == 1]
    found = []
    for folder in pure:
        losses = {step: of_both[domain] for step, of_both in losses_of(folder, (domain,)).items()}
        least = max(FEWEST_STEPS, math.ceil(0.01 * int(infos[folder]["totals"]["steps"])))
        looks = [step for step in sorted(losses) if step >= least and step in _asked(infos[folder])]
        if 0 not in losses or not looks or losses[looks[0]] >= losses[0]:
            return None
        found.append((losses[0], rate_of_decline(losses[0], losses[looks[0]], looks[0]), looks[0]))
    if not found:
        return None
    return DomainFigures(fmean(k1 for k1, _, _ in found), fmean(k2 for _, k2, _ in found), found[0][2])


def write_points(path: Path, records: Sequence[Record], topic: Mapping[str, Any] | None = None) -> None:
    """points.parquet: a row for each record.

    Args:
        topic: further columns, the same in every row: domain, k1, k2.
    """
    rows = [record for _, _, record in records]
    table = pa.table({name: [row[name] for row in rows] for name in COLUMNS} | {name: [value] * len(rows) for name, value in (topic or {}).items()})
    with atomic_write(path) as file:
        pq.write_table(table, file)


def _is_only_planned(folder: Path, info: Mapping[str, Any]) -> bool:
    """Whether a run never made a step: a dry run, such as `plan cpt` leaves beside the runs of its sweep."""
    if info.get("status") == "done" or (info.get("totals") or {}).get("steps"):
        return False
    metrics = folder / "metrics.jsonl"
    return not (metrics.is_file() and any(line.get("step") for line in read_lines(metrics)))


def refuse_other_text(folder: Path, info: Mapping[str, Any], parts: Sequence[str], known: dict[str, tuple[str, Path]]) -> None:
    """Raises BadInput where the held-out text of a part is not that of the runs before: its losses are of other windows.

    Args:
        known: part -> (what its text is known by, the first run that was measured on it); filled here.
    """
    for entry in info.get("measured", []):
        if (name := entry.get("part")) in parts and entry.get("arrays_sha256"):
            identity = json.dumps([entry["arrays_sha256"], entry.get("all_held_out", False)], sort_keys=True)
            first, other = known.setdefault(name, (identity, folder))
            if identity != first:
                what = f"was measured on another held-out text of '{name}' than {other}: losses of different windows are different quantities."
                raise BadInput(what, "Fit them apart, or repeat one of them: did the files change in between?", file=folder)


def _ratio(folder: Path, info: Mapping[str, Any], domain: str, general: str) -> float:
    config = info.get("config", {})
    if info.get("method") != "causal-lm" or not config.get("init"):
        raise BadInput("is no continued run of causal-lm.", "The law is of such runs: pretrain causal-lm --init DIR.", file=folder)
    shares = mix_of(config.get("mix")) or {}
    if set(shares) != {domain, general}:
        has = f"mixes {', '.join(shares)}" if shares else "has no --mix"
        mend = f"Its parts must be {domain} and {general}; --domain-part and --general-part name others."
        raise BadInput(f"{has}; the share of domain text cannot be told.", mend, file=folder)
    return shares[domain]


def _steady_rate(folder: Path) -> float | None:
    """The rate that a run stays at after its warm-up, as its own log says; None: it moves. 0 where the log says nothing."""
    rates = [(line["step"], line["learning_rate"]) for line in read_lines(folder / "metrics.jsonl") if isinstance(line.get("learning_rate"), float)]
    if not rates:
        return 0.0
    peak = max(rate for _, rate in rates)
    reached = next(at for at, (_, rate) in enumerate(rates) if rate >= (1 - STEADY) * peak)
    return float(peak) if all(rate >= (1 - STEADY) * peak for _, rate in rates[reached:]) else None


def _usual_rates(sizes: Mapping[Path, int], rates: Mapping[Path, float]) -> set[Path]:
    """The runs at the constant rate that most runs of their size have: the naive run of a plan lies beside its sweep, at another constant rate, and
    its losses lie on another curve.

    Args:
        sizes, rates: of each run, N and the rate; 0: not known, which is any.

    Raises:
        BadInput: two rates have equally many runs.
    """
    found: set[Path] = set()
    for n in dict.fromkeys(sizes.values()):
        own = [run for run in sizes if sizes[run] == n]
        near = {run: {other for other in own if _is_near(rates[run], rates[other])} for run in own if rates[run]}
        most = max(near.values(), key=len, default=set(own))
        if rivals := [run for run, others in near.items() if len(others) == len(most) and not others & {r for r in most if rates[r]}]:
            one, other = next(rates[run] for run in own if run in most and rates[run]), rates[rivals[0]]
            what = f"Runs of N = {n:,} are at the constant rates {one:g} and {other:g}, equally many at each: their losses lie on different curves."
            raise BadInput(what, "Fit them apart.")
        found |= most
    return found


def _is_near(rate: float, other: float) -> bool:
    """Whether two rates are one; 0 is not known."""
    return not rate or not other or abs(rate - other) <= STEADY * max(rate, other)
