"""Scenes with exact disparity, made from photographs: a wall, a floor and two to four slanted things, seen by a rectified pair of cameras.

Real stereo pairs that may be passed on are few and large; here the textures are real and the geometry is known exactly. Every layer is a plane of
disparity d = p0 + p1 x + p2 y over the pixels of the left view; near layers hide far ones. One generator a scene, seeded with (split, index), draws
in the order of the code, so a scene is the same on every machine and in any order of making.
"""

from __future__ import annotations

import hashlib
import inspect
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.core.hardware import cores
from headstart.core.progress import progress
from headstart.data.arrays import HEADER_ERRORS

TRAIN = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "rocket")
TEST = ("china", "flower", "hubble_deep_field", "retina")
"""Photographs that train and test scenes are made of: none is in both."""
WINDOW, CONTRAST, TRIES = 48, 0.12, 8
"""A layer's texture is drawn until a window of so many pixels has this deviation of grey, at most so often."""
NOISE = 2 / 255
FEW = 1000
"""Scenes that one process makes in some seconds."""
ROUNDING = 1.0
"""Pixels by which the disparities of a point in both views may differ where it is seen in both."""


@dataclass(frozen=True)
class Scene:
    """Both views and the truth.

    Attributes:
        left, right: uint8 [3, size, size].
        disparity: float32 [size, size], of the left view.
        visible: bool [size, size], where the point is seen in the right view too.
    """

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    visible: np.ndarray


class Scenes(NamedTuple):
    """Several: [n, ...] of each."""

    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True)
