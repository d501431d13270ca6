"""What verbs say of images and of pairs of them."""

from __future__ import annotations

from types import SimpleNamespace

from headstart.verbs._images import data_words, rows_words


def store(**counts: int) -> SimpleNamespace:
    return SimpleNamespace(manifest={"counts": counts}, classes=[], in_words=lambda: "3 x 8 x 8 uint8, rgb")


class Rows(list[int]):
    def __init__(self, count: int, unit: str) -> None:
        super().__init__(range(count))
        self.unit = unit


def test_images_are_counted_as_images_and_pairs_as_pairs() -> None:
    images = Rows(95, "images")
    assert rows_words(images) == "95 images"
    assert data_words([store(images=100, held_out_images=5)], [images]) == "100 images of 3 x 8 x 8 uint8, rgb: 95 to train on, 5 held out"
    pairs = Rows(1050, "pairs")
    assert rows_words(pairs) == "1,050 pairs"
    of_pairs = store(images=60, held_out_images=9, held_out_pairs=50)
    assert data_words([of_pairs], [pairs]) == "60 images of 3 x 8 x 8 uint8, rgb: 1,050 pairs to train on, 50 held out"
