"""What `watch` draws: a run in one screen of a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import words
from headstart.core.run import unit_of
from headstart.core.terminal import printable
from headstart.engine.plateau import MARGIN
from headstart.verbs._follow import Followed, Series, newest

if TYPE_CHECKING:
    import psutil
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
ROWS = 7
"""Height of the loss chart, in lines."""
SPARKLINES = 8
RECENT = 20
"""Log steps that the rate is taken from."""
NOT_SPARKLINES = frozenset({"tokens", "flops", "wall_s", "tokens_per_second", "data_wait_share", "mfu", "skipped", "learning_rate"})


def seconds_left(followed: Followed) -> float:
    """From the rate of the last log steps; NaN before there is one."""
    wall = followed.curves.series.get("wall_s")
    if wall is None or len(wall.steps) < 2:
        return math.nan
    steps, seconds = wall.steps[-RECENT:], wall.values[-RECENT:]
    rate = (seconds[-1] - seconds[0]) / max(steps[-1] - steps[0], 1)
    return max(0.0, (followed.total_steps() - steps[-1]) * rate)


def progress_line(followed: Followed) -> str:
    """One plain line: step, losses, plateau, speed, time left."""
    curves, total, step = followed.curves, followed.total_steps(), followed.curves.step()
    metric, entropy = followed.plateau()
    parts = [f"step {step:,}" + (f"/{total:,} ({100 * step / total:.0f} %)" if total else "")]
    figures = [(metric, newest(curves.series, metric)), ("held out", newest(curves.probes, f"held_out/{metric}")), ("plateau", entropy)]
    figures += [(name, newest(curves.probes, name)) for name in curves.probes if not name.startswith("held_out/")]
    parts += [f"{name} {words.number(value)}" for name, value in figures if math.isfinite(value)]
    speed = newest(curves.series, "tokens_per_second")
    parts += [f"{words.counted(speed)} {unit_of(followed.info)}/s"] if speed > 0 else []
    left = seconds_left(followed)
    parts += [f"{words.duration(left)} left"] if math.isfinite(left) and left > 0 else []
    return "  ".join(parts)


def sparkline(values: Sequence[float], width: int) -> str:
    """One line of bars, the newest value last; each column the mean of its values, a gap where none is finite."""
    if not values or width < 1:
        return ""
    columns = min(width, len(values))
    bounds = [len(values) * i // columns for i in range(columns + 1)]
    means = []
    for start, stop in pairwise(bounds):
        known = [value for value in values[start:stop] if math.isfinite(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    finite_means = [value for value in means if math.isfinite(value)]
    if not finite_means:
        return ""
    low, high = min(finite_means), max(finite_means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in means)


def loss_chart(curves: Sequence[tuple[str, Series]], plateau: float, width: int, rows: int = ROWS) -> list[Text]:
    """Curves as braille dots over one axis of steps, each (style, series), the later on top; the plateau as a dashed line with its value."""
    from rich.text import Text

    points = [(step, value) for _, series in curves for step, value in zip(series.steps, series.values, strict=True) if math.isfinite(value)]
    if not points or width < 20:
        return []
    values = [value for _, value in points] + ([plateau] if math.isfinite(plateau) else [])
    low, high = min(values), max(values)
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    margin = 9
    columns = width - margin

    def row_of(value: float) -> int:  # in dots from the top, four a line
        return round((high - value) / ((high - low) or 1.0) * (4 * rows - 1))

    dots: dict[tuple[int, int], int] = {}
    styles: dict[tuple[int, int], str] = {}
    for style, series in curves:
        before: tuple[int, int] | None = None
        for step, value in zip(series.steps, series.values, strict=True):
            if not math.isfinite(value):
                before = None
                continue
            here = (round((step - first) / ((last - first) or 1) * (2 * columns - 1)), row_of(value))
            for x, y in _straight(before or here, here):
                cell = (y // 4, x // 2)
                dots[cell] = dots.get(cell, 0) | (0x40 << (x % 2) if y % 4 == 3 else 1 << (y % 4 + 3 * (x % 2)))
                styles[cell] = style
            before = here
    line = row_of(plateau) // 4 if math.isfinite(plateau) else -1
    drawn = []
    for row in range(rows):
        label = {0: words.number(high, 3), rows - 1: words.number(low, 3), line: words.number(plateau, 3)}.get(row, "")
        text = Text().append(f"{label:>{margin - 2}} {'┤' if label else '│'}", style="dim")
        empty = ("╌" if row == line else " ", "dim")
        cells = [(chr(0x2800 + dots[row, x]), styles[row, x]) if (row, x) in dots else empty for x in range(columns)]
        for style, group in groupby(cells, key=itemgetter(1)):
            text.append("".join(character for character, _ in group), style=style)
        drawn.append(text)
    return drawn


def _straight(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from `start` to `end`, without `start` where they differ."""
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    if length == 0:
        return [end]
    return [(round(start[0] + (end[0] - start[0]) * i / length), round(start[1] + (end[1] - start[1]) * i / length)) for i in range(1, length + 1)]


