"""Whether test images stand in what a network learned from: the labelled training images, and the images of its pre-training.

Exactly: the same pixels. Nearly: the same look (`data.image.looks`), whatever the size, compression or brightness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.words import agree, plural
from headstart.data.image.looks import look_of, stand_near
from headstart.data.image.pairs import open_pair_store
from headstart.data.image.store import open_image_store
from headstart.tasks.image_data import ImageData
from headstart.tasks.leaks import runs_behind


def image_leaks(test: ImageData, trains: Sequence[ImageData], model: Path) -> list[str]:
    """A sentence for each place where some test images stand.

    Args:
        trains: the labelled training images, of every draw.
        model: what the network was read from; what its run was trained on is looked at, where it is known.
    """
    seen = set().union(*(part.contents() for part in trains))
    return leaks_of(test.contents(), looks_of(test), seen, np.concatenate([looks_of(part) for part in trains]), model)


def leaks_of(contents: Sequence[bytes], looks: np.ndarray, seen: set[bytes], seen_looks: np.ndarray, model: Path) -> list[str]:
    """The same from what is left of the images.

    Args:
        contents, looks: hashes of the test images' pixels, and int8 [n, 256].
        seen, seen_looks: those of the training images, int8 [m, 256].
    """
    exact = np.array([content in seen for content in contents])
    near = stand_near(looks, seen_looks) & ~exact
    found = []
    if exact.any():
        found.append(f"{exact.sum():,} of {plural(len(looks), 'test image')} {agree(exact.sum(), 'stands', 'stand')} in the training images.")
    if near.any():
        which = f"the first is number {near.argmax() + 1}"
        look = agree(near.sum(), "looks", "look")
        found.append(f"{near.sum():,} of {plural(len(looks), 'test image')} {look} nearly like one of the training images; {which}.")
    for run, info in runs_behind(model):
        for entry in info.get("data", []):
            if entry.get("kind") == "image":
                found += pretraining_leaks(looks, Path(entry["store"]), entry.get("counts"), f"the pre-training images of {run}")
    return found


def pretraining_leaks(looks: np.ndarray, folder: Path, counts: object, where: str) -> list[str]:
    """The same of a store.

    Args:
        looks: int8 [n, 256], of the test images.
        counts: of the store when the network was trained on it.
    """
    try:
        store = open_pair_store(folder) if (folder / "pairs.json").is_file() else open_image_store(folder)
    except (BadInput, OSError):
        store = None
    if store is None or store.manifest["counts"] != counts or store.looks is None:
        return [f"Whether test images stand in {where} cannot be checked: its store is gone, made anew, or of an older version."]
    near = stand_near(looks, np.asarray(store.looks[store.rows("train")]))
    stand, look = (agree(near.sum(), *words) for words in (("stands", "stand"), ("looks", "look")))
    return [f"{near.sum():,} of {plural(len(looks), 'test image')} {stand} in {where}, or {look} nearly like one there."] if near.any() else []


def looks_of(data: ImageData) -> np.ndarray:
    """int8 [n, 256]."""
    return np.stack([look_of(image) for image in data.images])
