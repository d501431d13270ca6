"""Source -> store: find the files, let the first image decide the form, decode all in threads, split off the held-out images, write the store.

- Decoders and filters of Pillow work outside Python's lock: threads scale, and no pixel is copied between processes (docs/decisions/0014-images.md).
- Resumable: everything unfinished lies in STORE/.work; the same command goes on after the last whole part. What was begun from other files or
  settings is begun anew.
- The same files and settings give the same bytes, whatever the number of workers: results are taken in the order of the files.
- A finished store is opened at once if files and settings are unchanged, and refused with the differences if not.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart import __version__
from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.core.files import atomic_write, sha256_file
from headstart.core.hardware import cores
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.core.words import agree
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode, form_of
from headstart.data.image.form import Content, Form, Unusable
from headstart.data.image.looks import look_of, near_copies
from headstart.data.image.opening import require_libraries
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pair_sources import find_pairs
from headstart.data.image.parts import PARTS_VERSION, GrowingArray, Part, PartArrays, read_part, write_part
from headstart.data.image.read import ALONE, Fault, Record, bad_input, read_picture, read_tile, records
from headstart.data.image.sources import InputFile, Inputs, find_images
from headstart.data.image.store import ARRAYS, FORMAT_VERSION, KIND, LATER_ARRAYS, NO_DATA, PIXELS, PLAIN, ImageStore, read_inputs
from headstart.data.ordered import in_order
from headstart.data.preparing import begin_work, changed_settings, in_words, opened_or_built, put_in_place
from headstart.data.text.split import held_out_documents

OF_PAIRS = ("pairs.json", "pairs.npy", "pair_scenes.npy", "pairs_held_out.npy")
"""What `pairs.py` adds to a store."""
NAMES = ("inputs.parquet", *OF_PAIRS, *(f"{name}.npy" for name in (*ARRAYS, *LATER_ARRAYS, *(name for names in PIXELS.values() for name in names))))
"""What lies in a store of images."""
PART_BYTES, PART_IMAGES = 2**24, 512
"""A part ends with the first of these. A kill loses at most its work."""
OneColour = Literal["drop", "keep"]
ONE_COLOUR = (f"{PLAIN}: nothing can be learnt from it.", "It is left out; remove it, or mend what made it.")
"""What quarantine.jsonl says of such an image. It stops nothing: scenes that are cut into windows have many."""
GAPS_MEND = "It is left out; --image.max-nodata-share says from which share on."


def prepare_images(sources: Sequence[str | Path], out: Path, config: ImageConfig) -> ImageStore:
    """Prepare `sources` into the store `out`, or open it if that was done.

    Args:
        sources: files, folders, globs, lists.
        out: the store's folder; never inside a source folder.
        config: see `ImageConfig`.

    Raises:
        BadInput: a source or image cannot be used (see `config.on_bad_input`), or there is none.
        UsageError: `out` holds something else, or a store of other inputs or settings.
        MissingDependency: Pillow or tifffile is not installed.
    """
    require_libraries()
    return prepare_inputs(find_images(sources, config), sources, out, config)


def prepare_inputs(
    inputs: Inputs, sources: Sequence[str | Path], out: Path, config: ImageConfig, one_colour: OneColour = "drop", deep: bool = True
) -> ImageStore:
    """The same where the files are chosen already (pairs of images, pictures of documents).

    Args:
        one_colour: what becomes of images of one colour everywhere. keep: they belong to something that is learnt from all the same.
        deep: see `Form`.
    """

    def build() -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of a damaged file it warns a line at a time; our fault says it once
            _build(sources, inputs, out, config, one_colour, deep)

    return opened_or_built(
        out,
        sources,
        names=NAMES,
        open_store=ImageStore,
        differences=lambda store: in_words(changed_settings(store.manifest["preparation"], config.preparation())) + input_differences(store, inputs),
        build=build,
    )


def input_differences(store: ImageStore, inputs: Inputs) -> list[str]:
    """What of the files differs from those that the store was made of; nothing when all are the same. Content is hashed only where a time or name
    changed."""
    old = read_inputs(store.folder)
    if len(old["name"]) != len(inputs.files):
        known, there = set(old["name"]), {file.name for file in inputs.files}
        examples = [f"new {name}" for name in sorted(there - known)[:3]] + [f"missing {name}" for name in sorted(known - there)[:3]]
        return [f"{len(old['name']):,} -> {len(inputs.files):,} input files ({', '.join(examples)})"]

    def same(index: int, file: InputFile) -> bool:
        if (old["bytes"][index], old["label"][index]) != (file.size, file.label):
            return False
        if (old["name"][index], old["mtime_ns"][index]) == (file.name, file.mtime_ns):
            return True
        return file.size >= 0 and bool(hash_of(file) == old["sha256"][index])

    changed = [file.name for index, file in enumerate(inputs.files) if not same(index, file)]
    return [f"{len(changed):,} changed input files ({', '.join(changed[:3])})"] if changed else []


# --- decoding -------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    """A record on its way to a thread; `count` of the records of its file are then done. Without a record: the end of a file of many images, or
    windows."""

    file: int
    count: int
    record: Record | Fault | None


@dataclass(frozen=True)
class _Image:
    """What a thread makes of a record."""

    stored: np.ndarray | bytes  # pixels, or the file's own bytes
    hash: int
    size: tuple[int, int]
    mean: np.ndarray  # float64 [channels]
    spread: np.ndarray
    missing: float  # share of the pixels that had no data
    look: np.ndarray  # int8 [256]


@dataclass(frozen=True)
class _Gap:
    """An image that is left out: too many of its pixels have no data."""

    missing: float  # their share


def _items(files: list[InputFile], config: ImageConfig, file: int, record: int) -> Iterator[_Item]:
    """Everything from a place on."""
    for index in range(file, len(files)):
        skip = record if index == file else 0
        count = 0
        for count, found in enumerate(records(files[index], config), 1):
            if count > skip:
                yield _Item(index, count, found)
        if files[index].kind not in ALONE or config.tile is not None:
            yield _Item(index, count, None)


def hash_of(file: InputFile) -> str:
    """Of the bytes of an input file, or of the files of a tile one after another."""
    if file.kind != "bands":
        return sha256_file(file.path)
    found = hashlib.sha256()
    for part in file.parts:
        found.update(part.path.read_bytes() if part.size >= 0 else b"")
    return found.hexdigest()


def _content(files: list[InputFile], config: ImageConfig, item: _Item) -> tuple[Content | Fault, str]:
    """(what is to be decoded, hash of the input file if it ends with this item)."""
    file = files[item.file]
    if item.record is None:
        return b"", hash_of(file)
    if isinstance(item.record, Fault):
        return item.record, ""
    if item.record.content is not None:
        return item.record.content, ""
    if file.kind == "bands":
        return read_tile(file, config)
    data = read_picture(file)
    return data, "" if isinstance(data, Fault) else hashlib.sha256(data).hexdigest()


def _work(files: list[InputFile], form: Form, config: ImageConfig, item: _Item) -> tuple[_Item, _Image | _Gap | Fault | None, str]:
    content, sha256 = _content(files, config, item)
    if isinstance(content, Fault) or item.record is None:
        return item, content if isinstance(content, Fault) else None, sha256
    try:
        found = decode(content, form)
    except Unusable as error:
        return item, Fault(item.record.number, error.what, error.mend), sha256
    if found.missing > config.max_nodata_share:
        return item, _Gap(found.missing), sha256
    flat = found.pixels.reshape(form.channels, -1).astype(np.float64)
    mean = flat.mean(1)
    spread = np.square(flat - mean[:, None]).sum(1) / (1 - found.missing)  # what was filled has the mean, and no part in the spread
    encoded = config.storage == "encoded"
    if encoded and not isinstance(content, bytes):
        raise UsageError(f"{files[item.file].name} holds arrays, which have no encoded form.", "Leave out --image.storage encoded.")
    stored = content if encoded and isinstance(content, bytes) else found.pixels
    size = (found.height, found.width)
    return item, _Image(stored, content_hash(found.pixels), size, mean, spread, found.missing, look_of(found.pixels)), sha256


def content_hash(pixels: np.ndarray) -> int:
    """64-bit hash of an image in a store's form; decides whether it is held out."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).digest(), "little")


