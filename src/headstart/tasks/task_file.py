"""`task.json`, beside a fine-tuned model: which task it is of, and so which function loads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_json
from headstart.interop.model_folder import MAX_CONFIG_BYTES
from headstart.tasks.dense_config import CONFIGS as DENSE

TASK_FILE = "task.json"
Loader = Literal["saved.load_finetuned", "image_network.load_classifier", "dense_saved.load_dense"]


def read_task(folder: Path, loader: Loader) -> Any:
    """What it says; whoever asks looks at each entry.

    Args:
        loader: the function of `headstart.tasks` that asks.

    Raises:
        BadInput: there is none, it cannot be read, or its model is for another function.
    """
    if not os.path.lexists(folder / TASK_FILE):
        mend = "Give the folder `model` in that of `headstart finetune --out`."
        raise BadInput(f"holds no fine-tuned model: it has no {TASK_FILE}.", mend, file=folder)
    saved = read_json(own_file(folder, TASK_FILE), MAX_CONFIG_BYTES)
    task = saved.get("task") if isinstance(saved, dict) else None
    if isinstance(task, str) and (meant := _loader_of(task)) != loader:
        raise BadInput(f"is of the task {task}.", f"Load it with headstart.tasks.{meant}.", file=folder / TASK_FILE)
    return saved


def _loader_of(task: str) -> Loader:
    if task == "image-classification":
        return "image_network.load_classifier"
    return "dense_saved.load_dense" if task in DENSE else "saved.load_finetuned"
