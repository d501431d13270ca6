"""How pairs of images become a store: the settings of images, and which two belong together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from headstart.data.image.config import ImageConfig, require

Pairing = Literal["auto", "list", "names", "folders", "frames", "poses", "twos", "crops"]


@dataclass
class PairConfig(ImageConfig):
    """Preparation of pairs of images."""

    pairing: Pairing = "auto"
    """Which images are the two views of a scene. list: a .txt, .csv or .tsv file names two a line. names: a_1.jpg with a_2.jpg (or _left and _right,
    im0 and im1). folders: equal names in two folders (left and right). frames: of each folder, a frame with that `frame_gap` later. poses: frames of
    a transforms.json whose cameras see the same. twos: the images as they come, two by two. crops: every image with itself, cut at two places; a
    shortcut, see the docs. auto: list, poses, folders or names, whichever the sources are."""

    view_folders: tuple[str, ...] = ()
    """Names of the two folders, first view first. None: the usual ones (left and right, image_2 and image_3 ...)."""

    frame_gap: int = 5
    """Frames from a view to its partner."""

    smallest_overlap: float = 0.5
    """poses: share of either view that the other must see. The paper: 0.5."""

    scene_depth: float | None = None
    """poses: how far away the scene is, in the units of the poses. None: where the cameras' axes meet."""

    pairs_per_scene: int = 1000
    """poses: pairs that are taken of one scene. The paper: 1,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tile is None, "--image.tile cuts windows, which are no pairs.", "Leave out --image.tile.")
        require(not self.band_files, "--image.band-files are tiles of several files, which are no pairs.", "Leave out --image.band-files.")
        require(len(self.view_folders) in (0, 2), f"--image.view-folders are {self.view_folders}.", "Give two names.")
        require(self.frame_gap >= 1, f"--image.frame-gap is {self.frame_gap}.", "Give at least 1.")
        require(0 < self.smallest_overlap <= 1, f"--image.smallest-overlap is {self.smallest_overlap}.", "Give a share above 0, at most 1.")
        require(self.scene_depth is None or self.scene_depth > 0, f"--image.scene-depth is {self.scene_depth}.", "Give a distance above 0.")
        require(self.pairs_per_scene >= 1, f"--image.pairs-per-scene is {self.pairs_per_scene}.", "Give at least 1.")

    def preparation(self) -> dict[str, Any]:
        return super().preparation() | {"view_folders": list(self.view_folders)}

    def of_images(self) -> ImageConfig:
        """How the images alone are prepared: pairs decide later what is held out and what is a copy."""
        own = {field.name: getattr(self, field.name) for field in fields(ImageConfig)}
        return ImageConfig(**own | {"held_out_share": 0.0, "duplicates": "keep"})
