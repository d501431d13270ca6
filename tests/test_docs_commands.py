"""Every command of README and docs runs, on small data: placeholders become a tiny corpus, budgets a few steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.corpus import labelled, write_corpus, write_jsonl
from tests.running import TINY, flags, headstart, torchrun

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"```(?:bash|sh)?\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(headstart [^`]+)`")
SMALL = TINY | {"budget.steps": 6}


def commands(page: Path) -> list[str]:
    """The lines that begin with `headstart` or `torchrun`, in fences and inline; those with an elision or a placeholder in capitals are none."""
    text = page.read_text(encoding="utf-8")
    found = [line.split("  #")[0].strip() for block in FENCE.findall(text) for line in block.splitlines()]
    found += [match.strip() for match in INLINE.findall(text)]
    begin = ("headstart ", "torchrun ")
    runnable = [line for line in found if line.startswith(begin) and "..." not in line and not re.search(r"\b[A-Z_]{4,}\b(?!\])", line)]
    return [line for line in runnable if len(line.split()) > 2 or line.split()[1] in ("list", "doctor")]


def small(command: str) -> list[str]:
    """The same command on small data, from its verb on."""
    words = shlex.split(command)
    words = words[words.index("headstart") + 1 :]
    if words[0] == "pretrain" and len(words) > 2:
        kept: list[str] = []
        skip = False
        for word in words:
            if not skip and not word.startswith("--budget."):
                kept.append(word)
            skip = word.startswith("--budget.")
        words = kept + flags(SMALL)
    if words[0] == "finetune":
        words += ["--epochs", "1", "--device", "cpu", "--max-length", "32"]
    return words


def test_pages_have_commands() -> None:
    """The test below would pass on pages whose commands it cannot find."""
    assert sum(len(commands(page)) for page in PAGES) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "my" / "texts")
    write_corpus(tmp_path / "texts")
    write_jsonl(tmp_path / "old.jsonl", [{"text": r["text"]} for r in labelled(200, 1)])
    write_jsonl(tmp_path / "new.jsonl", [{"text": r["text"]} for r in labelled(200, 2)])
    for name, seed in (("train", 3), ("test", 4)):
        records = labelled(32, seed)
        write_jsonl(tmp_path / f"{name}.jsonl", records)
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in records))
    seen: set[tuple[str, ...]] = set()
    for command in commands(page):
        words = small(command)
        if tuple(words) in seen:
            continue
        seen.add(tuple(words))
        done = torchrun(2, "headstart", *words, cwd=tmp_path) if command.startswith("torchrun") else headstart(*words, cwd=tmp_path)
        assert done.returncode == 0, f"{page.name}: {command}\n{' '.join(words)}\n{done.stdout[-800:]}\n{done.stderr[-1500:]}"
