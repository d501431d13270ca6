"""Scores of documents from 0 to 10, for the second classifier to learn from (webmath A7): any callable, a file, a language model behind an
OpenAI-compatible
address, or rules."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from headstart.core.errors import BadInput
from headstart.core.files import open_regular

Score: TypeAlias = Callable[[Sequence[tuple[str, str]]], list[float | None]]
"""(URL, text) of documents -> their scores; None where there is none."""

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
_LAST_LINE = re.compile(r"mathematical score:\s*\**\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$?(?:\\.|[^\\$])+\$\$?")
_TEACHING = re.compile(
    r"\b(theorem|lemma|proof|prove|corollary|proposition|definition|equation|inequality|integral|derivative|matrix|polynomial|integer|algebra|geometry|"
    r"probability|variance|vector|eigenvalue|convergence|permutation|combinatorics|modulo|divisor|triangle|exercise|solution|function)s?\b"
    r"|定理|引理|证明|推论|命题|定义|方程|不等式|积分|导数|矩阵|多项式|整数|代数|几何|概率|向量|排列|组合|函数",
    re.IGNORECASE,
)


def rule_score(text: str) -> float:
    """A score from 0 to 10 by rules: up to 6 points for formulas among the words, up to 4 for words of mathematical writing."""
    words = max(len(text.split()), len(text) // 6, 1)
    formulas = len(_FORMULA.findall(text))
    density, teaching = formulas / words, len({found[0].lower() for found in _TEACHING.finditer(text)})
    points = min(6.0, 2 * (formulas > 0) + min(2.0, formulas / 5) + min(2.0, 60 * density))
    return round(points + min(4.0, teaching / 2), 2)


def by_rules(documents: Sequence[tuple[str, str]]) -> list[float | None]:
    """`rule_score` of each document."""
    return [rule_score(text) for _, text in documents]


def from_file(path: Path) -> Score:
    """Scores of a .jsonl file of {"url": ..., "score": ...}. Documents that it lacks have None.

    Raises:
        BadInput: a line has no URL or no score from 0 to 10, or a URL has two scores.
    """
    scores: dict[str, float] = {}
    with open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                url, score = record["url"], float(record["score"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise BadInput("has no url and score.", 'Write {"url": "https://...", "score": 7}.', file=path, record=number) from None
            if not 0 <= score <= 10:
                raise BadInput(f"has the score {score:g}.", "Scores go from 0 to 10.", file=path, record=number)
            if scores.setdefault(url, score) != score:
                raise BadInput(f"scores {url} again, and otherwise.", "Leave one score.", file=path, record=number)
    return lambda documents: [scores.get(url) for url, _ in documents]


def read_reply(reply: str) -> float | None:
    """The score in a model's reply: its last `mathematical score: N`, if that lies between 0 and 10."""
    found = _LAST_LINE.findall(reply)
    score = float(found[-1]) if found else -1.0
    return score if 0 <= score <= 10 else None


def from_endpoint(base_url: str, model: str, *, parallel: int = 8, retries: int = 4, timeout_s: float = 120.0) -> Score:
    """Scores by a language model behind an OpenAI-compatible address (`POST base_url/chat/completions`). The key, if it needs one, is taken from the
    environment variable OPENAI_API_KEY. A reply without a score gives None; a server that refuses every try is an error."""
    address = base_url.rstrip("/") + "/chat/completions"

    def ask(document: tuple[str, str]) -> float | None:
        message = {"role": "user", "content": RUBRIC.format(text=document[1][:SHOWN_CHARACTERS])}
        body = json.dumps({"model": model, "messages": [message], "temperature": 0, "max_tokens": 400}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if (key := os.environ.get("OPENAI_API_KEY")) else {})
        last: Any = None
        for wait in (0, *(2.0**i for i in range(retries))):
            time.sleep(wait)
            try:
                with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=timeout_s) as answer:
                    return read_reply(json.loads(answer.read(1 << 20))["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                if error.code in (400, 401, 403, 404):
                    mend = "Check the address, the model's name and OPENAI_API_KEY."
                    raise BadInput(f"{address} answers {error.code} {error.reason}.", mend) from error
                last = error
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                last = error
        raise BadInput(f"{address} does not answer ({last}).", "Check the server, then give the same command: it continues.")

    def score(documents: Sequence[tuple[str, str]]) -> list[float | None]:
        with ThreadPoolExecutor(parallel) as pool:
            return list(pool.map(ask, documents))

    return score


def split_by_score(texts: Sequence[str], scores: Sequence[float | None], positive_from: float) -> tuple[list[str], list[str]]:
    """Texts of a score from `positive_from` on, and the others; those without a score are in neither."""
    scored = [(text, score) for text, score in zip(texts, scores, strict=True) if score is not None]
    return [text for text, score in scored if score >= positive_from], [text for text, score in scored if score < positive_from]


def read_texts(path: Path) -> Iterator[str]:
    """The documents of a file: the field `text` (or the parts of `text_list`) of .jsonl and .parquet, the lines of .txt.

    Raises:
        BadInput: it, or a record of it, cannot be read or has another form.
    """
    from headstart.curate.addresses import kind_of
    from headstart.curate.config import ReadConfig
    from headstart.curate.sources import UNREADABLE, read_source
    from headstart.curate.tables import texts_of

    if path.suffix == ".txt":
        with open_regular(path) as file:
            yield from (line.decode("utf-8", "replace").strip() for line in file if line.strip())
        return
    with open_regular(path):
        pass
    mend = 'Give documents as {"text": ...}, one a line of .jsonl (also .gz, .zst), as .parquet, or the lines of a .txt.'
    if kind_of(str(path)) in (None, ".warc", ".warc.gz"):
        raise BadInput("is no file of documents.", mend, file=path)
    for table in read_source(str(path), 0, ReadConfig()):
        for number, reason in enumerate(table["dropped"].to_pylist()):
            if reason is not None:
                raise BadInput(f"cannot be used: {reason.removeprefix(UNREADABLE)}.", mend, file=path, record=table["order"][number].as_py() + 1)
        if "text_list" not in table.column_names:
            raise BadInput("has no field text.", mend, file=path)
        yield from texts_of(table)
