"""What lies in a folder, judged by file endings and by one look into each table: the question behind `headstart list --data`.

A look reads the first record only (its field names) or an archive's list of arrays, never the whole file; nothing is unpickled.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.catalog.card import Card
from headstart.core.errors import BadInput
from headstart.core.listing import walk

ENDINGS: dict[str, str] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst"), "text"),
    **dict.fromkeys((".py", ".java", ".js", ".go", ".php", ".rb", ".cs"), "code"),
    **dict.fromkeys((".html", ".htm", ".warc"), "html"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif"), "images"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "images"),
    **dict.fromkeys((".dcm", ".nii"), "volumes"),
    **dict.fromkeys((".glb", ".gltf", ".obj", ".off", ".ply", ".stl"), "meshes"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"), "audio"),
    **dict.fromkeys((".mp4", ".webm", ".mov", ".mkv", ".avi"), "video"),
}
TABLES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
COMPRESSED = frozenset({".gz", ".zst", ".bz2", ".xz"})
READ_AS_TEXT = frozenset(ending for ending, kind in ENDINGS.items() if kind == "text") | TABLES - {".json"}
"""What the reader of texts takes, also compressed as READ_COMPRESSED."""
READ_COMPRESSED = frozenset({"", ".gz", ".zst"})
PAIR_ENDS = (("_1", "_2"), ("_left", "_right"), ("_l", "_r"), ("im0", "im1"), ("left", "right"))
"""Of the names of two views' images, before the suffix; small letters."""
PAIR_FOLDERS = (("left", "right"), ("image_2", "image_3"), ("image_02", "image_03"), ("image_0", "image_1"), ("cam0", "cam1"), ("view1", "view2"))
"""Of stereo rigs: KITTI, EuRoC and others."""
PAIR_FIELDS = ("image1", "image2")
"""Columns of a list of pairs."""
MAX_LINE = 4096
"""Bytes of a .txt file that are looked at: a list of pairs has two images in its first line."""
NOTABLE_SHARE = 0.01  # of all bytes; every folder has a README or a list of files, which is not data to pre-train on
MAX_FILES = 20_000
MAX_RECORD = 1 << 20  # characters of the first record that are read


@dataclass(frozen=True)
class FolderContents:
    """What `what_lies_here` found.

    `kinds` counts files (pairs count once) by key of `DATA_KINDS`; one file may be of several kinds. `passed_over` counts the files of no
    known kind, by ending; texts and records that are under a hundredth of all bytes go there too. `empty` counts the files without a byte, which
    are of no kind: there is no record in them. `unread` counts texts in a form that no method reads as it is, by ending. `complete` is False when
    the walk stopped at its limit, after `n_files` files.
    """

    folder: Path
    kinds: dict[str, int]
    passed_over: dict[str, int]
    n_files: int
    complete: bool
    empty: int = 0
    unread: dict[str, int] = field(default_factory=dict)


def what_lies_here(folder: str | Path, max_files: int = MAX_FILES) -> FolderContents:
    """Counts the kinds of data below a folder (or of a single file). Hidden files are passed over; links to folders are followed, as in preparing.

    Args:
        folder: folder or file of the user; only read.
        max_files: the walk stops after so many files.

    Raises:
        BadInput: the path does not exist, or a folder cannot be listed.
    """
    folder = Path(folder)
    if not folder.exists():
        raise BadInput("no such file or folder", "Check the path given to --data.", file=folder)
    paths, complete = _walk(folder, max_files)
    n_files = len(paths)
    paths = [path for path in paths if path.stat().st_size > 0]
    endings_of_stem: defaultdict[tuple[Path, str], set[str]] = defaultdict(set)
    for path in paths:
        endings_of_stem[path.parent, path.stem].add(path.suffix.lower())

    kinds: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    passed_over: defaultdict[str, Counter[str]] = defaultdict(Counter)  # kind -> endings
    images_in: defaultdict[Path, list[str]] = defaultdict(list)  # folder -> stems
    unread: Counter[str] = Counter()
    for path in paths:
        ending, compression = _endings(path)
        found = _kinds_of_file(path, ending, compression)
        beside = {ENDINGS.get(other) for other in endings_of_stem[path.parent, path.stem]}
        if found == ("text",) and beside & {"images", "audio"}:
            continue  # the caption or transcript of the file beside it, counted there
        if found == ("images",) and "text" in beside:
            found = ("images", "captioned images")
        if found == ("audio",) and "text" in beside:
            found = ("audio", "transcribed audio")
        if "images" in found and ending in ENDINGS:  # an array of images is no member of a class folder
            images_in[path.parent].append(path.stem)
        if {"text", "code"} & {*found} and (ending not in READ_AS_TEXT or compression not in READ_COMPRESSED):
            unread[ending + compression] += 1
        kinds.update(found)
        n_bytes["all"] += (size := path.stat().st_size)
        for kind in found or ("",):
            passed_over[kind][ending] += 1
            n_bytes[kind] += size

    sides = {side for pair in _stereo_folders(images_in) for side in pair}
    kinds["labelled images"] += _in_class_folders({place: stems for place, stems in images_in.items() if place not in sides}, folder)
    kinds["image pairs"] += _pairs(images_in) + sum(len({*images_in[one]} & {*images_in[two]}) for one, two in _stereo_folders(images_in))
    dropped = [kind for kind in ("text", "records") if n_bytes[kind] < NOTABLE_SHARE * n_bytes["all"]]
    for kind in dropped:
        del kinds[kind]
    aside = sum((passed_over[kind] for kind in ("", *dropped)), Counter[str]())
    counts = {kind: n for kind, n in kinds.most_common() if n}
    return FolderContents(folder, counts, dict(aside.most_common()), n_files, complete, n_files - len(paths), dict(unread.most_common()))


