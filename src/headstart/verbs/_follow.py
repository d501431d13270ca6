"""A run folder read as it grows: what `watch` and the report see of it. No torch, and nothing is written.

The .jsonl files of a run are appended to, and replaced when the run continues from a checkpoint (`RunFolder.cut`). A reader therefore keeps its
place in each file and begins again when there is another file under the name. A run folder may come from a stranger: files are regular ones inside
it, lines have a limit, numbers that are none become NaN.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.files import open_regular, own_file
from headstart.core.run import MAX_LINE, read_run

MAX_BYTES = 2**30
"""Of one .jsonl file that are read; 100,000 log lines have about 40 MB."""
MAX_NAMES = 200
"""Different metrics of one file that are kept."""
MAX_STEP = 2**53
SAMPLES_KEPT = 12
QUIET_S = 10.0
NOT_CURVES = frozenset({"step", "phase", "spike", "probe", "value", "lines"})


@dataclass
class Series:
    """One metric: step and value of each log step that had it; NaN where it was no finite number."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)

    def last(self) -> float | None:
        """The newest finite value."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), None)


@dataclass
class Curves:
    """What metrics.jsonl, probes.jsonl and samples.jsonl of a run hold."""

    series: dict[str, Series] = field(default_factory=dict)
    probes: dict[str, Series] = field(default_factory=dict)
    phases: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, first and last logged step."""
    spikes: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    """First logged steps after a restart."""
    samples: list[tuple[int, list[str]]] = field(default_factory=list)
    """Step and lines; the first and the newest ones."""

    def step(self) -> int:
        """The newest logged step; 0 before the first."""
        return max((series.steps[-1] for series in self.series.values()), default=0)

    def take_metrics(self, record: dict[str, Any]) -> None:
        step = record["step"]
        phase = record.get("phase")
        if isinstance(phase, str):
            if not self.phases or self.phases[-1][0] != phase:
                self.phases.append((phase, step, step))
            else:
                self.phases[-1] = (phase, self.phases[-1][1], step)
        if record.get("spike") is True:
            self.spikes.append(step)
        if record.get("tokens_per_second") == 0 and self.series:  # the first log step of a process knows no speed yet
            self.restarts.append(step)
        _add_numbers(self.series, step, record)

    def take_probe(self, record: dict[str, Any]) -> None:
        if isinstance(name := record.get("probe"), str):
            _add_numbers(self.probes, record["step"], {name: record.get("value")})

    def take_sample(self, record: dict[str, Any]) -> None:
        lines = record.get("lines")
        if isinstance(lines, list):
            self.samples.append((record["step"], [str(line) for line in lines]))
            if len(self.samples) > SAMPLES_KEPT:
                del self.samples[1]


def _add_numbers(series: dict[str, Series], step: int, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if name in NOT_CURVES or isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
            continue
        if name not in series:
            if len(series) >= MAX_NAMES:
                continue
            series[name] = Series()
        series[name].add(step, finite(value))


def newest(series: dict[str, Series], name: str) -> float:
    """The newest finite value of a metric; NaN where there is none."""
    value = series[name].last() if name in series else None
    return math.nan if value is None else value


def finite(value: Any) -> float:
    """A JSON value as a float; NaN for null, for what is no number, and for numbers beyond floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


class Followed:
    """A run folder, read anew where it changed.

    `refresh` takes in what was added. `info` is run.json, `curves` the rest, `damaged` names lines that could not be read (what follows such a line
    is left out: a run that continues cuts it).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = {}
        self.curves = Curves()
        self.damaged: dict[str, int] = {}
        self._seen: dict[str, tuple[int, int]] = {}  # file -> (inode, bytes taken in)
        self._lines: dict[str, int] = {}
        self._stamp: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Reads what is new; True when there was something.

        Raises:
            BadInput: not a run, or its run.json is damaged.
        """
        changed = self._read_info()
        if any(self._replaced(name) for name in TAKE):
            self._seen, self._lines, self.damaged, self.curves = {}, {}, {}, Curves()
            changed = True
        for name in TAKE:
            changed |= self._read_more(name)
        return changed

    def total_steps(self) -> int:
        """That the run will make; 0 before it knows."""
        decisions = self.info.get("decisions")
        total = finite(decisions.get("total_steps")) if isinstance(decisions, dict) else math.nan
        return int(total) if math.isfinite(total) else 0

    def plateau(self) -> tuple[str, float]:
        """The loss that the run is judged by, and its unigram entropy in nats (NaN where no line is drawn: pixels, or weights that were given)."""
        recorded = self.info.get("plateau")
        if isinstance(recorded, dict):
            return str(recorded.get("metric")), finite(recorded.get("entropy"))
        metric = next((name for name in ("mlm_loss_hidden", "mlm_loss") if name in self.curves.series), "loss")
        config, data = self.info.get("config"), self.info.get("data")
        if "plateau" in self.info or (isinstance(config, dict) and config.get("init") is not None):
            return metric, math.nan
        first = data[0] if isinstance(data, list) and data else None  # of a run before run.json said it
        return metric, finite(first.get("unigram_entropy")) if isinstance(first, dict) else math.nan

    def quiet_since(self) -> float:
        """When a file of the run last changed, seconds since 1970; 0.0 when there is none."""
        times = [0.0]
        for name in ("run.json", *(f"{name}.jsonl" for name in TAKE)):
            with suppress(OSError):
                times.append((self.folder / name).stat().st_mtime)
        return max(times)

    def abandoned(self) -> bool:
        """Whether run.json says "running" and no process writes to the run: it was killed. Asks for the run's lock for a moment, and only when
        the run has been quiet for some time: a process that just begins wants that lock itself."""
        quiet = time.time() - self.quiet_since() > QUIET_S
        return self.info.get("status") == "running" and quiet and not is_locked(self.folder / ".lock")

    def _read_info(self) -> bool:
        try:
            stat = (self.folder / "run.json").stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            stamp = None
        if stamp is not None and stamp == self._stamp:
            return False
        self.info = read_run(self.folder)
        self._stamp = stamp
        return True

    def _replaced(self, name: str) -> bool:
        if name not in self._seen:
            return False
        try:
            stat = (self.folder / f"{name}.jsonl").stat()
        except OSError:
            return True
        inode, taken = self._seen[name]
        return stat.st_ino != inode or stat.st_size < taken

    def _read_more(self, name: str) -> bool:
        """Takes in the whole lines that were added to a file."""
        if name in self.damaged or not (self.folder / f"{name}.jsonl").exists():
            return False
        take: Callable[[Curves, dict[str, Any]], None] = TAKE[name]
        with open_regular(own_file(self.folder, f"{name}.jsonl")) as file:
            inode = os.fstat(file.fileno()).st_ino
            place = self._seen.get(name, (inode, 0))[1]
            start = place
            file.seek(place)
            while place < MAX_BYTES and (line := file.readline(MAX_LINE)).endswith(b"\n"):
                self._lines[name] = self._lines.get(name, 0) + 1
                record = parsed(line)
                if record is None:
                    self.damaged[name] = self._lines[name]
                    break
                take(self.curves, record)
                place += len(line)
            self._seen[name] = (inode, place)
        return place > start


TAKE: dict[str, Callable[[Curves, dict[str, Any]], None]] = {
    "metrics": Curves.take_metrics,
    "probes": Curves.take_probe,
    "samples": Curves.take_sample,
}


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for what no run of ours writes."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < MAX_STEP else None


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file; False where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
