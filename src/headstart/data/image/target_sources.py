"""Which files belong together: an image (or two views of a scene) and what is wanted of its pixels.

- A list: a .txt with `image target` (two views: `first second target`) a line, or a .csv or .tsv with columns image, target (image1, image2, target).
- A folder: equal names in two folders (`images/a.jpg` with `masks/a.png`), or endings of names (`a.jpg` with `a_mask.png`). Of two views also the
  layouts of the public sets: KITTI (`image_2`, `image_3`, `disp_occ_0`; `flow_occ`), Middlebury (`im0.png`, `im1.png`, `disp0.pfm`), Scene Flow
  (`left`, `right`, `disparity`), Sintel (`clean/S/frame_0001.png` and the next, `flow/S/frame_0001.flo`), FlyingChairs (`1_img1.ppm`, `1_img2.ppm`,
  `1_flow.flo`).

Where a network learned from tiles with a file for each band (`t_B02.tif`, `t_B03.tif`), these files are one image `t`: `masks/t.png` is of it, and a
list names any of its files. A target without its image is an error. Images without a target are counted: what is not labelled cannot be trained on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from headstart.catalog.folder import PAIR_ENDS, PAIR_FOLDERS
from headstart.core.errors import BadInput
from headstart.core.files import read_bounded
from headstart.core.listing import readable, walk
from headstart.core.words import agree, plural
from headstart.data.image.band_files import cut_name, first_band, tile_of
from headstart.data.image.sources import KINDS, LISTS, MAX_LIST_BYTES
from headstart.data.image.targets import ARRAYS, DISPARITIES, FLOWS, MASKS, NUMBERS
from headstart.data.listing import refuse_twice

SUFFIXES = {"segmentation": MASKS, "dense-regression": NUMBERS, "depth": NUMBERS, "stereo": DISPARITIES, "flow": FLOWS}
"""Task -> of its targets."""
ALWAYS_TARGETS = (".pfm", ".flo", *ARRAYS)
"""Suffixes that no view has in a folder of pictures."""
TARGET_FOLDERS = {
    "segmentation": ("masks", "mask", "labels", "label", "annotations", "segmentation", "SegmentationClass", "gtFine"),
    "dense-regression": ("targets", "target", "maps", "values", "labels"),
    "depth": ("depth", "depths", "targets", "target"),
    "stereo": ("disparity", "disparities", "disp", "disp_occ_0", "disp_noc_0", "disp_occ", "targets"),
    "flow": ("flow", "flows", "flow_occ", "flow_noc", "targets"),
}
IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "rgb", "JPEGImages", "leftImg8bit", "left", "image_2", "image_02", "image_0", "cam0", "view1", "first",
    "clean", "final", "frames_cleanpass", "frames_finalpass",
)  # fmt: skip
TARGET_ENDINGS = {
    "segmentation": ("_mask", "_label", "_labels", "_seg", "_segmentation"),
    "dense-regression": ("_target", "_map", "_values"),
    "depth": ("_depth", "_target"),
    "stereo": ("_disparity", "_disp", "disp0GT", "disp0", "disp"),
    "flow": ("_flow", "flow"),
}
VIEW_ENDINGS = (*PAIR_ENDS, ("_img1", "_img2"))
VIEW_FOLDERS = (*PAIR_FOLDERS, ("first", "second"))


@dataclass(frozen=True)
class DenseFiles:
    """One record: its views (one or two), and its target. Of a tile in several files the view is that of the first band."""

    views: tuple[Path, ...]
    target: Path


@dataclass
class Found:
    """The records of a source, and what is to be said of it."""

    records: list[DenseFiles] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Images: TypeAlias = dict[tuple[Path, str], Path]
"""(folder, name) of images, and their files."""


def find_targets(source: str | Path, task: str, band_files: Sequence[str] = ()) -> Found:
    """The records of a list or folder.

    Args:
        task: segmentation, dense-regression, depth (one view), stereo, flow (two).
        band_files: see `ImageConfig`; where no file is of such a band, files are whole images that somebody stacked.

    Raises:
        BadInput: there is none; a file is missing, or comes twice; a target has no image.
    """
    path = Path(source)
    views = 2 if task in ("stereo", "flow") else 1
    if path.is_dir():
        found = _in_folder(path, task, views, band_files)
    elif path.suffix.lower() in LISTS:
        listed = (DenseFiles(tuple(_first_file(view, band_files) for view in one.views), one.target) for one in _listed(path, views))
        found = Found(list(listed))
    else:
        raise BadInput("is neither a folder nor a list.", "Give a folder with images and targets, or a .txt, .csv or .tsv list.", file=readable(path))
    if not found.records:
        folders = f"{' and '.join(VIEW_FOLDERS[0])} beside" if views == 2 else "images beside"
        mend = f"Give folders {folders} {TARGET_FOLDERS[task][0]} with files of equal names, or a list of the files."
        raise BadInput(f"holds no image with a target for {task}.", mend, file=readable(path))
    _refuse_missing(found.records, path)
    return found


def _refuse_missing(records: Sequence[DenseFiles], source: Path) -> None:
    files = [file for record in records for file in (*record.views, record.target)]
    if gone := [readable(file) for file in dict.fromkeys(files) if not file.is_file()]:
        what = f"{len(gone):,} of {len(files):,} files {agree(len(gone), 'is', 'are')} not there: {', '.join(gone[:5])}."
        raise BadInput(what, "Copy them there.", file=readable(source))
    for record in records:
        if len({*record.views, record.target}) < len(record.views) + 1:
            raise BadInput("is named twice in one record.", "Give different files.", file=readable(record.target))
        if strange := [view for view in record.views if KINDS.get(view.suffix.lower()) != "picture"]:
            raise BadInput("is no file of one image.", "Give images one by one.", file=readable(strange[0]))


# --- lists ----------------------------------------------------------------------------------------------------------------------------------------


def _listed(path: Path, views: int) -> Iterator[DenseFiles]:
    try:
        text = read_bounded(path, MAX_LIST_BYTES, "list of images and targets").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("is not UTF-8.", "Convert the file, for example: iconv -f LATIN1 -t UTF-8.", file=readable(path)) from error
    rows = _lines(text, path, views) if path.suffix.lower() == ".txt" else _table(text, path, views)
    for names in rows:
        *images, target = (path.parent / name for name in names)
        yield DenseFiles(tuple(images), target)


def _lines(text: str, path: Path, views: int) -> Iterator[list[str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        names = [name.strip() for name in (line.split("\t") if "\t" in line else line.split())]
        if len(names) != views + 1 or "\0" in line:
            wanted = "image target" if views == 1 else "first second target"
            mend = f"Write `{wanted}` a line; put tabs between names with spaces."
            raise BadInput(f"{line[:80]!r} names {len(names)} files, not {views + 1}.", mend, file=readable(path), record=number)
        yield names


def _table(text: str, path: Path, views: int) -> Iterator[list[str]]:
    columns = (["image"] if views == 1 else ["image1", "image2"]) + ["target"]
    rows = csv.DictReader(text.splitlines(), delimiter="," if path.suffix.lower() == ".csv" else "\t", strict=True)
    try:
        if missing := [column for column in columns if column not in (rows.fieldnames or [])]:
            raise BadInput(f"has no column {missing[0]!r}.", f"The first line must name {', '.join(columns)}.", file=readable(path))
        refuse_twice(rows.fieldnames or [], columns, path)
        for row in rows:
            names = [(row[column] or "").strip() for column in columns]
            if not all(names) or "\0" in "".join(names):
                raise BadInput("lacks a file.", f"Give {', '.join(columns)}.", file=readable(path), record=rows.line_num)
            yield names
    except csv.Error as error:
        raise BadInput(f"is no valid table ({error}).", "Quote fields with double quotes.", file=readable(path), record=rows.line_num) from error


# --- folders --------------------------------------------------------------------------------------------------------------------------------------


def _first_file(path: Path, band_files: Sequence[str]) -> Path:
    """The file of the first band of the tile that a file is of; itself where it is of none."""
    cut = cut_name(path, band_files) if band_files else None
    return path if cut is None else first_band(path, cut[0], band_files)


def _tiles(files: Sequence[Path], band_files: Sequence[str]) -> Images:
    """The tiles that files are of, each the file of its first band."""
    found: Images = {}
    for file in files:
        if cut := cut_name(file, band_files):
            tile = tile_of(file, cut[0])
            for folder in (tile.parent, file.parent):  # a target may lie in a tile's own folder
                found[folder, tile.name] = first_band(file, cut[0], band_files)
    return found


def _in_folder(folder: Path, task: str, views: int, band_files: Sequence[str]) -> Found:
    files = [file for file in walk(folder) if not file.name.startswith(".")]
    targets = [file for file in files if file.suffix.lower() in SUFFIXES[task] and _is_target(file, folder, task)]
    others = set(files) - set(targets)
    pictures = [file for file in sorted(others) if KINDS.get(file.suffix.lower()) == "picture"]
    found, alone, images = Found(), [], _tiles(pictures, band_files)
    if not images:
        images = {(file.parent, file.stem): file for file in pictures}
    elif left := sum(cut_name(file, band_files) is None for file in pictures):
        are = agree(left, "is", "are")
        found.notes.append(f"{plural(left, 'file')} in {readable(folder)} {are} of none of the bands {' '.join(band_files)} and {are} left out.")
    for target in targets:
        record = next((record for first in _first_views(target, folder, task, images) if (record := _whole(first, target, task, images))), None)
        found.records += [record] if record is not None else []
        alone += [] if record is not None else [target]
    if alone and found.records:
        listed = ", ".join(readable(file) for file in alone[:5])
        lacking = f"{agree(len(alone), 'has', 'have')} no image{'' if views == 1 else ', or no second view'}"
        what = f"{len(alone):,} of {len(targets):,} targets {lacking}: {listed}."
        raise BadInput(what, "Name them alike, or give a list of the files.", file=readable(folder))
    used = {view for record in found.records for view in record.views}
    if left := len(there := set(images.values())) - len(used & there):
        has, are = (agree(left, *words) for words in (("has", "have"), ("is", "are")))
        found.notes.append(f"{left:,} of {len(there):,} images in {readable(folder)} {has} no target and {are} left out.")
    return found


def _is_target(file: Path, folder: Path, task: str) -> bool:
    parts = file.relative_to(folder).parts[:-1]
    named = any(file.stem.endswith(ending) for ending in TARGET_ENDINGS[task])
    return named or bool(set(parts) & set(TARGET_FOLDERS[task])) or file.suffix.lower() in ALWAYS_TARGETS


def _first_views(target: Path, folder: Path, task: str, images: Images) -> Iterator[tuple[Path, str]]:
    """The images that may be the (first) view of a target, the likeliest first."""
    stems = [target.stem, *(target.stem[: -len(ending)] for ending in TARGET_ENDINGS[task] if target.stem.endswith(ending))]
    if task in ("stereo", "flow"):
        stems += [stem + first for stem in stems for first, _ in VIEW_ENDINGS]
    inner = target.relative_to(folder).parts[:-1]
    for parent in (target.parent, *_other_parents(folder, inner, TARGET_FOLDERS[task])):
        for stem in stems:
            if (parent, stem) in images:
                yield parent, stem


def _other_parents(folder: Path, inner: tuple[str, ...], of_targets: Sequence[str]) -> Iterator[Path]:
    """The folder of a target with the name that says "targets" changed into one that says "images", or left out."""
    for place, part in enumerate(inner):
        if part in of_targets:
            for name in IMAGE_FOLDERS:
                yield folder.joinpath(*inner[:place], name, *inner[place + 1 :])
            yield folder.joinpath(*inner[:place], *inner[place + 1 :])


def _whole(first: tuple[Path, str], target: Path, task: str, images: Images) -> DenseFiles | None:
    if task not in ("stereo", "flow"):
        return DenseFiles((images[first],), target)
    ways = (_by_ending, _by_folder) if task == "stereo" else (_by_ending, _next_frame, _by_folder)
    second = next((found for way in ways if (found := way(first, images))), None)
    return None if second is None else DenseFiles((images[first], second), target)


def _by_ending(first: tuple[Path, str], images: Images) -> Path | None:
    folder, name = first
    pairs = ((name[: -len(one)] + two for one, two in VIEW_ENDINGS if name.endswith(one)))
    return next((found for stem in pairs if (found := images.get((folder, stem)))), None)


def _by_folder(first: tuple[Path, str], images: Images) -> Path | None:
    parts = first[0].parts
    for place in range(len(parts) - 1, -1, -1):
        for one, two in VIEW_FOLDERS:
            if parts[place] == one and (found := images.get((Path(*parts[:place], two, *parts[place + 1 :]), first[1]))):
                return found
    return None


def _next_frame(first: tuple[Path, str], images: Images) -> Path | None:
    folder, name = first
    match = re.search(r"(\d+)$", name)
    if match is None:
        return None
    number = str(int(match[1]) + 1).zfill(len(match[1]))
    return images.get((folder, name[: match.start()] + number))
