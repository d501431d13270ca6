"""A probe of frozen networks on the page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from headstart.core.files import write_json
from headstart.report.collect import Collector
from headstart.report.evidence import read_evidence
from headstart.report.find import find
from headstart.tasks.frozen import Frozen, FrozenResult, Scores
from tests.report.folders import write_run


def scores(right: list[int]) -> Scores:
    return Scores(np.array(right, bool), np.array(right, bool)[::-1], 3.25, 8, 10.0)


def test_a_probe_is_read_with_each_network_beside_its_random_starts(tmp_path: Path) -> None:
    starts = [scores([1, 0] * 20), scores([0, 1] * 20), scores([1, 0, 0, 1] * 10)]
    models = [Frozen("runs/a", scores([1] * 40), starts), Frozen("runs/<b>", scores([1, 0] * 20), [])]
    result = FrozenResult(models, {"train": 100, "test": 40, "classes": ["x", "y"], "majority": 0.5}, ["None of the 40 stands there."], {})
    (tmp_path / "probed").mkdir()
    write_json(tmp_path / "probed" / "probe.json", result.to_json())
    (path,) = find([tmp_path]).results
    evidence = read_evidence(path, "probe-1")
    assert evidence is not None
    assert (evidence.kind, evidence.title, evidence.error) == ("probe", "Probe, probed", "")
    (finding,) = evidence.findings
    assert (finding.a, finding.b, finding.verdict, finding.over_start) == ("runs/a", "a random start", "helps", True)
    assert finding.shown(finding.difference) == "+50.0"
    assert [arm.name for arm in evidence.arms] == ["runs/a", "runs/a, random start", "runs/<b>"]
    assert evidence.tables[0][2] == [["runs/a", "100\u202f%", "100\u202f%", "3.25 of 8"], ["runs/<b>", "50\u202f%", "50\u202f%", "3.25 of 8"]]
    assert evidence.notes == ["None of the 40 stands there."]
    assert evidence.sentence.startswith("runs/a knows more than a random start")
    path.write_text('{"metric": 1, "models": [3, {"random": [null], "difference": "x"}], "data": []}')
    damaged = read_evidence(path, "probe-1")
    assert damaged is not None
    assert not damaged.findings


@pytest.mark.parametrize("model", ["", "/export"], ids=["run", "export"])
def test_what_a_network_cost_is_said_where_its_run_is_on_the_page(model: str, tmp_path: Path) -> None:
    write_run(tmp_path / "a", steps=400)
    result = FrozenResult([Frozen(f"{tmp_path / 'a'}{model}", scores([1] * 40), [scores([1, 0] * 20)] * 3)], {}, [], {})
    (tmp_path / "probed").mkdir()
    write_json(tmp_path / "probed" / "probe.json", result.to_json())
    collector = Collector([tmp_path])
    for _ in range(2):  # read once more it says the same
        (entry,) = collector.contents().evidence
        (finding,) = entry.findings
        assert (finding.flops, finding.seconds) == (400 * 8_808_038_400, 400 * 0.17)
    elsewhere = Collector([tmp_path / "probed"]).contents().evidence[0].findings[0]
    assert math.isnan(elsewhere.flops), "its run is not among those named"
