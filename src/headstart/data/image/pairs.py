"""The pair store: an image store, and which two of its images are views of one scene.

    STORE/...                   the store of the images (`store.py`): every image once, however many pairs it is in
    STORE/pairs.npy             int64 [m, 2], numbers of the images of each pair
    STORE/pair_scenes.npy       int64 [m], scene of each pair
    STORE/pairs_held_out.npy    bool [m]
    STORE/pairs.json            counts, preparation, hashes; written last: its presence means "complete"

- Scenes are held out whole: pairs that share an image, an image of equal content, or (where there are several) a folder are of one scene.
- Pairs with an image that could not be used go with it, and are counted. Both views equal is a shortcut to copying: above 1 % it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput, OtherStore
from headstart.core.files import atomic_write, locked, read_json, sha256_file, write_json
from headstart.core.words import agree, plural
from headstart.data.arrays import map_array
from headstart.data.image.head import write_first_images
from headstart.data.image.opening import require_libraries
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pair_sources import Pairs, find_pairs
from headstart.data.image.prepare import OF_PAIRS, input_differences, prepare_inputs
from headstart.data.image.read import Fault, bad_input, read_picture
from headstart.data.image.store import REBUILD, ImageStore
from headstart.data.permute import combine, mix, permute
from headstart.data.text.split import held_out_documents

VERSION = 1
ARRAYS = tuple(name.removesuffix(".npy") for name in OF_PAIRS if name.endswith(".npy"))
MAX_EQUAL = 0.01
"""Share of pairs whose two images may be equal."""


class PairStore(ImageStore):
    """An opened pair store: an image store with pairs.

    Attributes:
        pairs: int64 [m, 2], numbers of images: first view, second view.
        scenes: int64 [m].
        pairs_held_out: bool [m], kept for validation.
        held_out: bool [n], images of held-out pairs.
        pairing: how the pairs were found.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        described = _checked(folder)
        self.pairing: str = described["pairing"]
        self.pairs, self.scenes, self.pairs_held_out = (map_array(folder, name, REBUILD) for name in ARRAYS)
        m = len(self.pairs)
        sound = self.pairs.dtype == self.scenes.dtype == np.int64 and self.pairs_held_out.dtype == bool and self.pairs.shape == (m, 2)
        if not sound or self.scenes.shape != (m,) or self.pairs_held_out.shape != (m,) or m == 0:
            raise BadInput("does not fit the other arrays of the store.", REBUILD, file=folder / "pairs.npy")
        if self.pairs.min() < 0 or self.pairs.max() >= len(self):
            raise BadInput("names images that the store has not.", REBUILD, file=folder / "pairs.npy")
        self.held_out = np.zeros(len(self), bool)
        self.held_out[self.pairs[self.pairs_held_out]] = True
        counts = self.manifest["counts"] | described["counts"]
        counts |= {"held_out_images": int(self.held_out.sum()), "training_images": int((~self.held_out).sum())}
        arrays = self.manifest["arrays"] | described["arrays"]
        self.manifest = self.manifest | {"counts": counts, "preparation": described["preparation"], "arrays": arrays}

    def pair_rows(self, split: str) -> np.ndarray:
        """int64: numbers of the pairs of `split`, "train" or "held_out", in order."""
        if split not in ("train", "held_out"):
            raise ValueError(f"split is 'train' or 'held_out', not {split!r}")
        return np.flatnonzero(self.pairs_held_out if split == "held_out" else ~self.pairs_held_out)

    def in_words(self) -> str:
        return f"{super().in_words()}, in {plural(len(self.pairs), 'pair')}"

    def report(self) -> list[str]:
        counts = self.manifest["counts"]
        lines = [
            *super().report(),
            f"{plural(len(self.pairs), 'pair')} ({self.pairing}) of {plural(counts['scenes'], 'scene')};"
            f" {plural(counts['held_out_pairs'], 'pair')} held out",
        ]
        if counts["lost_pairs"] or counts["duplicate_pairs"]:
            lost, again = counts["lost_pairs"], counts["duplicate_pairs"]
            they = agree(again, "it", "they")
            lines.append(f"{plural(lost, 'pair')} lost with an image that could not be used, {again:,} left out because {they} came twice")
        return lines

    def warnings(self) -> list[str]:
        counts, found = self.manifest["counts"], super().warnings()
        if counts["equal_pairs"] and self.pairing != "crops":
            found.append(f"in {plural(counts['equal_pairs'], 'pair')} both images are equal")
        if counts["scenes"] == 1:
            found.append("all pairs are of one scene; its last ones are held out, and resemble the others")
        if self.pairing == "crops":
            found.append("both views are cut from one image: networks find a shortcut, and transfer poorly (naver/croco#28)")
        return found


