"""Scores of documents from 0 to 10, for the second classifier to learn from (webmath A7): any callable, a file, or rules. Those of a language model
are in `endpoint`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from headstart.core.errors import BadInput
from headstart.core.files import open_regular
from headstart.data.tables import decoded, json_records, lines_of

Score: TypeAlias = Callable[[Sequence[tuple[str, str]]], list[float | None]]
"""(URL, text) of documents -> their scores; None where there is none."""

_FORMULA = re.compile(r"\\.|(\$\$?(?:\\.|[^\\$])+\$\$?)", re.DOTALL)
"""A formula, or a sign that is escaped: from each price (`\\$5`) to the end of a long page a search would take minutes."""
_TEACHING = re.compile(
    r"\b(theorem|lemma|proof|prove|corollary|proposition|definition|equation|inequality|integral|derivative|matrix|polynomial|integer|algebra|geometry|"
    r"probability|variance|vector|eigenvalue|convergence|permutation|combinatorics|modulo|divisor|triangle|exercise|solution|function)s?\b"
    r"|定理|引理|证明|推论|命题|定义|方程|不等式|积分|导数|矩阵|多项式|整数|代数|几何|概率|向量|排列|组合|函数",
    re.IGNORECASE,
)


def rule_score(text: str) -> float:
    """A score from 0 to 10 by rules: up to 6 points for formulas among the words, up to 4 for words of mathematical writing."""
    words = max(len(text.split()), len(text) // 6, 1)
    formulas = sum(map(bool, _FORMULA.findall(text)))
    density, teaching = formulas / words, len({found[0].lower() for found in _TEACHING.finditer(text)})
    points = min(6.0, 2 * (formulas > 0) + min(2.0, formulas / 5) + min(2.0, 60 * density))
    return round(points + min(4.0, teaching / 2), 2)


def by_rules(documents: Sequence[tuple[str, str]]) -> list[float | None]:
    """`rule_score` of each document."""
    return [rule_score(text) for _, text in documents]


def from_file(path: Path) -> Score:
    """Scores of a .jsonl file of {"url": ..., "score": ...}, such as an endpoint's answers of an earlier curation. Documents that it lacks, or whose
    score is null, have None. An endpoint scores texts (its lines have `asked`), so of its answers those without an address, and addresses that two
    texts of other scores had, are left out.

    Raises:
        BadInput: a line has no URL or no score from 0 to 10, or a URL has two scores.
    """
    scores: dict[str, float] = {}
    doubtful: set[str] = set()
    for number, record in json_records(path):
        try:
            url, asked = record["url"] or "", "asked" in record
            if not isinstance(url, str) or not (url or asked):
                raise TypeError
            if record["score"] is None:  # the model was asked, and gave none
                continue
            score = float(record["score"])
        except (ValueError, KeyError, TypeError):
            raise BadInput("has no url and score.", 'Write {"url": "https://...", "score": 7}.', file=path, record=number) from None
        if not 0 <= score <= 10:
            raise BadInput(f"has the score {score:g}.", "Scores go from 0 to 10.", file=path, record=number)
        if scores.setdefault(url, score) != score or not url:
            if not asked:
                raise BadInput(f"scores {url} again, and otherwise.", "Leave one score.", file=path, record=number)
            doubtful.add(url)
    for url in doubtful:
        del scores[url]
    return lambda documents: [scores.get(url) for url, _ in documents]


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
        yield from (line.strip() for line in lines_of(decoded(path, "Give documents, one a line.")) if line.strip())
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
