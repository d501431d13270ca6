"""Self-distillation as a person runs it: one command, after the run whose model it continues."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from headstart.core.errors import UsageError
from headstart.verbs.pretrain import pretrain
from tests.corpus import write_corpus
from tests.running import TINY, records, run_info, torchrun

IMAGES: dict[str, Any] = {
    "device": "cpu", "precision": "fp32", "batch": 8, "budget.steps": 8, "image.size": 16, "image.held_out_share": 0.2, "method.image_size": 16,
    "method.patch_size": 4, "method.hidden_size": 32, "method.num_layers": 1, "method.num_heads": 2, "method.decoder_hidden_size": 16,
    "method.decoder_layers": 1, "method.decoder_heads": 2, "method.crop_smallest": 1.0, "method.flip": 0.0, "trainer.log_every": 1,
    "trainer.evaluate_every": 2, "trainer.checkpoint_every": 2, "schedule.warmup_share": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(file, images=np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8))
    return file


@pytest.fixture(scope="module")
def initial(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "initial"
    pretrain("mae", images, out=out, say=lambda line: None, **IMAGES)
    return out


@pytest.mark.slow
def test_one_command_trains_teacher_and_student(images: Path, initial: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "run"
    done = pretrain("mae", images, out=out, init=initial, say=said.append, **IMAGES | {"self_distill.rounds": 1})
    lines = records(out, "metrics")
    assert [line["phase"] for line in lines] == ["teacher"] * 4 + ["student"] * 4
    assert [line["learning_rate"] for line in lines[:4]] == [line["learning_rate"] for line in lines[4:]]
    assert any("teacher 0-4, student 4-8" in line for line in said)
    assert any("features stored" in line for line in said)
    flops = run_info(out)["decisions"]["flops_per_step"]
    assert flops["student"] > 2 * flops["teacher"]
    assert done.info["totals"]["flops"] == 4 * (flops["teacher"] + flops["student"])
    probes = {(line["step"], line["probe"]): line["value"] for line in records(out, "probes")}
    assert probes[4, "moved"] > 0
    assert probes[8, "moved"] > 0
    assert probes[8, "held_out/distance"] > 0
    assert (4, "held_out/distance") not in probes
    AutoModel.from_pretrained(out / "export", add_pooling_layer=False)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4, 6])
def test_the_same_command_continues_bit_for_bit(stop: int, images: Path, initial: Path, tmp_path: Path) -> None:
    settings = IMAGES | {"self_distill.rounds": 1, "init": initial}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain("mae", images, out=whole, say=lambda line: None, **settings)
    pretrain("mae", images, out=parts, say=lambda line: None, **settings, **{"trainer.stop_at": stop})
    pretrain("mae", images, out=parts, say=lambda line: None, **settings)
    one, other = ([(line["loss"], line["gradient_norm"]) for line in records(folder, "metrics")] for folder in (whole, parts))
    assert one == other
    assert (whole / "export" / "model.safetensors").read_bytes() == (parts / "export" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_texts_are_distilled_by_their_first_token(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_corpus(corpus, 80)
    settings = TINY | {"budget.steps": 6, "trainer.log_every": 1}
    pretrain("mlm", corpus, out=tmp_path / "initial", say=lambda line: None, **settings)
    out = tmp_path / "run"
    pretrain("mlm", corpus, out=out, init=tmp_path / "initial", say=lambda line: None, **settings | {"self_distill.rounds": 1})
    lines = records(out, "metrics")
    assert [line["phase"] for line in lines] == ["teacher"] * 3 + ["student"] * 3
    assert all(line["distance"] >= 0 and line["objective"] > 0 for line in lines[3:])
    assert torch.isfinite(AutoModel.from_pretrained(out / "export").get_input_embeddings().weight).all()


def test_without_a_model_to_continue_it_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --init"):
        pretrain("mae", images, out=tmp_path / "run", say=lambda line: None, **IMAGES | {"self_distill.rounds": 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_give_the_run_of_one(images: Path, initial: Path, tmp_path: Path) -> None:
    """With every process whole (features stored), and with the weights cut over them (features in every step)."""
    settings = IMAGES | {"self_distill.rounds": 2, "budget.steps": 9, "self_distill.pull_weight": 1e-3}
    pretrain("mae", images, out=tmp_path / "one", init=initial, say=lambda line: None, **settings)
    plan = [
        {"slug": "mae", "data": str(images), "init": str(initial), "out": str(tmp_path / mode), "trainer.parallel": mode, **settings}
        for mode in ("ddp", "fsdp")
    ]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = torchrun(2, "tests.distributed.runs", tmp_path / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    alone = records(tmp_path / "one", "metrics")
    assert [line["phase"] for line in alone] == ["teacher"] * 3 + ["student"] * 3 + ["student 2"] * 3
    for mode in ("ddp", "fsdp"):
        lines = records(tmp_path / mode, "metrics")
        for name in ("loss", "distance", "pull", "gradient_norm", "learning_rate"):
            found, wanted = ([line[name] for line in side if name in line] for side in (lines, alone))
            assert found == pytest.approx(wanted, rel=2e-3, abs=1e-5), f"{mode}: {name}"


@pytest.mark.slow
def test_a_file_of_the_official_code_is_continued(images: Path, initial: Path, tmp_path: Path) -> None:
    """{'args', 'state_dict'}: an encoder without a decoder, which is trained first. A width that was never published needs its number of heads."""
    weights = load_file(initial / "export" / "model.safetensors")
    torch.save({"args": argparse.Namespace(lr=1.5e-4), "state_dict": weights}, tmp_path / "self-distill.pt")
    settings = IMAGES | {"self_distill.rounds": 1, "self_distill.decoder_steps": 2, "init": tmp_path / "self-distill.pt"}
    pretrain("mae", images, out=tmp_path / "run", say=lambda line: None, **settings)
    assert [line["phase"] for line in records(tmp_path / "run", "metrics")] == ["decoder"] * 2 + ["teacher"] * 3 + ["student"] * 3
