"""Files of TREC: runs, what a system finds for each query, and qrels, what people judged.

    run     qid Q0 docid rank score tag
    qrels   qid 0 docid relevance
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.data.tables import decoded, lines_of

Run = dict[str, list[tuple[str, float]]]
"""qid -> (docid, score), best first."""
Qrels = dict[str, dict[str, int]]
"""qid -> docid -> relevance; 0 and less is not relevant."""


def read_run(path: str | Path) -> Run:
    """A run; lines are sorted by score, of equal ones by rank, as trec_eval and the file say.

    Raises:
        BadInput: a line of another form, or a document twice for a query.
    """
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for number, parts in _fields(path, 6, "qid Q0 docid rank score tag"):
        query, _, document, rank, score, _ = parts
        value = _number(score, path, number, "score")
        place = int(_number(rank, path, number, "rank"))
        of_query = found.setdefault(query, {})
        if document in of_query:
            raise BadInput(f"the document {document!r} comes a second time for the query {query!r}", "Remove one line.", file=path, record=number)
        of_query[document] = (value, place)
    if not found:
        raise BadInput("holds no line", "Give lines of qid Q0 docid rank score tag.", file=path)
    return {
        query: [(document, score) for document, (score, _) in sorted(of_query.items(), key=lambda item: (-item[1][0], item[1][1]))]
        for query, of_query in found.items()
    }


def read_qrels(path: str | Path) -> Qrels:
    """Judgements.

    Raises:
        BadInput: a line of another form, or a document judged twice, differently.
    """
    found: Qrels = {}
    for number, (query, _, document, relevance) in _fields(path, 4, "qid 0 docid relevance"):
        value = _number(relevance, path, number, "relevance")
        if value != int(value):
            raise BadInput(f"the relevance is {relevance!r}", "Give a whole number.", file=path, record=number)
        known = found.setdefault(query, {})
        if known.get(document, int(value)) != int(value):
            what = f"the document {document!r} is judged {known[document]} and {int(value)} for the query {query!r}"
            raise BadInput(what, "Keep one of the lines.", file=path, record=number)
        known[document] = int(value)
    if not found:
        raise BadInput("holds no line", "Give lines of qid 0 docid relevance.", file=path)
    return found


def write_run(path: str | Path, run: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> None:
    """A run as trec_eval reads it, each query's documents best first."""
    with atomic_write(path) as file:
        for query, documents in run.items():
            lines = (f"{query} Q0 {document} {rank} {score:.6f} {tag}\n" for rank, (document, score) in enumerate(documents, 1))
            file.write("".join(lines).encode())


def _fields(path: str | Path, count: int, form: str) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(lines_of(decoded(path, f"Give lines of {form}.")), 1):
        parts = line.split()
        if parts and len(parts) != count:
            raise BadInput(f"has {len(parts)} fields, not {count}", f"A line is {form}, with blanks between.", file=path, record=number)
        if parts:
            yield number, parts


def _number(text: str, path: str | Path, number: int, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"the {what} is {text!r}, no finite number", "Correct the line.", file=path, record=number)
    return value
