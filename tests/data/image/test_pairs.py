"""Pairs of images: how they are found, stored, held out and read; views cut from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.core.errors import BadInput, OtherStore
from headstart.core.rng import Rng
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pair_sources import find_pairs
from headstart.data.image.pairs import PairRows, components, open_pair_store, pair_changes, prepare_pairs, write_first_pairs
from headstart.data.image.poses import focus_distances, pairs_of_scene, read_scene
from headstart.data.image.views import colour_jitter, crop_at, random_places


def picture(path: Path, grey: int, size: int = 8) -> Path:
    """One that is told by its grey. Its last pixel is another: images of one colour are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size, 3), grey, np.uint8)
    pixels[-1, -1] ^= 128
    Image.fromarray(pixels).save(path)
    return path


def scene(folder: Path, pairs: int, start: int = 0) -> None:
    """Pairs whose second view is brighter by 1."""
    for number in range(pairs):
        for view in (1, 2):
            picture(folder / f"{number:03d}_{view}.png", start + 2 * number + view)


def names(folder: Path, found: np.ndarray, files: list[Path]) -> list[tuple[str, str]]:
    return [tuple(files[index].relative_to(folder).as_posix() for index in pair) for pair in found]  # type: ignore[misc]


def found(folder: Path, *sources: Path, **settings: object) -> list[tuple[str, str]]:
    """The pairs of some sources, by names below `folder`."""
    pairs = find_pairs(list(sources) or [folder], PairConfig(size=8, **settings))  # type: ignore[arg-type]
    assert pairs.pairs is not None
    return names(folder, pairs.pairs, [file.path for file in pairs.inputs.files])


def greys(rows: PairRows, numbers: list[int]) -> list[tuple[int, int]]:
    batch = rows.batch(np.array(numbers))
    return [(int(first[0, 0, 0]), int(second[0, 0, 0])) for first, second in zip(batch["images"], batch["second_images"], strict=True)]


# --- which two belong together ---------------------------------------------------------------------------------------------------------------------


def test_a_list_names_two_images_or_a_prefix_a_line(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "my view.png", "c_1.png", "c_2.png"):
        picture(tmp_path / name, 1)
    (tmp_path / "pairs.txt").write_text("# first second\na.png b.png\n\nmy view.png a.png\nb.png\tmy view.png\nc\n")
    wanted = [("a.png", "b.png"), ("my view.png", "a.png"), ("b.png", "my view.png"), ("c_1.png", "c_2.png")]
    assert found(tmp_path, tmp_path / "pairs.txt") == wanted
    (tmp_path / "pairs.csv").write_text("image2,image1\nb.png,a.png\n")
    assert found(tmp_path, tmp_path / "pairs.csv") == [("a.png", "b.png")]
    (tmp_path / "twice.csv").write_text("image1,image2,image1\na.png,b.png,c.png\n")
    with pytest.raises(BadInput, match="has two columns 'image1'"):
        found(tmp_path, tmp_path / "twice.csv")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png b.png c.png", "names no pair"),
        ("a.png", "names no pair"),
        ("a.png a.png", "both views"),
        ("a.png gone.png", "1 image of pairs is not"),
    ],
)
def test_a_line_that_is_no_pair_is_refused(line: str, words: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name, 1)
    (tmp_path / "pairs.txt").write_text(line + "\n")
    with pytest.raises(BadInput, match=words):
        found(tmp_path, tmp_path / "pairs.txt")


def test_names_and_folders_pair_up_by_themselves(tmp_path: Path) -> None:
    scene(tmp_path / "names", 2)
    assert found(tmp_path / "names") == [("000_1.png", "000_2.png"), ("001_1.png", "001_2.png")]
    for side in ("left", "right"):
        for name in ("0.png", "1.png"):
            picture(tmp_path / "rig" / "run" / side / name, 1)
            picture(tmp_path / "other" / side / name, 1)
    assert found(tmp_path / "rig") == [("run/left/0.png", "run/right/0.png"), ("run/left/1.png", "run/right/1.png")]
    two = tmp_path / "other"
    wanted = [("right/0.png", "left/0.png"), ("right/1.png", "left/1.png")]
    assert found(two, two / "right", two / "left") == wanted
    assert found(two, view_folders=("right", "left"), pairing="folders") == wanted


