"""Rewards: what an object is worth, asked once for each distinct object, and counted. A reward is a function from objects to numbers of at least 0.

What is asked for and paid for is the number of *distinct* objects, whoever asks: a policy that drew them, or a predictor that only considers them.
"""

from __future__ import annotations

import logging
import math
from typing import Protocol

import torch
from torch import Tensor

from headstart.core.errors import BadInput, UsageError
from headstart.core.words import plural
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
        said = self.reward(objects)
        if said.shape != objects.shape[:1]:
            given = plural(len(said), "number") if said.dim() == 1 else f"numbers of shape {list(said.shape)}" if said.dim() else "no list"
            raise UsageError(f"The reward gave {given} for {plural(len(objects), 'object')}.", "It gives one number an object.")
        values = said.to(self.device, torch.float32)
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
