"""A cheap claim, declared as a claim file declares one: real runs of a tiny network, measurements that take no time.

    python -m tests.claims.fake OUT N     in a process of its own, which SIGKILL ends before its N-th change of the disk

The "metric" is a number made from the weights, so it depends on every pre-training bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from tests.at import At, watch
from tests.corpus import write_corpus
from tests.running import TINY

SETTINGS: dict[str, Any] = {**{name: value for name, value in TINY.items() if name != "device"}, "budget.flops": 6e8, "text.held_out_share": 0.0}


def measured(use: Use) -> Score:
    """Ten items from the weights; each call leaves a line, so that a test can count them."""
    weights = load_file(use.model.export / "model.safetensors")
    total = sum(float(np.abs(value).sum()) for value in weights.values())
    items = np.array([[total * (i + use.setting) * (2 + use.seed % 7) % 1.0, 1.0] for i in range(10)])
    with (use.model.folder.parents[1] / "calls.txt").open("a") as file:
        file.write(f"{use.model.folder.name} {use.split} {use.setting} {use.repeat}\n")
    time.sleep(0.02)
    return Score(float(items[:, 0].mean()), items)


def open_data(scale: Scale, folder: Path) -> Data:
    corpus = folder / "corpus"
    if not corpus.exists():
        write_corpus(corpus, 80)
    return Data(
        facts={"name": "grammar", "source": "generated", "train": 80, "test": 10, "split": "by seed"},
        corpora={"train": [corpus]},
        tasks=(Task("first", measured, settings=(1, 2), texts=["The old boat sails."]),),
        files=(corpus / "first.txt",),
        anchors={"chance": 0.5},
    )


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    return [Guard("steps", float(model.tokens), 1.0, model.tokens > 1)]


CLAIM = Claim(
    slug="fake",
    statement="Causal is better than masked.",
    paper=Paper("It is.", "1 against 0", "Table 1"),
    metric="a number",
    presets={
        "cpu": Scale(
            arms=(Arm("causal", "causal-lm"), Arm("masked", "mlm"), Arm("none", "mlm", trained=False)),
            seeds=2,
            learning_rates=(1e-3, 2e-3),
            settings=SETTINGS,
            repeats=2,
        )
    },
    comparisons=(Comparison("causal", "masked"), Comparison("masked", "none", decides=False)),
    open_data=open_data,
    guards=guards,
)


def with_scale(**changes: Any) -> Claim:
    """The claim with another scale, and the comparisons of its arms."""
    scale = dataclasses.replace(CLAIM.presets["cpu"], **changes)
    return dataclasses.replace(CLAIM, presets={"cpu": scale}, comparisons=tuple(CLAIM.comparisons_of(scale)))


if __name__ == "__main__":
    from headstart.claims._run import claim

    out = Path(sys.argv[1])
    watch(At((signal.SIGKILL,), "*", int(sys.argv[2])))
    print(json.dumps(claim(CLAIM, "cpu", out=out, device="cpu", results=out / "results")["verdict"]))
