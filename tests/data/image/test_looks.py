"""What images look like: made again they are near, others are far, and training images that nearly equal held-out ones are dropped."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.image.config import ImageConfig
from headstart.data.image.looks import NEAR, look_of, near_copies, stand_near
from headstart.data.image.prepare import prepare_images


def photographs(count: int, side: int = 96, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, 3]: smooth colours with some grain."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] * 96 / side
    found = []
    for _ in range(count):
        draws = random.uniform([0.02, 0.02, 0], [0.3, 0.3, 6], (3, 3))
        waves = [128 + 60 * np.sin(x * a + y * b + c) + 40 * np.cos(x * b - y * a) for a, b, c in draws]
        found.append(np.stack(waves, -1) + random.normal(0, 6, (side, side, 3)))
    return np.array(found).clip(0, 255).astype(np.uint8)


def again(picture: np.ndarray, quality: int = 60, side: int = 0, brighter: float = 1.0) -> np.ndarray:
    """The picture as someone else may have stored it."""
    stream = io.BytesIO()
    made = Image.fromarray(picture)
    if side:
        made = made.resize((side, side), Image.Resampling.LANCZOS)
    made.point(lambda value: value * brighter).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).resize(picture.shape[1::-1], Image.Resampling.BICUBIC))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (look_of(picture.transpose(2, 0, 1)).astype(float) for picture in (a, b))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("changes", [{"quality": 40}, {"side": 64}, {"side": 200}, {"brighter": 0.85}], ids=str)
def test_what_is_stored_again_looks_the_same(changes: dict[str, float]) -> None:
    assert min(cosine(picture, again(picture, **changes)) for picture in photographs(12)) > NEAR  # type: ignore[arg-type]


def test_other_pictures_look_different() -> None:
    pictures = photographs(40)
    assert max(cosine(a, b) for i, a in enumerate(pictures) for b in pictures[:i]) < 0.9
    assert cosine(pictures[0], pictures[0][:, ::-1]) < 0.9


def test_a_look_is_of_greys_and_not_of_their_unit() -> None:
    picture = photographs(1)[0].transpose(2, 0, 1)
    assert look_of(picture).dtype == np.int8
    assert np.abs(look_of(picture)).max() == 127
    assert np.array_equal(look_of(picture), look_of(picture.astype(np.uint16) * 200))
    assert np.abs(look_of(picture.astype(np.float32) / 255 - 3).astype(int) - look_of(picture)).max() <= 1
    assert not look_of(np.full((3, 20, 20), 77, np.uint8)).any()
    assert not look_of(np.full((3, 20, 20), 0.1, np.float32)).any()


def test_images_of_one_grey_look_like_nothing() -> None:
    looks = np.zeros((3, 256), np.int8)
    looks[1, :9] = 100
    assert stand_near(looks, looks).tolist() == [False, True, False]
    assert not stand_near(looks, looks[:0]).any()


def test_many_are_compared_in_parts() -> None:
    looks = np.random.default_rng(0).integers(-127, 128, (70_000, 256)).astype(np.int8)
    found = stand_near(looks, looks[-300:])
    assert np.flatnonzero(found).tolist() == list(range(69_700, 70_000))


def test_only_training_images_are_dropped() -> None:
    looks = np.full((4, 256), 100, np.int8)
    held_out, dropped = np.array([True, False, False, True]), np.array([False, False, True, False])
    assert near_copies(looks, held_out, dropped).tolist() == [False, True, False, False]
    assert not near_copies(looks, np.zeros(4, bool), dropped).any(), "nothing is held out"


def test_a_store_drops_training_images_that_nearly_equal_a_held_out_one(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(photographs(30)):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
        Image.fromarray(again(picture)).save(folder / f"{number:02d}-again.png")
    store = prepare_images([folder], tmp_path / "store", ImageConfig(size=64, held_out_share=0.2))
    counts = store.manifest["counts"]
    assert counts["duplicate_images"] == 0, "their pixels differ"
    held_out = {store.source(index)[0][:-4].removesuffix("-again") for index in store.rows("held_out")}
    training = {store.source(index)[0][:-4].removesuffix("-again") for index in store.rows("train")}
    assert not held_out & training
    assert counts["near_duplicate_images"] == store.dropped.sum() > 0
    assert counts["training_images"] + counts["held_out_images"] + counts["near_duplicate_images"] == 60
    assert f"{counts['near_duplicate_images']} that nearly equal a held-out image" in store.report()[1]
    alone = prepare_images([folder], tmp_path / "all", ImageConfig(size=64, held_out_share=0.0))
    assert len(alone.rows("train")) == 60
