"""The store of an environment: a manifest that says which it is. There is nothing to prepare; its data is made while training.

    STORE/manifest.json     which environment, its sizes, and for one of your own the Python file with its hash

An environment of your own is Python, and opening its store runs it: the file that the manifest names, where it lay, if its bytes are still the same.
Nothing inside the store itself is ever executed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.core.files import read_json, sha256_file, write_json
from headstart.core.words import did_you_mean
from headstart.data.environments.config import BUILTIN, PREFIX, EnvironmentConfig
from headstart.data.environments.contract import check
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.sequences import Bits, Dna, Peptides, Rna, Words

KIND = "environment"
FORMAT_VERSION = 1
HELD_OUT = 1024
"""Random targets that an evaluation may ask for (specification: "share of 1,024 random target outcomes")."""
ENDLESS = 2**31
"""Rows of an environment: it has as many trajectories as are asked for."""


class EnvironmentStore:
    """An opened store.

    Attributes:
        environment: checked, on the CPU; its functions take tensors of any device.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], environment: Environment) -> None:
        self.folder, self.manifest, self.environment = folder, manifest, environment

    def report(self) -> list[str]:
        return [f"{self.environment.name}: {in_words(self.environment)}"]


class TrajectoryRows:
    """What a loader is given: numbers of trajectories. Who trains on them makes them (`Method.collect`).

    Attributes:
        unit: what a row is counted in; `length` of them a row.
    """

    unit = "trajectories"
    length = 1

    def __init__(self, split: Literal["train", "held_out"] = "train") -> None:
        self.size = HELD_OUT if split == "held_out" else ENDLESS
        self.n_tokens = self.n_documents = self.size
        self.report: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{"trajectory": int64 [batch]}: their numbers."""
        return {"trajectory": np.asarray(rows, np.int64)}


def in_words(environment: Environment) -> str:
    """How many objects there are, and how far away."""
    count = "too many objects to list" if environment.n_objects is None else f"{environment.n_objects:,} objects"
    return f"{count}, {environment.n_actions} actions, at most {environment.max_steps} steps"


def prepare_environment(sources: Sequence[str | Path], out: Path, config: EnvironmentConfig) -> EnvironmentStore:
    """The store of "builtin:NAME", or of a Python file with a subclass of `Environment`, which is checked here.

    Raises:
        UsageError: there is none of this name, its sizes are impossible, or it breaks the contract.
        BadInput: neither of both is given, or the file cannot be run.
        OtherStore: `out` holds another one.
    """
    if len(sources) != 1:
        raise UsageError(f"{len(sources)} entries of --data for an environment.", f"Give one: {PREFIX}{next(iter(BUILTIN))}, or a Python file.")
    source = str(sources[0])
    if not source.startswith(PREFIX) and not (Path(source).is_file() and source.endswith(".py")):
        mend = f"Give {PREFIX}NAME ({', '.join(BUILTIN)}) or a Python file with a subclass of Environment; rewards come later: headstart adapt."
        raise BadInput("is no environment.", mend, file=source)
    named = {"builtin": source.removeprefix(PREFIX)} if source.startswith(PREFIX) else {"file": str(Path(source).absolute())}
    inputs = [] if "builtin" in named else [{"name": Path(source).name, "sha256": sha256_file(source)}]
    environment = _make(named, config)
    check(environment)
    preparation = config.preparation()
    decides = json.dumps([named.get("builtin"), inputs, preparation], sort_keys=True)
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "counts": {"actions": environment.n_actions, "longest_trajectory": environment.max_steps, "objects": environment.n_objects, "quarantined": 0},
        "source": named,
        "inputs": inputs,
        "preparation": preparation,
        "arrays": {"environment": {"sha256": hashlib.sha256(decides.encode()).hexdigest()}},  # there is no array; by this a run knows its data again
    }
    if (out / "manifest.json").exists():
        found = read_json(out / "manifest.json")
        if found != manifest:
            raise OtherStore(f"{out} was made of another environment.", "Choose another --out.")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "manifest.json", manifest)
    return EnvironmentStore(out, manifest, environment)


def open_environment_store(folder: Path) -> EnvironmentStore:
    """Opens a finished store.

    Raises:
        BadInput: it is missing or damaged, or the file of an environment of one's own has changed since.
    """
    path = folder / "manifest.json"
    manifest = read_json(path)
    try:
        sound = manifest["kind"] == KIND and manifest["format_version"] == FORMAT_VERSION
        named, inputs = dict(manifest["source"]), list(manifest["inputs"])
        config = EnvironmentConfig(**manifest["preparation"])
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise BadInput("is no store of an environment of this version.", "Prepare it again.", file=path)
    if "file" in named:
        source = Path(named["file"])
        if not source.is_file() or sha256_file(source) != inputs[0]["sha256"]:
            raise BadInput("is gone or has changed since the store was made of it.", "Bring it back, or start a new run.", file=source)
        if folder.resolve() in source.resolve().parents:
            raise BadInput("lies in the store itself, whose files are never executed.", "Keep your environment outside.", file=source)
    environment = _make(named, config)
    check(environment)
    return EnvironmentStore(folder, manifest, environment)


def _make(named: dict[str, str], config: EnvironmentConfig) -> Environment:
    return _own(Path(named["file"]), config) if "file" in named else builtin(named["builtin"], config)


def builtin(name: str, config: EnvironmentConfig | None = None) -> Environment:
    """A built-in environment.

    Raises:
        UsageError: there is none of this name, or it cannot have these sizes.
    """
    config = config or EnvironmentConfig()
    of_length: dict[str, Any] = {} if config.length is None else {"length": config.length}
    if name == "hypergrid":
        return Grid(config.side, config.dimensions, config.edge_ends)
    if name == "bits":
        return Bits(config.length or 40, config.word_bits)
    if name == "words":
        return Words(config.alphabet, **of_length)
    if name in (classes := {"tfbind8": Dna, "rna": Rna, "amp": Peptides}):
        return classes[name](**of_length)
    raise UsageError(f"There is no environment '{name}'.", f"{did_you_mean(name, BUILTIN)}There are: {', '.join(BUILTIN)}; or give a Python file.")


def _own(path: Path, config: EnvironmentConfig) -> Environment:
    """The environment in a person's Python file."""
    spec = importlib.util.spec_from_file_location(f"headstart_environment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot be run ({type(error).__name__}: {error}).", "Correct it.", file=path) from error
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Environment) and value.__module__ == module.__name__
    }
    there = list(found)
    if config.name is not None:
        found = {name: value for name, value in found.items() if name == config.name}
    if len(found) != 1:
        what = f"has {len(found)} environments{'' if config.name is None else f' of the name {config.name}'}."
        named = f" It has: {', '.join(there)}." if there else ""
        close = did_you_mean(config.name, there) if config.name is not None else ""
        raise BadInput(what, f"{close}Write one subclass of Environment, or name one with --environment.name.{named}", file=path)
    try:
        return next(iter(found.values()))()
    except TypeError as error:
        raise BadInput(f"its environment cannot be made ({error}).", "Its class takes no arguments and has every function.", file=path) from error
