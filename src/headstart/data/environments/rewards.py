"""Rewards as a person names them: a function in a Python file, a table, the scores of TF-Bind-8, or one of the paper's other tasks."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.core.words import did_you_mean
from headstart.data.environments.amp import AmpReward, read_peptides
from headstart.data.environments.config import HOW_TO_GIVE, PREFIX, REWARDS, reward_file
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import RnaBinding, TFBind8, bit_modes, corners, near_modes, read_targets, sparse
from headstart.data.environments.scores import Reward
from headstart.data.environments.sequences import Bits, Dna, Peptides, Rna
from headstart.data.tables import records, wrong_delimiter


class Table:
    """Rewards in a table: every object that is made must be in it.

    Args:
        objects: int64 [n, state_size]. values: float [n].
    """

    def __init__(self, environment: Environment, objects: Tensor, values: Tensor) -> None:
        self.environment = environment
        self._values = {row.tobytes(): float(value) for row, value in zip(objects.numpy(), values.tolist(), strict=True)}

    def __call__(self, objects: Tensor) -> Tensor:
        found = [self._values.get(row.tobytes()) for row in objects.cpu().numpy()]
        if None in found:
            missing = self.environment.to_text(objects[found.index(None)][None])[0]
            raise BadInput(f"The table of rewards has no entry for {missing}.", "Add it, or give a function that scores any object.")
        return torch.tensor(found, dtype=torch.float32)


def from_function(environment: Environment, function: Callable[[list[str]], Sequence[float]]) -> Reward:
    """A reward from a person's function: a list of strings in, as many numbers out."""

    def reward(objects: Tensor) -> Tensor:
        texts = environment.to_text(objects)
        try:
            values = np.asarray(function(texts), np.float64)
        except HeadstartError:
            raise
        except (Exception, SystemExit) as error:
            what = f"The reward of {len(texts):,} objects, the first {texts[0]}, ended with {type(error).__name__}: {error}."
            raise BadInput(what, "It takes a list of strings and gives as many numbers.") from error
        large = np.isfinite(values) & (np.abs(values) > torch.finfo(torch.float32).max)
        if large.shape == (len(texts),) and large.any():
            at = int(large.argmax())
            raise BadInput(f"The reward of {texts[at]} is {values[at]:g}, more than a float32 holds.", "Give smaller ones, all in one proportion.")
        return torch.as_tensor(values).float()

    return reward


@dataclass(frozen=True)
class Described:
    """A reward, and a sentence on what it is."""

    reward: Reward
    words: str

    def __call__(self, objects: Tensor) -> Tensor:
        return self.reward(objects)


def read_reward(spec: str, environment: Environment) -> Reward:
    """A reward as a person names it.

    Args:
        spec: FILE.py:FUNCTION (strings in, numbers out); a .csv, .tsv or .parquet file with the columns sequence and value; FILE.npz:NAME, the scores
            of one factor in a file like that of TF-Bind-8; or builtin:NAME, a reward of the paper's tasks (`config.REWARDS`).

    Raises:
        BadInput: it cannot be read. UsageError: it scores objects of another environment.
    """
    if spec.startswith(PREFIX):
        return _builtin(spec, environment)
    file, name = reward_file(spec), spec.rpartition(":")[2]
    if file is None or not file.is_file():
        raise BadInput("does not exist.", HOW_TO_GIVE, file=file or spec)
    if file.suffix == ".py":
        return from_function(environment, _function(file, name))
    if file.suffix == ".npz":
        return _factor(file, name, environment)
    numbers, texts, values = _columns(file)
    try:
        objects, known = environment.from_text(texts), dict[bytes, float]()
    except BadInput as error:
        record = None if error.record is None else numbers[error.record - 1]
        raise BadInput(error.reason, error.mend, file=file, record=record) from None
    for number, key, text, value in zip(numbers, (row.tobytes() for row in objects.numpy()), texts, values, strict=True):
        if not 0 <= value < math.inf:
            mend = "A GFlowNet needs rewards that are finite and at least 0; exp(beta * score) is one."
            raise BadInput(f"gives {text} the value {value:g}.", mend, file=file, record=number)
        if known.setdefault(key, value) != value:
            raise BadInput(f"gives {text} two values, {known[key]:g} and {value:g}.", "Keep one of them, or their mean.", file=file, record=number)
    return Table(environment, objects, torch.tensor(values))


