"""Methods on images, on interleaved pages and on what they make themselves: two real processes give the run of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from headstart.verbs.pretrain import pretrain
from tests.distributed.test_runs import MODES, compare
from tests.golden import record
from tests.running import METHODS, records, run_info, torchrun, weight_files

pytestmark = pytest.mark.slow

MORE_FLOPS = 5e-3
"""interleaved-lm with FSDP: each process shows the frozen tower an empty image in every pass, since it must come by every layer."""
OTHERS = tuple(slug for slug in record.OF_METHOD if slug not in METHODS)


def settings(slug: str) -> dict[str, Any]:
    return {**record.OF_METHOD[slug], "budget.steps": 20, "trainer.micro_batch": 4, "trainer.evaluate_every": 10, "trainer.checkpoint_every": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SLUG, SLUG-ddp and SLUG-fsdp of every method."""
    folder = tmp_path_factory.mktemp("others")
    data: dict[str, str] = {}
    for slug in OTHERS:
        (folder / "data" / slug).mkdir(parents=True)
        data[slug] = str(record.corpus(slug, folder / "data" / slug))
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
    assert len(records(one, "metrics")) == 20
    compare(one, two, "metrics", rel=1e-3, but=("flops", "mfu"))
    compare(one, two, "probes", rel=1e-2, absolute=1e-4)
    mine, theirs = weight_files(one), weight_files(two)
    assert mine.keys() == theirs.keys()
    for name in mine:
        expected, found = load(mine[name]), load(theirs[name])
        assert expected.keys() == found.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], atol=2e-3, rtol=0)
    totals = [run_info(run)["totals"] for run in (one, two)]
    assert all(totals[0][key] == totals[1][key] for key in ("steps", "tokens"))
    assert totals[0]["flops"] <= totals[1]["flops"] <= totals[0]["flops"] * (1 + MORE_FLOPS if slug == "interleaved-lm" else 1)
    assert run_info(two)["decisions"]["world"] == 2
