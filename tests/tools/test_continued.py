"""The table of the guide on continuing: from a result to a page."""

from __future__ import annotations

from typing import Any

from tools.pages import continued


def result() -> dict[str, Any]:
    keys = ("old bits per byte", "new bits per byte", "genterm", "medterm")

    def arm(values: tuple[float, ...], interval: list[float] | None) -> dict[str, Any]:
        beside = {key: {"mean": 0.0, "interval": interval} for key in keys}
        return {"mean": dict(zip(keys, values, strict=True)), "minus naive": beside, "runs": []}

    losses = {name: {"value": value, "low": None, "high": None} for name, value in (("general_loss", 4.4), ("domain_loss", 3.9))}
    return {
        "before": dict(zip(keys, (2.7, 2.9, 0.48, 0.33), strict=True)),
        "arms": {
            "naive": arm((3.0, 2.2, 0.40, 0.45), [0.0, 0.0]),
            "recommended": arm((2.75, 2.1, 0.46, 0.5), [-0.3, -0.02]),
            "replay": arm((2.70, 2.2, 0.46, 0.5), [-0.3, -0.02]),
        },
        "plan": {
            "recommended": {"r_d": 0.62, "steps": 1200},
            "predicted": losses,
            "before": {"old": 4.3, "new": 4.8},
            "subset": {"tokens": 307_000},
            "limit": 0.05,
        },
    }


def test_bits_and_shares_have_their_own_digits_and_the_naive_run_no_interval() -> None:
    found = result()
    assert continued.cell(found, "naive", "new bits per byte") == "2.200"
    assert continued.cell(found, "recommended", "new bits per byte") == "2.100 (-0.300 to -0.020)"
    assert continued.cell(found, "recommended", "medterm") == "50.0 % (-30.0 to -2.0)"


def test_the_page_says_what_was_planned_and_what_was_beaten_either_way() -> None:
    found = result()
    said = continued.planned(found["plan"])
    assert "with a limit of 5 % take r_d = 0.62 of the 307,000 tokens that a reference chose, 1,200 steps" in said
    assert "on old text 4.400 (before: 4.300)" in said
    better, other = "On both texts the recommended run is better than: naive.", "It is better on one and worse on the other than: replay."
    assert continued.beaten(found) == f"{better} {other}"
    found["arms"]["recommended"]["mean"]["new bits per byte"] = 2.3
    assert continued.beaten(found).endswith("It is worse on both than: replay.")
