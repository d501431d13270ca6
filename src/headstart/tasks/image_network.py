"""A vision transformer under a classification head: the network, its predictions, and the same on disk.

    model = load_classifier("out/model")
    model.predict(["photos/1.jpg", "photos/2.jpg"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import EPSILON
from headstart.core.config import checked, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, read_json, write_json
from headstart.data.image.augment import normalize, resize
from headstart.engine.device import resolve_device
from headstart.engine.update import Precision, autocast
from headstart.interop.model_folder import MAX_CONFIG_BYTES, first_line
from headstart.interop.vit import SHAPE_FILE, TIMM_FILE, read_shape, read_tensors
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import read_pixels

EVAL_BATCH = 256
FORMAT_VERSION = 1
MAX_CLASSES = 100_000
_TASK = "task.json"
_AGAIN = "Fine-tune again with --out."


class ImageClassifier(nn.Module):
    """A vision transformer under a classification head, with timm's names: `fc_norm`, `head`."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: ViT, n_outputs: int, pooling: str, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling: Any = pooling
        width = encoder.config.hidden_size
        if pooling == "mean":  # the mean of the tokens is normalised, not the tokens
            encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.fc_norm = nn.LayerNorm(width, eps=EPSILON) if pooling == "mean" else nn.Identity()
        self.head = nn.Linear(width, n_outputs)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [batch, channels, height, width] -> logits float32 [batch, outputs]."""
        return self.head(self.fc_norm(self.encoder.pool(self.encoder(images), self.pooling))).float()


@torch.no_grad()
def predict(model: ImageClassifier, images: np.ndarray, config: ImageFinetuneConfig, device: torch.device) -> np.ndarray:
    """float32 [n, classes]: the logits of whole images [n, channels, height, width]."""
    model.to(device).eval()
    size, precision = model.encoder.config.image_size[0], precision_of(config, device)
    found = []
    for start in range(0, len(images), EVAL_BATCH):
        part = torch.from_numpy(images[start : start + EVAL_BATCH]).to(device)
        with autocast(device, precision):
            found.append(model(normalize(resize(part, size), model.mean, model.std)))
    return torch.cat(found).cpu().numpy()


def precision_of(config: ImageFinetuneConfig, device: torch.device) -> Precision:
    """What `auto` means on this device."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def save_classifier(folder: Path, model: ImageClassifier, classes: Sequence[str], several: bool) -> None:
    """Writes `timm.safetensors` (loads by name into timm's VisionTransformer with global average pooling, for the pooling `mean`), the shape, and
    what was learned besides weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name.removeprefix("encoder."): value.detach().cpu().float().contiguous() for name, value in model.state_dict().items()}
    pixels = {name: state.pop(name).tolist() for name in ("mean", "std")}
    save_file(state, folder / TIMM_FILE, metadata={"format": "pt"})
    write_json(folder / SHAPE_FILE, dataclasses.asdict(model.encoder.config.at(drop_path=0.0)))
    learned = {"classes": list(classes), "several": several, "pooling": model.pooling}
    write_json(folder / _TASK, {"format_version": FORMAT_VERSION, "task": "image-classification", **learned, **pixels})


@dataclass
class SavedClassifier:
    """A fine-tuned model ready for use."""

    model: ImageClassifier
    classes: list[str]
    several: bool
    device: torch.device

    def predict(self, images: Sequence[Any]) -> list[Any]:
        """The class of each image; where an image may have several, the list of those with a probability above one half.

        Args:
            images: files, their bytes, or arrays as in .npy files.
        """
        if not images:
            return []
        config = self.model.encoder.config
        pixels = read_pixels(images, config.channels, config.image_size[0])
        logits = predict(self.model, pixels, ImageFinetuneConfig(), self.device)
        if self.several:
            return [[name for name, logit in zip(self.classes, row, strict=True) if logit > 0] for row in logits]
        return [self.classes[i] for i in logits.argmax(1)]


def load_classifier(folder: str | Path, device: str = "auto") -> SavedClassifier:
    """The inverse of `save_classifier`.

    Raises:
        BadInput: a file is missing, broken, or of a later format.
    """
    folder = Path(folder)
    saved = read_json(own_file(folder, _TASK), MAX_CONFIG_BYTES)
    try:
        if saved["format_version"] != FORMAT_VERSION:
            raise BadInput(f"has format {saved['format_version']}, this version reads {FORMAT_VERSION}", "Upgrade headstart.", file=folder / _TASK)
        classes, several = checked(saved["classes"], list[str], "classes"), checked(saved["several"], bool, "several")
        pooling = replace_nested(ImageFinetuneConfig(), {"pooling": saved["pooling"]}).pooling
        mean, std = (torch.tensor(checked(saved[name], list[float], name)) for name in ("mean", "std"))
        if not 0 < len(classes) <= MAX_CLASSES:
            raise KeyError("classes")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise BadInput(f"is not a task of ours ({error!r})", _AGAIN, file=folder / _TASK) from None
    model = ImageClassifier(ViT(read_shape(folder)), len(classes), pooling, mean, std)
    own = {name.removeprefix("encoder."): name for name in model.state_dict()}
    try:
        model.load_state_dict({own[name]: value for name, value in read_tensors(folder / TIMM_FILE).items()} | {"mean": mean, "std": std})
    except (KeyError, RuntimeError) as error:
        raise BadInput(f"has other weights than its shape says ({first_line(error)})", _AGAIN, file=folder / TIMM_FILE) from None
    where = resolve_device(device)
    return SavedClassifier(model.to(where).eval(), classes, several, where)
