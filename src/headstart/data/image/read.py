"""From one input file to its images, in one streaming pass: memory is bounded by a few images, never by the file.

Nothing is guessed. An image that cannot be used becomes a `Fault` with its number, the reason and how to mend it; whoever reads decides whether that
ends the work. Pixels are not looked at here (`decode.py` does, in threads).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.errors import BadInput
from headstart.core.files import open_regular
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.data import parquet
from headstart.data.arrays import HEADER_ERRORS
from headstart.data.compressed import refuse_bomb
from headstart.data.image.band_files import stacked
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import whole_planes
from headstart.data.image.form import Content, Unusable
from headstart.data.image.opening import read_header, room
from headstart.data.image.sources import KINDS, InputFile
from headstart.data.image.tiff_rows import TiffRows, tiff_rows

AGAIN = "Copy or download the file again."
BATCH_BYTES = 2**24
LABEL_BYTES = 4096
TAR_TAIL = 2**20
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Record:
    """One image that is still encoded.

    Attributes:
        number: 1-based place in the file; 0 where the file is the image.
        content: its bytes, or an array; None where the file is the image (`read_picture`).
        label: its class.
    """

    number: int
    content: Content | None
    label: str | None


@dataclass(frozen=True)
class Fault:
    """An image that cannot be used, and why."""

    number: int
    what: str
    mend: str


ALONE = ("picture", "bands")
"""Kinds of input that are one image."""

_Found: TypeAlias = Record | Fault


def records(file: InputFile, config: ImageConfig) -> Iterator[_Found]:
    """The images of a file, in order; with `config.tile` their windows, counted through the file."""
    if config.tile is None:
        yield from _images(file, config)
        return
    number = 0
    for found in _images(file, config):
        if isinstance(found, Fault):
            yield found
            continue
        try:
            for window in _windows(found, file, config.tile, config):
                number += 1
                yield Record(number, window.transpose(1, 2, 0) if config.layout == "channels-last" else window, found.label)
        except Unusable as error:
            yield Fault(found.number, error.what, error.mend)


def _windows(record: Record, file: InputFile, tile: int, config: ImageConfig) -> Iterator[np.ndarray]:
    """[bands, tile, tile]: the windows of an image, row by row. Of a TIFF no more rows are in memory than its segments ask for.

    Raises Unusable.
    """
    if record.content is not None:
        yield from _cut(whole_planes(record.content, config), tile)
        return
    if file.kind == "bands":
        planes = read_tile(file, config)[0]
        if isinstance(planes, Fault):
            raise Unusable(planes.what, planes.mend)
        yield from _cut(planes, tile)
        return
    opened = _opened(file)
    with opened:
        rows = tiff_rows(
            opened, file.size, config.mode == "bands" or bool(config.bands), tile, config.animated == "first", int(config.max_megapixels * 1e6)
        )
        if rows is not None:
            yield from _cut(rows, tile)
            _refuse_change(file, os.fstat(opened.fileno()))
            return
    content = read_picture(file)
    if isinstance(content, Fault):
        raise Unusable(content.what, content.mend)
    yield from _cut(whole_planes(content, config), tile)


def _opened(file: InputFile) -> IO[bytes]:
    """Raises Unusable where it cannot be opened, BadInput where it changed since it was listed."""
    try:
        opened = open_regular(file.path)
    except (BadInput, OSError) as error:
        refuse_limits(error, file.path)
        reason = error.reason if isinstance(error, BadInput) else f"cannot be read ({error.strerror})."
        raise Unusable(reason, "Check that it exists and its permissions.") from error
    _refuse_change(file, os.fstat(opened.fileno()))
    return opened


def _cut(image: np.ndarray | TiffRows, tile: int) -> Iterator[np.ndarray]:
    """The windows of [bands, height, width], row by row."""
    bands, height, width = image.shape
    if min(height, width) < tile:
        raise Unusable(f"is {width} x {height} pixels, smaller than a window of {tile}.", "Lower --image.tile, or leave it out.")
    if bands >= tile:
        raise Unusable(f"has {bands} bands, a window {tile} pixels a side.", "Raise --image.tile above the number of bands.")
    for top in window_places(height, tile):
        rows = image.read(top, top + tile) if isinstance(image, TiffRows) else image[:, top : top + tile]
        yield from (rows[:, :, left : left + tile] for left in window_places(width, tile))


def window_places(side: int, tile: int) -> list[int]:
    """Where windows begin along a side: one beside the other, the last as far as it goes."""
    return [*range(0, side - tile, tile), side - tile]


def _images(file: InputFile, config: ImageConfig) -> Iterator[_Found]:
    """The images of a file, whole."""
    if file.kind in ALONE:
        yield Record(0, None, file.label)
        return
    try:
        with open_regular(file.path):
            pass
    except BadInput as error:
        yield Fault(0, error.reason, "Check that it exists and its permissions.")
        return
    reader = {"npz": _npz, "parquet": _parquet, "tar": _tar}[file.kind]
    for found in reader(file, config):
        yield found if isinstance(found, Fault) or found.label is not None else Record(found.number, found.content, file.label)


def stated_count(file: InputFile, config: ImageConfig) -> int | None:
    """How many images a file of many says that it holds; None where its reading alone tells (.tar), or it is damaged or no file."""
    try:
        with open_regular(file.path):  # nothing waits for a pipe
            pass
        if file.kind == "parquet":
            with pq.ParquetFile(file.path) as table:
                return int(table.metadata.num_rows)
        if file.kind == "npz":
            with zipfile.ZipFile(file.path) as archive:
                shapes = {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist() if name.endswith(".npy")}
            name = _chosen(shapes, config)
            return None if isinstance(name, Fault) else 1 if _is_one(name, shapes, config) else shapes[name][0]
    except (BadInput, *ZIP_ERRORS, *HEADER_ERRORS, *parquet.ERRORS):
        pass
    return None


def read_picture(file: InputFile) -> bytes | Fault:
    """The bytes of a file that is one image.

    Raises BadInput: the file changed since it was listed. This is never quarantined: the run would train on another file than its store says.
    """
    if file.size > room():
        return Fault(0, f"has {file.size / 1e6:,.0f} MB.", "Cut it into smaller images.")
    try:
        with open_regular(file.path) as opened:
            data = opened.read(file.size + 1)
            status = Path(file.path).stat()
    except (BadInput, OSError) as error:
        refuse_limits(error, file.path)
        reason = error.reason if isinstance(error, BadInput) else f"cannot be read ({error.strerror})."
        return Fault(0, reason, "Check that it exists and its permissions.")
    _refuse_change(file, status, len(data))
    return data


def read_tile(file: InputFile, config: ImageConfig) -> tuple[np.ndarray | Fault, str]:
    """(the bands of a tile in several files [bands, height, width], hash of the files).

    Raises BadInput as `read_picture`.
    """
    contents: list[bytes] = []
    for part, name in zip(file.parts, config.band_files, strict=True):
        if part.size < 0:
            return Fault(0, f"lacks the band {name} ({part.path.name}).", "Add it, or leave the band out of --image.band-files."), ""
        content = read_picture(part)
        if isinstance(content, Fault):
            return Fault(0, f"has a band {name} that {content.what}", content.mend), ""
        contents.append(content)
    try:
        return stacked(contents, config.band_files, config), hashlib.sha256(b"".join(contents)).hexdigest()
    except Unusable as error:
        return Fault(0, error.what, error.mend), ""


def read_alone(file: InputFile, config: ImageConfig) -> Content | Fault:
    """What a file that is one image holds, or the files of a tile."""
    return read_tile(file, config)[0] if file.kind == "bands" else read_picture(file)


def _refuse_change(file: InputFile, status: os.stat_result, read: int | None = None) -> None:
    """Raises BadInput where a file is not the one that was listed, or other than `read` bytes were read from it."""
    if (file.size if read is None else read, status.st_size, status.st_mtime_ns) != (file.size, file.size, file.mtime_ns):
        what = f"the file changed while it was read ({file.size:,} bytes before, {status.st_size:,} after)."
        raise BadInput(what, "Let its writer finish, then start the same command again.", file=file.name)


def bad_input(file: InputFile, fault: Fault) -> BadInput:
    """The error that ends the work when bad input is not quarantined."""
    mend = f"{fault.mend} Or go on without such images: --image.on-bad-input quarantine."
    return BadInput(fault.what, mend, file=file.name, record=fault.number or None)


# --- .npz -----------------------------------------------------------------------------------------------------------------------------------------


def _npz(file: InputFile, config: ImageConfig) -> Iterator[_Found]:
    number = 0
    try:
        with zipfile.ZipFile(file.path) as archive:
            shapes = {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist() if name.endswith(".npy")}
            name = _chosen(shapes, config)
            if isinstance(name, Fault):
                yield name
                return
            labels = _labels(archive, shapes, name, config)
            if isinstance(labels, Fault):
                yield labels
                return
            size, packed = 0, Path(file.path).stat().st_size
            for number, image in enumerate(_whole(archive, name) if _is_one(name, shapes, config) else _rows(archive, name), 1):
                refuse_bomb(size := size + image.nbytes, packed)
                yield Record(number, image, None if labels is None else labels[number - 1])
    except (*ZIP_ERRORS, *HEADER_ERRORS) as error:
        refuse_limits(error, file.path)
        yield Fault(number + 1, f"is damaged, cut off, or no .npz file ({first_line(error)}).", AGAIN)


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as stream:
        return read_header(stream)[0]


def _chosen(shapes: dict[str, tuple[int, ...]], config: ImageConfig) -> str | Fault:
    """The array of the images."""
    there = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:8]) or "none"
    if config.image_field is not None:
        if config.image_field not in shapes:
            mend = "Name the one that holds the images with --image.image-field."
            return Fault(0, f"has no array {config.image_field!r} (its arrays: {there}).", mend)
        if len(shapes[config.image_field]) not in (3, 4):
            what = f"array {config.image_field!r} is {list(shapes[config.image_field])}, not [images, height, width] or [images, ...] of four axes."
            return Fault(0, what, "Write all images of a file as one array.")
        return config.image_field
    able = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    if len(able) == 1:
        return able[0]
    return Fault(0, f"{len(able)} of its arrays may be images (its arrays: {there}).", "Name one: --image.image-field NAME.")


def _labels(archive: zipfile.ZipFile, shapes: dict[str, tuple[int, ...]], images: str, config: ImageConfig) -> list[str] | Fault | None:
    """The classes of all images; None if there are none."""
    name = config.label_field if config.label_field in shapes else images.replace("images", "labels")
    if name not in shapes or name == images:
        return None
    n = 1 if _is_one(images, shapes, config) else shapes[images][0]
    with archive.open(f"{name}.npy") as stream:
        shape, _, dtype = read_header(stream)
        if math.prod(shape) != n or dtype.kind not in "iuU" or dtype.itemsize > LABEL_BYTES or n * dtype.itemsize > room():
            return Fault(0, f"array {name!r} is {dtype}{list(shape)}, not a class for each of {n:,} images.", "Write one whole number or name each.")
        return [str(value) for value in np.frombuffer(_exactly(stream, n * dtype.itemsize), dtype)]


def _is_one(name: str, shapes: dict[str, tuple[int, ...]], config: ImageConfig) -> bool:
    """Whether an array is one image: `bands` of three axes, as satellite tiles are kept, a file each. An array that a person names is many."""
    return config.image_field is None and name == "bands" and len(shapes[name]) == 3


def _whole(archive: zipfile.ZipFile, name: str) -> Iterator[np.ndarray]:
    """An array as one image."""
    with archive.open(f"{name}.npy") as stream:
        shape, fortran, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size < 1:
            raise ValueError(f"array {name!r} holds no image")
        if size > room():
            raise ValueError(f"array {name!r} has {size / 1e6:,.0f} MB")
        flat = np.frombuffer(_exactly(stream, size), dtype)
        yield flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _rows(archive: zipfile.ZipFile, name: str) -> Iterator[np.ndarray]:
    """The images of an array, one at a time."""
    with archive.open(f"{name}.npy") as stream:
        (n, *inner), fortran, dtype = read_header(stream)
        size = math.prod(inner) * dtype.itemsize
        if dtype.hasobject or size < 1:
            raise ValueError(f"array {name!r} holds no images")
        if size > room() or (fortran and n * size > room()):
            raise ValueError(f"an image of array {name!r} has {size / 1e6:,.0f} MB")
        if fortran:
            yield from np.frombuffer(_exactly(stream, n * size), dtype).reshape([*inner[::-1], n]).T
            return
        for _ in range(n):
            yield np.frombuffer(_exactly(stream, size), dtype).reshape(inner)


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) < size:
        raise EOFError("the array is cut off")
    return data


# --- .parquet -------------------------------------------------------------------------------------------------------------------------------------


def _parquet(file: InputFile, config: ImageConfig) -> Iterator[_Found]:
    """A column of bytes, or of structures with a field `bytes`, as Hugging Face's datasets write images."""
    number, size = 0, 0
    try:
        with pq.ParquetFile(file.path) as table:
            schema, packed = table.schema_arrow, file.path.stat().st_size
            column = _image_column(schema, config)
            if isinstance(column, Fault):
                yield column
                return
            names = _class_names(schema, config.label_field)
            has_label = config.label_field in schema.names and not pa.types.is_nested(schema.field(config.label_field).type)
            stated = sum(table.metadata.row_group(index).total_byte_size for index in range(table.num_row_groups))
            at_once = min(max(BATCH_BYTES * table.metadata.num_rows // max(stated, 1), 1), 4096)
            for batch in table.iter_batches(batch_size=at_once, columns=[column, *([config.label_field] if has_label else [])]):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    images = images.field("bytes")
                labels = batch.column(1) if has_label else None
                for at in range(len(batch)):
                    number += 1
                    content = images[at].as_py()
                    if content is None:
                        yield Fault(number, "has no bytes of an image.", "Leave the row out, or write the image's bytes (a path alone is not read).")
                        continue
                    size += len(content)
                    refuse_bomb(size, packed)
                    yield Record(number, content, None if labels is None else _class(labels[at].as_py(), names))
    except parquet.ERRORS as error:
        refuse_limits(error, file.path)
        yield Fault(number + 1, f"is damaged, cut off, or no parquet file ({first_line(error)}).", AGAIN)


def _image_column(schema: pa.Schema, config: ImageConfig) -> str | Fault:
    def able(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and able(kind.field("bytes").type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    there = ", ".join(f"{field.name} ({field.type})"[:80] for field in list(schema)[:8])
    columns = [field.name for field in schema if able(field.type)]
    wanted = config.image_field or ("image" if "image" in columns or len(columns) != 1 else columns[0])
    if wanted in columns:
        return f"{wanted}.bytes" if pa.types.is_struct(schema.field(wanted).type) else wanted
    what = "is no column of bytes" if wanted in schema.names else "is no column"
    return Fault(0, f"{wanted!r} {what} (the columns: {there}).", "Name the column that holds the images' bytes with --image.image-field.")


def _class_names(schema: pa.Schema, field: str) -> list[str]:
    """Names of the classes, where Hugging Face's datasets left them in the file."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][field]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return []


def _class(value: Any, names: list[str]) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return None if value is None else str(value)[:LABEL_BYTES]


# --- .tar -----------------------------------------------------------------------------------------------------------------------------------------


def _tar(file: InputFile, config: ImageConfig) -> Iterator[_Found]:
    """WebDataset: consecutive members with one name up to the first dot are one sample, an image and maybe its class (.cls). Nothing is unpacked to
    the disk."""
    number = 0
    try:
        with tarfile.open(file.path, "r:") as archive:
            key, image, label = "", None, None  # type: str, bytes | Fault | None, str | None
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, suffix = path.name.partition(".")
                if not member.isfile() and not (is_picture(suffix) and (member.islnk() or member.issym())):
                    continue
                mine = f"{path.parent}/{stem}"
                if mine != key:
                    if image is not None:
                        yield image if isinstance(image, Fault) else Record(number, image, label)
                    key, image, label = mine, None, None
                if is_picture(suffix):
                    number += image is None
                    image = _member(archive, member, number, image is not None)
                elif suffix == "cls" and member.size <= LABEL_BYTES:
                    label = _exactly(archive.extractfile(member), member.size).decode("utf-8", "replace").strip() or None
            if image is not None:
                yield image if isinstance(image, Fault) else Record(number, image, label)
            if what := _end_of_tar(file.path, archive.offset):
                yield Fault(number + 1, what, AGAIN)
            elif number == 0:
                yield Fault(0, "holds no image.", f"Its members' suffixes must be known: {' '.join(KINDS)}.")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        refuse_limits(error, file.path)
        yield Fault(number + 1, f"is damaged, cut off, or no .tar file ({first_line(error)}).", AGAIN)


def is_picture(suffix: str) -> bool:
    """Whether a member's name up to its last dot is followed by what images are named with."""
    return KINDS.get(f".{suffix.lower().rpartition('.')[2]}") == "picture"


def _end_of_tar(path: Path, offset: int) -> str | None:
    """What is wrong with the end of an archive: tarfile takes a cut for an end, and stops at the first of several that were joined."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = file.read(TAR_TAIL)
    if len(rest) < tarfile.BLOCKSIZE or any(rest[: tarfile.BLOCKSIZE]):
        return "is cut off: the mark of its end is missing."
    return "goes on after the mark of its end (joined archives)." if any(rest) else None


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, number: int, second: bool) -> bytes | Fault:
    if second:
        return Fault(number, f"sample {member.name!r} has two images.", "Give each a name of its own, up to the first dot.")
    if not member.isfile():
        return Fault(number, f"member {member.name!r} is a link.", "Write the archive with the files: tar --dereference --hard-dereference.")
    if member.size > room():
        return Fault(number, f"member {member.name!r} has {member.size / 1e6:,.0f} MB.", "Cut it into smaller images.")
    return _exactly(archive.extractfile(member), member.size)
