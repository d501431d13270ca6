"""What is wanted of every pixel: files of masks, numbers, disparity and flow, and what of them is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import form_of
from headstart.data.image.form import Unusable
from headstart.data.image.targets import READERS, read_disparities, read_flows, read_mask, read_numbers
from tests.data.image.test_matching_files import flo, pfm

CLASSES = np.array([[0, 1, 255], [3, 2, 0]])


def test_a_mask_is_the_number_of_every_pixel_whatever_holds_it(tmp_path: Path) -> None:
    grey = Image.fromarray(CLASSES.astype(np.uint8))
    grey.save(tmp_path / "grey.png")
    palette = Image.fromarray(CLASSES.astype(np.uint8), mode="P")
    palette.putpalette([7, 8, 9] * 256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(CLASSES.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(CLASSES.astype(np.uint8)).save(tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", CLASSES[None])
    np.savez(tmp_path / "a.npz", mask=CLASSES.astype(np.float32))
    for name in ("grey.png", "palette.png", "deep.png", "a.tif", "a.npy", "a.npz"):
        found = read_mask(tmp_path / name)
        assert found.dtype == np.int32
        assert np.array_equal(found, CLASSES), name


def test_colours_fractions_and_other_files_are_no_masks(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "colours.png")
    np.save(tmp_path / "fractions.npy", CLASSES + 0.5)
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "none.png").write_bytes(b"no picture")
    for name, words in {
        "colours.png": "3 channels", "fractions.npy": "fractions or NaN", "words.npy": "of type", "a.jpg": "by its suffix", "none.png": "no PNG",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=words):
            read_mask(tmp_path / name)


def test_numbers_have_a_unit_and_pixels_without_one(tmp_path: Path) -> None:
    values = np.array([[1000, 0], [2500, 500], [7, 8]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", np.stack([values, values + 1], -1).astype(np.float64))
    pfm(tmp_path / "a.pfm", values)
    for name in ("a.png", "a.tif", "a.pfm"):
        found = read_numbers(tmp_path / name, unit=1000, nothing=0)
        assert (found.shape, found.dtype) == ((1, 3, 2), np.float32)
        assert found[0, 1].tolist() == [2.5, 0.5]
        assert np.isnan(found[0]).tolist() == [[False, True], [False, False], [False, False]], name
    both = read_numbers(tmp_path / "a.npy", nothing=0)
    assert both.shape == (2, 3, 2)
    assert np.isnan(both[:, 0, 1]).all(), "what has no value in one channel has none"
    assert both[:, 1, 0].tolist() == [2500, 2501]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((2, 2), np.nan), "no number at any pixel"),
        (np.zeros(3), "an array of the shape"),
        (np.zeros((3, 3, 3)), "first or last"),
        (np.zeros((0, 3)), "cut off|shape"),
        (np.zeros((2, 2), complex), "values of type"),
    ],
    ids=["nothing", "a line", "no clear channels", "empty", "complex"],
)
def test_what_is_no_map_is_refused(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BadInput, match=words):
        read_numbers(tmp_path / "a.npy")


def test_what_a_header_promises_is_checked_before_memory_is_taken(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    with pytest.raises(BadInput, match="cut off"):
        read_numbers(tmp_path / "a.npy")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    with pytest.raises(BadInput, match="holds 2 arrays"):
        read_numbers(tmp_path / "two.npz")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(BadInput, match="Python objects"):
        read_numbers(tmp_path / "objects.npy")
    png = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(png, "PNG")
    huge = bytearray(png.getvalue())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(BadInput, match=r"too large|no PNG"):
        read_numbers(tmp_path / "huge.png")


def test_disparities_of_arrays_are_held_to_the_same_rules(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.5, np.inf, 2]]))
    found = read_disparities(tmp_path / "a.npy")
    assert found[0, 0, [0, 2]].tolist() == [1.5, 2]
    assert np.isnan(found[0, 0, 1])
    np.save(tmp_path / "b.npy", np.full((2, 3), -1.0))
    with pytest.raises(BadInput, match="mostly negative"):
        read_disparities(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4)))
    with pytest.raises(BadInput, match="has 2 channels, disparity one"):
        read_disparities(tmp_path / "c.npy")
    assert read_disparities(pfm(tmp_path / "d.pfm", np.array([[0.5, 1]]))).shape == (1, 1, 2)


def test_flow_of_kitti_of_flo_and_of_arrays(tmp_path: Path) -> None:
    import imagecodecs

    flow = np.array([[[1.5, -2.0], [0.0, 3.25], [100.0, 0.0]]], np.float32)  # [1, 3, 2]
    known = np.array([[1, 1, 0]], np.uint16)
    packed = np.concatenate([(flow * 64 + 2**15).astype(np.uint16), known[..., None]], -1)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(packed))
    np.save(tmp_path / "a.npy", flow)
    for path in (tmp_path / "a.png", tmp_path / "a.npy", flo(tmp_path / "a.flo", flow)):
        found = read_flows(path)
        assert found.shape == (2, 1, 3)
        assert found[:, 0, :2].T.tolist() == flow[0, :2].tolist(), path
    assert np.isnan(read_flows(tmp_path / "a.png")[:, 0, 2]).all()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(BadInput, match="three channels of 16 bits"):
        read_flows(tmp_path / "grey.png")
    np.save(tmp_path / "one.npy", np.zeros((4, 5)))
    with pytest.raises(BadInput, match="has 1 channels, flow two"):
        read_flows(tmp_path / "one.npy")


def test_what_is_said_of_a_damaged_mask_has_no_address_of_an_object(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"no picture at all")
    with pytest.raises(BadInput, match="is no PNG, or damaged where it begins") as caught:
        read_mask(tmp_path / "mask.png")
    assert "object at" not in str(caught.value)


def write_target(path: Path) -> None:
    """A small valid file of its suffix."""
    values = np.arange(1, 21).reshape(4, 5)
    if path.suffix == ".png":
        Image.fromarray(values.astype(np.uint16)).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, values.astype(np.float32), compression="zlib")
    elif path.suffix == ".pfm":
        pfm(path, values)
    elif path.suffix == ".flo":
        flo(path, np.stack([values, -values], -1))
    elif path.suffix == ".npy":
        np.save(path, np.stack([values, -values]).astype(np.float32))
    else:
        np.savez_compressed(path, values=values.astype(np.int16))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".tif", ".pfm", ".flo", ".npy", ".npz"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.just(0), st.integers(1, 200)),
)
def test_damaged_targets_are_read_or_refused_in_a_sentence(suffix: str, changes: list[tuple[int, int]], cut: int, tmp_path: Path) -> None:
    """Whatever bytes a stranger changes: an array of the stated axes, or one sentence that names the file."""
    path = tmp_path / f"target{suffix}"
    write_target(path)
    data = bytearray(path.read_bytes())
    for place, byte in changes:
        data[place % len(data)] = byte
    path.write_bytes(data[: len(data) - cut] if cut < len(data) else b"")
    for task, read in READERS.items():
        refused: BadInput | None = None
        try:
            found = read(path)
        except BadInput as error:
            refused = error
        if refused is None:
            assert found.ndim == (2 if task == "segmentation" else 3)
            assert found.dtype == (np.int32 if task == "segmentation" else np.float32)
        else:
            assert refused.file == str(path)
            assert "object at 0x" not in str(refused)


def test_a_tiff_that_states_millions_of_strips_is_refused_at_once(tmp_path: Path) -> None:
    """One changed byte of its height: 16,711,684 rows in 4,177,921 strips, of which it has one. The decoder walked over each, for minutes."""
    path = tmp_path / "target.tif"
    write_target(path)
    data = bytearray(path.read_bytes())
    data[32] = 255
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"states 4,177,921 strips or tiles and has 1\)"):
        read_mask(path)
    with pytest.raises(Unusable, match=r"states 4,177,921 strips or tiles and has 1\."):
        form_of(bytes(data), ImageConfig(size=8, mode="bands"))


def test_a_damaged_archive_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """The decompressor's own error is neither one of files nor of archives."""
    np.savez_compressed(tmp_path / "a.npz", values=np.arange(2000).reshape(40, 50))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[120:160] = bytes(255 - byte for byte in data[120:160])
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(BadInput, match=r"is no \.npz file that is read"):
        read_numbers(tmp_path / "a.npz")
