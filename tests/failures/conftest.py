"""The run that nothing disturbs, which every run with a fault must equal in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failures.faults import command
from tests.running import headstart


@pytest.fixture(scope="session")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = headstart(*command(store, run))
    assert done.returncode == 0, done.stderr
    return run
