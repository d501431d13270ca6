"""The table of a claim on its method's page: what an undecided verdict means, what was measured beside, and which of several claims it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.pages import methods


def result(slug: str, **more: Any) -> dict[str, Any]:
    arms = [{"arm": arm, "runs": [{"metric": metric, "train_flops": 0.0} for metric in (0.7, 0.9)]} for arm in ("a", "b")]
    comparison: dict[str, Any] = {"a": "a", "b": "b", "difference": 0.01, "ci95": [-0.02, 0.04], "seeds": 2}
    comparison |= {"verdict": "inconclusive", "why": "too few to tell 5.0 points"}
    found = {"slug": slug, "of": ["electra"], "preset": "cpu", "metric": "accuracy", "data": {"name": "reviews"}, "arms": arms, "date": "2026-11-27"}
    return found | {"comparisons": [comparison | more.pop("compared", {})], "command": f"headstart claim {slug}"} | more


def test_a_verdict_says_why_and_the_figures_beside_it_are_shown() -> None:
    table = methods.result_table(result("electra", anchors={"formulas, imgmath (38)": {"a": 1.0, "b": 0.0}, "chance": 0.5}, notes=["A sentence."]))
    assert "- a - b: +1.0 points (95 % interval -2.0 to +4.0, 2 seeds): **inconclusive** (too few to tell 5.0 points)" in table
    assert "Beside it, without a verdict:\n\n- formulas, imgmath (38): a 100.0 %, b 0.0 %\n- chance: 50.0 %\n- A sentence." in table
    assert "Beside it" not in methods.result_table(result("electra"))
    decided = methods.result_table(result("electra", compared={"verdict": "reproduced", "why": ""}))
    assert "**reproduced**\n" in decided


def test_claims_of_one_page_are_told_apart_and_pages_are_no_seeds(tmp_path: Path) -> None:
    (tmp_path / "electra-cpu.json").write_text(json.dumps(result("electra")))
    assert "**Preset `cpu`**" in methods.claim_block("electra", tmp_path)
    (tmp_path / "electra_pages-cpu.json").write_text(json.dumps(result("electra_pages", compared={"paired_by": "page"})))
    block = methods.claim_block("electra", tmp_path)
    assert "**`electra`, preset `cpu`**\n\n| arm | accuracy | training FLOPs | seeds |" in block
    assert "**`electra_pages`, preset `cpu`**\n\n| arm | accuracy | training FLOPs | pages |" in block
