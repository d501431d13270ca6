"""What the processes of a run do with its checkpoints: `torchrun ... -m tests.engine.checkpoint_ranks TASK FOLDER`, or `run(TASK, FOLDER)` on one.

Each task prints one line of JSON, on the first process.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from headstart.engine.checkpoint import Checkpointer
from headstart.engine.distributed import ALONE, Ranks, joined, local

SHAPES = {"even": (8, 3), "uneven": (7, 3), "short": (1, 5), "empty": (0, 4), "scalar": (), "turned": (3, 7)}
TYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)


def whole(step: int) -> dict[str, Tensor]:
    """Parameter name -> its value after `step`, the same in every process."""
    generator = torch.Generator().manual_seed(step)
    found = {}
    for name, shape in SHAPES.items():
        for dtype in TYPES:
            found[f"layer.{name}.{str(dtype).removeprefix('torch.')}"] = (torch.randn(shape, generator=generator) * 100).to(dtype)
    return found


@cache
def mesh_of(world: int) -> DeviceMesh:
    return init_device_mesh("cpu", (world,))


def cut(name: str, tensor: Tensor, ranks: Ranks) -> Tensor:
    """The parameter as FSDP2 has it: cut over the processes by its first dimension (one by its second), where it has any."""
    if ranks.world == 1 or tensor.dim() == 0:
        return tensor
    return distribute_tensor(tensor, mesh_of(ranks.world), [Shard(1 if "turned" in name else 0)])


def state_of(step: int, ranks: Ranks) -> dict[str, Any]:
    weights = {name: cut(name, tensor, ranks) for name, tensor in whole(step).items()}
    tied = weights["layer.short.float32"]
    moments = {name: {"exp_avg": cut(name, tensor * 2, ranks), "step": torch.tensor(float(step))} for name, tensor in whole(step).items()}
    same = torch.arange(6.0)
    if ranks.world > 1:
        same = distribute_tensor(same, mesh_of(ranks.world), [Replicate()])
    return {"method": weights | {"head.weight": tied}, "optimizer": {"state": moments}, "step": step, "wall_s": 0.5 + ranks.rank, "same": same}


def differences(state: dict[str, Any], step: int, ranks: Ranks, like: dict[str, Tensor]) -> list[str]:
    """Where a loaded state is not that of `step`, bit for bit and cut like the live parameters."""
    found = []
    for name, tensor in whole(step).items():
        for what, got, wanted in (("method", state["method"][name], tensor), ("moment", state["optimizer"]["state"][name]["exp_avg"], tensor * 2)):
            if isinstance(got, DTensor) != isinstance(like.get(name), DTensor):
                found.append(f"{what} {name} is {type(got).__name__}")
            elif isinstance(got, DTensor) and got.placements != like[name].placements:  # type: ignore[attr-defined]
                found.append(f"{what} {name} is cut otherwise")
            elif not torch.equal(local(got), local(cut(name, wanted, ranks)) if isinstance(got, DTensor) else wanted):
                found.append(f"{what} {name} has other values")
    if not torch.equal(local(state["method"]["head.weight"]), local(state["method"]["layer.short.float32"])):
        found.append("tied weights differ")
    if state["step"] != step or state["wall_s"] != 0.5 or not torch.equal(state["same"], torch.arange(6.0)):
        found.append("numbers differ")
    return found


def run(task: str, folder: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    said: list[str] = []
    saver = Checkpointer(folder, ranks=ranks)
    if task == "save":
        exported: list[int] = []

        def export(to: Path) -> None:
            exported.extend(ranks.gather(ranks.rank))  # an export may talk
            if ranks.first:
                to.mkdir()
                (to / "model").write_text("weights")

        for step in (3, 4, 5):
            saver.save(step, state_of(step, ranks), export)
        saver.close()
        return {"exported": exported, "kept": saver.list(), "files": sorted(path.name for path in (folder / "step-00000005").iterdir())}
    if task == "load":
        like = {name: cut(name, tensor, ranks) for name, tensor in whole(0).items()}
        found = saver.load_newest(said.append, like)
        assert found is not None
        step, state = found
        wrong = ranks.gather((step, differences(state, step, ranks, like)))
        return {"found": wrong, "said": ranks.gather(said)}
    if task == "full-disk":  # of the second process: a real limit on the size of its files
        saver.save(6, state_of(6, ranks))
        saver.wait()
        if ranks.rank == 1:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        saver.save(7, state_of(7, ranks))
        errors = ranks.gather(caught(saver.wait))
        return {"errors": errors, "kept": saver.list(), "hidden": [path.name for path in folder.glob(".*")]}
    if task == "failing-export":

        def fail(to: Path) -> None:
            if ranks.first:
                raise PermissionError(13, "no", "export")

        errors = ranks.gather(caught(lambda: saver.save(9, state_of(9, ranks), fail)))
        saver.save(10, state_of(10, ranks))
        saver.close()
        return {"errors": errors, "kept": saver.list(), "hidden": [path.name for path in folder.glob(".*")]}
    raise ValueError(task)


def caught(work: Any) -> list[Any] | None:
    try:
        work()
    except OSError as error:
        return [error.errno, Path(str(error.filename)).name]
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as found:
        result = run(sys.argv[1], Path(sys.argv[2]), found)
        if found.first:
            print(json.dumps(result), flush=True)
