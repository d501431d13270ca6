"""Scores of documents by a language model behind an OpenAI-compatible address (webmath A7).

A million answers take days, so each is kept the moment it comes (`journal`): a run that was killed, or whose server died, asks only for what is
missing. What was asked is known by the model's name and the whole question; the address may change between two runs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from headstart.core.errors import BadInput
from headstart.core.journal import Journal, read_journal
from headstart.core.progress import Reporter
from headstart.curate.labels import Score

T = TypeVar("T")

RUBRIC = """Below is an extract of a web page. Score how much mathematics it teaches, adding up points from 0 to 10:
- 0: no mathematics.
- 1-2: rudimentary mathematics amid other material.
- 2-4: it touches mathematical topics, but unclearly or in passing.
- 4-6: key concepts with equations, at the level of an introductory section.
- 6-8: well structured, with many equations and worked solutions.
- 8-10: exceptional: in depth, complete, with derivations or proofs.

The extract:
---
{text}
---
Justify your score in at most 100 words, then write as the last line: mathematical score: N"""
SHOWN_CHARACTERS = 6000
REFUSED = (401, 403, 404)
"""Answers that no other document would change."""
UNFIT = (400, 413, 422)
"""Answers to a question that the server cannot take: one document may be too long for its model."""
MAX_UNFIT = 3
"""So many of these before the first score mean that the server takes no question of ours."""
MAX_UNSCORED = 20
"""So many documents in a row without a score mean that the server or its model has changed: none of them is asked for again."""
MAX_WAIT_S = 60.0
"""A server that asks to be left alone for a while is, up to this."""
_LAST_LINE = re.compile(r"mathematical score:\s*\**\s*(\d+(?:\.\d+)?)", re.IGNORECASE)


def read_reply(reply: str) -> float | None:
    """The score in a model's reply: its last `mathematical score: N`, if that lies between 0 and 10."""
    found = _LAST_LINE.findall(reply)
    score = float(found[-1]) if found else -1.0
    return score if 0 <= score <= 10 else None


def question(text: str) -> str:
    """What the model is asked about a document: the paper's rubric over its beginning."""
    return RUBRIC.format(text=text[:SHOWN_CHARACTERS])


def from_endpoint(
    base_url: str, model: str, kept: Path | None = None, *, parallel: int = 8, retries: int = 4, timeout_s: float = 120.0
) -> Score:
    """Scores by a language model (`POST base_url/chat/completions`). The key, if the server needs one, is taken from the environment variable
    OPENAI_API_KEY. A reply without a score, and a document that the server cannot take, give None; 20 in a row are an error.

    Args:
        kept: a file of {"url", "score", "asked"} lines to which each answer is added as it comes, and whose answers are not asked for again. It
            serves as a file of scores too (`labels.from_file`).
        parallel: requests at a time; retries: of one request, after 1, 2, 4 ... seconds; timeout_s: of one try.

    Raises (when it is called):
        BadInput: the server refuses, does not answer in any try, or gives no score 20 times in a row.
    """

    def score(documents: Sequence[tuple[str, str]]) -> list[float | None]:
        keys = [_key(model, text) for _, text in documents]
        scores = {} if kept is None else dict(_kept(kept))
        missing = {key: document for key, document in zip(keys, documents, strict=True) if key not in scores}
        server = _Server(base_url, model, kept, retries, timeout_s)
        with ExitStack() as stack:
            journal = None if kept is None or not missing else stack.enter_context(Journal(kept))

            def one(asked: tuple[str, tuple[str, str]]) -> tuple[str, float | None]:
                key, (url, text) = asked
                answer = server.ask(text)
                if journal is not None:  # here, where it came: what fails elsewhere does not lose it
                    journal.add({"url": url, "score": answer, "asked": key})
                return key, answer

            reporter = stack.enter_context(Reporter("score", len(documents), "documents", already=len(documents) - len(missing)))
            pool = stack.enter_context(ThreadPoolExecutor(parallel))
            stack.callback(server.stop.set)  # before the pool waits for its threads
            for key, answer in _as_they_come(pool, one, missing.items(), 2 * parallel):
                scores[key] = answer
                reporter.advance()
        return [scores[key] for key in keys]

    return score