class Texture:
    """What a layer is painted with: colour at (x, y) is that of the photograph at (ox +- x zoom, oy + y zoom)."""

    photograph: np.ndarray  # float64 [height, width, 3], 0 to 1
    ox: int
    oy: int
    zoom: float
    mirrored: bool
    gain: float

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[..., 3] at real places of the left view; beyond the border the photograph is mirrored."""
        column, row = self.ox + (-x if self.mirrored else x) * self.zoom, self.oy + y * self.zoom
        left, top = np.floor(column).astype(int), np.floor(row).astype(int)
        right_share, low_share = (column - left)[..., None], (row - top)[..., None]
        height, width = self.photograph.shape[:2]
        columns, rows = [_mirrored(left + i, width) for i in (0, 1)], [_mirrored(top + i, height) for i in (0, 1)]
        upper, lower = (
            self.photograph[r, columns[0]] * (1 - right_share) + self.photograph[r, columns[1]] * right_share for r in rows
        )
        return np.clip((upper * (1 - low_share) + lower * low_share) * self.gain, 0, 1)


@dataclass(frozen=True)
class Shape:
    """What a layer covers: everything, the rows from `below` on, or a turned ellipse or rectangle."""

    below: float = -np.inf
    centre: tuple[float, float] | None = None
    radii: tuple[float, float] = (1.0, 1.0)
    angle: float = 0.0
    is_ellipse: bool = True

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """bool, at places of the left view."""
        if self.centre is None:
            return y >= self.below
        dx, dy = x - self.centre[0], y - self.centre[1]
        u = (dx * np.cos(self.angle) + dy * np.sin(self.angle)) / self.radii[0]
        v = (-dx * np.sin(self.angle) + dy * np.cos(self.angle)) / self.radii[1]
        return u**2 + v**2 <= 1 if self.is_ellipse else np.maximum(np.abs(u), np.abs(v)) <= 0.85


@dataclass(frozen=True)
class Layer:
    plane: tuple[float, float, float]
    """p0, p1, p2."""
    shape: Shape
    texture: Texture

    def disparity(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.plane[0] + self.plane[1] * x + self.plane[2] * y


def make_scene(photographs: Sequence[np.ndarray], split: int, index: int, size: int, k: float) -> Scene:
    """One scene.

    Args:
        photographs: float64 [height, width, 3], 0 to 1.
        split: 0 train, 1 test.
        size: pixels of a side.
        k: scale of the disparities; 1 for views of 64 pixels.
    """
    random = np.random.default_rng([split, index])
    shapes = _geometry(random, size, k)
    layers = [Layer(plane, shape, _texture(random, photographs, plane, shape, size, k)) for plane, shape in shapes]
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    left, disparity = _seen(layers, [x] * len(layers), y)
    # a plane seen from the right: x_left - d(x_left) = x_right
    from_right = [(x + layer.plane[0] + layer.plane[2] * y) / (1 - layer.plane[1]) for layer in layers]
    right, of_right = _seen(layers, from_right, y)
    pixels = []
    for view in (left, right):
        lit = view * random.uniform(0.9, 1.1) + random.normal(0, NOISE, view.shape)
        pixels.append((np.clip(lit, 0, 1) * 255).round().astype(np.uint8).transpose(2, 0, 1))
    there = np.rint(x - disparity).astype(int)
    rows = y.astype(int)
    same = np.abs(of_right[rows, np.clip(there, 0, size - 1)] - disparity) <= ROUNDING
    return Scene(pixels[0], pixels[1], disparity.astype(np.float32), (x - disparity >= 0) & same)


def _geometry(random: np.random.Generator, size: int, k: float) -> list[tuple[tuple[float, float, float], Shape]]:
    """(plane, shape) of wall, floor and things."""
    horizon = size * random.uniform(0.35, 0.65)
    wall, nearest = k * random.uniform(0.5, 2), k * random.uniform(4, 7)
    slope = (nearest - wall) / (size - 1 - horizon)
    found = [((wall, 0.0, 0.0), Shape()), ((wall - slope * horizon, 0.0, slope), Shape(below=horizon))]
    for d in np.sort(k * random.uniform(2.5, 12, int(random.integers(2, 5)))).tolist():
        radius = d / (12 * k) * size * random.uniform(0.22, 0.34)
        aspect, angle = random.uniform(0.6, 1.6), random.uniform(0, np.pi)
        centre = (random.uniform(0.1, 0.9) * size, random.uniform(0.15, 0.85) * size)
        is_ellipse, slant = bool(random.random() < 0.5), random.uniform(-0.06, 0.06)
        radii = (radius * np.sqrt(aspect), radius / np.sqrt(aspect))
        found.append(((d - slant * centre[0], slant, 0.0), Shape(-np.inf, centre, radii, angle, is_ellipse)))
    return found


def _texture(
    random: np.random.Generator, photographs: Sequence[np.ndarray], plane: tuple[float, float, float], shape: Shape, size: int, k: float
) -> Texture:
    mirrored, gain = bool(random.random() < 0.5), random.uniform(0.7, 1.3)
    best, most = (0, 0, 0), -1.0
    for _ in range(TRIES):
        which = int(random.integers(len(photographs)))
        height, width = photographs[which].shape[:2]
        ox, oy = int(random.integers(0, width - WINDOW + 1)), int(random.integers(0, height - WINDOW + 1))
        contrast = float(photographs[which][oy : oy + WINDOW, ox : ox + WINDOW].mean(2).std())
        if contrast > most:
            best, most = (which, ox, oy), contrast
        if contrast >= CONTRAST:
            break
    is_floor = shape.centre is None and np.isfinite(shape.below)
    at_centre = plane[0] + plane[1] * size / 2 + plane[2] * (0.75 if is_floor else 0.5) * size
    return Texture(photographs[best[0]], best[1], best[2], float(np.clip(3 * k / at_centre, 0.8, 2.5)), mirrored, gain)


def _seen(layers: Sequence[Layer], x_left: Sequence[np.ndarray], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours [size, size, 3] and disparity [size, size] of a view whose pixels show each layer at `x_left` of the left view: the nearest wins."""
    nearest, colours = np.full(y.shape, -np.inf), np.zeros((*y.shape, 3))
    for layer, x in zip(layers, x_left, strict=True):
        disparity = layer.disparity(x, y)
        wins = layer.shape(x, y) & (disparity > nearest)
        nearest[wins] = disparity[wins]
        colours[wins] = layer.texture(x[wins], y[wins])
    return colours, nearest


