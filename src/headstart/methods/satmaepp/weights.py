"""Weights of SatMAE++ and SatMAE: released files in, exports out.

- Read: the authors' checkpoints, grouped (`patch_embed.0.proj...`) and optical, pre-trained and fine-tuned; our exports; any plain vision
  transformer, whose patch embedding is then adapted to each group.
- torchgeo and terratorch read SatMAE's weights by the names that an export writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from headstart.backbones.positions import interpolate_positions
from headstart.backbones.vit import ViT, adapt_channels
from headstart.core.errors import BadInput
from headstart.core.files import read_json
from headstart.interop.model_folder import MAX_CONFIG_BYTES
from headstart.interop.vit import (
    HEADS,
    METHOD_FILE,
    SHAPE_FILE,
    TIMM_FILE,
    Weights,
    count_blocks,
    load_encoder,
    read_shape,
    read_tensors,
    read_vit,
)
from headstart.methods.satmaepp.config import Scaling

BANDS_FILE = "bands.json"
"""Of an export: names, groups and statistics of the bands, and how values become pixels."""
_BESIDE = ("decoder", "mask_token", "proj_up", "up_block", "fc_norm.", "head.", "channel_cls_embed")
"""What a checkpoint holds beside the encoder."""


def is_grouped(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of a network with a patch embedding for each group of bands."""
    return "patch_embed.0.proj.weight" in state


def read_weights(path: Path) -> Weights:
    """The weights of a file or folder, grouped or plain.

    Raises:
        BadInput: there is no vision transformer, or it has parts that ours has not.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / SHAPE_FILE).is_file() or not read_shape(path).groups:
            return read_vit(path)
        files = [file for file in (path / TIMM_FILE, path / METHOD_FILE) if file.is_file()]
    else:
        files = [path]
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_tensors(file)
    if not is_grouped(state):
        return read_vit(path)
    return _grouped(path, state)


def _grouped(path: Path, state: dict[str, Tensor]) -> Weights:
    mend = "Give a checkpoint of SatMAE or SatMAE++ with groups of bands."
    patches = _patches(state)
    needed = ("pos_embed", "cls_token", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight")
    if lacking := [name for name in needed if name not in state]:
        raise BadInput(f"lacks {lacking[0]}.", mend, file=path)
    sides = {tuple(weight.shape[2:]) for weight in patches}
    if any(weight.ndim != 4 for weight in patches) or len(sides) != 1 or len(set(*sides)) != 1:
        raise BadInput("has patch embeddings that are not square or not of one size.", mend, file=path)
    cells = state["pos_embed"].shape[1] - 1
    side = math.isqrt(max(0, cells))
    if side * side != cells or not side:
        raise BadInput(f"has {cells} positions, which are no square grid.", mend, file=path)
    if "channel_cls_embed" in state:  # fine-tuning adds a position to the class token; the sum says the same
        state["cls_token"] = state["cls_token"] + torch.cat([state["pos_embed"][:, :1], state["channel_cls_embed"]], dim=2)
    raw = read_shape(path).num_heads if path.is_dir() else HEADS.get(patches[0].shape[0])
    return Weights(path, state, raw, (side, side))


def _of_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(_BESIDE)}


def _patches(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[f"patch_embed.{i}.proj.weight"] for i in range(count_blocks(state, "patch_embed."))]


def settings_of(found: Weights) -> dict[str, Any]:
    """The sizes that go on with the weights, as the method's Config names them; of an export of ours also its bands and what they are scaled by."""
    bands = read_bands(found.file) if (found.file / BANDS_FILE).is_file() else {}
    of_bands = {"scaling": bands["scaling"]} if bands else {}
    if not is_grouped(found.state):
        return found.settings() | of_bands
    first = _patches(found.state)[0]
    settings: dict[str, Any] = {
        "patch_size": first.shape[2],
        "hidden_size": first.shape[0],
        "num_layers": count_blocks(found.state, "blocks."),
        "group_width": found.state["channel_embed"].shape[2] if "channel_embed" in found.state else 0,
    }
    if found.num_heads is not None:
        settings["num_heads"] = found.num_heads
    if bands:
        settings |= {"band_names": tuple(bands["band_names"]), "groups": tuple(bands["groups"])}
    return settings | of_bands


def read_bands(folder: Path) -> dict[str, Any]:
    """What an export says of its bands: band_names, groups (as `--method.groups` takes them), mean, std, scaling, image_size.

    Raises:
        BadInput: it is not what we write.
    """
    raw = read_json(folder / BANDS_FILE, MAX_CONFIG_BYTES)
    names = {"band_names": str, "groups": str, "mean": float, "std": float}
    if (
        not isinstance(raw, dict)
        or raw.get("scaling") not in get_args(Scaling)
        or not all(isinstance(raw.get(name), list) and all(isinstance(value, kind) for value in raw[name]) for name, kind in names.items())
    ):
        raise BadInput("does not say names, groups and statistics of bands.", "Export the model again.", file=folder / BANDS_FILE)
    return raw


