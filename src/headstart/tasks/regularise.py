"""Fine-tuning that stays near the model it begins with: what self-distillation is compared with. Its specification names these regularisers; the
formulas are those of their authors' code.

- recadam (Chen et al. 2020; Sanyuan-Chen/RecAdam, RecAdam.py): the loss counts more and more, a pull to the first weights less and less.
- mars (Gouk et al. 2021; henrygouk/mars-finetuning, lipschitz.py): after each update every row of a matrix is within a distance of where it began.
- r3f (Aghajanyan et al. 2020; facebookresearch/fairseq, examples/rxf): a little noise on the word embeddings must not change the answer.

The first two hold the pre-trained weights alone; a new head is trained as always, and so is a random start, which has nothing to keep.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import UsageError
from headstart.tasks.config import FinetuneConfig, RegulariserConfig
from headstart.tasks.image_config import ImageFinetuneConfig

AnyConfig = TypeVar("AnyConfig", FinetuneConfig, ImageFinetuneConfig)


def annealed(step: int, k: float, t0: float) -> float:
    """RecAdam's lambda(t) = 1 / (1 + exp(-k (t - t0))), the weight of the task's loss; t is counted from 1."""
    return 1 / (1 + math.exp(min(-k * (step - t0), 700.0)))


def away_from(weight: Tensor, start: Tensor, radius: float) -> Tensor:
    """The weights [rows, ...] with each row's difference from `start` scaled so that its absolute values sum to `radius` at most (MARS)."""
    moved = weight - start
    norms = moved.abs().flatten(1).sum(1).view(-1, *[1] * (moved.ndim - 1))
    return start + moved / (norms / radius).clamp(min=1)


def symmetric_kl(noised: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || noised) + KL(noised || clean) of logits [batch, classes], float32, summed over the batch."""
    p, q = (F.log_softmax(logits.float(), -1) for logits in (noised, clean))
    return F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(q, p, reduction="sum", log_target=True)


@contextmanager
def noised_embeddings(module: nn.Module, size: float) -> Iterator[None]:
    """Inside, a network's word embeddings have uniform noise of -size to size added, and get no gradient (as in fairseq)."""

    def add(embedding: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.detach() + torch.empty_like(output).uniform_(-size, size)

    handle = module.get_input_embeddings().register_forward_hook(add)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def refuse_without_classes(config: RegulariserConfig, task: str) -> None:
    """Raises UsageError for r3f on a task whose answer is no class of a text."""
    if config.name == "r3f" and task != "classification":
        raise UsageError(f"r3f compares the probabilities of classes, which {task} has none of.", "Give --regulariser.name recadam or mars.")


def for_random_start(config: AnyConfig) -> AnyConfig:
    """The settings of an arm that begins with random weights: there is nothing to stay near to."""
    if config.regulariser.name in ("recadam", "mars"):
        return dataclasses.replace(config, regulariser=RegulariserConfig())
    return config


class Regulariser:
    """What a training does beside its loss. Made when the network has its first weights, before the first step.

    Args:
        encoder: the pre-trained part.
        optimizer: as built; its groups are cut in two for `recadam`, pre-trained weights and others.
        learning_rate: the peak.

    Raises:
        UsageError: a rate that would pull weights past where they began.
    """

    def __init__(self, config: RegulariserConfig, encoder: nn.Module, optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        self.config, self.optimizer, self.done = config, optimizer, 0
        held = {"recadam": list(encoder.parameters()), "mars": rows_of(encoder)}.get(config.name, [])
        self.start = {parameter: parameter.detach().clone() for parameter in held if parameter.requires_grad}
        if config.name == "recadam":
            if learning_rate * config.gamma > 1:
                raise UsageError(
                    f"RecAdam's pull is {learning_rate * config.gamma:g} a step (learning rate x gamma): weights would go past where they began.",
                    f"Lower --regulariser.gamma to {1 / learning_rate:g} or less; the paper: 5000 at a learning rate of 2e-5.",
                )
            self._cut_groups()

    def _cut_groups(self) -> None:
        """Groups of pre-trained weights, whose decay is left to `step`, and groups of the others."""
        found = []
        for group in self.optimizer.param_groups:
            for held in (True, False):
                if chosen := [parameter for parameter in group["params"] if (parameter in self.start) == held]:
                    decay = group["weight_decay"] if held else 0.0
                    found.append({**group, "params": chosen, "held": held, "decay": decay, "weight_decay": 0.0 if held else group["weight_decay"]})
        self.optimizer.param_groups[:] = found

    @property
    def noisy(self) -> bool:
        """Whether the loss has a `divergence`."""
        return self.config.name == "r3f"

    def divergence(self, network: nn.Module, answer: Callable[[], Tensor], clean: Tensor) -> Tensor:
        """R3F's term, summed over the batch.

        Args:
            network: that has the word embeddings.
            answer: computes the logits once more.
            clean: [batch, classes], the logits without noise.
        """
        with noised_embeddings(network, self.config.noise):
            return self.config.weight * symmetric_kl(answer(), clean)

    @torch.no_grad()
    def step(self) -> None:
        """The optimiser's step, and what keeps the weights near."""
        self.done += 1
        if self.config.name == "recadam":
            self._recall()
            return
        self.optimizer.step()
        if self.config.name == "mars":
            for parameter, start in self.start.items():
                parameter.copy_(away_from(parameter, start, self.config.radius))

    def _recall(self) -> None:
        """Adam's step times lambda, then - rate (1 - lambda) gamma (w - w0), then decay: in this order, as in RecAdam.step."""
        share = annealed(self.done, self.config.k, self.config.t0)
        held = [(group, group["lr"]) for group in self.optimizer.param_groups if group["held"]]
        for group, rate in held:
            group["lr"] = rate * share
        self.optimizer.step()
        for group, rate in held:
            group["lr"] = rate
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.sub_((parameter - self.start[parameter]) * (rate * (1 - share) * self.config.gamma))
                parameter.sub_(parameter * (rate * group["decay"]))


def rows_of(encoder: nn.Module) -> list[nn.Parameter]:
    """The weights of dense and convolutional layers, whose first axis is that of their outputs."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {id(module.weight) for module in encoder.modules() if isinstance(module, kinds)}
    return [parameter for parameter in encoder.parameters() if id(parameter) in weights]
