"""Which files belong together: lists, folders, and the layouts of the public sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.data.image.target_sources import find_targets


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path, source: str | Path, task: str) -> list[tuple[str, ...]]:
    records = find_targets(source, task).records
    return [tuple(path.relative_to(folder).as_posix() for path in (*record.views, record.target)) for record in records]


@pytest.mark.parametrize(
    ("task", "records"),
    [
        ("segmentation", [("images/a.jpg", "masks/a.png"), ("images/b/c.jpg", "masks/b/c.png")]),
        ("segmentation", [("train/img/a.png", "train/annotations/a.png")]),
        ("segmentation", [("a.jpg", "a_mask.png"), ("b.png", "b_mask.png")]),
        ("segmentation", [("a.jpg", "masks/a.png")]),
        ("depth", [("rgb/1.png", "depth/1.png"), ("rgb/2.png", "depth/2.png")]),
        ("dense-regression", [("a.png", "a.npy")]),
        ("dense-regression", [("images/a.tif", "targets/a.tif")]),
        ("stereo", [("left/1.png", "right/1.png", "disparity/1.pfm")]),
        ("stereo", [("image_2/0_10.png", "image_3/0_10.png", "disp_occ_0/0_10.png")]),
        ("stereo", [("Adirondack/im0.png", "Adirondack/im1.png", "Adirondack/disp0.pfm")]),
        ("stereo", [("frames_cleanpass/35/left/06.png", "frames_cleanpass/35/right/06.png", "disparity/35/left/06.pfm")]),
        ("stereo", [("a_left.png", "a_right.png", "a_disp.npy")]),
        ("flow", [("clean/alley/frame_0001.png", "clean/alley/frame_0002.png", "flow/alley/frame_0001.flo")]),
        ("flow", [("7_img1.ppm", "7_img2.ppm", "7_flow.flo")]),
        ("flow", [("image_2/0_10.png", "image_2/0_11.png", "flow_occ/0_10.png")]),
        ("flow", [("first/9.png", "second/9.png", "flow/9.flo")]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0][-1],
)
def test_folders_say_what_belongs_together(task: str, records: list[tuple[str, ...]], tmp_path: Path) -> None:
    touch(tmp_path, *(name for record in records for name in record))
    assert found(tmp_path, tmp_path, task) == records
    assert find_targets(tmp_path, task).notes == []


def test_stereo_never_takes_the_next_frame_and_flow_takes_it_first(tmp_path: Path) -> None:
    touch(tmp_path, "image_2/0_10.png", "image_2/0_11.png", "image_3/0_10.png", "disp_occ_0/0_10.png", "flow_occ/0_10.png")
    assert found(tmp_path, tmp_path, "stereo") == [("image_2/0_10.png", "image_3/0_10.png", "disp_occ_0/0_10.png")]
    assert found(tmp_path, tmp_path, "flow") == [("image_2/0_10.png", "image_2/0_11.png", "flow_occ/0_10.png")]
    (tmp_path / "image_3" / "0_10.png").unlink()
    with pytest.raises(BadInput, match="holds no image with a target for stereo"):
        find_targets(tmp_path, "stereo")


def test_images_without_a_target_are_counted_and_targets_without_an_image_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png")
    assert find_targets(tmp_path, "segmentation").notes == [f"1 of 2 images in {tmp_path} has no target and is left out."]
    touch(tmp_path, "masks/c.png")
    with pytest.raises(BadInput, match=r"1 of 2 targets has no image: .*c\.png"):
        find_targets(tmp_path, "segmentation")


def test_lists(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b c.jpg", "m/a.png", "m/b.png", "l.png", "r.png", "d.pfm")
    (tmp_path / "plain.txt").write_text("# a comment\na.jpg m/a.png\nb c.jpg\tm/b.png\n")
    (tmp_path / "table.csv").write_text('image,target\na.jpg,m/a.png\n"b c.jpg",m/b.png\n')
    for name in ("plain.txt", "table.csv"):
        assert found(tmp_path, tmp_path / name, "segmentation") == [("a.jpg", "m/a.png"), ("b c.jpg", "m/b.png")]
    (tmp_path / "pairs.tsv").write_text("image1\timage2\ttarget\nl.png\tr.png\td.pfm\n")
    assert found(tmp_path, tmp_path / "pairs.tsv", "stereo") == [("l.png", "r.png", "d.pfm")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "a.jpg\n", r"record 1: 'a\.jpg' names 1 files, not 2"),
        ("a.txt", "a.jpg gone.png\n", r"1 of 2 files is not there: .*gone\.png"),
        ("a.txt", "a.jpg a.jpg\n", "named twice"),
        ("a.txt", "# nothing\n", "holds no image with a target"),
        ("a.csv", "picture,target\na.jpg,m.png\n", "has no column 'image'"),
        ("a.csv", "image,target,target\na.jpg,m.png,n.png\n", "has two columns 'target'"),
        ("a.csv", "image,target\na.jpg,\n", "record 2: lacks a file"),
        ("a.jpg", "", "neither a folder nor a list"),
        ("a.txt", "m.pfm a.jpg\n", "no file of one image"),
    ],
)
def test_damaged_lists_are_refused(name: str, text: str, words: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "m.png", "m.pfm")
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=words):
        find_targets(tmp_path / name, "segmentation")
