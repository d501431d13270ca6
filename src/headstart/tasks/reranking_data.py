"""Queries with the documents that a first stage found for them, and what of these is relevant; and the metrics of an order.

What cannot be scored is counted and said, never silently lost: queries without a judgement, without a candidate, judged documents that the collection
lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.words import agree, plural
from headstart.data.retrieval.bm25 import BM25
from headstart.data.retrieval.collection import Named, read_queries
from headstart.data.retrieval.trec import Qrels, Run

CUT = 10
"""MRR@10, nDCG@10."""
METRIC = "mrr@10"


@dataclass
class RankingData:
    """Queries and their candidates, in the order of the first stage.

    Attributes:
        queries: the texts; ids: their names.
        documents: the collection.
        candidates: int64 [queries, most], numbers of documents, -1 behind the last.
        relevance: int64 [queries, most], of each candidate; 0 where nothing is known.
        judged: of each query the relevant documents of the collection, with their relevance, candidates or not; None: nothing is judged.
        notes: what was left out, in sentences.
    """

    queries: list[str]
    ids: list[str]
    documents: Named
    candidates: np.ndarray
    relevance: np.ndarray
    judged: list[dict[int, int]] | None
    source: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.queries)

    def leak_texts(self) -> list[str]:
        return self.queries

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(query, document) of every candidate, int64 [pairs] each, query after query."""
        query, place = np.nonzero(self.candidates >= 0)
        return query, self.candidates[query, place]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """float [queries, most]: values of the `pairs` in the places of the candidates, -inf where there is none."""
        found = np.full(self.candidates.shape, -np.inf)
        found[self.candidates >= 0] = values
        return found

    def some(self, index: np.ndarray) -> RankingData:
        """The queries with these numbers."""
        judged = None if self.judged is None else [self.judged[i] for i in index]
        texts, ids = [self.queries[i] for i in index], [self.ids[i] for i in index]
        return RankingData(texts, ids, self.documents, self.candidates[index], self.relevance[index], judged, self.source)

    def run(self, scores: np.ndarray) -> Run:
        """The candidates of each query by score, best first.

        Args:
            scores: float [queries, most].
        """
        found: Run = {}
        for number, name in enumerate(self.ids):
            count = int((self.candidates[number] >= 0).sum())
            order = np.argsort(-scores[number, :count], kind="stable")
            found[name] = [(self.documents.ids[self.candidates[number, i]], float(scores[number, i])) for i in order]
        return found


def read_ranking(path: str | Path, documents: Named, run: Run | None, qrels: Qrels | None, most: int, index: BM25 | None = None) -> RankingData:
    """A file of queries with its candidates.

    Args:
        run: the first stage; None: `index` finds the candidates.
        qrels: None: nothing is judged, and no query is left out for it.
        most: candidates of a query.

    Raises:
        BadInput: no query is left.
    """
    queries, notes = read_queries(path), []
    found = bm25_run(queries, documents, index, most) if run is None and index is not None else run or {}
    rows, absent, unjudged, unfound = [], 0, 0, 0
    lacking = set()
    judged_of = []
    for number, name in enumerate(queries.ids):
        judged = None
        if qrels is not None:
            of_query = {document: value for document, value in qrels.get(name, {}).items() if value > 0}
            lacking |= of_query.keys() - documents.number.keys()
            judged = {documents.number[document]: value for document, value in of_query.items() if document in documents.number}
            if not judged:
                unjudged += 1
                continue
        known = [documents.number[document] for document, _ in found.get(name, ()) if document in documents.number]
        absent += len(found.get(name, ())) - len(known)
        if not known:
            unfound += 1
            continue
        rows.append((number, known[:most]))
        judged_of.append(judged or {})
    if absent:
        notes.append(f"{plural(absent, 'candidate')} of the run {agree(absent, 'is', 'are')} not in the collection")
    if lacking:
        what = f"{plural(len(lacking), 'judged document')} {agree(len(lacking), 'is', 'are')} not in the collection"
        notes.append(f"{what}, for example {min(lacking)}")
    if unjudged:
        notes.append(f"{unjudged:,} of {len(queries):,} queries have no relevant document and are left out")
    if unfound:
        notes.append(f"{unfound:,} of {len(queries):,} queries have no candidate and are left out")
    if documents.empty:
        notes.append(f"{plural(documents.empty, 'document')} of the collection {agree(documents.empty, 'has', 'have')} no text")
    if not rows:
        raise BadInput("has no query that can be used" + (f": {'; '.join(notes)}." if notes else "."), "Do the ids fit each other?", file=path)
    candidates = np.full((len(rows), max(len(known) for _, known in rows)), -1, np.int64)
    relevance = np.zeros_like(candidates)
    for row, ((_, known), judged) in enumerate(zip(rows, judged_of, strict=True)):
        candidates[row, : len(known)] = known
        relevance[row, : len(known)] = [judged.get(document, 0) for document in known]
    chosen = [number for number, _ in rows]
    texts, ids = [queries.texts[i] for i in chosen], [queries.ids[i] for i in chosen]
    return RankingData(texts, ids, documents, candidates, relevance, None if qrels is None else judged_of, str(path), notes)


