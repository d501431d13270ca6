"""Files of CroCo: the official checkpoints (`CroCo.pth`, `CroCo_V2_*.pth`, self-trained ones) and our exports, which hold the same names.

- Official files are dicts with `model`; the second version's have `croco_kwargs` beside it, self-trained ones `args.model`, the text of a constructor
  call. It is parsed as literals, never run. The first version's has neither: its shape is that of the defaults.
- Names: `enc_blocks`, `enc_norm`, `enc_pos_embed` here and `blocks`, `norm`, `pos_embed` in our encoder; the decoder's are equal. Tables of positions
  have no batch axis in files.
- `croco.safetensors` and `croco.json` of an export are an official checkpoint in two files: state dict and `croco_kwargs`. DUSt3R loads these names.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.backbones.croco import Binocular, CroCoNet, CrossDecoder, DecoderConfig
from headstart.backbones.dpt import from_official as dpt_from_official
from headstart.backbones.positions import Grid
from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput
from headstart.core.files import read_json, write_json
from headstart.core.tensor_files import save_tensors
from headstart.interop.model_folder import MAX_LAYERS, MAX_SIDE, refuse_strange_entries, refuse_unexplained
from headstart.interop.vit import Weights, count_blocks, load_beside, load_encoder, read_tensors, read_vit

WEIGHTS_FILE, SHAPE_FILE = "croco.safetensors", "croco.json"
"""Of an export: the whole network under the official names, and its `croco_kwargs`."""
MAX_SHAPE_BYTES = 2**16
DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "mask_ratio": 0.9,
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "mlp_ratio": 4,
    "norm_im2_in_dec": True,
    "pos_embed": "cosine",
}
"""Of `CroCoNet` in models/croco.py."""
_RENAMED = {"blocks.": "enc_blocks.", "norm.": "enc_norm.", "pos_embed": "enc_pos_embed", "patch_embed.": "patch_embed."}
_TABLES = ("enc_pos_embed", "dec_pos_embed")
_AXES = {"patch_embed.proj.weight": 4, "enc_blocks.0.attn.qkv.weight": 2, "enc_blocks.0.mlp.fc1.weight": 2, "decoder_embed.weight": 2}
_NEEDED = {"patch_embed.proj.weight", "enc_blocks.0.attn.qkv.weight", "enc_blocks.0.mlp.fc1.weight"}
_SIZES = ("patch_size", "enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads")


@dataclass(frozen=True)
class Checkpoint:
    """A CroCo network from elsewhere: its weights under the official names, and its `croco_kwargs`."""

    file: Path
    state: dict[str, Tensor]
    kwargs: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """The sizes that go on with the weights, as `CroCoConfig` names them."""
        return {
            "patch_size": self.kwargs["patch_size"],
            "hidden_size": self.kwargs["enc_embed_dim"],
            "num_layers": self.kwargs["enc_depth"],
            "num_heads": self.kwargs["enc_num_heads"],
            "decoder_hidden_size": self.kwargs["dec_embed_dim"],
            "decoder_layers": self.kwargs["dec_depth"],
            "decoder_heads": self.kwargs["dec_num_heads"],
            "positions": "cosine" if self.kwargs["pos_embed"] == "cosine" else "rope",
            "normalise_memory": self.kwargs["norm_im2_in_dec"],
        }

    def binocular(self) -> tuple[Binocular, list[str]]:
        """Encoder and decoder for tasks on two images, of these sizes, with these weights; and what starts fresh, a sentence each.

        Raises:
            BadInput: it says no image size, or weights do not fit.
        """
        self.shapes()
        network = self.network(_sides(self.kwargs))
        return network, self.load(network)

    def network(self, sides: tuple[int, int]) -> Binocular:
        """Encoder and decoder of these sizes, for images of (height, width) pixels; fresh."""
        encoder, decoder = self._shapes(sides)
        return Binocular(ViT(encoder), CrossDecoder(encoder.hidden_size, decoder, encoder.grid, outputs=0))

    def shapes(self) -> tuple[ViTConfig, DecoderConfig]:
        """Of encoder and decoder.

        Raises:
            BadInput: the image size that it says is none.
        """
        sides, patch_size = _sides(self.kwargs), self.kwargs["patch_size"]
        if not all(patch_size <= side <= MAX_SIDE and side % patch_size == 0 for side in sides):
            raise BadInput(f"says img_size {self.kwargs['img_size']}", "Give the file as it was written.", file=self.file)
        return self._shapes(sides)

    def _shapes(self, sides: tuple[int, int]) -> tuple[ViTConfig, DecoderConfig]:
        kwargs = self.kwargs
        positions, mlp_ratio = "rope" if kwargs["pos_embed"] != "cosine" else "cosine", kwargs["mlp_ratio"]
        encoder = ViTConfig(
            image_size=sides,
            patch_size=kwargs["patch_size"],
            channels=self.state["patch_embed.proj.weight"].shape[1],
            hidden_size=kwargs["enc_embed_dim"],
            num_layers=kwargs["enc_depth"],
            num_heads=kwargs["enc_num_heads"],
            mlp_ratio=mlp_ratio,
            class_token=False,
            positions="rope" if positions == "rope" else "sincos",
        )
        decoder = DecoderConfig(
            hidden_size=kwargs["dec_embed_dim"],
            num_layers=kwargs["dec_depth"],
            num_heads=kwargs["dec_num_heads"],
            mlp_ratio=mlp_ratio,
            positions=positions,  # type: ignore[arg-type]
            normalise_memory=bool(kwargs["norm_im2_in_dec"]),
        )
        return encoder, decoder

    def head(self) -> dict[str, Tensor]:
        """The weights of a DPT head under our names: of CroCo-Stereo and CroCo-Flow. Empty where there is none."""
        return dpt_from_official(self.state)

    def load(self, network: CroCoNet | Binocular) -> list[str]:
        """Puts the weights into a network: the encoder's must fit; of the decoder's those of equal name and shape are taken.

        Returns:
            what was adapted or starts fresh, a sentence each.

        Raises:
            BadInput: the encoder's do not fit.
        """
        state = from_official(self.state)
        grid = _grid(self.state, self.kwargs)
        encoder = {name: value for name, value in state.items() if name.startswith(tuple(_RENAMED))}
        decoder = {name: value for name, value in state.items() if name not in encoder}
        notes = load_encoder(network.encoder, Weights(self.file, encoder, self.kwargs["enc_num_heads"], grid))
        found = Weights(self.file, decoder, self.kwargs["dec_num_heads"], grid)
        return notes + load_beside(network.decoder, found, grid=network.decoder.grid)


def find_croco(path: str | Path) -> Checkpoint | None:
    """The CroCo network of an official checkpoint or of an export's folder; None where a file or folder holds something else.

    Raises:
        BadInput: a file cannot be read, or its stated shape is not that of its weights.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS_FILE).is_file():
            return None
        refuse_strange_entries(path)
        weights = path / WEIGHTS_FILE
        state, stated = read_tensors(weights), read_json(path / SHAPE_FILE, MAX_SHAPE_BYTES)
    else:
        weights, state = path, read_tensors(path)
        if not _NEEDED.issubset(state):
            return None
        stated = _stated(path)
    if not isinstance(stated, dict):
        raise BadInput("says no shape.", "Export the model again.", file=path / SHAPE_FILE)
    kwargs = DEFAULTS | {name: value for name, value in stated.items() if name in DEFAULTS}
    _check(kwargs, state, path)
    found = Checkpoint(path, state, kwargs)
    side = kwargs["patch_size"]
    refuse_unexplained(lambda: found.network((side, side)), weights, path)
    return found


