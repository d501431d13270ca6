"""One optimiser update: micro-steps -> loss -> backward (once more at other weights) -> clip -> optimiser. Plain, or replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.profiler import record_function

from headstart.core.rng import Rng, mix_int, step_key
from headstart.engine.distributed import local
from headstart.engine.guard import Guard, first_nonfinite
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import clip_gradients, step_unless
from headstart.engine.parallel import Parallel

Precision: TypeAlias = Literal["fp32", "bf16"]
AskedPrecision: TypeAlias = Literal["auto", "fp32", "bf16", "fp8"]
"""Of a run. fp8 is bf16 whose dense layers multiply in 8-bit floating point, which is theirs to do (`core.float8`)."""
GRAPH_AFTER = 3  # real updates before a capture: lazy initialisations must be over
OWN_WEIGHT = "weight/"
FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"
"""The parts of an update by which `headstart profile` splits its time; naming them costs a few microseconds a step."""
MAX_GRAPHS = 4  # of a phase, one per shapes of the batch; beyond that the batch varies too much and runs plainly


class AsksPrecision(Protocol):
    """Settings that leave the precision to the machine, or name it."""

    precision: Literal["auto", "fp32", "bf16"]


def precision_of(config: AsksPrecision, device: torch.device) -> Precision:
    """What `auto` means on this device: bf16 on a GPU that has it, fp32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bf16 autocast, or nothing. Parameters and their gradients stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def seed_dropout(device: torch.device, seed: int, step: int, micro_step: int, rank: int) -> None:
    """Seeds the generators of library modules (dropout) per (seed, step, micro-step, rank): equal for equal layouts only.

    As `torch.manual_seed` does; but that also seeds the kinds of device that are not there, and notes for each the stack of the call: .6 ms a step.
    """
    number = mix_int(mix_int(mix_int(seed) ^ step) ^ ((micro_step << 20) | rank)) >> 1
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