def _key(model: str, text: str) -> str:
    return hashlib.sha256(json.dumps([model, question(text)]).encode()).hexdigest()[:32]


def _kept(path: Path) -> Iterator[tuple[str, float | None]]:
    for record in read_journal(path):
        key, score = record.get("asked"), record.get("score")
        if isinstance(key, str) and (score is None or (isinstance(score, int | float) and 0 <= score <= 10)):
            yield key, score


def _as_they_come(pool: Executor, work: Callable[[Any], T], items: Iterable[Any], at_most: int) -> Iterator[T]:
    """What `work` gives of each item, in the order it comes; only so many wait for their turn."""
    left, waiting = iter(items), set[Future[T]]()
    while True:
        waiting |= {pool.submit(work, item) for item in islice(left, at_most - len(waiting))}
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


class _Stopped(Exception):
    """Nobody waits for the answer any more."""


class _Server:
    """A server that is asked from several threads, until `stop` is set. What failed for good in one of them fails in all."""

    def __init__(self, base_url: str, model: str, kept: Path | None, retries: int, timeout_s: float) -> None:
        self.address = base_url.rstrip("/") + "/chat/completions"
        self.stop = threading.Event()
        self._model, self._kept, self._timeout_s = model, kept, timeout_s
        self._pauses = (0.0, *(2.0**number for number in range(retries)))
        self._lock = threading.Lock()
        self._answered = self._unfit = self._unscored = 0
        self._error: BadInput | None = None

    def ask(self, text: str) -> float | None:
        """The score of one document.

        Raises:
            BadInput: the server refuses, does not answer in any try, or gives no score too often.
        """
        last: Any = None
        asked_for = 0.0
        for pause in self._pauses:
            if self.stop.wait(max(pause, asked_for)):
                raise self._error or _Stopped
            try:
                reply = self._send(text)
            except urllib.error.HTTPError as error:
                if error.code in REFUSED or (error.code in UNFIT and not self._may_be_the_document()):
                    mend = "Check the address, the model's name and OPENAI_API_KEY."
                    raise self._failed(f"answers {error.code} {error.reason}.", mend) from error
                if error.code in UNFIT:
                    return self._counted(None, f"it answers {error.code} {error.reason}")
                last, asked_for = error, _asked_for(error)
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                last, asked_for = error, 0.0
            else:
                with self._lock:
                    self._answered += 1
                return self._counted(read_reply(reply), f"its reply ends with {reply[-60:]!r}")
        raise self._failed(f"does not answer ({last}).", "Check the server, then give the same command: it asks for what is missing.")

    def _counted(self, score: float | None, why: str) -> float | None:
        """The score.

        Raises:
            BadInput: it is the last of too many in a row that are none.
        """
        with self._lock:
            self._unscored = 0 if score is not None else self._unscored + 1
            if self._unscored < MAX_UNSCORED:
                return score
        again = "" if self._kept is None else f" Those without a score are not asked for again: delete {self._kept}, or its lines with null, to ask."
        raise self._failed(f"gave no score {MAX_UNSCORED} times in a row (the last: {why}).", f"Check the server and its model.{again}")

    def _failed(self, what: str, mend: str) -> BadInput:
        self._error = BadInput(f"{self.address} {what}", mend)
        self.stop.set()
        return self._error

    def _send(self, text: str) -> str:
        messages = [{"role": "user", "content": question(text)}]
        body = json.dumps({"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 400}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        with urllib.request.urlopen(urllib.request.Request(self.address, body, headers), timeout=self._timeout_s) as answer:
            return str(json.loads(answer.read(1 << 20))["choices"][0]["message"]["content"] or "")

    def _may_be_the_document(self) -> bool:
        """Whether a question that the server cannot take says nothing about the others."""
        with self._lock:
            self._unfit += 1
            return self._answered > 0 or self._unfit < MAX_UNFIT


def _asked_for(error: urllib.error.HTTPError) -> float:
    """Seconds that a busy server asks to be left alone."""
    try:
        return min(max(float(error.headers.get("Retry-After") or 0), 0.0), MAX_WAIT_S)
    except ValueError:  # a date
        return 0.0
