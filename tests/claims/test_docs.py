"""The claim on docs/claims.md is one: it is written into a file and run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from headstart.claims._run import claim
from tests.corpus import documents, labelled, write_jsonl

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "example.py"
    file.write_text(source)
    topics = tmp_path / "topics"
    topics.mkdir()
    (topics / "corpus.txt").write_text("\n\n".join(documents(120)), encoding="utf-8")
    for seed, name in enumerate(("train", "dev", "test")):
        write_jsonl(topics / f"{name}.jsonl", labelled(40, seed + 1))
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    specification = importlib.util.spec_from_file_location("example", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "example", module)
    specification.loader.exec_module(module)
    said: list[str] = []
    result = claim(module.CLAIM, "smoke", out=tmp_path / "out", device="cpu", say=said.append)
    assert [arm["arm"] for arm in result["arms"]] == ["causal", "masked", "none"]
    assert result["comparisons"][0]["margin"] == 0.01
    assert result["leaks"][0].startswith("topics: ")
    assert said[-1].startswith("Inconclusive: the claim of causal-lm at preset smoke")
