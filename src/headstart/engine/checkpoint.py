"""Checkpoints: written by all processes of a run while it goes on, whole or absent, hashed, without pickle; read by any number of processes.

A checkpoint holds `state-00001.safetensors` and so on (one of each process that wrote), `state.json` (how the state nests, its numbers and
strings), `export/` (the usable model of that moment) and `manifest.json` (a SHA-256 of every file). A kill at any moment leaves either the whole
checkpoint or none, and a damaged newest one falls back to the one before. The training loop pays only for the copy to host memory: writing,
hashing and flushing happen in a thread (docs/decisions/0009-distributed-checkpoints.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_json, sha256_file, write_json
from headstart.core.machine import refuse_limits
from headstart.engine.checkpoint_files import flush_and_hash, sendable_errors
from headstart.engine.checkpoint_places import MANIFEST, MAX_MANIFEST_BYTES, Owner, Place, Remote, place_of
from headstart.engine.checkpoint_state import HostBuffers, keys_of, pack, unpack
from headstart.engine.distributed import ALONE, Ranks

if TYPE_CHECKING:
    from torch.distributed.checkpoint.planner import WriteItem

FORMAT_VERSION = 2
READABLE = (1, 2)
"""Version 1 had one file, `state.safetensors`, of one process: what version 2 writes where there is one process, under another name."""
KEEP = 2  # the newest ones; more only when asked for
SKELETON = "state.json"

_MEND = "Remove this folder to use the checkpoint before it."


class Checkpointer:
    """Writes and finds the checkpoints of one run. Every process of the run makes one, and calls its functions at the same steps.

    Args:
        folder: `runs/NAME/checkpoints`, on a disk that all processes see; or an fsspec URL.
        keep: how many of the newest to keep.
        keep_every: checkpoints whose step is a multiple of it are kept for ever.
        ranks: the processes of the run.
        scratch: with a URL, the local folder where files lie before they are uploaded.
        owner: the run, which goes into each manifest; a checkpoint of another is refused. None: whoever comes.
        committed: called on the first process, in the thread that writes, with the step of each checkpoint that is whole.
    """

    def __init__(
        self,
        folder: Path | str,
        keep: int = KEEP,
        *,
        keep_every: int | None = None,
        ranks: Ranks = ALONE,
        scratch: Path | None = None,
        owner: Owner | None = None,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        self.place: Place = place_of(folder, scratch)
        self.keep = keep
        self.keep_every = keep_every
        self.ranks = ranks
        self.owner = owner
        self.committed = committed
        self._buffers = HostBuffers()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if ranks.first:  # leftovers of a killed process; the run folder's lock says that it is dead
            for leftover in self.place.folder.glob(".writing-*"):
                shutil.rmtree(leftover)
            if isinstance(self.place, Remote):
                self.place.clear_unfinished()

    def save(self, step: int, state: dict[str, Any], export: Callable[[Path], None] | None = None) -> None:
        """Starts writing the state after `step` updates. Returns once the tensors are copied to host memory.

        Args:
            state: nested dicts and lists of tensors, numbers and strings. A DTensor is written by all processes, each its shard; anything else by the
                first, and is the same on every process.
            export: writes the usable model of this moment; it runs here, while the weights are the checkpoint's, on every process.

        Raises:
            Exception: what went wrong with the checkpoint before this one, or with the export; on every process.
        """
        from headstart.engine.checkpoint_storage import plan_of

        self.wait()
        beside = self.place.folder / f".writing-{step:08d}"
        staged: list[Any] = []

        def stage() -> None:
            if export is not None:
                export(beside / "export")
            tensors: dict[str, Tensor] = {}
            skeleton = pack(state, tensors)
            items = plan_of(tensors, first=self.ranks.first)
            staged[:] = items, self._buffers.copy({item.index.fqn: tensors[item.index.fqn] for item in items}), skeleton

        try:
            self._together(lambda: beside.mkdir(parents=True) if self.ranks.first else None)
            self._together(stage)
        except BaseException:
            self._discard(beside)
            raise
        self._pending = self._pool.submit(self._write, step, beside, *staged)

    def _write(self, step: int, beside: Path, items: list[WriteItem], copies: dict[str, Tensor], skeleton: Any) -> None:
        from headstart.engine.checkpoint_storage import write_tensors

        def finish(hashes: dict[str, str]) -> None:
            write_json(beside / SKELETON, skeleton)
            for path in sorted(path for path in beside.rglob("*") if path.is_file()):
                name = path.relative_to(beside).as_posix()
                if name not in hashes:
                    hashes[name] = flush_and_hash(path)
            whose = {} if self.owner is None else {"run": asdict(self.owner)}
            write_json(beside / MANIFEST, {"format_version": FORMAT_VERSION, "step": step, **whose, "sha256": dict(sorted(hashes.items()))})
            self.place.commit(beside, step)
            if self.committed is not None:
                self.committed(step)
            self._remove_superseded(step)

        def begin() -> None:
            if self.owner is not None:
                self.place.refuse_other_owner(self.owner)
            self.place.clear(step)

        try:
            write_tensors(
                beside,
                items,
                copies,
                self.ranks,
                begin=begin,
                written=lambda file: self.place.keep_file(beside, file, step),
                finish=finish,
            )
        except BaseException:
            self._discard(beside)
            raise

    def _remove_superseded(self, step: int) -> None:
        """Removes what this checkpoint makes superfluous. One of a later step is damaged: the run fell back from it, and it does not count."""
        if self.ranks.first:
            for old in [found for found in self.place.steps() if found <= step][: -self.keep]:
                if not self.keep_every or old % self.keep_every:
                    self.place.remove(old)

    def _discard(self, beside: Path) -> None:
        if self.ranks.first:
            shutil.rmtree(beside, ignore_errors=True)

    def _together(self, work: Callable[[], None]) -> None:
        """Does `work`; where it fails on one process, the error is raised on all of them."""
        error: Exception | None = None
        try:
            with sendable_errors():
                work()
        except Exception as caught:
            error = caught
        if self.ranks.world > 1:
            error = next((other for other in self.ranks.gather(error) if other is not None), None)
        if error is not None:
            raise error

    def wait(self) -> None:
        """Blocks until the checkpoint that is being written is safe; raises what went wrong, on every process."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._buffers.free()

    def list(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return self.place.steps()

    def load_newest(self, say: Callable[[str], None], like: Mapping[str, Tensor] | None = None) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest checkpoint that is whole, or None when there is none. Every process gets the same one.

        Args:
            say: gets a line for each checkpoint that is damaged, on the first process.
            like: parameter name -> the live parameter. A tensor that lies under this name in the state, with its shape, comes back cut like it where
                it is a DTensor; all others come back whole, on the CPU.

        Raises:
            BadInput: there are checkpoints, and all of them are damaged.
            UsageError: the newest one that is whole belongs to another run.
        """
        steps = self.ranks.broadcast(self.list() if self.ranks.first else [])
        for step in reversed(steps):
            found = self._load(step, like or {}, say)
            if found is not None:
                self._together(partial(self._remove_superseded, step))  # a process may have been killed before it did
                return step, found
        if steps:
            folder = self.place.url(steps[-1]).rsplit("/", 1)[0]
            raise BadInput("every checkpoint of this run is damaged.", "Start again in another --out.", file=folder)
        return None

    def _load(self, step: int, like: Mapping[str, Tensor], say: Callable[[str], None]) -> dict[str, Any] | None:
        """The state of one checkpoint; None on every process when one of them finds it damaged."""
        folder: Path | None = None
        state: dict[str, Any] | None = None
        damage: str | None = None
        error: Exception | None = None
        try:
            if self.ranks.first:
                folder = _verified(self.place, step, self.owner)
        except BadInput as caught:
            damage = caught.reason
        except Exception as caught:  # a network that is down is no reason to lose steps
            error = caught
        folder, damage, error = self.ranks.broadcast((folder, damage, error))
        if error is not None:
            raise error
        if folder is not None:
            try:
                state = _read(folder, like)
            except BadInput as caught:
                damage = caught.reason
            damage = next((other for other in self.ranks.gather(damage) if other is not None), None)
        if self.ranks.first:
            self.place.forget()
        if damage is None:
            return state
        if self.ranks.first:
            say(f"{self.place.url(step)}: {damage} Falling back to the checkpoint before it.")
        return None


def load_before(place: Place, step: int, owner: Owner, say: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
    """(step, state on the CPU) of the newest whole checkpoint that lies before `step`, or None. Nothing is cleaned up or written: the run that owns
    them may go on meanwhile.

    Raises:
        UsageError: it belongs to another run than `owner`.
    """
    try:
        for found in reversed([found for found in place.steps() if found < step]):
            try:
                return found, _read(_verified(place, found, owner), {})
            except BadInput as damaged:
                say(f"{place.url(found)}: {damaged.reason}")
    finally:
        place.forget()
    return None


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Any]]:
    """(step, state on the CPU) of one local checkpoint, its hashes verified.

    Raises:
        BadInput: a file is missing, changed, or not ours.
    """
    manifest = _manifest(folder)
    _verify(folder, manifest.state)
    return manifest.step, _read(folder, {})


def fetch_export(place: Place, step: int) -> Path:
    """A local folder with the export beside a checkpoint, its hashes compared. `place.forget` removes what was brought.

    Raises:
        BadInput: a file is missing, changed, or not ours.
    """
    manifest = _manifest(place.fetch(step, [MANIFEST]))
    if not manifest.export:
        raise BadInput("has no export.", "Give another model folder.", file=place.url(step))
    folder = place.fetch(step, sorted(f"export/{name}" for name in manifest.export)) / "export"
    _verify(folder, manifest.export)
    return folder


def fetch_totals(place: Place, step: int) -> dict[str, float]:
    """What a checkpoint counts: tokens, flops, wall_s. `place.forget` removes what was brought.

    Raises:
        BadInput: a file is missing, changed, or not ours.
    """
    manifest = _manifest(place.fetch(step, [MANIFEST]))
    path = own_file(place.fetch(step, [SKELETON]), SKELETON)
    found: Any = read_json(path) if sha256_file(path) == manifest.state[SKELETON] else None
    try:
        counted = {name: unpack(value, {}) for name, value in found["__items__"] if name in ("tokens", "flops", "wall_s")}
        return {name: counted[name] for name in ("tokens", "flops", "wall_s")}
    except (TypeError, ValueError, LookupError):
        raise BadInput(f"is damaged: {SKELETON} is not what was written.", _MEND, file=path.parent) from None


def refuse_foreign(place: Place, owner: Owner) -> None:
    """Looks at every checkpoint in `place`, which saving would replace or remove sooner or later. Damaged ones are not judged here.

    Raises:
        UsageError: one belongs to another run.
    """
    try:
        for step in place.steps():
            try:
                owner.refuse(_manifest(place.fetch(step, [MANIFEST])).run, place.url(step))
            except BadInput:
                continue
    finally:
        place.forget()


def _verified(place: Place, step: int, owner: Owner | None) -> Path:
    """The local folder of a checkpoint, its files brought there and their hashes compared.

    Raises:
        BadInput: a file is missing, changed, or not ours. UsageError: it is whole, and another run's.
    """
    folder = place.fetch(step, [MANIFEST])
    manifest = _manifest(folder)
    place.fetch(step, sorted(manifest.state))
    _verify(folder, manifest.state)
    if owner is not None:
        owner.refuse(manifest.run, place.url(step))
    return folder


@dataclass(frozen=True)
class _Manifest:
    step: int
    state: dict[str, str]  # name -> SHA-256 of the files that a run continues from
    export: dict[str, str]  # of the usable model
    run: Any  # the owner; None in older ones


def _manifest(folder: Path) -> _Manifest:
    """The manifest of a local checkpoint.

    Raises:
        BadInput: it is missing, not ours, or of a version that we do not read.
    """
    try:
        manifest = read_json(own_file(folder, MANIFEST), MAX_MANIFEST_BYTES)
    except BadInput as error:
        raise BadInput(f"is damaged: {MANIFEST} {error.reason}", _MEND, file=folder) from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version not in READABLE:
        raise BadInput(f"has checkpoint format {version}; this version reads {' and '.join(map(str, READABLE))}.", _MEND, file=folder)
    step, hashes = manifest.get("step"), manifest.get("sha256")
    if not isinstance(step, int) or not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise BadInput(f"is damaged: {MANIFEST} lacks its fields.", _MEND, file=folder)
    names = {name: value for name, value in hashes.items() if "/" not in name}  # the export is not needed to go on
    export = {name.removeprefix("export/"): value for name, value in hashes.items() if name.startswith("export/")}
    if SKELETON not in names or any(part in ("", ".", "..") or "\0" in part for name in hashes for part in name.split("/")):
        raise BadInput(f"is damaged: {MANIFEST} names no state of ours.", _MEND, file=folder)
    return _Manifest(step, names, export, manifest.get("run"))


def _verify(folder: Path, names: Mapping[str, str]) -> None:
    """Raises BadInput unless these are the files that were written, and no other would be read."""
    for name, sha256 in names.items():
        try:
            found = sha256_file(own_file(folder, name))
        except BadInput as error:
            raise BadInput(f"is damaged: {name} {error.reason}", _MEND, file=folder) from None
        except OSError as error:
            refuse_limits(error, folder / name)
            raise BadInput(f"is damaged: {name} cannot be read ({error.strerror}).", _MEND, file=folder) from None
        if found != sha256:
            raise BadInput(f"is damaged: {name} is not what was written.", _MEND, file=folder)
    strange = sorted(path.name for path in folder.iterdir() if path.name.endswith(".safetensors") and path.name not in names)
    if strange:
        raise BadInput(f"is damaged: {strange[0]} is not in its manifest.", _MEND, file=folder)


def _read(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state in a folder whose files were verified. Raises BadInput: they are whole, but no checkpoint."""
    from headstart.engine.checkpoint_storage import read_tensors

    try:
        skeleton = read_json(folder / SKELETON)
        wanted: dict[str, set[str]] = {}
        for name, keys in keys_of(skeleton):
            wanted.setdefault(name, set()).update(keys)
        state = unpack(skeleton, read_tensors(folder, wanted, like))
        if not isinstance(state, dict):
            raise TypeError("its state is no mapping")
    except BadInput as error:
        raise BadInput(f"is damaged: {error.reason}", _MEND, file=folder) from None
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError, OverflowError) as error:
        refuse_limits(error, folder)
        raise BadInput(f"is damaged: {type(error).__name__}: {error}.", _MEND, file=folder) from None
    return state
