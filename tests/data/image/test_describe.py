"""Images to look at: which ones, and how bands and 16-bit values are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig
from headstart.data.image.describe import as_colours, peek
from headstart.data.image.store import ImageStore, prepare_images
from tests.data.image.pictures import write_folder


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("bands")
    values = np.random.default_rng(0).normal(2000, 300, (12, 5, 8, 8)).clip(0).astype(np.uint16)
    np.savez(folder / "x.npz", images=values)
    return prepare_images([folder / "x.npz"], folder / "store", ImageConfig(size=8, held_out_share=0.2))


def test_the_same_seed_shows_the_same_images(tmp_path: Path) -> None:
    store = prepare_images([write_folder(tmp_path / "data")], tmp_path / "store", ImageConfig(size=20))
    first, again, other = (peek(store, 4, seed) for seed in (0, 0, 1))
    assert first == again
    assert [image.index for image in first.images] != [image.index for image in other.images]
    image = first.images[0]
    assert image.file.endswith(f"class{image.index // 8}/{image.index % 8:03d}.png")
    assert image.label == f"class{image.index // 8}"
    assert image.largest == store.images[image.index].max()


def test_bands_are_shown_around_their_mean(bands: ImageStore) -> None:
    """The mean is middle grey, two and a half deviations are black and white."""
    shown = as_colours(bands.images, bands)
    assert shown.shape == (12, 8, 8, 3)
    assert abs(float(shown.mean()) - 127) < 3
    expected = (bands.images[:, 0] - bands.mean[0]) / (2.5 * bands.std[0]) * 127.5 + 127.5
    np.testing.assert_array_equal(shown[..., 0], expected.clip(0, 255).astype(np.uint8))


def test_what_cannot_be_shown_is_refused(bands: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        peek(bands, 0)
    with pytest.raises(UsageError, match=r"no \.png file"):
        peek(bands, 1, sheet=tmp_path / "sheet.jpg")


def test_a_contact_sheet_replaces_another_and_no_photograph(bands: ImageStore, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    for seed in (0, 1):
        peek(bands, 1, seed, sheet)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(sheet)
    with pytest.raises(UsageError, match=r"sheet\.png is there and is no contact sheet of ours"):
        peek(bands, 1, sheet=sheet)