def _mirrored(index: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers as places 0 to count - 1, reflected at the ends."""
    index = np.abs(index) % (2 * (count - 1))
    return np.where(index < count, index, 2 * (count - 1) - index)


def read_photographs(folder: Path, names: Sequence[str]) -> list[np.ndarray]:
    """float64 [height, width, 3] each, 0 to 1. Raises BadInput where one is missing."""
    from PIL import Image

    found = []
    for name in names:
        path = folder / f"{name}.jpg"
        if not path.is_file():
            raise BadInput("is not there.", "Copy the data again.", file=path)
        with Image.open(path) as picture:
            found.append(np.asarray(picture.convert("RGB"), dtype=np.float64) / 255)
    return found


def make_scenes(photographs: Sequence[np.ndarray], split: int, indices: Sequence[int], size: int, k: float) -> Scenes:
    """Several scenes, in order; many of them on all cores."""
    n = len(indices)
    shape = (n, size, size)
    left, right = (np.empty((n, 3, size, size), np.uint8) for _ in range(2))
    found = Scenes(left, right, np.empty(shape, np.float32), np.empty(shape, bool))
    with _makers(photographs, n) as scenes_of:
        jobs = scenes_of([(split, index, size, k) for index in indices])
        for place, scene in enumerate(progress(jobs, n, "making scenes", "scenes")):
            for array, part in zip(found, (scene.left, scene.right, scene.disparity, scene.visible), strict=True):
                array[place] = part
    return found


Job = tuple[int, int, int, float]
"""split, index, size, k."""


@contextmanager
def _makers(photographs: Sequence[np.ndarray], n: int) -> Iterator[Callable[[list[Job]], Iterator[Scene]]]:
    """What makes scenes: this process, or for many of them several."""
    _share(photographs)
    if n < FEW or cores() == 1:
        yield lambda jobs: map(_make, jobs)
        return
    with ProcessPoolExecutor(cores(), get_context("spawn"), _begin, (photographs,)) as pool:
        yield lambda jobs: pool.map(_make, jobs, chunksize=50)


_shared: list[np.ndarray] = []
"""The photographs, once in every process."""


def _share(photographs: Sequence[np.ndarray]) -> None:
    _shared[:] = photographs


def _begin(photographs: Sequence[np.ndarray]) -> None:
    """Of a helping process: Ctrl-C and a queue's SIGTERM reach the whole group, and are for the one that waits here to end the work."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _share(photographs)


def _make(job: Job) -> Scene:
    return make_scene(_shared, *job)


def kept_scenes(folder: Path, photographs: Sequence[np.ndarray], split: int, indices: Sequence[int], size: int, k: float) -> Scenes:
    """As `make_scenes`, made once: they lie in `folder` under a name that says of what and by which code they were made."""
    path = folder / f"scenes-{_key(photographs, split, indices, size, k)}.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            return Scenes(*(found[name] for name in Scenes._fields))
    except (OSError, KeyError, *HEADER_ERRORS):
        pass
    made = make_scenes(photographs, split, indices, size, k)
    with atomic_write(path) as file:
        np.savez(file, **made._asdict())
    return made


def kept_pairs(folder: Path, photographs: Sequence[np.ndarray], split: int, indices: Sequence[int], size: int, k: float) -> Path:
    """A .npz with the views alone, `images` uint8 [2 n, 3, size, size], left and right in turn: what pre-training reads. Made once."""
    path = folder / f"pairs-{_key(photographs, split, indices, size, k)}.npz"
    if not path.is_file():
        made = make_scenes(photographs, split, indices, size, k)
        images = np.stack([made.left, made.right], axis=1).reshape(-1, 3, size, size)
        with atomic_write(path) as file:
            np.savez(file, images=images)
    return path


def _key(photographs: Sequence[np.ndarray], *settings: object) -> str:
    key = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode())
    for photograph in photographs:
        key.update(photograph.tobytes())
    key.update(repr(settings).encode())
    return key.hexdigest()[:16]


# --- what simple methods reach --------------------------------------------------------------------------------------------------------------------


def block_matching(left: np.ndarray, right: np.ndarray, most: int, window: int = 5) -> np.ndarray:
    """float32 [n, size, size]: the whole disparity, 0 to `most`, whose window of the right view differs least. Views [n, 3, size, size]."""
    n, _, height, width = left.shape
    costs = np.full((most + 1, n, height, width), np.inf, np.float32)
    for d in range(min(most, width - 1) + 1):
        difference = np.abs(left[..., d:].astype(np.float32) - right[..., : width - d].astype(np.float32)).mean(1)
        padded = np.pad(difference, ((0, 0), (window // 2,) * 2, (window // 2,) * 2), mode="edge")
        costs[d, :, :, d:] = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(1, 2)).mean((-1, -2))
    return costs.argmin(0).astype(np.float32)


def floors(train: Scenes, test: Scenes, most: int) -> dict[str, float]:
    """EPE of predictions without learning: one number, a map, matching of blocks."""
    truth = test.disparity
    guesses = {
        "the train median": np.median(train.disparity),
        "the train mean map": train.disparity.mean(0),
        "the train median map": np.median(train.disparity, axis=0),
        "5 x 5 block matching": block_matching(test.left, test.right, most),
    }
    return {name: float(np.abs(guess - truth).mean()) for name, guess in guesses.items()}
