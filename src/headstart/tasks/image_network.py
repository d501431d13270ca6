"""A vision transformer under a classification head: the network, its predictions, and the same on disk.

    model = load_classifier("out/model")
    model.predict(["photos/1.jpg", "photos/2.jpg"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.dropout import dropout
from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import EPSILON
from headstart.core.config import checked, replace_nested, several
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import write_json
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.data.image.augment import normalize, resize
from headstart.data.image.head import as_given
from headstart.data.image.reading import USUAL, Reading
from headstart.engine.device import resolve_device
from headstart.engine.update import autocast, precision_of
from headstart.interop.vit import SHAPE_FILE, TIMM_FILE, read_shape, read_tensors
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import read_pixels
from headstart.tasks.task_file import TASK_FILE, read_task

EVAL_BATCH = 256

FORMAT_VERSION = 1
MAX_CLASSES = 100_000
_AGAIN = "Fine-tune again with --out."


class ImageClassifier(nn.Module):
    """A vision transformer under a classification head, with timm's names: `fc_norm`, `head`."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: ViT, n_outputs: int, pooling: str, mean: Tensor, std: Tensor, probe: bool = False, head_deviation: float = 2e-5
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling: Any = pooling
        self.probe = probe
        width = encoder.config.hidden_size
        own_norm = pooling == "mean" and not probe  # the mean of the tokens is normalised, not the tokens
        if own_norm:
            encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.fc_norm = nn.LayerNorm(width, eps=EPSILON) if own_norm else nn.Identity()
        head = nn.Linear(width, n_outputs)
        nn.init.trunc_normal_(head.weight, std=head_deviation)
        nn.init.zeros_(head.bias)
        self.head: nn.Linear | nn.Sequential = head
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        if probe:
            encoder.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [batch, channels, height, width] -> logits float32 [batch, outputs]."""
        return self.head(self.features(images)).float()

    def features(self, images: Tensor) -> Tensor:
        """Normalised images [batch, channels, height, width] -> [batch, dim]: what the head sees."""
        return self.fc_norm(self.encoder.pool(self.encoder(images), self.pooling))


def hidden_dropout(encoder: ViT, p: float) -> None:
    """Dropout as transformers' ViT has it (hidden_dropout_prob), while the network trains: on the embeddings, and on what attention and MLP add."""
    drop = lambda module, output: dropout(output, p) if module.training else output  # noqa: E731
    encoder.blocks[0].register_forward_pre_hook(lambda block, given: (drop(block, given[0]), *given[1:]))
    for block in encoder.blocks:
        for last in (block.attn.proj, block.mlp.fc2):  # type: ignore[union-attr]
            last.register_forward_hook(lambda module, given, output: drop(module, output))  # type: ignore[union-attr]


def predict(model: ImageClassifier, images: np.ndarray, config: ImageFinetuneConfig, device: torch.device) -> np.ndarray:
    """float32 [n, classes]: the logits of whole images [n, channels, height, width]."""
    return of_whole_images(model, model, images, config, device).cpu().numpy()


@torch.no_grad()
def of_whole_images(
    model: ImageClassifier, what: Callable[[Tensor], Tensor], images: np.ndarray, config: ImageFinetuneConfig, device: torch.device
) -> Tensor:
    """float32 [n, ...]: `what` (the model, its features) makes of whole images [n, channels, height, width]."""
    model.to(device).eval()
    size, precision = model.encoder.config.image_size[0], precision_of(config, device)
    found = []
    for start in range(0, len(images), EVAL_BATCH):
        part = torch.from_numpy(images[start : start + EVAL_BATCH]).to(device)
        with autocast(device, precision):
            found.append(what(normalize(resize(part, size), model.mean, model.std)).float())
    return torch.cat(found)



def save_classifier(folder: Path, model: ImageClassifier, classes: Sequence[str], several: bool, reading: Reading = USUAL) -> None:
    """Writes `timm.safetensors` (loads by name into timm's VisionTransformer; for the pooling `mean` with global average pooling, of a probe without
    `fc_norm`), the shape, and what was learned besides weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name.removeprefix("encoder."): value.detach().cpu().float().contiguous() for name, value in model.state_dict().items()}
    pixels = {name: state.pop(name).tolist() for name in ("mean", "std")}
    save_tensors(state, folder / TIMM_FILE, metadata={"format": "pt"})
    write_json(folder / SHAPE_FILE, dataclasses.asdict(model.encoder.config.at(drop_path=0.0)))
    learned = {"classes": list(classes), "several": several, "pooling": model.pooling, "probe": model.probe, "reading": reading.as_json()}
    write_json(folder / TASK_FILE, {"format_version": FORMAT_VERSION, "task": "image-classification", **learned, **pixels})


@dataclass
class SavedClassifier:
    """A fine-tuned model ready for use."""

    model: ImageClassifier
    classes: list[str]
    several: bool
    device: torch.device
    reading: Reading = USUAL

    def predict(self, images: Sequence[Any]) -> list[Any]:
        """The class of each image; where an image may have several, the list of those with a probability above one half.

        Args:
            images: files (of a tile with a file for each band any of them), their bytes, or arrays as in .npy files.
        """
        images = several(images)
        if not images:
            return []
        config = self.model.encoder.config
        files = self.reading.config(config.channels)
        images = [as_given(one, files) if isinstance(one, str | Path) else one for one in images]
        pixels = read_pixels(images, config.channels, config.image_size[0], reading=self.reading)
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
    path, saved = folder / TASK_FILE, read_task(folder, "image_network.load_classifier")
    try:
        if saved["format_version"] != FORMAT_VERSION:
            raise BadInput(f"has format {saved['format_version']}, this version reads {FORMAT_VERSION}", "Upgrade headstart.", file=path)
        classes, several = checked(saved["classes"], list[str], "classes"), checked(saved["several"], bool, "several")
        probe = checked(saved.get("probe", False), bool, "probe")
        reading = Reading.from_json(saved.get("reading", {}))
        pooling = replace_nested(ImageFinetuneConfig(), {"pooling": saved["pooling"]}).pooling
        mean, std = (torch.tensor(checked(saved[name], list[float], name)) for name in ("mean", "std"))
        if not 0 < len(classes) <= MAX_CLASSES:
            raise KeyError("classes")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise BadInput(f"is not a task of ours ({error!r})", _AGAIN, file=path) from None
    model = ImageClassifier(ViT(read_shape(folder)), len(classes), pooling, mean, std, probe)
    own = {name.removeprefix("encoder."): name for name in model.state_dict()}
    try:
        model.load_state_dict({own[name]: value for name, value in read_tensors(folder / TIMM_FILE).items()} | {"mean": mean, "std": std})
    except (KeyError, RuntimeError) as error:
        raise BadInput(f"has other weights than its shape says ({first_line(error)})", _AGAIN, file=folder / TIMM_FILE) from None
    where = resolve_device(device)
    return SavedClassifier(model.to(where).eval(), classes, several, where, reading)
