"""Scores of documents by a language model behind an OpenAI-compatible address (webmath A7).

A million answers take days, so each is kept the moment it comes (`journal`): a run that was killed, or whose server died, asks only for what is
missing. What was asked is known by the model's name and the whole question; the address may change between two runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from headstart.core.errors import BadInput, MissingDependency
from headstart.core.journal import Journal, read_journal
from headstart.core.progress import Reporter
from headstart.curate.labels import Score
from headstart.curate.loop import finished

Asked = tuple[str, tuple[str, str]]
"""(key of the question, (URL, text) of the document)."""

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
CONNECT_S = 30.0
"""For a connection; an answer may take longer."""
MAX_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
ENDING_S = 10.0
"""Where the server has failed for good, requests that are open may take so long to end: their answers are kept."""
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
    OPENAI_API_KEY. A reply without a score, and a document that the server cannot take, give None; 20 in a row are an error. Ctrl-C drops the
    requests that are open.

    Args:
        kept: a file of {"url", "score", "asked"} lines to which each answer is added as it comes, and whose answers are not asked for again. It
            serves as a file of scores too (`labels.from_file`).
        parallel: requests at a time; retries: of one request, after 1, 2, 4 ... seconds; timeout_s: of one try, to the last byte of its answer.

    Raises (when it is called):
        BadInput: the server refuses, does not answer in any try, or gives no score 20 times in a row. MissingDependency: aiohttp is not installed.
    """

    def score(documents: Sequence[tuple[str, str]]) -> list[float | None]:
        keys = [_key(model, text) for _, text in documents]
        scores = {} if kept is None else dict(_kept(kept))
        missing = {key: document for key, document in zip(keys, documents, strict=True) if key not in scores}
        with ExitStack() as stack:
            journal = None if kept is None or not missing else stack.enter_context(Journal(kept))
            reporter = stack.enter_context(Reporter("score", len(documents), "documents", already=len(documents) - len(missing)))

            def came(asked: Asked, answer: float | None) -> None:
                key, (url, _) = asked
                if journal is not None:
                    journal.add({"url": url, "score": answer, "asked": key})
                scores[key] = answer
                reporter.advance()

            if missing:
                server = _Server(base_url, model, kept, retries, timeout_s)
                finished(server.ask_all(missing.items(), min(parallel, len(missing)), came))
        return [scores[key] for key in keys]

    return score


def _key(model: str, text: str) -> str:
    return hashlib.sha256(json.dumps([model, question(text)]).encode()).hexdigest()[:32]


def _kept(path: Path) -> Iterator[tuple[str, float | None]]:
    for record in read_journal(path):
        key, score = record.get("asked"), record.get("score")
        if isinstance(key, str) and (score is None or (isinstance(score, int | float) and 0 <= score <= 10)):
            yield key, score


class _Failed(Exception):
    """One try that gave no answer, and seconds that the server asks to be left alone."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _Refused(Exception):
    """A status that no other try would change."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}".rstrip())
        self.status = status


class _Stopped(Exception):
    """Nobody waits for the answer any more."""


