"""What images decide of a run where a person names neither a preset nor a size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import methods
from headstart.cli import prepare as prepare_command
from headstart.cli.pretrain import parse
from headstart.core.config import flatten, plain
from headstart.core.errors import BadInput
from headstart.core.run import FORMAT_VERSION
from headstart.data.image.prepare import files_hash
from headstart.data.image.sources import find_images
from headstart.data.image.store import open_image_store
from headstart.data.image.survey import Survey
from headstart.verbs._advise_candidates import candidate, configuration
from headstart.verbs._advise_commands import pretrain_command
from headstart.verbs._mixture_file import with_mixture
from headstart.verbs._sizing import MANY, by_data_of_store, choose, plan_lines
from headstart.verbs.config import PretrainConfig
from headstart.verbs.prepare import prepare
from headstart.verbs.pretrain import pretrain
from tests.data.image.pictures import encoded, smooth, write_folder

SMALL: dict[str, Any] = {
    "device": "cpu", "precision": "fp32", "budget.steps": 2, "method.hidden_size": 16, "method.num_layers": 1, "method.num_heads": 2,
    "method.decoder_hidden_size": 16, "method.decoder_layers": 1, "method.decoder_heads": 2, "method.attentive": False,
}  # fmt: skip


def chosen(slug: str, images: int, side: int, channels: int = 3, gpu: bool = False) -> tuple[str, dict[str, Any]]:
    return choose(Survey(images, side, channels), methods.settings(slug), lambda: gpu)


def size_of(slug: str, side: int) -> tuple[int, int, int]:
    """(image size, patch, stored size)"""
    _, found = chosen(slug, images=1000, side=side)
    return found["method.image_size"], found["method.patch_size"], found["image.size"]


@pytest.mark.parametrize(
    ("side", "size"),
    [
        (3000, (128, 16, 128)), (640, (128, 16, 128)), (128, (128, 16, 128)), (127, (112, 14, 112)), (100, (96, 12, 96)), (64, (64, 8, 64)),
        (50, (48, 6, 48)), (33, (32, 4, 32)), (28, (28, 4, 28)), (17, (16, 4, 16)), (8, (16, 4, 16)),
    ],
)  # fmt: skip
def test_patches_grow_with_the_images_and_their_number_does_not(side: int, size: tuple[int, int, int]) -> None:
    """As many as preset tiny has, so that the network costs nearly the same."""
    assert size_of("droppos", side) == size_of("mae", side) == size


@pytest.mark.parametrize(("slug", "side", "size"), [
    ("croco", 1000, (128, 16, 144)), ("croco", 72, (64, 8, 72)), ("croco", 31, (24, 4, 27)),
    ("satmaepp", 1000, (128, 16, 256)), ("satmaepp", 64, (32, 4, 64)), ("satmaepp", 20, (16, 4, 32)),
])  # fmt: skip
def test_a_method_that_stores_more_than_it_sees_gets_it_in_the_same_proportion(slug: str, side: int, size: tuple[int, int, int]) -> None:
    assert size_of(slug, side) == size


@pytest.mark.parametrize("slug", ["mae", "droppos", "satmaepp", "croco"])
@pytest.mark.parametrize("side", range(1, 300, 7))
def test_any_side_gives_sizes_that_fit(slug: str, side: int) -> None:
    size, patch, stored = size_of(slug, side)
    assert size % patch == 0
    assert stored >= size >= 16
    assert 4 <= size // patch <= 8


def test_the_papers_form_is_for_many_large_images_on_a_gpu() -> None:
    assert chosen("droppos", MANY, 256, gpu=True) == ("small", {})
    for images, side, gpu in ((MANY - 1, 256, True), (MANY, 255, True), (MANY, 256, False)):
        preset, sizes = chosen("droppos", images, side, gpu=gpu)
        assert (preset, sizes["method.image_size"]) == ("tiny", 128)


@pytest.mark.parametrize(("side", "size"), [(30, (16, 4, 64)), (64, (16, 4, 64)), (100, (24, 6, 96)), (120, (24, 6, 96)), (128, (32, 8, 128))])
def test_bands_get_the_preset_for_bands_in_the_size_of_the_tiles(side: int, size: tuple[int, int, int]) -> None:
    """As many places as the preset has; and no larger than what enlarges the reconstruction can pay for."""
    preset, found = chosen("satmaepp", 5000, side, channels=10)
    assert preset == "tiny"
    assert (found["method.image_size"], found["method.patch_size"], found["image.size"]) == size
    assert chosen("satmaepp", 5000, 4 * side, channels=10, gpu=True)[1]["image.size"] == min(128, max(64, 4 * side // 16 // 2 * 2 * 16))
    assert chosen("satmaepp", 20, side, channels=10)[1]["batch"] == 16


def test_what_was_stored_for_bands_chooses_the_same_again() -> None:
    for side in range(1, 300, 7):
        found = chosen("satmaepp", 5000, side, channels=10)
        assert chosen("satmaepp", 5000, found[1]["image.size"], channels=10) == found


def test_bands_get_the_preset_for_bands() -> None:
    assert chosen("satmaepp", 5000, 120, channels=3)[0] == "tiny-optical"
    assert chosen("mae", 5000, 120, channels=10)[1]["method.image_size"] == 112


@pytest.mark.parametrize(("images", "batch"), [(5000, None), (128, None), (127, 64), (40, 32), (3, 8)])
def test_an_update_has_no_more_images_than_there_are(images: int, batch: int | None) -> None:
    assert chosen("mae", images, 640)[1].get("batch") == batch


@pytest.mark.parametrize(("pairs", "batch"), [(20, 16), (64, None), (3, 8), (0, 8)])
def test_an_update_has_no_more_pairs_than_there_are(pairs: int, batch: int | None) -> None:
    _, found = choose(Survey(2 * pairs, 640, 3, pairs=pairs), methods.settings("croco"), lambda: False)
    assert found.get("batch") == batch


# --- in a command --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "photos", classes=2, each=12, size=52)


def parsed(photos: Path, *more: str) -> dict[str, Any]:
    return flatten(parse(["droppos", "--data", str(photos), *more]).config)


def test_a_command_that_names_nothing_takes_what_the_images_say(photos: Path) -> None:
    args = parse(["droppos", "--data", str(photos), "--method.mask-ratio", "0.5"])
    found = flatten(args.config)
    assert [found[name] for name in ("method.image_size", "method.patch_size", "image.size", "batch")] == [48, 6, 48, 16]
    assert found["method.mask_ratio"] == 0.5
    assert {name for name, where in args.origin.items() if where == "data"} == {
        "preset", "method.image_size", "method.patch_size", "image.size", "batch",
    }  # fmt: skip
    assert args.origin["method.mask_ratio"] == "flag"


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (("--preset", "tiny"), 32),
        (("--method.image-size", "40"), 40),
        (("--method.patch-size", "8"), 32),
        (("--image.size", "64"), 32),
        (("--image.tile", "32"), 32),
        (("--batch", "4"), 48),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_preset_or_a_size_of_ones_own_decides(photos: Path, flags: tuple[str, ...], size: int) -> None:
    found = parsed(photos, *flags)
    assert found["method.image_size"] == size
    if size != 48:
        assert found["batch"] == 128
    else:
        assert found["batch"] == 4


def test_a_file_of_settings_decides_too(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {photos}\nmethod:\n  image_size: 24\n")
    assert flatten(parse(["mae", "--config", str(tmp_path / "run.yaml")]).config)["method.image_size"] == 24
    (tmp_path / "run.yaml").write_text(f"data: {photos}\n")
    assert flatten(parse(["mae", "--config", str(tmp_path / "run.yaml")]).config)["method.image_size"] == 48


def test_texts_and_what_cannot_be_read_decide_nothing(photos: Path, tmp_path: Path) -> None:
    assert "data" not in parse(["causal-lm", "--data", str(photos)]).origin.values()
    (tmp_path / "a.png").write_bytes(b"no image")
    args = parse(["mae", "--data", str(tmp_path)])
    assert flatten(args.config)["method.image_size"] == 32
    assert "data" not in args.origin.values()


def test_a_run_says_what_the_images_chose_and_keeps_to_it(photos: Path, tmp_path: Path) -> None:
    """Files that are added later would choose another size."""
    data, said = tmp_path / "photos", []  # type: tuple[Path, list[str]]
    write_folder(data, classes=2, each=12, size=52)
    run = pretrain("droppos", data, out=tmp_path / "run", say=said.append, **SMALL)
    wanted = "by 24 images, half of them at least 52 pixels high and wide: preset tiny, 48 x 48 pixels in patches of 6, 16 an update"
    assert any(wanted in line for line in said)
    info = json.loads((run.folder / "run.json").read_text())
    assert (info["config"]["method"]["image_size"], info["origin"]["method.image_size"]) == (48, "data")
    for number in range(30):
        (data / f"larger-{number}.png").write_bytes(encoded(smooth(128, 128, seed=900 + number)))
    said.clear()
    again = pretrain("droppos", data, out=tmp_path / "run", say=said.append, **SMALL)
    assert "Nothing to do" in "\n".join(said)
    assert again.info["config"]["method"]["image_size"] == 48
    fresh = parse(["droppos", "--data", str(data), "--out", str(tmp_path / "fresh")])
    assert flatten(fresh.config)["method.image_size"] == 128


def test_a_run_on_a_mixture_file_keeps_to_what_it_began_with(tmp_path: Path) -> None:
    """run.json records the parts that the file stands for."""
    new, old, mixture = tmp_path / "new", tmp_path / "old", tmp_path / "mixture.yaml"
    write_folder(new, classes=2, each=12, size=52)
    write_folder(old, classes=1, each=12, size=52)
    mixture.write_text(f"- {{store: {old}, share: 0.25}}\n- {{store: pool, share: 0.75, replace: true}}\n")
    command = ["mae", "--data", str(new), "--mix", str(mixture), "--out"]
    begun = parse([*command, str(tmp_path / "run")])
    assert [flatten(begun.config)[name] for name in ("method.image_size", "batch")] == [48, 32], "by the images of all parts"
    info = {"format_version": FORMAT_VERSION, "method": "mae", "config": plain(with_mixture(begun.config)), "origin": begun.origin}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    for number in range(60):
        (new / f"larger-{number}.png").write_bytes(encoded(smooth(128, 128, seed=900 + number)))
    assert flatten(parse([*command, str(tmp_path / "run")]).config)["method.image_size"] == 48
    assert flatten(parse([*command, str(tmp_path / "fresh")]).config)["method.image_size"] == 128


def test_a_run_json_without_its_preset_decides_nothing(photos: Path, tmp_path: Path) -> None:
    info = {"format_version": FORMAT_VERSION, "method": "mae", "config": {"data": [str(photos)]}, "origin": {"preset": "data"}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    assert "data" not in parse(["mae", "--data", str(photos), "--out", str(tmp_path)]).origin.values()


def test_a_run_whose_preset_was_named_goes_on_without_the_name(photos: Path, tmp_path: Path) -> None:
    """Tiny was the default, whatever the images: so are runs of earlier versions."""
    settings = SMALL | {"image.held_out_share": 0.2}
    pretrain("droppos", photos, preset="tiny", out=tmp_path / "run", say=lambda line: None, **settings, **{"batch": 8})
    said: list[str] = []
    pretrain("droppos", photos, out=tmp_path / "run", say=said.append, **settings, **{"batch": 8})
    assert "Nothing to do" in "\n".join(said)


def test_prepare_stores_what_the_network_will_see(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_command.run(prepare_command.parse(["mae", "--data", str(photos), "--out", str(tmp_path / "store")])) == 0
    printed = capsys.readouterr().out
    assert "24 images of 3 x 48 x 48" in printed
    assert f"Next: headstart pretrain mae --data {tmp_path / 'store'} --budget.minutes 10" in printed
    found = flatten(parse(["mae", "--data", str(tmp_path / "store")]).config)
    assert (found["method.image_size"], found["method.patch_size"]) == (48, 6)
    own = ["mae", "--data", str(photos), "--out", str(tmp_path / "own")]
    assert prepare_command.run(prepare_command.parse([*own, "--image.size", "20"])) == 0
    assert "24 images of 3 x 20 x 20" in capsys.readouterr().out
    assert prepare_command.run(prepare_command.parse(own)) == 0
    assert "24 images of 3 x 20 x 20" in capsys.readouterr().out, "what is there already is not chosen anew"


def test_colours_are_prepared_as_colours_also_where_the_usual_preset_is_for_bands(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    assert prepare_command.run(prepare_command.parse(["satmaepp", "--data", str(photos), "--out", str(out), "--image.held-out-share", "0.25"])) == 0
    form, preparation = (json.loads((out / "manifest.json").read_text())[name] for name in ("form", "preparation"))
    assert (form["colour"], form["size"], preparation["held_out_share"]) == ("rgb", 48, 0.25)


def test_tiles_of_bands_are_prepared_and_trained_in_their_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    tiles, out = tmp_path / "tiles", tmp_path / "store"
    tiles.mkdir()
    for number in range(24):
        np.save(tiles / f"{number:02d}.npy", random.integers(0, 4000, (7, 200, 200)).astype(np.uint16))
    assert prepare_command.run(prepare_command.parse(["satmaepp", "--data", str(tiles), "--out", str(out)])) == 0
    printed = capsys.readouterr().out
    assert "24 images of 7 x 128 x 128 uint16, bands" in printed
    assert "train rows of preset tiny: " in printed
    args = parse(["satmaepp", "--data", str(out)])
    found = flatten(args.config)
    assert [found[name] for name in ("preset", "method.image_size", "method.patch_size", "image.size", "batch")] == ["tiny", 32, 8, 128, 16]
    (line,) = plan_lines(args.config, args.origin, [open_image_store(out)])  # windows cannot be cut from a store
    assert "preset tiny, 32 x 32 pixels in patches of 8" in line
    raw = parse(["satmaepp", "--data", str(tiles)])
    hint = plan_lines(raw.config, raw.origin, [open_image_store(out)])[1]
    flags = hint.partition("they are shrunk to 128 pixels; ")[2].removesuffix(" cuts them into windows instead").split()
    asked, wanted = flatten(parse(["satmaepp", "--data", str(tiles), *flags]).config), flatten(raw.config)
    names = ("preset", "method.image_size", "method.patch_size", "image.size")
    assert [asked[name] for name in (*names, "image.tile")] == [*(wanted[name] for name in names), 128]
    (out / "manifest.json").rename(tmp_path / "kept.json")
    (out / ".work").mkdir()
    begun = {"preparation": {"size": 128}, "inputs": files_hash(find_images([tiles]).files)}
    (out / ".work" / "plan.json").write_text(json.dumps(begun))
    method = methods.settings("satmaepp")
    again = by_data_of_store(method, [str(tiles)], method.DataConfig(), out, ())
    assert again is not None
    assert (again[0], again[1]["image.size"]) == ("tiny", 128), "begun, it is of bands too"


def test_advise_tries_what_pretrain_would_take(photos: Path, tmp_path: Path) -> None:
    """The same preset and sizes as the command that a person would type; a preset or size of their own turns it off there too."""
    options: dict[str, Any] = {"seed": 0, "device": "cpu", "text_field": "text"}

    def tried(slug: str, preset: str | None = None, **more: Any) -> PretrainConfig:
        found = candidate(slug, tmp_path, [str(photos)], preset, None, options | more)
        assert (f"--preset {found.preset}") in pretrain_command(found, 1e9)
        return configuration(found)

    for slug in ("mae", "droppos", "satmaepp"):
        args = parse([slug, "--data", str(photos), "--device", "cpu"])
        names = [name for name, where in args.origin.items() if where == "data"]
        assert len(names) == 5
        wanted, found = flatten(args.config), flatten(tried(slug))
        assert {name: found[name] for name in names} == {name: wanted[name] for name in names}
    assert flatten(tried("mae", batch=4))["batch"] == 4
    assert flatten(tried("mae", preset="tiny"))["method.image_size"] == 32
    assert flatten(tried("mae", **{"image.size": 20}))["method.image_size"] == 32
    assert flatten(tried("mae", **{"image.size": 20}))["image.size"] == 20
    assert tried("mae", preset="small").preset == "small"


def begun_with_20_pixels(folder: Path) -> tuple[Path, Path]:
    """(photographs, the folder of their preparation, which one of them ended)."""
    data, out = folder / "photos", folder / "store"
    write_folder(data, classes=2, each=12, size=52)
    (data / "z.png").write_bytes(b"no image")  # which ends the preparation
    with pytest.raises(BadInput, match=r"z\.png"):
        prepare("mae", data, out, **{"image.size": 20})
    (out / ".work" / "of the first").touch()
    return data, out


def test_a_preparation_of_other_images_chooses_anew(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, out = begun_with_20_pixels(tmp_path)
    other = write_folder(tmp_path / "other", classes=2, each=12, size=100)
    store = prepare("mae", other, out, say=lambda line: None)
    assert store.height == 96, "not the 20 pixels of what was begun"
    assert f"what was begun in {out} is of another preparation (other inputs; size 20 -> 96): it begins anew" in caplog.text


def test_a_preparation_goes_on_with_the_size_that_it_began_with(photos: Path, tmp_path: Path) -> None:
    """Another machine or version may choose another, which would throw away what is done."""
    data, out = begun_with_20_pixels(tmp_path)
    with pytest.raises(BadInput, match=r"z\.png"):
        prepare("mae", data, out)
    assert (out / ".work" / "of the first").exists()
    assert json.loads((out / ".work" / "plan.json").read_text())["preparation"]["size"] == 20


@pytest.mark.parametrize("stated", [None, "x", 0, -1, 5.0, True, [], 2**40], ids=repr)
@pytest.mark.parametrize("name", ["manifest.json", ".work/plan.json"])
def test_a_damaged_preparation_decides_nothing(photos: Path, tmp_path: Path, name: str, stated: object) -> None:
    method = methods.settings("mae")
    (tmp_path / ".work").mkdir()

    inputs = files_hash(find_images([photos]).files)

    def size(text: str) -> Any:
        (tmp_path / name).write_text(text)
        found = by_data_of_store(method, [str(photos)], method.DataConfig(), tmp_path, ())
        assert found is not None
        return found[0], found[1]["image.size"]

    beside = {"inputs": inputs, "form": {"channels": 3}}
    assert size(json.dumps(beside | {"preparation": {"size": 20}})) == ("tiny", 20)
    assert size(json.dumps(beside | {"preparation": {"size": 256}})) == ("small", 256)
    damaged = [json.dumps(beside | {"preparation": {"size": stated}}), json.dumps(beside | {"preparation": stated}), json.dumps(stated), "{"]
    for text in [*damaged, json.dumps({"preparation": {"size": 20}}), json.dumps({"preparation": {"size": 20}, "inputs": stated, "form": stated})]:
        assert size(text) == ("tiny", 48)

