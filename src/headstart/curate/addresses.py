"""Where the input of curation lies: files of this machine, of object stores and of web servers, found and opened.

An address is a path, a folder, a glob, or anything that fsspec opens (s3://, https://). A connection that breaks is taken up again where it broke;
what cannot be read in the end is an error that names the file, never a record that counts as damaged.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from headstart.core.errors import BadInput, HeadstartError, MachineError, MissingDependency
from headstart.core.listing import walk
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.curate.config import ReadConfig

KINDS = (".warc", ".warc.gz", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
BUFFER = 1 << 20
WEB = ("http", "https")
REFUSED = (401, 403, 404, 410)
"""Answers of a web server that another try does not change."""
AGAIN = "Check it, then give the same command: it goes on with the files that are missing."


@dataclass(frozen=True)
class Source:
    """One input file: its address and bytes (-1 where the server does not say)."""

    address: str
    size: int


def find_sources(addresses: Sequence[str], config: ReadConfig | None = None) -> list[Source]:
    """The files that the addresses name, each address's in order of their names.

    Raises:
        BadInput: an address names nothing that is read here. MissingDependency: it needs a package that is not installed.
    """
    config = config or ReadConfig()
    found: list[Source] = []
    for address in addresses:
        some = _remote(address, config) if "://" in address else _local(address)
        if not some:
            raise BadInput(f"{address} names no file.", f"Give files that end in {', '.join(KINDS)}, a folder of them, or a glob.")
        found += some
    first: dict[str, Source] = {}
    for source in found:
        first.setdefault(source.address, source)
    return list(first.values())


def kind_of(address: str) -> str | None:
    """The one of KINDS that an address ends in, before what is asked of a web server (?token=..); None: it is no input."""
    name = address.partition("?")[0] if address.startswith(tuple(f"{protocol}://" for protocol in WEB)) else address
    return max((kind for kind in KINDS if name.endswith(kind)), key=len, default=None)


def _local(address: str) -> list[Source]:
    path = Path(address).expanduser()
    if path.is_dir():
        files = [file for file in walk(path) if kind_of(file.name)]
    elif any(sign in address for sign in "*?["):
        root = Path(path.anchor or ".")
        files = sorted(file for file in root.glob(str(path.relative_to(root) if path.is_absolute() else path)) if kind_of(file.name))
    else:
        files = [path] if path.exists() else []
        if files and not kind_of(path.name):
            raise BadInput(f"is none of {', '.join(KINDS)}.", "Rename or convert it.", file=path)
    return [Source(str(file.resolve()), file.stat().st_size) for file in files if file.is_file()]


def _remote(address: str, config: ReadConfig) -> list[Source]:
    system, path = _system(address, config)
    if not any(sign in address for sign in "*[") and not kind_of(address):
        raise BadInput(f"is none of {', '.join(KINDS)}.", "Give files, or a glob of them: s3://bucket/folder/*.warc.gz.", file=address)
    try:
        listed: dict[str, Any] = {path: {}}
        if any(sign in path for sign in ("*[" if address.startswith(WEB) else "*?[")):
            listed = tried(partial(system.glob, path, detail=True), config.tries)
        found = []
        for one, about in sorted(listed.items()):
            if one != path and not kind_of(one):
                continue
            if about.get("size") is None:  # a list of a web server has no sizes
                about = tried(partial(system.info, one), config.tries)
            if about.get("type") != "directory":
                found.append(Source(system.unstrip_protocol(one), -1 if about.get("size") is None else int(about["size"])))
        return found
    except Exception as error:  # each file system has errors of its own
        refuse_limits(error, address)
        raise BadInput(f"{address} cannot be reached ({in_words(error)}).", "Check the address, the network and your credentials.") from error


def _system(address: str, config: ReadConfig) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        BadInput: no such file system. MissingDependency, MachineError: it needs a package that is not installed.
    """
    import fsspec

    protocol = address.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}  # what lay there an hour ago may be gone
    if protocol in ("s3", "s3a"):
        options |= {"config_kwargs": {"connect_timeout": config.timeout_s, "read_timeout": config.timeout_s}}
    try:
        if protocol in WEB:
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=config.timeout_s, sock_read=config.timeout_s)
            options |= {"client_kwargs": {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}}  # the file itself, not packed for the way
        system, path = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        if protocol in ("s3", "s3a"):
            raise MissingDependency("s3fs", "s3", f"Reading {protocol}:// addresses") from error
        raise MachineError(f"{protocol}:// addresses cannot be read: {first_line(error)}.", "Install what it names.") from error
    except ValueError as error:
        raise BadInput(f"{address} cannot be opened: {first_line(error)}.", "Give a path, or an address such as s3:// or https://.") from error
    return system, path


