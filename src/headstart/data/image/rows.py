"""The rows of a store that a run trains on: one image each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from headstart.data.image.store import ImageStore

Split = Literal["train", "held_out"]


class ImageRows:
    """The images of a split, as a mixture wants them.

    Attributes:
        indices: int64 [n_rows], numbers of the images in the store.
        unit: what a row is counted in; `length` of them a row, so that budgets and metrics "in tokens" are in images.
        n_tokens, n_documents: images.
        report: nothing is padded or cropped away here.
    """

    unit = "images"
    length = 1

    def __init__(self, store: ImageStore, split: Split = "train") -> None:
        self.store = store
        self.indices = store.rows(split)
        self.n_tokens = self.n_documents = len(self.indices)
        self.report: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{"images": [batch, channels, height, width]} of the rows with these numbers, in the store's type."""
        return {"images": self.store.read(self.indices[rows])}
