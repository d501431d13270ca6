"""What a short trial of the real step decides before step 1: precision, micro-batch, FLOPs and seconds a step, and so the number of steps.

The trial trains for a moment, then puts the weights back. What it decided is recorded in run.json and reused on resume, so a resumed run computes
the same numbers. On several processes all run the trial in step, and the first one's clock decides.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor

from headstart.core import hardware
from headstart.core.config import checked
from headstart.core.errors import BadInput, MachineError, UsageError
from headstart.core.progress import Reporter
from headstart.core.rng import Rng
from headstart.core.words import first_line
from headstart.engine import memory
from headstart.engine.budget import Budget, steps_within
from headstart.engine.distributed import Ranks
from headstart.engine.flops import count_flops
from headstart.engine.method import Batch, Context, Method, Phase
from headstart.engine.optim import OptimizerConfig, build_optimizer, set_learning_rate
from headstart.engine.parallel import Mode, Parallel
from headstart.engine.update import GRAPH_AFTER, AskedPrecision, Precision, Update

COMPILE_SECONDS = 90.0  # measured: 40 to 110 s on few cores (docs/performance.md)
COMPILE_GAIN = 1.2  # at least this much faster in every large model measured: what is hoped for before it is tried
COMPILE_MUST = 1.03  # what it must bring where it was tried
GRAPH_MAX_PARAMETERS = 60_000_000  # below this a step is bound by kernel launches


@dataclass
class Decisions:
    """How a run runs on this machine; recorded in run.json."""

    total_steps: int
    precision: Precision
    micro_batch: int
    threads: int
    compile: bool
    cuda_graph: bool
    flops_per_step: dict[str, int]
    """Phase -> training FLOPs of one update of the global batch; products with weights that stay zero do not count."""
    seconds_per_step: dict[str, float]
    """Phase -> measured seconds of one update."""
    peak_flops: float
    """FLOP/s of a large matrix product here, in the chosen precision."""
    why: dict[str, str]
    """What each decision was based on."""
    world: int = 1
    """Processes of the run; with another number what depends on it is decided anew."""
    parallel: Mode = "ddp"
    """How they train as one; without meaning on one process."""
    unused_parameters: dict[str, bool] = field(default_factory=dict)
    """Phase -> whether some parameters that may learn get no gradient in it."""
    executed_flops_per_step: dict[str, int] = field(default_factory=dict)
    """Phase -> the FLOPs with those products, which dense kernels execute; only of phases in which the two differ."""

    def executed(self, phase: str) -> int:
        """FLOPs that an update of this phase executes on a machine that does not skip zeros."""
        return self.executed_flops_per_step.get(phase, self.flops_per_step[phase])


def spans(phases: Sequence[Phase], total_steps: int) -> list[tuple[Phase, int, int]]:
    """(phase, first step, step after the last) of each phase that has steps; the phase without a length takes what is left.

    Raises:
        UsageError: the phases do not fit the run.
    """
    fixed = sum(phase.steps for phase in phases if phase.steps is not None)
    open_phases = [phase for phase in phases if phase.steps is None]
    if len(open_phases) != 1:
        what = f"A method needs exactly one phase without a fixed length; here are {len(open_phases)}."
        raise UsageError(what, "Give each of the others its `steps`.")
    if fixed >= total_steps:
        lengths = ", ".join(f"{phase.name} {phase.steps}" for phase in phases if phase.steps is not None)
        raise UsageError(
            f"The run has {total_steps} steps, but its first phases alone take {fixed} ({lengths}).", "Give a larger budget or shorter phases."
        )
    result, start = [], 0
    for phase in phases:
        stop = start + (total_steps - fixed if phase.steps is None else phase.steps)
        if stop > start:
            result.append((phase, start, stop))
        start = stop
    return result


def own_run(phases: Sequence[tuple[Phase, int, int]], step: int, *, schedule: bool = False) -> tuple[int, int]:
    """(first step, length) of the run that `step` (counted from 0) belongs to: the whole, or where phases restart, from such a phase to the next.
    With `schedule` the same of the learning rate's schedule, which a phase may begin anew alone."""
    starts = [start for number, (phase, start, _) in enumerate(phases) if number == 0 or phase.restarts or (schedule and phase.fresh_schedule)]
    first = max(start for start in starts if start <= step)
    return first, min([start for start in starts if start > step], default=phases[-1][2]) - first


