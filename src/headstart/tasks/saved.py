"""A fine-tuned model on disk: the backbone as a transformers folder, the head as safetensors, the task as JSON. And its use.

    model = load_finetuned("out/model")
    model.predict(["a fine film", "the worst of the year"])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from headstart.core.errors import BadInput
from headstart.core.files import read_json, write_json
from headstart.engine.device import resolve_device
from headstart.interop.transformers_io import Encoder, load_encoder, save_model_folder
from headstart.tasks.config import FinetuneConfig, QuestionAnsweringConfig
from headstart.tasks.data import Question, QuestionData, TaggedData, TextData
from headstart.tasks.kinds import TASKS
from headstart.tasks.task import Task
from headstart.tasks.training import FineTuned, predict

FORMAT_VERSION = 1
_HEAD, _TASK = "head.safetensors", "task.json"


@dataclass
class FineTunedModel:
    """A fine-tuned model ready for use."""

    model: FineTuned
    task: Task
    encoder: Encoder
    device: torch.device

    def predict(self, records: Sequence[Any]) -> list[Any]:
        """One prediction a record, in the words of the training file.

        Args:
            records: texts, or pairs of texts, for classification (gives the class) and regression (the number); lists of words for tagging (a tag for
                each); pairs of question and document for question answering (an `Answer`).
        """
        if not records:
            return []
        data = _as_data(self.task.name, records)
        rows = self.task.rows(data, self.encoder, training=False)
        return predict(self.model, self.task, rows, data, self.encoder, self.task.config, self.device)


def save_finetuned(folder: Path, task: Task, encoder: Encoder, model: FineTuned) -> None:
    """Writes the backbone (loads with `AutoModel` too), the head and the task."""
    save_model_folder(model.encoder, encoder.tokenizer, folder)
    save_file({name: value.detach().cpu().contiguous() for name, value in model.head.state_dict().items()}, folder / _HEAD)
    config = dataclasses.asdict(task.config)
    write_json(folder / _TASK, {"format_version": FORMAT_VERSION, "task": task.name, "config": config, **task.to_json()})


def load_finetuned(folder: str | Path, device: str = "auto") -> FineTunedModel:
    """The inverse of `save_finetuned`.

    Raises:
        BadInput: a file is missing, broken, or of a later format.
    """
    folder = Path(folder)
    saved = read_json(folder / _TASK)
    try:
        version, name, config = saved.pop("format_version"), saved.pop("task"), saved.pop("config")
        if version != FORMAT_VERSION:
            raise BadInput(f"has format {version}, this version reads {FORMAT_VERSION}", "Upgrade headstart.", file=folder / _TASK)
        settings = FinetuneConfig(**config | {"qa": QuestionAnsweringConfig(**config["qa"])})
        task = TASKS[name](settings, **saved)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"is not a task of ours ({error!r})", "Fine-tune again with --out.", file=folder / _TASK) from None
    encoder = load_encoder(folder)
    model = FineTuned(encoder, task.head(encoder))
    try:
        model.head.load_state_dict(load_file(folder / _HEAD))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"cannot be read ({str(error).splitlines()[0]})", "Fine-tune again with --out.", file=folder / _HEAD) from None
    where = resolve_device(device)
    return FineTunedModel(model.to(where).eval(), task, encoder, where)


def _as_data(task: str, records: Sequence[Any]) -> Any:
    if task == "tagging":
        return TaggedData([list(words) for words in records], [["O"] * len(words) for words in records])
    if task == "question-answering":
        return QuestionData([Question(str(i), question, document, (), -1, True) for i, (question, document) in enumerate(records)])
    if isinstance(records[0], str):
        return TextData(list(records), [0] * len(records))
    return TextData([first for first, _ in records], [0] * len(records), seconds=[second for _, second in records])
