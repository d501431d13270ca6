"""safetensors files have the rights of every other file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headstart.core.tensor_files import open_to_others, save_tensors
from tests.running import environment

SOURCE = Path(__file__).parents[2] / "src" / "headstart"


def rights(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("tensors", [{"a": torch.arange(3.0)}, {"a": np.arange(3, dtype=np.float32)}, {}], ids=["torch", "numpy", "none"])
def test_a_file_of_tensors_has_the_rights_of_a_new_file(tensors: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_tensors(tensors, tmp_path / "a.safetensors", {"what": "test"})
    assert rights(tmp_path / "a.safetensors") == rights(tmp_path / "plain")
    assert {name: value.tolist() for name, value in load_file(tmp_path / "a.safetensors").items()} == {name: [0, 1, 2] for name in tensors}


@pytest.mark.parametrize(("umask", "expected"), [("022", 0o644), ("027", 0o640), ("077", 0o600)])
def test_the_umask_of_the_person_decides(umask: str, expected: int, tmp_path: Path) -> None:
    code = "import numpy as np; from headstart.core.tensor_files import save_tensors; save_tensors({'a': np.zeros(1)}, 'a.safetensors')"
    command = ["sh", "-c", f'umask {umask}; exec "$0" -c "$1"', sys.executable, code]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True)
    assert rights(tmp_path / "a.safetensors") == expected


def test_a_folder_that_a_library_wrote_is_opened_whole(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    os.close(os.open(tmp_path / "w.safetensors", os.O_CREAT, 0o600))
    (tmp_path / "inner").mkdir()
    open_to_others(tmp_path)
    assert rights(tmp_path / "w.safetensors") == rights(tmp_path / "plain")


def test_nothing_else_writes_safetensors() -> None:
    written = re.compile(r"import (load_file, )?save_file|\bsave_file\(")
    assert [path.name for path in SOURCE.rglob("*.py") if written.search(path.read_text())] == ["tensor_files.py"]
