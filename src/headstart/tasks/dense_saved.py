"""A fine-tuned dense model on disk, and its use.

    model = load_dense("out/model")
    disparity = model.predict([("left.png", "right.png")])[0]

Of one view: `timm.safetensors` (the encoder under timm's names, `head.*`) and `vit.json`. Of two: `croco.safetensors` (CroCo's official names,
`head.dpt.*` as naver/croco has them) and `croco.json`, with `vit.json`; a further fine-tuning can start from it. `task.json` says the rest.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.croco import Binocular, CrossDecoder, DecoderConfig
from headstart.backbones.vit import ViT
from headstart.core.config import checked, several
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import write_json
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.data.image.decode import decode_whole
from headstart.data.image.form import Content, Unusable
from headstart.data.image.head import content_of
from headstart.data.image.reading import USUAL, Reading
from headstart.engine.device import resolve_device
from headstart.engine.update import autocast, precision_of
from headstart.interop.croco import WEIGHTS_FILE, from_official, save_croco
from headstart.interop.vit import SHAPE_FILE, TIMM_FILE, read_shape, read_tensors
from headstart.tasks.dense_config import CONFIGS, DenseConfig
from headstart.tasks.dense_network import BilinearHead, DenseModel, DPTHead, HeadName, LinearHead, OneView, Prediction, TwoView, make_head
from headstart.tasks.dense_tasks import TASKS, DenseTask
from headstart.tasks.dense_training import NEAR_WIDTH
from headstart.tasks.task_file import TASK_FILE, read_task
from headstart.tasks.tiling import tiled

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MAX_OUTPUTS = 10_000
_AGAIN = "Fine-tune again with --out."
_NUMBERS = ("mean", "std", "shift", "scale")
_HEADS: dict[type, HeadName] = {DPTHead: "dpt", LinearHead: "linear", BilinearHead: "bilinear"}


def save_dense(
    folder: Path, model: DenseModel, task: DenseTask, crop: tuple[int, int], config: DenseConfig, reading: Reading = USUAL
) -> None:
    """Writes weights, shape and what was learned besides weights."""
    folder.mkdir(parents=True, exist_ok=True)
    network = model.network
    head = {f"head.{name}": value for name, value in network.head.state_dict().items()}  # type: ignore[attr-defined]
    learned: dict[str, Any] = {
        "head": _HEADS[type(network.head)],
        "hooks": list(network.head.hooks) if isinstance(network.head, DPTHead) else [],
        "channels": network.channels,
        "with_confidence": network.with_confidence,
        "classes": task.classes,
        "crop": list(crop),
        "overlap": config.overlap,
        "reading": reading.as_json(),
    }
    if isinstance(network, TwoView):
        save_croco(network.network, folder, beside=head)
        learned["decoder"] = dataclasses.asdict(network.network.decoder.config)
    else:
        state = {name: value.detach().cpu().float().contiguous() for name, value in (network.encoder.state_dict() | head).items()}
        save_tensors(state, folder / TIMM_FILE, metadata={"format": "pt"})
    write_json(folder / SHAPE_FILE, dataclasses.asdict(model.encoder.config.at(drop_path=0.0)))
    numbers = {name: getattr(model, name).tolist() for name in _NUMBERS}
    write_json(folder / TASK_FILE, {"format_version": FORMAT_VERSION, "task": task.name, **learned, **numbers})


@dataclass
class SavedDense:
    """A fine-tuned dense model ready for use."""

    model: DenseModel
    task: str
    classes: list[str]
    crop: tuple[int, int]
    overlap: float
    device: torch.device
    reading: Reading = USUAL

    def predict(self, records: Sequence[Any], overlap: float | None = None) -> list[np.ndarray]:
        """A map for each record: int64 [height, width] of classes, or float32 [channels, height, width] ([height, width] of one channel).

        Args:
            records: files (of a tile with a file for each band any of them), their bytes, or arrays as in .npy files; of stereo and flow pairs
                of these.
            overlap: of windows on images larger than the crop; None: that of the training's validation. CroCo: 0.9 (slower, smoother).
        """
        kind, found = TASKS[self.task], []
        share, precision = self.overlap if overlap is None else overlap, precision_of(CONFIGS[self.task](), self.device)

        def network(*views: Tensor) -> Prediction:
            with autocast(self.device, precision):
                return self.model(*views)

        for record in several(records):
            views = [self._image(one) for one in (several(record) if kind.views == 2 else (record,))]
            if len(views) != kind.views or any(view.shape != views[0].shape for view in views):
                raise UsageError(f"{self.task} takes {kind.views} views of one size.", "Give pairs of images." if kind.views == 2 else "Give images.")
            values = tiled(network, views, self.crop, share, kind.sharpness, kind.in_pixels)[0]
            if kind.in_pixels and float(values.abs().max()) > NEAR_WIDTH * self.crop[1]:
                logger.warning("predicted lengths near the width of the window (%d pixels): shrink the images, or fine-tune wider", self.crop[1])
            values = values.argmax(0) if self.classes else values[0] if len(values) == 1 else values
            found.append(values.cpu().numpy())
        return found

    def _image(self, record: Path | str | Content) -> Tensor:
        is_file = isinstance(record, str | Path)
        name = str(record) if is_file else "the images given"
        channels = self.model.encoder.config.channels
        try:
            content: Content = content_of(record, self.reading.config(channels)) if isinstance(record, str | Path) else record
            form = self.reading.form(content, channels)
            return torch.from_numpy(decode_whole(content, form))[None].to(self.device)
        except Unusable as error:
            raise BadInput(error.what, error.mend, file=name) from error


def load_dense(folder: str | Path, device: str = "auto") -> SavedDense:
    """The inverse of `save_dense`.

    Raises:
        BadInput: a file is missing, broken, or of a later format.
    """
    folder = Path(folder)
    path = folder / TASK_FILE
    saved = read_task(folder, "dense_saved.load_dense")
    try:
        if saved["format_version"] != FORMAT_VERSION:
            raise BadInput(f"has format {saved['format_version']}, this version reads {FORMAT_VERSION}", "Upgrade headstart.", file=path)
        task, kind = checked(saved["task"], str, "task"), checked(saved["head"], str, "head")
        channels, with_confidence = checked(saved["channels"], int, "channels"), checked(saved["with_confidence"], bool, "with_confidence")
        classes, hooks = checked(saved["classes"], list[str], "classes"), tuple(checked(saved["hooks"], list[int], "hooks"))
        height, width = checked(saved["crop"], list[int], "crop")
        overlap = checked(saved["overlap"], float, "overlap")
        reading = Reading.from_json(saved.get("reading", {}))
        numbers = {name: torch.tensor(checked(saved[name], list[float], name)) for name in _NUMBERS}
        if task not in TASKS or kind not in _HEADS.values() or not 0 < channels <= MAX_OUTPUTS or min(height, width) < 1 or not 0 <= overlap < 1:
            raise KeyError("task, head, channels, crop or overlap")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise BadInput(f"is not a task of ours ({error!r})", _AGAIN, file=path) from None
    encoder, outputs, weights = ViT(read_shape(folder)), channels + with_confidence, folder / TIMM_FILE
    own = {name: f"encoder.{name}" for name in encoder.state_dict()}
    try:
        if TASKS[task].views == 1:
            head = make_head(kind, encoder, None, outputs, hooks)
            network: OneView | TwoView = OneView(encoder, head, channels, with_confidence)
        else:
            decoder = CrossDecoder(encoder.config.hidden_size, DecoderConfig(**saved["decoder"]), encoder.config.grid, outputs=0)
            head = make_head(kind, encoder, decoder, outputs, hooks)
            network = TwoView(Binocular(encoder, decoder), head, channels, with_confidence)
            weights = folder / WEIGHTS_FILE
            own = {name: f"network.encoder.{name}" for name in encoder.state_dict()}
            own |= {name: f"network.decoder.{name}" for name in decoder.state_dict()}
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise BadInput(f"describes no network ({first_line(error)})", _AGAIN, file=path) from None
    state = read_tensors(weights)
    state = from_official(state) if isinstance(network, TwoView) else state
    try:
        network.load_state_dict({own.get(name, name): value for name, value in state.items()})
    except (KeyError, RuntimeError) as error:
        raise BadInput(f"has other weights than its shape says ({first_line(error)})", _AGAIN, file=weights) from None
    where = resolve_device(device)
    model = DenseModel(network, *(numbers[name] for name in _NUMBERS)).to(where).eval()
    return SavedDense(model, task, classes, (height, width), overlap, where, reading)