def test_an_image_without_partner_is_named(tmp_path: Path) -> None:
    scene(tmp_path, 3)
    picture(tmp_path / "003_1.png", 1)
    with pytest.raises(BadInput, match=r"1 of 7 images has no partner: .*003_1\.png"):
        found(tmp_path)


def test_images_that_do_not_tell_how_they_pair_up_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name, 1)
    with pytest.raises(BadInput, match="does not tell which two images"):
        found(tmp_path)


def test_frames_go_by_number_within_their_folder(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.png", "x/10.png", "x/11.png", "y/1.png"):
        picture(tmp_path / name, 1)
    assert found(tmp_path, pairing="frames", frame_gap=2) == [("x/1.png", "x/10.png"), ("x/2.png", "x/11.png")]


def ring(tmp_path: Path, angles: list[float], outwards: bool = False) -> Path:
    """Cameras around the origin at distance 2, that look at it with a view of 60 degrees."""
    frames = []
    for number, angle in enumerate(map(math.radians, angles)):
        back = np.array([math.sin(angle), 0, math.cos(angle)])  # from the origin to the camera: its +z
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([np.cross([0, 1, 0], back), [0, 1, 0], back], 1)
        matrix[:3, 3] = back * (-2 if outwards else 2)
        picture(tmp_path / f"{number}.png", number)
        frames.append({"file_path": f"./{number}", "transform_matrix": matrix.tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": math.radians(60), "frames": frames}))
    return tmp_path


def test_posed_views_pair_up_where_they_see_the_same(tmp_path: Path) -> None:
    assert found(ring(tmp_path / "a", [0, 20, 180])) == [("0.png", "1.png")]
    read = read_scene(tmp_path / "a" / "transforms.json")
    np.testing.assert_allclose(focus_distances(read.cameras), 2)
    np.testing.assert_allclose(read.reach, math.tan(math.radians(30)))
    many = read_scene(ring(tmp_path / "b", [float(angle) for angle in range(10)]) / "transforms.json")
    assert len(pairs_of_scene(many, 0.5, None, 1000)) == 45
    assert len(pairs_of_scene(many, 0.5, None, 7)) == len(np.unique(pairs_of_scene(many, 0.5, None, 7), axis=0)) == 7
    aside = read_scene(tmp_path / "a" / "transforms.json").cameras.copy()
    aside[:] = aside[0]
    aside[1, 0, 3] += 0.5
    with pytest.raises(BadInput, match="scene-depth"):
        found(ring(tmp_path / "c", [0, 120, 240], outwards=True))


# --- the store -------------------------------------------------------------------------------------------------------------------------------------


def test_a_store_gives_both_views_and_every_image_once(tmp_path: Path) -> None:
    for grey, name in enumerate(("a.png", "b.png", "c.png")):
        picture(tmp_path / "in" / name, 10 * grey)
    (tmp_path / "in" / "pairs.txt").write_text("a.png b.png\nb.png c.png\na.png c.png\n")
    store = prepare_pairs([tmp_path / "in" / "pairs.txt"], tmp_path / "store", PairConfig(size=8, held_out_share=0.0))
    assert len(store) == 3
    assert store.pairs.tolist() == [[0, 1], [1, 2], [0, 2]]
    rows = PairRows(store)
    assert (len(rows), len(PairRows(store, "held_out")), rows.n_documents) == (3, 0, 3)
    assert greys(rows, [2, 0]) == [(0, 20), (0, 10)]
    assert greys(PairRows(store, others=True), [0, 1, 2]) == [(0, 20), (10, 20), (0, 10)]
    assert store.manifest["counts"]["scenes"] == 1
    assert any("all pairs are of one scene" in line for line in store.report())
    assert "in 3 pairs" in store.in_words()


def test_scenes_are_held_out_whole(tmp_path: Path) -> None:
    for number in range(8):
        scene(tmp_path / "in" / f"scene{number}", 4, start=20 * number)
    store = prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8, held_out_share=0.25))
    held_out = store.pairs_held_out.reshape(8, 4)
    assert store.manifest["counts"]["scenes"] == 8
    assert 0 < held_out.sum() < 32
    assert bool((held_out == held_out[:, :1]).all())
    train, validation = PairRows(store), PairRows(store, "held_out")
    assert sorted([*train.indices, *validation.indices]) == list(range(32))
    assert list(validation.indices) != sorted(validation.indices)  # neighbours are of different scenes
    assert set(greys(train, list(range(len(train))))).isdisjoint(greys(validation, list(range(len(validation)))))
    assert store.held_out.sum() == 2 * held_out.sum()


def test_pairs_that_share_an_image_are_of_one_scene(tmp_path: Path) -> None:
    """By its content: b.png and c.png are equal."""
    for name, grey in {"a": 1, "b": 2, "c": 2, "d": 3, "e": 4, "f": 5}.items():
        picture(tmp_path / "in" / f"{name}.png", grey)
    (tmp_path / "in" / "pairs.txt").write_text("a.png b.png\ne.png f.png\nc.png d.png\n")
    store = prepare_pairs([tmp_path / "in" / "pairs.txt"], tmp_path / "store", PairConfig(size=8, held_out_share=0.5))
    assert store.scenes.tolist() == [0, 1, 0]
    assert store.pairs_held_out.tolist() in ([True, False, True], [False, True, False])


def test_components_are_those_of_a_plain_search() -> None:
    draws = np.random.default_rng(0)
    for n, m in ((1, 1), (30, 12), (200, 120), (200, 400)):
        edges = draws.integers(0, n, (m, 2))
        wanted = np.arange(n)
        for _ in range(n):
            for a, b in edges:
                wanted[[a, b]] = min(wanted[a], wanted[b])
        assert components(n, edges).tolist() == wanted.tolist()
    chain = np.stack([np.arange(9999), np.arange(1, 10000)], 1)
    assert components(10000, chain[:, ::-1]).max() == 0


def test_pairs_go_with_an_image_that_cannot_be_used(tmp_path: Path) -> None:
    scene(tmp_path / "in", 6)
    (tmp_path / "in" / "002_2.png").write_bytes(b"no image")
    config = PairConfig(size=8, on_bad_input="quarantine", max_bad_share=0.5)
    store = prepare_pairs([tmp_path / "in"], tmp_path / "store", config)
    assert store.manifest["counts"]["lost_pairs"] == 1
    first, second = zip(*sorted(greys(PairRows(store), list(range(len(PairRows(store)))))), strict=True)
    assert [b - a for a, b in zip(first, second, strict=True)] == [1] * len(first)
    assert 5 not in first


def test_equal_views_are_refused_and_copies_left_out(tmp_path: Path) -> None:
    scene(tmp_path / "in", 3)
    (tmp_path / "in" / "003_1.png").write_bytes((tmp_path / "in" / "000_1.png").read_bytes())
    (tmp_path / "in" / "003_2.png").write_bytes((tmp_path / "in" / "000_2.png").read_bytes())
    store = prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8))
    assert (len(store.pairs), store.manifest["counts"]["duplicate_pairs"]) == (3, 1)
    picture(tmp_path / "in" / "003_2.png", 1)
    with pytest.raises(BadInput, match="in 1 of 4 pairs both images are equal"):
        prepare_pairs([tmp_path / "in"], tmp_path / "again", PairConfig(size=8))