class _Server:
    """A server that is asked for several documents at a time. What failed for good for one of them fails for all."""

    def __init__(self, base_url: str, model: str, kept: Path | None, retries: int, timeout_s: float) -> None:
        self.address = base_url.rstrip("/") + "/chat/completions"
        self._proxy = _proxy(self.address)
        self._model, self._kept, self._timeout_s = model, kept, timeout_s
        self._pauses = (0.0, *(2.0**number for number in range(retries)))
        self._stop = asyncio.Event()
        self._answered = self._unfit = self._unscored = 0
        self._error: BadInput | None = None

    async def ask_all(self, missing: Iterable[Asked], parallel: int, came: Callable[[Asked, float | None], None]) -> None:
        """Asks for all documents, and gives each answer to `came` at once.

        Raises:
            BadInput: the server refuses, does not answer in any try, or gives no score too often.
        """
        try:
            import aiohttp
        except ImportError:
            raise MissingDependency("aiohttp", "curate", "Scores of a language model") from None
        left = iter(missing)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(self._timeout_s, CONNECT_S))
        async with aiohttp.ClientSession(timeout=timeout, headers=_headers()) as session:

            async def lane() -> None:
                for asked in left:  # one for all lanes: each takes the next document
                    came(asked, await self._ask(session, asked[1][1]))

            lanes = [asyncio.create_task(lane()) for _ in range(parallel)]
            try:
                done, open_ = await asyncio.wait(lanes, return_when=asyncio.FIRST_EXCEPTION)
                if open_:
                    self._stop.set()
                    done |= (await asyncio.wait(open_, timeout=ENDING_S))[0]
            finally:
                for task in lanes:
                    task.cancel()
                await asyncio.gather(*lanes, return_exceptions=True)
        errors = [error for task in done if (error := task.exception()) is not None and not isinstance(error, _Stopped)]
        if self._error is not None or errors:
            raise self._error or errors[0]

    async def _ask(self, session: Any, text: str) -> float | None:
        """The score of one document."""
        last, wait_s = "", 0.0
        for pause in self._pauses:
            await self._pause(max(pause, wait_s))
            try:
                reply = await self._send(session, text)
            except _Refused as error:
                if error.status in REFUSED or not self._may_be_the_document():
                    raise self._failed(f"answers {error}.", "Check the address, the model's name and OPENAI_API_KEY.") from error
                return self._counted(None, f"it answers {error}")
            except _Failed as error:
                last, wait_s = str(error), error.wait_s
            else:
                self._answered += 1
                return self._counted(read_reply(reply), f"its reply ends with {reply[-60:]!r}")
        raise self._failed(f"does not answer ({last}).", "Check the server, then give the same command: it asks for what is missing.")

    def _counted(self, score: float | None, why: str) -> float | None:
        """The score.

        Raises:
            BadInput: it is the last of too many in a row that are none.
        """
        self._unscored = 0 if score is not None else self._unscored + 1
        if self._unscored < MAX_UNSCORED:
            return score
        again = "" if self._kept is None else f" Those without a score are not asked for again: delete {self._kept}, or its lines with null, to ask."
        raise self._failed(f"gave no score {MAX_UNSCORED} times in a row (the last: {why}).", f"Check the server and its model.{again}")

    def _failed(self, what: str, mend: str) -> BadInput:
        """The error, of which the first one is told."""
        error = BadInput(f"{self.address} {what}", mend)
        self._error = self._error or error
        self._stop.set()
        return error

    async def _pause(self, seconds: float) -> None:
        """Raises _Stopped once it is in vain to ask on."""
        if self._stop.is_set():  # no wait of 0 seconds sees it
            raise _Stopped
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise _Stopped

    async def _send(self, session: Any, text: str) -> str:
        """What the model replies.

        Raises:
            _Failed, _Refused: it does not.
        """
        import aiohttp

        messages = [{"role": "user", "content": question(text)}]
        asked = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 400}
        try:
            async with session.post(self.address, data=json.dumps(asked).encode(), proxy=self._proxy) as answer:
                data = bytearray()
                async for piece in answer.content.iter_chunked(1 << 16):
                    data += piece
                    if len(data) > MAX_ANSWER:
                        break
        except TimeoutError:
            raise _Failed(f"no whole answer within {self._timeout_s:g} seconds") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _Failed(str(error) or type(error).__name__) from error
        if answer.status in (*REFUSED, *UNFIT):
            raise _Refused(answer.status, answer.reason or "")
        if answer.status >= 400:
            raise _Failed(f"HTTP Error {answer.status}: {answer.reason}", _asked_for(answer.headers.get("Retry-After")))
        try:
            return str(json.loads(data[:MAX_ANSWER])["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise _Failed(f"what comes is no chat completion: {bytes(data[:80])!r}") from None

    def _may_be_the_document(self) -> bool:
        """Whether a question that the server cannot take says nothing about the others."""
        self._unfit += 1
        return self._answered > 0 or self._unfit < MAX_UNFIT


def _headers() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _proxy(address: str) -> str | None:
    """What the environment says. aiohttp's `trust_env` would also send the password that ~/.netrc has for the host."""
    parts = urlsplit(address)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _asked_for(retry_after: str | None) -> float:
    """Seconds that a busy server asks to be left alone."""
    try:
        return min(max(float(retry_after or 0), 0.0), MAX_WAIT_S)
    except ValueError:  # a date
        return 0.0
