"""Ground truth of stereo and flow, as the public sets write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import BadInput
from headstart.data.image.matching_files import read_disparity, read_flow


def flo(path: Path, flow: np.ndarray) -> Path:
    """[height, width, 2]"""
    path.write_bytes(b"PIEH" + np.array(flow.shape[1::-1], "<i4").tobytes() + flow.astype("<f4").tobytes())
    return path


def pfm(path: Path, values: np.ndarray, order: str = "<", magic: str = "Pf") -> Path:
    scale = -1.0 if order == "<" else 1.0
    path.write_bytes(f"{magic}\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode() + values[::-1].astype(f"{order}f4").tobytes())
    return path


def test_flow(tmp_path: Path) -> None:
    flow = np.arange(12.0).reshape(2, 3, 2)
    flow[1, 2, 0] = 1e10
    found = read_flow(flo(tmp_path / "a.flo", flow))
    assert (found.shape, found.dtype) == ((2, 2, 3), np.float32)
    assert found[:, 0, 1].tolist() == [2, 3]
    assert np.isnan(found[:, 1, 2]).all()
    assert np.isnan(found).sum() == 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_disparity_of_a_pfm(order: str, tmp_path: Path) -> None:
    found = read_disparity(pfm(tmp_path / "a.pfm", np.array([[0.5, 1, np.inf], [2, 3, np.nan]]), order))
    assert found.shape == (1, 2, 3)
    assert found[0, :, :2].tolist() == [[0.5, 1], [2, 3]]
    assert np.isnan(found[0, :, 2]).all()


def test_disparity_of_kitti(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256], [384, 128]], np.uint16)).save(tmp_path / "a.png")
    found = read_disparity(tmp_path / "a.png")
    assert np.isnan(found[0, 0, 0])
    assert found[0].ravel()[1:].tolist() == [1, 1.5, 0.5]


@pytest.mark.parametrize(
    ("values", "words"), [(np.full((2, 2), -1.0), "mostly negative"), (np.full((2, 4), 5.0), r"up to 5, in an image of 4 pixels")]
)
def test_what_is_no_disparity_is_refused(values: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        read_disparity(pfm(tmp_path / "a.pfm", values))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    cut = flo(tmp_path / "a.flo", np.zeros((2, 3, 2)))
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(BadInput, match="says 3 x 2 pixels, and has 59 bytes"):
        read_flow(cut)
    (tmp_path / "b.flo").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"no \.flo file"):
        read_flow(tmp_path / "b.flo")
    with pytest.raises(BadInput, match="Give one channel"):
        read_disparity(pfm(tmp_path / "c.pfm", np.zeros((2, 3)), magic="PF"))
    (tmp_path / "d.pfm").write_bytes(b"Pf\n-1 x\n")
    (tmp_path / "e.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "f.png")
    for name in ("d.pfm", "e.png", "f.png", "g.tif"):
        with pytest.raises(BadInput):
            read_disparity(tmp_path / name)