def _stated(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its shape beside the weights."""
    if path.suffix == ".safetensors":
        return {}
    with torch.serialization.safe_globals([argparse.Namespace]):  # `read_tensors` has looked at the file
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(found, dict):
        return {}
    if isinstance(kwargs := found.get("croco_kwargs"), dict):
        return kwargs
    if isinstance(kwargs := getattr(found.get("args"), "croco_args", None), dict):  # of stereoflow/train.py: CroCo-Stereo, CroCo-Flow
        return kwargs
    call = getattr(found.get("args"), "model", None)
    return parse_call(call, path) if isinstance(call, str) else {}


def parse_call(text: str, path: Path) -> dict[str, Any]:
    """The arguments of a text such as "CroCoNet(enc_embed_dim=1024, pos_embed='RoPE100')". Only literals are read; nothing is run.

    Raises:
        BadInput: it is something else.
    """
    mend = "Give the sizes by a file with croco_kwargs."
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name) or call.func.id != "CroCoNet":
            raise ValueError("no call of CroCoNet with named arguments")
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg is not None}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"says its shape as {text[:80]!r}, which is not read ({error})", mend, file=path) from None


def _check(kwargs: dict[str, Any], state: Mapping[str, Tensor], path: Path) -> None:
    """Refuses a stated shape that the weights have not: heads are the one thing that they do not tell."""
    mend = "Give the file as it was written."
    if not _NEEDED.issubset(state) or any(state[name].ndim != axes for name, axes in _AXES.items() if name in state):
        raise BadInput("holds no network of CroCo", mend, file=path)
    sizes = {name: kwargs[name] for name in _SIZES}
    if any(type(size) is not int or size < 1 for size in sizes.values()) or max(sizes["enc_depth"], sizes["dec_depth"]) > MAX_LAYERS:
        raise BadInput(f"says {sizes}", mend, file=path)
    weight = state["patch_embed.proj.weight"]
    hidden = state["enc_blocks.0.mlp.fc1.weight"].shape[0]
    ratio = kwargs["mlp_ratio"]
    if not isinstance(ratio, int | float) or not math.isfinite(ratio) or int(weight.shape[0] * ratio) != hidden:
        raise BadInput(f"says mlp_ratio {ratio}, its weights are of {hidden / weight.shape[0]:g}", mend, file=path)
    true = {
        "patch_size": weight.shape[-1],
        "enc_embed_dim": weight.shape[0],
        "enc_depth": count_blocks(state, "enc_blocks."),
        "dec_embed_dim": state["decoder_embed.weight"].shape[0] if "decoder_embed.weight" in state else kwargs["dec_embed_dim"],
        "dec_depth": count_blocks(state, "dec_blocks.") or kwargs["dec_depth"],
    }
    stated = {name: kwargs[name] for name in true}
    if stated != true:
        raise BadInput(f"says {stated}, its weights are of {true}", mend, file=path)
    for heads, width in ((kwargs["enc_num_heads"], true["enc_embed_dim"]), (kwargs["dec_num_heads"], true["dec_embed_dim"])):
        if width % heads:
            raise BadInput(f"says that a width of {width} is split over {heads} heads", mend, file=path)
    if kwargs["pos_embed"] != ("cosine" if "enc_pos_embed" in state else "RoPE100"):
        raise BadInput(f"says positions {kwargs['pos_embed']!r}; its weights say otherwise, or they are not read", mend, file=path)
    if "enc_pos_embed" in state and math.prod(_grid(state, kwargs) or ()) != len(state["enc_pos_embed"]):
        raise BadInput(f"says img_size {kwargs['img_size']}, its positions are {len(state['enc_pos_embed'])}", mend, file=path)


def _grid(state: Mapping[str, Tensor], kwargs: dict[str, Any]) -> Grid | None:
    """Rows and columns of its tables; None where it has none."""
    if "enc_pos_embed" not in state:
        return None
    height, width = _sides(kwargs)
    return height // kwargs["patch_size"], width // kwargs["patch_size"]


def _sides(kwargs: dict[str, Any]) -> tuple[int, int]:
    """Height and width in pixels; zeros where none are said."""
    sides = kwargs["img_size"] if isinstance(kwargs["img_size"], list | tuple) else (kwargs["img_size"],) * 2
    return tuple(sides) if len(sides) == 2 and all(isinstance(side, int) for side in sides) else (0, 0)


def to_official(network: CroCoNet | Binocular) -> dict[str, Tensor]:
    """The weights of a network under the official names."""
    state = {_named(name, _RENAMED): value for name, value in network.encoder.state_dict().items()} | network.decoder.state_dict()
    return {name: value[0] if name in _TABLES else value for name, value in state.items()}


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names and tables as our encoder and decoder have them."""
    back = {theirs: ours for ours, theirs in _RENAMED.items()}
    return {_named(name, back): value[None] if name in _TABLES else value for name, value in state.items()}


def _named(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def save_croco(network: CroCoNet | Binocular, folder: Path, mask_ratio: float = 0.9, beside: Mapping[str, Tensor] | None = None) -> None:
    """Writes the whole network under the official names, and its `croco_kwargs`.

    Args:
        beside: more tensors for the same file (`head.dpt.*`).
    """
    state = {name: value.detach().cpu().float().contiguous() for name, value in (to_official(network) | dict(beside or {})).items()}
    save_tensors(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / SHAPE_FILE, croco_kwargs(network, mask_ratio))


def croco_kwargs(network: CroCoNet | Binocular, mask_ratio: float = 0.9) -> dict[str, Any]:
    """The arguments that make the official `CroCoNet` of this shape."""
    encoder, decoder = network.encoder.config, network.decoder.config
    height, width = encoder.image_size
    return {
        "img_size": height if height == width else [height, width],
        "patch_size": encoder.patch_size,
        "mask_ratio": mask_ratio,
        "enc_embed_dim": encoder.hidden_size,
        "enc_depth": encoder.num_layers,
        "enc_num_heads": encoder.num_heads,
        "dec_embed_dim": decoder.hidden_size,
        "dec_depth": decoder.num_layers,
        "dec_num_heads": decoder.num_heads,
        "mlp_ratio": encoder.mlp_ratio,
        "norm_im2_in_dec": decoder.normalise_memory,
        "pos_embed": "cosine" if decoder.positions == "cosine" else f"RoPE{decoder.rope_base:g}",
    }


def start_encoder(encoder: ViT, init: str | Path) -> list[str]:
    """Puts the weights of any plain vision transformer (DINOv2, MAE) into the encoder; the decoder stays fresh. Returns what was adapted."""
    return [*load_encoder(encoder, read_vit(init)), "The decoder starts fresh: the file holds an encoder alone."]
