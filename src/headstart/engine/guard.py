"""Numbers that are not finite: the weights never take them up, and the module that made the first one is named.

A loss or gradient that is NaN or infinite makes the update of that step a no-op, decided on the device: the fused kernels read one flag
(`optim.step_unless`), so that no step waits for the host. The host learns of it at the next log step. Until then

- policy "stop": no further update changes the weights either, so they are exactly those before the bad step, which can be repeated with every
  module watched (`first_nonfinite`);
- policy "skip": only the bad step is left out, and counted.

What it costs: five kernels on scalars a step; one read of 24 bytes a log step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from headstart.engine.distributed import local

Policy: TypeAlias = Literal["stop", "skip"]

_FIRST, _SKIPPED = 0, 1  # places in Guard._seen
_NEVER = -1


@dataclass(frozen=True)
class Report:
    """What a guard has seen."""

    first_bad: int | None
    """The first step (counted from 0) whose loss or gradient was not finite."""
    skipped: int
    """Updates left out since the last report."""
    skipped_in_all: int
    """Updates left out since the run began."""


class Guard:
    """Watches the loss and the gradient norm of every update, on the device.

    Args:
        policy: "stop" keeps the weights from the first bad step on; "skip" leaves bad steps out.
        max_skipped: a run with "skip" gives up when more steps than this were left out (`exhausted`).
    """

    def __init__(self, device: torch.device, policy: Policy, max_skipped: int) -> None:
        self.policy = policy
        self.max_skipped = max_skipped
        self.found_inf = torch.zeros((), device=device)
        """float32 scalar, 1 when the present update must not touch the weights; always this tensor, so a captured CUDA graph may hold it."""
        self._seen = torch.tensor([_NEVER, 0], dtype=torch.int64, device=device)
        self._reported = 0

    @torch.no_grad()
    def watch(self, loss: Tensor, norm: Tensor, step: Tensor) -> Tensor:
        """Looks at one update before the optimiser makes it.

        Args:
            loss, norm: scalars on the device; of the global batch, so that every rank decides alike.
            step: int64 scalar on the device, counted from 0.

        Returns:
            `found_inf`. Nothing here waits for the device.
        """
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        first, skipped = self._seen.unbind()
        first.copy_(torch.where(bad & (first == _NEVER), step, first))
        if self.policy == "stop":
            self.found_inf.copy_(first != _NEVER)
        else:
            self.found_inf.copy_(bad)
            skipped.add_(bad)
        return self.found_inf

    def report(self) -> Report:
        """What was seen; the next report counts skipped updates from here. The host waits for the device here and in `peek`, nowhere else."""
        report = self.peek()
        self._reported = report.skipped_in_all
        return report

    def peek(self) -> Report:
        """What was seen since the last report, which goes on."""
        first, skipped = self._seen.tolist()
        return Report(None if first == _NEVER else first, skipped - self._reported, skipped)

    def exhausted(self, report: Report) -> bool:
        """Whether the run must end."""
        return report.first_bad is not None if self.policy == "stop" else report.skipped_in_all > self.max_skipped

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen, "reported": self._reported}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen.copy_(state["seen"])
        if self.policy == "stop":  # the run skipped bad steps until now: its weights are sound
            self._seen[_FIRST] = _NEVER
        self._reported = state["reported"]


def first_nonfinite(method: nn.Module, step: Callable[[], Tensor]) -> str | None:
    """Runs one step with every module watched and names the first that makes a number that is not finite out of finite ones.

    Args:
        method: its modules are watched; compiled ones run plainly meanwhile.
        step: the forward and backward passes of the step, without the optimiser's; returns the loss.

    Returns:
        for example "layers.3.mlp (output: 12 of 4096 values NaN)"; None when everything is finite. Infinities in masks
        (inputs that need no gradient) are no fault. The gradients of the step stay in the parameters.
    """
    watch = _Watch(method)
    with watch.attached(), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says of each module whether its hooks can fire: not where data goes in or a dictionary comes out
        loss = step()
    if watch.found is not None:
        return watch.found
    if what := _nonfinite(loss):
        return f"the loss, computed from finite outputs of every module ({what})"
    return watch.unclear


class _Watch:
    """Hooks that note where the first number that is not finite came from. Forward passes come before backward ones, so the first note is the one."""

    def __init__(self, method: nn.Module) -> None:
        self.method = method
        self.found: str | None = None
        self.unclear: str | None = None  # a gradient that was already broken when it reached the modules
        self._clean: set[str] = set()  # modules whose outputs got a finite gradient

    @contextmanager
    def attached(self) -> Iterator[None]:
        handles: list[Any] = []
        owner = {id(parameter): name for name, module in self.method.named_modules() for parameter in module.parameters(recurse=False)}
        try:
            for name, module in self.method.named_modules():
                handles.append(module.register_forward_hook(self._forward(name), with_kwargs=True))
                handles.append(module.register_full_backward_pre_hook(self._reached(name)))
                handles.append(module.register_full_backward_hook(self._backward(name)))
            for name, parameter in self.method.named_parameters():
                if parameter.requires_grad:
                    handles.append(parameter.register_hook(self._gradient(name, owner[id(parameter)])))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, name: str, what: str) -> None:
        if self.found is None and self.unclear is None:
            self.found = f"{name or type(self.method).__name__} ({what})"

    def _forward(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.found is not None or not (what := _nonfinite(output)):
                return
            given = list(_tensors([args, kwargs]))
            if _nonfinite([tensor for tensor in given if tensor.requires_grad]):
                return  # made by the code between modules: the module around it is named when its own output comes
            if any(bool(torch.isnan(tensor).any()) for tensor in given):  # what needs no gradient is data, or a mask, which may hold infinities
                self._note("the data", f"where it reaches {name}")
                return
            for own, parameter in module.named_parameters(recurse=False):
                if broken := _nonfinite(parameter):
                    what = f"its {own}: {broken}"
                    break
            else:
                what = f"output: {what}"
            self._note(name, what)

        return hook

    def _reached(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, grad_output: Any) -> None:
            if not (what := _nonfinite(grad_output)):
                self._clean.add(name)
                return
            inside = next((above for above in _ancestors(name) if above in self._clean), None)
            if inside is not None:  # the code of this one, between its parts
                self._note(inside, f"its gradient where it reaches {name}: {what}")
            elif self.found is None and self.unclear is None:
                self.unclear = f"the loss: its gradient where it reaches {name or type(self.method).__name__} ({what})"

        return hook

    def _backward(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
            if what := _nonfinite(grad_input):  # were it broken before, that was noted when it reached this module
                self._note(name, f"gradient of its input: {what}")

        return hook

    def _gradient(self, name: str, owner: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if what := _nonfinite(gradient):
                self._note(owner, f"gradient of its {name.removeprefix(owner + '.')}: {what}")

        return hook


def _ancestors(name: str) -> Iterator[str]:
    """The modules around a module, innermost first."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _nonfinite(value: Any) -> str:
    """What is not finite in the tensors of a nested value: "12 of 4096 values NaN"; "" when all is finite. Host reads: for diagnosis only."""
    for tensor in _tensors(value):
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
            continue
        nan, infinite = int(torch.isnan(tensor).sum()), int(torch.isinf(tensor).sum())
        parts = [f"{count} of {tensor.numel()} values {kind}" for count, kind in ((nan, "NaN"), (infinite, "infinite")) if count]
        return ", ".join(parts)
    return ""


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield local(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
