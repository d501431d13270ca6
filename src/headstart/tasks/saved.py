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
from safetensors.torch import load_file

from headstart.core.config import checked, replace_nested, several
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, write_json
from headstart.core.tensor_files import save_tensors
from headstart.core.words import first_line
from headstart.data.text.tokenizer import FAILS, library_errors
from headstart.engine.device import resolve_device
from headstart.interop.transformers_io import WEIGHT_ERRORS, Encoder, load_encoder, save_model_folder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import Question, QuestionData, TaggedData, TextData, refuse_many
from headstart.tasks.kinds import TASKS
from headstart.tasks.task import Task
from headstart.tasks.task_file import TASK_FILE, read_task
from headstart.tasks.training import FineTuned, predict

FORMAT_VERSION = 1
_HEAD = "head.safetensors"


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
        records = several(records)
        if not records:
            return []
        data = _as_data(self.task.name, records)
        with library_errors(FAILS, None, any_error=False):
            rows = self.task.rows(data, self.encoder, training=False)
        return predict(self.model, self.task, rows, data, self.encoder, self.task.config, self.device)


def save_finetuned(folder: Path, task: Task, encoder: Encoder, model: FineTuned) -> None:
    """Writes the backbone (loads with `AutoModel` too), the head and the task."""
    save_model_folder(model.encoder, encoder.tokenizer, folder)
    save_tensors({name: value.detach().cpu().contiguous() for name, value in model.head.state_dict().items()}, folder / _HEAD)
    config = dataclasses.asdict(task.config)
    write_json(folder / TASK_FILE, {"format_version": FORMAT_VERSION, "task": task.name, "config": config, **task.to_json()})


def load_finetuned(folder: str | Path, device: str = "auto") -> FineTunedModel:
    """The inverse of `save_finetuned`.

    Raises:
        BadInput: a file is missing, broken, or of a later format.
    """
    folder = Path(folder)
    task = _saved_task(folder)
    encoder = load_encoder(folder)
    try:
        model = FineTuned(encoder, task.head(encoder))
        model.head.load_state_dict(load_file(own_file(folder, _HEAD)))
    except WEIGHT_ERRORS as error:
        raise BadInput(f"cannot be read ({first_line(error)})", "Fine-tune again with --out.", file=folder / _HEAD) from None
    where = resolve_device(device)
    return FineTunedModel(model.to(where).eval(), task, encoder, where)


_LEARNED: dict[str, dict[str, Any]] = {
    "classification": {"classes": list[str]},
    "regression": {"limits": list[float]},
    "tagging": {"tags": list[str], "span_scheme": bool},
    "question-answering": {"answerable": bool},
}
"""Task -> what it learned from the training data, and its type: all that task.json may say besides the settings."""


def _saved_task(folder: Path) -> Task:
    path = folder / TASK_FILE
    saved = read_task(folder, "saved.load_finetuned")
    mend = "Fine-tune again with --out."
    try:
        version, name, config = saved.pop("format_version"), saved.pop("task"), saved.pop("config")
        if version != FORMAT_VERSION:
            raise BadInput(f"has format {version}, this version reads {FORMAT_VERSION}", "Upgrade headstart.", file=path)
        kinds = _LEARNED[name]
        if saved.keys() != kinds.keys():
            raise KeyError(*(saved.keys() ^ kinds.keys()))
        learned = {key: checked(value, kinds[key], key) for key, value in saved.items()}
        refuse_many(learned.get("classes", learned.get("tags", ())), "classes", path)
        if learned.get("classes") == []:
            raise KeyError("classes")
        return TASKS[name](replace_nested(FinetuneConfig(), config), **learned)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise BadInput(f"is not a task of ours ({error!r})", mend, file=path) from None


def _as_data(task: str, records: Sequence[Any]) -> Any:
    if task == "tagging":
        if texts := [one for one in records if isinstance(one, str)]:
            raise UsageError(f"Tagging takes a list of words for each record, and one is the text {texts[0]!r:.80}.", "Give its words.")
        return TaggedData([list(words) for words in records], [["O"] * len(words) for words in records])
    if task == "question-answering":
        return QuestionData([Question(str(i), question, document, (), -1, True) for i, (question, document) in enumerate(records)])
    if isinstance(records[0], str):
        return TextData(list(records), [0] * len(records))
    return TextData([first for first, _ in records], [0] * len(records), seconds=[second for _, second in records])
