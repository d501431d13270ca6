"""Which runs capture their updates as CUDA graphs."""

from __future__ import annotations

import pytest
import torch

from headstart.engine.trial import GRAPH_MAX_PARAMETERS, captured

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "parameters", "chosen"),
    [("auto", GRAPH_MAX_PARAMETERS, True), ("auto", GRAPH_MAX_PARAMETERS + 1, False), ("on", 10**9, True), ("off", 1, False)],
)
def test_small_networks_are_captured_on_a_gpu(asked: str, parameters: int, chosen: bool) -> None:
    assert captured(asked, GPU, 1, None, parameters)[0] == chosen
    assert captured(asked, GPU, 1, True, parameters)[0] == chosen


def test_what_the_host_takes_part_in_is_never_captured() -> None:
    """Without fused kernels it reads whether a step was finite; a capture would end the run."""
    assert captured("on", CPU, 1, None, 1) == (False, "only on a GPU")
    assert captured("on", GPU, 2, None, 1) == (False, "only on one process")
    assert not captured("on", GPU, 1, False, 1)[0]
