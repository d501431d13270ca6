"""What a run folder and its checkpoints hold already, and whether this command may go on with it. Whatever is refused here is refused before anything
is written."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from headstart.core.errors import BadInput, UsageError
from headstart.core.run import RunFolder
from headstart.engine.checkpoint import refuse_foreign
from headstart.engine.checkpoint_places import Local, Owner, Place, place_of
from headstart.verbs._same_run import refuse_changes
from headstart.verbs.config import PretrainConfig


def place_for(config: PretrainConfig, out: Path) -> Place:
    """Where the checkpoints of this command go."""
    return place_of(config.trainer.checkpoint_folder or out / "checkpoints", scratch=out / "checkpoints")


def take(run: RunFolder, slug: str, config: PretrainConfig, origin: dict[str, str], held: ExitStack) -> bool:
    """Whether the run has a checkpoint to continue from. Takes the place of its checkpoints, until `held` is closed.

    Raises:
        UsageError: it is a run of other settings, or the place holds checkpoints of another run.
        BadInput: the run had a checkpoint, and none is there now.
    """
    place = place_for(config, run.folder)
    owner = Owner(run.info["id"], str(run.folder.absolute()))
    steps = place.steps()
    noted = run.last_checkpoint()
    if run.is_new and steps:
        refuse_foreign(place, owner)
        raise UsageError(f"{place.url(steps[-1])} is the checkpoint of another run.", "Give this run a --trainer.checkpoint-folder of its own.")
    continues = bool(steps) or noted is not None
    if continues:
        refuse_changes(run.folder, run.info, slug, config, origin)
        if run.writes:  # the first process looks for all
            refuse_foreign(place, owner)
    if noted is not None and not steps:
        step, folder = noted
        raise BadInput(
            f"no checkpoint is there, but the run {run.folder} had written one{f' after step {step:,}' if step else ''}.",
            "Bring it back (is its disk mounted?) and give the same command; or start a new run in another --out. Nothing of this one was changed.",
            file=folder,
        )
    own = isinstance(place, Local) and os.path.realpath(place.folder) == os.path.realpath(run.checkpoints)  # the run's own lock protects it
    if run.writes and not own:
        held.enter_context(place.claim(owner))
    return continues
