"""Every claim's smoke preset runs whole on a CPU without the data: CI's proof that a claim is no dead text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headstart.claims import _run, claim_names
from headstart.cli.main import main

CALLS = re.compile(r"""\b(?:claim|command)\("(\w+)", (?:"--preset", )?"smoke",""")
OWN = {slug for file in Path(__file__).parent.glob("test_*.py") for slug in CALLS.findall(file.read_text())}
"""Claims whose own test runs it, and looks closer."""


@pytest.mark.slow
@pytest.mark.parametrize("slug", [slug for slug in claim_names() if slug not in OWN])
def test_smoke(slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    result = _run.claim(slug, "smoke", out=tmp_path / slug, device="cpu", say=lambda line: None)
    assert (result["slug"], result["preset"]) == (slug, "smoke")
    assert result["verdict"] in {"confirmed", "refuted", "inconclusive"}
    assert json.loads((tmp_path / slug / "result.json").read_text())["comparisons"] == result["comparisons"]


def test_the_claims_with_a_test_of_their_own_are_found() -> None:
    assert OWN.issuperset({"electra", "rewarm", "webmath_extraction"})
    assert OWN.issubset(claim_names())


def test_all_runs_every_claim_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def noted(slug: str, preset: str, **settings: Any) -> dict[str, Any]:
        return {"slug": slug, "preset": preset}

    monkeypatch.setattr(_run, "claim", noted)
    assert main(["claim", "--all", "--preset", "smoke", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"slug": slug, "preset": "smoke"} for slug in claim_names()]
