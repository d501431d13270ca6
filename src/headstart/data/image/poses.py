"""Posed views: which frames of a scene see the same, by their cameras alone (no depth).

CroCo's rendered pairs were chosen by their depth maps: at least half of either view's points are seen by the other. Without depth the points are
taken on a plane that faces the camera, as far away as the place where the cameras' axes come closest: right for captures around or along a thing,
rough for others. The file is transforms.json as NeRF's and Nerfstudio's tools write it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.data.image.sources import KINDS
from headstart.data.permute import combine, permute

TRANSFORMS = "transforms.json"
MAX_BYTES = 2**28
POINTS = 8
"""Points on a view's plane, in either direction."""


@dataclass(frozen=True)
class Scene:
    """Frames of one scene.

    Attributes:
        files: their images.
        cameras: float64 [n, 4, 4], camera to world; the camera looks along its -z, y is up.
        reach: float64 [n, 2], half the width and height of what is seen at distance 1.
    """

    files: list[Path]
    cameras: np.ndarray
    reach: np.ndarray


def read_scene(path: Path) -> Scene:
    """The frames of a transforms.json.

    Raises:
        BadInput: it is none.
    """
    raw = read_json(path, MAX_BYTES)
    try:
        frames = raw["frames"]
        files = [_image(path.parent, str(frame["file_path"])) for frame in frames]
        cameras = np.array([frame["transform_matrix"] for frame in frames], np.float64)
        reach = np.array([_reach({**raw, **frame}) for frame in frames], np.float64)
        if cameras.shape != (len(files), 4, 4) or not np.isfinite(cameras).all() or not (np.isfinite(reach).all() and (reach > 0).all()):
            raise ValueError("no poses of 4 x 4 numbers and angles of view")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        mend = "It needs frames with file_path and transform_matrix, and camera_angle_x or fl_x and w."
        raise BadInput(f"is no {TRANSFORMS} that is read ({error}).", mend, file=path) from error
    return Scene(files, cameras, reach)


def _image(folder: Path, name: str) -> Path:
    """NeRF's own files leave the suffix out."""
    path = folder / name
    return path if path.suffix.lower() in KINDS else path.with_name(path.name + ".png")


def _reach(values: dict[str, Any]) -> tuple[float, float]:
    aspect = float(values["h"]) / float(values["w"]) if "h" in values and "w" in values else 1.0
    wide = float(values["w"]) / (2 * float(values["fl_x"])) if "fl_x" in values else math.tan(float(values["camera_angle_x"]) / 2)
    tall = float(values["h"]) / (2 * float(values["fl_y"])) if "fl_y" in values else wide * aspect
    return wide, tall


def pairs_of_scene(scene: Scene, smallest_overlap: float, depth: float | None, most: int) -> np.ndarray:
    """int64 [m, 2]: frames that see at least `smallest_overlap` of each other, first below second; `most` of them, drawn evenly.

    Raises:
        UsageError: the cameras' axes do not meet, and no depth is given.
    """
    n = len(scene.files)
    distances = np.full(n, depth) if depth is not None else focus_distances(scene.cameras)
    seen = np.stack([_seen_by_all(scene, frame, distances[frame]) for frame in range(n)])  # [n, n]: share of a frame's points that another sees
    both = np.minimum(seen, seen.T)
    pairs = np.argwhere(np.triu(both >= smallest_overlap, 1))
    if len(pairs) <= most:
        return pairs
    return pairs[np.sort(permute(np.arange(most), len(pairs), combine(0)))]


def focus_distances(cameras: np.ndarray) -> np.ndarray:
    """float64 [n]: how far along each camera's axis the point lies to which all axes are nearest (least squares).

    Raises:
        UsageError: the axes are parallel, or the point lies behind a camera.
    """
    centres, axes = cameras[:, :3, 3], -cameras[:, :3, 2]
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    off_axis = np.eye(3) - axes[:, :, None] * axes[:, None]  # [n, 3, 3]
    matrix = off_axis.mean(0)
    if np.linalg.cond(matrix) > 1e6:
        raise UsageError("The cameras' axes are parallel, so poses alone do not tell how far the scene is.", "Give --image.scene-depth.")
    focus = np.linalg.solve(matrix, (off_axis @ centres[..., None]).mean(0)[:, 0])
    distances = ((focus - centres) * axes).sum(1)
    if (distances <= 0).any():
        raise UsageError("The cameras' axes do not meet in front of them.", "Give --image.scene-depth.")
    return np.asarray(distances)


def _seen_by_all(scene: Scene, frame: int, distance: float) -> np.ndarray:
    """float64 [n]: the share of a frame's points that each camera sees."""
    steps = (np.arange(POINTS) + 0.5) / POINTS * 2 - 1
    x, y = np.meshgrid(steps * scene.reach[frame, 0], steps * scene.reach[frame, 1])
    points = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3) * distance
    world = points @ scene.cameras[frame, :3, :3].T + scene.cameras[frame, :3, 3]  # [points, 3]
    facing = np.einsum("npi,i->np", scene.cameras[:, None, :3, 3] - world, scene.cameras[frame, :3, 2]) > 0  # seen from its front
    local = np.einsum("npi,nij->npj", world - scene.cameras[:, None, :3, 3], scene.cameras[:, :3, :3])  # rotations: the inverse is the transpose
    ahead = -local[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (np.abs(local[..., :2]) / ahead[..., None] <= scene.reach[:, None]).all(-1)
    return np.asarray((inside & facing & (ahead > 0)).mean(1))
