"""A folder of photographs, all the way: plan, rehearsal, training, kill, export, verdict; and what the verbs say of images."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import BadInput, UsageError
from headstart.core.run import PART_LOSS
from headstart.verbs.peek import lines, peek
from headstart.verbs.prepare import prepare
from headstart.verbs.pretrain import pretrain
from headstart.verbs.sample import sample
from tests.at import after
from tests.data.image.pictures import encoded, smooth, write_folder
from tests.running import assert_same_run, flags, headstart, records, run_info, start

TINY: dict[str, Any] = {
    "batch": 8, "device": "cpu", "precision": "fp32", "image.size": 20, "image.held_out_share": 0.2,
    "method.image_size": 16, "method.patch_size": 4, "method.hidden_size": 32, "method.num_layers": 1, "method.num_heads": 2,
    "method.decoder_hidden_size": 16, "method.decoder_layers": 1, "method.decoder_heads": 2,
    "trainer.log_every": 2, "trainer.evaluate_every": 6, "trainer.checkpoint_every": 6, "trainer.evaluate_rows": 8,
}  # fmt: skip
"""Settings of a run of MAE of a second."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "photos", classes=3, each=16)


def trained(data: Path, out: Path, **settings: Any) -> tuple[Path, list[str]]:
    """The run, and what it said."""
    said: list[str] = []
    return pretrain("mae", data, say=said.append, out=out, **(TINY | {"budget.steps": 12} | settings)).folder, said


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return trained(photos, tmp_path_factory.mktemp("runs") / "run", **{"probe.labels": photos})


def test_the_plan_counts_images(run: tuple[Path, list[str]]) -> None:
    said = "\n".join(run[1])
    assert "48 images of 3 x 20 x 20 uint8, rgb" in said
    assert ", 3 classes" in said
    assert "12 steps of 8 rows = 96 images = " in said
    assert "images/s" in said
    assert "token" not in said.replace("--budget.tokens", "")
    assert "Rehearsal: evaluation, probes, checkpoint, reload and export passed" in said


def test_samples_count_as_images_everywhere(run: tuple[Path, list[str]]) -> None:
    info = run_info(run[0])
    assert info["unit"] == "images"
    assert info["totals"]["tokens"] == records(run[0], "metrics")[-1]["tokens"] == 12 * 8
    assert "Done: 12 steps, 96 images, " in "\n".join(run[1])


def test_the_verdict_measures_the_folders_as_classes(run: tuple[Path, list[str]]) -> None:
    """The classes have colours of their own, which any network can tell: both probes are far above chance, a third."""
    verdict = run_info(run[0])["verdict"]
    assert "On 48 labelled records a linear probe reaches" in verdict["sentence"]
    assert verdict["trained"] > 0.6
    assert verdict["start"] > 0.6
    assert {line["probe"] for line in records(run[0], "probes")} >= {"rankme", "knn_accuracy", "linear_probe_accuracy"}


