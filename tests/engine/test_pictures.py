"""Pictures of a run: written in the form that the report reads, the same bytes for the same pixels, never larger than it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.engine.pictures import MAX_BYTES, Drawing, stacked, write_drawing
from headstart.report.pictures import run_pictures
from headstart.report.runs import read_section
from headstart.verbs._follow import Followed
from headstart.verbs.pretrain import pretrain


def test_small_rows_are_enlarged_and_stacked() -> None:
    rows = np.arange(2, dtype=np.uint8)[:, None, None, None] * np.ones((2, 28, 84, 3), np.uint8)
    found = stacked(rows)
    assert found.shape == (2 * 4 * 28 + 2, 4 * 84, 3), "28 becomes 112, a line of two between them"
    assert (found[:112] == 0).all()
    assert (found[112:114] == 128).all()
    assert (found[114:] == 1).all()
    assert stacked(np.zeros((1, 96, 96, 3), np.uint8)).shape == (96, 96, 3)


def test_the_report_reads_what_is_written(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 224, 672, 3)).astype(np.uint8)
    write_drawing(tmp_path, 120, Drawing("reconstructions", "Left: it.", noise // 255))
    write_drawing(tmp_path, 240, Drawing("reconstructions", "Left: it.", np.repeat(np.repeat(noise[:, ::16, ::16], 16, 1), 16, 2)))
    write_drawing(tmp_path, 240, Drawing("places", "Right: put.", noise))
    shown, left_out = run_pictures(tmp_path)
    assert left_out == []
    assert [(picture.step, picture.name, picture.caption) for picture in shown if picture.name == "reconstructions"] == [
        (120, "reconstructions", "Left: it."),
        (240, "reconstructions", "Left: it."),
    ]
    first = tmp_path / "pictures" / "step-00000120-reconstructions.png"
    before = first.read_bytes()
    write_drawing(tmp_path, 120, Drawing("reconstructions", "Left: it.", noise // 255))
    assert first.read_bytes() == before
    assert len(before) < MAX_BYTES
    assert (tmp_path / "pictures" / "step-00000240-places.jpg").exists(), "noise fits no PNG"


@pytest.mark.slow
@pytest.mark.parametrize(("slug", "panels", "name"), [("mae", 3, "reconstructions"), ("droppos", 2, "positions")])
def test_a_run_on_images_draws_and_the_report_shows_it(slug: str, panels: int, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(16):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    sizes = {"method.image_size": 16, "method.hidden_size": 24, "method.num_layers": 1, "method.decoder_hidden_size": 24}
    more = {"batch": 8, "budget.steps": 6, "device": "cpu", "precision": "fp32", "image.size": 16, "image.held_out_share": 0.3}
    run = pretrain(slug, folder, out=tmp_path / "run", say=lambda line: None, **sizes, **more, **{"trainer.evaluate_every": 2}).folder
    shown, left_out = run_pictures(run)
    assert left_out == []
    assert {picture.name for picture in shown} == {name}
    assert shown[0].width == panels * 16 * 6
    assert shown[0].caption.startswith("Left: ")
    facts = dict(read_section(Followed(run), "photos", "photos").facts)
    assert facts["Images"].startswith("48")
    assert facts["Data"].endswith(" images")
    assert "Tokens" not in facts
