"""Scores of a language model behind an address: kept as they come, whatever dies."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.core.journal import read_journal
from headstart.curate import training
from headstart.curate.config import CurateConfig, PrecisionConfig
from headstart.curate.endpoint import from_endpoint, read_reply
from headstart.curate.labels import from_file
from headstart.curate.loop import finished
from headstart.curate.pipeline import curate
from tests.curate.crawl import MATHS, page
from tests.curate.test_learning_rounds import CORPUS, frame
from tests.running import quiet

SRC = str(Path(__file__).parents[2] / "src")


class Model(http.server.ThreadingHTTPServer):
    """A server that speaks the chat API: a good document is worth 8 points, any other none.

    Attributes:
        good: which documents are; unless it is told otherwise those with the word lemma.
        reply: what it says of a text, with its score.
        asked: the requests' bodies, in the order they came; keys: what they had as Authorization.
        answer: what it does instead of answering (an HTTP status, or True where it did all itself), given the number of the request and the text.
    """

    def __init__(self, answer: Callable[[int, str], int | None] = lambda number, text: None, port: int = 0) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer = answer
        self.good: Callable[[str], bool] = lambda text: "lemma" in text
        self.reply: Callable[[str], str] = lambda text: f"Because.\nmathematical score: {8 if self.good(text) else 0}"
        self.counting = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def texts(self) -> list[str]:
        """What the model was shown of each document."""
        return [body["messages"][0]["content"].split("---\n")[1].strip() for body in self.asked]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.counting:
            server.asked.append(body)
            server.keys.append(self.headers["Authorization"])
            number = len(server.asked)
        text = body["messages"][0]["content"].split("---\n")[1]
        status = 404 if self.path.removeprefix("http://far.invalid") != "/v1/chat/completions" else server.answer(number, text)
        if status is not None:
            self.send_error(status)
            return
        data = json.dumps({"choices": [{"message": {"content": server.reply(text)}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Model]:
    """The same model at another address."""
    server = Model()
    yield server
    server.close()


DOCUMENTS = [(f"https://x.org/{n}", f"a lemma number {n}" if n % 2 else f"boots number {n}") for n in range(30)]
SCORES = [8.0 if n % 2 else 0.0 for n in range(30)]


def test_a_reply_ends_with_its_score() -> None:
    assert read_reply("mathematical score: 3 at first. But:\nMathematical score: **8.5**") == 8.5
    assert read_reply("mathematical score: 11") is None
    assert read_reply("I cannot say.") is None


def test_a_server_is_asked_as_the_chat_api_wants_and_again_when_it_is_busy(model: Model) -> None:
    model.answer = lambda number, text: 503 if number == 1 else None
    assert from_endpoint(model.address, "some-model", parallel=1)(DOCUMENTS[:2]) == [0.0, 8.0]
    assert len(model.asked) == 3
    assert model.asked[0]["model"] == "some-model"
    assert model.asked[0]["temperature"] == 0
    with pytest.raises(BadInput, match="404"):
        from_endpoint(f"{model.address}/wrong", "some-model")([("u", "x")])


def test_what_a_server_answered_before_it_died_is_not_asked_again(model: Model, other: Model, tmp_path: Path) -> None:
    """It dies for good in the middle; another one at another address goes on, and the scores are those of one that lives."""
    kept = tmp_path / "scores.jsonl"
    model.answer = lambda number, text: 500 if number > 12 else None
    with pytest.raises(BadInput, match=r"(?s)does not answer \(HTTP Error 500.*asks for what is missing"):
        from_endpoint(model.address, "m", kept, parallel=3, retries=0)(DOCUMENTS)
    answered = [record["url"] for record in read_journal(kept)]
    assert len(answered) == 12
    with kept.open("ab") as file:
        file.write(b'{"asked": "cut off in the mid')
    assert from_endpoint(other.address, "m", kept, parallel=3)(DOCUMENTS) == SCORES
    assert sorted(other.texts()) == sorted(text for url, text in DOCUMENTS if url not in answered)
    assert from_endpoint(other.address, "m", kept)(DOCUMENTS) == SCORES
    assert len(other.asked) == 18, "all is known"
    assert from_file(kept)(DOCUMENTS) == SCORES, "another curation may take the file as it is"
    assert from_endpoint(other.address, "another-model", kept)(DOCUMENTS[:2]) == SCORES[:2]
    assert len(other.asked) == 20, "an answer is that of its model"


def test_where_it_failed_for_good_nothing_more_is_asked(model: Model) -> None:
    """Requests that are open may end; each of the others would have to be paid for."""

    def answer(number: int, text: str) -> int | None:
        if number > 1:
            time.sleep(0.05)
        return 401 if number == 1 else None

    model.answer = answer
    with pytest.raises(BadInput, match="answers 401"):
        from_endpoint(model.address, "m", parallel=3)(DOCUMENTS)
    assert len(model.asked) < len(DOCUMENTS) / 2


@pytest.mark.parametrize("key", ["secret", None])
def test_a_password_of_netrc_is_not_for_the_model(model: Model, key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password private\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    assert from_endpoint(model.address, "m", retries=0)(DOCUMENTS[:2]) == SCORES[:2]
    assert model.keys == [None if key is None else "Bearer secret"] * 2


def test_the_proxy_of_the_environment_is_asked(model: Model, other: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the hosts that it is not for."""
    monkeypatch.setenv("http_proxy", model.address.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert from_endpoint("http://far.invalid/v1", "m", retries=0)(DOCUMENTS[:2]) == SCORES[:2]
    assert from_endpoint(other.address, "m", retries=0)(DOCUMENTS[:2]) == SCORES[:2]
    assert (len(model.asked), len(other.asked)) == (2, 2)


def test_a_document_that_no_answer_comes_to_has_no_score_and_is_not_asked_again(model: Model, tmp_path: Path) -> None:
    """Some are too long for the model; where the first three are refused the server is the cause."""
    kept = tmp_path / "scores.jsonl"
    documents = [*DOCUMENTS[:3], *((f"https://x.org/long{n}", f"too long {n}") for n in range(4))]
    model.answer = lambda number, text: 400 if "too long" in text else None
    for _ in range(2):
        assert from_endpoint(model.address, "m", kept, parallel=1)(documents) == [0.0, 8.0, 0.0] + [None] * 4
    assert len(model.asked) == 7
    assert from_file(kept)(documents) == [0.0, 8.0, 0.0] + [None] * 4
    model.answer = lambda number, text: 400
    with pytest.raises(BadInput, match="answers 400"):
        from_endpoint(model.address, "m", tmp_path / "none.jsonl", parallel=1)(documents)
    assert len(model.asked) == 7 + 3


@pytest.mark.parametrize("fails", ["status", "reply"])
def test_a_server_that_gives_no_score_any_more_is_left(model: Model, fails: str, tmp_path: Path) -> None:
    """Its answers would be kept for ever: after 20 in a row it is an error; a score between them begins the count anew."""
    kept = tmp_path / "scores.jsonl"
    documents = [(f"https://x.org/{n}", f"{'lemma' if n in (0, 15) else 'nothing'} {n}") for n in range(60)]
    if fails == "status":
        model.answer = lambda number, text: None if "lemma" in text else 413
    else:
        model.reply = lambda text: "mathematical score: 8" if "lemma" in text else "I cannot say."
    says = "it answers 413" if fails == "status" else "its reply ends with 'I cannot say.'"
    with pytest.raises(BadInput, match=rf"(?s)gave no score 20 times in a row \(the last: {says}.*delete .*scores\.jsonl, or its lines with null"):
        from_endpoint(model.address, "m", kept, parallel=1)(documents)
    assert [record["url"] for record in read_journal(kept)] == [url for url, _ in documents[:35]]


def test_what_to_delete_is_told_where_documents_have_no_score(model: Model, tmp_path: Path) -> None:
    model.good = lambda text: sum(word in MATHS for word in text.split()) > 8
    model.answer = lambda number, text: 413 if number % 5 == 0 else None
    config = CurateConfig(precision=PrecisionConfig(endpoint=model.address, endpoint_model="m", sample=20))
    said: list[str] = []
    training.precision(frame(), CORPUS, config, said.append, kept=tmp_path / "scores.jsonl")
    assert said[0] == "scores: 20 documents by m"
    assert " (4 have no score: https://x.org/" in said[1]
    assert f"; to ask for them again delete {tmp_path / 'scores.jsonl'}, or its lines with null)" in said[1]


@pytest.mark.parametrize("answer", [b"[" * 200_000, b"no JSON", b'{"choices": []}', b'{"choices": [{"message": 7}]}', b"\xff\xfe" * 9, b""])
def test_nonsense_is_told_as_it_came(answer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)
    says = r"does not answer \(what comes is no chat completion: b'"
    with raw_server(lambda connection: connection.sendall(head + answer)) as address, pytest.raises(BadInput, match=says):
        from_endpoint(address, "m", retries=0)(DOCUMENTS[:1])


def test_an_answer_that_drips_ends_with_its_time() -> None:
    """A byte now and then is no silence; a limit on silence alone would wait for all of it."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.05)

    with raw_server(drip) as address, pytest.raises(BadInput, match=r"does not answer \(no whole answer within 0\.3 seconds\)"):
        from_endpoint(address, "m", retries=0, timeout_s=0.3)(DOCUMENTS[:1])


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and answers with bytes of any kind."""

    def serve() -> None:
        with suppress(OSError):  # closed by either side
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError), connection.makefile("rb") as request:
                    headers = http.client.parse_headers(request) if request.readline() else {}
                    request.read(int(headers.get("Content-Length") or 0))  # all of it: what is closed before is reset
                    answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_for_no_answer(model: Model, tmp_path: Path) -> None:
    """The model thinks for longer than anyone waits; the requests that are open are dropped."""
    thinks = threading.Event()
    model.answer = lambda number, text: thinks.wait(600) and None
    data, out = write_documents(tmp_path / "texts.jsonl"), tmp_path / "out"
    words = [sys.executable, "-m", "headstart", "curate", "precision", str(data), "--out", str(out), "--workers", "1"]
    words += ["--precision.endpoint-model", "m", "--precision.endpoint", model.address]
    environment = os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and len(model.asked) < 8:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        thinks.set()
        process.kill()
    assert process.returncode == 130, errors
    assert "The same command continues." in errors


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_what_runs_beside_the_loop_of_a_notebook() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def cell() -> None:
        finished(work())

    loop = asyncio.new_event_loop()
    ctrl_c = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        ctrl_c.cancel()  # of a failure here, the next test must not die
    assert ended == ["cancelled"]
    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def write_documents(path: Path) -> Path:
    rows = [{"url": f"https://x.org/{n}", "text": page(n, n % 2 == 0, 60) + " lemma" * (n % 2 == 0)} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_killed_while_a_model_scores_it_asks_only_for_what_is_missing(model: Model, other: Model, tmp_path: Path) -> None:
    """SIGKILL in the middle of the scores; in the end each document was asked for once, but for those that were under way."""
    model.answer = lambda number, text: time.sleep(0.05)
    data, out = write_documents(tmp_path / "texts.jsonl"), tmp_path / "out"
    words = [sys.executable, "-m", "headstart", "curate", "precision", str(data), "--out", str(out), "--workers", "1"]
    words += ["--precision.endpoint-model", "m", "--precision.endpoint"]
    environment = os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*words, model.address], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    journal = out / "answers" / "scores.jsonl"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and not (journal.is_file() and journal.read_bytes().count(b"\n") >= 20):
        time.sleep(0.005)
    ended = process.poll()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert ended is None, "it was not killed in its work"
    known = len(list(read_journal(journal)))
    assert 20 <= known < 60
    done = subprocess.run([*words, other.address], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(other.asked) == 60 - known
    assert len({*model.texts(), *other.texts()}) == 60
    config = CurateConfig(precision=PrecisionConfig(endpoint=model.address, endpoint_model="m"))
    undisturbed = curate("precision", [str(data)], tmp_path / "whole", config, say=quiet)
    assert (out / "answers" / "precision.safetensors").read_bytes() == (tmp_path / "whole" / "answers" / "precision.safetensors").read_bytes()
    assert [stage.kept for stage in undisturbed.stages] == [60, 30]


@pytest.mark.slow
def test_a_curation_goes_on_with_the_model_at_another_address_and_with_no_other_model(model: Model, other: Model, tmp_path: Path) -> None:
    data, out = str(write_documents(tmp_path / "texts.jsonl")), tmp_path / "out"
    model.answer = lambda number, text: 404 if number > 10 else None

    def config(address: str | None, name: str = "m") -> CurateConfig:
        return CurateConfig(precision=PrecisionConfig(endpoint=address, endpoint_model=name))

    with pytest.raises(BadInput, match="answers 404"):
        curate("precision", [data], out, config(model.address), say=quiet)
    for wrong in (config(other.address, "n"), config(None)):
        with pytest.raises(UsageError, match=r"other --precision\.endpoint"):
            curate("precision", [data], out, wrong, say=quiet)
    assert curate("precision", [data], out, config(other.address), say=quiet).stages[-1].kept == 30
    assert len(other.asked) == 60 - len(set(model.texts()[:10]))
