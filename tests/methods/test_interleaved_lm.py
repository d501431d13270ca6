"""interleaved-lm as a run: exact resume, features once, stages that continue each other, other towers, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, CLIPConfig, ConvNextConfig, Dinov2Config, SiglipConfig, ViTConfig

from headstart import methods
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import write_json
from headstart.interop.vision_tower import PREPROCESSOR, load_vision_tower, preprocessor
from headstart.methods.interleaved_lm.features import FeatureRows
from headstart.methods.interleaved_lm.network import read_interleaved
from headstart.verbs.peek import lines as peek_lines
from headstart.verbs.peek import peek
from headstart.verbs.pretrain import Run, pretrain
from headstart.verbs.sample import load_run
from tests.data.interleaved.conftest import write_lines
from tests.interleaved import TINY, write_pages, write_tower
from tests.running import records, run_info, torchrun, untimed

SHORT: dict[str, Any] = {
    "budget.steps": 6,
    "trainer.checkpoint_every": 3,
    "trainer.log_every": 1,
    "trainer.evaluate_every": 3,
    "trainer.evaluate_rows": 8,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/pages.jsonl and a tower."""
    folder = tmp_path_factory.mktemp("interleaved")
    write_pages(folder / "data")
    write_tower(folder / "tower")
    return folder


def settings(place: Path, **more: Any) -> dict[str, Any]:
    return TINY | SHORT | {"method.vision_tower": str(place / "tower")} | more


def trained(place: Path, out: Path, **more: Any) -> Run:
    return pretrain("interleaved-lm", place / "data" / "pages.jsonl", out=out, say=lambda line: None, **settings(place, **more))


@pytest.fixture(scope="module")
def whole(place: Path) -> Run:
    return trained(place, place / "whole")


def test_a_run_that_was_killed_goes_on_bit_for_bit(place: Path, whole: Run, tmp_path: Path) -> None:
    half = trained(place, tmp_path / "half", **{"trainer.stop_at": 3})
    assert half.info["status"] == "stopped"
    again = trained(place, tmp_path / "half")
    assert again.info["resumed_at"] == 3
    assert untimed(records(whole.folder, "metrics")) == untimed(records(again.folder, "metrics"))
    for path in sorted(whole.export.rglob("*.safetensors")):
        assert path.read_bytes() == (again.export / path.relative_to(whole.export)).read_bytes()


def test_features_are_computed_once_and_are_those_of_the_tower(place: Path, whole: Run, tmp_path: Path) -> None:
    (features,) = (Path(whole.info["data"][0]["store"]) / "features").glob("*/features.npy")
    method, store, _ = load_run(whole.folder)
    (rows,) = method.training_rows([method.rows(store, method.config)])
    assert isinstance(rows, FeatureRows)
    with torch.no_grad():
        seen = method.network.tower(torch.from_numpy(method.store.images.read(np.arange(len(method.store.images)))))
    np.testing.assert_allclose(np.load(features), seen.numpy(), atol=2e-3)
    made = features.stat().st_mtime_ns
    trained(place, tmp_path / "other", seed=1)
    assert features.stat().st_mtime_ns == made
    live = trained(place, tmp_path / "live", **{"method.cache_features": "off"})
    pairs = zip(records(whole.folder, "metrics"), records(live.folder, "metrics"), strict=True)
    assert all(kept["loss"] == pytest.approx(computed["loss"], abs=2e-3) for kept, computed in pairs)


def test_the_export_is_the_fields_own_and_answers_like_the_method(whole: Run, place: Path) -> None:
    language = AutoModelForCausalLM.from_pretrained(whole.export)
    tower = AutoModel.from_pretrained(whole.export / "vision_tower")
    assert tower.config.model_type == "siglip_vision_model"
    method, _, _ = load_run(whole.folder)
    assert torch.equal(language.get_output_embeddings().weight, method.network.model.get_output_embeddings().weight)
    reader = read_interleaved(whole.export)
    batch = reader.batch("one <image> two", [place / "data" / "0.png"])
    torch.testing.assert_close(reader.network.hidden_states(batch), method.eval().hidden_states(batch))
    other = reader.batch("one <image> two", [place / "data" / "1.png"])
    difference = (reader.network.hidden_states(batch) - reader.network.hidden_states(other)).abs().amax(-1)[0]
    first = int((batch["image_slots"][0] > 0).nonzero()[0])
    assert (difference[:first] == 0).all(), "what stands before an image knows nothing of it"
    assert (difference[first:] > 0).all(), "what stands after it does"
    assert isinstance(reader.answer("what is <image> ?", [place / "data" / "0.png"], max_new_tokens=3), str)
    with pytest.raises(UsageError, match="2 markers <image> for 1 images"):
        reader.batch("<image> <image>", [place / "data" / "0.png"])
    described = json.loads((whole.export / "resampler" / "config.json").read_text())
    assert (described["latents"], described["depth"], described["output_dim"]) == (4, 1, 32)


