"""The trainer: phases -> steps -> batches -> loss -> backward -> clip -> optimiser -> schedule -> log -> probe -> checkpoint."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core.errors import Diverged, Interrupted
from headstart.core.machine import writing
from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.engine import memory
from headstart.engine.checkpoint import Checkpointer
from headstart.engine.checkpoint_places import Owner
from headstart.engine.config import OptimizerConfig, TrainerConfig
from headstart.engine.device import DeviceBatches
from headstart.engine.ema import Ema
from headstart.engine.evaluation import evaluate
from headstart.engine.guard import Guard, Report
from headstart.engine.method import Batch, Method, Phase
from headstart.engine.metrics import Clock, MetricsLog, StepMetrics, gaps_of, live_line, memory_bytes, peak_memory_bytes
from headstart.engine.optim import build_optimizer, load_named_state, named_state, reset_moments, set_learning_rate
from headstart.engine.parallel import Parallel
from headstart.engine.parts import HeldOutPart, Meter, losses_line, measuring_steps
from headstart.engine.pictures import write_drawing
from headstart.engine.plateau import Plateau
from headstart.engine.samples import shown
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.spikes import Spikes
from headstart.engine.stopping import stop_signals
from headstart.engine.trial import Decisions, micro_starts, own_run, spans
from headstart.engine.update import Update, autocast


@dataclass
class Totals:
    """What a run cost."""

    steps: int
    tokens: int
    flops: int
    wall_s: float
    peak_memory_bytes: int
    executed_flops: int
    """With the products with weights that stay zero, which `flops` leaves out."""


class Trainer:
    """Trains one method into one run folder; started again, it continues from the newest checkpoint.

    Args:
        parallel: the method on the ranks of the run; None: on one process.
        loader, held_out: batches to train on, and rows to evaluate on (None: no evaluation).
        decisions: steps, micro-batch, precision ... of this machine (`engine.trial`).
        probes: name -> a measurement of the live method, run after each evaluation.
        parts: held-out text whose losses are measured apart.
        say: gets each line for the person.
        live: gets the line of every log step; None: `say` gets one every few seconds.
    """

    def __init__(
        self,
        method: Method,
        run: RunFolder,
        loader: Loader,
        *,
        held_out: list[Batch] | None,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        config: TrainerConfig,
        decisions: Decisions,
        device: torch.device,
        seed: int,
        plateau: Plateau | None = None,
        probes: dict[str, Callable[[Method], float]] | None = None,
        parts: Sequence[HeldOutPart] = (),
        say: Callable[[str], None] = print,
        live: Callable[[str], None] | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.method = method
        self.parallel = parallel or Parallel(method)
        self.ranks = self.parallel.ranks
        self.run = run
        self.loader = loader
        self.held_out = held_out
        self.config = config
        self.learning_rate = optimizer.learning_rate
        self.schedule = schedule
        self.decisions = decisions
        self.device = device
        self.seed = seed
        self.plateau = plateau
        self.probes = probes or {}
        self.say = say
        self.live = live
        self.total_steps = decisions.total_steps
        steps = measuring_steps(self.total_steps, self.evaluate_every, config.evaluate_at) if parts else frozenset()
        whole = frozenset((0, self.total_steps, *config.evaluate_at))
        self.meter = Meter(parts, steps, whole, config.part_rows, decisions.micro_batch, decisions.precision, device, seed, self.total_steps)
        self.spans = spans(method.phases(self.total_steps), self.total_steps)
        self.optimizer = build_optimizer(method, optimizer, cuda_graph=decisions.cuda_graph)
        self.ema = Ema(method, config.ema_decay) if config.ema_decay is not None else None
        self.guard = Guard(device, config.on_nonfinite, config.max_skipped)
        self.spikes = Spikes()
        self.update = Update(
            method,
            self.optimizer,
            clip_norm=optimizer.clip_norm,
            clip_each=optimizer.clip_each,
            precision=decisions.precision,
            device=device,
            seed=seed,
            total_steps=self.total_steps,
            parallel=self.parallel,
            guard=self.guard,
            graph=decisions.cuda_graph,
        )
        self.checkpointer = Checkpointer(
            self.checkpoint_folder,
            config.keep_checkpoints,
            keep_every=config.keep_every,
            ranks=self.ranks,
            scratch=run.checkpoints,
            owner=Owner(run.info["id"], str(run.folder), self.total_steps, decisions.precision),
            committed=lambda step: run.note_checkpoint(step, self.checkpoint_folder),
        )
        self.step = 0
        self._first = 0  # of the run of its own that `step` belongs to
        self.wall_s = 0.0
        self.tokens = 0
        self.flops = method.begin_flops
        self.stop_requested = threading.Event()
        self._starts = micro_starts(loader.global_batch, decisions.micro_batch, self.ranks)
        self._positions = [torch.arange(start, start + decisions.micro_batch, device=device) for start in self._starts]

    def fit(self) -> Totals:
        """Trains to the end of the budget, or to `stop_at`.

        Raises:
            Interrupted: a signal of `engine.stopping` came; the step was finished and a checkpoint written.
            Diverged: the loss or the gradient is no longer a finite number.
        """
        self.restore()
        stopping_signals = stop_signals(self.stop_requested, self.ranks)
        with self.memory_explained(), closing(self.checkpointer), self.batches() as batches, stopping_signals as vote, self.open_log() as log:
            for phase, start, stop in self.spans:
                stop = min(stop, self.last_step)
                if stop <= self.step:
                    continue
                self.enter(phase, first=self.step == start)
                if self.step == 0:
                    self.measure_parts(log, phase)
                while self.step < stop:
                    self.advance(batches, phase)
                    if self.due(self.config.log_every):
                        self.log(log, batches.waited)
                    if self.due(self.evaluate_every):
                        self.evaluate(log, phase)
                    self.measure_parts(log, phase)
                    stopping = vote(self.stop_requested.is_set())
                    if self.due(self.checkpoint_every) or stopping or self.step == self.last_step:
                        self.save()
                    if stopping and self.step < self.total_steps:
                        raise Interrupted(
                            f"Stopped after step {self.step} of {self.total_steps}; a checkpoint is written.", "The same command continues."
                        )
        return self.totals()

    def advance(self, batches: DeviceBatches, phase: Phase) -> None:
        """One update."""
        step = self.step - self._first
        set_learning_rate(self.optimizer, self.rate(self.step))
        scalars = self.update(next(batches), self._positions, step, phase.name)
        self.step += 1
        self.count(phase, scalars)

    # --- the parts of a step -------------------------------------------------------------------------------------------------------------------

    def enter(self, phase: Phase, *, first: bool) -> None:
        """Begins a phase, or continues it after a restart (then without its `on_start`)."""
        self.refuse_divergence(self.guard.peek())  # while the weights are still those of the step
        self.parallel.reshard()
        for name, parameter in self.method.named_parameters():
            parameter.requires_grad_(phase.trainable is None or phase.trainable(name))
        if first and phase.on_start is not None:
            with nullcontext() if self.ema is None else self.ema.following():
                phase.on_start()
        if first and (phase.fresh_optimizer or phase.restarts):
            reset_moments(self.optimizer)
        self._first, self.update.total_steps = own_run(self.spans, self.step)
        if len(self.spans) > 1:
            self.say(f"step {self.step}: phase '{phase.name}'")
        self.parallel.enter(unused_parameters=self.decisions.unused_parameters.get(phase.name, True))
        self.method.train()
        self._phase_name = phase.name

    def count(self, phase: Phase, scalars: dict[str, Tensor]) -> None:
        left_out = self.guard.found_inf if self.guard.policy == "skip" else None
        self._metrics.add(scalars, left_out)
        if self.ema is not None:
            self.ema.update(left_out)
        self.flops += self.decisions.flops_per_step[phase.name]
        self.tokens += self.loader.global_batch * self.loader.tokens_per_row

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        first, length = own_run(self.spans, step, schedule=True)
        of_phase = next((phase.rate for phase, start, stop in self.spans if start <= step < stop), 1.0)
        own = self.method.learning_rate(step - first, length, self.learning_rate)
        return of_phase * (self.learning_rate * multiplier(step - first, length, self.schedule) if own is None else own)

    @property
    def executed_flops(self) -> int:
        """FLOPs so far with the products with weights that stay zero, which `flops` leaves out."""
        done = ((phase.name, max(0, min(stop, self.step) - start)) for phase, start, stop in self.spans)
        return self.flops + sum(steps * (self.decisions.executed(name) - self.decisions.flops_per_step[name]) for name, steps in done)

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total_steps

    @property
    def last_step(self) -> int:
        """Where this call ends: the end of the budget, or before it."""
        return min(self.total_steps, self.config.stop_at or self.total_steps)

    @property
    def checkpoint_folder(self) -> str:
        return self.config.checkpoint_folder or str(self.run.checkpoints)

    @property
    def evaluate_every(self) -> int:
        return self.config.evaluate_every or max(1, self.total_steps // 20)

    @property
    def checkpoint_every(self) -> int:
        if self.config.checkpoint_every:
            return self.config.checkpoint_every
        five_minutes = 300 / max(1e-6, max(self.decisions.seconds_per_step.values()))
        return max(1, min(self.total_steps // 4, int(five_minutes)))

    def log(self, log: MetricsLog, waited: float) -> None:
        values = self._metrics.means()
        wall = self.wall_s + time.perf_counter() - self._started
        self._clock.mark(self.tokens, waited)
        speed, waiting = self._clock.rates()
        record: dict[str, Any] = {"step": self.step, "tokens": self.tokens, "flops": self.flops, "wall_s": round(wall, 3), **values}
        record |= {"learning_rate": self.rate(self.step - 1), "phase": self._phase_name}
        if self.decisions.executed_flops_per_step:
            record["executed_flops"] = self.executed_flops
        seen = self.guard.report()
        if seen.skipped:
            record["skipped"] = seen.skipped
        spike = self.spikes.note(self.step, values["loss"], self._phase_name)
        if spike is not None:
            record["spike"] = True
        mfu = (
            speed
            * self.decisions.executed(self._phase_name)
            / (self.loader.global_batch * self.loader.tokens_per_row)
            / (self.decisions.peak_flops * self.ranks.world)
        )
        log.write(
            record | {"tokens_per_second": round(speed, 1), "mfu": round(mfu, 4), "data_wait_share": round(waiting, 5)},
            live_line(
                self.step,
                self.total_steps,
                values,
                tokens_per_second=speed,
                mfu=mfu,
                waiting=waiting,
                memory=memory_bytes(self.device),
                left=self.seconds_left(speed),
                unit=self.loader.unit,
            ),
            last=self.step == self.total_steps,
        )
        self.refuse_divergence(seen)
        if seen.skipped:
            self.say(
                f"WARNING: {seen.skipped} of the updates before step {self.step:,} left out: loss or gradient was no finite number"
                f" ({seen.skipped_in_all} in all; more than {self.guard.max_skipped} end the run)."
            )
        if spike is not None:
            self.say(f"WARNING: {spike} {self.calmer()}")
        if self.plateau is not None and self.plateau.note(self.step, values):
            self.say(self.plateau.left_line())

    def refuse_divergence(self, seen: Report) -> None:
        """Raises Diverged when the guard's policy says that the run must end. Until then nothing changes the weights, and nothing is saved."""
        if not self.guard.exhausted(seen):
            return
        if self.guard.policy == "skip":
            what = f"{seen.skipped_in_all} updates until step {self.step:,} were left out because loss or gradient was no finite number"
            raise Diverged(f"{what}; --trainer.max-skipped allows {self.guard.max_skipped}.", self.calmer())
        assert seen.first_bad is not None
        step = self._first + seen.first_bad + 1
        place = self.examine(step - 1, self._phase_name)[0] or "none when it was repeated: the norm of finite gradients overflowed"
        raise Diverged(
            f"Loss or gradient is no finite number at step {step:,}. The first module that made one: {place}.",
            f"{self.calmer()} To look at it: headstart replay {self.run.folder} --step {step}. To leave such steps out: --trainer.on-nonfinite skip.",
        )

    def window_means(self) -> dict[str, float] | None:
        """The means since the last log step, where this is one."""
        return self._metrics.means() if self.due(self.config.log_every) else None

    def examine(self, step: int, phase: str) -> tuple[str | None, dict[str, float]]:
        """`Update.examine` on the rows of a step (counted from 0), on all ranks: what any of them found, and the step's scalars."""
        feed = self.feed(step, step + 1)
        try:
            found, scalars = self.update.examine(next(feed), self._positions, step - self._first, phase)
        finally:
            feed.close()
        everywhere = [place for place in self.ranks.gather(found) if place is not None]
        return (everywhere[0] if everywhere else None), {name: float(value) for name, value in scalars.items()}

    def calmer(self) -> str:
        """What to do about a loss that jumped or broke, and where the weights before now are kept."""
        self.checkpointer.wait()
        kept = self.checkpointer.list()
        before = f"The checkpoint before it is step {kept[-1]:,}." if kept else "There is no checkpoint before it."
        return f"Lower --optimizer.learning-rate or lengthen the warm-up, in another --out. {before}"

    def seconds_left(self, tokens_per_second: float) -> float:
        if tokens_per_second:
            return (self.total_steps - self.step) * self.loader.global_batch * self.loader.tokens_per_row / tokens_per_second
        return sum(self.decisions.seconds_per_step[p.name] * max(0, stop - max(start, self.step)) for p, start, stop in self.spans)

    def evaluate(self, log: MetricsLog, phase: Phase) -> dict[str, float]:
        """Held-out metrics and probes, with dropout off and the same draws every time."""
        with self.averaged_weights():
            results = evaluate(self.method, self.held_out or [], phase.name, self.decisions.precision, self.device, self.seed, self.total_steps)
            if broken := [name for name, value in results.items() if name.endswith("loss") and not math.isfinite(value)]:
                raise Diverged(f"No finite number at step {self.step:,}: {', '.join(broken)}.", self.calmer())
            self.method.eval()
            with torch.no_grad(), autocast(self.device, self.decisions.precision):
                results |= {name: probe(self.method) for name, probe in self.probes.items()}
            self.method.train()
        for name, value in results.items():
            log.probe(self.step, name, value)
        if results and self.due(max(self.evaluate_every, self.total_steps // 5)):
            shown = "  ".join(f"{name.removeprefix('held_out/')} {value:.4g}" for name, value in results.items())
            self.say(f"  held out at step {self.step}: {shown}")
            self.show_samples(phase)
        if self.step - self.evaluate_every < self.total_steps / 10 <= self.step < self.total_steps:  # once, while budget is left
            for warning in self.method.early_warnings():
                self.say(f"WARNING: {warning}")
        return results

    def measure_parts(self, log: MetricsLog, phase: Phase) -> None:
        """The held-out loss of each named part, where this is a step for it."""
        if self.step not in self.meter.steps:
            return
        with self.averaged_weights():
            found = self.meter.measure(self.method, self.step, phase.name)
        for name, value in found.items():
            log.probe(self.step, name, value)
        if self.step == 0 or self.due(max(self.evaluate_every, self.total_steps // 5)):
            self.say(losses_line(self.step, found))

    def show_samples(self, phase: Phase) -> None:
        """Held-out rows as the method shows them, for a person to look at: lines of two, one of them said now, all kept in samples.jsonl; pictures of
        some more."""
        if not self.held_out:
            return
        with self.averaged_weights():
            lines, first, drawings = shown(
                self.method, self.held_out, phase.name, self.decisions.precision, self.device, self.seed, self.total_steps
            )
        if lines:
            self.run.append("samples", {"step": self.step, "lines": lines})
            for line in first:
                self.say(f"    {line[:200]}")
        for drawing in drawings if self.run.writes else ():
            write_drawing(self.run.folder, self.step, drawing)

    # --- state ------------------------------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"method": self.method.state_dict(), "optimizer": named_state(self.optimizer)}
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        if self.plateau is not None:
            state["plateau"] = self.plateau.state_dict()
        wall = self.wall_s + time.perf_counter() - self._started
        state |= {"metrics": self._metrics.state_dict(), "guard": self.guard.state_dict(), "spikes": self.spikes.state_dict()}
        return state | {"step": self.step, "tokens": self.tokens, "flops": self.flops, "wall_s": wall}

    def save(self) -> None:
        self.refuse_divergence(self.guard.peek())  # what the next log step would find
        self.run.sync()
        with writing(self.run.checkpoints / f"step-{self.step:08d}"):
            self.checkpointer.save(self.step, self.state(), export=self.export)

    def export(self, folder: Path) -> None:
        """The usable model of this moment, written by the first rank; every rank must come here."""
        with self.averaged_weights(), self.parallel.whole():
            if self.ranks.first:
                self.method.export(folder)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """While it lasts, the method is as one looks at it: with its averaged weights, if there are any, and run plainly where it was compiled, since
        evaluations, probes and samples each have a shape and mode of their own, and compiling those costs a minute each."""
        self.parallel.reshard()
        plainly = torch.compiler.set_stance("force_eager") if self.decisions.compile else nullcontext()
        with plainly, nullcontext() if self.ema is None else self.ema.swapped():
            yield
            self.parallel.reshard()

    def prepare_state(self) -> None:
        """Starts the clocks and the running means."""
        self._started = time.perf_counter()
        self._metrics = StepMetrics()
        self._clock = Clock()

    def restore(self) -> None:
        """Continues from the newest whole checkpoint, if there is one."""
        self.prepare_state()
        self.parallel.reshard()
        found = self.checkpointer.load_newest(self.say, self.named_tensors())
        if found is None:
            self.run.cut(0)
            return
        self.load_state(*found)
        kept = self.run.cut(self.step)
        self.run.update(resumed_at=self.step)
        self.run.note_checkpoint(self.step, self.checkpoint_folder)
        self.say(f"Continuing from step {self.step} of {self.total_steps}.")
        if kept is not None and (gaps := gaps_of(kept, self.config.log_every, self.step)):
            self.say(f"WARNING: metrics.jsonl lacks the lines {gaps}: they were deleted or damaged, and are not made again.")

    def named_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint's tensors are cut like, by their names in it."""
        return {**dict(self.method.named_parameters()), **dict(self.method.named_buffers())}

    def load_state(self, step: int, state: dict[str, Any]) -> None:
        """Takes the state of a checkpoint; nothing of the run folder changes."""
        self.step = step
        self.method.load_state_dict(state["method"])
        load_named_state(self.optimizer, state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        self._metrics.load_state_dict(state["metrics"], self.device)
        if "guard" in state:  # not in checkpoints of format 1
            self.guard.load_state_dict(state["guard"])
            self.spikes.load_state_dict(state["spikes"])
        self.tokens, self.flops, self.wall_s = state["tokens"], state["flops"], state["wall_s"]

    def totals(self) -> Totals:
        wall = self.wall_s + time.perf_counter() - self._started
        return Totals(self.step, self.tokens, self.flops, wall, peak_memory_bytes(self.device), self.executed_flops)

    # --- surroundings --------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def batches(self, last: int | None = None) -> Iterator[DeviceBatches]:
        """The micro-batches of each step from here to `last` (exclusive; None: the end), made ahead of time in a thread."""
        last = self.total_steps if last is None else last
        feed = self.feed(self.step, last)
        try:
            yield feed
        finally:
            feed.close()

    def feed(self, first: int, last: int) -> DeviceBatches:
        """The micro-batches of the steps `first`..`last` (exclusive) on the device; a phase that restarts begins with the first rows again."""
        rows_of = lambda step: step - own_run(self.spans, step)[0]  # noqa: E731
        return DeviceBatches(self.loader, first, last, self._starts, self.decisions.micro_batch, self.device, rows_of)

    @contextmanager
    def open_log(self) -> Iterator[MetricsLog]:
        plateau = None if self.plateau is None else (self.plateau.metric, self.plateau.entropy)
        show, seconds = (self.say, 5.0) if self.live is None else (self.live, 0.0)
        log = MetricsLog(self.run, show, seconds, plateau, self.say, self.config.trackers)
        try:
            yield log
        finally:
            log.close()

    def memory_explained(self) -> AbstractContextManager[None]:
        """Turns running out of memory into our error, with what a row of this method holds."""
        rows = self.decisions.micro_batch
        if self.ranks.world > 1:  # the measuring forward pass may talk to ranks that still train
            return memory.explained(self.device, rows)
        load, phase = self.loader.batch, self.spans[-1][0].name
        return memory.explained(self.device, rows, lambda: memory.held_by_rows(self.method, load, phase, 1, self.device, self.seed, self.ranks))
