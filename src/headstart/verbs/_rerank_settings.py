"""What `rerank` takes: the same fields in Python and on the command line. No torch here, so that a wrong flag is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import COUNT, refuse_outside
from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.files import open_regular
from headstart.core.places import refuse_file
from headstart.verbs.config import refuse_no_folder


@dataclass
class RerankSettings:
    """The candidates of queries in the order of a cross-encoder's scores, without training."""

    model: Path | None = None
    """A run of prop, a model of `finetune reranking`, or any folder with a head of one score. Comes first on the command line."""
    queries: Path | None = None
    """The queries: a .tsv of qid and text, or a table with id and text."""
    documents: Path | None = None
    """The collection: .jsonl, .csv, .parquet with id, text and, if there is one, title; .tsv also of MS MARCO without a header."""
    run: Path | None = None
    """What a first stage found: a run of TREC, lines of qid Q0 docid rank score tag. None: BM25 (k1 0.9, b 0.4)."""
    qrels: Path | None = None
    """Judgements of TREC: MRR@10 and nDCG@10 are said of the queries that have some."""
    candidates: int = 100
    """The first documents of a query that are re-ranked."""
    max_length: int | None = None
    """Tokens of a row, query and document together; only the document is cut to it. None: 512, and never more than the network has positions."""
    max_query_length: int = 64
    """Tokens of a query."""
    new_head: bool = False
    """Score with a new head, which gives noise: to have something to compare with."""
    out: Path | None = None
    """The run to write, in TREC's form; None: runs/reranked/NAME.run, NAME being that of the model."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it."""
    json: bool = False
    """Print what was found as JSON."""
    debug: bool = False
    """Show tracebacks."""


def check(settings: RerankSettings) -> None:
    """Refuses, before torch is imported, what cannot be.

    Raises:
        UsageError: a setting. BadInput: a file that is not there.
    """
    example = "example: headstart rerank runs/prop-tiny-0 --queries queries.tsv --documents documents.jsonl --run bm25.run"
    for name in ("model", "queries", "documents"):
        if getattr(settings, name) is None:
            raise UsageError("No model is given." if name == "model" else f"--{name} is missing.", example)
    assert settings.model is not None
    check_device(settings.device)
    refuse_outside(settings, dict.fromkeys(("candidates", "max_length", "max_query_length"), COUNT))
    refuse_no_folder(settings.model)
    for file in (settings.queries, settings.documents, settings.run, settings.qrels):
        if file is not None:
            open_regular(file).close()
    refuse_file(run_file(settings), made=True)


def run_file(settings: RerankSettings) -> Path:
    """Where the new run goes."""
    assert settings.model is not None
    return settings.out or Path("runs") / "reranked" / f"{settings.model.absolute().name}.run"