class Update:
    """The update of one step, as a call.

    The loss is the mean over the whole global batch however it is cut over micro-batches and ranks, if the method says over how many items each
    micro-batch's mean is: as "weight" beside its loss, or by `Method.items` where the loss sums several means. Without either, micro-batches count by
    their rows. A scalar that is a mean over other items than the loss (the recall of a detector) has their number beside it as "weight/NAME".

    Args:
        parallel: the method on the ranks of the run; None: on one process.
        guard: leaves updates out whose loss or gradient is no finite number; None: every update is made.
        graph: capture the update as one CUDA graph per phase and batch shape; only on one process.

    Attributes:
        total_steps: what a method's loss is told of the length of its run; a phase that restarts has one of its own.
    """

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float | None,
        precision: Precision,
        device: torch.device,
        seed: int,
        total_steps: int,
        parallel: Parallel | None = None,
        guard: Guard | None = None,
        graph: bool = False,
        clip_each: bool = False,
    ) -> None:
        self.method = method
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.clip_each = clip_each
        self.precision = precision
        self.device = device
        self.seed = seed
        self.total_steps = total_steps
        self.parallel = parallel or Parallel(method)
        self.ranks = self.parallel.ranks
        self.guard = guard
        self.graph = graph
        self.key = torch.zeros((), dtype=torch.int64, device=device)
        self.at = torch.zeros((), dtype=torch.int64, device=device)
        self._observed = [] if guard is None else method.observed()
        self._graphs: dict[Any, _Graph] = {}
        self._seen: dict[Any, int] = {}
        self._captured: tuple[str, int] | None = None  # the phase, and the length of its run, that the graphs are of

    def __call__(self, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> dict[str, Tensor]:
        """Trains on the micro-batches of this step.

        Args:
            batches: one per micro-step, on the device.
            rows: int64 [rows of the micro-batch] each, their positions in the global batch.

        Returns:
            means of the scalars of `method.loss` over the global batch, and "gradient_norm" before clipping; on the device.
        """
        self._begin(step)
        if not self.graph:
            return self._run(batches, rows, step, phase)
        if self._captured != (phase, self.total_steps):  # no step of an earlier phase comes again: its graphs would only hold memory
            self._captured = phase, self.total_steps
            self._graphs.clear()
            self._seen.clear()
        signature = tuple(tuple((name, value.shape, value.dtype) for name, value in sorted(batch.items())) for batch in batches)
        self._seen[signature] = self._seen.get(signature, 0) + 1
        if signature not in self._graphs:
            if self._seen[signature] <= GRAPH_AFTER or len(self._graphs) == MAX_GRAPHS:
                return self._run(batches, rows, step, phase)
            self._graphs[signature] = _Graph(self, batches, rows, step, phase)
        return self._graphs[signature].replay(batches)

    def examine(self, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> tuple[str | None, dict[str, Tensor]]:
        """Repeats a step without its update. Returns the first module that makes a number that is not finite, or None, and the step's scalars."""
        self._begin(step)
        scalars: dict[str, Tensor] = {}

        def run() -> Tensor:
            of_all, own = self._gradients(batches, rows, step, phase)
            scalars.update(of_all)
            return torch.stack(own)

        return first_nonfinite(self.method, run), scalars

    def _begin(self, step: int) -> None:
        self.key.fill_(step_key(self.seed, step))
        self.at.fill_(step)
        if self.graph:  # once an update: inside a graph nothing can be seeded, and its first updates run plainly
            seed_dropout(self.device, self.seed, step, 0, 0)

    def context(self, step: int, phase: str, rows: Tensor) -> Context:
        return Context(step, self.total_steps, phase, Rng(self.key, rows), self.device, ranks=self.ranks, at=self.at)

    @torch.no_grad()
    def _shares(self, batches: Sequence[Batch], contexts: Sequence[Context]) -> list[dict[str, Tensor]] | None:
        """Of each micro-batch, its share of each kind of items; None where the loss is one mean, or the batch is not cut."""
        if len(batches) == self.ranks.world == 1:
            return None
        items = [self.method.items(batch, context) for batch, context in zip(batches, contexts, strict=True)]
        counted = [of_one for of_one in items if of_one is not None]
        if not counted:
            return None
        sums = torch.stack([torch.stack([of_one[name].float() for of_one in counted]).sum() for name in counted[0]])
        totals = dict(zip(counted[0], self.ranks.sum(sums).clamp(min=1), strict=True))
        return [{name: of_one[name] / totals[name] for name in totals} for of_one in counted]

    def _run(self, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> dict[str, Tensor]:
        scalars, _ = self._gradients(batches, rows, step, phase)
        left_out = None
        with record_function(OPTIMIZER):
            if self.guard is None:
                self.optimizer.step()
            else:
                left_out = self.guard.watch(scalars["loss"], scalars["gradient_norm"], self.at)
                step_unless(self.optimizer, left_out)
            self.method.edit_update(self.optimizer, phase)
        self._observe(scalars, left_out)
        return scalars

    @torch.no_grad()
    def _observe(self, scalars: dict[str, Tensor], left_out: Tensor | None) -> None:
        before = [buffer.clone() for buffer in self._observed]
        self.method.observe(scalars)
        if left_out is not None:
            for buffer, kept in zip(self._observed, before, strict=True):
                buffer.copy_(torch.where(left_out.bool(), kept, buffer))

    def _gradients(self, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Fills the gradients, clipped. Returns the step's scalars over the global batch, and this process's loss of each micro-step."""
        scalars, losses = self._pass(batches, rows, step, phase)
        if (elsewhere := self.method.elsewhere(phase)) is not None:
            with elsewhere:
                self.parallel.reshard()
                there, _ = self._pass(batches, rows, step, phase)
            self.parallel.reshard()
            scalars["rise"] = there["loss"] - scalars["loss"]
        with record_function(OPTIMIZER):
            self.method.edit_gradients(phase)
            norm = clip_gradients(self._parameters, self.clip_norm, self.clip_each)
        return {**scalars, "gradient_norm": norm}, losses

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _pass(self, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Fills the gradients of the global batch at the weights as they are. Returns its scalars, and this process's loss of each micro-step."""
        self.optimizer.zero_grad(set_to_none=True)
        world = self.ranks.world
        n_rows = sum(len(r) for r in rows) * world
        whole = len(batches) == world == 1
        parts: list[dict[str, Tensor]] = []
        weights: list[Tensor | float] = []  # what each micro-batch's means count; they sum to `total` over all ranks
        own_weights: list[dict[str, Tensor]] = []  # of scalars that are means over something else
        contexts = [self.context(step, phase, positions) for positions in rows]
        shares = self._shares(batches, contexts)
        for micro_step, (batch, context) in enumerate(zip(batches, contexts, strict=True)):
            if not self.graph:
                seed_dropout(self.device, self.seed, step, micro_step, self.ranks.rank)
            with self.parallel.micro_step(last=micro_step == len(batches) - 1):
                with record_function(FORWARD), autocast(self.device, self.precision):
                    scalars = dict(self.parallel.loss(batch, context if shares is None else replace(context, shares=shares[micro_step])))
                weight: Tensor | float = len(rows[micro_step]) / n_rows
                if shares is not None:
                    weight = 1.0
                elif (items := scalars.pop("weight", None)) is not None and not whole:
                    weight = items.detach()
                with record_function(BACKWARD):
                    (scalars["loss"] * (weight * world)).backward()  # the ranks' gradients are averaged: the product makes a sum of it
            parts.append({name: value.detach() for name, value in scalars.items() if not name.startswith(OWN_WEIGHT)})
            own_weights.append({name: value.detach().float() for name, value in scalars.items() if name.startswith(OWN_WEIGHT)})
            weights.append(weight)
        means, total = (parts[0], None) if whole else self._means(parts, weights, own_weights)
        if total is not None:
            torch._foreach_div_([local(p.grad) for p in self._parameters if p.grad is not None], total)
        return dict(means), [part["loss"] for part in parts]

    def _means(
        self, parts: list[dict[str, Tensor]], weights: list[Tensor | float], own_weights: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The scalars' means over the global batch, and what the weights sum to (None where that is 1)."""
        counted = isinstance(weights[0], Tensor)
        sums: dict[str, Tensor] = {}
        for name in parts[0]:
            counts = [own.get(OWN_WEIGHT + name, weight) for own, weight in zip(own_weights, weights, strict=True)]
            sums[name] = torch.stack([part[name] * count for part, count in zip(parts, counts, strict=True)]).sum()
        for name in own_weights[0]:
            sums[name] = torch.stack([own[name] for own in own_weights]).sum()
        if counted:
            sums["weight"] = torch.stack([torch.as_tensor(weight) for weight in weights]).sum()
        if self.ranks.world > 1:  # one message, whatever the number of scalars
            summed = self.ranks.sum(torch.stack([value.float() for value in sums.values()]))
            sums = dict(zip(sums, summed, strict=True))
        total = sums.pop("weight").clamp(min=1) if counted else None
        own_totals = {name: sums.pop(name).clamp(min=1) for name in own_weights[0]}
        means = {}
        for name, value in sums.items():
            divisor = own_totals.get(OWN_WEIGHT + name, total)
            means[name] = value if divisor is None else value / divisor
        return means, total


class _Graph:
    """A captured update with its own input buffers. Nothing of it refers back to the update: with the last reference its memory goes."""

    def __init__(self, update: Update, batches: Sequence[Batch], rows: Sequence[Tensor], step: int, phase: str) -> None:
        self.batches = [{name: value.clone() for name, value in batch.items()} for batch in batches]
        self.rows = [r.clone() for r in rows]
        update.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize(update.device)
        self.graph = torch.cuda.CUDAGraph()
        # One pool for the graphs of an update: never two of them run at once, and what one gives is copied before the next. The thread that loads
        # batches pins memory meanwhile, which the usual mode of capturing would refuse.
        pool = next((other.graph.pool() for other in update._graphs.values()), None)
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            scalars = update._run(self.batches, self.rows, step, phase)
            self.values = torch.stack([value.float().reshape(()) for value in scalars.values()])
        self.names = list(scalars)

    def replay(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        for mine, given in zip(self.batches, batches, strict=True):
            for name, value in given.items():
                mine[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))
