"""Which two images are views of one scene: explicit lists, names, stereo folders, frames, posed views (`PairConfig.pairing`).

Every way gives one ordered list of image files and pairs of their numbers. An image may be in several pairs, and is read once. Images without a
partner are an error that names them; nothing is dropped in silence.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from headstart.catalog.folder import PAIR_ENDS, PAIR_FIELDS, PAIR_FOLDERS
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_bounded
from headstart.core.listing import readable, walk
from headstart.core.words import agree, plural
from headstart.data.image.pair_config import PairConfig, Pairing
from headstart.data.image.poses import TRANSFORMS, pairs_of_scene, read_scene
from headstart.data.image.sources import KINDS, LISTS, MAX_LIST_BYTES, InputFile, Inputs, find_images
from headstart.data.listing import refuse_twice

HOW = "Say how with --image.pairing: list, names (a_1.jpg, a_2.jpg), folders (left, right), frames, poses, twos or crops."


@dataclass
class Pairs:
    """What the sources hold.

    Attributes:
        inputs: the images, in order.
        pairing: how they pair up; never "auto".
        pairs: int64 [m, 2], numbers of files; None: records pair up (twos, crops), which only their reading tells.
        scenes: int64 [m], pairs with one number are of one scene by their folder.
    """

    inputs: Inputs
    pairing: Pairing
    pairs: np.ndarray | None
    scenes: np.ndarray | None


Found = Iterator[tuple[Path, Path, str]]
"""(first view, second view, scene)"""


def find_pairs(sources: Sequence[str | Path], config: PairConfig) -> Pairs:
    """List the images of `sources` and how they pair up.

    Raises:
        BadInput: there is no pair, images lack their partner, or nothing tells how they pair up.
    """
    pairing = _pairing(sources, config) if config.pairing == "auto" else config.pairing
    if pairing in ("twos", "crops"):
        return Pairs(find_images(sources, config), pairing, None, None)
    ways: dict[str, Callable[[Sequence[str | Path], PairConfig], Found]] = {
        "list": _listed, "names": _by_names, "folders": _by_folders, "frames": _frames, "poses": _posed,
    }  # fmt: skip
    numbers: dict[Path, int] = {}
    scene_numbers: dict[str, int] = {}
    pairs, scenes = [], []
    for first, second, scene in ways[pairing](sources, config):
        if first == second:
            raise BadInput("is both views of a pair.", "Give two images of one scene; or --image.pairing crops.", file=readable(first))
        pairs.append([numbers.setdefault(path, len(numbers)) for path in (first, second)])
        scenes.append(scene_numbers.setdefault(scene, len(scene_numbers)))
    if not pairs:
        raise BadInput("holds no pair of images.", HOW, file=", ".join(map(str, sources[:3])))
    return Pairs(_inputs(list(numbers)), pairing, np.array(pairs, np.int64), np.array(scenes, np.int64))


def _inputs(paths: list[Path]) -> Inputs:
    inputs = Inputs()
    for path in paths:
        if KINDS.get(path.suffix.lower()) != "picture":
            mend = "Files of many images pair up in their order: --image.pairing twos."
            raise BadInput("is no file of one image.", mend, file=readable(path))
        inputs.files.append(_described(path))
    missing = [readable(file.path) for file in inputs.files if file.size < 0]
    if missing:
        what = f"{plural(len(missing), 'image')} of pairs {agree(len(missing), 'is', 'are')} not there: {', '.join(missing[:5])}."
        raise BadInput(what, "Copy them there, or correct the list.")
    return inputs


def _described(path: Path) -> InputFile:
    try:
        status = path.stat()
    except OSError:
        return InputFile(path, readable(path), "picture", -1, 0)
    return InputFile(path, readable(path), "picture", status.st_size, status.st_mtime_ns)


def _pairing(sources: Sequence[str | Path], config: PairConfig) -> Pairing:
    """How the sources pair up, by what they are."""
    paths = [Path(source) for source in sources]
    if all(path.suffix.lower() in LISTS for path in paths):
        return "list"
    if all(path.name == TRANSFORMS or _scenes(path) for path in paths):
        return "poses"
    if config.view_folders or (len(paths) == 2 and all(path.is_dir() for path in paths) and _are_sides(paths)):
        return "folders"
    files = _files(sources, config)
    for way, found in (("names", _partners(files)), ("folders", _sides(files, config))):
        if 2 * len(found) > len(files) / 2:  # most images have a partner
            return cast(Pairing, way)
    raise BadInput("does not tell which two images are views of one scene.", HOW, file=", ".join(map(str, sources[:3])))


def _files(sources: Sequence[str | Path], config: PairConfig) -> list[Path]:
    return [file.path for file in find_images(sources, config).files]


# --- lists ----------------------------------------------------------------------------------------------------------------------------------------


def _listed(sources: Sequence[str | Path], config: PairConfig) -> Found:
    for source in sources:
        path = Path(source)
        try:
            text = read_bounded(path, MAX_LIST_BYTES, "list of pairs").decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput("is not UTF-8.", "Convert the file, for example: iconv -f LATIN1 -t UTF-8.", file=readable(path)) from error
        lines = _pair_lines(text, path) if path.suffix.lower() == ".txt" else _pair_table(text, path)
        for first, second in lines:
            yield path.parent / first, path.parent / second, str((path.parent / first).parent)


def _pair_lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Two paths a line, with a space or tab between; or a prefix P for P_1.jpg and P_2.jpg (any known suffix). `#` begins a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if (pair := _cut(line)) is None:
            pair = _prefixed(path.parent, line)
        if pair is None:
            mend = "Write two image files a line, or the prefix of a_1.jpg and a_2.jpg."
            raise BadInput(f"{line[:80]!r} names no pair of images.", mend, file=readable(path), record=number)
        yield pair


def _cut(line: str) -> tuple[str, str] | None:
    """The two paths of a line; names may have spaces where the one cut between two images is clear."""
    separators = re.compile(r"\t" if "\t" in line else r"\s+")
    found = [(line[: cut.start()].strip(), line[cut.end() :].strip()) for cut in separators.finditer(line)]
    pairs = [pair for pair in found if all(Path(name).suffix.lower() in KINDS for name in pair)]
    return pairs[0] if len(pairs) == 1 else None


def _prefixed(folder: Path, prefix: str) -> tuple[str, str] | None:
    for suffix, kind in KINDS.items():
        if kind == "picture" and (folder / f"{prefix}_1{suffix}").exists():
            return f"{prefix}_1{suffix}", f"{prefix}_2{suffix}"
    return None


def _pair_table(text: str, path: Path) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(text.splitlines(), delimiter="," if path.suffix.lower() == ".csv" else "\t", strict=True)
    try:
        if not set(PAIR_FIELDS) <= set(rows.fieldnames or []):
            raise BadInput(f"has no columns {' and '.join(PAIR_FIELDS)}.", "The first line must be a header.", file=readable(path))
        refuse_twice(rows.fieldnames or [], PAIR_FIELDS, path)
        for row in rows:
            first, second = ((row[column] or "").strip() for column in PAIR_FIELDS)
            if not first or not second:
                raise BadInput("names no pair of images.", "Give both paths.", file=readable(path), record=rows.line_num)
            yield first, second
    except csv.Error as error:
        raise BadInput(f"is no valid table ({error}).", "Quote fields with double quotes.", file=readable(path), record=rows.line_num) from error


# --- names, folders, frames -----------------------------------------------------------------------------------------------------------------------


def _by_names(sources: Sequence[str | Path], config: PairConfig) -> Found:
    files = _files(sources, config)
    found = _partners(files)
    _refuse_alone(files, found)
    for first, second in found:
        yield first, second, str(first.parent)


def _partners(files: list[Path]) -> list[tuple[Path, Path]]:
    """Files whose names differ in the ending alone."""
    there, pairs = {(file.parent, file.stem.lower()): file for file in files}, []
    for file in files:
        stem = file.stem.lower()
        for one, two in PAIR_ENDS:
            partner = there.get((file.parent, stem[: -len(one)] + two)) if stem.endswith(one) else None
            if partner is not None:
                pairs.append((file, partner))
                break
    return pairs


def _by_folders(sources: Sequence[str | Path], config: PairConfig) -> Found:
    paths = [Path(source) for source in sources]
    if len(paths) == 2 and all(path.is_dir() for path in paths) and _are_sides(paths):
        sides = [{file.path.relative_to(path): file.path for file in find_images([path], config).files} for path in paths]
        files, found = [*sides[0].values(), *sides[1].values()], [(sides[0][name], sides[1][name]) for name in sides[0] if name in sides[1]]
    else:
        files = _files(sources, config)
        found = _sides(files, config)
    _refuse_alone(files, found)
    for first, second in found:
        yield first, second, str(first.parent)


def _are_sides(paths: list[Path]) -> bool:
    """Whether two folders hold files of equal names."""
    names = [{file.relative_to(path) for file in walk(path) if KINDS.get(file.suffix.lower()) == "picture"} for path in paths]
    return 2 * len(names[0] & names[1]) > max(len(names[0]), len(names[1]), 1)


def _sides(files: list[Path], config: PairConfig) -> list[tuple[Path, Path]]:
    """Files whose paths differ in the name of one folder alone."""
    there, pairs = set(files), []
    names = dict([cast(tuple[str, str], config.view_folders)] if config.view_folders else PAIR_FOLDERS)
    for file in files:
        parts = file.parts
        for place in range(len(parts) - 2, -1, -1):
            partner = Path(*parts[:place], names[parts[place]], *parts[place + 1 :]) if parts[place] in names else None
            if partner in there:
                pairs.append((file, cast(Path, partner)))
                break
    return pairs


def _refuse_alone(files: list[Path], found: list[tuple[Path, Path]]) -> None:
    paired = {path for pair in found for path in pair}
    if alone := [readable(file) for file in files if file not in paired]:
        what = f"{len(alone):,} of {len(files):,} images {agree(len(alone), 'has', 'have')} no partner: {', '.join(alone[:5])}."
        raise BadInput(what, "Add their partners, or give a list of the pairs.")


def _frames(sources: Sequence[str | Path], config: PairConfig) -> Found:
    """Of every folder, each frame with that `frame_gap` later; numbers in names count by their value."""
    folders: dict[Path, list[Path]] = {}
    for file in _files(sources, config):
        folders.setdefault(file.parent, []).append(file)
    for folder, files in folders.items():
        files.sort(key=lambda file: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)])
        for first, second in zip(files, files[config.frame_gap :], strict=False):
            yield first, second, str(folder)


# --- posed views ----------------------------------------------------------------------------------------------------------------------------------


def _posed(sources: Sequence[str | Path], config: PairConfig) -> Found:
    for source in sources:
        files = [Path(source)] if Path(source).name == TRANSFORMS else _scenes(Path(source))
        if not files:
            raise BadInput(f"holds no {TRANSFORMS}.", "Give folders with one, or another --image.pairing.", file=str(source))
        for file in files:
            scene = read_scene(file)
            try:
                chosen = pairs_of_scene(scene, config.smallest_overlap, config.scene_depth, config.pairs_per_scene)
            except UsageError as error:
                raise BadInput(str(error), "Give --image.scene-depth, or a list of the pairs.", file=readable(file)) from error
            for first, second in chosen:
                yield scene.files[first], scene.files[second], str(file)


def _scenes(folder: Path) -> list[Path]:
    return [file for file in walk(folder) if file.name == TRANSFORMS] if folder.is_dir() else []
