"""Our exports and items in lm-evaluation-harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.tasks.generation import Decoder
from headstart.tasks.lm_eval import HarnessModel, write_task
from headstart.tasks.multiple_choice import read_items, results, score_items

ITEMS: list[dict[str, Any]] = [
    {"task": "mill", "context": "the old mill was", "choices": [" built in oslo", " burnt down twice", " good"], "answer": 1},
    {"task": "mill", "context": "anna berg lives in", "choices": [" oslo", " a dull film"], "answer": 0},
    {"task": "mill", "context": "", "choices": ["one two three", "who is it"], "answer": 1},
]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    return tmp_path / "items.jsonl"


def test_items_become_a_task(items: Path, tmp_path: Path) -> None:
    assert write_task(items, tmp_path / "tasks") == ["mill"]
    task = json.loads((tmp_path / "tasks" / "mill.yaml").read_text())
    assert task["output_type"] == "multiple_choice"
    lines = [json.loads(line) for line in Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    assert [line["answer"] for line in lines] == [1, 0, 1]


def evaluated(model: Any, items: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """What the harness says of a model on the task of these items."""
    pytest.importorskip("lm_eval", reason="brings 24 packages: pip install 'headstart[lm-eval]'")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_task(items, folder / "tasks")
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    return simple_evaluate(model=model, tasks=["mill"], task_manager=manager, bootstrap_iters=0, log_samples=True, **settings)


def test_the_harness_gets_our_figures(gpt2: Path, items: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="brings 24 packages: pip install 'headstart[lm-eval]'")
    found = evaluated(HarnessModel(gpt2, device="cpu"), items, tmp_path)
    scored = score_items(Decoder.load(gpt2), read_items(items), torch.device("cpu"))
    ours = results(scored)["mill"]
    assert all(found["results"]["mill"][name] == ours[name] for name in ("acc,none", "acc_norm,none"))
    sums = [[response[0] for response in sample["filtered_resps"]] for sample in sorted(found["samples"]["mill"], key=lambda s: s["doc_id"])]
    for one, other in zip(sums, scored.log_probs, strict=True):
        assert one == pytest.approx(other.tolist(), rel=1e-4)


def test_an_export_loads_as_it_is(gpt2: Path, items: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the harness's own loader needs it: pip install 'headstart[lm-eval]'")
    found = evaluated("hf", items, tmp_path, model_args={"pretrained": str(gpt2)}, device="cpu")
    assert len(found["samples"]["mill"]) == 3
