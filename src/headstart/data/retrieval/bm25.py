"""BM25 (Robertson et al. 1994) over a collection that fits into memory: a sparse matrix of weights, one product a block of queries.

The weight of a word in a document is that of Lucene: idf * tf / (tf + k1 (1 - b + b |D| / mean |D|)), idf = ln(1 + (N - df + 0.5) / (df + 0.5)).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

TOKEN = re.compile(r"\w+")
BLOCK = 256
"""Queries that are scored together."""


def tokens_of(text: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return TOKEN.findall(text.lower())


class BM25:
    """An index of documents.

    Args:
        texts: of the documents.
        k1: how soon further occurrences of a word stop to count.
        b: how much long documents are held back.
    """

    def __init__(self, texts: Sequence[str], k1: float = 0.9, b: float = 0.4) -> None:
        self.vocabulary: dict[str, int] = {}
        numbers = [[self.vocabulary.setdefault(word, len(self.vocabulary)) for word in tokens_of(text)] for text in texts]
        lengths = np.array([len(of_one) for of_one in numbers], np.int64)
        words = np.fromiter((number for of_one in numbers for number in of_one), np.int64, int(lengths.sum()))
        shape = (len(texts), max(1, len(self.vocabulary)))
        counts = sparse.csr_matrix((np.ones(len(words)), words, np.concatenate([[0], np.cumsum(lengths)])), shape)
        counts.sum_duplicates()
        df = np.bincount(counts.indices, minlength=shape[1])
        idf = np.log1p((shape[0] - df + 0.5) / (df + 0.5))
        saturation = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9)) if len(texts) else np.zeros(0)
        tf, of_document = counts.data, np.repeat(np.arange(shape[0]), np.diff(counts.indptr))
        counts.data = idf[counts.indices] * tf / (tf + saturation[of_document])
        self.weights = counts.T.tocsr()  # [words, documents]

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float64 [queries, documents]: a word that comes twice in a query counts twice."""
        found = [[self.vocabulary[word] for word in tokens_of(query) if word in self.vocabulary] for query in queries]
        ends = np.concatenate([[0], np.cumsum([len(of_one) for of_one in found])]).astype(np.int64)
        words = np.fromiter((number for of_one in found for number in of_one), np.int64, int(ends[-1]))
        asked = sparse.csr_matrix((np.ones(len(words)), words, ends), (len(queries), self.weights.shape[0]))
        return np.asarray((asked @ self.weights).toarray())

    def top(self, queries: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
        """(documents int64 [queries, count], scores float64 [queries, count]), best first; of equal ones the first document. `count` is at most the
        number of documents."""
        documents, values = [], []
        for start in range(0, len(queries), BLOCK):
            scores = self.scores(queries[start : start + BLOCK])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            documents.append(order)
            values.append(np.take_along_axis(scores, order, 1))
        width = min(count, self.weights.shape[1])
        if not documents:
            return np.zeros((0, width), np.int64), np.zeros((0, width))
        return np.concatenate(documents), np.concatenate(values)
