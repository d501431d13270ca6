"""What is compared: run folders, exports and plain model folders as arms, with the FLOPs and the time that each exported model had cost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, sha256_file
from headstart.core.run import read_lines, read_run
from headstart.engine.checkpoint_places import name_of
from headstart.engine.export_hashes import verify_export
from headstart.engine.text_method import model_folder
from headstart.interop.model_folder import WEIGHTS
from headstart.verbs._exports import checkpoints_of, given_model
from headstart.verbs._same_run import MACHINE_FIELDS

EQUAL_WITHIN = 1.02
"""FLOPs whose ratio is below this count as equal: runs end at whole steps."""
SEED = "seed"
_MACHINE = re.compile(r"transformers_version|_name_or_path|architectures|(torch_)?dtype|use_cache")


@dataclass(frozen=True)
class Export:
    """A model folder and what its pre-training had cost; None where that is not known."""

    folder: Path
    step: int | None
    flops: float | None
    wall_s: float | None
    final: bool

    @cached_property
    def architecture(self) -> str:
        """Hash of what a random start of this network depends on: its config.json without the names of versions, and its tokenizer."""
        config = read_json(self.folder / "config.json")
        if not isinstance(config, dict):
            raise BadInput("holds no configuration of a network.", "Give a transformers folder.", file=self.folder / "config.json")
        kept = {name: value for name, value in config.items() if not _MACHINE.fullmatch(name)}
        return hash_of([kept, *(sha256_file(path) for path in sorted(self.folder.glob("tokenizer.json")))])

    @cached_property
    def contents(self) -> str:
        """Hash of the network itself."""
        weights = [path for name in WEIGHTS for path in sorted(self.folder.glob(name.replace("model.safetensors", "model*.safetensors")))]
        return hash_of([self.architecture, *(sha256_file(path) for path in dict.fromkeys(weights))])


@dataclass
class Source:
    """One folder that the person named."""

    path: Path
    info: dict[str, Any] | None  # run.json of the run that made it
    exports: list[Export]  # by step, the final one last

    @property
    def seed(self) -> Any:
        return None if self.info is None else self.info.get(SEED)


@dataclass
class Arm:
    """Sources that differ in nothing but their pre-training seed; or a random start of the network of another arm."""

    name: str
    kind: str  # "run", "model", "random"
    sources: list[Source]

    @property
    def info(self) -> dict[str, Any]:
        return self.sources[0].info or {}

    @property
    def fresh(self) -> bool:
        return self.kind == "random"

    @property
    def final(self) -> Export:
        return self.sources[0].exports[-1]

    def stations(self) -> list[int]:
        """Indices from the end (-1, -2, ...) of the exports that all sources have, the final one last."""
        earlier = range(-min(len(source.exports) for source in self.sources), -1)
        return [*(at for at in earlier if len({source.exports[at].step for source in self.sources}) == 1), -1]

    def flops(self, station: int) -> float | None:
        return _mean([source.exports[station].flops for source in self.sources])

    def wall_s(self, station: int) -> float | None:
        return _mean([source.exports[station].wall_s for source in self.sources])


def read_arms(paths: Sequence[Path]) -> tuple[list[Arm], dict[str, Arm]]:
    """The arms, and the random start of each architecture.

    Raises:
        BadInput: a folder is neither a run nor a model, or damaged. UsageError: a folder comes twice, or a run has exported nothing yet.
    """
    found: list[Source] = []
    for path in paths:
        if any(path.resolve() == source.path.resolve() for source in found):
            raise UsageError(f"{path} is given twice.", "A folder compared with itself differs by nothing.")
        found.append(read_source(path))
    groups: dict[str, list[Source]] = {}
    for source in found:
        groups.setdefault(_settings(source), []).append(source)
    arms = []
    for group in groups.values():
        for part in _told_apart(group):
            arms.append(Arm(_name(part), "run" if part[0].info is not None else "model", part))
    _distinct_names(arms)
    starts: dict[str, Arm] = {}
    several = len({arm.final.architecture for arm in arms}) > 1
    for arm in arms:
        if arm.final.architecture not in starts:
            first = Export(arm.final.folder, 0, 0.0, 0.0, True)
            name = f"random start ({arm.name})" if several else "random start"
            starts[arm.final.architecture] = Arm(name, "random", [Source(arm.final.folder, None, [first])])
    return arms, starts


def read_source(path: Path) -> Source:
    """A run with all its exports, an export of a run, or any model folder.

    Raises:
        BadInput: it is none of these, or damaged. UsageError: the run has exported nothing yet.
    """
    if not path.is_dir():
        raise BadInput("is not a folder.", "Give a run, an export or a transformers folder.", file=path)
    if (path / "run.json").is_file():
        info = read_run(path)
        exports = run_exports(path, info)
        if not exports:
            raise UsageError(f"The run {path} has no export yet.", "Let it reach its first checkpoint.")
        return Source(path, info, exports)
    folder = given_model(path)
    run = next((parent for parent in [*path.parents, *path.absolute().parents][:12] if (parent / "run.json").is_file()), None)
    if run is not None:
        info = read_run(run)
        for export in run_exports(run, info):
            if export.folder.resolve() == folder.resolve():
                return Source(path, info, [export])
    return Source(path, None, [Export(folder, None, None, None, True)])


def run_exports(run: Path, info: dict[str, Any]) -> list[Export]:
    """The exports of a run by step: those beside its kept checkpoints, and the final one."""
    steps, flops, wall = [0], [0.0], [0.0]
    if (run / "metrics.jsonl").is_file():
        for line in read_lines(run / "metrics.jsonl"):
            if isinstance(line.get("flops"), int | float) and isinstance(line.get("wall_s"), int | float):
                steps.append(line["step"])
                flops.append(line["flops"])
                wall.append(line["wall_s"])
    totals = info.get("totals") or {}
    last = int(totals["steps"]) if "steps" in totals else None
    if last is not None and last > steps[-1] and isinstance(totals.get("flops"), int | float):  # stopped between two lines of the log
        steps, flops, wall = [*steps, last], [*flops, float(totals["flops"])], [*wall, float(totals.get("wall_s") or wall[-1])]
    found = []
    for step in checkpoints_of(run, info, run / "checkpoints").steps():
        folder = run / "checkpoints" / name_of(step) / "export"
        if folder.is_dir() and not (step == last and (run / "export").is_dir()):
            known = step <= steps[-1]
            spent = float(np.interp(step, steps, flops)) if known else None
            found.append(Export(model_folder(folder), step, spent, float(np.interp(step, steps, wall)) if known else None, False))
    if (run / "export").is_dir():
        found.append(Export(model_folder(run / "export"), last, totals.get("flops"), totals.get("wall_s"), True))
    elif found:
        found[-1] = Export(found[-1].folder, found[-1].step, found[-1].flops, found[-1].wall_s, True)
    for export in found:
        verify_export(export.folder)
    return found


def _settings(source: Source) -> str:
    """Equal for sources that differ in nothing but their seed."""
    if source.info is None or (len(source.exports) == 1 and source.path.name != "export" and not (source.path / "run.json").is_file()):
        return str(source.path.resolve())
    config = _leaves(source.info.get("config", {}))
    kept = {name: value for name, value in sorted(config.items()) if name not in MACHINE_FIELDS | {SEED}}
    stores = [entry.get("tokenizer_sha256") for entry in source.info.get("data", [])]
    return json.dumps([source.info.get("method"), kept, stores], default=str)


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of a nested dictionary."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _told_apart(group: list[Source]) -> list[list[Source]]:
    """Runs of one arm: other seeds, equal FLOPs. What repeats a seed, or was trained longer, is an arm of its own."""
    arms: list[list[Source]] = []
    for source in group:
        for arm in arms:
            mine, theirs = source.exports[-1].flops, arm[0].exports[-1].flops
            equal = mine is not None and theirs is not None and max(mine, theirs) <= EQUAL_WITHIN * min(mine, theirs)
            if equal and source.seed not in [other.seed for other in arm]:
                arm.append(source)
                break
        else:
            arms.append([source])
    return arms


def _name(sources: Sequence[Source]) -> str:
    if len(sources) == 1:
        path = sources[0].path.absolute()
        return f"{path.parent.name}/{path.name}" if path.name == "export" else path.name
    info = sources[0].info or {}
    names = {re.sub(r"[-_. ]*\d*$", "", source.path.absolute().name) for source in sources}
    return names.pop() if len(names) == 1 and "" not in names else f"{info.get('method')}-{info.get('preset')}"


def _distinct_names(arms: list[Arm]) -> None:
    """The first of arms with one name keeps it."""
    seen: dict[str, int] = {}
    for arm in arms:
        seen[arm.name] = seen.get(arm.name, 0) + 1
        if seen[arm.name] > 1 or arm.name.startswith("random start"):
            arm.name = f"{arm.name} ({arm.sources[0].path})"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def hash_of(value: Any) -> str:
    """Of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
