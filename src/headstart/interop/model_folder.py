"""A model folder of transformers from someone else: what is looked at before transformers reads it.

- No file outside the folder: no link, no name in an index or configuration that leads away.
- No code of the folder, no code from elsewhere that the folder names (attention kernels, the base of an adapter).
- Sizes before memory: a network is first built without memory, and must fit the weights that the folder holds.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_bounded, read_json, refuse_many_values
from headstart.core.hardware import memory_total
from headstart.core.words import first_line

MAX_CONFIG_BYTES = 2**24
"""Of config.json, tokenizer_config.json and an index of weights."""
MAX_LAYERS = 1024
"""Any number of layers in a config.json; four times as many take 10 s to build before their size is known."""
MAX_SIDE = 2**13
"""Pixels of a side that a vision model's own file may say its images have."""
MAX_LABELS = 2**20
"""`num_labels` of a config.json: it becomes a dictionary."""
FREE_BYTES = 2**28
"""A network of this size in float32 may be built whatever its weight files hold."""
MAX_GROWTH = 8
"""Beyond that, bytes of the network in float32 for each byte of its weight files: 4-bit weights become 8 times as large."""

SIZES = {
    "vocab_size", "hidden_size", "embedding_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
}  # fmt: skip
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def read_config(folder: Path) -> Any:
    """The transformers configuration of a folder whose network can be built.

    Raises:
        BadInput: there is none, or it asks for code, files from elsewhere, or more memory than its weights explain.
    """
    if not folder.is_dir():
        raise BadInput("there is no such folder", "Give a folder that holds config.json, weights and a tokenizer.", file=folder)
    path = folder / "config.json"
    if not path.is_file():
        mend = "Give the export folder of a run, or a model saved with save_pretrained."
        raise BadInput("config.json is missing, so this is no transformers folder", mend, file=folder)
    refuse_strange_entries(folder)
    raw = _read_object(path)
    _refuse_settings(raw, path)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        needed = network_bytes(lambda: AutoModel.from_config(config))
    except Exception as error:  # a class of transformers meets values that it was not written for
        what = f"names the architecture {raw.get('model_type')!r}, which transformers {transformers.__version__} cannot build ({first_line(error)})"
        raise BadInput(what, "Upgrade transformers, or use another model.", file=path) from None
    files = weight_files(folder, raw)
    held = sum(file.stat().st_size for file in files)
    allowed = FREE_BYTES + MAX_GROWTH * held if files else memory_total() or 2**33
    if needed > allowed:
        have = f"its weights have {held / 2**20:,.0f} MiB" if files else "there are no weights and not so much memory"
        raise BadInput(f"describes a network of {needed / 2**20:,.0f} MiB, {have}.", "Use the config.json of these weights.", file=path)
    return config


def weight_files(folder: Path, config: dict[str, Any] | None = None) -> list[Path]:
    """The files that transformers would read weights from; none if there are none.

    Raises:
        BadInput: one of them is missing, or outside.
    """
    if isinstance(name := (config or {}).get("transformers_weights"), str):
        return [_own(folder, name)]
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        return []
    if not name.endswith(".json"):
        return [_own(folder, name)]
    parts = _read_object(folder / name).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise BadInput("maps no weights to files", "Save the model again.", file=folder / name)
    return [_own(folder, part) for part in sorted(set(parts.values()))]


