import os
import signal
import threading
import time

import pytest

from headstart.core import progress as module
from headstart.core.progress import Reporter, patiently, progress


def test_items_pass_through() -> None:
    assert list(progress([1, 2, 3], what="count")) == [1, 2, 3]
    assert list(progress(iter("ab"))) == ["a", "b"]


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress(range(100), what="quick"))
    assert capsys.readouterr() == ("", "")


def test_long_work_writes_plain_lines_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a terminal here: a line after two seconds, with rate and time left; standard output stays clean."""
    with Reporter("tokenise", 100, "MB") as reporter:
        time.sleep(module.SILENT_S + 0.1)
        reporter.advance(25)
        reporter.advance(25)  # within the interval: no second line
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("tokenise: 25 of 100 MB (25 %), ")
    assert "MB/s, " in errors
    assert errors.endswith(" s left\n")


def test_work_of_an_earlier_run_does_not_count_for_the_rate() -> None:
    reporter = Reporter("tokenise", 100, "MB", already=80)
    reporter.advance(10)
    assert reporter.rate(reporter.started + 5) == 2.0
    assert reporter.line(reporter.started + 5) == "tokenise: 90 of 100 MB (90 %), 2.0 MB/s, 5 s left"
    assert Reporter("read", None, "MB").line(time.monotonic()).startswith("read: 0 MB, 0.0 MB/s")


def test_a_few_megabytes_are_not_rounded_away() -> None:
    """Ten thousand small files: "0 of 1 MB (44 %), 0.0 MB/s"."""
    reporter = Reporter("tokenise", 0.6, "MB")
    reporter.advance(0.27)
    assert reporter.line(reporter.started + 5) == "tokenise: 0.3 of 0.6 MB (45 %), 0.05 MB/s, 6 s left"


def test_a_silent_library_is_waited_for_aloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    assert patiently("train the tokenizer", lambda: time.sleep(0.05) or 7) == 7
    assert capsys.readouterr() == ("", "train the tokenizer: 0 s so far\n")
    with pytest.raises(ZeroDivisionError):
        patiently("divide", lambda: 1 / 0)


def test_a_signal_does_not_wait_for_a_silent_library() -> None:
    """Ctrl-C and SIGTERM were answered when the library was done: after a minute, or of a genome never."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    held, before = threading.Event(), signal.signal(signal.SIGUSR2, stop)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            patiently("train the tokenizer", lambda: held.wait(60))
        assert not held.is_set()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR2, before)
        held.set()


def test_before_the_first_item_is_done_no_time_is_promised() -> None:
    reporter = Reporter("decode", 12, "files")
    assert reporter.line(reporter.started + 5) == "decode: 0 of 12 files (0 %)"


def test_long_times_are_minutes_and_hours() -> None:
    reporter = Reporter("read", 7200, "rows")
    reporter.advance(1)
    assert reporter.line(reporter.started + 1).endswith("2.0 h left")
    reporter.advance(3599)
    assert reporter.line(reporter.started + 1800).endswith("30 min left")