def bm25_run(queries: Named, documents: Named, index: BM25, most: int) -> Run:
    """What BM25 finds: documents that share a word with the query."""
    numbers, scores = index.top(queries.texts, most)
    return {
        name: [(documents.ids[i], float(value)) for i, value in zip(of_query, values, strict=True) if value > 0]
        for name, of_query, values in zip(queries.ids, numbers.tolist(), scores.tolist(), strict=True)
    }


# --- metrics --------------------------------------------------------------------------------------------------------------------------------------


def ranking_values(scores: np.ndarray, data: RankingData) -> dict[str, np.ndarray]:
    """mrr@10 and ndcg@10 of each query, float64 [queries]. Of equal scores the earlier candidate comes first: whoever compares models shuffles the
    candidates, or the first stage speaks where a model says nothing.

    Args:
        scores: float [queries, most].
    """
    assert data.judged is not None
    order = np.argsort(np.where(data.candidates >= 0, -scores, np.inf), axis=1, kind="stable")[:, :CUT]
    gains = np.take_along_axis(data.relevance, order, 1)  # [queries, 10]
    right = gains > 0
    reciprocal = np.where(right.any(1), 1 / (right.argmax(1) + 1), 0.0)
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = np.array([np.dot(_gain(sorted(judged.values(), reverse=True)[:CUT]), discounts[: min(CUT, len(judged))]) for judged in data.judged])
    found = _gain(gains) @ discounts[: gains.shape[1]]
    return {METRIC: reciprocal, "ndcg@10": np.divide(found, ideal, out=np.zeros(len(found)), where=ideal > 0)}


def _gain(relevance: np.ndarray | Sequence[int]) -> np.ndarray:
    return 2.0 ** np.minimum(np.maximum(np.asarray(relevance), 0), 30) - 1


def ranking_scores(scores: np.ndarray, data: RankingData) -> dict[str, float]:
    """The means over the queries."""
    return {name: float(values.mean()) for name, values in ranking_values(scores, data).items()}


def first_stage(data: RankingData) -> dict[str, float]:
    """The metrics of the candidates as they came."""
    return ranking_scores(-np.arange(data.candidates.shape[1], dtype=np.float64)[None].repeat(len(data), 0), data)


def random_order(data: RankingData) -> float:
    """MRR@10 of candidates in random order, on average: with one relevant one among n the mean of 1/rank over the first ten ranks."""
    found = []
    for of_query, relevance in zip(data.candidates, data.relevance, strict=True):
        n, r = int((of_query >= 0).sum()), int((relevance > 0).sum())
        chance, left = 0.0, 1.0
        for rank in range(1, min(CUT, n) + 1):
            if r == 0:
                break
            here = r / (n - rank + 1)
            chance += left * here / rank
            left *= 1 - here
        found.append(chance)
    return float(np.mean(found))

