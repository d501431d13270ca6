"""The server of the report: for this machine, under its own name, one page."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.report.serve import Server
from tests.report.folders import write_run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_run(tmp_path / "runs" / "one")
    (tmp_path / "secret.txt").write_text("secret")
    with Server([tmp_path / "runs"], port=0) as opened:
        thread = threading.Thread(target=opened.serve_forever, daemon=True)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def ask(server: Server, path: str = "/", host: str | None = None, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse()


def test_the_page_comes_with_its_tag_and_not_again_while_nothing_changes(server: Server) -> None:
    first = ask(server)
    assert first.status == 200
    assert b"data-served" in first.read()
    tag = first.headers["ETag"]
    server.pages._made = float("-inf")  # as if a second had gone by: the page is made again and is the same
    again = ask(server, If_None_Match=tag)
    assert (again.status, again.read()) == (304, b"")
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost:{port}.evil.example"])
def test_another_name_for_this_machine_gets_nothing(server: Server, host: str) -> None:
    """DNS rebinding: a stranger's page whose name now points at 127.0.0.1 sends that name."""
    answer = ask(server, host=host.format(port=server.server_port))
    assert answer.status == 421
    assert b"one" not in answer.read().split(b"\n")[0].replace(b"only", b"")


def test_localhost_is_this_machine(server: Server) -> None:
    assert ask(server, host=f"localhost:{server.server_port}").status == 200


@pytest.mark.parametrize("path", ["/../secret.txt", "/secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/runs/one/run.json", "/etc/passwd", "http://a/"])
def test_no_path_leads_to_a_file(server: Server, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in answer.read()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_taken_in(server: Server, method: str) -> None:
    assert ask(server, method=method).status == 501


def test_head_has_no_body(server: Server) -> None:
    answer = ask(server, method="HEAD")
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) > 50_000
    assert answer.read() == b""


def test_only_this_machine_can_reach_it(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_and_a_place_that_is_not_there_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be had"):
            Server([tmp_path / "runs"], port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="cannot be had"):
        Server([tmp_path / "runs"], port=70_000)
    with pytest.raises(BadInput, match="no such run"):
        Server([tmp_path / "nowhere"], port=0)
