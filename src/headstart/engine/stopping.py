"""Signals that end a training with a checkpoint instead of a loss."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headstart.core.errors import Interrupted
from headstart.core.terminal import leave_terminal
from headstart.engine.distributed import Ranks, StopVote

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C, a queue's end, the terminal was closed, and what a queue sends a while before it kills (`sbatch --signal=USR1@120`)."""


@contextmanager
def stop_signals(requested: threading.Event, ranks: Ranks) -> Iterator[StopVote]:
    """Within the block a signal asks the loop to stop after the step; a second Ctrl-C stops at once. Gives the vote by which all ranks stop together.

    Raises:
        Interrupted: Ctrl-C came twice.
    """
    vote = StopVote(ranks)
    if threading.current_thread() is not threading.main_thread():
        yield vote
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if requested.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            leave_terminal()
        requested.set()

    heard = [number for number in STOPS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores it
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield vote
        vote.close()
    except KeyboardInterrupt:
        raise Interrupted("Stopped at once.", "The same command continues from the last checkpoint.") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
