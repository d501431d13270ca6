"""`embed`: vectors in the order of the records, neighbours by cosine, a picture of images, lines of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import form_of
from headstart.data.image.head import decode_records
from headstart.data.permute import draw
from headstart.verbs.embed import collapsed, embed, nearest
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, headstart


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures: six shades, each twice with a little noise."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = np.clip(random.normal(20 + 40 * (number // 2), 2, (24, 24, 3)), 0, 255).astype(np.uint8)
        pixels[:, : 2 + 3 * (number // 2)] //= 2  # the six also differ in a dark stripe
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def vision_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes: dict[str, Any] = {"method.image_size": 16, "method.hidden_size": 24, "method.num_layers": 1, "method.decoder_hidden_size": 24}
    more = {"batch": 8, "budget.steps": 4, "device": "cpu", "precision": "fp32", "image.size": 16, "image.held_out_share": 0.2}
    out = tmp_path_factory.mktemp("runs") / "mae"
    return pretrain("mae", photos, out=out, say=lambda line: None, **sizes, **more).folder


def test_the_nearest_are_found_by_cosine_and_nobody_is_his_own_neighbour() -> None:
    vectors = np.array([[1, 0], [10, 1], [0, 1], [-1, 0]], np.float32)
    (row, others), = nearest(vectors, [0], 2)
    assert row == 0
    assert [index for index, _ in others] == [1, 2]
    assert others[0][1] == pytest.approx(10 / 101**0.5)
    assert nearest(vectors[:1], [0], 5) == [(0, [])]
    assert draw(10, 3, seed=1).tolist() == draw(10, 3, seed=1).tolist()
    assert len(set(draw(10, 30, seed=1))) == 10


@pytest.mark.slow
def test_images_get_vectors_and_a_picture_of_neighbours(vision_run: Path, photos: Path, tmp_path: Path) -> None:
    found = embed(vision_run, [photos], out=tmp_path / "out", shown=4, neighbours=2, say=lambda line: None)
    assert [Path(name).name for name in found.names] == [f"{number:02d}.png" for number in range(12)]
    assert np.array_equal(np.load(tmp_path / "out" / "vectors.npy", allow_pickle=False), found.vectors)
    assert found.vectors.shape == (12, 24)
    for index, others in found.neighbours:
        assert others[0][0] == index ^ 1, "the same shade is nearest"
    with Image.open(tmp_path / "out" / "neighbours.png") as sheet:
        assert sheet.size == (3 * 50, 4 * 50)
    lines = [json.loads(line) for line in (tmp_path / "out" / "neighbours.jsonl").read_text().splitlines()]
    assert [len(line["neighbours"]) for line in lines] == [2] * 4
    again = embed(vision_run, [photos / "03.png"], out=tmp_path / "one", say=lambda line: None)
    assert np.allclose(again.vectors[0], found.vectors[3], atol=1e-5)
    assert not (tmp_path / "one" / "neighbours.png").exists(), "one record has no neighbours"
    with pytest.raises(UsageError, match=r"one holds vectors with other settings \(data: "):
        embed(vision_run, [photos], out=tmp_path / "one", say=lambda line: None)
    (tmp_path / "one" / "neighbours.png").write_bytes(b"of neighbours that went")
    embed(vision_run, [photos / "03.png"], out=tmp_path / "one", say=lambda line: None)
    assert not (tmp_path / "one" / "neighbours.png").exists()


@pytest.mark.slow
def test_texts_get_vectors_and_lines(trained: Path, tmp_path: Path) -> None:
    data = tmp_path / "notes.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("the cook sails", "the sailor cooks", "a sound in the small \x1b[31mnew")))
    done = headstart("embed", trained, "--data", data, "--out", tmp_path / "out", "--shown", "2", "--neighbours", "1", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["vectors"] == [3, TINY["method.hidden_size"]]
    assert len(printed["neighbours"]) == 2
    assert "document 1: the cook sails" in done.stderr or "document 2" in done.stderr
    assert "\x1b" not in done.stderr


def test_what_cannot_be_embedded_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="No data is given"):
        embed(trained, [], out=tmp_path / "out")
    with pytest.raises(UsageError, match="names a file; embed writes a folder"):
        embed(trained, [tmp_path], out=tmp_path / "vectors.npy")
    with pytest.raises(UsageError, match="--shown is 0"):
        embed(trained, ["x"], out=tmp_path / "out", shown=0)
    for one_or_several in ([tmp_path / "nothing.txt"], str(tmp_path / "nothing.txt")):
        with pytest.raises(BadInput, match=r"nothing\.txt: does not exist"):
            embed(trained, one_or_several, out=tmp_path / "out")
    (tmp_path / "empty.txt").touch()
    assert main(["embed", str(trained), "--data", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.endswith("empty.txt: is empty.\nRemove it, or copy it again if the copy was cut off.\n"), "no flag of pretrain"
    grey, colour = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(BadInput, match="Give images as the network learned from: 1 x 8 x 8 uint8, grey"):
        decode_records([colour], form_of(grey, ImageConfig(size=8)))
    assert not (tmp_path / "out").exists()
    assert headstart("embed", tmp_path, "--data", "x").returncode == 3


def test_vectors_that_all_point_the_same_way_are_called_so(trained: Path, tmp_path: Path) -> None:
    """Their cosines are all 1, and the first of the file looked like everybody's nearest. Another field of the texts may be named."""
    directions = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32) * np.arange(1, 6, dtype=np.float32)[:, None]
    assert collapsed(directions)
    assert collapsed(np.zeros((3, 8), np.float32))
    assert not collapsed(directions[:1])
    assert not collapsed(np.concatenate([directions, directions[:1] + 0.1 * np.eye(8, dtype=np.float32)[:1]]))
    (tmp_path / "alike.jsonl").write_text('{"body": "Returns the sum of two numbers."}\n' * 3)
    said: list[str] = []
    found = embed(trained, tmp_path / "alike.jsonl", out=tmp_path / "out", text_field="body", say=said.append)
    assert len(found.vectors) == 3
    assert any(line.startswith("WARNING: all 3 vectors point the same way: every cosine is 1") for line in said)


def test_errors_of_embed_in_python_name_what_it_takes(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n')
    with pytest.raises(BadInput, match=r"has no field 'text'.*\nName the field that holds the text with --text-field\.$"):
        embed(trained, tmp_path / "a.jsonl", out=tmp_path / "out")
