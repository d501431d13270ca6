"""Files of many images: parquet, npz, tar. Each image with its number and class, each fault by name."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.read import Fault, Record, read_picture, records, stated_count
from headstart.data.image.sources import find_images
from tests.data.image.pictures import encoded, smooth

PICTURES = [encoded(smooth(8, 8, seed)) for seed in range(4)]


def read(path: Path, **settings: Any) -> list[Record | Fault]:
    (file,) = find_images([path]).files
    return list(records(file, ImageConfig(**settings)))


def only_fault(path: Path, **settings: Any) -> Fault:
    (found,) = read(path, **settings)
    assert isinstance(found, Fault)
    return found


# --- parquet --------------------------------------------------------------------------------------------------------------------------------------


def test_parquet_holds_bytes_and_classes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": PICTURES, "label": ["b", "a", None, "b"]}), tmp_path / "x.parquet")
    expected = [Record(number, *pair) for number, pair in enumerate(zip(PICTURES, ("b", "a", None, "b"), strict=True), 1)]
    assert read(tmp_path / "x.parquet") == expected


def test_parquet_of_hugging_face_has_structures_and_names_of_classes(tmp_path: Path) -> None:
    image = pa.array([{"bytes": data, "path": "x.png"} for data in PICTURES], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"img": image, "label": [1, 0, 0, 1]}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet")
    assert [(record.content, record.label) for record in found] == list(zip(PICTURES, ["dog", "cat", "cat", "dog"], strict=True))


def test_a_parquet_row_without_bytes_is_a_fault_and_the_others_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [PICTURES[0], None, PICTURES[1]]}), tmp_path / "x.parquet")
    first, second, third = read(tmp_path / "x.parquet")
    assert isinstance(second, Fault)
    assert (second.number, first.content, third.content) == (2, PICTURES[0], PICTURES[1])


def test_parquet_without_a_column_of_images_is_a_fault(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "a": [b"x"], "b": [b"y"]}), tmp_path / "x.parquet")
    assert "'image' is no column (the columns: text (string)" in only_fault(tmp_path / "x.parquet").what
    assert "'text' is no column of bytes" in only_fault(tmp_path / "x.parquet", image_field="text").what
    (tmp_path / "y.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:200])
    assert "no parquet file" in only_fault(tmp_path / "y.parquet").what


# --- npz ------------------------------------------------------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)


def test_npz_holds_images_and_classes(tmp_path: Path) -> None:
    for labels in (np.array([3, 1, 1, 3, 2]), np.array([[3], [1], [1], [3], [2]], np.uint8)):
        np.savez_compressed(tmp_path / "x.npz", train_images=IMAGES, train_labels=labels, other=np.zeros(3))
        found = read(tmp_path / "x.npz")
        np.testing.assert_array_equal(np.stack([record.content for record in found]), IMAGES)
        assert [record.label for record in found] == ["3", "1", "1", "3", "2"]
        assert [record.number for record in found] == [1, 2, 3, 4, 5]
    np.savez(tmp_path / "y.npz", images=np.asfortranarray(IMAGES), label=np.array(list("abcde")))
    found = read(tmp_path / "y.npz")
    np.testing.assert_array_equal(np.stack([record.content for record in found]), IMAGES)
    assert [record.label for record in found] == list("abcde")


@pytest.mark.parametrize("order", ["C", "F"])
def test_bands_of_three_axes_are_one_tile(order: str, tmp_path: Path) -> None:
    """As satellite tiles are kept, a file each; of four axes they are many."""
    tile = np.random.default_rng(0).integers(0, 4000, (10, 6, 7)).astype(np.uint16)
    np.savez(tmp_path / "tile.npz", bands=np.array(tile, order=order), label=np.array(["wet"]), cloud=np.zeros((6, 7)))
    (record,) = read(tmp_path / "tile.npz")
    np.testing.assert_array_equal(record.content, tile)
    assert (record.number, record.label) == (1, "wet")
    (file,) = find_images([tmp_path / "tile.npz"]).files
    assert stated_count(file, ImageConfig()) == 1
    assert stated_count(file, ImageConfig(image_field="bands")) == 10  # an array that a person names is many grey images
    np.savez(tmp_path / "tiles.npz", bands=np.stack([tile, tile]))
    assert [record.content.shape for record in read(tmp_path / "tiles.npz")] == [(10, 6, 7)] * 2


def test_npz_of_several_sets_wants_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=IMAGES, test=IMAGES[:2])
    assert "2 of its arrays may be images (its arrays: train [5, 6, 7], test [2, 6, 7])" in only_fault(tmp_path / "x.npz").what
    assert len(read(tmp_path / "x.npz", image_field="test")) == 2
    assert "has no array 'none'" in only_fault(tmp_path / "x.npz", image_field="none").what


def test_npz_faults(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", images=IMAGES, labels=np.zeros(4, int))
    assert "not a class for each of 5 images" in only_fault(tmp_path / "labels.npz").what
    np.savez(tmp_path / "objects.npz", images=np.array([[["x"]]], object), allow_pickle=True)
    assert "holds no images" in only_fault(tmp_path / "objects.npz").what
    np.savez(tmp_path / "whole.npz", images=IMAGES)
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:150])
    assert "no .npz file" in only_fault(tmp_path / "half.npz").what


# --- tar ------------------------------------------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_webdataset_tar_gives_images_with_their_classes(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "x.tar", [("a/0.png", PICTURES[0]), ("a/0.cls", b"7"), ("a/1.json", b"{}"), ("a/1.PNG", PICTURES[1]), ("b/1.png", PICTURES[2])]
    )
    assert read(path) == [Record(1, PICTURES[0], "7"), Record(2, PICTURES[1], None), Record(3, PICTURES[2], None)]


def test_nothing_of_a_tar_is_unpacked(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("../../evil.png", PICTURES[0]), ("/abs.png", PICTURES[1])])
    before = set(tmp_path.parent.rglob("*"))
    assert len(read(path)) == 2
    assert set(tmp_path.parent.rglob("*")) == before


def test_tar_faults(tmp_path: Path) -> None:
    two = read(write_tar(tmp_path / "two.tar", [("0.left.png", PICTURES[0]), ("0.right.png", PICTURES[1]), ("1.png", PICTURES[2])]))
    assert isinstance(two[0], Fault)
    assert "has two images" in two[0].what
    assert two[1] == Record(2, PICTURES[2], None)
    assert "holds no image" in only_fault(write_tar(tmp_path / "none.tar", [("0.json", b"{}")])).what
    whole = write_tar(tmp_path / "whole.tar", [(f"{n}.png", data) for n, data in enumerate(PICTURES)])
    for cut in (700, 1100, 2048):  # within an image, within the next header, at the end of an image
        (tmp_path / "half.tar").write_bytes(whole.read_bytes()[:cut])
        last = read(tmp_path / "half.tar")[-1]
        assert isinstance(last, Fault)
        assert "cut off" in last.what
    (tmp_path / "joined.tar").write_bytes(whole.read_bytes() * 2)
    last = read(tmp_path / "joined.tar")[-1]
    assert isinstance(last, Fault)
    assert "joined archives" in last.what
    (tmp_path / "words.tar").write_bytes(b"words " * 500)
    assert "no .tar file" in only_fault(tmp_path / "words.tar").what


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_in_a_tar_is_not_followed_and_not_passed_over(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("0.png", "1.png", "1.cls"):
            member = tarfile.TarInfo(name)
            data = PICTURES[0] if name == "0.png" else b""
            member.type, member.linkname, member.size = (tarfile.REGTYPE, "", len(data)) if data else (kind, "../../0.png", 0)
            archive.addfile(member, io.BytesIO(data))
    first, second = read(tmp_path / "x.tar")
    assert first == Record(1, PICTURES[0], None)
    assert isinstance(second, Fault)
    assert (second.number, second.what) == (2, "member '1.png' is a link.")


def test_an_npz_of_zeros_without_end_is_a_bomb(tmp_path: Path) -> None:
    """320 MB of zeros in 300 KB: they would fill the disk."""
    np.savez_compressed(tmp_path / "zeros.npz", images=np.zeros((320, 1000, 1000), np.uint8))
    (file,) = find_images([tmp_path / "zeros.npz"]).files
    found, last = 0, None
    for last in records(file, ImageConfig()):
        found += isinstance(last, Record)
    assert 200 < found < 320
    assert isinstance(last, Fault)
    assert "bomb" in last.what


# --- single pictures ------------------------------------------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    import os

    (tmp_path / "dangling.png").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.png")
    for file in find_images([tmp_path]).files:
        assert isinstance(read_picture(file), Fault), file.name


def test_a_picture_that_changed_since_it_was_listed_ends_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURES[0])
    (file,) = find_images([tmp_path]).files
    (tmp_path / "a.png").write_bytes(PICTURES[1] + b"more")
    with pytest.raises(BadInput, match="changed while it was read"):
        read_picture(file)
