"""Weights of vision transformers from elsewhere, and exports that others load.

- Read: official checkpoints of MAE and DropPos (`{"model": ...}`, names with `module.` in front), files and folders of timm, folders of transformers
  (ViT, ViTMAE, DINOv2), our own exports. `.pth` files are read with `weights_only=True`, after a look at their size.
- Adapted, and said: positions to another grid (bicubic), the patch embedding to another number of channels.
- Written: a transformers ViT folder, the same weights under timm's names, what a method needs beside them to go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from headstart.backbones.positions import Grid, interpolate_positions
from headstart.backbones.vit import ViT, ViTConfig, adapt_channels
from headstart.core.errors import BadInput
from headstart.core.files import read_json, write_json
from headstart.core.hardware import memory_total
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.data.image.reading import KEY, USUAL, Reading
from headstart.interop.model_folder import (
    FREE_BYTES,
    MAX_CONFIG_BYTES,
    MAX_GROWTH,
    MAX_LAYERS,
    MAX_SIDE,
    read_config,
    refuse_not_finite,
    refuse_strange_entries,
    refuse_unexplained,
    weight_files,
)
from headstart.interop.vit_names import fold_layer_scale, from_transformers, is_transformers, to_transformers

TIMM_FILE = "timm.safetensors"
"""Of an export: the encoder under timm's names."""
SHAPE_FILE = "vit.json"
"""Of an export: the encoder's `ViTConfig`."""
METHOD_FILE = "method.safetensors"
"""Of an export: what the method trained beside the encoder (a decoder), under the official names."""
FRESH = "fresh"
"""The attribute of a module beside an encoder that names its weights that no file gave, tuple[str, ...] (`load_beside`)."""

HEADS = {192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
"""Attention heads of the published encoders by their width: no weight tells them."""
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("module.", "_orig_mod.", "backbone.")
_LEFT_OUT = (
    "head.", "head_dist.", "fc_norm.", "pooler.", "classifier.", "mask_token", "embeddings.mask_token", "decoder", "aux_", "mask_pos_token",
    "proj_up_", "up_block",
)  # fmt: skip
"""What an encoder does not need."""


@dataclass(frozen=True)
class Weights:
    """A vision transformer from elsewhere: its weights under timm's and the official names, and what is known of its shape."""

    file: Path
    state: dict[str, Tensor]
    num_heads: int | None
    grid: Grid | None
    """Rows and columns of its positions; None: it has none."""

    @property
    def hidden_size(self) -> int:
        return self.state["patch_embed.proj.weight"].shape[0]

    @property
    def patch_size(self) -> int:
        return self.state["patch_embed.proj.weight"].shape[2]

    @property
    def channels(self) -> int:
        return self.state["patch_embed.proj.weight"].shape[1]

    @property
    def num_layers(self) -> int:
        return count_blocks(self.state, "blocks.")

    @property
    def mlp_ratio(self) -> float:
        return self.state["blocks.0.mlp.fc1.weight"].shape[0] / self.hidden_size

    def settings(self) -> dict[str, Any]:
        """The sizes that go on with the weights, as a method's Config names them."""
        return {
            "patch_size": self.patch_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
        } | ({} if self.num_heads is None else {"num_heads": self.num_heads})

    def shape(self, **changes: Any) -> ViTConfig:
        """The network that the weights are of.

        Raises:
            BadInput: nobody knows its number of heads.
        """
        if self.num_heads is None and "num_heads" not in changes:
            raise BadInput(f"does not say how many heads its width of {self.hidden_size} is split over", "Give the number.", file=self.file)
        grid = self.grid or (14, 14)
        config = ViTConfig(
            image_size=(grid[0] * self.patch_size, grid[1] * self.patch_size),
            patch_size=self.patch_size,
            channels=self.channels,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads or 1,
            mlp_ratio=self.mlp_ratio,
            qkv_bias="blocks.0.attn.qkv.bias" in self.state,
            class_token="cls_token" in self.state,
            positions="none" if self.grid is None else "learned",
        )
        return config.at(**changes)


VISION_TYPES = ("vit", "vit_mae", "dinov2", "deit")
"""transformers' names of the networks that are read here."""


def is_vision(folder: Path) -> bool:
    """Whether a model folder says that it holds a vision transformer."""
    if (folder / SHAPE_FILE).is_file():
        return True
    if not (folder / "config.json").is_file():
        return False
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES)
    return isinstance(raw, dict) and (raw.get("model_type") in VISION_TYPES or ("architecture" in raw and "model_type" not in raw))


