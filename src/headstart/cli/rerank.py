"""`headstart rerank MODEL --queries FILE --documents FILE`: candidates in the order of a cross-encoder's scores."""

from __future__ import annotations

import json
import sys
from typing import Any

from headstart.cli import _flags

HELP = "order the documents that a first stage found for queries, by a model's scores; a run of TREC in and out"
EXAMPLE = "headstart rerank runs/prop-tiny-0 --queries queries.tsv --documents documents.jsonl --run bm25.run"


def parse(argv: list[str]) -> Any:
    """The model comes first; `--model` says the same."""
    from headstart.verbs._rerank_settings import RerankSettings

    flags = argv if not argv or argv[0].startswith("-") else ["--model", *argv]
    return _flags.from_dataclass(RerankSettings(), flags, "headstart rerank", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.verbs._rerank_settings import check

    check(settings)  # before torch is imported
    from headstart.verbs.rerank import rerank_with

    found = rerank_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    if settings.json:
        print(json.dumps(found.to_json(), indent=1))
    return 0
