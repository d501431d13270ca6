"""Settings of re-ranking: a cross-encoder orders the documents that a first stage found for a query. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import COUNT, refuse_outside
from headstart.core.errors import UsageError
from headstart.tasks.config import OF_EVERY_TRAINING, Rates

BOUNDS = OF_EVERY_TRAINING | dict.fromkeys(("negatives", "candidates", "max_query_length", "patience"), COUNT)


@dataclass
class RerankingConfig(Rates):
    """Fine-tuning of an encoder with one score on groups of a relevant document and others. The defaults suit small networks and some hundred
    queries."""

    documents: Path | None = None
    """The collection: .jsonl, .csv, .parquet with id, text and, if there is one, title; .tsv also of MS MARCO without a header."""
    qrels: Path | None = None
    """What is relevant, of the queries of all files: qrels of TREC, lines of qid 0 docid relevance."""
    run: Path | None = None
    """What a first stage found for the queries of all files: a run of TREC, lines of qid Q0 docid rank score tag. None: BM25 (k1 0.9, b 0.4)."""
    candidates: int = 100
    """The first documents of a query that are re-ranked."""
    negatives: int = 11
    """Documents in a group that are not relevant, drawn anew each epoch from the candidates. PROP on MS MARCO: 11."""
    learning_rate: float = 3e-4
    """Peak rate. Some 1e-5 to 3e-5 for networks of base size."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each start takes its best on the dev file with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 10.0
    """Passes over the training queries. With a dev file the epoch that is best there is kept."""
    patience: int | None = None
    """With a dev file: stop after so many epochs without a better one. None: all epochs."""
    batch: int = 4
    """Groups a step. PROP: 12, 144 rows."""
    micro_batch: int | None = None
    """Groups on the device at once; None: the whole batch."""
    weight_decay: float = 0.01
    """Of matrices."""
    beta2: float = 0.999
    """AdamW's second momentum."""
    clip_norm: float | None = 1.0
    """Global norm of the gradients."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises; then it is constant."""
    max_length: int | None = None
    """Tokens of a row, query and document together; only the document is cut to it. None: 512, and never more than the network has positions."""
    max_query_length: int = 64
    """Tokens of a query."""
    dropout: float = 0.0
    """Dropout inside the network and before the head."""
    new_head: bool = False
    """Begin with a new head where the model has one for scores; a model that has none gets a new one anyhow."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""

    def check(self) -> None:
        """Raises UsageError for a file that is not named, or the first number that no fine-tuning can have."""
        refuse_outside(self, BOUNDS)
        for name in ("documents", "qrels"):
            if getattr(self, name) is None:
                mend = "Re-ranking needs --documents COLLECTION and --qrels QRELS; candidates come from --run RUN, or from BM25."
                raise UsageError(f"--{name} is missing.", mend)
