"""`rerank`: the documents that a first stage found for queries, in the order of a cross-encoder's scores. Nothing is trained.

    OUT     a run of TREC: qid Q0 docid rank score tag
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.config import flag_names, replace_nested
from headstart.core.errors import UsageError
from headstart.core.flags import in_words_of
from headstart.core.progress import Reporter
from headstart.core.words import agree, plural
from headstart.data.retrieval.bm25 import BM25
from headstart.data.retrieval.collection import read_documents, read_queries
from headstart.data.retrieval.trec import read_qrels, read_run, write_run
from headstart.engine.device import use_device
from headstart.interop.cross_encoder import load_cross_encoder
from headstart.tasks.reranking import rows_of, score_pairs
from headstart.tasks.reranking_config import RerankingConfig
from headstart.tasks.reranking_data import RankingData, bm25_run, first_stage, ranking_scores, read_ranking
from headstart.verbs._exports import given_model, newest_export
from headstart.verbs._rerank_settings import RerankSettings, check, run_file

__all__ = ["RerankSettings", "Reranked", "rerank", "rerank_with"]


@dataclass(frozen=True)
class Reranked:
    """What `rerank` found.

    Attributes:
        run: the file.
        queries, pairs: how many were scored.
        scores: "mrr@10", "ndcg@10", where judgements were given; before: those of the first stage.
        notes: what was left out, in sentences.
    """

    run: Path
    queries: int
    pairs: int
    scores: dict[str, float]
    before: dict[str, float]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.run), "queries": self.queries, "pairs": self.pairs, "scores": self.scores, "before": self.before, "notes": self.notes}


def rerank(model: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Reranked:
    """Orders the candidates of queries by a model's scores.

    Args:
        model: a run of prop, a model of `finetune reranking`, or a folder with a head of one score.
        settings: those of `RerankSettings`: `queries="queries.tsv", documents="documents.jsonl"`.

    Raises:
        BadInput: a file that cannot be used. UsageError: a setting, or a model without such a head.
    """
    return rerank_with(replace_nested(RerankSettings(), {"model": model, **settings}), say)


@in_words_of(flag_names(RerankSettings()))
def rerank_with(settings: RerankSettings, say: Callable[[str], None] = print) -> Reranked:
    """As `rerank`, from settings."""
    check(settings)
    assert settings.model is not None
    assert settings.queries is not None
    assert settings.documents is not None
    device = use_device(settings.device)
    documents = read_documents(settings.documents)
    if settings.run is None:
        first = bm25_run(read_queries(settings.queries), documents, BM25(documents.texts), settings.candidates)
    else:
        first = read_run(settings.run)
    qrels = None if settings.qrels is None else read_qrels(settings.qrels)
    data = read_ranking(settings.queries, documents, first, None, settings.candidates)
    judged = None if qrels is None else read_ranking(settings.queries, documents, first, qrels, settings.candidates)
    folder = newest_export(settings.model) if (settings.model / "run.json").is_file() else settings.model
    encoder = load_cross_encoder(given_model(folder), new_head=settings.new_head)
    if not encoder.kept and not settings.new_head:
        what = f"The model in {settings.model} has no head that scores a query with a document: a new one would give noise."
        raise UsageError(what, "Give a run of prop, train one with `headstart finetune reranking ...`, or score noise with --new-head.")
    encoder.module.to(device)  # type: ignore[arg-type]
    config = RerankingConfig(
        max_length=settings.max_length, max_query_length=settings.max_query_length, precision=settings.precision, device=settings.device
    )
    rows = rows_of(encoder, data, config, device)
    pairs = len(data.pairs()[0])
    with Reporter("score", pairs, "pairs") as reporter:
        scores = score_pairs(encoder.module, rows, data, config, reporter.advance)
    out = run_file(settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = data.run(scores)
    write_run(out, found, "headstart")
    after, before, notes = {}, {}, data.notes
    if judged is not None:
        notes = judged.notes
        after, before = ranking_scores(_of(scores, data, judged), judged), first_stage(judged)
    result = Reranked(out, len(data), pairs, after, before, notes)
    for line in _lines(result, judged):
        say(line)
    return result


def _of(scores: Any, data: RankingData, judged: RankingData) -> Any:
    """The scores of the queries that have judgements."""
    place = {name: number for number, name in enumerate(data.ids)}
    return scores[[place[name] for name in judged.ids], : judged.candidates.shape[1]]


def _lines(found: Reranked, judged: RankingData | None) -> list[str]:
    lines = [f"{plural(found.pairs, 'pair')} of {found.queries:,} queries scored."]
    if judged is not None:
        was = ", ".join(f"{name} {value:.4f} (as they came {found.before[name]:.4f})" for name, value in found.scores.items())
        lines.append(f"{len(judged):,} judged {agree(len(judged), 'query', 'queries')}: {was}.")
    return [*lines, *(f"Note: {note}." for note in found.notes), f"Run: {found.run}"]
