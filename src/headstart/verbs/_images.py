"""What verbs ask and say of images (see `_kinds`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headstart.core.errors import UsageError
from headstart.core.terminal import printable
from headstart.core.words import agree, plural
from headstart.verbs.config import ProbeConfig

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.data.image.describe import Peek
    from headstart.engine.image_method import ImageMethod
    from headstart.engine.method import Method

PROCESSOR = "AutoImageProcessor"
TASK = "image-classification"
FEATURES = "image-feature-extraction"
WITHOUT_PICTURES = ""
UNMEASURED = (
    "Whether it helps your task: give --probe.labels FOLDER (with a folder of images for each class), or fine-tune it beside a random start with the"
    " command below."
)


def refuse_stores(stores: Sequence[Any], config: Any) -> None:
    first = stores[0].form
    for store in stores[1:]:
        if (store.form.shape, store.form.dtype) != (first.shape, first.dtype):
            raise UsageError(
                f"The stores of --data hold images of {stores[0].in_words()} and of {store.in_words()}.",
                "Prepare them alike: --image.size, --image.mode and --image.bands.",
            )
    seen = getattr(config, "image_size", first.size)
    if seen > first.size:
        raise UsageError(
            f"The network sees {seen} x {seen} pixels, the prepared images have {first.size} x {first.size}.",
            f"Prepare them with --image.size {seen} or more, or lower --method.image-size.",
        )


def data_words(stores: Sequence[Any], rows: Sequence[Any]) -> str:
    unit = rows[0].unit  # images, or pairs of them
    images, held_out = (sum(store.manifest["counts"][name] for store in stores) for name in ("images", f"held_out_{unit}"))
    classes = f", {len(stores[0].classes):,} {agree(len(stores[0].classes), 'class', 'classes')}" if stores[0].classes else ""
    to_train = f"{sum(map(len, rows)):,} to train on" if unit == "images" else f"{plural(sum(map(len, rows)), unit)} to train on"
    return f"{plural(images, 'image')} of {stores[0].in_words()}: {to_train}, {held_out:,} held out{classes}"


def input_words(store: Any) -> str:
    return f"{store.channels} channel{'' if store.channels == 1 else 's'}"


def rows_words(rows: Any) -> str:
    return plural(len(rows), rows.unit)


def read_labelled(config: ProbeConfig, method: Method) -> tuple[Sequence[Any], Sequence[int], int]:
    """A folder with a folder for each class, a list, or a file with labels."""
    from headstart.data.image.config import ImageConfig
    from headstart.data.image.head import read_labelled

    assert config.labels is not None
    read = cast("ImageMethod", method).reading()
    files = ImageConfig(
        image_field=config.image_field, label_field=config.label_field, band_files=read.band_files, resample_bands=read.resample_bands
    )
    found = read_labelled(config.labels, files)
    return found.images, found.labels, len(found.classes)


def read_records(sources: Sequence[str | Path], store: Any) -> Iterator[tuple[str, Any]]:
    from headstart.data.image.config import source_config
    from headstart.data.image.head import read_images

    return read_images(sources, source_config(store.manifest["preparation"]))


def show_neighbours(found: Sequence[Sequence[tuple[str, Any, float]]], store: Any, folder: Path) -> list[str]:
    """A picture: a row for each image, the image first, then the nearest others."""
    from headstart.data.image.describe import neighbour_sheet

    path = folder / "neighbours.png"
    neighbour_sheet([[record for _, record, _ in row] for row in found], store, path)
    return [f"Look: {path} has {plural(len(found), 'image')}, each with the nearest others to its right."]


def load_line(export: Path) -> str:
    if not (export / "config.json").is_file():  # transformers has no such network: groups of bands
        return f"from headstart.interop.vit import load_vit; model, notes = load_vit({str(export)!r})"
    return f"from transformers import AutoImageProcessor, AutoModel; model = AutoModel.from_pretrained({str(export)!r})"


def answers(export: Path) -> Tensor:
    """The tokens of an image of noise, from the encoder that we load and from the one that transformers loads; of CroCo the decoder is loaded too."""
    import torch
    from transformers import AutoModel

    from headstart.interop.croco import find_croco
    from headstart.interop.transformers_io import load_model
    from headstart.interop.vit import load_vit

    encoder, _ = load_vit(export)
    shape = encoder.config
    image = torch.rand(1, shape.channels, *shape.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = [encoder.eval()(image).flatten()]
        if (export / "config.json").is_file():
            loaded: Any = load_model(export, AutoModel)
            found.append(loaded.eval()(pixel_values=image).last_hidden_state.flatten())
    if (pair := find_croco(export)) is not None:
        network, _ = pair.binocular()
        found.append(torch.stack([value.float().sum() for value in network.state_dict().values()]))
    return torch.cat(found)


def next_lines(folder: Path) -> list[str]:
    export = folder / "export"
    task = "stereo" if (export / "croco.safetensors").is_file() else "image-classification"  # what two views teach is for two views
    return [
        f"Load it:   {load_line(export)}",
        f"Fine-tune: headstart finetune {task} --init {shlex.quote(str(folder))} --train TRAIN_FOLDER --test TEST_FOLDER",
        f"Look:      headstart sample {shlex.quote(str(folder))}",
    ]


def peek(store: Path, count: int, seed: int, sheet: Path | None) -> Peek:
    """Images drawn from the store, and a contact sheet of more of them."""
    from headstart.data.image import describe

    return describe.peek(store, count, seed, sheet)


def peek_lines(found: Peek) -> list[str]:
    lines = list(found.report)
    for image in found.images:
        place = printable(image.file, one_line=True) + (f", record {image.record}" if image.record else "")
        label = "" if image.label is None else f", class {printable(image.label, one_line=True)}"
        lines.append(f"image {image.index} of {place} ({image.split.replace('_', ' ')}{label}): values {image.smallest:g} to {image.largest:g}")
    return [*map(printable, lines), *([f"Contact sheet: {found.sheet}"] if found.sheet else [])]
