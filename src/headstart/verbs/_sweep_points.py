"""Points of a law from run folders: what a run with a constant rate measured on the way is what shorter runs would have measured at their end.

    headstart fit dcpt-law runs/sweep            every run in the folder
    headstart fit dcpt-law runs/a runs/b         these runs

A run is of `causal-lm` with `--init`, `--mix` and two named parts of --data, whose held-out losses lie in its probes.jsonl.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.core.run import read_lines, read_run
from headstart.core.words import plural
from headstart.planning.dcpt_law.plan import OCTAVES
from headstart.planning.dcpt_law.points import Record
from headstart.verbs._parts import mix_of

LOSS = "held_out_loss/"
"""Of a named part, in probes.jsonl."""
COLUMNS = ("N", "D", "r_d", "loss_domain", "loss_general", "run", "seed")
STEADY = 0.02
"""A learning rate that moves by more than this share of itself after the warm-up is not constant."""


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
    so are runs whose rate decays: their losses in mid-run are not those of shorter runs.

    Args:
        domain, general: names of the parts in --data.
        measured: names of the (domain, general) parts whose losses count, where they are others than those that are trained on.

    Raises:
        BadInput: a run that has no such losses, runs of different tokenizers, or runs whose rates all decay.
    """
    records: list[Record] = []
    decayed: list[str] = []
    notes: list[str] = []
    tokenizers: dict[str, Path] = {}
    for folder in folders:
        info = read_run(folder)
        ratio = _ratio(folder, info, domain, general)
        for entry in info.get("data", []):
            tokenizers.setdefault(str(entry.get("tokenizer_sha256")), folder)
        if len(tokenizers) > 1:
            other = next(iter(tokenizers.values()))
            raise BadInput(f"has another tokenizer than {other}: losses a token of both are different quantities.", "Fit them apart.", file=folder)
        if not _is_steady(folder, info):
            decayed.append(folder.name)
            continue
        found = points_of_run(folder, info, *(measured or (domain, general)))
        if lost := [step for step in _asked(info) if 0 < step <= _last_step(info, found) and step not in found]:
            listed = ", ".join(map(str, lost[:4])) + (", ..." if len(lost) > 4 else "")
            notes.append(f"{plural(len(lost), 'look')} of {folder.name} left out (step {listed}): no finite losses of both texts are there")
        for step, losses in found.items():
            row = {"N": float(parameters(folder, info)), "D": step * tokens_per_step(folder, info), "r_d": ratio, **losses}
            records.append((str(folder), step, row | {"run": folder.name, "seed": info["seed"]}))
    if decayed:
        listed = ", ".join(decayed[:4]) + (", ..." if len(decayed) > 4 else "")
        if not records:
            mend = "Give runs at a constant rate (--schedule.name constant, or those of plan dcpt)."
            raise BadInput(f"The learning rate of no run is constant ({listed}): a loss in mid-run is not that of a shorter run.", mend)
        notes.append(f"{len(decayed)} runs left out, whose learning rate is not constant ({listed}): a loss in mid-run is not that of a shorter run")
    return records, notes


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


def write_points(path: Path, records: Sequence[Record]) -> None:
    """points.parquet: a row for each record."""
    rows = [record for _, _, record in records]
    table = pa.table({name: [row[name] for row in rows] for name in COLUMNS})
    with atomic_write(path) as file:
        pq.write_table(table, file)


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


def _is_steady(folder: Path, info: Mapping[str, Any]) -> bool:
    """Whether the rate stays what it is after the warm-up, as the run's own log says."""
    rates = [(line["step"], line["learning_rate"]) for line in read_lines(folder / "metrics.jsonl") if isinstance(line.get("learning_rate"), float)]
    if not rates:
        return True
    peak = max(rate for _, rate in rates)
    reached = next(at for at, (_, rate) in enumerate(rates) if rate >= (1 - STEADY) * peak)
    return all(rate >= (1 - STEADY) * peak for _, rate in rates[reached:])