def fitting(contents: FolderContents, candidates: Iterable[Card]) -> list[tuple[Card, list[str]]]:
    """The cards that ask for a kind of data found here, each with the kinds that matched, in the order given."""
    matches = ((card, [kind for kind in card.data_kinds if kind in contents.kinds]) for card in candidates)
    return [(card, kinds) for card, kinds in matches if kinds]


def _walk(folder: Path, max_files: int) -> tuple[list[Path], bool]:
    if folder.is_file():
        return [folder], True
    paths: list[Path] = []
    for path in walk(folder):
        if path.name.startswith(".") or not path.is_file():  # a pipe would be waited for; a link may lead nowhere
            continue
        if len(paths) == max_files:
            return paths, False
        paths.append(path)
    return paths, True


def _endings(path: Path) -> tuple[str, str]:
    """The ending without compression, and that of the compression or ""."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    compression = endings.pop() if endings and endings[-1] in COMPRESSED else ""
    return endings[-1] if endings else "(no ending)", compression


def _kinds_of_file(path: Path, ending: str, compression: str) -> tuple[str, ...]:
    """The kinds that the file may be of."""
    try:
        if ending in (".tif", ".tiff") and not compression:
            return ("multiband",) if _tiff_bands(path) > 3 else ("images",)
        if ending == ".npz":
            return _kinds_of_arrays({name.removesuffix(".npy") for name in zipfile.ZipFile(path).namelist()})
        if ending == ".txt" and not compression and _lists_pairs(path):
            return ("image pairs",)
        if ending in TABLES:
            return kinds_of_fields(_field_names(path, ending, compression))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, csv.Error, RecursionError, NotImplementedError):
        return ()  # damaged or not what its ending says; the method that reads it will name the record
    return (ENDINGS[ending],) if ending in ENDINGS else ()


def kinds_of_fields(fields: Iterable[str]) -> tuple[str, ...]:
    """The kinds of data that a table with these field names may be. Names are compared in lower case."""
    has = {field.strip().lower() for field in fields}
    if "turns" in has:
        return ("dialogue",)
    if has & {"code", "original_string"}:
        return ("code",)
    if "html" in has:
        return ("html",)
    if has >= set(PAIR_FIELDS):
        return ("image pairs",)
    if has >= {"text_list", "image_list"} or has >= {"texts", "images"}:
        return ("interleaved documents", "text")
    if has & {"image", "images"} and ("conversations" in has or has >= {"question", "answer"}):
        return ("interleaved documents",)
    if has & {"image", "filepath"} and has & {"caption", "captions", "title"}:
        return ("captioned images",)
    if "audio" in has and has & {"text", "transcript"}:
        return ("transcribed audio", "translated audio") if has & {"translation", "translations"} else ("transcribed audio",)
    if {"loss_general", "loss_domain"} & has:
        return ("loss table",)
    if "sequence" in has and has & {"value", "score", "reward"}:
        return ("scored objects",)
    if "page" in has and has & {"sections", "sec", "links"}:
        return ("linked pages",)
    if has & {"text", "document", "body"}:
        kinds = ["text"]
        if "label" in has:
            kinds.append("labelled text")
        if has & {"category", "rating", "stars", "topic", "tags", "intent"} or {"title", "label"} <= has:
            kinds.append("records")
        return tuple(kinds)
    return ("records",) if len(has) >= 2 else ()


def _kinds_of_arrays(names: set[str]) -> tuple[str, ...]:
    """The kinds that an .npz with these array names may be of."""
    last_words = {name.rsplit("_")[-1] for name in names}  # train_images -> images
    if "bands" in names:
        return ("multiband",)
    if "action" in names:
        return ("trajectories",)
    if "images" in last_words:
        return ("images", "labelled images") if "labels" in last_words else ("images",)
    if "faces" in names and names & {"vertices", "verts"}:
        return ("meshes",)
    return ("volumes",) if names & {"hu", "volume"} else ()


def _field_names(path: Path, ending: str, compression: str) -> list[str]:
    """Field names of the first record. Raises ValueError when there is none."""
    if ending == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    with io.TextIOWrapper(_open(path, compression), encoding="utf-8-sig", errors="replace") as stream:
        if ending in (".csv", ".tsv"):
            if "\0" in (header := stream.readline(MAX_RECORD)):
                raise ValueError("UTF-16, or no text")
            return next(csv.reader([header], delimiter="\t" if ending == ".tsv" else ","), [])
        if ending == ".json":
            whole = stream.read(MAX_RECORD)
            record = json.loads(whole)
            record = record[0] if isinstance(record, list) and record else record
        else:
            lines = iter(lambda: stream.readline(MAX_RECORD), "")
            record = json.loads(next((line for line in lines if line.strip()), ""))
    if not isinstance(record, dict):
        raise ValueError("no record with named fields")
    return list(record)


def _open(path: Path, compression: str) -> Any:
    if compression == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    if compression == ".gz":
        return gzip.GzipFile(path)
    if compression == ".bz2":
        return bz2.BZ2File(path)
    return lzma.LZMAFile(path) if compression == ".xz" else path.open("rb")


def _tiff_bands(path: Path) -> int:
    """SamplesPerPixel (tag 277) of the first image of a classic TIFF file; 1 where it is absent, as the TIFF 6.0 text says."""
    with path.open("rb") as stream:
        head = stream.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return 1  # BigTIFF, or no TIFF at all
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        stream.seek(int.from_bytes(head[4:8], order))
        for _ in range(int.from_bytes(stream.read(2), order)):
            entry = stream.read(12)
            if int.from_bytes(entry[:2], order) == 277:
                return int.from_bytes(entry[8:10], order)
    return 1


def _in_class_folders(images_in: dict[Path, list[str]], top: Path) -> int:
    """Images that lie in one folder per class: two sibling folders with images, whose parent holds none itself."""
    siblings: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in images_in:
        if folder != top:
            siblings[folder.parent].append(folder)
    return sum(len(images_in[child]) for parent, group in siblings.items() if len(group) > 1 and parent not in images_in for child in group)


def _stereo_folders(images_in: dict[Path, list[str]]) -> list[tuple[Path, Path]]:
    """Folders whose paths differ only in one name of PAIR_FOLDERS, and that hold files of equal names."""
    found = []
    for place in images_in:
        for i, part in enumerate(place.parts):
            for one, two in PAIR_FOLDERS:
                other = Path(*place.parts[:i], two, *place.parts[i + 1 :])
                if part == one and other in images_in and {*images_in[place]} & {*images_in[other]}:
                    found.append((place, other))
    return found


def _lists_pairs(path: Path) -> bool:
    """Whether the first line that says something names two images."""
    with path.open("rb") as stream:
        lines = stream.read(MAX_LINE).decode("utf-8-sig", "replace").splitlines()
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    names = first.split("\t") if "\t" in first else first.split()
    return len(names) == 2 and all(ENDINGS.get(Path(name).suffix.lower()) == "images" for name in names)


def _pairs(images_in: dict[Path, list[str]]) -> int:
    """Images whose names differ only in an end of PAIR_ENDS."""
    count = 0
    for stems in images_in.values():
        present = {stem.lower() for stem in stems}
        partners = ([stem.removesuffix(one) + two for one, two in PAIR_ENDS if stem.endswith(one)] for stem in present)
        count += sum(any(partner in present for partner in of_stem) for of_stem in partners)
    return count
