"""`sample`: what a run has learned, to look at: completions of a causal model, filled masks of a masked one, what a discriminator suspects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart import methods
from headstart.core.bounds import refuse_outside
from headstart.core.config import replace_nested, several
from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import Rng
from headstart.core.run import read_run
from headstart.core.terminal import printable
from headstart.engine.method import Context, Method
from headstart.verbs._exports import newest_export
from headstart.verbs._kinds import refuse_texts
from headstart.verbs._look_settings import SAMPLE
from headstart.verbs.config import preset_config


def sample(run: str | Path, texts: Sequence[str] = (), *, count: int = 4, seed: int = 0) -> list[str]:
    """Lines to look at, from the exported model of a run.

    Args:
        run: a run folder that has an export, or whose checkpoints have one.
        texts: the person's own beginnings (or texts with [MASK]), for a method on texts; without any, held-out rows are used.
        count: how many held-out rows.
        seed: of the draws.

    Raises:
        BadInput: not a run.
        UsageError: it has nothing exported yet, its store is gone, or a number is impossible.
    """
    refuse_outside({"count": count, "seed": seed}, SAMPLE)
    method, store, _ = load_run(Path(run))
    if texts:
        refuse_texts(method)
        batch = method.encode(several(texts))
    else:
        rows = type(method).rows(store, method.config, "held_out")
        if len(rows) == 0:
            raise UsageError("The store of this run has no held-out rows.", "Give a text of your own: --text '...'.")
        chosen = np.random.default_rng(seed).choice(len(rows), size=min(count, len(rows)), replace=False)
        batch = {name: torch.as_tensor(value) for name, value in rows.batch(np.sort(chosen)).items()}
    n = len(next(iter(batch.values())))
    last_phase = next(phase.name for phase in method.phases(1 << 30) if phase.steps is None)
    method.eval()
    with torch.no_grad():
        lines = method.show(batch, Context(0, 1, last_phase, Rng.at(seed, 0, torch.arange(n)), torch.device("cpu")), own_text=bool(texts))
    return [printable(line) for line in lines]


def load_run(folder: Path) -> tuple[Method, Any, dict[str, Any]]:
    """(method with the trained weights, store, run.json) of a run, on the CPU.

    Raises:
        BadInput: not a run, or a damaged one.
        UsageError: it has nothing exported yet.
    """
    info = read_run(folder)
    if missing := {"method", "preset", "config"} - info.keys():
        raise BadInput(f"has no entry {min(missing)!r}.", "Let the run begin first.", file=folder / "run.json")
    method_class = methods.load(info["method"])
    export = newest_export(folder)
    store_folder = Path(info["data"][0]["store"]) if info.get("data") else None
    if store_folder is None or not store_folder.is_dir():
        raise BadInput(f"its store {store_folder} is gone.", "Prepare the data again with the run's own command.", file=folder)
    store = method_class.open_store(store_folder)
    settings = info["config"].get("method")
    if not isinstance(settings, dict):
        raise BadInput("spoils the entry 'config'.", "Its settings are those of the run's own command.", file=folder / "run.json")
    config = replace_nested(preset_config(method_class, info["preset"])[1].method, settings)
    method = method_class(config, store, init=export)
    return method, store, info
