"""What a sparse run on a GPU brings to the host before numpy sees it; here on a CPU, which would not mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.intervention import Sparse
from tests.methods.test_captured_steps import built


class OnDevice(TorchFunctionMode):
    """Refuses numpy for tensors that were not brought to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not Tensor.numpy or any(args[0] is tensor for tensor in self.brought), "can't convert cuda:0 device type tensor to numpy"
        found = func(*args, **(kwargs or {}))
        if func is Tensor.cpu:
            self.brought.append(found)
        return found


def test_masks_by_magnitude_are_chosen_anew_where_the_weights_lie(tmp_path: Path) -> None:
    """A phase of less sparsity begins in the middle of a run, when the weights lie on the device."""
    inner, _ = built("causal-lm", tmp_path)
    method = Sparse(inner, SparsityConfig(level=0.75, init="magnitude", then=(0.5,), then_steps=(2,)), seed=0)
    later = method.phases(8)[1]
    assert later.on_start is not None
    with OnDevice():
        later.on_start()
    shares = [float(mask.float().mean()) for mask in method.buffers_now()]
    assert all(abs(share - 0.5) < 0.01 for share in shares)