def refuse_strange_entries(folder: Path) -> None:
    """Raises BadInput for a link that leads out of the folder, a pipe or a device. In a cache of the Hub, whose snapshots are links, "out" is out of
    the model's own cache folder."""
    root = os.path.realpath(_root(folder)).rstrip("/") + "/"
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root):
                raise BadInput("leads out of its folder.", "Put the file itself there instead of a link.", file=entry.path)
            if not entry.is_symlink() and stat.S_IFMT(entry.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise BadInput("is neither a file nor a folder.", "Remove it.", file=entry.path)
    if (folder / "adapter_config.json").exists():  # transformers would look for its base model elsewhere
        raise BadInput("holds an adapter for another model", "Merge the two (peft: merge_and_unload) and save the result.", file=folder)


def check_tokenizer_config(folder: Path) -> None:
    """Raises BadInput where tokenizer_config.json names files elsewhere; older versions of transformers open them."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    stated = read_json(path, MAX_CONFIG_BYTES)
    named = [value for key, value in stated.items() if key.endswith("_file")] if isinstance(stated, dict) else []
    versions = stated.get("fast_tokenizer_files") if isinstance(stated, dict) else None
    for name in named + (versions if isinstance(versions, list) else []):
        # Many old folders carry the path of the machine that wrote them. It does no harm where it leads nowhere.
        if isinstance(name, str) and (Path(name).exists() or (folder / name).exists()):
            _own(folder, name)


def _root(folder: Path) -> Path:
    """What the files of a model may not lead out of."""
    return folder.parent.parent if folder.parent.name == "snapshots" else folder


def _own(folder: Path, name: str) -> Path:
    root = _root(folder)
    return own_file(root, str(folder.relative_to(root) / name))


def _read_object(path: Path) -> dict[str, Any]:
    data = read_bounded(path, MAX_CONFIG_BYTES, "configuration")
    try:
        refuse_many_values(data)
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not valid JSON ({error})", "Save the model again.", file=path) from None
    if not isinstance(raw, dict):
        raise BadInput("is not a JSON object", "Save the model again.", file=path)
    return raw


def _refuse_settings(raw: dict[str, Any], path: Path) -> None:
    if "auto_map" in raw and raw.get("model_type") not in transformers.CONFIG_MAPPING:
        mend = "Use an architecture that transformers itself holds."
        raise BadInput("needs program code from its own folder, which is never run here", mend, file=path)
    if raw.get("quantization_config"):
        raise BadInput("is of quantised weights, which cannot be trained", "Use the model that they were made from.", file=path)
    if not isinstance(names := raw.get("architectures") or [], list) or not all(isinstance(name, str) for name in names):
        raise BadInput("architectures is no list of names", "Save the model again.", file=path)
    for key in SIZES & raw.keys():
        if type(raw[key]) is not int or raw[key] < 1:
            raise BadInput(f"{key} is {raw[key]!r}, not a size", "Use the config.json of these weights.", file=path)
    for key, value in _settings(raw):
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:  # transformers would fetch and run it
            raise BadInput(f"names program code from elsewhere ({key}: {value!r}), which is never run here", "Remove the entry.", file=path)
        limit = MAX_LAYERS if "layer" in key else MAX_LABELS if key == "num_labels" else math.inf
        if isinstance(value, int | float) and abs(value) > limit:
            raise BadInput(f"{key} is {value:,}, more than the {limit:,} that are built", "Use the config.json of these weights.", file=path)


def _settings(raw: Any) -> Iterator[tuple[str, Any]]:
    """All settings, those of nested configurations too."""
    if isinstance(raw, dict):
        yield from raw.items()
        for value in raw.values():
            yield from _settings(value)


def network_bytes(build: Callable[[], nn.Module]) -> int:
    """Bytes of the network in float32, its buffers too. It is built on the meta device, without memory, in about 0.05 s."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = build()
    return 4 * sum(tensor.numel() for tensor in chain(network.parameters(), network.buffers()))


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], file: Path) -> None:
    """Raises BadInput, with the tensor's name, where a weight is no finite number: every loss of such a model is none either."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadInput(f"{name} holds numbers that are not finite.", "Take an earlier checkpoint of this model.", file=file)


def refuse_unexplained(build: Callable[[], nn.Module], weights: Path, file: Path) -> None:
    """Raises BadInput where the network that `file` states cannot be built, or is larger than the file of its weights explains."""
    mend = "Use the file that was written with these weights."
    held = weights.stat().st_size if weights.is_file() else 0
    try:
        needed = network_bytes(build)
    except Exception as error:  # sizes that no network was written for
        raise BadInput(f"states a network that cannot be built ({first_line(error)})", mend, file=file) from None
    if needed > FREE_BYTES + MAX_GROWTH * held:
        raise BadInput(f"states a network of {needed / 2**20:,.0f} MiB, its weights have {held / 2**20:,.0f} MiB", mend, file=file)


def count_layers(names: Iterable[str], prefix: str, file: Path) -> int:
    """The number of layers that names such as `encoder.layer.11.output.dense.weight` speak of.

    Raises:
        BadInput: more than are built.
    """
    numbers = (name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix))
    count = max((1 + int(number[:20]) for number in numbers if number.isdecimal()), default=0)
    if count > MAX_LAYERS:
        raise BadInput(f"has {count:,} layers, more than the {MAX_LAYERS:,} that are built.", "Copy the checkpoint again.", file=file)
    return count


def filled(build: Callable[[], Any], state: Mapping[str, Tensor], file: Path) -> Any:
    """A network in evaluation mode with these weights and no others, float32.

    Raises:
        BadInput: it is larger than its file explains; weights are missing, left over, of another shape, or no finite numbers.
    """
    refuse_unexplained(build, file, file)
    with torch.random.fork_rng(devices=[]):
        network = build()
    own, mend = network.state_dict(), "Copy the checkpoint again; or it is of a network that is not read here."
    if missing := sorted(own.keys() - state.keys()):
        raise BadInput(f"lacks {len(missing)} weights, for example {missing[0]}: they would start random.", mend, file=file)
    if left_over := sorted(state.keys() - own.keys()):
        raise BadInput(f"holds {len(left_over)} weights that the network has no place for, for example {left_over[0]}.", mend, file=file)
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise BadInput(f"{name} has the shape {list(value.shape)}, the network's {list(own[name].shape)}.", mend, file=file)
    refuse_not_finite(state.items(), file)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval()