class PairRows:
    """The pairs of a split, as a mixture wants them.

    Args:
        others: the second view is that of another pair, half the split away: a control that no cut of a batch changes.

    Attributes:
        indices: int64 [n_rows], numbers of the pairs in the store; held-out ones in an order in which neighbours are of different scenes.
        unit, length, n_tokens, n_documents, report: as `ImageRows`.
    """

    unit = "pairs"
    length = 1

    def __init__(self, store: PairStore, split: Literal["train", "held_out"] = "train", others: bool = False) -> None:
        self.store, self.others = store, others
        self.indices = store.pair_rows(split)
        n = len(self.indices)
        if split == "held_out" and n:
            self.indices = self.indices[permute(np.arange(n), n, combine(0))]
        self.n_tokens = self.n_documents = n
        self.report: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{"images", "second_images"}: [batch, channels, height, width] each, in the store's type."""
        seconds = (rows + len(self) // 2) % len(self) if self.others else rows
        wanted = np.concatenate([self.store.pairs[self.indices[rows], 0], self.store.pairs[self.indices[seconds], 1]])
        both = self.store.read(wanted)
        return {"images": both[: len(rows)], "second_images": both[len(rows) :]}


def open_pair_store(folder: str | Path) -> PairStore:
    """Open a finished store. Raises BadInput if it is missing, unfinished, damaged or holds no pairs."""
    return PairStore(Path(folder))


def prepare_pairs(sources: Sequence[str | Path], out: Path, config: PairConfig) -> PairStore:
    """Prepare pairs of images into the store `out`, or open it if that was done.

    Raises:
        BadInput: a source or image cannot be used, there is no pair, or too many pairs are of equal images.
        OtherStore: `out` was made of other images, pairs or settings.
    """
    require_libraries()
    found = find_pairs(sources, config)
    images = prepare_inputs(found.inputs, sources, out, config.of_images())
    with locked(out / ".lock", "prepares this store"):
        arrays, counts = _described(found, images, config)
        if (out / "pairs.json").exists():
            _refuse_other(PairStore(out), arrays["pairs"], config)
            return PairStore(out)
        for name, array in arrays.items():
            with atomic_write(out / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        entries = {
            name: {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": sha256_file(out / f"{name}.npy")}
            for name, array in arrays.items()
        }
        described = {"format_version": VERSION, "pairing": found.pairing, "counts": counts, "preparation": config.preparation(), "arrays": entries}
        write_json(out / "pairs.json", described)
    return PairStore(out)


def _refuse_other(store: PairStore, pairs: np.ndarray, config: PairConfig) -> None:
    before, now = store.manifest["preparation"], config.preparation()
    differences = [f"{name} {before.get(name)!r} -> {now[name]!r}" for name in sorted(now) if before.get(name) != now[name]]
    if not np.array_equal(store.pairs, pairs):
        differences.append(f"other pairs ({len(store.pairs):,} -> {len(pairs):,})")
    if differences:
        raise OtherStore(
            f"the store {store.folder} was made from other inputs or settings: {'; '.join(differences)}.",
            "Give another folder; or, if no run is to continue on this one, delete it to build it again.",
        )


def pair_changes(store: PairStore, sources: Sequence[str | Path]) -> list[str]:
    """What of the sources differs from what the store was made of, in words; nothing when they are the same."""
    preparation = store.manifest["preparation"]
    config = PairConfig(**preparation | {name: tuple(preparation[name]) for name in ("bands", "view_folders")})
    try:
        return input_differences(store, find_pairs(sources, config).inputs)
    except BadInput as error:  # they are gone
        return [str(error).splitlines()[0]]


def write_first_pairs(sources: Sequence[str | Path], folder: Path, config: PairConfig, count: int) -> tuple[list[str], PairConfig]:
    """Copies the first `count` pairs into `folder`, and settings that suit so few.

    Raises:
        BadInput: one of them cannot be read.
    """
    found = find_pairs(sources, config)
    few = replace(config, held_out_share=0.1, storage="decoded", pairing="names", view_folders=())
    if found.pairs is None:
        write_first_images(sources, folder, config, count * (2 if found.pairing == "twos" else 1))
        return [str(folder)], replace(few, pairing=found.pairing)
    folder.mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(found.pairs[:count]):
        for view, index in enumerate(pair, 1):
            file = found.inputs.files[index]
            content = read_picture(file)
            if isinstance(content, Fault):
                raise bad_input(file, content)
            with atomic_write(folder / f"{number:06d}_{view}{file.path.suffix.lower()}") as opened:
                opened.write(content)
    return [str(folder)], few


# --- which pairs, and which of them are held out ---------------------------------------------------------------------------------------------------


def _described(found: Pairs, images: ImageStore, config: PairConfig) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays of the pairs, and their counts."""
    if found.pairs is None:
        pairs, wanted = _by_records(images, found.pairing)
        folders = np.zeros(len(pairs), np.int64)
    else:
        number = np.full(len(found.inputs.files), -1)  # of a file's image in the store; -1: it could not be used
        number[images.places[:, 0]] = np.arange(len(images))
        pairs, wanted = number[found.pairs], len(found.pairs)
        assert found.scenes is not None
        there = (pairs >= 0).all(1)
        pairs, folders = pairs[there], found.scenes[there]
    whole = ~images.dropped[pairs].any(1)  # of pairs' images only those of one colour are dropped
    pairs, folders = pairs[whole], folders[whole]
    lost = wanted - len(pairs)
    content = np.unique(images.hashes, return_inverse=True)[1].reshape(-1)[pairs]  # [m, 2]: equal images have equal numbers
    first = np.sort(np.unique(content, axis=0, return_index=True)[1])
    copies = 0
    if config.duplicates == "drop":
        copies, pairs, folders, content = len(pairs) - len(first), pairs[first], folders[first], content[first]
    if len(pairs) == 0:
        raise BadInput("there is no pair whose two images can be used.", "quarantine.jsonl of the store names each fault.", file=images.folder)
    equal = int((content[:, 0] == content[:, 1]).sum())
    if equal > MAX_EQUAL * len(pairs) and found.pairing != "crops":
        raise BadInput(
            f"in {equal:,} of {len(pairs):,} pairs both images are equal: a network would copy instead of match.",
            "Give two views of each scene; or, knowing that it transfers poorly, --image.pairing crops.",
        )
    scenes = _scenes(content, folders)
    held_out = _held_out(scenes, images.hashes[pairs[:, 0]], config.held_out_share)
    counts = {
        "pairs": len(pairs),
        "held_out_pairs": int(held_out.sum()),
        "scenes": int(scenes.max()) + 1,
        "lost_pairs": lost,
        "duplicate_pairs": copies,
        "equal_pairs": equal,
    }
    return {"pairs": pairs.astype(np.int64), "pair_scenes": scenes, "pairs_held_out": held_out}, counts


def _by_records(images: ImageStore, pairing: str) -> tuple[np.ndarray, int]:
    """Pairs of images as they come, and how many there would be if every image could be used: each with itself, or two by two. In a file of many
    images two by two within it, otherwise over the files' order."""
    if pairing == "crops":
        return np.repeat(np.arange(len(images))[:, None], 2, 1), len(images)
    file, record = images.places.T
    places = np.where(record > 0, record - 1, file)  # of the image among those that it pairs up with
    group = np.where(record > 0, file, -1)
    order = np.lexsort((places, group))
    group, places = group[order], places[order]
    starts = (places[:-1] % 2 == 0) & (places[1:] == places[:-1] + 1) & (group[1:] == group[:-1])
    at = np.flatnonzero(starts)
    wanted = len(np.unique(np.stack([group, places // 2], 1), axis=0))
    return np.stack([order[at], order[at + 1]], 1), wanted


def _scenes(content: np.ndarray, folders: np.ndarray) -> np.ndarray:
    """int64 [m]: number of the scene of each pair, 0, 1 ... in their order.

    Args:
        content: int64 [m, 2], numbers of the images' content; folders: int64 [m].
    """
    edges = content
    if folders.max() > 0:  # in one folder alone nothing is said by it
        edges = np.concatenate([content, np.stack([content[:, 0], content.max() + 1 + folders], 1)])
    labels = components(int(edges.max()) + 1, edges)[content[:, 0]]
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number.reshape(-1)]


def components(n: int, edges: np.ndarray) -> np.ndarray:
    """int64 [n]: the smallest member of each node's connected component.

    Args:
        edges: int64 [m, 2].
    """
    label = np.arange(n)
    while True:
        ends = label[edges]
        low = ends.min(1)
        if (ends == low[:, None]).all():
            return label
        for side in range(2):
            np.minimum.at(label, ends[:, side], low)  # ends are roots: trees hook onto smaller ones
        while (label[label] != label).any():
            label = label[label]


def _held_out(scenes: np.ndarray, hashes: np.ndarray, share: float) -> np.ndarray:
    """bool [m]: the pairs of some scenes, chosen by the content of their images; of a single scene the last pairs."""
    if share == 0:
        return np.zeros(len(scenes), bool)
    n = int(scenes.max()) + 1
    if n == 1:
        return np.arange(len(scenes)) >= len(scenes) - max(1, round(share * len(scenes))) if len(scenes) > 1 else np.zeros(1, bool)
    of_scene = np.full(n, np.iinfo(np.uint64).max)
    np.minimum.at(of_scene, scenes, hashes)
    return held_out_documents(mix(of_scene), share)[scenes]


def _checked(folder: Path) -> dict[str, Any]:
    """pairs.json, with the types that it is read as."""
    path = folder / "pairs.json"
    if not path.exists():
        mend = "Start the same prepare command again: it continues."
        raise BadInput("holds images, and no pairs of them yet.", mend, file=folder)
    described = read_json(path)
    try:
        sound = described["format_version"] == VERSION and isinstance(described["pairing"], str) and isinstance(described["preparation"], dict)
        names = ("pairs", "held_out_pairs", "scenes", "lost_pairs", "duplicate_pairs", "equal_pairs")
        sound = sound and all(isinstance(described["counts"][name], int) for name in names)
        sound = sound and set(described["arrays"]) == set(ARRAYS) and all(isinstance(entry["sha256"], str) for entry in described["arrays"].values())
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise BadInput("lacks or spoils an entry.", REBUILD, file=path)
    return dict(described)
