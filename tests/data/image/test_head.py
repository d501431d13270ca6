"""The first images of a source, and labelled sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.head import read_labelled, write_first_images
from headstart.data.image.store import prepare_images
from tests.data.image.pictures import write_folder


def test_the_first_images_prepare_as_the_whole_does(tmp_path: Path) -> None:
    """Folders and arrays alike; a store of the copies holds the same pixels and classes."""
    folder = write_folder(tmp_path / "data", each=5)
    pixels = np.random.default_rng(0).integers(0, 255, (10, 4, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(10) % 2)
    for number, source in enumerate((folder, tmp_path / "x.npz")):
        write_first_images([source], tmp_path / f"first{number}", ImageConfig(), 7)
        config = ImageConfig(size=4, held_out_share=0.0, layout="channels-last")
        part = prepare_images([tmp_path / f"first{number}"], tmp_path / f"part{number}", config)
        whole = prepare_images([source], tmp_path / f"whole{number}", config)
        assert len(part) == 7
        of_part = sorted((image.tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True))
        of_whole = sorted((image.tobytes(), int(label)) for image, label in zip(whole.images[:7], whole.labels[:7], strict=True))
        assert of_part == of_whole


def test_labels_come_from_folders_and_need_two_classes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", classes=3, each=2)
    found = read_labelled(folder, ImageConfig())
    assert found.classes == ["class0", "class1", "class2"]
    assert found.labels == [0, 0, 1, 1, 2, 2]
    assert found.images[3] == folder / "class1" / "001.png"
    with pytest.raises(BadInput, match="has no class"):
        read_labelled(folder / "class0", ImageConfig())
    (tmp_path / "one.txt").write_text("data/class0/000.png a\n")
    with pytest.raises(BadInput, match="has 1 class"):
        read_labelled(tmp_path / "one.txt", ImageConfig())
