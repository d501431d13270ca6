"""A causal language model of ours for lm-evaluation-harness, and items of ours as one of its tasks.

    lm_eval.simple_evaluate(model=HarnessModel("runs/causal-lm-tiny-0"), tasks=["my_task"], task_manager=TaskManager(include_path="tasks"))

An export loads with the harness's own `hf` model too. This one scores as `headstart evaluate` does: every sequence begins with the end of text. The
package is imported when a model is made (extra `lm-eval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headstart.core.errors import MissingDependency
from headstart.core.files import atomic_write
from headstart.engine.device import use_device
from headstart.tasks.generation import Decoder
from headstart.tasks.lm_scores import score_text
from headstart.tasks.multiple_choice import Item, read_items, score_items

if TYPE_CHECKING:
    from lm_eval.api.model import LM

MAX_NEW_TOKENS = 256


def HarnessModel(model: str | Path, device: str = "auto", max_length: int | None = None) -> LM:
    """A model as the harness asks it: `loglikelihood`, `loglikelihood_rolling`, `generate_until` (greedy).

    Args:
        model: a run, an export or a transformers folder.
        max_length: tokens of a sequence; None: as many as the network has positions.

    Raises:
        MissingDependency: lm-eval is not installed. BadInput: the folder holds no decoder.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingDependency("lm-eval", "lm-eval", "A model for lm-evaluation-harness") from None
    folder = Path(model) / "export" if (Path(model) / "run.json").is_file() else Path(model)
    decoder, where = Decoder.load(folder), use_device(device)

    class Ours(LM):
        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            items = [Item(str(number), "", "", *pair(request), 0) for number, request in enumerate(requests)]
            scored = score_items(decoder, items, where, max_length=max_length)
            return [(float(sums[0]), is_greedy(*request.args)) for sums, request in zip(scored.log_probs, requests, strict=True)]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            return [-score_text(decoder, [request.args[0]], where, length=max_length).nats for request in requests]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return [written(*request.args) for request in requests]

    def pair(request: Any) -> tuple[str, tuple[str]]:
        context, choice = request.args
        return context, (choice,)

    @torch.no_grad()
    def is_greedy(context: str, choice: str) -> bool:
        """Whether the choice is what greedy decoding writes."""
        before, whole = decoder.ids([context, context + choice])
        own = whole[min(len(before), len(whole) - 1) :]
        room = decoder.length or len(whole) + 1
        row = [decoder.end, *whole[: len(whole) - len(own)][-max(0, room - len(own)) :], *own] if room > len(own) else [decoder.end, *own]
        logits = decoder.model(torch.tensor([row[:-1]], device=where)).logits[0, -len(own) :]
        return logits.argmax(-1).tolist() == own

    @torch.no_grad()
    def written(context: str, settings: dict[str, Any]) -> str:
        stops = [settings["until"]] if isinstance(settings.get("until"), str) else list(settings.get("until", ()))
        limit = int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
        ids = [decoder.end, *decoder.ids([context])[0]]
        if decoder.length is not None:
            limit = min(limit, decoder.length - 1)
            ids = ids[-(decoder.length - limit) :]
        rows = torch.tensor([ids], device=where)
        model: Any = decoder.model
        out = model.generate(rows, attention_mask=torch.ones_like(rows), do_sample=False, max_new_tokens=limit, pad_token_id=decoder.end)
        text = str(decoder.tokenizer.decode(out[0, rows.shape[1] :].tolist(), skip_special_tokens=True))
        return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text)

    decoder.model.to(where).eval()
    return Ours()


def write_task(items: str | Path, folder: str | Path) -> list[str]:
    """Items as tasks of the harness: FOLDER/TASK.yaml and FOLDER/TASK.jsonl of each task in the file.

    Returns:
        the names of the tasks.

    Raises:
        BadInput: an item that cannot be scored.
    """
    import json

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = read_items(items)
    names = list(dict.fromkeys(item.task for item in found))
    for name in names:
        lines = [{"id": i.id, "context": i.context, "choices": list(i.choices), "answer": i.answer} for i in found if i.task == name]
        with atomic_write(folder / f"{name}.jsonl") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str((folder / f"{name}.jsonl").absolute())}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{context}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "target_delimiter": "",
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")],
        }
        with atomic_write(folder / f"{name}.yaml") as file:
            file.write(json.dumps(task, indent=1).encode())  # JSON is YAML
    return names