def test_the_export_loads_and_its_card_is_of_images(run: tuple[Path, list[str]]) -> None:
    from transformers import AutoImageProcessor, AutoModel

    export = run[0] / "export"
    model, processor = AutoModel.from_pretrained(export), AutoImageProcessor.from_pretrained(export)
    batch = processor(Image.fromarray(smooth(20, 20)), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
    assert model(**batch).last_hidden_state.shape[0] == 1
    card = (export / "README.md").read_text()
    assert "image-feature-extraction" in card
    assert "AutoImageProcessor" in card
    assert "of the prepared images" in card
    assert "Tokenizer" not in card


def test_a_list_and_an_array_serve_as_labels_too(photos: Path, run: tuple[Path, list[str]], tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    (tmp_path / "labels.txt").write_text("".join(f"{path}\t{path.parent.name}\n" for path in paths))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.savez(tmp_path / "labels.npz", test_images=pixels, test_labels=np.repeat([0, 1, 2], 16), other_images=pixels)
    settings = {"probe.labels": tmp_path / "labels.npz", "probe.image_field": "test_images"}
    for number, chosen in enumerate(({"probe.labels": tmp_path / "labels.txt"}, settings)):
        found, _ = trained(photos, tmp_path / f"run{number}", **chosen)
        assert run_info(found)["verdict"]["trained"] == run_info(run[0])["verdict"]["trained"]


def test_labels_that_are_none_are_refused_before_anything_is_trained(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has 1 class"):
        trained(photos, tmp_path / "run", **{"probe.labels": write_folder(tmp_path / "one", classes=1, each=2)})
    shutil.copy(photos / "class0" / "000.png", tmp_path / "loose.png")
    with pytest.raises(BadInput, match="has no class"):
        trained(photos, tmp_path / "run", **{"probe.labels": tmp_path / "loose.png"})
    assert not (tmp_path / "run").exists()


def test_a_network_that_sees_more_than_is_stored_is_refused(photos: Path, tmp_path: Path) -> None:
    """Raw images before they are read; of a store it is known as soon as it is open."""
    with pytest.raises(UsageError, match=r"sees 24 x 24 pixels, the images would be stored at 20 x 20"):
        trained(photos, tmp_path / "run", **{"method.image_size": 24})
    assert not (tmp_path / "stores").exists()
    prepare("mae", photos, tmp_path / "store", say=lambda line: None, **{"image.size": 20})
    with pytest.raises(UsageError, match=r"sees 24 x 24 pixels, the prepared images have 20 x 20"):
        pretrain("mae", tmp_path / "store", out=tmp_path / "run", say=lambda line: None, **{"budget.steps": 1, "method.image_size": 24})


def test_stores_of_other_sizes_are_not_mixed(photos: Path, tmp_path: Path) -> None:
    for size in (20, 24):
        prepare("mae", photos, tmp_path / str(size), say=lambda line: None, **{"image.size": size})
    settings = {"budget.steps": 1, "method.image_size": 16}
    with pytest.raises(UsageError, match=r"3 x 20 x 20 uint8, rgb and of 3 x 24 x 24"):
        pretrain("mae", [tmp_path / "20", tmp_path / "24"], out=tmp_path / "run", say=lambda line: None, **settings)


@pytest.mark.parametrize(("slug", "line"), [("mae", "pixel_loss"), ("droppos", "position_loss")])
def test_named_parts_of_images_are_measured_by_what_the_method_evaluates(photos: Path, tmp_path: Path, slug: str, line: str) -> None:
    data = [f"old={photos / 'class0'}", f"new={photos / 'class1'}"]
    settings = {name: value for name, value in TINY.items() if slug == "mae" or "decoder" not in name}
    run = pretrain(slug, data, say=lambda line: None, out=tmp_path / "run", mix="old=0.5,new=0.5", **settings, **{"budget.steps": 6})
    found = {record["probe"] for record in records(run.folder, "probes")}
    assert {PART_LOSS + "old", PART_LOSS + "new"} <= found
    assert f"held_out/{line}" in found


def test_prepare_says_what_is_in_the_store_and_peek_shows_it(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prepare("mae", photos, tmp_path / "store", say=said.append, **{"image.size": 20})
    assert "48 images of 3 x 20 x 20 uint8, rgb (decoded)" in said
    assert any(line.startswith("train rows of preset tiny: ") and line.endswith(" images") for line in said)
    found = peek(tmp_path / "store", count=2, sheet=tmp_path / "sheet.png")
    shown = list(lines(found))
    assert sum(line.startswith("image ") for line in shown) == 2
    assert shown[-1] == f"Contact sheet: {tmp_path / 'sheet.png'}"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (10 * 50, 5 * 50)  # small images are shown enlarged, to 48 pixels
        first = np.asarray(sheet)[1:49, 1:49]
    expected = Image.open(photos / "class0" / "000.png").resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(first, np.asarray(expected))


def test_peek_of_a_run_and_as_json(run: tuple[Path, list[str]]) -> None:
    done = headstart("peek", run[0], "--json", "--count", "1")
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert image["label"] in ("class0", "class1", "class2")


def test_sample_shows_held_out_images_and_takes_no_text(run: tuple[Path, list[str]]) -> None:
    assert len(sample(run[0], count=2)) == 2
    with pytest.raises(UsageError, match="mae does not read texts"):
        sample(run[0], ["hello"])


def test_bad_images_are_named_on_the_last_lines(photos: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "data")
    (data / "class0" / "bad.png").write_bytes(encoded(smooth(20, 20))[:100])
    with pytest.raises(BadInput, match=r"bad\.png: is no image, damaged, or cut off"):
        trained(data, tmp_path / "strict")
    _, said = trained(data, tmp_path / "run", **{"image.on_bad_input": "quarantine", "budget.steps": 2})
    assert said[-1].startswith("Set aside: 1 bad record, named in ")


def test_pairs_that_do_not_overlap_are_said_after_a_tenth_of_the_run(tmp_path: Path) -> None:
    """What croco's specification asks for: nothing else sees it, and the rest of the budget is not spent yet."""
    (tmp_path / "pairs").mkdir()
    for number in range(40):
        (tmp_path / "pairs" / f"{number // 2:02d}_{number % 2 + 1}.png").write_bytes(encoded(smooth(20, 20, seed=number)))
    said: list[str] = []
    settings = TINY | {"budget.steps": 20, "trainer.evaluate_every": 1, "trainer.checkpoint_every": 20, "trainer.log_every": 1}
    pretrain("croco", tmp_path / "pairs", say=said.append, out=tmp_path / "run", **settings)
    warned = [number for number, line in enumerate(said) if "WARNING: The second view does not help" in line]
    evaluated = next(number for number, line in enumerate(said) if "held out at step 4" in line)
    assert len([number for number in warned if number < evaluated]) == 1


def test_a_run_of_droppos_shows_the_line_of_guessing(photos: Path, tmp_path: Path) -> None:
    """ln L and 1 / L, in every line and of the held-out images: what has to be left."""
    settings = TINY | {"budget.steps": 6, "trainer.checkpoint_every": 6}
    run = pretrain("droppos", photos, say=lambda line: None, out=tmp_path / "run", **settings).folder
    for line in records(run, "metrics"):
        assert line["chance_loss"] == pytest.approx(math.log(16))
        assert line["chance_accuracy"] == pytest.approx(1 / 16)
    found = {line["probe"]: line["value"] for line in records(run, "probes")}
    assert found["held_out/chance_accuracy"] == pytest.approx(1 / 16)


def test_a_smoke_run_takes_the_first_images(photos: Path, tmp_path: Path) -> None:
    found, _ = trained(photos, tmp_path / "run", smoke=True)
    info = run_info(found)
    assert info["totals"]["steps"] == 8
    assert info["data"][0]["counts"]["images"] == 48


@pytest.mark.slow
@pytest.mark.promise("A run on images that is killed with SIGKILL continues with the same command and ends with the same bits.")
def test_killed_the_same_command_ends_with_the_same_bits(photos: Path, tmp_path: Path) -> None:
    settings = TINY | {"budget.steps": 160, "trainer.checkpoint_every": 20, "trainer.evaluate_every": 20, "probe.labels": photos}

    def command(out: Path) -> list[str | Path]:
        return ["pretrain", "mae", "--data", photos, "--out", out, *flags(settings)]

    undisturbed, log = tmp_path / "undisturbed", tmp_path / "log"
    assert headstart(*command(undisturbed)).returncode == 0
    for step in (30, 90):
        process = start(*command(tmp_path / "run"), log=log, at=after(step, tmp_path / "run", signal.SIGKILL))
        assert process.wait(timeout=240) == -signal.SIGKILL
    done = headstart(*command(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", undisturbed)
