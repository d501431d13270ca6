"""How a method trains on several processes as if it were one: DistributedDataParallel or FSDP2.

- `ddp`: every process has the whole method; gradients are averaged while the backward pass still runs.
- `fsdp`: parameters, gradients and optimiser state are cut over the processes (`fully_shard`); a layer is gathered when it computes, in bf16 where
  the run is in bf16, and gradients are reduced in fp32.

Gradients come out as the mean over the processes in both; `engine.update` makes the mean over the items of the global batch of it. With gradient
accumulation only the last micro-step of an update talks to the others.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from headstart.core.errors import UsageError
from headstart.engine.config import Mode
from headstart.engine.distributed import ALONE, Ranks, is_cut, local
from headstart.engine.method import Batch, Context, Method

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

_ENTRANCES = ("loss", "items", "evaluate", "embed", "show")  # what the engine calls instead of `forward`: FSDP2 gathers the outer parameters there


def layers(method: nn.Module) -> list[nn.Module]:
    """The repeated parts of the networks: the members of every ModuleList that lies in no other member."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in method.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            found += module
            inside |= {id(part) for member in module for part in member.modules()}
    return found


def checkpoint_activations(method: nn.Module) -> None:
    """Keeps, of each layer, only its input for the backward pass and computes the rest again there: less memory for about a third more time."""
    for layer in layers(method):
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


class Parallel:
    """A method on the ranks of a run.

    Args:
        method: with `fsdp` its parameters are cut here, in place, and move to the device; otherwise it lies on the device already.
        precision: of the run; with `fsdp` the gathered parameters have it.
    """

    def __init__(
        self,
        method: Method,
        ranks: Ranks = ALONE,
        mode: Mode = "ddp",
        device: torch.device | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        self.method = method
        self.ranks = ranks
        self.sharded = mode == "fsdp" and ranks.world > 1
        self._replica: DistributedDataParallel | None = None
        self._cut: list[FSDPModule] = _shard(method, ranks, device or torch.device("cpu"), precision) if self.sharded else []  # the outermost first

    def enter(self, *, unused_parameters: bool) -> None:
        """Begins a phase: which parameters learn, and whether some of them get no gradient, is another matter in each."""
        if self.ranks.world > 1 and not self.sharded:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # its new name is not in torch 2.11
                self._replica = DistributedDataParallel(
                    _Loss(self.method), find_unused_parameters=unused_parameters, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """`method.loss`; the backward pass of what it returns fills the gradients of every rank with their mean."""
        return self.method.loss(batch, ctx) if self._replica is None else self._replica(batch, ctx)

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        """Surrounds the forward and backward pass of one micro-step; the ranks talk in the last one of an update."""
        for outermost in self._cut[:1]:
            outermost.set_requires_gradient_sync(last)
        with nullcontext() if last or self._replica is None else self._replica.no_sync():
            yield

    def reshard(self) -> None:
        """Lets go of the gathered parameters, so that what is written into the parts counts."""
        for module in self._cut:
            module.reshard()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While it lasts, the method of the first rank has its whole parameters, on the CPU where they were cut: it can be exported, not run. Every
        rank must come here."""
        if not self.sharded:
            yield
            return
        self.reshard()
        places: list[tuple[nn.Module, str, nn.Parameter]] = []
        gathered: dict[nn.Parameter, nn.Parameter] = {}  # tied parameters once
        buffers: list[tuple[nn.Module, str, DTensor]] = []
        for module in self.method.modules():
            for name, parameter in module._parameters.items():
                if not is_cut(parameter):
                    continue
                if parameter not in gathered:
                    full = parameter.full_tensor().detach()
                    gathered[parameter] = nn.Parameter(full.cpu(), parameter.requires_grad) if self.ranks.first else parameter
                places.append((module, name, parameter))
            buffers += [(module, name, buffer) for name, buffer in module._buffers.items() if is_cut(buffer)]
        for module, name, parameter in places:
            module._parameters[name] = gathered[parameter]
        for module, name, buffer in buffers:
            whole = buffer.full_tensor()
            module._buffers[name] = whole.cpu() if self.ranks.first else buffer
        try:
            yield
        finally:
            for module, name, parameter in places:
                module._parameters[name] = parameter
            for module, name, buffer in buffers:
                module._buffers[name] = buffer

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """What the block does to parameters and buffers is undone at its end."""
        self.reshard()
        tensors = [local(tensor.detach()) for tensor in (*self.method.parameters(), *self.method.buffers())]
        before = [tensor.to("cpu", copy=True) for tensor in tensors]
        try:
            yield
        finally:
            self.reshard()
            with torch.no_grad():
                for tensor, kept in zip(tensors, before, strict=True):
                    tensor.copy_(kept)


class _Loss(nn.Module):
    """The loss as a forward pass, which DistributedDataParallel can wrap."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return self.method.loss(batch, ctx)


def _shard(method: Method, ranks: Ranks, device: torch.device, precision: Literal["fp32", "bf16"]) -> list[FSDPModule]:
    """Cuts the parameters, in place; returns the modules that gather theirs, the method first.

    Raises:
        UsageError: a parameter has no axis to cut along.
    """
    if scalars := [name for name, parameter in method.named_parameters() if parameter.ndim == 0]:
        mend = "Give --trainer.parallel ddp; in the method make it a vector of one, torch.zeros(1)."
        raise UsageError(f"FSDP cuts along the first axis, which the parameter {scalars[0]} does not have: it is a scalar.", mend)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (ranks.world,))
    gathered_in = torch.bfloat16 if precision == "bf16" else None
    settings: dict[str, Any] = {
        "mesh": mesh,  # inputs stay as they are: autocast decides, as on one process
        "mp_policy": MixedPrecisionPolicy(param_dtype=gathered_in, reduce_dtype=torch.float32, cast_forward_inputs=False),
    }
    marks = {name: dict(vars(parameter)) for name, parameter in method.named_parameters()}  # such as lr_scale
    inner = [fully_shard(layer, **settings) for layer in layers(method)]
    outer = fully_shard(method, **settings)
    for name, parameter in method.named_parameters():  # others than before
        for mark, value in marks[name].items():
            setattr(parameter, mark, value)
    for name in _ENTRANCES:
        register_fsdp_forward_method(method, name)
    method.cut()
    return [outer, *inner]