def first_form(files: list[InputFile], config: ImageConfig, deep: bool = True) -> Form:
    """The form that the first image gives the store.

    Raises BadInput if there is none, or at the first bad one if `config.on_bad_input` is "stop".
    """
    for item in _items(files, config, 0, 0):
        content, _ = _content(files, config, item)
        if item.record is None:
            continue
        try:
            if not isinstance(content, Fault):
                return form_of(content, config, deep)
            fault = content
        except Unusable as error:
            fault = Fault(item.record.number, error.what, error.mend)
        if config.on_bad_input == "stop":
            raise bad_input(files[item.file], fault)
    raise no_images([file.name for file in files])


def no_images(sources: Sequence[str | Path]) -> BadInput:
    return BadInput("there is no image that can be used.", "quarantine.jsonl of the store names each fault.", file=", ".join(map(str, sources[:3])))


def _decode_all(files: list[InputFile], form: Form, config: ImageConfig, work: Path, workers: int) -> list[Path]:
    """Decodes everything into the growing array and parts; what is there already is kept. Returns the parts, in order."""
    folder = work / "parts"
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    paths = sorted(folder.glob("*.safetensors"))
    done = [read_part(path) for path in paths]
    start = done[-1][0] if done else Part()
    rows = int(sum(arrays["lengths"].sum() for _, arrays in done))
    decoded = config.storage == "decoded"
    target = GrowingArray(
        work / f"{PIXELS[config.storage][0]}.npy", np.dtype(form.dtype if decoded else np.uint8), form.shape if decoded else (), rows
    )
    part, arrays, size = Part(start.file, start.record), PartArrays(), 0

    def end_part() -> None:
        nonlocal part, arrays, size
        target.flush()
        paths.append(write_part(folder / f"{len(paths):06d}.safetensors", part, arrays, form.channels))
        part, arrays, size = Part(part.file, part.record), PartArrays(), 0

    items = _items(files, config, start.file, start.record)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        with Reporter("decode images", len(files), "files", start.file) as reporter, writing(target.path):
            for item, found, sha256 in in_order(pool, lambda item: _work(files, form, config, item), items, 4 * workers + 1):
                part.file, part.record = item.file, item.count
                if sha256:
                    part.finished.append((item.file, sha256))
                if isinstance(found, Fault):
                    if config.on_bad_input == "stop":
                        raise bad_input(files[item.file], found)
                    part.faults.append((item.file, found.number, found.what, found.mend))
                elif isinstance(found, _Gap):
                    assert isinstance(item.record, Record)
                    part.gaps.append((item.file, item.record.number, found.missing))
                elif found is not None:
                    assert isinstance(item.record, Record)
                    target.append(found.stored)
                    length = len(found.stored) if isinstance(found.stored, bytes) else 1
                    arrays.add(
                        item.record.label,
                        hashes=found.hash,
                        lengths=length,
                        places=(item.file, item.record.number),
                        sizes=found.size,
                        mean=found.mean,
                        spread=found.spread,
                        missing=found.missing,
                        looks=found.look,
                    )
                    size += length if isinstance(found.stored, bytes) else form.nbytes
                if len(arrays) >= PART_IMAGES or size >= PART_BYTES or len(part.faults) + len(part.gaps) >= PART_IMAGES:
                    end_part()
                reporter.advance(item.file - reporter.done)
            end_part()
            target.close()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return paths