def total_cost(method: Method, total_steps: int, per_step: dict[str, float]) -> float:
    """The cost of a run of `total_steps`, given the cost of a step in each phase."""
    try:
        return sum((stop - start) * per_step[phase.name] for phase, start, stop in spans(method.phases(total_steps), total_steps))
    except UsageError:  # so short that its phases do not fit: it costs what its dearest phase costs
        return total_steps * max(per_step.values())


def micro_starts(global_batch: int, micro_batch: int, ranks: Ranks) -> range:
    """The first row of each micro-batch of this process: in micro-step m the ranks have neighbouring rows, which together are what one process with a
    micro-batch of `world * micro_batch` would have."""
    return range(ranks.rank * micro_batch, global_batch, ranks.world * micro_batch)


class Trial:
    """Runs a few updates of each phase on real rows and measures them.

    Args:
        parallel: the method on the ranks of the run; None: on one process.
        global_batch: rows of one update, over all ranks.
        say: called with a line before what takes minutes.
        load: rows start..stop of the global batch of a step, on the CPU.
        tokens_per_row: for budgets in tokens.
    """

    def __init__(
        self,
        method: Method,
        optimizer: OptimizerConfig,
        *,
        global_batch: int,
        load: Callable[[int, int, int], Batch],
        device: torch.device,
        seed: int,
        tokens_per_row: int,
        seconds: float = 0.5,
        parallel: Parallel | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.method = method
        self.parallel = parallel or Parallel(method)
        self.ranks = self.parallel.ranks
        self.say = say
        self.optimizer = optimizer
        self.global_batch = global_batch
        self.load = load
        self.device = device
        self.seed = seed
        self.tokens_per_row = tokens_per_row
        self.seconds = seconds
        self.progress = Reporter("time the steps of this run", unit="updates")

    def decide(
        self,
        budget: Budget,
        *,
        precision: AskedPrecision = "auto",
        micro_batch: int | None = None,
        compile: Literal["auto", "on", "off"] = "auto",
        cuda_graph: Literal["auto", "on", "off"] = "auto",
    ) -> Decisions:
        """Everything that the budget and this machine decide. The method's weights are the same afterwards."""
        world = self.ranks.world
        if self.global_batch % world:
            raise UsageError(f"The global batch of {self.global_batch} rows cannot be shared by {world} processes.", "Give a multiple as --batch.")
        per_row = (lambda: self._held_bytes(self.last_phase, 1)) if world == 1 else None  # its forward pass may talk to the other ranks
        explained = memory.explained(self.device, micro_batch or min(self.share, 4), per_row)
        with self.progress, explained, self.parallel.unchanged():
            decisions = self._decide(budget, precision, micro_batch, compile, cuda_graph)
        self.method.zero_grad(set_to_none=True)
        decisions = self.ranks.broadcast(decisions)
        torch.set_num_threads(decisions.threads)
        return decisions

    def _decide(self, budget: Budget, precision: AskedPrecision, micro_batch: int | None, compile: str, cuda_graph: str) -> Decisions:
        unit = budget.unit()
        why: dict[str, str] = {"micro_batch": "asked for"}
        names = list(dict.fromkeys(phase.name for phase in self.method.phases(1 << 30)))
        last_phase = self.last_phase
        flops, executed, self.unused = {}, {}, {}
        for name in names:
            executed[name], skipped, self.unused[name] = self._count(name, min(micro_batch or 4, 4, self.share))
            flops[name] = executed[name] - skipped
        if micro_batch is None:
            micro_batch, why["micro_batch"] = self._fit_memory(last_phase)
        if self.share % micro_batch:
            raise UsageError(
                f"The micro-batch {micro_batch} does not divide the global batch {self.global_batch}"
                + (f" shared by {self.ranks.world} processes." if self.ranks.world > 1 else "."),
                "Give another --trainer.micro-batch.",
            )
        why["threads"] = self._choose_threads(micro_batch, last_phase)
        chosen, why["precision"] = self._choose_precision(precision, micro_batch, last_phase)
        parameters = sum(p.numel() for p in self.method.parameters())
        graph, why["cuda_graph"] = captured(cuda_graph, self.device, self.ranks.world, self.optimizer.fused, parameters)
        seconds = {name: self._time(name, micro_batch, chosen, graph) for name in names}
        total = self._steps(budget, unit, flops, seconds)
        plain = total_cost(self.method, total, seconds)
        compiled, why["compile"] = worth_trying(compile, self.device, plain)
        if compiled:
            tried, why["compile"] = self._compiled(names, micro_batch, chosen, graph, asked=compile == "on")
            gain = 0.0 if tried is None else plain / total_cost(self.method, total, tried)
            compiled = self.ranks.broadcast(compile == "on" or gain > COMPILE_MUST)
            if tried is not None:
                why["compile"] += f": a step takes {1e3 * tried[last_phase]:.3g} ms, and {1e3 * seconds[last_phase]:.3g} plainly"
            if compiled and tried is not None:
                seconds = tried
                total = self._steps(budget, unit, flops, seconds)  # a budget in minutes has room for more of them
        return Decisions(
            total_steps=total,
            precision=chosen,
            micro_batch=micro_batch,
            threads=torch.get_num_threads(),
            compile=compiled,
            cuda_graph=graph,
            flops_per_step=flops,
            seconds_per_step=seconds,
            peak_flops=hardware.matmul_flops(self.device.type, torch.bfloat16 if chosen == "bf16" else torch.float32, seconds=0.15),
            why=why,
            world=self.ranks.world,
            parallel="fsdp" if self.parallel.sharded else "ddp",
            unused_parameters=self.unused,
            executed_flops_per_step={name: count for name, count in executed.items() if count != flops[name]},
        )

    @property
    def share(self) -> int:
        """Rows of the global batch that one process trains on."""
        return self.global_batch // self.ranks.world

    @property
    def last_phase(self) -> str:
        """The phase that takes most of the run."""
        return next(phase.name for phase in self.method.phases(1 << 30) if phase.steps is None)

    def _steps(self, budget: Budget, unit: str, flops: dict[str, int], seconds: dict[str, float]) -> int:
        if budget.steps is not None:
            return budget.steps
        if budget.tokens is not None:
            return max(1, budget.tokens // (self.global_batch * self.tokens_per_row))
        if budget.flops is not None:
            if self.method.begin_flops >= budget.flops:
                what = f"The first weights took {self.method.begin_flops:.3g} FLOPs, the budget has {budget.flops:.3g}: no step is left."
                raise UsageError(what, "Give a larger --budget.flops, or fewer contexts to read.")
            return steps_within(budget.flops - self.method.begin_flops, lambda n: total_cost(self.method, n, {k: float(v) for k, v in flops.items()}))
        assert budget.minutes is not None, unit
        return steps_within(budget.minutes * 60, lambda n: total_cost(self.method, n, seconds))

    def _micro_batches(self, step: int, micro_batch: int) -> tuple[list[Batch], list[Tensor]]:
        batches, rows = [], []
        for start in micro_starts(self.global_batch, micro_batch, self.ranks):
            batch = self.load(step, start, start + micro_batch)
            batches.append({name: value.to(self.device) for name, value in batch.items()})
            rows.append(torch.arange(start, start + micro_batch, device=self.device))
        return batches, rows

    def _update(self, precision: Precision, graph: bool = False) -> Update:
        optimizer = build_optimizer(self.method, self.optimizer, cuda_graph=graph)
        set_learning_rate(optimizer, 1e-6)
        return Update(
            self.method,
            optimizer,
            clip_norm=self.optimizer.clip_norm,
            clip_each=self.optimizer.clip_each,
            precision=precision,
            device=self.device,
            seed=self.seed,
            total_steps=1 << 30,
            parallel=self.parallel,
            graph=graph,
        )

    def _time(self, phase: str, micro_batch: int, precision: Precision, graph: bool = False) -> float:
        """Seconds of one update, batches already on the device: the lower quartile, since other processes only ever add to it."""
        self.method.train()
        self.parallel.enter(unused_parameters=self.unused[phase])
        update = self._update(precision, graph)
        batches, rows = self._micro_batches(0, micro_batch)
        warm_up = GRAPH_AFTER + 2 if graph else 1  # lazy initialisation, and the capture
        times: list[float] = []
        started = time.perf_counter()
        while self.ranks.broadcast(len(times) < warm_up + 3 or time.perf_counter() < started + self.seconds):
            start = time.perf_counter()
            update(batches, rows, len(times), phase)
            self._wait()
            times.append(time.perf_counter() - start)
            if self.ranks.first:
                self.progress.advance()
            if len(times) == warm_up:
                started = time.perf_counter()
            if self.ranks.broadcast(sum(times[warm_up:]) > 10 * self.seconds):  # a step of seconds is measured well by one; the first may compile
                break
        measured = sorted(times[warm_up:])
        return measured[len(measured) // 4]

    def _compiled(
        self, phases: Sequence[str], micro_batch: int, precision: Precision, graph: bool, asked: bool
    ) -> tuple[dict[str, float] | None, str]:
        """(Phase -> seconds of an update with the compiled method, how long compiling took). The method is plain again afterwards; compiled once more
        it finds the kernels there.

        Args:
            asked: what cannot be compiled is an error; otherwise there are no seconds, and the words say why.
        """
        self.say("Compiling, to see what it brings: this takes a minute or two.")
        began = time.perf_counter()
        self.method.compile_parts()
        try:
            tried = {name: self._time(name, micro_batch, precision, graph) for name in phases}
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's own, its code generator's, that of a C++ compiler that is not there
            what = f"torch.compile fails here ({first_line(error)})"
            if asked:
                raise MachineError(what, "Leave out --trainer.compile on.") from error
            return None, what
        finally:
            self.method.plain_parts()
        return tried, f"compiled and timed in {time.perf_counter() - began:.0f} s"

    def _count(self, phase: str, rows: int) -> tuple[int, int, bool]:
        """(FLOPs that one update of the global batch executes, those of products with weights that stay zero, whether parameters were left without a
        gradient). From a few rows, since they grow with the rows."""
        batch = {name: value.to(self.device) for name, value in self.load(0, 0, rows).items()}
        context = Context(0, 1 << 30, phase, Rng.at(self.seed, 0, torch.arange(rows, device=self.device)), self.device, ranks=self.ranks)

        def work() -> None:
            for _ in range(self.method.passes(phase)):
                self.method.loss(batch, context)["loss"].backward()

        self.method.zero_grad(set_to_none=True)
        with self.method.skipped_flops(phase) as skipped:
            counted = count_flops(work)
        unused = any(p.grad is None for p in self.method.parameters() if p.requires_grad)
        self.method.zero_grad(set_to_none=True)
        return round(counted / rows * self.global_batch), round(skipped() / rows * self.global_batch), unused

    def _choose_threads(self, micro_batch: int, phase: str) -> str:
        """Leaves torch with all its threads or with one, whichever is faster now: on a busy machine threads that wait for each other cost more than
        they bring."""
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1:
            return "as torch found them"
        many = self._time(phase, micro_batch, "fp32")
        torch.set_num_threads(1)
        one = self._time(phase, micro_batch, "fp32")
        if self.ranks.broadcast(one > 0.9 * many):
            torch.set_num_threads(threads)
        return f"a step took {many * 1e3:.0f} ms with {threads} and {one * 1e3:.0f} ms with 1"

    def _choose_precision(self, wanted: AskedPrecision, micro_batch: int, phase: str) -> tuple[Precision, str]:
        if wanted == "fp8":
            limits = ", which a CPU computes exactly but slowly" if self.device.type == "cpu" else ""
            return "bf16", f"asked for, with products of dense layers in fp8{limits}"
        if wanted != "auto":
            return wanted, "asked for"
        if self.device.type == "cuda":
            return ("bf16", "bf16 on a GPU") if torch.cuda.is_bf16_supported() else ("fp32", "this GPU has no bf16")
        slow, fast = self._time(phase, micro_batch, "fp32"), self._time(phase, micro_batch, "bf16")
        reason = f"a step took {slow * 1e3:.0f} ms in fp32 and {fast * 1e3:.0f} ms in bf16"
        return self.ranks.broadcast(("bf16" if fast < 0.95 * slow else "fp32", reason))

    def _fit_memory(self, phase: str) -> tuple[int, str]:
        """The largest divisor of this process's rows that fits: found by trying on one GPU, by extrapolating the growth of one small micro-batch on a
        CPU and on several processes (where one that runs out of memory would leave the others waiting).
        """
        divisors = [d for d in range(self.share, 0, -1) if self.share % d == 0]
        if self.device.type != "cuda" or self.ranks.world > 1:
            small = min(self.share, 4)
            free = memory.free_bytes(self.device) / (1 if self.device.type == "cuda" else self.ranks.local_world)
            per_row = max(1.0, self._held_bytes(phase, small) / small)
            limit = memory.PLENTY_OF_MEMORY * free / per_row
            fit = min(self.ranks.gather(next((d for d in divisors if d <= limit), 1)))
            return fit, f"about {per_row / 2**20:.0f} MiB a row, {free / 2**30:.1f} GiB free"
        largest = memory.largest_that_fits(divisors, lambda rows: self._share_held(phase, rows))
        if largest is None:
            raise MachineError("Not even one row fits into the memory of this device.", "Take a smaller --preset or shorter rows.")
        return largest, "the largest that fitted" if largest < self.global_batch else "the whole batch fitted"

    def _held_bytes(self, phase: str, rows: int) -> float:
        return memory.held_by_rows(self.method, self.load, phase, rows, self.device, self.seed, self.ranks)

    def _share_held(self, phase: str, rows: int) -> float:
        """Makes two updates of so many rows; the share that the second held, at its peak, of the GPU's memory that was free for it. In the first the
        optimiser's moments come only after the backward pass gave its memory back."""
        self.method.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(self.device)
        room = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device) - before
        update = self._update("bf16" if torch.cuda.is_bf16_supported() else "fp32")
        batch = {name: value.to(self.device) for name, value in self.load(0, 0, rows).items()}
        for step in range(2):
            torch.cuda.reset_peak_memory_stats(self.device)
            update([batch], [torch.arange(rows, device=self.device)], step, phase)
        self._wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / room

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def worth_trying(asked: str, device: torch.device, seconds: float) -> tuple[bool, str]:
    """Whether a run of so many seconds should see what compiling brings, and what that is based on.

    Args:
        asked: auto, on or off.
    """
    if asked != "auto":
        return asked == "on", "asked for" if asked == "on" else "left out as asked"
    if device.type != "cuda":
        return False, "measured no gain that repays it on a CPU"
    saves = seconds * (1 - 1 / COMPILE_GAIN)
    return saves > 2 * COMPILE_SECONDS, f"would save about {saves:.0f} s of {seconds / 60:.1f} min and cost about {COMPILE_SECONDS:.0f} s"


def captured(asked: str, device: torch.device, world: int, fused: bool | None, parameters: int) -> tuple[bool, str]:
    """Whether a run captures its updates as CUDA graphs, and what that is based on.

    Args:
        asked: auto, on or off; fused: `OptimizerConfig.fused`.
    """
    if device.type != "cuda":
        return False, "only on a GPU"
    if world > 1:
        return False, "only on one process"
    if fused is False:
        return False, "only with the optimiser's fused kernels: without them the host asks whether to make the update"
    return asked == "on" or (asked == "auto" and parameters <= GRAPH_MAX_PARAMETERS), f"{parameters / 1e6:.1f} M parameters"


def decisions_from(recorded: Any, file: Path) -> Decisions:
    """What run.json recorded, for a resumed run.

    Raises:
        BadInput: it is not what a trial decides.
    """
    hints = get_type_hints(Decisions)
    try:
        if not isinstance(recorded, dict):
            raise UsageError("decisions: not a mapping.")
        decisions = Decisions(**{name: checked(recorded[name], hints[name], f"decisions: {name}") for name in hints if name in recorded})
        if min(decisions.total_steps, decisions.micro_batch, decisions.threads, decisions.world) < 1:
            raise UsageError("decisions: a count below 1.")
    except (UsageError, TypeError) as error:
        mend = "Start again in another --out; the exports of its checkpoints stay usable."
        raise BadInput(f"its record of the trial is damaged ({error}).", mend, file=file) from None
    return decisions