def test_three_stages_continue_each_other_from_any_language_model(place: Path, tmp_path: Path) -> None:
    """A causal-lm folder first; what it decides is taken from it, and the tower's from the export before."""
    texts = write_lines(tmp_path / "texts.jsonl", [{"text": f"the sum of {n} and {n} is {2 * n}"} for n in range(60)])
    sizes = {name: value for name, value in TINY.items() if name.startswith("method.") and "latents" not in name and "resampler" not in name}
    quiet: dict[str, Any] = {"say": lambda line: None}
    of_text = {"batch": 8, "device": "cpu", "precision": "fp32", "budget.steps": 2, "text.vocab_size": 300, "text.tokenizer_kind": "bpe"}
    language = pretrain("causal-lm", texts, out=tmp_path / "language", **quiet, **sizes, **of_text)
    decided = ("method.hidden", "method.num", "method.inter", "interleaved.vocab", "interleaved.image_size")  # by the models
    kept = {name: value for name, value in (TINY | SHORT).items() if not name.startswith(decided)}
    asked = [{"images": [f"{n % 12}.png"], "question": "what is <image> ?", "answer": f"number {n % 12}"} for n in range(40)]
    write_lines(place / "data" / "asked.jsonl", asked)
    before, tower = language.folder, {"method.vision_tower": str(place / "tower")}
    for stage, data in (("alignment", "pages.jsonl"), ("continued", "pages.jsonl"), ("instruction", "asked.jsonl")):
        given = kept | tower | {"init": before, "method.stage": stage, "budget.steps": 3}
        run = pretrain("interleaved-lm", place / "data" / data, out=tmp_path / stage, **quiet, **given)
        assert run.info["config"]["interleaved"]["image_size"] == 8
        first, last = (load_file(folder / "model.safetensors") for folder in (before / "export", run.export))
        assert all(torch.equal(first[name], last[name]) for name in first) == (stage == "alignment")
        assert [line["phase"] for line in records(run.folder, "metrics")] == [stage] * 3
        before, tower = run.folder, {}
        kept = {name: value for name, value in kept.items() if name not in ("method.latents", "method.resampler_layers")}


def grey_digits(folder: Path) -> Path:
    folder.mkdir()
    records = []
    for n in range(30):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{n}.png")
        records.append({"image": f"{n}.png", "caption": f"this is number {n}"})
    return write_lines(folder / "pairs.jsonl", records)


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
TOWERS = {
    "convnext, grey": (ConvNextConfig(num_channels=1, patch_size=2, num_stages=1, hidden_sizes=[32], depths=[1], image_size=8), 16),
    "vit": (ViTConfig(**SIZES), 5),
    "dinov2": (Dinov2Config(**{name: value for name, value in SIZES.items() if name != "intermediate_size"}), 5),
    "siglip, both halves": (SiglipConfig(vision_config=SIZES, text_config=TEXT), 4),
    "clip, both halves": (CLIPConfig(vision_config=SIZES, text_config=TEXT), 5),
}


@pytest.mark.parametrize("name", TOWERS)
def test_any_tower_of_transformers_sees(name: str, tmp_path: Path) -> None:
    config, patches = TOWERS[name]
    AutoModel.from_config(config).save_pretrained(tmp_path / "tower")
    channels = getattr(config, "num_channels", 3)
    write_json(tmp_path / "tower" / PREPROCESSOR, preprocessor(8, [0.4] * channels, [0.2] * channels))
    tower = load_vision_tower(tmp_path / "tower")
    pixels = torch.randint(0, 256, (3, channels, 8, 8), dtype=torch.uint8)
    features = tower(pixels)
    assert features.shape == (3, patches, 32)
    assert not torch.equal(features[0], features[1])
    torch.testing.assert_close(tower.mean, torch.full((channels,), 0.4 * 255))
    tower.save(tmp_path / "again")
    torch.testing.assert_close(load_vision_tower(tmp_path / "again")(pixels), features)
    assert load_vision_tower(tmp_path / "again").identity() == tower.identity()
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.slow
def test_grey_images_go_through_a_convolutional_tower(tmp_path: Path) -> None:
    AutoModel.from_config(TOWERS["convnext, grey"][0]).save_pretrained(tmp_path / "tower")
    write_json(tmp_path / "tower" / PREPROCESSOR, preprocessor(8, [0.5], [0.25]))
    given = settings(tmp_path) | {"interleaved.image_mode": "grey", "method.pack": False, "method.sequence_length": 32}
    run = pretrain("interleaved-lm", grey_digits(tmp_path / "data"), out=tmp_path / "run", say=lambda line: None, **given)
    assert run.info["status"] == "done"
    with pytest.raises(UsageError, match="have 3 channels, the vision tower sees 1"):
        pretrain("interleaved-lm", tmp_path / "data" / "pairs.jsonl", out=tmp_path / "rgb", **given | {"interleaved.image_mode": "rgb"})


