"""The companion of the claim of implicit bias on real text: two rates, one loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.claims import _continual
from headstart.claims._run import claim
from headstart.claims.implicit_bias_text import CLAIM, HIGH, LOW, cut
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text


def test_the_rates_differ_and_the_length_of_the_lower_one_is_what_is_tried() -> None:
    scale = CLAIM.scale("cpu")
    high, low = scale.arms
    assert (high.name, low.name) == (HIGH, LOW)
    assert low.learning_rate == high.learning_rate / 4  # type: ignore[operator]
    assert low.variants_by == "every seed"
    for variant in low.variants:
        assert {**variant.settings, "budget.steps": 0} == {**high.settings, "budget.steps": 0}
    assert len({variant.settings["budget.steps"] for variant in low.variants}) == len({variant.tag for variant in low.variants}) == len(low.variants)
    recipe = _continual.upstream_arm(scale.options["network"]).settings
    assert high.settings == recipe, "the recipe of re-warming's upstream model"
    assert not any(comparison.decides for comparison in CLAIM.comparisons)
    assert [(one.x, one.y, one.decides) for one in CLAIM.correlations] == [("flatness", "probe", True)]


def test_windows_are_whole_of_one_document_and_evenly_drawn(tmp_path: Path) -> None:
    texts = {"a": "one two three four five six seven", "b": "eight nine ten eleven"}
    (tmp_path / "text.txt").write_text("\n\n".join(texts.values()))
    store = prepare_text([tmp_path / "text.txt"], tmp_path / "store", TextConfig(held_out_share=0.0, document_split="blank-line"))
    ids, labels = cut(list(texts.items()), ["a", "b"], store, 3, 100)
    for row, label in zip(ids, labels, strict=True):
        assert store.decode(row).replace(" ", "") in texts["ab"[label]].replace(" ", "")
    lengths = {name: len(store.tokenizer.encode(text, add_special_tokens=False).ids) // 3 for name, text in texts.items()}
    assert np.bincount(labels).tolist() == [lengths["a"], lengths["b"]]
    few, of_few = cut(list(texts.items()), ["a", "b"], store, 3, 2)
    assert (few[0] == ids[0]).all()
    assert (few[1] == ids[-1]).all()
    assert of_few.tolist() == [0, 1]


@pytest.mark.slow
def test_smoke_holds_the_losses_against_each_other(tmp_path: Path) -> None:
    said: list[str] = []
    result = claim("implicit_bias_text", "smoke", out=tmp_path / "claim", device="cpu", say=said.append)
    arms = {arm["arm"]: arm["runs"][0] for arm in result["arms"]}
    assert result["verdict"] == "inconclusive"  # ten steps
    apart = arms[LOW]["beside"]["flatness: validation loss"] - arms[HIGH]["beside"]["flatness: validation loss"]
    assert apart > 0.03
    assert any(f"validation loss beside that of the higher rate, nats {apart:.3f}" in line for line in said if "guard FAILS" in line)
    for run in arms.values():
        assert run["beside"]["flatness: trace"] == pytest.approx(np.exp(-run["tasks"]["flatness"][0]), rel=1e-6)
    assert any("Validation loss, nats a token" in note for note in result["notes"])
