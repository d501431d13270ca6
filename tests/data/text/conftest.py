"""A small real corpus that every Python has: the docstrings of its standard library."""

import json
import random
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart.data.text.builtin import docstrings
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """About 400 kB of English prose with markup, some 100 documents."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = docstrings(path.read_bytes())
        if len(text) > 300:
            found.append(text[:12_000])
    return found[:120]


@pytest.fixture(scope="session")
def corpus(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", documents)


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    """WordPiece, 1000 entries."""
    return prepare_text([corpus], tmp_path_factory.mktemp("store") / "store", TextConfig(vocab_size=1000, held_out_share=0.1))


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def many_documents(n: int, seed: int = 0) -> list[str]:
    """Documents of random words, no two alike, about 2 kB each."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(2000)]
    return ["\n".join(" ".join(draw.choices(words, k=12)) + "." for _ in range(draw.randint(10, 40))) for _ in range(n)]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a store by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
