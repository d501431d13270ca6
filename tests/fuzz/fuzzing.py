"""How readers are tried on damaged files: how many examples, what may come out, and a file that is spoilt for a while."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from headstart.core.errors import HeadstartError
from tests.fuzz.mutations import damaged, damaged_json

LONGER = int(os.environ.get("HEADSTART_FUZZ", "1"))


def budget(examples: int) -> Callable[[Any], Any]:
    """The same examples in every run of the tests; HEADSTART_FUZZ=20 tries twenty times as many, and new ones."""
    return settings(
        max_examples=examples * LONGER, derandomize=LONGER == 1, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def tried(read: Callable[[], Any]) -> None:
    """Anything but success and an error of ours goes through, and fails the test."""
    try:
        read()
    except HeadstartError as refused:
        message = str(refused)
    else:
        return
    message.encode()  # it can be printed
    assert "\x1b" not in message


@contextmanager
def spoilt(path: Path, data: bytes) -> Iterator[None]:
    """The file with other bytes for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def bytes_or_json(path: Path) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged_json(json.loads(path.read_bytes())), damaged(path.read_bytes()))
