"""Metrics of a run: metrics.jsonl, TensorBoard, trackers, and the live line. Values stay on the device until a log step asks for all at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import psutil
import torch
from torch import Tensor

from headstart.core import hardware
from headstart.core.run import RunFolder
from headstart.engine.tensorboard import EventFile
from headstart.engine.trackers import Sink, Tracker, open_trackers

PLATEAU = "unigram_entropy"
SHOWN_GAPS = 3


class StepMetrics:
    """Running means of the scalars that `Method.loss` returns, on the device. Adding costs one fused kernel a step and no synchronisation."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._count: int | Tensor = 0

    def add(self, scalars: dict[str, Tensor], left_out: Tensor | None = None) -> None:
        """Takes in the scalars of a step; not where `left_out` (float32 scalar on the device) is 1."""
        values = torch.stack([value.detach().float().reshape(()) for value in scalars.values()])
        count: int | Tensor = 1
        if left_out is not None:
            values, count = torch.where(left_out.bool(), 0.0, values), 1 - left_out
        if list(scalars) != self._names:  # a new phase logs other scalars
            self._names, self._sum, self._count = list(scalars), None, 0
        self._sum = values if self._sum is None else self._sum + values
        self._count = self._count + count

    def means(self) -> dict[str, float]:
        """The means since the last call; here and in `peek` the host waits for the device, nowhere else."""
        values = self.peek()
        self._sum, self._count = None, 0
        return values

    def peek(self) -> dict[str, float]:
        """The means since the last call of `means`, which go on."""
        return {} if self._sum is None else dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"names": self._names, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._names = list(state["names"])
        self._count = state["count"].to(device) if isinstance(state["count"], Tensor) else state["count"]
        self._sum = None if state["sum"] is None else state["sum"].to(device)


class Clock:
    """Speed over a sliding window of log steps, and the share of time spent waiting for data."""

    def __init__(self, window: int = 20) -> None:
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=window)

    def mark(self, tokens: int, waited: float) -> None:
        self._marks.append((time.perf_counter(), tokens, waited))

    def rates(self) -> tuple[float, float]:
        """(tokens/s, share of time waiting for data) over the window; zeros before the second mark."""
        if len(self._marks) < 2:
            return 0.0, 0.0
        (t0, n0, w0), (t1, n1, w1) = self._marks[0], self._marks[-1]
        seconds = max(t1 - t0, 1e-9)
        return (n1 - n0) / seconds, min(1.0, (w1 - w0) / seconds)


def gaps_of(kept: set[int], every: int, step: int) -> str:
    """In words, which of the lines due every so many steps up to `step` are not among those `kept`; "" if all are there."""
    bounds = [0, *(due for due in range(every, step + 1, every) if due in kept), step - step % every + every]
    gaps = [f"after step {before:,} up to step {after - every:,}" for before, after in pairwise(bounds) if after - before > every]
    more = f" and {len(gaps) - SHOWN_GAPS:,} further gaps" if len(gaps) > SHOWN_GAPS else ""
    return ", ".join(gaps[:SHOWN_GAPS]) + more


def memory_bytes(device: torch.device) -> int:
    """Memory in use now: the device's allocations on a GPU, the process's resident set on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: the device's allocations on a GPU, the resident set on a CPU (0 where the system does not say)."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else hardware.peak_resident_bytes() or 0


class MetricsLog:
    """Writes each log step to metrics.jsonl, TensorBoard and trackers, and shows it.

    Args:
        run: the run folder.
        show: gets the text of the live line.
        every_seconds: at most one shown line in this many seconds.
        plateau: (metric, unigram entropy): TensorBoard draws both in one chart.
        say: gets other lines for the person.
        trackers: further services that get the same values.
    """

    def __init__(
        self,
        run: RunFolder,
        show: Callable[[str], None],
        every_seconds: float = 5.0,
        plateau: tuple[str, float] | None = None,
        say: Callable[[str], None] = print,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.run = run
        self._show = show
        self._every = every_seconds
        self._shown = 0.0
        self._plateau = plateau
        self._sinks: list[Sink] = []
        if run.writes:
            board = EventFile(run.folder / "tb", run.info.get("resumed_at"), say)
            if plateau is not None:
                board.draw_together([plateau[0], PLATEAU], f"{plateau[0]} and its plateau")
            self._sinks = [board, *open_trackers(trackers, run, say)]

    def write(self, record: dict[str, Any], line: str, *, last: bool = False) -> None:
        self.run.append("metrics", record)
        step = record["step"]
        values = {name: float(value) for name, value in record.items() if name != "step" and isinstance(value, int | float)}
        self._add(values if self._plateau is None else {**values, PLATEAU: self._plateau[1]}, step)
        if last or time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self._show(line)

    def probe(self, step: int, name: str, value: float) -> None:
        self.run.append("probes", {"step": step, "probe": name, "value": value})
        self._add({f"probe/{name}": value}, step)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def _add(self, values: dict[str, float], step: int) -> None:
        for sink in self._sinks:
            sink.add_scalars(values, step)


def live_line(
    step: int,
    total: int,
    values: dict[str, float],
    *,
    tokens_per_second: float,
    mfu: float,
    waiting: float,
    memory: int,
    left: float,
    unit: str = "tokens",
) -> str:
    """One line: loss, tokens/s (of images: images/s), MFU, data-wait share, memory, time left."""
    width = len(str(total))
    scores = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name in ("loss", "gradient_norm") or name.endswith("_loss"))
    speed = f"{_si(tokens_per_second)} {unit}/s  MFU {mfu:.0%}  data wait {waiting:.1%}  " if tokens_per_second else ""
    return (
        f"step {step:>{width}}/{total}  {scores}  {speed.rstrip()}"
        f"  {memory / 2**30:.2f} GiB  {duration(left)} left"
    )


def _si(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """1:02:03, 2:03 or 0:03."""
    seconds = max(0, round(seconds))
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
