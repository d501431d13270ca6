"""`replay`: one step of a run once more, from the newest checkpoint before it, with every module watched. For a step that made a NaN, or a loss that
jumped. The run is only read: it may be finished, failed, or still going on."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from headstart import methods
from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import RunFolder, read_lines, read_run
from headstart.data.loader import Loader
from headstart.engine.checkpoint import load_before
from headstart.engine.checkpoint_places import Owner
from headstart.engine.device import use_device
from headstart.engine.trainer import Trainer
from headstart.engine.trial import decisions_from
from headstart.verbs._corpus import is_same_data, recorded_corpus
from headstart.verbs._exports import checkpoint_export, checkpoints_of, resolve_init
from headstart.verbs._same_run import without_removed
from headstart.verbs.config import PretrainConfig, preset_config
from headstart.verbs.pretrain import build_method


@dataclass
class Replay:
    """One step, repeated."""

    step: int
    """Counted from 1, as in metrics.jsonl."""
    began: int
    """The step of the checkpoint it was reached from; 0: the beginning of the run."""
    loss: float
    gradient_norm: float
    place: str | None
    """The first module that made a number that is not finite; None: all are finite."""
    mean_loss: float | None
    """The loss as the log of this step has it: the mean since the log step before. None where this is no log step."""
    logged_loss: float | None
    """What metrics.jsonl says; None: it has no such line, or no number there."""
    mean_from: int = 1
    """The first step of that mean."""


def replay(run: str | Path, step: int, *, device: str | None = None, say: Callable[[str], None] = print) -> Replay:
    """Repeats one step of a run.

    Args:
        run: its folder.
        step: counted from 1, as in metrics.jsonl.
        device: auto, cpu or cuda; None: as the run was told.
        say: gets each line for the person.

    Raises:
        BadInput: not a run, or its data is gone or changed.
        UsageError: the run has no such step.
    """
    folder = Path(run)
    info = read_run(folder)
    if not {"decisions", "data"} <= info.keys():
        raise UsageError(f"The run {folder} has not reached its first step.", "Start it with its own command first.")
    decisions = dataclasses.replace(decisions_from(info["decisions"], folder / "run.json"), compile=False, cuda_graph=False)
    if not 1 <= step <= decisions.total_steps:
        raise UsageError(f"The run {folder} has steps 1 to {decisions.total_steps:,}.", "Give one of them as --step.")
    method_class = methods.load(info["method"])
    chosen, settings = preset_config(method_class, info["preset"])[1], without_removed(info["config"])
    config: PretrainConfig = replace_nested(chosen, settings, where=str(folder / "run.json"))
    for entry in info["data"]:
        method_class.open_store(Path(entry["store"]))  # says which is gone
    corpus = recorded_corpus(method_class, config, info)
    if corpus is None or not is_same_data(info, corpus):
        raise BadInput("holds other data than the run was trained on.", "Bring the old data back.", file=Path(info["data"][0]["store"]))

    where = use_device(device or config.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(decisions.threads)
    try:
        with tempfile.TemporaryDirectory() as scratch:  # the trainer writes here what it must write
            place = checkpoints_of(folder, info, Path(scratch) / "fetched")
            found = load_before(place, step, Owner(info.get("id", ""), str(folder)), say)
            init = None
            if config.init is not None:  # with a checkpoint only the shape of the network is needed
                init = (checkpoint_export(place) if found else None) or resolve_init(config.init)
            method = build_method(method_class, config, corpus.store, init).to(where)
            trainer = Trainer(
                method,
                RunFolder(Path(scratch) / "run"),
                Loader(corpus.mixture(config, method), config.global_batch),
                held_out=None,
                optimizer=config.optimizer,
                schedule=config.schedule,
                config=dataclasses.replace(config.trainer, checkpoint_folder=None),
                decisions=decisions,
                device=where,
                seed=config.seed,
                say=lambda line: None,
            )
            trainer.prepare_state()
            if found is not None:
                trainer.load_state(*found)
            began = trainer.step
            say(f"Repeating step {step:,} of {folder} from {f'the checkpoint of step {began:,}' if began else 'the beginning of the run'}.")
            result = repeat(trainer, step, began)
    finally:
        torch.set_num_threads(threads)
    logged = {int(line["step"]): line["loss"] for line in read_lines(folder / "metrics.jsonl")}
    result.logged_loss = logged.get(step)
    result.mean_from = max((before for before in logged if before < step), default=0) + 1
    for line in lines(result, decisions.world):
        say(line)
    return result


def repeat(trainer: Trainer, step: int, began: int) -> Replay:
    """Trains up to the step before, then examines the step."""
    with trainer.batches(step) as batches:
        for phase, start, stop in trainer.spans:
            if trainer.step < stop and start < step:
                trainer.enter(phase, first=trainer.step == start)
                while trainer.step < min(stop, step - 1):
                    trainer.advance(batches, phase)
                    trainer.window_means()
                last = phase
    place, scalars = trainer.examine(step - 1, last.name)
    tensors = {name: torch.tensor(value, device=trainer.device) for name, value in scalars.items()}
    trainer.guard.watch(tensors["loss"], tensors["gradient_norm"], torch.tensor(step - 1, device=trainer.device))
    trainer.step = step
    trainer.count(last, tensors)
    means = trainer.window_means()
    return Replay(step, began, scalars["loss"], scalars["gradient_norm"], place, None if means is None else means["loss"], None)


def lines(result: Replay, world: int) -> list[str]:
    """What the repetition found, for a person."""
    found = [f"loss {result.loss:.6g}, gradient norm {result.gradient_norm:.6g}."]
    if result.place is not None:
        found.append(f"The first module that made a number that is not finite: {result.place}.")
    elif math.isfinite(result.gradient_norm):
        found.append("All finite: the outputs of every module, and every gradient.")
    else:
        found.append("The outputs of every module and every gradient are finite; the norm of the gradient overflows.")
    if result.mean_loss is not None and result.logged_loss is not None:
        of = "The loss" if result.mean_from == result.step else f"The mean loss of steps {result.mean_from:,} to {result.step:,}"
        if result.mean_loss == result.logged_loss:
            found.append(f"{of} is that of metrics.jsonl, bit for bit: {result.logged_loss!r}.")
        else:
            why = f"the run had {world} processes" if world > 1 else "another machine, version or device computes in another order"
            found.append(f"{of} is {result.logged_loss!r} in metrics.jsonl, and {result.mean_loss!r} here: {why}.")
    return found
