"""An S3 server of this machine (moto), in a process and an environment of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import lacks

SERVER = Path(f"{sys.prefix}-object-store") / "bin" / "moto_server"


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server does not answer"
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)


@contextmanager
def s3_server() -> Iterator[subprocess.Popen[bytes]]:
    """The server on a free port; the environment names it, as a person would. Skips the test where it is not installed, and fails it in CI."""
    if not SERVER.exists():
        lacks(f"{SERVER} is missing; `make install` makes it from tests/object_store/requirements.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        wait_for(f"{named['AWS_ENDPOINT_URL']}/moto-api/", process)
        yield process
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def store() -> Any:
    """The object store as fsspec sees it, without anything remembered."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