def read_vit(path: str | Path) -> Weights:
    """A vision transformer's weights, from a file (.safetensors, .pth) or a folder (ours, transformers', timm's).

    Raises:
        BadInput: there is no vision transformer, or it has parts that ours has not.
    """
    path = Path(path)
    heads: int | None = None
    grid: Grid | None = None
    if path.is_dir():
        raw, files = _folder(path)
        heads, grid = raw.get("num_heads"), raw.get("grid")
        state: dict[str, Tensor] = {}
        for file in files:
            state |= read_tensors(file)
    else:
        state = read_tensors(path)
    state = fold_layer_scale(from_transformers(state) if is_transformers(state) else state)
    _refuse_other_networks(state, path)
    if "pos_embed" not in state:
        grid = None
    elif grid is None:
        grid = _square(state["pos_embed"].shape[1] - ("cls_token" in state), path)
    width = state["patch_embed.proj.weight"].shape[0]
    return Weights(path, state, heads or HEADS.get(width), grid)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file, float32, wrappers' prefixes gone. No code of a file is run.

    Raises:
        BadInput: no such file, one of another kind, one that would take more memory than it explains, or a weight is no finite number.
    """
    if not path.is_file():
        raise BadInput("there is no such file or folder", "Give a checkpoint file, or a folder with config.json and weights.", file=path)
    if path.suffix not in (".safetensors", *_TORCH_SUFFIXES):
        raise BadInput(f"is no weight file ({path.suffix or 'no suffix'})", "Give a .safetensors or .pth file.", file=path)
    state = read_state(path)
    refuse_not_finite(state.items(), path)
    return {_unwrapped(name): value.float() for name, value in state.items() if value.is_floating_point()}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save or safetensors, as they are. No code of it is run.

    Raises:
        BadInput: as `read_tensors`, but for weights that are no finite number: some formats mark what is pruned so.
    """
    size = path.stat().st_size
    if size > (memory_total() or 2**40):
        raise BadInput(f"has {size / 2**30:.0f} GiB, more than this machine's memory", "Use a smaller model.", file=path)
    if path.suffix == ".safetensors":
        try:
            found: Any = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise BadInput(f"cannot be read as safetensors ({first_line(error)})", "Save it again.", file=path) from None
    else:
        found = _read_torch(path)
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    needed = sum(4 * value.numel() for value in tensors.values())
    if needed > FREE_BYTES + MAX_GROWTH * size:
        raise BadInput(f"describes tensors of {needed / 2**20:,.0f} MiB, it has {size / 2**20:,.0f} MiB", "Use another file.", file=path)
    return tensors


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        mend = "Load it with a torch that made it, and save it again with torch.save or as safetensors."
        raise BadInput("is no file of torch.save (1.6 or newer)", mend, file=path) from None
    if packed:
        raise BadInput("is compressed, as torch.save never does", "Save it again with torch.save.", file=path)
    try:
        # MAE's files hold their command line as a Namespace, a bag of names and values; nothing else is allowed.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file provokes
        what = f"cannot be read without running what it holds ({first_line(error)})"
        raise BadInput(what, "Save its weights alone, as safetensors.", file=path) from None
    for key in ("model", "state_dict", "module"):  # the last one is DeepSpeed's
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise BadInput("holds no weights by name", "Give a checkpoint with a state_dict.", file=path)
    return found


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _folder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """What a folder says of its shape, and its weight files."""
    if (folder / SHAPE_FILE).is_file():
        config = read_shape(folder)
        beside = [folder / METHOD_FILE] if (folder / METHOD_FILE).is_file() else []
        return {"num_heads": config.num_heads, "grid": config.grid}, [folder / TIMM_FILE, *beside]
    refuse_strange_entries(folder)
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES) if (folder / "config.json").is_file() else {}
    if isinstance(raw, dict) and "architecture" in raw and "model_type" not in raw:  # timm's own
        return {}, weight_files(folder)
    config = read_config(folder)
    if config.model_type not in VISION_TYPES:
        what = f"holds a {config.model_type} model"
        raise BadInput(what, "Give a plain vision transformer (ViT, ViTMAE, DINOv2).", file=folder)
    sides = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size, config.image_size)
    grid = (sides[0] // config.patch_size, sides[1] // config.patch_size)
    return {"num_heads": config.num_attention_heads, "grid": grid}, weight_files(folder, raw)


def read_shape(folder: Path) -> ViTConfig:
    """The `ViTConfig` that an export of ours states; its weights explain a network of that size.

    Raises:
        BadInput: it is not what we write.
    """
    refuse_strange_entries(folder)
    path = folder / SHAPE_FILE
    raw, mend = read_json(path, MAX_CONFIG_BYTES), "Export the model again."
    try:
        raw["image_size"] = tuple(raw["image_size"])
        raw["groups"] = tuple(tuple(group) for group in raw["groups"])
        config = ViTConfig(**raw)
        many = max(config.num_layers, len(config.groups)) > MAX_LAYERS or max(config.image_size) > MAX_SIDE
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(f"is no shape of a vision transformer ({first_line(error)})", mend, file=path) from None
    if many:
        raise BadInput(f"states more than {MAX_LAYERS:,} layers or groups, or images of more than {MAX_SIDE:,} pixels a side", mend, file=path)
    refuse_unexplained(lambda: ViT(config), folder / TIMM_FILE, path)
    return config


def _refuse_other_networks(state: Mapping[str, Tensor], path: Path) -> None:
    mend = "Give a plain vision transformer with timm's, MAE's or transformers' names."
    weight = state.get("patch_embed.proj.weight")
    if weight is None or weight.ndim != 4 or "blocks.0.attn.qkv.weight" not in state or "blocks.0.mlp.fc1.weight" not in state:
        raise BadInput("holds no vision transformer that is known here", mend, file=path)
    if weight.shape[2] != weight.shape[3]:
        raise BadInput(f"has patches of {weight.shape[2]} x {weight.shape[3]} pixels", "Give one with square patches.", file=path)
    if registers := [name for name in ("register_tokens", "reg_token") if name in state]:
        what = f"has register tokens ({registers[0]}), without which it computes something else"
        raise BadInput(what, "Give the same network without them (dinov2_vits14, not dinov2_vits14_reg).", file=path)
    if count_blocks(state, "blocks.") > MAX_LAYERS:
        raise BadInput(f"has more than {MAX_LAYERS:,} blocks", mend, file=path)
    known = {"norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    for name in state:
        if name.startswith("blocks."):
            parts = name.split(".")
            if not parts[1].isdigit() or ".".join(parts[2:-1]) not in known:
                raise BadInput(f"has a part that a plain vision transformer has not: {name}", mend, file=path)


def _square(tokens: int, path: Path) -> Grid:
    side = math.isqrt(max(0, tokens))
    if side * side != tokens or side == 0:
        raise BadInput(f"has {tokens} positions, which are no square grid", "Use a folder whose config.json says the image size.", file=path)
    return side, side


def count_blocks(names: Mapping[str, Any], prefix: str) -> int:
    """Number of blocks that names such as `blocks.11.norm1.weight` speak of."""
    numbers = (name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)


@torch.no_grad()
def load_encoder(network: ViT, found: Weights) -> list[str]:
    """Puts weights into a network of their width and depth.

    Returns:
        what was adapted or left as it was, a sentence each.

    Raises:
        BadInput: weights are missing, left over or of another shape.
    """
    config, notes = network.config, []
    state = {name: value for name, value in found.state.items() if not name.startswith(_LEFT_OUT)}
    own = network.state_dict()
    if found.channels != config.channels and not config.groups:
        state["patch_embed.proj.weight"] = adapt_channels(state["patch_embed.proj.weight"], config.channels)
        notes.append(f"The patch embedding was made for {found.channels} channels and was adapted to {config.channels}.")
    if "pos_embed" in state and "pos_embed" not in own:
        del state["pos_embed"]
        notes.append("The positions of the file are not used.")
    elif "pos_embed" in state:
        state["pos_embed"] = _adapted_positions(state["pos_embed"], found, config, notes)
    if "cls_token" in state and not config.class_token:
        del state["cls_token"]
    for name in ("pos_embed", "cls_token", "norm.weight", "norm.bias"):
        if name in own and name not in state:
            state[name] = own[name]
            notes.append(f"The file has no {name}: it starts fresh.")
    _load(network, state, found.file)
    return notes


def _adapted_positions(table: Tensor, found: Weights, config: ViTConfig, notes: list[str]) -> Tensor:
    assert found.grid is not None
    class_row = table.shape[1] - found.grid[0] * found.grid[1]
    if found.grid != config.grid:
        old, new = (f"{rows} x {columns}" for rows, columns in (found.grid, config.grid))
        notes.append(f"The positions of a grid of {old} patches were interpolated (bicubic) to {new}.")
    table = interpolate_positions(table, found.grid, config.grid)
    if class_row and not config.class_token:
        return table[:, class_row:]
    if config.class_token and not class_row:
        return torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    return table


@torch.no_grad()
def load_beside(module: torch.nn.Module, found: Weights, *, grid: Grid, prefix: str = "") -> list[str]:
    """Puts what a method trained beside the encoder (a decoder) into `module`; a part that does not fit, or is not there, starts fresh. So does all
    of it where only one of the two has positions: MAE's decoder and DropPos's have the same names and another task.

    Args:
        grid: of the module's positions; tables of another grid are interpolated.
        prefix: of the names in the file (`aux_`).

    The names of what starts fresh stay with the module, as its attribute `FRESH`: who trains twice from one file may train them first.
    """
    own = module.state_dict()
    of_file = {} if ("decoder_pos_embed" in own) != (f"{prefix}decoder_pos_embed" in found.state) else found.state
    state, fresh = {}, []
    for name, value in own.items():
        given = of_file.get(prefix + name)
        if given is not None and name.endswith("pos_embed") and found.grid is not None:
            given = interpolate_positions(given, found.grid, grid)
        fits = given is not None and given.shape == value.shape
        state[name] = given if fits and given is not None else value
        if not fits:
            fresh.append(name)
    module.load_state_dict(state)
    setattr(module, FRESH, tuple(fresh))
    if len(fresh) == len(own):
        return ["The decoder starts fresh: the file holds none of this kind and size."]
    return [f"Of the decoder, {len(fresh)} weights start fresh ({', '.join(fresh[:3])}): the file's have another shape."] if fresh else []


def _load(network: torch.nn.Module, state: dict[str, Tensor], file: Path) -> None:
    own = network.state_dict()
    missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    mend = "Use the sizes of these weights (they are taken when you leave out the --method sizes)."
    if missing or left_over:
        what = f"lacks {len(missing)} weights of the network and has {len(left_over)} others, for example {(missing + left_over)[0]}"
        raise BadInput(what, mend, file=file)
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise BadInput(f"{name} is {list(value.shape)}, the network's is {list(own[name].shape)}", mend, file=file)
    network.load_state_dict(state)


def load_vit(path: str | Path, **changes: Any) -> tuple[ViT, list[str]]:
    """The encoder of a file or folder, adapted to other sizes.

    Args:
        changes: of its `ViTConfig`: image_size, channels, drop_path, num_heads ...

    Returns:
        the network, and what was adapted.
    """
    path = Path(path)
    stated = read_shape(path) if (path / SHAPE_FILE).is_file() else None
    if stated is not None and stated.groups:  # one patch embedding per group: nothing to adapt it to
        network = ViT(stated.at(**changes))
        _load(network, read_tensors(path / TIMM_FILE), path)
        return network, []
    found = read_vit(path)
    network = ViT(found.shape(**changes) if stated is None else stated.at(**changes))
    return network, load_encoder(network, found)


def stated_statistics(folder: Path, channels: int) -> tuple[Tensor, Tensor] | None:
    """float32 [channels] mean and deviation that a folder's `preprocessor_config.json` says, in the values of the images' files; None where it says
    none, or of another number of channels."""
    path = folder / "preprocessor_config.json"
    found = read_json(path, MAX_CONFIG_BYTES) if path.is_file() else {}
    mean, std = (found.get(name) for name in ("image_mean", "image_std")) if isinstance(found, dict) else (None, None)
    if not isinstance(mean, list) or not isinstance(std, list) or not len(mean) == len(std) == channels:
        return None
    scale = 1.0 / float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 1.0
    return torch.tensor(mean, dtype=torch.float32) * scale, torch.tensor(std, dtype=torch.float32) * scale


def stated_reading(folder: Path) -> Reading:
    """How the images of a folder's network are read from their files, as its `preprocessor_config.json` says; else the usual way.

    Raises:
        BadInput: it says something else.
    """
    path = folder / "preprocessor_config.json"
    found = read_json(path, MAX_CONFIG_BYTES) if path.is_file() else {}
    try:
        return Reading.from_json(found.get(KEY, {})) if isinstance(found, dict) else USUAL
    except (ValueError, TypeError) as error:
        raise BadInput(f"says how images are read in words that are not read ({first_line(error)}).", "Export the model again.", file=path) from None


def has_transformers_class(config: ViTConfig) -> bool:
    """Whether transformers' ViTModel computes the same."""
    return config.class_token and config.positions in ("sincos", "learned") and not config.groups


def save_vit(network: ViT, folder: str | Path, preprocessor: Mapping[str, Any] | None = None, beside: Mapping[str, Tensor] | None = None) -> None:
    """Writes an encoder: `config.json` and `model.safetensors` (transformers' ViTModel, where it has such a network), `timm.safetensors`, `vit.json`.

    Args:
        preprocessor: `preprocessor_config.json`.
        beside: what the method trained beside it, under the official names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().float().contiguous() for name, value in network.state_dict().items()}
    save_tensors(state, folder / TIMM_FILE, metadata={"format": "pt"})
    write_json(folder / SHAPE_FILE, dataclasses.asdict(network.config))
    if beside:
        tensors = {name: value.detach().cpu().float().contiguous() for name, value in beside.items()}
        save_tensors(tensors, folder / METHOD_FILE, metadata={"format": "pt"})
    if has_transformers_class(network.config):
        save_tensors(to_transformers(state), folder / "model.safetensors", metadata={"format": "pt"})
        transformers_config(network.config).save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")


def transformers_config(config: ViTConfig, architecture: str = "ViTModel") -> transformers.ViTConfig:
    """The same shape as transformers' ViT knows it."""
    height, width = config.image_size
    return transformers.ViTConfig(
        architectures=[architecture],
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=int(config.hidden_size * config.mlp_ratio),
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        image_size=height if height == width else [height, width],
        patch_size=config.patch_size,
        num_channels=config.channels,
        qkv_bias=config.qkv_bias,
        dtype="float32",
    )
