"""The report on localhost, refreshed while runs go on. The page asks for itself again every two seconds; a page that did not change is not sent.

Only this machine can ask (127.0.0.1), and only under its own name: a page of a stranger that the same browser shows cannot read it by pointing a name
of its own at 127.0.0.1 (the Host header says which name was used). One path is served; no path of a request ever reaches the file system.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.core.errors import HeadstartError, UsageError
from headstart.report.collect import Collector
from headstart.report.page import render

ADDRESS = "127.0.0.1"
FRESH_S = 1.0
"""For so long the page that was made last is sent to all that ask."""


class Pages:
    """The newest page and its tag."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = threading.Lock()
        self._made = float("-inf")
        self._page, self._tag = b"", ""

    def newest(self) -> tuple[bytes, str]:
        """The page and its ETag; made anew at most once in `FRESH_S`."""
        with self._lock:
            if time.monotonic() - self._made >= FRESH_S:
                self._page = render(self._collector.contents(), served=True).encode()
                self._tag = f'"{hashlib.sha256(self._page).hexdigest()[:32]}"'
                self._made = time.monotonic()
            return self._page, self._tag


class Server(ThreadingHTTPServer):
    """The server of one report.

    Args:
        places: as `report.report`.
        port: 0 takes a free one; `url` says which.

    Raises:
        UsageError: the port cannot be had. BadInput: a place does not exist.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, places: Sequence[str | Path], port: int) -> None:
        self.pages = Pages(Collector(places))
        self.pages.newest()  # what is wrong with the places is said now
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"Port {port} of {ADDRESS} cannot be had ({error}).", "Give another one, or --port 0 for a free one.") from None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of `/`."""

    server: Server
    server_version, sys_version = f"headstart/{__version__}", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        names = {f"{name}:{self.server.server_port}" for name in (ADDRESS, "localhost")}
        if self.headers.get("Host") not in names:
            return self._send(HTTPStatus.MISDIRECTED_REQUEST, b"This server answers to its own name only.\n", body)
        if self.path.split("?")[0] != "/":
            return self._send(HTTPStatus.NOT_FOUND, b"There is one page here: /\n", body)
        try:
            page, tag = self.server.pages.newest()
        except HeadstartError as error:
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), body)
        if self.headers.get("If-None-Match") == tag:
            return self._send(HTTPStatus.NOT_MODIFIED, b"", body, ETag=tag)
        self._send(HTTPStatus.OK, page, body, "text/html; charset=utf-8", ETag=tag)

    def _send(self, status: HTTPStatus, content: bytes, body: bool, kind: str = "text/plain; charset=utf-8", **headers: str) -> None:
        self.send_response(status)
        fixed = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""


def serve(places: Sequence[str | Path] = (), *, port: int = 8710) -> None:
    """Serves the report until Ctrl-C."""
    with Server(places, port) as server:
        print(f"The report is at {server.url} (this machine only), refreshed while runs go on. Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nEnded.")