# --- the store ------------------------------------------------------------------------------------------------------------------------------------


def files_hash(files: Sequence[InputFile]) -> str:
    """What a preparation that is begun knows its files again by; none is opened."""
    return hashlib.sha256(json.dumps([[file.name, file.size, file.mtime_ns, file.label] for file in files]).encode()).hexdigest()


def is_begun_of(plan: Any, sources: Sequence[str | Path], config: ImageConfig) -> bool:
    """Whether the plan of a preparation that was begun (`.work/plan.json`) is of these files. What cannot be listed is left to the preparation.

    Raises:
        KeyError, TypeError: it is no plan.
    """
    stated = plan["inputs"]
    try:
        files = (find_pairs(sources, config).inputs if isinstance(config, PairConfig) else find_images(sources, config)).files
    except (HeadstartError, OSError):
        return True
    return bool(stated == files_hash(files))


def _build(sources: Sequence[str | Path], inputs: Inputs, out: Path, config: ImageConfig, one_colour: OneColour, deep: bool) -> None:
    work, files = out / ".work", inputs.files
    plan = {
        "format_version": FORMAT_VERSION,
        "preparation": config.preparation(),
        "on_bad_input": config.on_bad_input,
        "max_megapixels": config.max_megapixels,
        "parts": PARTS_VERSION,
        "inputs": files_hash(files),
    }
    begin_work(work, plan)
    pixels = f"{PIXELS[config.storage][0]}.npy"
    if (out / pixels).exists() and not (work / pixels).exists():  # killed while the finished arrays were put in place
        (out / pixels).replace(work / pixels)
    form = first_form(files, config, deep)
    parts = [read_part(path) for path in _decode_all(files, form, config, work, config.workers or cores())]
    rows = {name: np.concatenate([arrays[name] for _, arrays in parts]) for name in parts[0][1]}
    plain: np.ndarray = np.zeros(len(rows["spread"]), bool)
    if one_colour == "drop":
        plain = np.logical_not(rows["spread"].any(1))  # exact: sums of equal values of at most 24 bits are, in float64
    quarantined = _write_quarantine(out, files, [part for part, _ in parts], rows["places"][plain])
    bad, n = sum(len(part.faults) for part, _ in parts), len(rows["hashes"])
    if bad > config.max_bad_share * (n + bad):
        raise BadInput(
            f"{bad:,} of {n + bad:,} images {agree(bad, 'is', 'are')} bad ({bad / (n + bad):.1%}), more than --image.max-bad-share allows.",
            f"{quarantined} names each: mend the files, or raise the share.",
        )
    gaps = sum(len(part.gaps) for part, _ in parts)
    if n == 0:
        if gaps:
            what = f"each of {gaps:,} images has more than {config.max_nodata_share:.0%} pixels without data."
            raise BadInput(what, "Correct --image.nodata, or raise --image.max-nodata-share.", file=", ".join(map(str, sources[:3])))
        raise no_images(sources)
    if plain.all():
        what = f"each of the {n:,} images is of one colour: nothing can be learnt from them."
        raise BadInput(what, "Give images with content; or correct --image.bands.", file=", ".join(map(str, sources[:3])))
    arrays, classes = _described(rows, plain, [part.labels for part, _ in parts], [len(arrays["hashes"]) for _, arrays in parts], config)
    copies = arrays["dropped"].copy()
    near = near_copies(rows["looks"], arrays["held_out"], copies | plain)
    arrays["dropped"] |= near | plain
    if arrays["held_out"].any() and not (~arrays["held_out"] & ~arrays["dropped"]).any():
        raise BadInput("every training image nearly equals a held-out one.", "Give more varied images, or --image.held-out-share 0.")
    for name, array in arrays.items():
        with atomic_write(work / f"{name}.npy") as opened:
            np.save(opened, array, allow_pickle=False)
    hashes = dict(entry for part, _ in parts for entry in part.finished)
    _write_inputs(work / "inputs.parquet", files, hashes)
    train = ~(arrays["held_out"] | arrays["dropped"])
    mean, deviation = statistics(rows["mean"][train], rows["spread"][train], form.size**2)
    names = (*PIXELS[config.storage], *ARRAYS, *LATER_ARRAYS)
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "library_version": __version__,
        "counts": {
            "images": n,
            "training_images": int(train.sum()),
            "held_out_images": int((arrays["held_out"] & ~arrays["dropped"]).sum()),
            "duplicate_images": int(copies.sum()),
            "near_duplicate_images": int(near.sum()),
            "one_colour_images": int((plain & ~copies).sum()),
            "images_without_data": gaps,
            "images_with_gaps": int((rows["missing"] > 0).sum()),
            "enlarged_images": int((rows["sizes"].min(1) < form.size).sum()),
            "classes": len(classes),
            "quarantined": bad,
        },
        "median_side": int(np.median(rows["sizes"].min(1))),
        "form": form.as_json(),
        "mean": mean.tolist(),
        "std": deviation.tolist(),
        "classes": classes,
        "preparation": config.preparation(),
        "sources": [str(source) for source in sources],
        "inputs": [{"files": len(files), "bytes": sum(max(file.size, 0) for file in files), "sha256": sha256_file(work / "inputs.parquet")}],
        "passed_over": dict(sorted(inputs.passed_over.items())),
        "arrays": {name: _entry(work / f"{name}.npy") for name in names},
    }
    put_in_place(work, out, [*(f"{name}.npy" for name in names), "inputs.parquet"], manifest)