def _factor(file: Path, name: str, environment: Environment) -> Reward:
    """max(y^3, .001) of one transcription factor."""
    table = TFBind8.read(file)
    if name not in table.names:
        raise BadInput(f"has no scores of '{name}'.", f"{did_you_mean(name, table.names)}It has: {', '.join(table.names)}.", file=file)
    if not isinstance(environment, Dna) or environment.length != table.length:
        raise UsageError(f"{file} scores DNA of {table.length} letters, the sampler builds {environment.name}.", "Give a run of builtin:tfbind8.")
    return Described(table.reward(table.names.index(name)), f"max(y^3, 0.001) of {name}, y from 0 to 1 over its {table.y.shape[1]:,} words.")


def _builtin(spec: str, environment: Environment) -> Reward:
    name, _, place = spec.removeprefix(PREFIX).partition(":")
    if name not in REWARDS:
        raise UsageError(f"There is no reward '{name}'.", f"{did_you_mean(name, REWARDS)}There are: {', '.join(REWARDS)}.")
    of, what = REWARDS[name]
    mismatch = UsageError(f"The reward {name} scores objects of builtin:{of}, the sampler builds {environment.name}.", "Give a run of that one.")
    if name in ("corners", "sparse"):
        if not isinstance(environment, Grid):
            raise mismatch
        return Described((corners if name == "corners" else sparse)(environment), f"{name}: {what}.")
    if name == "modes":
        if not isinstance(environment, Bits):
            raise mismatch
        return Described(near_modes(environment, bit_modes(environment)), f"{name}: {what}.")
    if name == "rna":
        if not isinstance(environment, Rna):
            raise mismatch
        if not place:
            raise UsageError("The reward rna binds to targets, and none are given.", "Give builtin:rna:TARGETS.tsv.")
        targets = read_targets(Path(place))
        binding = RnaBinding(list(targets.values()), environment.length)
        return Described(from_function(environment, binding), f"Mean binding to {', '.join(targets)}, 1 for the strand that fits best.")  # type: ignore[arg-type]
    if not isinstance(environment, Peptides):
        raise mismatch
    learnt = AmpReward(environment, read_peptides(environment, Path(place) if place else None))
    known = f"{learnt.trained_on:,} known peptides (AUC {learnt.auc:.3f} on {learnt.tested_on:,} others)"
    words = f"The chance of being antimicrobial, from a network trained on {known}; the paper's own data (DBAASP) is not available offline."
    return Described(lambda objects: learnt(objects.cpu()), words)


def _function(path: Path, name: str) -> Callable[[list[str]], Sequence[float]]:
    spec = importlib.util.spec_from_file_location(f"headstart_reward_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput("is no Python file.", "Give FILE.py:FUNCTION.", file=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInput(f"cannot be run ({type(error).__name__}: {error}).", "Correct it.", file=path) from error
    function: Callable[[list[str]], Sequence[float]] | None = getattr(module, name, None)
    if not callable(function):
        named = [other for other, value in vars(module).items() if isinstance(value, FunctionType) and not other.startswith("_")]
        what = "is given without one of its functions." if name == str(path) else f"has no function '{name}'."
        there = f" It has: {', '.join(named[:8])}." if named else ""
        raise BadInput(what, f"{did_you_mean(name, named)}Give {path}:FUNCTION.{there}", file=path)
    return function


def _columns(file: Path) -> tuple[list[int], list[str], list[float]]:
    """The columns sequence and value of a table, with the line (or row) of each."""
    numbers, texts, values = [], [], []
    for number, row in records(file):
        try:
            texts.append(str(row["sequence"]))
            values.append(float(row["value"]))
        except (KeyError, TypeError, ValueError):
            mend = wrong_delimiter(file, row) or "The columns are sequence and value."
            raise BadInput("has no sequence with a number as its value.", mend, file=file, record=number) from None
        numbers.append(number)
    return numbers, texts, values
