"""A small corpus of interleaved documents with images on this disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WORDS = ["sum", "difference", "angle", "circle", "line", "point", "area", "root", "set", "prime"]


def write_images(folder: Path, count: int, size: int = 8) -> list[str]:
    """Pictures that all differ; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        names.append(f"{number}.png")
    return names


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def page(number: int, image: str | None) -> dict[str, Any]:
    """A document of two texts around an image."""
    words = [WORDS[(number * step + place) % len(WORDS)] for place, step in enumerate((1, 3, 7, 9))]
    texts: list[str | None] = [f"The {words[0]} of {number} and its {words[1]}.", f"So the {words[2]} is a {words[3]} of {number * 7}."]
    images: list[str | None] = [None, None]
    if image is not None:
        texts.insert(1, None)
        images.insert(1, image)
    return {"URL": f"https://example.org/{number}", "text_list": texts, "image_list": images, "metadata": "{}"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """40 documents, every fourth without an image."""
    names = write_images(tmp_path / "data", 12)
    return write_lines(tmp_path / "data" / "pages.jsonl", [page(n, None if n % 4 == 3 else names[n % 12]) for n in range(40)])
