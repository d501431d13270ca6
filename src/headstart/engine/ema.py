"""An exponential moving average of the weights: evaluate and export the average, train the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.engine.distributed import local


class Ema:
    """The average theta' = decay * theta' + (1 - decay) * theta of all parameters; buffers are the model's own.

    `update` is one multi-tensor kernel on the device. The model's tensors keep their addresses: a captured CUDA graph stays valid through `swapped`.

    Args:
        model: its parameters, shared ones once, are the first value of the average.
        decay: share of the old average that stays at each update; 0.999 averages over about 1000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"The decay of the weight average is {decay}.", "Give a number from 0 up to, but not, 1; 0.999 is common.")
        self.decay = decay
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = [parameter for _, parameter in model.named_parameters()]
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, left_out: Tensor | None = None) -> None:
        """Takes the present weights into the average; not where `left_out` (float32 scalar on the device) is 1: that update was not made."""
        averages = [local(average) for average in self.average]
        if left_out is None:
            torch._foreach_lerp_(averages, self._own(), 1.0 - self.decay)
            return
        change = torch._foreach_sub(self._own(), averages)
        torch._foreach_mul_(change, (1.0 - self.decay) * (1 - left_out))
        torch._foreach_add_(averages, change)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Parameters that the block replaces (a phase copies weights into place) begin their average anew, with what was put there."""
        before = [own.clone() for own in self._own()]
        yield
        for average, own, old in zip(self.average, self._own(), before, strict=True):
            if not torch.equal(own, old):
                local(average).copy_(own)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the block the model computes with the average; after it, also after an error, with its own weights again."""
        own = [tensor.clone() for tensor in self._own()]
        self._write([local(average) for average in self.average])
        try:
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """{"decay", "average": {name: tensor}}."""
        return {"decay": self.decay, "average": dict(zip(self.names, self.average, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the averages of a saved state.

        Raises:
            UsageError: the state belongs to another model.
        """
        average = state["average"]
        if set(average) != set(self.names):
            different = sorted(set(average) ^ set(self.names))
            raise UsageError(f"The saved weight average belongs to another model: {different[0]} is on one side only.", "Start a new run.")
        for tensor, name in zip(self.average, self.names, strict=True):
            tensor.copy_(average[name])

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._own(), values)

    def _own(self) -> list[Tensor]:
        """The model's weights; of cut ones this process's parts."""
        return [local(parameter.detach()) for parameter in self.parameters]
