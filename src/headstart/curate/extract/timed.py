"""`extract` in a process of its own, so that limits hold: C code cannot be interrupted, but a process can be killed.

One `TimedExtractor` has one child, started with the first page and again after each page that killed it. Page and document go through pipes as JSON
(what comes back from a process that has parsed hostile bytes is data, never pickle). On the shared pages this costs about a tenth of the extraction.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from headstart.curate.extract.config import ExtractConfig
from headstart.curate.extract.document import Document, Dropped, Formula, Image, PageDropped
from headstart.curate.extract.page import extract

LENGTHS = struct.Struct(">II")
LENGTH = struct.Struct(">I")
GRACE = 0.5
"""Seconds beyond the page's limit after which the child is killed; it stops by itself before wherever it can."""
START = 60.0
"""Seconds that the child may take to begin."""
LISTS: dict[str, Any] = {"formulas": Formula, "images": Image, "dropped": Dropped}


class TimedExtractor:
    """Extracts one page after another in a child process with limits on time and memory. Use it as a context manager, one in each worker.

    Args:
        config: as for `extract`; `seconds` is the limit that is held, to within half a second.
        memory_mb: address space that the child may take beyond what it has at its start (not on Windows).
    """

    def __init__(self, config: ExtractConfig | None = None, *, memory_mb: int = 2048) -> None:
        self.config = ExtractConfig() if config is None else config
        self.memory_mb = memory_mb
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, html: str | bytes, url: str = "", *, content_type: str = "") -> Document:
        """As `extract`; raises `PageDropped` also for "time limit", "memory" and "crash", whatever the parser does."""
        if len(html) > self.config.max_bytes:
            raise PageDropped("too large", f"The page has {len(html):,} bytes, more than {self.config.max_bytes:,}.")
        text = isinstance(html, str)
        page = html.encode("utf-8", "surrogatepass") if isinstance(html, str) else html
        request = json.dumps([url, content_type, text]).encode()
        with self._lock:
            answer = self._ask(LENGTHS.pack(len(request), len(page)) + request + page)
        if "dropped" in answer:
            raise PageDropped(*answer["dropped"])
        if "bug" in answer:
            raise RuntimeError(f"The extraction failed on {url or 'a page'}:\n{answer['bug']}")
        return unpacked(answer["document"])

    def __enter__(self) -> TimedExtractor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            child.wait(2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _ask(self, request: bytes) -> dict[str, Any]:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = time.monotonic() + self.config.seconds + GRACE
        try:
            child.stdin.write(request)
            child.stdin.flush()
            (length,) = LENGTH.unpack(_read(child.stdout, LENGTH.size, deadline))
            answer: dict[str, Any] = json.loads(_read(child.stdout, length, deadline))
            return answer
        except TimeoutError:
            self._kill()
            raise PageDropped("time limit", f"The page took more than {self.config.seconds:g} seconds.") from None
        except (EOFError, BrokenPipeError, ValueError):
            code = self._kill()
            raise PageDropped("crash", f"The process that read the page ended with code {code}.") from None
        except BaseException:  # interrupted between request and answer: the next page must not get this one's
            self._kill()
            raise

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._kill()
            source = str(Path(__file__).parents[3])
            path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
            self._child = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import _serve; _serve()", json.dumps([asdict(self.config), self.memory_mb])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
            )
            assert self._child.stdout is not None
            try:
                _read(self._child.stdout, 1, time.monotonic() + START)
            except (EOFError, TimeoutError):
                raise RuntimeError(f"The process for extraction did not start (code {self._kill()}).") from None
        return self._child

    def _kill(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # a request that it did not read any more
                    continue
        return code


def _read(pipe: IO[bytes], size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, before the deadline."""
    parts = []
    descriptor = pipe.fileno()
    while size:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def packed(document: Document) -> dict[str, Any]:
    """A document as plain lists and dictionaries."""
    record = {name: getattr(document, name) for name in Document.__dataclass_fields__}
    return record | {name: [astuple(thing) for thing in record[name]] for name in LISTS}


def unpacked(record: dict[str, Any]) -> Document:
    """The inverse of `packed`."""
    return Document(**record | {name: [kind(*values) for values in record[name]] for name, kind in LISTS.items()})


def _serve() -> None:
    """The child: pages in, documents out, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    settings, memory_mb = json.loads(sys.argv[1])
    _limit_memory(memory_mb)
    config = ExtractConfig(**settings)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    outgoing.write(b"+")
    outgoing.flush()
    while lengths := incoming.read(LENGTHS.size):
        request_size, page_size = LENGTHS.unpack(lengths)
        url, content_type, text = json.loads(incoming.read(request_size))
        page = incoming.read(page_size)
        answer = json.dumps(_answer(page.decode("utf-8", "surrogatepass") if text else page, url, config, content_type), ensure_ascii=False)
        data = answer.encode("utf-8", "replace")
        outgoing.write(LENGTH.pack(len(data)) + data)
        outgoing.flush()


def _answer(page: str | bytes, url: str, config: ExtractConfig, content_type: str) -> dict[str, Any]:
    try:
        return {"document": packed(extract(page, url, config, content_type=content_type))}
    except PageDropped as dropped:
        return {"dropped": [dropped.reason, dropped.what]}
    except Exception:
        return {"bug": traceback.format_exc()}


def _limit_memory(memory_mb: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        pages = 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