class Screen:
    """A run as rich draws it, at whatever size the terminal has."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self._writer: psutil.Process | None = None
        self._looked = -math.inf

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width, height = options.max_width, console.height
        lines = self.lines(width)
        room = max(8, height - 1)
        yield Text("\n").join(line if isinstance(line, Text) else Text(line) for line in lines[:room])

    def lines(self, width: int) -> list[Any]:
        """The lines, of at most `width` columns, the most important first."""
        from rich.text import Text

        followed = self.followed
        curves, info = followed.curves, followed.info
        metric, entropy = followed.plateau()
        step, total = curves.step(), followed.total_steps()
        status = "its process is gone" if followed.abandoned() else str(info.get("status", ""))
        phase = f", phase {printable(curves.phases[-1][0], one_line=True)}" if len(curves.phases) > 1 else ""
        head = Text().append(printable(followed.folder.name, one_line=True), style="bold")
        head.append(f"   {printable(str(info.get('method', '')), one_line=True)}, {status}{phase}", style="dim")
        lines: list[Any] = [_cut(head, width), self._bar(step, total, width), ""]

        loss, held_out = curves.series.get(metric), curves.probes.get(f"held_out/{metric}")
        told = Text()
        for name, style, series in (("training", "cyan", loss), ("held out", "yellow", held_out)):
            if series is not None and (value := series.last()) is not None:
                told.append(f"{printable(metric, one_line=True)} " if not told else "")
                told.append(f"{name} ", style=style).append(f"{words.number(value)}   ")
        if math.isfinite(entropy):
            newest = held_out.last() if held_out is not None else None
            told.append(f"plateau {words.number(entropy, 3)}", style="dim")
            told.append("" if newest is None else ", left" if newest <= entropy - MARGIN else ", not left yet", style="dim")
        both = [(style, series) for style, series in (("cyan", loss), ("yellow", held_out)) if series is not None]
        lines += [_cut(told, width), *loss_chart(both, entropy, width), ""]
        lines += self._sparklines(metric, width)
        lines += ["", _cut(self._machine(), width)]
        lines += self._warnings(width)
        if curves.samples:
            at, said = curves.samples[-1]
            lines += ["", Text(f"sample at step {at:,}", style="dim")]
            lines += [_cut(Text("  " + printable(line, one_line=True)), width) for line in said[:3]]
        return lines

    def _bar(self, step: int, total: int, width: int) -> Text:
        from rich.text import Text

        if not total:
            return Text("before the first step", style="dim")
        share = min(1.0, step / total)
        left = seconds_left(self.followed)
        words_after = f"  {100 * share:.0f} %, step {step:,} of {total:,}"
        if self.followed.info.get("status") == "running" and math.isfinite(left):
            words_after += f", {words.duration(left)} left"
        room = max(5, min(60, width - len(words_after)))
        full = round(share * room)
        return _cut(Text().append("━" * full, style="green").append("─" * (room - full), style="dim").append(words_after), width)

    def _sparklines(self, metric: str, width: int) -> list[Text]:
        from rich.text import Text

        curves = self.followed.curves
        named = {f"{name} (probe)": series for name, series in curves.probes.items() if not name.startswith("held_out/")}
        named |= {name: series for name, series in curves.series.items() if name not in NOT_SPARKLINES and name != metric}
        rows = []
        for name, series in list(named.items())[:SPARKLINES]:
            value = series.last()
            room = max(8, min(48, width - 40))
            text = Text().append(f"{printable(name, one_line=True)[:28]:<29}", style="dim").append(sparkline(series.values, room), style="cyan")
            rows.append(_cut(text.append(f"  {words.number(math.nan if value is None else value)}"), width))
        return rows

    def _machine(self) -> Text:
        from rich.text import Text

        series = self.followed.curves.series
        speed, waiting = newest(series, "tokens_per_second"), newest(series, "data_wait_share")
        parts = [f"{words.counted(speed)} {unit_of(self.followed.info)}/s" if speed > 0 else ""]
        parts += [f"waiting for data {words.share(waiting)}"] if math.isfinite(waiting) else []
        totals = self.followed.info.get("totals")
        if isinstance(totals, dict) and "peak_memory_bytes" in totals:
            parts.append(f"peak memory {words.gibibytes(totals['peak_memory_bytes'])}")
        elif (memory := self._memory()) is not None:
            parts.append(f"memory {words.gibibytes(memory)}")
        flops = newest(series, "flops")
        parts.append(f"{words.flops(flops)} FLOPs" if math.isfinite(flops) else "")
        return Text("   ".join(filter(None, parts)))

    def _warnings(self, width: int) -> list[Text]:
        from rich.text import Text

        curves, info = self.followed.curves, self.followed.info
        told = [f"The loss jumped at step {step:,}." for step in curves.spikes[-2:]]
        told += [f"Continued from a checkpoint before step {step:,}." for step in curves.restarts[-1:]]
        skipped = sum(value for value in curves.series.get("skipped", Series()).values if math.isfinite(value))
        told += [f"{skipped:,.0f} updates left out: loss or gradient was no finite number."] if skipped else []
        told += [f"{name}.jsonl is damaged at line {line:,}." for name, line in self.followed.damaged.items()]
        told += [str(info["error"]).splitlines()[0]] if info.get("error") else []
        return [_cut(Text("! " + printable(line, one_line=True), style="yellow"), width) for line in told]

    def _memory(self) -> int | None:
        """Resident memory of the process that writes the run, if it is ours and here: the one that holds its lock file open."""
        import psutil

        try:
            if self._writer is None and time.monotonic() - self._looked > 30:
                self._looked = time.monotonic()
                self._writer = writer_of(self.followed.folder)
            return None if self._writer is None else int(self._writer.memory_info().rss)
        except psutil.Error:
            self._writer = None
            return None


def writer_of(folder: Path) -> psutil.Process | None:
    """The process of this user that has the run's lock file open."""
    import psutil

    lock = str((folder / ".lock").resolve())
    for process in psutil.process_iter():
        try:
            if any(file.path == lock for file in process.open_files()):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
