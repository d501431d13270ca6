"""Which device a name means."""

from __future__ import annotations

import pytest
import torch

from headstart.core.errors import UsageError
from headstart.engine.device import resolve_device


def test_a_gpu_with_a_number_becomes_the_one_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch seeds the generator of the present device, and captures its stream: dropout on another one would not repeat."""
    chosen: list[int | None] = []

    def set_device(device: torch.device) -> None:
        if device.index == 7:
            raise RuntimeError("CUDA error: invalid device ordinal")
        chosen.append(device.index)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda")
    assert chosen == [1]
    with pytest.raises(UsageError, match="no device 'cuda:7'"):
        resolve_device("cuda:7")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "gpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    if torch.cuda.is_available() and name != "gpu":
        assert resolve_device(name).type == "cuda"
        return
    with pytest.raises(UsageError):
        resolve_device(name)
