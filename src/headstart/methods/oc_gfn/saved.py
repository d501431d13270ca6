"""The export of an OC-GFN: model.safetensors with trunk.*, head_pf.*, head_logf.* (head_pb.*), and config.json with its environment and settings."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, read_json, write_json
from headstart.core.tensor_files import save_tensors
from headstart.data.environments.environment import Environment
from headstart.methods.oc_gfn.adapt import Adapter
from headstart.methods.oc_gfn.config import AdaptConfig, OCGFNConfig
from headstart.methods.oc_gfn.network import ConditionalFlow

WEIGHTS, CONFIG = "model.safetensors", "config.json"
ADAPTER, ADAPTER_CONFIG = "adapter.safetensors", "adapter.json"
"""The networks of one reward, apart from the sampler that they were made with."""
MODEL_TYPE = "headstart-oc-gfn"


def save_flow(flow: ConditionalFlow, folder: Path, environment: Environment, config: OCGFNConfig) -> None:
    """Writes both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors({name: value.detach().cpu().contiguous() for name, value in flow.state_dict().items()}, folder / WEIGHTS)
    encoding = "every int of a state one-hot, one after another; the outcome likewise, after the state"
    write_json(folder / CONFIG, {"model_type": MODEL_TYPE, "environment": environment.describe(), "encoding": encoding, **asdict(config)})


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an export. Raises BadInput where it is none of ours."""
    path = own_file(folder, CONFIG)
    found = read_json(path)
    if not isinstance(found, dict) or found.get("model_type") != MODEL_TYPE:
        raise BadInput("is no OC-GFN.", "Give a run or an export of oc_gfn.", file=path)
    if not {"environment", "hidden_size", "num_layers", "backward"} <= found.keys():
        raise BadInput("lacks an entry.", "Export the run again.", file=path)
    return found


def load_flow(flow: ConditionalFlow, folder: Path) -> None:
    """Puts the weights of an export into a network of the same shape.

    Raises:
        BadInput: they are of another shape, or damaged.
    """
    read_config(folder)
    path = own_file(folder, WEIGHTS)
    try:
        flow.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise BadInput(f"does not fit the network ({str(error).splitlines()[0]}).", "Take the settings of its config.json.", file=path) from None


def read_flow(folder: str | Path, environment: Environment) -> ConditionalFlow:
    """The network of an export, on the CPU.

    Raises:
        BadInput: it is no such export, or damaged.
        UsageError: it was trained on another environment, or another order of its letters.
    """
    found = read_config(Path(folder))
    refuse_other(found["environment"], environment, folder)
    flow = ConditionalFlow(environment, found["hidden_size"], found["num_layers"], found["backward"] == "learned")
    load_flow(flow, Path(folder))
    return flow


def refuse_other(theirs: dict[str, Any], environment: Environment, folder: str | Path) -> None:
    """Raises UsageError where a network was made for another environment; both are said."""
    if theirs != (ours := environment.describe()):
        raise UsageError(f"The model in {folder} is of the environment {theirs}, here it is {ours}.", "Give the environment of the model.")


def save_adapter(network: Adapter | ConditionalFlow | None, folder: Path, environment: Environment, config: AdaptConfig, **more: Any) -> None:
    """Writes the networks of one reward into `folder`, where the way of adapting has any; its settings, and `more` as it is, beside."""
    folder.mkdir(parents=True, exist_ok=True)
    if network is None:
        (folder / ADAPTER).unlink(missing_ok=True)  # of an earlier way
    else:
        save_tensors({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, folder / ADAPTER)
    write_json(folder / ADAPTER_CONFIG, {"environment": environment.describe(), **more, **asdict(config)})


def read_adapter(folder: str | Path, environment: Environment) -> Adapter:
    """N and Q of a reward, on the CPU; `Adapter.policy` samples for it (`trajectories.roll`).

    Raises:
        BadInput: there are none, or they are damaged. UsageError: they were made for another environment.
    """
    path = own_file(Path(folder), ADAPTER_CONFIG)
    found = read_json(path)
    if not isinstance(found, dict) or found.get("way") != "amortised" or not isinstance(found.get("environment"), dict):
        raise BadInput("is of no amortised predictor.", "Give a folder that `headstart adapt` wrote.", file=path)
    refuse_other(found["environment"], environment, folder)
    names = {field.name for field in fields(AdaptConfig)}
    try:
        adapter = Adapter(environment, AdaptConfig(**{name: value for name, value in found.items() if name in names}))
        adapter.load_state_dict(load_file(own_file(Path(folder), ADAPTER)))
    except (SafetensorError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise BadInput(f"does not fit ({str(error).splitlines()[0]}).", "Adapt again.", file=Path(folder) / ADAPTER) from None
    return adapter
