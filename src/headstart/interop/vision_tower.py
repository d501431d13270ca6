"""Vision towers: folders of transformers that turn pictures into features (SigLIP, CLIP, ViT, DINOv2, ConvNeXt ...), frozen.

A folder of a model of images and texts (SiglipModel, CLIPModel) gives its image half. Nothing is guessed: how pixels are scaled is read from the
folder's preprocessor_config.json.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headstart.backbones.kernels import use_fast_kernels
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, write_json
from headstart.core.tensor_files import open_to_others
from headstart.data.image.augment import normalize, resize
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import load_model, quiet

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class TowerForm:
    """What a tower sees, known without its weights.

    Attributes:
        image_size, channels: of its pictures. hidden_size: of its features.
        mean, std: of each channel, in values of 0..255.
        preprocessor: the folder's preprocessor_config.json.
    """

    image_size: int
    channels: int
    hidden_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessor: dict[str, Any]


class VisionTower(nn.Module):
    """A frozen tower: uint8 pictures -> features, the last hidden states of all its patches (and of its class token, if it has one)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: PreTrainedModel, form: TowerForm) -> None:
        super().__init__()
        self.model, self.form = model.eval().requires_grad_(False), form
        self.register_buffer("mean", torch.tensor(form.mean), persistent=False)
        self.register_buffer("std", torch.tensor(form.std), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """[n, channels, height, width] -> [n, patches, hidden_size]."""
        pixels = normalize(resize(images, self.form.image_size), self.mean, self.std)
        features = self.model(pixel_values=pixels).last_hidden_state
        return features if features.ndim == 3 else features.flatten(2).transpose(1, 2)  # a convolutional network has a map

    def train(self, mode: bool = True) -> VisionTower:
        """Always as when it is used: it is frozen."""
        return super().train(False)

    def identity(self) -> str:
        """Hash of the weights and of how pixels are scaled: what features depend on."""
        digest = hashlib.sha256(repr((self.form.image_size, self.form.mean, self.form.std)).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """As a folder of transformers that `load_vision_tower` reads."""
        with quiet():
            self.model.save_pretrained(folder)
        open_to_others(folder)
        write_json(folder / PREPROCESSOR, self.form.preprocessor)


def load_vision_tower(folder: str | Path) -> VisionTower:
    """The tower of a folder, in float32 on the CPU.

    Raises:
        BadInput: it holds no network that sees pictures, or does not say how pixels are scaled.
    """
    folder = Path(folder)
    form = tower_form(folder)
    model: Any = load_model(folder)
    model = getattr(model, "vision_model", model)
    use_fast_kernels(model)
    return VisionTower(model, form)


def tower_form(folder: str | Path) -> TowerForm:
    """What the tower of a folder sees; its weights are not read.

    Raises:
        BadInput: as `load_vision_tower`.
    """
    folder = Path(folder)
    config = read_config(folder)
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None)
    hidden = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]  # the last stage of a ConvNeXt
    size = size[0] if isinstance(size, list | tuple) and len(set(size)) == 1 else size
    if not isinstance(size, int) or not isinstance(hidden, int):
        mend = "Give a vision tower: SigLIP, CLIP, ViT, DINOv2 ..."
        raise BadInput(f"holds a {config.model_type} model, which sees no pictures.", mend, file=folder)
    channels = int(getattr(config, "num_channels", 3))
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise BadInput(f"has no {PREPROCESSOR}: how pixels are scaled is not known.", "Copy it from where the tower comes from.", file=folder)
    stated = read_json(path)
    try:
        scale = 1.0 if stated.get("do_rescale") is False else 1 / float(stated.get("rescale_factor", 1 / 255))
        normalised = stated.get("do_normalize") is not False
        mean = [float(value) * scale for value in stated["image_mean"]] if normalised else [0.0] * channels
        std = [float(value) * scale for value in stated["image_std"]] if normalised else [scale] * channels
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        raise BadInput("does not say image_mean and image_std.", "Copy it from where the tower comes from.", file=path) from None
    if len(mean) != channels or len(std) != channels:
        raise BadInput(f"scales {len(mean)} channels, the tower sees {channels}.", "Copy it from where the tower comes from.", file=path)
    return TowerForm(size, channels, hidden, tuple(mean), tuple(std), dict(stated))


def refuse_images(form: TowerForm, channels: int, size: int) -> None:
    """Raises UsageError where prepared images of so many channels and pixels a side are not what a tower sees."""
    if channels != form.channels:
        wanted = {1: "grey", 3: "rgb"}.get(form.channels, f"{form.channels} bands")
        mend = f"Prepare them with --interleaved.image-mode {wanted}."
        raise UsageError(f"The images have {channels} channels, the vision tower sees {form.channels}.", mend)
    if size < form.image_size:
        mend = f"Prepare them with --interleaved.image-size {form.image_size}."
        raise UsageError(f"The images have {size} pixels a side, the vision tower sees {form.image_size}.", mend)


def preprocessor(size: int | tuple[int, int], mean: list[float], std: list[float]) -> dict[str, Any]:
    """A preprocessor_config.json for a tower of one's own: pixels of 0..1, less `mean`, over `std`.

    Args:
        size: pixels a side, or height and width.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
