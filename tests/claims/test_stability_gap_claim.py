"""The claim of the stability gap: its pool, its arms, and the smoke preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.claims._run import claim
from headstart.claims.stability_gap import CLAIM, GENERAL_FLOOR, chunks, gap_figures, right_by_document, split_reference, until, validity
from headstart.core.errors import BadInput
from headstart.tasks.multiple_choice import Item, Scored
from headstart.verbs.forgetting import Curve


def test_documents_are_cut_at_line_ends_and_long_lines_at_blanks() -> None:
    text = "first line\nsecond line\n" + "word " * 12 + "\nlast"
    found = chunks(text, limit=24)
    assert all(len(chunk) <= 24 for chunk in found)
    assert found[0] == "first line\nsecond line"
    assert "".join(found).replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert all(set(chunk.split()) <= {"first", "second", "line", "word", "last"} for chunk in found)  # no word is cut
    assert chunks("x" * 50, limit=24) == ["x" * 24, "x" * 24, "xx"]


def test_the_reference_is_never_in_the_pool() -> None:
    medical = [{"id": f"d{number}", "src": "niddk" if number % 2 else "ghr", "source": "textmed", "text": "t"} for number in range(100)]
    good, rest = split_reference(medical)
    assert len(good) == 40
    assert all(record["src"] == "niddk" for record in good)
    assert not {record["id"] for record in good} & {record["id"] for record in rest}
    assert len(rest) == 60


def test_the_pool_has_its_quota_or_is_refused() -> None:
    records = [{"text": "ab"} for _ in range(10)]
    assert len(list(until(records, 10, count=len))) == 6  # with a hundredth of slack
    with pytest.raises(BadInput, match="20 tokens, the claim needs 101"):
        list(until(records, 100, count=len))


def test_all_arms_have_the_same_tokens_but_those_that_say_why_not() -> None:
    for preset, steps in (("cpu", 293), ("gpu", 586)):
        scale = CLAIM.scale(preset)
        assert scale.settings["budget.steps"] == steps
        for arm in scale.arms:
            assert ("budget.steps" in arm.settings) <= bool(arm.unequal), arm.name
            assert not arm.trained or arm.settings["schedule.minimum_share"] == 0.0, arm.name
    names = [arm.name for arm in CLAIM.scale("cpu").arms]
    assert names == ["none", "full", "full-rewarm-high", "random-x4", "hq-x4", "hq-mix-fixed", "hq-mix-dynamic", "replay10", "freeze-top"]
    assert {arm.name: CLAIM.scale("cpu").seeds_of(arm) for arm in CLAIM.scale("cpu").arms if arm.trained}["hq-mix-dynamic"] == 5


def test_a_model_that_knows_nothing_has_nothing_to_forget() -> None:
    assert not validity({"none": {"genterm": GENERAL_FLOOR}}, None)  # type: ignore[arg-type]
    assert "little to forget" in validity({"none": {"genterm": GENERAL_FLOOR - 0.01}}, None)[0]  # type: ignore[arg-type]


def test_the_bootstrap_is_over_documents() -> None:
    items = [Item(str(number), "t", group, "c", (" a", " b"), 0) for number, group in enumerate("xxy")]
    found = right_by_document(Scored(items, [np.array([-1.0, -2.0]), np.array([-2.0, -1.0]), np.array([-1.0, -2.0])]))
    assert found.tolist() == [[1, 2], [1, 1]]


def test_the_gap_is_in_bits_a_byte() -> None:
    curve = Curve([0, 1, 2], [4.0, 5.0, 3.0], {0: 4.0, 2: 3.0}, {0: 2.0, 2: 1.5})
    found = gap_figures(curve)
    assert found["gap depth (bits a byte)"] == pytest.approx(0.5)
    assert found["recovered at step"] == 2
    assert found["gain (bits a byte)"] == pytest.approx(0.5)


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    result = claim("stability_gap", "smoke", out=tmp_path / "claims" / "stability_gap-smoke", device="cpu", say=lambda line: None)
    assert [arm["arm"] for arm in result["arms"]] == ["full", "hq-mix-dynamic"]
    runs = {arm["arm"]: arm["runs"][0] for arm in result["arms"]}
    assert runs["full"]["train_flops"] == runs["hq-mix-dynamic"]["train_flops"]
    assert result["verdict"] == "inconclusive"  # one seed, and a model that has learned nothing
    assert (tmp_path / "claims" / "shared" / "data").is_dir()