def _described(
    rows: dict[str, np.ndarray], plain: np.ndarray, label_names: list[list[str]], sizes: list[int], config: ImageConfig
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays beside the pixels, and the classes. Images of one colour (`plain`) are not held out."""
    hashes = rows["hashes"]
    held_out = np.zeros(len(hashes), bool)
    held_out[~plain] = held_out_documents(hashes[~plain], config.held_out_share)
    if config.held_out_share and not held_out.any():
        raise BadInput("all images are equal, so none can be held out.", "Give more images, or --image.held-out-share 0.")
    dropped = np.ones(len(hashes), bool)
    dropped[np.unique(hashes, return_index=True)[1]] = False
    if config.duplicates == "keep":
        dropped[:] = False
    classes = in_class_order({name for names in label_names for name in names})
    labels = rows["label"].copy()
    if len(classes) < 2:  # one folder of images is no class
        classes, labels[:] = [], -1
    else:
        of_class = {name: index for index, name in enumerate(classes)}
        start = 0
        for names, size in zip(label_names, sizes, strict=True):
            renamed = np.array([*(of_class[name] for name in names), -1])  # -1 stays the last
            labels[start : start + size] = renamed[labels[start : start + size]]
            start += size
    arrays = {"labels": labels, "held_out": held_out, "dropped": dropped, "hashes": hashes, "places": rows["places"], "looks": rows["looks"]}
    if config.storage == "encoded":
        arrays["offsets"] = np.append(0, np.cumsum(rows["lengths"]))
    return arrays, classes


def in_class_order(names: Iterable[str]) -> list[str]:
    """Names of classes, sorted: numbers by their value, before words."""
    return sorted(names, key=lambda name: (0, int(name), "") if name.isascii() and name.isdecimal() else (1, 0, name))


def statistics(mean: np.ndarray, spread: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel over all pixels of all images, float64 [channels], from those of each image.

    Args:
        mean, spread: float64 [n, channels], mean and sum of squared deviations from it.
        pixels: of an image.
    """
    overall = mean.mean(0)
    variance = (spread / pixels + np.square(mean - overall)).mean(0)
    return overall, np.sqrt(variance)


def _entry(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": sha256_file(path)}


def _write_inputs(path: Path, files: list[InputFile], hashes: dict[int, str]) -> None:
    columns: dict[str, Any] = {name: [getattr(file, of) for file in files] for name, of in INPUT_FIELDS.items()}
    columns["sha256"] = [hashes.get(index, "") for index in range(len(files))]
    with atomic_write(path) as opened:
        pq.write_table(pa.table(columns, schema=INPUT_SCHEMA), opened)


INPUT_FIELDS = {"name": "name", "bytes": "size", "mtime_ns": "mtime_ns", "label": "label"}
INPUT_SCHEMA = pa.schema([("name", pa.string()), ("bytes", pa.int64()), ("mtime_ns", pa.int64()), ("label", pa.string()), ("sha256", pa.string())])


def _write_quarantine(out: Path, files: list[InputFile], parts: list[Part], plain: np.ndarray) -> Path:
    """Names every image that is left out for what it is.

    Args:
        plain: int64 [n, 2], file and record of the images of one colour.
    """
    path = out / "quarantine.jsonl"
    faults = [fault for part in parts for fault in part.faults]
    faults += [(file, record, f"{NO_DATA}{missing:.1%} of its pixels.", GAPS_MEND) for part in parts for file, record, missing in part.gaps]
    faults += [(int(file), int(record), *ONE_COLOUR) for file, record in plain]
    lines = [
        json.dumps({"file": files[index].name, "record": number, "what": what, "mend": mend}, ensure_ascii=False) + "\n"
        for index, number, what, mend in faults
    ]
    path.unlink(missing_ok=True)  # of an attempt before the files were mended
    if lines:
        with atomic_write(path) as file:
            file.write("".join(lines).encode())
    return path
