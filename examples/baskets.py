"""An environment of your own, for `headstart pretrain oc_gfn --data examples/baskets.py`: three of eight ingredients, added in any order.

    headstart pretrain oc_gfn --data examples/baskets.py --budget.steps 500 --out runs/baskets
    headstart adapt runs/baskets --reward examples/baskets.py:sweetness --calls 40
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from headstart.core.errors import BadInput
from headstart.data.environments.environment import Environment

NAMES = ("apple", "basil", "cocoa", "dill", "egg", "fig", "ginger", "honey")
CHOSEN = 3


class Baskets(Environment):
    """A state says of every ingredient whether it is in (1) or not (0); action i adds ingredient i; with three the basket is done."""

    name = "baskets"
    sizes = (2,) * len(NAMES)
    n_actions = len(NAMES)
    max_steps = CHOSEN
    tree = False  # the same basket comes about in six ways
    n_objects = 56

    def valid(self, states: Tensor) -> Tensor:
        return states == 0

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        after = states.scatter(-1, actions[..., None], 1)
        return after, after.sum(-1) == CHOSEN

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        return (states <= outcomes).all(-1)

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        return states == 1

    def draw(self, numbers: Tensor) -> Tensor:
        return self.objects().to(numbers.device)[(numbers[..., 0] * self.n_objects).long()]

    def objects(self) -> Tensor:
        rows = [[int(i in basket) for i in range(len(NAMES))] for basket in combinations(range(len(NAMES)), CHOSEN)]
        return torch.tensor(sorted(rows))

    def to_text(self, objects: Tensor) -> list[str]:
        return ["+".join(name for name, chosen in zip(NAMES, row, strict=True) if chosen) for row in objects.tolist()]

    def from_text(self, texts: Sequence[str]) -> Tensor:
        for number, text in enumerate(texts, 1):
            if len(set(parts := text.split("+")) & set(NAMES)) != CHOSEN or len(parts) != CHOSEN:
                raise BadInput(f"'{text}' is no basket.", f"Name {CHOSEN} of {', '.join(NAMES)}, with + between them.", record=number)
        return torch.tensor([[int(name in text.split("+")) for name in NAMES] for text in texts]).view(-1, len(NAMES))


def sweetness(baskets: list[str]) -> list[float]:
    """A reward: how many letters of the basket are vowels, squared."""
    return [sum(letter in "aeiou" for letter in basket) ** 2 for basket in baskets]
