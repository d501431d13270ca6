"""Progress of anything that takes over two seconds: a rich bar on a terminal, plain lines otherwise, on standard error.

Standard output stays free for results (`--json` and pipes).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

SILENT_S = 2.0
"""Work that ends within this time shows nothing."""
LINE_EVERY_S = 5.0
"""Plain lines come this often when standard error is not a terminal."""
WAIT_S = 0.2
"""So often is looked whether it is time for a line."""


class Reporter:
    """Shows how far a task is, its rate and the time left.

    Args:
        what: the task, for example "tokenise".
        total: units to do, or None when unknown.
        unit: the unit in the plural, for example "MB".
        already: units done by an earlier, interrupted run; they do not count for the rate.

    Use as a context manager and call `advance(n)`.
    """

    def __init__(self, what: str, total: float | None = None, unit: str = "", already: float = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.already = already
        self.started = time.monotonic()
        self._next_line = self.started + SILENT_S
        self._bar: Any = None

    def advance(self, amount: float = 1) -> None:
        """So many more units are done; a bar or a line says it when it is time."""
        self.done += amount
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(0, completed=self.done, rate=self.rate(now))
        elif now >= self._next_line:
            if sys.stderr.isatty():
                self._bar = self._start_bar()
            else:
                print(self.line(now), file=sys.stderr, flush=True)
                self._next_line = now + LINE_EVERY_S

    def rate(self, now: float) -> float:
        """Units a second of this process, at monotonic time `now`."""
        return (self.done - self.already) / max(now - self.started, 1e-9)

    def line(self, now: float) -> str:
        """The plain line at monotonic time `now`."""
        rate = self.rate(now)
        whole = float(self.total or 0).is_integer() or (self.total or 0) >= 100
        text = f"{self.what}: {self.done:,.{0 if whole else 1}f}"
        if self.total:
            text += f" of {self.total:,.{0 if whole else 1}f} {self.unit} ({100 * self.done / self.total:.0f} %)"
            if rate > 0:  # before the first item is done nobody knows
                text += f", {_rate(rate)} {self.unit}/s, {_duration((self.total - self.done) / rate)} left"
        else:
            text += f" {self.unit}, {_rate(rate)} {self.unit}/s"
        return text

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start_bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        rate = TextColumn("{task.fields[rate]:,.1f} " + self.unit + "/s")
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        bar.start()
        bar.add_task(self.what, total=self.total, completed=int(self.done), rate=0.0)
        return bar


def progress(iterable: Iterable[T], total: float | None = None, what: str = "", unit: str = "") -> Iterator[T]:
    """Yield from `iterable` and show how far it is. `total` is taken from `len` where there is one."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Reporter(what, total, unit) as reporter:
        for item in iterable:
            yield item
            reporter.advance()


def patiently(what: str, work: Callable[[], T]) -> T:
    """The result of `work`, which calls a library that says nothing and holds its thread until it is done. Another thread works: this one says every
    few seconds for how long, and answers signals at once.

    Args:
        what: the task, for example "train the tokenizer".

    Raises:
        whatever `work` does.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)  # a stopped command does not wait for it
    began = time.monotonic()
    next_line = began + SILENT_S
    thread.start()
    while thread.is_alive():
        thread.join(WAIT_S)
        if thread.is_alive() and (now := time.monotonic()) >= next_line:
            print(f"{what}: {_duration(now - began)} so far", file=sys.stderr, flush=True)
            next_line = now + LINE_EVERY_S
    if failed:
        raise failed[0]
    return done[0]


def _rate(rate: float) -> str:
    return f"{rate:.1g}" if 0 < rate < 0.1 else f"{rate:,.1f}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
