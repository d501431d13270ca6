"""Fine-tuning of a whole network on a labelled file, several seeds, always beside the same network from random initialisation.

The procedure is ELECTRA's (Clark et al. 2020; google-research/electra, run_finetuning.py): Adam without bias correction, layer-wise rates, warm-up
times linear decay, the loss summed over the batch and clipped. Where we differ: the order is new every epoch, rows of like length come together, and
the last, smaller batch is taken as it is.

    result = finetune("classification", "runs/mlm-tiny-0/export", "train.jsonl", "test.jsonl")
    print(*result.lines(), sep="\\n")
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from headstart.core.errors import UsageError
from headstart.data.text.tokenizer import FAILS, library_errors
from headstart.engine.device import use_device
from headstart.interop.transformers_io import Encoder, load_encoder
from headstart.tasks.arms import Say, Trained, of_each_seed, refuse_choosing_on_test, run_arms, seeds_and_draws, stuck_warnings
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.kept import Kept
from headstart.tasks.kinds import TASKS
from headstart.tasks.leaks import find_overlap, training_leaks
from headstart.tasks.regularise import for_random_start, refuse_without_classes
from headstart.tasks.result import PRETRAINED, Arm, Result
from headstart.tasks.rows import Rows
from headstart.tasks.saved import save_finetuned
from headstart.tasks.task import Task
from headstart.tasks.training import FineTuned, predict, train

__all__ = ["FinetuneConfig", "Result", "finetune"]


def finetune(
    task: str,
    model_folder: str | Path,
    train: Any,
    test: Any,
    dev: Any = None,
    config: FinetuneConfig | None = None,
    seeds: int | Sequence[int] = 5,
    baseline: bool = True,
    report: Callable[[str], None] | None = None,
    out: str | Path | None = None,
    kept: Kept | None = None,
) -> Result:
    """Fine-tunes the network of a transformers folder and scores it on the test file.

    Args:
        task: classification, regression, tagging or question-answering.
        model_folder: a folder that `load_encoder` reads.
        train: a file, or data that a reader of `headstart.tasks.data` returned. A list is one draw of labelled records for each seed: the
            interval then covers the choice of records too.
        test: likewise, one.
        dev: likewise, one; needed to try several learning rates.
        seeds: how many (0, 1, ...), or which. A seed decides head, order, dropout and, for the baseline, the whole network.
        baseline: also train the same network from random initialisation, on the same data with the same seeds.
        report: called with lines of progress.
        out: a folder for result.json and the fine-tuned model of the first seed.
        kept: trainings of an earlier call into `out`, which are not made again.

    Raises:
        BadInput: a file or the folder cannot be used.
        UsageError: a setting is wrong.
        Diverged: a loss was not finite.
    """
    config = config or FinetuneConfig()
    say = report or (lambda line: None)
    _check(task, config, dev)
    device = use_device(config.device)
    seed_list, draws = seeds_and_draws(seeds, train, "training files")
    job = TASKS[task](config, draws[0])
    trains = [job.train, *(job.read(draw) for draw in draws[1:])]
    data = {"test": job.read(test)} | ({"dev": job.read(dev)} if dev is not None else {})
    encoder = load_encoder(model_folder, dropout=config.dropout)
    if out is not None and not encoder.whole:
        raise UsageError("The encoder of an encoder-decoder cannot be saved as a folder of its own.", "Leave out the folder for the model.")
    with library_errors(FAILS, model_folder, any_error=False):
        train_rows = [job.rows(part, encoder, training=True) for part in trains]
        rows = {name: job.rows(part, encoder, training=False) for name, part in data.items()}
    bench = Bench(job, config, encoder, Path(model_folder), data, rows, of_each_seed(seed_list, train_rows), device)
    arms, first = run_arms(bench.train, seed_list, config.rates, job.metric, baseline, say, kept=kept)
    tested = data["test"].leak_texts()
    beside = find_overlap(tested, chain.from_iterable(part.leak_texts() for part in trains)).sentence("the training file")
    result = Result(
        task,
        job.metric,
        str(model_folder),
        arms,
        {"train": len(job.train), "draws": len(draws), "dropped": getattr(job.train, "dropped", [])}
        | {name: len(part) for name, part in data.items()}
        | job.to_json(),
        [beside, *training_leaks(tested, Path(model_folder))],
        _warnings(arms, job, data["test"]),
        dataclasses.asdict(config),
    )
    if out is not None:
        result.save(out, lambda folder: save_finetuned(folder, job, encoder, first()), kept)
    return result


@dataclasses.dataclass
class Bench:
    """Everything that the trainings of one `finetune` share."""

    task: Task
    config: FinetuneConfig
    encoder: Encoder
    folder: Path
    data: dict[str, Any]
    rows: dict[str, Rows]
    train_rows: dict[int, Rows]  # of each seed
    device: torch.device

    def train(self, arm: str, seed: int, learning_rate: float, say: Say) -> Trained[FineTuned]:
        """One training and its scores."""
        config = self.config
        if arm == PRETRAINED:
            encoder = dataclasses.replace(self.encoder, module=copy.deepcopy(self.encoder.module))
        else:
            config, encoder = for_random_start(config), load_encoder(self.folder, fresh=True, seed=seed, dropout=config.dropout)
        model, loss, steps = train(self.task, encoder, self.train_rows[seed], config, learning_rate, seed, self.device, say)
        found: dict[str, dict[str, float]] = {}
        stuck = None
        for part in ("dev", "test"):
            if part in self.data:
                predictions = predict(model, self.task, self.rows[part], self.data[part], encoder, self.config, self.device)
                found[part] = self.task.score(predictions, self.data[part])
                stuck = self.task.stuck(predictions)
        return Trained(model, found, loss, steps, stuck, self.task.records(predictions, self.data["test"]))


def _check(task: str, config: FinetuneConfig, dev: Any) -> None:
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'.", f"Choose one of: {', '.join(TASKS)}.")
    refuse_choosing_on_test(config.rates, dev)
    refuse_without_classes(config.regulariser, task)
    config.check()


def _warnings(arms: list[Arm], task: Task, test: Any) -> list[str]:
    found = stuck_warnings(arms, "Try a lower learning rate, a longer warm-up or more epochs.")
    if unseen := task.unseen(test):
        found.append(unseen)
    dropped = getattr(task.train, "dropped", [])
    if dropped:
        found.append(f"{len(dropped)} training questions were dropped; the first: {dropped[0]}.")
    return found
