"""docs/performance.md says what was missed and what was not measured."""

from __future__ import annotations

from typing import Any

from tools.pages import performance
from tools.pages.performance import LINES, Line, judged, of_gpu, of_row, over, percent, row, times

RESULT: dict[str, Any] = {"ratio": 1.3, "command": "c", "figures": {"tiny": {"device_share": 0.9}}}


def test_lines_are_judged_by_must_and_aim() -> None:
    line = Line("x", "r", 1.2, 1.5, times)
    assert [judged(line, value) for value in (1.19, 1.2, 1.5)] == ["**missed**", "reached", "aim reached"]
    lower = Line("x", "r", 0.15, 0.05, percent, higher_is_better=False)
    assert [judged(lower, value) for value in (0.2, 0.1, 0.01)] == ["**missed**", "reached", "aim reached"]


def test_a_row_has_figure_command_and_verdict() -> None:
    assert row(Line("x", "r", 1.2, 1.5, times), RESULT) == "| x | **1.30 x** | 1.20 x | 1.50 x | reached | `c` |"
    assert row(Line("x", "r", 1.03, 1.01, over, higher_is_better=False), RESULT) == "| x | **+30.0 %** | +3.0 % | +1.0 % | **missed** | `c` |"
    assert row(Line("x", "r", 1.2, 1.2, times), None) == "| x | not measured yet | 1.20 x |  |  |  |"


def test_a_figure_of_a_row_and_what_its_products_alone_would_take() -> None:
    result = {"command": "c", "rows": [{"of": "grid", "ratio": 4.0}, {"of": "bits", "ratio": 1.5, "most": 1.9}]}
    bits, grid = (Line("x", "r", 3.0, 3.0, times, of_row("ratio", of=of), products=of_row("most", of=of)) for of in ("bits", "grid"))
    assert row(bits, result) == "| x | **1.50 x** | 3.00 x |  | **missed**, the products alone: 1.90 x | `c` |"
    assert row(grid, result) == "| x | **4.00 x** | 3.00 x |  | aim reached | `c` |"
    assert row(Line("x", "r", 3.0, 3.0, times, of_row("ratio", of="words")), result) == "| x | not measured yet | 3.00 x |  |  | `c` |"


def test_a_part_that_the_gpu_script_left_out_is_not_measured() -> None:
    assert of_gpu("tiny", "device_share")(RESULT) == 0.9
    assert of_gpu("electra-base", "mfu")(RESULT) is None
    assert "not measured yet" in row(Line("x", "gpu", 0.4, 0.5, times, of_gpu("electra-base", "mfu")), RESULT)


def test_every_line_stands_on_the_page() -> None:
    table = performance.table_block()
    assert all(f"| {line.what} |" in table for line in LINES)
    assert table.count("\n| ") == len(LINES) + 1
