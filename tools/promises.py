"""A pytest plugin (`-p tools.promises`): every report carries the promises of its test, so that they arrive from other processes too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

_NAME = "promise"


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [(_NAME, marker.args[0]) for marker in item.iter_markers("promise")]


def of_report(report: pytest.TestReport) -> Iterator[str]:
    """The sentences that the test of a report shows."""
    return (str(value) for name, value in report.user_properties if name == _NAME)