def test_files_of_many_images_pair_up_two_by_two(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    images[:, -1, -1] = 99  # images of one colour are left out
    np.savez(tmp_path / "views.npz", images=images)
    store = prepare_pairs([tmp_path / "views.npz"], tmp_path / "store", PairConfig(size=8, pairing="twos", held_out_share=0.0))
    assert store.pairs.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert greys(PairRows(store), [1]) == [(2, 3)]
    crops = prepare_pairs([tmp_path / "views.npz"], tmp_path / "crops", PairConfig(size=8, pairing="crops", held_out_share=0.0))
    assert crops.pairs.tolist() == [[i, i] for i in range(6)]
    assert any("shortcut" in line for line in crops.report())


def test_a_pair_with_a_view_of_one_colour_is_lost_and_counted(tmp_path: Path) -> None:
    scene(tmp_path / "in", 4)
    Image.fromarray(np.full((8, 8, 3), 50, np.uint8)).save(tmp_path / "in" / "001_2.png")
    store = prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8, held_out_share=0.0))
    assert len(store.pairs) == 3
    assert store.manifest["counts"]["lost_pairs"] == 1
    assert "1 pair lost with an image that could not be used" in "\n".join(store.report())
    assert any("1 image is of one colour" in line for line in store.report())


def test_a_finished_store_is_opened_and_another_refused(tmp_path: Path) -> None:
    scene(tmp_path / "in", 4)
    config = PairConfig(size=8)
    store = prepare_pairs([tmp_path / "in"], tmp_path / "store", config)
    again = prepare_pairs([tmp_path / "in"], tmp_path / "store", config)
    assert np.array_equal(store.pairs, again.pairs)
    assert pair_changes(again, [tmp_path / "in"]) == []
    again.verify()
    assert again.manifest["preparation"]["held_out_share"] == 0.05
    with pytest.raises(OtherStore, match=r"held_out_share 0\.05 -> 0\.5"):
        prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8, held_out_share=0.5))
    lines = [f"{number:03d}_1.png {number:03d}_2.png\n" for number in range(4)]
    (tmp_path / "in" / "pairs.txt").write_text("".join(lines) + "000_1.png 003_2.png\n")
    with pytest.raises(OtherStore, match=r"other pairs \(4 -> 5\)"):
        prepare_pairs([tmp_path / "in" / "pairs.txt"], tmp_path / "store", config)
    picture(tmp_path / "in" / "000_1.png", 77)
    assert "1 changed input files" in pair_changes(again, [tmp_path / "in"])[0]