def test_what_cannot_be_is_refused_before_anything_is_trained(place: Path, whole: Run, tmp_path: Path) -> None:
    data = place / "data" / "pages.jsonl"
    quiet: dict[str, Any] = {"say": lambda line: None}
    with pytest.raises(UsageError, match="no vision tower") as caught:
        pretrain("interleaved-lm", data, out=tmp_path / "a", **quiet, **TINY | SHORT)
    assert "--method.vision-tower FOLDER" in caught.value.mend
    with pytest.raises(UsageError, match="hold no answers"):
        trained(place, tmp_path / "b", **{"method.stage": "instruction"})
    with pytest.raises(UsageError, match="do not fit into a row"):
        trained(place, tmp_path / "c", **{"method.latents": 64})
    with pytest.raises(UsageError, match="have 4 pixels a side, the vision tower sees 8"):
        trained(place, tmp_path / "d", **{"interleaved.image_size": 4})
    shutil.copytree(place / "tower", tmp_path / "tower")
    (tmp_path / "tower" / PREPROCESSOR).unlink()
    with pytest.raises(BadInput, match="how pixels are scaled is not known"):
        trained(place, tmp_path / "e", **{"method.vision_tower": str(tmp_path / "tower")})
    with pytest.raises(BadInput, match="sees no pictures"):
        trained(place, tmp_path / "f", **{"method.vision_tower": str(whole.export)})
    with pytest.raises(UsageError, match=r"--method\.latents 8 was given, the model has 4"):
        pretrain("interleaved-lm", data, out=tmp_path / "g", init=whole.folder, **quiet, **TINY | SHORT | {"method.latents": 8})
    damaged = tmp_path / "damaged"
    shutil.copytree(whole.export, damaged)
    (damaged / "resampler" / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(BadInput, match="resampler"):
        read_interleaved(damaged)
    assert not any((tmp_path / name).exists() and (tmp_path / name / "checkpoints").is_dir() for name in "abcdefg")


def test_a_store_and_a_run_can_be_looked_at(whole: Run) -> None:
    told = "\n".join(peek_lines(peek(whole.folder)))
    assert "[image " in told or "document" in told
    assert "images in their places" in told
    samples = records(whole.folder, "samples")
    assert samples
    assert any(">>>" in line for line in samples[0]["lines"])
    assert run_info(whole.folder)["data"][0]["arrays_sha256"]["images"]


def test_smoke_trains_on_copies_of_the_first_documents(place: Path, tmp_path: Path) -> None:
    run = trained(place, tmp_path / "run", smoke=True)
    assert run.info["status"] == "done"
    store = methods.load("interleaved-lm").open_store(Path(run.info["data"][0]["store"]))
    assert store.manifest["counts"]["placed_images"] > 0
    assert store.manifest["counts"]["missing_images"] == 0


@pytest.mark.slow
def test_two_processes_compute_what_one_does(place: Path, tmp_path: Path) -> None:
    """Also where a process has rows without images while the other has some: every fourth document is text alone, and a row is one document."""
    data = str(place / "data" / "pages.jsonl")
    given = settings(place) | {"method.pack": False, "trainer.micro_batch": 2, "budget.steps": 3}
    ways = {"ddp": {"method.cache_features": "off"}, "fsdp": {"method.cache_features": "on"}, "fsdp-pixels": {"method.cache_features": "off"}}
    given |= {"slug": "interleaved-lm", "data": data}
    plan = [{"out": str(tmp_path / way), **given, "trainer.parallel": way.split("-")[0], **more} for way, more in ways.items()]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = torchrun(2, "tests.distributed.runs", tmp_path / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    for way, more in ways.items():
        alone = pretrain(out=tmp_path / f"{way}-alone", say=lambda line: None, **given | more)
        pairs = list(zip(records(alone.folder, "metrics"), records(tmp_path / way, "metrics"), strict=True))
        assert len(pairs) == 3
        assert all(one["loss"] == pytest.approx(two["loss"], rel=1e-4) for one, two in pairs), way