def tried(work: Callable[[], Any], tries: int, between: Callable[[], None] = lambda: None) -> Any:
    """What `work` gives in one of `tries`, with pauses of 1, 2, 4 ... seconds. Raises what the last one raised, or one that no other try changes.

    Args:
        between: called after each that failed.
    """
    for number in range(tries):
        try:
            return work()
        except Exception as error:  # each file system has errors of its own
            between()
            if number == tries - 1 or isinstance(error, HeadstartError) or _is_final(error):
                raise
            time.sleep(2.0**number)
    raise AssertionError("there is at least one try")


def in_words(error: BaseException) -> str:
    """What happened, where fsspec hides it: its web addresses that cannot be asked for are missing files."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
    status = getattr(cause, "status", None)
    if status is not None:
        return f"the server answers {status} {getattr(cause, 'message', '')}".rstrip()
    if isinstance(cause, TimeoutError):
        return "no answer in time; --read.timeout-s gives it more"
    return ": ".join(filter(None, [type(cause).__name__, first_line(cause)]))


@contextmanager
def open_source(address: str, config: ReadConfig | None = None) -> Iterator[BinaryIO]:
    """The bytes of an address. Reading raises BadInput where they do not come."""
    with io.BufferedReader(_SourceFile(address, config or ReadConfig()), BUFFER) as file:
        yield cast(BinaryIO, file)


class _SourceFile(io.RawIOBase):
    """A file that is read to its end, or an error that says why not."""

    def __init__(self, address: str, config: ReadConfig) -> None:
        self._address, self._config = address, config
        self._web = address.startswith(tuple(f"{protocol}://" for protocol in WEB))
        self._remote = "://" in address
        self._at, self._size = 0, -1
        self._handle: Any = None
        self._streams = False  # one answer from the beginning, for servers that give no ranges
        self._held(self._opened)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size < 0:
            raise BadInput("comes without its size, which this form of file needs.", "Download it first.", file=self._address)
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._held(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._forget()
        super().close()

    def _held(self, work: Callable[[], Any]) -> Any:
        """What `work` gives.

        Raises:
            BadInput: it gives nothing, however often it is tried.
        """
        try:
            return tried(work, self._config.tries if self._remote else 1, self._forget)
        except HeadstartError:
            raise
        except Exception as error:  # each file system has errors of its own
            refuse_limits(error, self._address)
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> BadInput:
        if not self._remote:
            where = "Check the file; on a cluster every machine must see it under this path."
            return BadInput(f"cannot be read ({getattr(error, 'strerror', None) or error}).", where, file=self._address)
        read = f" behind its first {self._at:,} bytes" if self._at else ""
        return BadInput(f"cannot be read{read} ({in_words(error)}).", AGAIN, file=self._address)

    def _opened(self) -> Any:
        if self._handle is None:
            if not self._remote:
                self._handle = Path(self._address).open("rb", buffering=0)  # noqa: SIM115 (closed with this file)
                self._size = Path(self._address).stat().st_size
                return self._handle
            system, path = _system(self._address, self._config)
            size = system.info(path).get("size")
            self._size = -1 if size is None else int(size)
            self._handle = system.open(path, "rb", **({"block_size": 0} if self._streams else {}))
        return self._handle

    def _read(self, size: int) -> bytes:
        handle = self._opened()
        if handle.tell() != self._at:
            handle = self._moved(handle)
        try:
            data: bytes = handle.read(size)
        except ValueError:  # fsspec's word for a server that gives no ranges
            if self._streams or not self._web:
                raise
            self._streams = True
            self._forget()
            return self._read(size)
        if not data and 0 <= self._at < self._size:
            raise EOFError(f"it ends there, and has {self._size:,} bytes by its own account")
        return data

    def _moved(self, handle: Any) -> Any:
        """At the place that is read next; what cannot seek begins anew and is read up to there."""
        try:
            handle.seek(self._at)
            return handle
        except ValueError:
            if handle.tell() > self._at:
                self._forget()
                handle = self._opened()
        while left := self._at - handle.tell():
            if not handle.read(min(left, BUFFER)):
                raise EOFError("it ends before that")
        return handle

    def _forget(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                handle.close()
            except Exception:  # of a broken connection
                return


def _is_final(error: Exception) -> bool:
    """Whether another try is in vain: there is no such file, or it is not ours to read."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None:
        return getattr(cause, "status", None) in REFUSED
    return isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "status", None) in REFUSED
