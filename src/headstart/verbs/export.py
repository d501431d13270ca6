"""`export`: the usable model of a run, of its end or of a checkpoint, in a folder of its own: to use, to publish, to keep when the run is deleted.

    TO/               the model, each file compared with the hash that was written with it
    TO/README.md      its card; of a checkpoint one of that moment
    TO/export.json    which run, step and precision
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart import __version__, methods
from headstart.core.bounds import refuse_outside
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write, called_by, whole_folder, write_json
from headstart.core.run import read_run
from headstart.core.words import plural, share
from headstart.engine.checkpoint import fetch_export, fetch_totals
from headstart.engine.checkpoint_places import Place
from headstart.engine.export_hashes import copy_export, write_hashes
from headstart.interop.rounded import round_weights
from headstart.verbs._card import CARD, write_cards
from headstart.verbs._export_settings import EXPORT, PRECISIONS, Precision, refuse_other, refuse_place
from headstart.verbs._exports import checkpoints_of
from headstart.verbs._kinds import Kind, kind_of

RECORD = "export.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        folder: the model.
        info: export.json.
        load: Python that loads it, in one line.
        size: bytes of all files.
        changed: of rounded weights, the largest change of what the network says of made-up records, as a share of its largest value; else None.
    """

    folder: Path
    info: dict[str, Any]
    load: str
    size: int
    changed: float | None


def export(
    run: str | Path, to: str | Path, *, step: int | None = None, precision: Precision = "as-trained", say: Callable[[str], None] = print
) -> Exported:
    """Puts the usable model of a run into a folder of its own, whole or not at all.

    Args:
        run: a run folder. It is only read, and may still go on.
        to: a new folder.
        step: of the checkpoint whose export is taken, on this disk or in the object store where the run keeps its checkpoints; None: the end of the
            run, or its newest checkpoint.
        precision: bf16 rounds the weights: half the size.

    Raises:
        BadInput: not a run, or a file of the export is not what was written.
        UsageError: the run has no export of this step (those that it has are named), or something lies at `to`.
    """
    refuse_outside({"step": step}, EXPORT)
    refuse_other("--precision", precision, PRECISIONS)
    refuse_place(to, "--to")
    folder, to = Path(run), Path(to)
    info = read_run(folder)
    if missing := {"method", "preset", "config", "data"} - info.keys():
        raise BadInput(f"has no entry {min(missing)!r}.", "Let the run begin first.", file=folder / "run.json")
    kind = kind_of(methods.load(info["method"]))
    found, at_end = find(folder, info, step)
    with whole_folder(to) as new, called_by(new, to):
        place = checkpoints_of(folder, info, new.parent / "fetched")
        files = copy_export(folder / "export", new) if at_end else copy_checkpoint(place, found, folder, new, info)
        before = answered(new, kind)
        changed = rounded(new, kind, before) if precision == "bf16" else None
        whose = {"id": info.get("id"), "name": folder.absolute().name}
        record: dict[str, Any] = {"format_version": FORMAT_VERSION, "headstart": __version__, "run": whose}
        record |= {"method": info["method"], "preset": info["preset"], "step": found, "of_steps": steps_of(info), "precision": precision}
        write_json(new / RECORD, record)
        write_hashes(new)
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    done = Exported(to, record, kind.load_line(to), size, changed)
    for line in lines(done, files, at_end):
        say(line)
    return done


def find(folder: Path, info: dict[str, Any], step: int | None) -> tuple[int, bool]:
    """(step, whether it is the end of the run) of the export that is meant.

    Raises:
        UsageError: there is none.
    """
    ended = info.get("status") == "done" and (folder / "export").is_dir()
    end = int(info["totals"].get("steps", 0)) if ended else None
    if end is not None and step in (None, end):
        return end, True
    steps = checkpoints_of(folder, info, folder / "checkpoints").steps()
    if step in steps:
        return step, False
    there = sorted({*steps, *([] if end is None else [end])})
    if not there:
        raise UsageError(f"The run {folder} has no export yet.", "Let it reach its first checkpoint.")
    if step is None:
        return there[-1], False
    several = f"one of {', '.join(map(str, there[-20:]))}" if len(there) > 1 else str(there[0])
    raise UsageError(f"The run {folder} has no export of step {step}.", f"Give --step {several}; a run keeps its newest checkpoints alone.")


def copy_checkpoint(place: Place, step: int, folder: Path, new: Path, info: dict[str, Any]) -> int:
    """The export beside a checkpoint, and a card of that moment. Returns the number of files."""
    try:
        files = copy_export(fetch_export(place, step), new)
        totals = fetch_totals(place, step)
    except (BadInput, OSError):
        if step in place.steps():
            raise
        raise UsageError(f"{folder} replaced its checkpoint of step {step} while it was read.", "Give the same command again.") from None
    finally:
        place.forget()
    measured = {"sentence": f"Not measured at this moment: the weights are those after step {step:,} of {steps_of(info) or step:,}."}
    write_cards(new, folder, info | {"totals": totals | {"steps": step}, "verdict": measured})
    return files


def steps_of(info: dict[str, Any]) -> int | None:
    """Of the whole run; None: run.json does not say it."""
    steps = info.get("decisions", {}).get("total_steps")
    return steps if isinstance(steps, int) else None


def rounded(new: Path, kind: Kind, before: Tensor) -> float:
    """Rounds the weights of the copy. Returns the largest change of what it says, as a share of the largest value."""
    round_weights(new)
    change = float((answered(new, kind) - before).abs().max() / before.abs().max().clamp(min=1e-6))
    for card in new.rglob(CARD):
        text = card.read_text(encoding="utf-8")
        with atomic_write(card) as file:
            note = f"The weights were rounded to bfloat16, which changes what the network says of made-up records by at most {share(change)}"
            file.write(f"{text.rstrip()}\n\n## Precision\n\n{note} of the largest value.\n".encode())
    return change


def answered(new: Path, kind: Kind) -> Tensor:
    """What the copy, loaded, says of made-up records.

    Raises:
        BadInput: it does not load, or says numbers that are not finite.
    """
    found = kind.answers(new)
    if not bool(torch.isfinite(found).all()):
        raise BadInput("says numbers that are not finite.", "Give --step of an earlier checkpoint.", file=new)
    return found


def lines(done: Exported, files: int, at_end: bool) -> list[str]:
    """What a person reads."""
    info = done.info
    steps = "" if info["of_steps"] is None else f" of {info['of_steps']:,}"
    of = f"{info['method']} ({info['preset']}), {'the end of the run' if at_end else 'a checkpoint'}: step {info['step']:,}{steps}"
    whole = "each as it was written" if done.changed is None else "each checked before its weights were rounded"
    said = [f"{done.folder}: {of}; {plural(files, 'file')}, {done.size / 2**20:,.2f} MiB, {whole}; loaded again, it answers."]
    if done.changed is not None:
        said.append(f"Rounded to bfloat16: what it says of made-up records changes by at most {share(done.changed)} of the largest value.")
    said.append(f"Load it:   {done.load}")
    if (done.folder / "timm.safetensors").is_file():
        said.append(f"With the names of timm: {done.folder / 'timm.safetensors'}")
    return said