def test_a_store_without_its_pairs_or_with_wild_ones_is_refused(tmp_path: Path) -> None:
    scene(tmp_path / "in", 4)
    prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8))
    np.save(tmp_path / "store" / "pairs.npy", np.full((4, 2), 99))
    with pytest.raises(BadInput, match="names images that the store has not"):
        open_pair_store(tmp_path / "store")
    (tmp_path / "store" / "pairs.json").unlink()
    with pytest.raises(BadInput, match="no pairs of them yet"):
        open_pair_store(tmp_path / "store")
    assert len(prepare_pairs([tmp_path / "in"], tmp_path / "store", PairConfig(size=8)).pairs) == 4


def test_the_first_pairs_of_a_source(tmp_path: Path) -> None:
    scene(tmp_path / "in", 4)
    sources, config = write_first_pairs([tmp_path / "in"], tmp_path / "few", PairConfig(size=8), 2)
    store = prepare_pairs(sources, tmp_path / "store", config)
    assert sorted(store.read(store.pairs[:, 0])[:, 0, 0, 0].tolist()) == [1, 3]


# --- views -----------------------------------------------------------------------------------------------------------------------------------------


def test_crops_are_parts_of_the_image_at_their_places() -> None:
    images = torch.arange(2 * 3 * 6 * 7).view(2, 3, 6, 7)
    found = crop_at(images, torch.tensor([[0, 3], [2, 1]]), 4)
    assert torch.equal(found[0], images[0, :, :4, 3:])
    assert torch.equal(found[1], images[1, :, 2:, 1:5])
    places = random_places(Rng.at(0, 0, torch.arange(500)), "x", 6, 7, 4)
    assert places.amin(0).tolist() == [0, 0]
    assert places.amax(0).tolist() == [2, 3]


def jittered_one_by_one(image: torch.Tensor, factors: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The three operations as torchvision has them, on one image of three channels."""
    for which in order.tolist():
        grey = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        other = {0: torch.zeros(()), 1: grey.mean(), 2: grey}[which]
        image = (factors[which] * image + (1 - factors[which]) * other).clamp(0, 255)
    return image


def test_colours_are_those_of_the_operations_one_after_another() -> None:
    images = torch.randint(0, 256, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rng = Rng.at(0, 0, torch.arange(40))
    found = colour_jitter(images, rng, "x", 0.4)
    factors, order = 0.6 + 0.8 * rng.uniform("x.factors", 3), rng.uniform("x.order", 3).argsort(1)
    assert len(torch.unique(order, dim=0)) == 6
    wanted = torch.stack([jittered_one_by_one(*row) for row in zip(images.float(), factors, order, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    assert torch.equal(colour_jitter(images, rng, "x", 0.0), images.float())
    assert colour_jitter(images[:, :1], rng, "x", 0.4).shape == (40, 1, 4, 4)
