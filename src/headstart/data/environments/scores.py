"""Rewards: what an object is worth, asked once for each distinct object, and counted. A reward is a function from objects to numbers of at least 0.

What is asked for and paid for is the number of *distinct* objects, whoever asks: a policy that drew them, or a predictor that only considers them.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.data import parquet
from headstart.data.environments.environment import Environment

logger = logging.getLogger(__name__)

DENSE = 2**26
"""Up to so many states the memory is one table; beyond, a dictionary."""
PATIENCE = 1000
"""After so many objects without any reward a person is warned."""


class Reward(Protocol):
    """float32 [n], each at least 0, of int64 [n, state_size]."""

    def __call__(self, objects: Tensor) -> Tensor: ...


class Scores:
    """A reward with a memory.

    Args:
        environment: of the objects.
        reward: called once with each distinct object.
        device: where the memory lies.
    """

    def __init__(self, environment: Environment, reward: Reward, device: torch.device | str = "cpu") -> None:
        self.environment, self.reward, self.device = environment, reward, torch.device(device)
        self.distinct = 0
        self._objects: list[Tensor] = []
        self._values: list[Tensor] = []
        self._dense = torch.full((environment.n_states,), math.nan, device=device) if environment.n_states <= DENSE else None
        self._known: dict[bytes, float] = {}

    def __call__(self, objects: Tensor) -> Tensor:
        """float32 [...]: the reward of each of [..., state_size]; new ones are asked for in the order in which they come.

        Raises:
            BadInput: the reward is negative, NaN or infinite; names the object.
        """
        flat = objects.reshape(-1, objects.shape[-1])
        found = self._from_table(flat) if self._dense is not None else self._from_dictionary(flat)
        return found.view(objects.shape[:-1])

    def seen(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """(objects [n, state_size], rewards [n]): the first `count` distinct ones, in the order in which they were asked for."""
        if not self._objects:
            nothing = torch.zeros(0, self.environment.state_size, dtype=torch.int64, device=self.device)
            return nothing, torch.zeros(0, device=self.device)
        objects, values = torch.cat(self._objects), torch.cat(self._values)
        self._objects, self._values = [objects], [values]
        return objects[:count], values[:count]

    def _from_table(self, flat: Tensor) -> Tensor:
        assert self._dense is not None
        keys = self.environment.keys(flat)
        unknown = self._dense[keys].isnan().nonzero()[:, 0]
        if len(unknown):
            first = _first_of_each(keys[unknown])
            new = flat[unknown[first]]
            self._dense[keys[unknown[first]]] = self._ask(new)
        return self._dense[keys]

    def _from_dictionary(self, flat: Tensor) -> Tensor:
        rows = flat.cpu().numpy()
        keys = [row.tobytes() for row in rows]
        first: dict[bytes, int] = {}
        for at, key in enumerate(keys):
            if key not in self._known:
                first.setdefault(key, at)
        once = list(first.values())
        if once:
            values = self._ask(flat[once]).tolist()
            self._known |= {keys[at]: value for at, value in zip(once, values, strict=True)}
        return torch.tensor([self._known[key] for key in keys], device=self.device)

    def _ask(self, objects: Tensor) -> Tensor:
        values = self.reward(objects).to(self.device, torch.float32)
        if values.shape != objects.shape[:1]:
            raise UsageError(f"The reward gave {list(values.shape)} numbers for {len(objects)} objects.", "It gives one number an object.")
        bad = ~(values.isfinite() & (values >= 0))
        if bool(bad.any()):
            at = int(bad.nonzero()[0, 0])
            what = f"The reward of {self.environment.to_text(objects[at : at + 1])[0]} is {float(values[at])}."
            raise BadInput(what, "A GFlowNet needs rewards that are finite and at least 0; exp(beta * score) is one.")
        before, self.distinct = self.distinct, self.distinct + len(objects)
        self._objects.append(objects)
        self._values.append(values)
        if before < PATIENCE <= self.distinct and float(self.seen()[1].max()) == 0:
            logger.warning("all of the first %s rewards are 0: nothing tells the objects apart", f"{self.distinct:,}")
        return values


def _first_of_each(keys: Tensor) -> Tensor:
    """int64: where each distinct key comes first, in order."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    return order[begins].sort().values


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
            return torch.as_tensor(np.asarray(function(texts), np.float32))
        except HeadstartError:
            raise
        except Exception as error:
            what = f"The reward of {len(texts):,} objects, the first {texts[0]}, ended with {type(error).__name__}: {error}."
            raise BadInput(what, "It takes a list of strings and gives as many numbers.") from error

    return reward


def read_reward(spec: str, environment: Environment) -> Reward:
    """A reward as a person names it.

    Args:
        spec: FILE.py:FUNCTION (strings in, numbers out); or a .csv or .parquet file with the columns sequence and value.

    Raises:
        BadInput: it cannot be read.
    """
    path, _, name = spec.partition(".py:")
    if name:
        return from_function(environment, _function(Path(f"{path}.py"), name))
    file = Path(spec)
    if not file.is_file():
        raise BadInput("does not exist.", "Give FILE.py:FUNCTION, or a table with the columns sequence and value.", file=file)
    texts, values = _columns(file)
    objects, known = environment.from_text(texts), dict[bytes, float]()
    for number, (key, text, value) in enumerate(zip((row.tobytes() for row in objects.numpy()), texts, values, strict=True), 1):
        if not 0 <= value < math.inf:
            mend = "A GFlowNet needs rewards that are finite and at least 0; exp(beta * score) is one."
            raise BadInput(f"gives {text} the value {value:g}.", mend, file=file, record=number)
        if known.setdefault(key, value) != value:
            raise BadInput(f"gives {text} two values, {known[key]:g} and {value:g}.", "Keep one of them, or their mean.", file=file, record=number)
    return Table(environment, objects, torch.tensor(values))


def _function(path: Path, name: str) -> Callable[[list[str]], Sequence[float]]:
    spec = importlib.util.spec_from_file_location(f"headstart_reward_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput("is no Python file.", "Give FILE.py:FUNCTION.", file=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"cannot be run ({type(error).__name__}: {error}).", "Correct it.", file=path) from error
    function: Callable[[list[str]], Sequence[float]] | None = getattr(module, name, None)
    if not callable(function):
        raise BadInput(f"has no function '{name}'.", "Give FILE.py:FUNCTION.", file=path)
    return function


def _columns(file: Path) -> tuple[list[str], list[float]]:
    """The columns sequence and value of a table."""
    if file.suffix == ".parquet":
        rows: list[dict[str, Any]] = list(parquet.rows(file, ["sequence", "value"]))
    else:
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
                rows, header = list(reader), list(reader.fieldnames or [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"is no table in UTF-8 ({error}).", "Save it as UTF-8, and quote fields that hold the separator.", file=file) from None
        if twice := [name for name in ("sequence", "value") if header.count(name) > 1]:
            raise BadInput(f"has two columns {twice[0]!r}.", "Rename the one that is not meant.", file=file)
    texts, values = [], []
    for number, row in enumerate(rows, 1):
        try:
            texts.append(str(row["sequence"]))
            values.append(float(row["value"]))
        except (KeyError, TypeError, ValueError):
            raise BadInput("has no sequence with a number as its value.", "The columns are sequence and value.", file=file, record=number) from None
    if not rows:
        raise BadInput("has no rows.", "The columns are sequence and value.", file=file)
    return texts, values
