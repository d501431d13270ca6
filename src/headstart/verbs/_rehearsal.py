"""The rehearsal: one evaluation, one probe, one checkpoint, one reload, one export, on real rows, before step 1.

What would fail at the end fails now.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from headstart.core.errors import HeadstartError
from headstart.core.files import sync_folder, sync_tree
from headstart.core.machine import writing
from headstart.engine.checkpoint import Checkpointer
from headstart.engine.evaluation import evaluate
from headstart.engine.export_hashes import write_hashes
from headstart.engine.method import Batch, Method
from headstart.engine.trainer import Trainer
from headstart.engine.update import autocast

TOLERANCE = 1e-4  # of an export's outputs after reloading, fp32
CUT_TOLERANCE = 0.05  # the live model's parameters are gathered in bf16, the export's are fp32


def rehearse(trainer: Trainer, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    """Runs the end of the run at its beginning; leaves no file and no changed weight. Returns the metrics of the first held-out rows.

    Raises:
        HeadstartError: what would have failed at the end.
    """
    began = time.perf_counter()
    method, ranks = trainer.method, trainer.ranks
    phase = trainer.spans[-1][0].name
    trainer.prepare_state()
    found: dict[str, float] = {}
    if trainer.held_out:
        found = evaluate(method, trainer.held_out[:1], phase, trainer.decisions.precision, trainer.device, trainer.seed, trainer.total_steps)
    method.eval()
    with torch.no_grad(), autocast(trainer.device, trainer.decisions.precision):
        for probe in trainer.probes.values():
            probe(method)
    method.train()
    scratch = ranks.on_first(lambda: Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=folder)))
    try:
        with trainer.parallel.unchanged():  # an export may complete the backbone: ELECTRA's takes the generator's weights before the joint phase
            checkpointer = Checkpointer(scratch / "checkpoints", ranks=ranks)
            checkpointer.save(0, trainer.state())
            checkpointer.close()
            newest = checkpointer.load_newest(say, trainer.named_tensors())
            assert newest is not None
            method.load_state_dict(newest[1]["method"])
            export_and_check(trainer, scratch / "export", trainer.held_out)
    finally:
        if ranks.first:
            shutil.rmtree(scratch, ignore_errors=True)
    say(f"Rehearsal: evaluation, probes, checkpoint, reload and export passed in {time.perf_counter() - began:.1f} s.")
    return found


def export_and_check(trainer: Trainer, folder: Path, held_out: list[Batch] | None) -> None:
    """Writes the export beside its place, reloads it, compares its vectors with the live backbone's, and puts it in place.

    Raises:
        HeadstartError: the reloaded model answers differently.
    """
    first = trainer.ranks.first
    beside = folder.with_name(f".{folder.name}-writing")
    if first:
        shutil.rmtree(beside, ignore_errors=True)
    with writing(folder):
        trainer.export(beside)
        if first:
            write_hashes(beside)
    if held_out:
        batch = {name: value[:4] for name, value in held_out[0].items()}
        with trainer.averaged_weights():
            live = vectors(trainer.method, batch, trainer.device)  # every rank must come here where the weights are cut
        if first:
            reloaded = trainer.method.reload(beside).to(trainer.device)
            again = vectors(reloaded, batch, trainer.device)
            difference = float((live - again).abs().max() / live.abs().max().clamp(min=1e-6))
            tolerance = CUT_TOLERANCE if trainer.parallel.sharded and trainer.decisions.precision == "bf16" else TOLERANCE
            if not difference <= tolerance:
                raise HeadstartError(
                    f"The export in {beside} answers differently from the trained model (by {difference:.1e} of its largest value).",
                    "This is a bug: please report it.",
                )
    if first:
        with writing(folder):
            sync_tree(beside)
            if folder.exists():
                shutil.rmtree(folder)
            beside.rename(folder)
            sync_folder(folder.parent)


@torch.no_grad()
def vectors(method: Method, batch: Batch, device: torch.device) -> Tensor:
    was_training = method.training
    method.eval()
    result = method.embed({name: value.to(device) for name, value in batch.items()}).float().cpu()
    method.train(was_training)
    return result
