"""`watch`: a run as it goes on, in the terminal, from what it writes into its folder. It may run anywhere that the folder can be read; nothing is
written, and ending it leaves the run alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from headstart.core import words
from headstart.core.run import no_run, unit_of
from headstart.core.terminal import printable
from headstart.verbs._follow import Followed
from headstart.verbs._watch_screen import Screen, progress_line

LINE_EVERY_S = 5.0
"""Plain lines come at most this often."""
POLL_S = 0.5


def watch(run: str | Path, *, wait: bool = False, plain: bool | None = None) -> dict[str, Any]:
    """Shows a run until it ends, then its verdict; a finished run at once.

    Args:
        run: a run folder.
        wait: where there is none yet, wait for it.
        plain: lines instead of the live view; None: where standard output is no terminal.

    Returns:
        run.json as it was at the end.

    Raises:
        BadInput: not a run, or a damaged one.
    """
    folder = Path(run)
    if not (folder / "run.json").exists():
        if not wait:
            raise no_run(folder, ", or add --wait")
        print(f"Waiting for the run {printable(str(folder), one_line=True)} ...", flush=True)
        while not (folder / "run.json").exists():
            time.sleep(POLL_S)
    followed = Followed(folder)
    followed.refresh()
    if plain if plain is not None else not sys.stdout.isatty():
        _follow_in_lines(followed)
    else:
        _follow_live(followed)
    for line in closing_lines(followed):
        print(printable(line), flush=True)
    return followed.info


def _follow_in_lines(followed: Followed) -> None:
    """A line for new log steps every few seconds; phases, spikes and samples as they come."""
    told = _Told()
    shown = 0.0
    while True:
        ended = has_ended(followed)  # asked before reading, so that the last lines are read
        followed.refresh()
        news = told.news(followed)
        step = followed.curves.step()
        if step > told.step and (ended or news or time.monotonic() - shown >= LINE_EVERY_S):
            news.append(progress_line(followed))
            told.step, shown = step, time.monotonic()
        for line in news:
            print(printable(line), flush=True)
        if ended:
            return
        time.sleep(POLL_S)


class _Told:
    """What the lines have said already."""

    def __init__(self) -> None:
        self.step, self.phases, self.spikes, self.samples = 0, 0, 0, -1

    def news(self, followed: Followed) -> list[str]:
        curves = followed.curves
        lines: list[str] = []
        if len(curves.phases) > 1:
            lines += [f"phase '{name}' from step {first:,}" for name, first, _ in curves.phases[self.phases :]]
        lines += [f"WARNING: the loss jumped at step {step:,}" for step in curves.spikes[self.spikes :]]
        for step, said in curves.samples:
            if step > self.samples:
                lines += [f"sample at step {step:,}: {said[0][:200] if said else ''}"]
                self.samples = step
        self.phases, self.spikes = len(curves.phases), len(curves.spikes)
        return lines


def _follow_live(followed: Followed) -> None:
    from rich.live import Live

    screen = Screen(followed)
    with Live(screen, refresh_per_second=4, transient=False, vertical_overflow="crop") as live:
        while not has_ended(followed):
            time.sleep(POLL_S)
            if followed.refresh():
                live.refresh()
        followed.refresh()
        live.refresh()


def has_ended(followed: Followed) -> bool:
    """Whether nothing more will come: done, stopped, failed, or its process is gone."""
    return followed.info.get("status") in ("done", "stopped", "failed") or followed.abandoned()


def closing_lines(followed: Followed) -> list[str]:
    """How a run ended: the verdict, or what to do."""
    info = followed.info
    status, folder = info.get("status"), followed.folder
    if status == "running":
        return [f"The process of {folder} is gone at step {followed.curves.step():,}, and the run is not done. The same command continues it."]
    if status != "done":
        error = info.get("error")
        return [f"{str(status).capitalize()} at step {followed.curves.step():,}." + (f" {error}" if error else "")]
    totals, verdict = info.get("totals", {}), info.get("verdict", {})
    lines = [
        f"Done: {words.plural(totals.get('steps', 0), 'step')}, {words.counted(totals.get('tokens'))} {unit_of(info)},"
        f" {words.flops(totals.get('flops'))} FLOPs, {words.duration(totals.get('wall_s'))},"
        f" peak memory {words.gibibytes(totals.get('peak_memory_bytes'))}."
    ]
    lines += [str(verdict[key]) for key in ("plateau", "sentence") if key in verdict]
    return [*lines, f"Look closer: headstart report {folder}"]
