"""The frozen tower's features, computed once: STORE/features/KEY/features.npy, float16 [images, patches, dim], memory-mapped.

SigLIP so400m's features of a picture are 729 x 1152 numbers, 1.7 MB, against 0.7 TFLOP for computing them: a pass over the corpus with them costs no
pass through the tower.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import inside, locked, own_file, read_json, write_json
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.data.arrays import map_array
from headstart.data.image.parts import GrowingArray
from headstart.data.image.store import ImageStore
from headstart.data.interleaved.rows import InterleavedRows
from headstart.interop.vision_tower import VisionTower

FREE_BYTES = 2**34
BATCH = 64
REBUILD = "Delete this folder; it is made again from its store."


class FeatureRows:
    """Rows whose batches have the features of their images ("image_features", float16 [batch, m, patches, dim]) in place of their pixels."""

    def __init__(self, rows: InterleavedRows, features: np.ndarray) -> None:
        self.rows, self.features = rows, features
        self.length, self.unit, self.n_tokens, self.n_documents, self.report = rows.length, rows.unit, rows.n_tokens, rows.n_documents, rows.report

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self.rows.batch_of(rows, "image_features", lambda numbers: self.features[numbers])


def features_folder(store: Path, images: ImageStore, tower: VisionTower) -> Path:
    """Where the features of these images by this tower lie, or will."""
    pixels = sorted(f"{name} {entry['sha256']}" for name, entry in images.manifest["arrays"].items())
    return inside(store, "features/" + hashlib.sha256("\n".join([tower.identity(), *pixels]).encode()).hexdigest()[:16])


def worth_it(store: Path, images: ImageStore, tower: VisionTower) -> bool:
    """Whether the features take at most `FREE_BYTES` and half of what is free."""
    with torch.no_grad():
        shape = tower(torch.from_numpy(images.read([0])).to(tower.mean.device)).shape[1:]
    needed = 2 * len(images) * shape.numel()
    return needed <= min(FREE_BYTES, shutil.disk_usage(store).free // 2)


def cached_features(folder: Path, images: ImageStore, tower: VisionTower) -> np.ndarray:
    """The features, computed where they are missing. One process computes; others wait for it.

    Raises:
        BadInput: what lies there is damaged. UsageError: they do not fit into half precision.
    """
    with locked(folder.with_name(f"{folder.name}.lock"), "computes the features of the images"):
        if not (folder / "features.json").exists():
            with writing(folder):
                _compute(folder, images, tower)
    stated = read_json(own_file(folder, "features.json"))
    features = map_array(folder, "features", REBUILD)
    if not isinstance(stated, dict) or features.dtype != np.float16 or list(features.shape) != stated.get("shape") or len(features) != len(images):
        raise BadInput("does not fit its features.json.", REBUILD, file=folder / "features.npy")
    return features


@torch.no_grad()
def _compute(folder: Path, images: ImageStore, tower: VisionTower) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    folder.mkdir(parents=True)
    device = tower.mean.device
    array: GrowingArray | None = None
    largest = 0.0
    on_gpu = device.type == "cuda"
    with Reporter("features of images", len(images), "images") as reporter, torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        for start in range(0, len(images), BATCH):
            numbers = np.arange(start, min(start + BATCH, len(images)))
            found = tower(torch.from_numpy(images.read(numbers)).to(device)).float()
            largest = max(largest, float(found.abs().max()))
            if not largest < np.finfo(np.float16).max:
                what = f"The features of this vision tower reach {largest:.3g}, more than half precision holds."
                raise UsageError(what, "Give --method.cache-features off.")
            if array is None:
                array = GrowingArray(folder / "features.npy", np.dtype(np.float16), tuple(found.shape[1:]), 0)
            array.append(found.half().cpu().numpy())
            reporter.advance(len(numbers))
    assert array is not None
    array.close()
    described: dict[str, Any] = {"shape": [array.rows, *array.inner], "tower": tower.identity()}
    write_json(folder / "features.json", described)
