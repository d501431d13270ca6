"""Methods on images, on interleaved pages and on what they make themselves: two real processes give the run of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.verbs.pretrain import pretrain
from tests.distributed.test_runs import MODES, assert_ended_alike, compare
from tests.golden import record
from tests.running import METHODS, run_info, torchrun

pytestmark = pytest.mark.slow

OTHERS = tuple(slug for slug in record.OF_METHOD if slug not in METHODS)


def settings(slug: str) -> dict[str, Any]:
    return {**record.OF_METHOD[slug], "budget.steps": 20, "trainer.micro_batch": 4, "trainer.evaluate_every": 10, "trainer.checkpoint_every": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SLUG, SLUG-ddp and SLUG-fsdp of every method."""
    folder = tmp_path_factory.mktemp("others")
    data: dict[str, list[str]] = {}
    for slug in OTHERS:
        (folder / "data" / slug).mkdir(parents=True)
        data[slug] = [str(entry) for entry in record.corpus(slug, folder / "data" / slug)]
        pretrain(slug, data[slug], out=folder / slug, say=lambda line: None, **settings(slug))
    plan = [
        {"slug": slug, "data": data[slug], "out": str(folder / f"{slug}-{mode}"), **settings(slug), "trainer.parallel": mode}
        for slug in OTHERS
        for mode in MODES
    ]
    (folder / "plan.json").write_text(json.dumps(plan))
    done = torchrun(2, "tests.distributed.runs", folder / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.promise("Every method trains in two processes (DDP, FSDP2) as in one: metrics, probes and the export's weights over 20 steps.")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slug", OTHERS)
def test_two_processes_give_the_run_of_one(slug: str, mode: str, runs: Path) -> None:
    one, two = runs / slug, runs / f"{slug}-{mode}"
    compare(one, two, "metrics", rel=1e-3)
    compare(one, two, "probes", rel=1e-2, absolute=1e-4)
    assert_ended_alike(one, two)
    assert run_info(one)["totals"]["flops"] == run_info(two)["totals"]["flops"]
    assert run_info(two)["decisions"]["parallel"] == mode
