"""The first images of some sources: for a smoke run, and for labelled sets that a run is measured on. Read without preparing the rest."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.data.image.band_files import cut_name
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode
from headstart.data.image.form import Content, Form, Unusable
from headstart.data.image.prepare import in_class_order
from headstart.data.image.read import Fault, Record, bad_input, read_alone, records
from headstart.data.image.sources import InputFile, described_tile, find_images

UNLABELLED = "none"


def write_first_images(sources: Sequence[str | Path], folder: Path, config: ImageConfig, count: int) -> None:
    """Copies the first `count` images into `folder`, in a folder for each class.

    Raises:
        BadInput: one of them cannot be read, whatever `on_bad_input` says.
    """
    classes: dict[str, Path] = {}
    for number, (file, record) in enumerate(islice(_records(sources, config), count)):
        label = record.label or UNLABELLED
        place = classes.setdefault(label, folder / f"class-{len(classes):03d}")  # a label may hold what no file name may
        place.mkdir(parents=True, exist_ok=True)
        content = _content(file, record, config)
        if isinstance(content, np.ndarray):
            stream = io.BytesIO()
            np.save(stream, content, allow_pickle=False)
            content = stream.getvalue()
        suffix = ".npy" if content[:6] == b"\x93NUMPY" else ".png"  # of pictures the content decides, not the name
        with atomic_write(place / f"{number:04d}{suffix}") as opened:
            opened.write(content)


@dataclass(frozen=True)
class Tile:
    """A tile in several files, which are read where it is decoded: of a labelled set at their own size all would fill the memory."""

    file: InputFile
    config: ImageConfig

    def read(self) -> Content:
        """[bands, height, width]. Raises BadInput."""
        found = read_alone(self.file, self.config)
        if isinstance(found, Fault):
            names = " ".join(self.config.band_files)
            of_network = f"Give tiles as the network learned from: a file each for {names}; or with these bands stacked in one file."
            raise BadInput(found.what, of_network if "--image." in found.mend else found.mend, file=self.file.name)
        return found


def as_given(path: str | Path, config: ImageConfig) -> Path | Tile:
    """A file; or the tile that it is of one band of."""
    path = Path(path)
    cut = cut_name(path, config.band_files) if config.band_files else None
    return path if cut is None else Tile(described_tile(path, cut[0], config.band_files), config)


def content_of(path: str | Path, config: ImageConfig) -> Content:
    """What a file holds, or the files of its tile.

    Raises:
        BadInput: it cannot be read.
    """
    found = as_given(path, config)
    if isinstance(found, Tile):
        return found.read()
    try:
        return found.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}).", "Check the path.", file=str(path)) from error


@dataclass
class LabelledImages:
    """A labelled set.

    Attributes:
        images: files, tiles of several, or what files of many images hold, in order.
        labels: index into `classes` of each.
        classes: names, sorted.
    """

    images: list[Path | Tile | Content]
    labels: list[int]
    classes: list[str]


def read_labelled(source: str | Path, config: ImageConfig) -> LabelledImages:
    """Images with their classes: a folder with a folder for each class, a list, a .parquet, .npz or .tar file with labels. Where no file is of one
    of `config.band_files`, they are tiles that somebody stacked, and read whole.

    Raises:
        BadInput: it holds no image, an image has no class, or there is only one class.
    """
    config = _as_there(source, config)
    images: list[Path | Tile | Content] = []
    names: list[str] = []
    for file, record in _records([source], config):
        if record.label is None:
            mend = "Give a folder with a folder for each class, a list of paths and classes, or a file with a field 'label'."
            mend += " Or name the field with the classes: --image.label-field."
            raise BadInput("has no class.", mend, file=file.name, record=record.number or None)
        images.append(_place(file, record, config))
        names.append(record.label)
    classes = in_class_order(set(names))
    if len(classes) < 2:
        raise BadInput(f"has {len(classes)} class ({', '.join(classes)}).", "A measurement needs at least two.", file=str(source))
    index = {name: place for place, name in enumerate(classes)}
    return LabelledImages(images, [index[name] for name in names], classes)


def read_images(sources: Sequence[str | Path], config: ImageConfig) -> Iterator[tuple[str, Path | Tile | Content]]:
    """(name, file or content) of every image, one after another.

    Raises:
        BadInput: one of them cannot be read.
    """
    for file, record in _records(sources, config):
        yield file.name + (f", record {record.number}" if record.number else ""), _place(file, record, config)


def decode_records(
    records: Sequence[Path | str | Tile | Content], form: Form | Callable[[Content], Form], source: str = "the images given"
) -> np.ndarray:
    """[n, channels, size, size]: images in one form.

    Args:
        records: files, tiles of several, bytes of files, or arrays as in .npy files.
        form: or what makes it of the first image; may raise `Unusable`.
        source: what messages call the file that holds those which are no files.

    Raises:
        BadInput: one of them cannot be used.
    """
    pixels, given = [], form if isinstance(form, Form) else None
    for number, record in enumerate(records, 1):
        is_file = isinstance(record, str | Path | Tile)
        name = record.file.name if isinstance(record, Tile) else str(record) if is_file else source
        try:
            content: Content = Path(record).read_bytes() if isinstance(record, str | Path) else record.read() if isinstance(record, Tile) else record
            form = form if isinstance(form, Form) else form(content)
            pixels.append(decode(content, form).pixels)
        except OSError as error:
            raise BadInput(f"cannot be read ({error.strerror}).", "Check the path.", file=name) from error
        except Unusable as error:
            mend = error.mend
            if given is not None and "--image." in mend:  # its store is made
                mend = f"Give images as the network learned from: {given.channels} x {given.size} x {given.size} {given.dtype}, {given.colour}."
            raise BadInput(error.what, mend, file=name, record=None if is_file else number) from error
    return np.stack(pixels)


def _records(sources: Sequence[str | Path], config: ImageConfig) -> Iterator[tuple[InputFile, Record]]:
    for file in find_images(sources, config).files:
        for found in records(file, config):
            if not isinstance(found, Fault):
                yield file, found
            elif config.on_bad_input == "stop":
                raise bad_input(file, found)


def _as_there(source: str | Path, config: ImageConfig) -> ImageConfig:
    """The settings for what a labelled source holds: without the files of bands where none is there."""
    if not config.band_files:
        return config
    whole = replace(config, band_files=(), resample_bands=False)
    files = find_images([source], whole).files
    return config if any(file.kind == "picture" and cut_name(file.path, config.band_files) for file in files) else whole


def _place(file: InputFile, record: Record, config: ImageConfig) -> Path | Tile | Content:
    """Where an image is: its file or files, or what it holds where that is none of its own."""
    if file.kind == "bands" and record.content is None:
        return Tile(file, config)
    return file.path if record.content is None and file.kind == "picture" else _content(file, record, config)


def _content(file: InputFile, record: Record, config: ImageConfig) -> Content:
    return Tile(file, config).read() if record.content is None else record.content
