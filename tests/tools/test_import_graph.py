"""tools/import_graph.py: the picture in docs/architecture.md is what the code imports, and no import goes up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "import_graph.py"


def import_graph(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), "--root", str(root), *arguments], capture_output=True, text=True, timeout=240)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A checkout of three heights: cli above engine, engine above data and core side by side."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\n[[tool.importlinter.contracts]]\ntype = "layers"\n'
        'layers = ["headstart.cli", "(headstart.engine)", "headstart.data | headstart.core"]\n'
    )
    sources = {
        "__init__.py": "",
        "__main__.py": "from headstart.cli.main import main",
        "cli/__init__.py": "",
        "cli/main.py": "import headstart.engine.trainer\nfrom headstart import data",
        "engine/__init__.py": "",
        "engine/trainer.py": "def fit():\n    from headstart.data.loader import Loader",
        "data/__init__.py": "from .loader import Loader",
        "data/loader.py": "class Loader: ...",
        "core/__init__.py": "",
    }
    for name, text in sources.items():
        write(tmp_path, name, text)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "architecture.md").write_text(
        "before\n<!-- import graph: begin (python tools/import_graph.py) -->\nold\n<!-- import graph: end -->\nafter\n"
    )
    return tmp_path


def write(house: Path, name: str, text: str) -> None:
    path = house / "src" / "headstart" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_picture_of_this_house_is_fresh_and_no_import_goes_up() -> None:
    done = import_graph("--check")
    assert done.returncode == 0, done.stderr


def test_check_changes_nothing_and_tells_a_stale_picture(house: Path) -> None:
    page = house / "docs" / "architecture.md"
    before = page.read_text()
    done = import_graph("--check", root=house)
    assert done.returncode == 1
    assert "is stale" in done.stderr
    assert page.read_text() == before


def test_rewriting_replaces_the_block_only_and_satisfies_the_check(house: Path) -> None:
    assert import_graph(root=house).returncode == 0
    text = (house / "docs" / "architecture.md").read_text()
    assert text.startswith("before\n<!-- import graph: begin")
    assert text.endswith("<!-- import graph: end -->\nafter\n")
    assert "old" not in text
    assert import_graph("--check", root=house).returncode == 0


def test_implied_arrows_are_in_the_table_but_not_in_the_picture(house: Path) -> None:
    import_graph(root=house)
    text = (house / "docs" / "architecture.md").read_text()
    assert "cli --> engine" in text
    assert "engine --> data" in text  # an import inside a function counts
    assert "cli --> data" not in text
    assert "| `cli` | `engine`, `data` |" in text
    assert "| `core` | nothing of ours |" in text


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("data/loader.py", "from headstart.engine import trainer", "data imports engine, which is above it"),
        ("data/loader.py", "from ..engine.trainer import fit", "data imports engine, which is above it"),
        ("data/loader.py", "import headstart.core", "data imports core, which is beside it"),
        ("attic/__init__.py", "", "attic is no floor"),
    ],
)
def test_an_import_that_does_not_go_down_is_named_with_file_and_line(house: Path, name: str, line: str, complaint: str) -> None:
    import_graph(root=house)
    write(house, name, line)
    done = import_graph("--check", root=house)
    assert done.returncode == 1
    assert f"headstart/{name}:1: {complaint}" in done.stderr


def test_a_page_without_markers_is_refused(house: Path) -> None:
    (house / "docs" / "architecture.md").write_text("no markers")
    done = import_graph(root=house)
    assert done.returncode == 1
    assert "has no block" in done.stderr
