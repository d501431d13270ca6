"""Which device a name means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.engine.device import resolve_device, use_device


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """A machine with two GPUs; the ones that were made those of this process."""
    found: list[int | None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append(device.index))
    return found


def test_finding_out_what_a_name_means_changes_nothing(chosen: list[int | None]) -> None:
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda")
    with pytest.raises(UsageError, match=r"no device 'cuda:2'\.\ntorch sees 2"):
        resolve_device("cuda:2")
    assert chosen == []


def test_a_gpu_with_a_number_becomes_the_one_of_this_process_where_computing_begins(chosen: list[int | None]) -> None:
    """torch seeds the generator of the present device, and captures its stream: dropout on another one would not repeat."""
    assert use_device("cuda:1") == torch.device("cuda", 1)
    assert use_device("cuda") == use_device("auto") == torch.device("cuda")
    assert use_device("cpu") == torch.device("cpu")
    assert chosen == [1]


def test_a_run_uses_its_gpu_and_a_refused_command_leaves_the_process_as_it_was(chosen: list[int | None], tmp_path: Path) -> None:
    settings = {"device": "cuda:1", "out": tmp_path / "run", "say": lambda line: None}
    with pytest.raises(UsageError, match="No budget"):
        headstart.pretrain("mlm", tmp_path, **settings)
    assert chosen == []
    with pytest.raises(BadInput, match="no such data"):
        headstart.pretrain("mlm", tmp_path / "nowhere", **settings, **{"budget.steps": 3, "probe.labels": tmp_path / "no such data"})
    assert chosen == [1]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "gpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    if torch.cuda.is_available() and name != "gpu":
        assert resolve_device(name).type == "cuda"
        return
    with pytest.raises(UsageError):
        resolve_device(name)