@torch.no_grad()
def load_into(network: ViT, found: Weights) -> list[str]:
    """Puts weights into an encoder of their width and depth.

    Returns:
        what was adapted or left as it was, a sentence each.

    Raises:
        BadInput: weights are missing, left over or of another shape; the groups are others.
    """
    groups = network.config.groups
    if not groups and is_grouped(found.state):
        raise BadInput("has groups of bands, this network has none.", "Give --method.groups, or weights of an optical network.", file=found.file)
    if not groups:
        return load_encoder(network, found)
    state, notes = _adapted(network, found) if is_grouped(found.state) else _from_plain(network, found)
    own = network.state_dict()
    for name in ("norm.weight", "norm.bias"):
        if name not in state:
            state[name] = own[name]
            notes.append(f"The file has no {name}: it starts fresh.")
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    mend = "Use the sizes and groups of these weights (they are taken when you leave them out)."
    if missing or left_over:
        what = f"lacks {len(missing)} weights of the network and has {len(left_over)} others, for example {(missing + left_over)[0]}."
        raise BadInput(what, mend, file=found.file)
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise BadInput(f"{name} is {list(value.shape)}, the network's is {list(own[name].shape)}.", mend, file=found.file)
    network.load_state_dict(state)
    return notes


def _adapted(network: ViT, found: Weights) -> tuple[dict[str, Tensor], list[str]]:
    config, notes = network.config, []
    sizes = [weight.shape[1] for weight in _patches(found.state)]
    if sizes != [len(group) for group in config.groups]:
        raise BadInput(
            f"has groups of {sizes} bands, this network has groups of {[len(group) for group in config.groups]}.",
            "Give --method.groups as the weights have them; --image.bands chooses bands of the files.",
            file=found.file,
        )
    state = _of_encoder(found.state)
    assert found.grid is not None
    if found.grid != config.grid:
        old, new = (f"{rows} x {columns}" for rows, columns in (found.grid, config.grid))
        notes.append(f"The positions of a grid of {old} patches were interpolated (bicubic) to {new}.")
        state["pos_embed"] = interpolate_positions(state["pos_embed"], found.grid, config.grid)
    return state, notes


def _from_plain(network: ViT, found: Weights) -> tuple[dict[str, Tensor], list[str]]:
    """A plain vision transformer's blocks; its patch embedding for each group; positions stay those of the groups."""
    own = network.state_dict()
    weight, bias = found.state["patch_embed.proj.weight"], found.state["patch_embed.proj.bias"]
    state = {name: value for name, value in found.state.items() if name.startswith(("blocks.", "norm."))}
    for i, group in enumerate(network.config.groups):
        state[f"patch_embed.{i}.proj.weight"], state[f"patch_embed.{i}.proj.bias"] = adapt_channels(weight, len(group)), bias
    for name in ("pos_embed", "channel_embed"):
        if name in own:
            state[name] = own[name]
    state["cls_token"] = found.state.get("cls_token", own["cls_token"])
    if "cls_token" in found.state and "pos_embed" in found.state and found.grid is not None:
        in_front = found.state["pos_embed"].shape[1] - found.grid[0] * found.grid[1]
        if in_front:
            state["cls_token"] = state["cls_token"] + found.state["pos_embed"][:, :1]
    note = f"The patch embedding was made for {found.channels} channels and was adapted to each group; the positions are those of the groups."
    return state, [note]


@torch.no_grad()
def load_head(head: nn.Module, found: Weights) -> list[str]:
    """Puts weights into the enlarging blocks; those that the file has not, or has in another shape, start fresh."""
    own = head.state_dict()
    fitting = {name: found.state[name] for name, value in own.items() if name in found.state and found.state[name].shape == value.shape}
    head.load_state_dict(own | fitting)
    fresh = len(own) - len(fitting)
    return [f"Of the enlarging blocks, {fresh} of {len(own)} weights start fresh: the file has none of this name and shape."] if fresh else []


def plain_network(encoder: ViT) -> ViT:
    """The plain vision transformer that a grouped one with a single group is: its group's part joins the positions."""
    config = encoder.config
    assert len(config.groups) == 1
    plain = ViT(config.at(groups=(), positions="learned"))
    state = dict(encoder.state_dict())
    order = torch.tensor(config.groups[0])
    state["patch_embed.proj.weight"] = state.pop("patch_embed.0.proj.weight")[:, order.argsort()]
    state["patch_embed.proj.bias"] = state.pop("patch_embed.0.proj.bias")
    places = encoder.positions(config.grid)
    assert places is not None
    state["pos_embed"] = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1)
    state.pop("channel_embed", None)
    plain.load_state_dict(state)
    return plain
