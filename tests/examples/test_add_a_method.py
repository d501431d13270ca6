"""docs/guides/add-a-method.md, done as it says: the example's two files go into a copy of the package, and the command line knows the method."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from tests.running import SOURCE, environment, records, run_info

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "add_a_method"
SIZE = ("--method.hidden-size", "32", "--method.num-layers", "1", "--method.sequence-length", "32", "--text.vocab-size", "300", "--batch", "8")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the method in it: its module under methods/, its card in the catalog, nothing else."""
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(SOURCE / "headstart", copy / "headstart", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE / "rts.py", copy / "headstart" / "methods" / "rts.py")
    card = (EXAMPLE / "card.py").read_text().split("CARD = ")[1].rstrip()
    catalog = copy / "headstart" / "catalog" / "language.py"
    begin = "LANGUAGE_CARDS: tuple[Card, ...] = (\n"
    assert begin in catalog.read_text()
    catalog.write_text(catalog.read_text().replace(begin, f"{begin}    {card},\n"))
    return copy


def run(house: Path, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", "headstart", *map(str, arguments)]
    place = environment() | {"PYTHONPATH": os.pathsep.join([str(house), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, env=place, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_short() -> None:
    assert len((EXAMPLE / "rts.py").read_text().splitlines()) < 80


def test_the_catalog_finds_it(house: Path) -> None:
    assert "rts\tyes\ttext" in run(house, "list")
    assert "headstart.methods.rts" in run(house, "show", "rts")


@pytest.mark.slow
def test_it_trains_exports_and_reloads(house: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "rts"
    evaluations = ("--trainer.evaluate-every", "20", "--trainer.log-every", "10", "--device", "cpu", "--precision", "fp32")
    printed = run(house, "pretrain", "rts", "--data", store, "--out", out, "--budget.steps", "200", *SIZE, *evaluations)
    assert "reload and export passed" in printed
    assert run_info(out)["status"] == "done"
    held_out = [line["value"] for line in records(out, "probes") if line["probe"] == "held_out/loss"]
    assert held_out[-1] < 0.9 * held_out[0], "it learns to tell a random token from the original"
    share = [line["replaced_share"] for line in records(out, "metrics")]
    assert 0.08 < sum(share) / len(share) < 0.16
    encoder = AutoModel.from_pretrained(out / "export")
    ids = torch.arange(5, 21)[None]
    assert encoder(ids).last_hidden_state.shape == (1, 16, 32)
    continued = run(house, "pretrain", "rts", "--data", store, "--init", out, "--out", tmp_path / "more", "--budget.steps", "4", *SIZE, *evaluations)
    assert "Done: 4 steps" in continued
