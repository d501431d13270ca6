"""Where checkpoints lie: a local folder, or an object store behind an fsspec URL.

A local checkpoint is written into a hidden folder beside its place and renamed. An object store has no rename: there the manifest is uploaded
last, and what has no manifest is no checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headstart.core.errors import BadInput, MachineError, MissingDependency, UsageError
from headstart.core.files import open_lock, sync_folder
from headstart.core.words import first_line

MANIFEST = "manifest.json"
OWNER = "owner.json"
"""Of an object store, where no lock can be held: the run whose checkpoints lie there."""
MAX_MANIFEST_BYTES = 64 * 2**20
_NAME = re.compile(r"step-(\d{8,18})")
_HIDDEN = ".writing-"


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def steps_in(names: list[str]) -> list[int]:
    """The steps that these names of folders stand for, in order."""
    found = [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
    return sorted(step for step in found if name_of(step) in names)


@dataclass(frozen=True)
class Owner:
    """The run that checkpoints belong to."""

    id: str
    """Drawn when its run.json began."""
    name: str
    """Its folder, for a person."""
    total_steps: int | None = None
    precision: str | None = None
    """What its trial decided once for all; None: not known yet."""

    def refuse(self, entry: Any, place: str) -> None:
        """Called with what a manifest says of the run that wrote it (nothing, before there were owners).

        Raises:
            UsageError: it was another run; or this one, when its run.json said something else.
        """
        if not isinstance(entry, Mapping):
            return
        if entry.get("id") != self.id:
            raise UsageError(
                f"{place} belongs to another run ({entry.get('name')}), not to {self.name}.",
                "Move it away; or, to keep both runs, give this one a --trainer.checkpoint-folder and an --out of its own.",
            )
        for name in ("total_steps", "precision"):
            mine, theirs = getattr(self, name), entry.get(name)
            if mine is not None and theirs is not None and mine != theirs:
                raise UsageError(
                    f"run.json of {self.name} says {name} {mine!r}, but its checkpoint {place} was written with {theirs!r}.",
                    f"Set it back to {theirs!r}: run.json is no place to change a run.",
                )


class Place(Protocol):
    """What a `Checkpointer` asks of the place of its checkpoints. Where a run has several processes, only the first calls it, but for `keep_file`."""

    folder: Path
    """A local folder; hidden folders for what is being written lie in it."""

    def steps(self) -> list[int]: ...

    def url(self, step: int) -> str:
        """The place of one checkpoint, for a person."""

    def clear(self, step: int) -> None:
        """Makes room for a checkpoint of `step` where an unfinished one may lie."""

    def keep_file(self, beside: Path, file: Path, step: int) -> None:
        """Takes a finished file of the folder `beside`."""

    def commit(self, beside: Path, step: int) -> None:
        """Makes the checkpoint in `beside` exist, all at once. Its manifest is written."""

    def remove(self, step: int) -> None: ...

    def fetch(self, step: int, names: list[str]) -> Path:
        """A local folder that holds these files of a checkpoint."""

    def forget(self) -> None:
        """Removes what `fetch` brought."""

    def claim(self, owner: Owner) -> ExitStack:
        """Takes the place for a run, until what is returned is closed.

        Raises:
            UsageError: another run has it.
        """

    def refuse_other_owner(self, owner: Owner) -> None:
        """Before each checkpoint: raises UsageError where another run took the place in the same moment."""


def place_of(folder: Path | str, scratch: Path | None) -> Place:
    """The place that a path or URL names.

    Args:
        scratch: a local folder for the files on their way to and from an object store.

    Raises:
        MissingDependency, UsageError: fsspec cannot open the URL.
    """
    if isinstance(folder, str) and "://" in folder and not folder.startswith("file://"):
        if scratch is None:
            raise UsageError(f"Checkpoints at {folder} need a local folder for files on their way.", "Give one as `scratch`.")
        return Remote(folder, scratch)
    return Local(Path(str(folder).removeprefix("file://")))


class Local:
    """A folder, on a disk that all processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        return steps_in([path.name for path in self.folder.iterdir() if path.is_dir()]) if self.folder.is_dir() else []

    def url(self, step: int) -> str:
        return str(self.folder / name_of(step))

    def clear(self, step: int) -> None:
        pass

    def keep_file(self, beside: Path, file: Path, step: int) -> None:
        pass

    def commit(self, beside: Path, step: int) -> None:
        for folder, _, _ in os.walk(beside):
            sync_folder(Path(folder))
        self.remove(step)  # a damaged one that the run fell back from
        beside.rename(self.folder / name_of(step))
        sync_folder(self.folder)

    def remove(self, step: int) -> None:
        place, hidden = self.folder / name_of(step), self.folder / f"{_HIDDEN}removed-{step:08d}"
        if place.is_dir():  # hidden first: a kill while it is removed leaves no half of it to be found
            place.rename(hidden)
            shutil.rmtree(hidden)

    def fetch(self, step: int, names: list[str]) -> Path:
        return self.folder / name_of(step)

    def forget(self) -> None:
        pass

    def claim(self, owner: Owner) -> ExitStack:
        """A lock of the kernel: a second run is refused while this one lives; afterwards by the manifests of what lies there."""
        held = ExitStack()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open_lock(self.folder / ".lock"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            mend = "Wait for it, or give this one a --trainer.checkpoint-folder of its own."
            raise UsageError(f"Another run writes its checkpoints to {self.folder}.", mend) from None
        except OSError as error:
            held.close()
            raise UsageError(f"Checkpoints cannot go to {self.folder}: {error.strerror}.", "Give another --trainer.checkpoint-folder.") from None
        return held

    def refuse_other_owner(self, owner: Owner) -> None:
        pass


class Remote:
    """A folder of an object store: "s3://bucket/runs/mine", "gs://...", "memory://..." - whatever fsspec and its packages know."""

    def __init__(self, url: str, scratch: Path) -> None:
        self.folder = scratch
        self.root = url.rstrip("/")
        self.fs, self.path = _open(self.root)

    def steps(self) -> list[int]:
        with self._reached():
            self.fs.invalidate_cache()
            return steps_in([str(name).split("/")[-2] for name in self.fs.glob(f"{self.path}/step-*/{MANIFEST}")])

    def url(self, step: int) -> str:
        return f"{self.root}/{name_of(step)}"

    def clear(self, step: int) -> None:
        self.remove(step)

    def clear_unfinished(self) -> None:
        """Removes what a killed process uploaded in part."""
        whole = set(self.steps())
        with self._reached():
            names = [str(name).rsplit("/", 1)[-1] for name in self.fs.glob(f"{self.path}/step-*")]
        for step in steps_in(names):
            if step not in whole:
                self.remove(step)

    def keep_file(self, beside: Path, file: Path, step: int) -> None:
        with self._reached():
            self.fs.put_file(str(file), f"{self.path}/{name_of(step)}/{file.relative_to(beside).as_posix()}")
        file.unlink()

    def commit(self, beside: Path, step: int) -> None:
        files = sorted(path for path in beside.rglob("*") if path.is_file() and path != beside / MANIFEST)
        for file in [*files, beside / MANIFEST]:
            self.keep_file(beside, file, step)
        shutil.rmtree(beside)

    def remove(self, step: int) -> None:
        place = f"{self.path}/{name_of(step)}"
        with self._reached():
            self.fs.invalidate_cache()
            if self.fs.exists(f"{place}/{MANIFEST}"):
                self.fs.rm_file(f"{place}/{MANIFEST}")  # without it the rest is no checkpoint
            self.fs.invalidate_cache()
            if self.fs.exists(place):
                self.fs.rm(place, recursive=True)

    def fetch(self, step: int, names: list[str]) -> Path:
        to = self.folder / f"{_HIDDEN}fetched"
        to.mkdir(parents=True, exist_ok=True)
        for name in names:
            with self._reached():
                found = self.fs.exists(f"{self.path}/{name_of(step)}/{name}")
                if found:
                    (to / name).parent.mkdir(parents=True, exist_ok=True)
                    self.fs.get_file(f"{self.path}/{name_of(step)}/{name}", str(to / name))
            if not found:
                raise BadInput(f"is damaged: {name} is missing.", "Remove this folder to use the checkpoint before it.", file=self.url(step))
        return to

    def forget(self) -> None:
        shutil.rmtree(self.folder / f"{_HIDDEN}fetched", ignore_errors=True)

    def claim(self, owner: Owner) -> ExitStack:
        """A small file says whose it is: two runs that begin in one moment both write it, and the one that finds the other's before its first
        checkpoint ends."""
        self.refuse_other_owner(owner)
        with self._reached():
            self.fs.pipe_file(f"{self.path}/{OWNER}", json.dumps({"id": owner.id, "name": owner.name}).encode())
        return ExitStack()

    def refuse_other_owner(self, owner: Owner) -> None:
        with self._reached():
            self.fs.invalidate_cache()
            raw = self.fs.cat_file(f"{self.path}/{OWNER}") if self.fs.exists(f"{self.path}/{OWNER}") else b"{}"
        try:
            entry = json.loads(raw)
        except ValueError:
            raise BadInput("is damaged.", "Remove it if no other run writes there.", file=f"{self.root}/{OWNER}") from None
        owner.refuse(entry or None, self.root)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Within the block the object store is asked; each of their packages has its own errors for one that does not answer."""
        try:
            yield
        except Exception as error:
            what = f"{self.root} could not be read or written: {type(error).__name__}: {first_line(error)}."
            raise MachineError(what, "Look at the network, the address and the credentials, then give the same command: it continues.") from error


def _open(url: str) -> tuple[Any, str]:
    """(file system, path) of a URL."""
    import fsspec.core

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        if url.startswith(("s3://", "s3a://")):
            raise MissingDependency("s3fs", "s3", f"The checkpoint folder {url}") from None
        raise UsageError(f"The checkpoint folder {url} cannot be opened: {error}.", "Install what it names, or give a local folder.") from None
    except ValueError as error:
        raise UsageError(f"The checkpoint folder {url} cannot be opened: {error}.", "Give a local folder, or a URL that fsspec knows.") from None
    return fs, str(path).rstrip("/")
