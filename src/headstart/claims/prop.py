"""PROP (WSDM 2021, arXiv 2010.10137): does predicting representative words beside masked words make a better re-ranker?

Cross-encoders pre-trained on Wikipedia's passages at equal FLOPs are fine-tuned on few questions, and re-rank the passages that BM25 finds for
people's questions of other articles (`wiki_xquad`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Collection:
    """Passages and the questions that people asked of some.

    Attributes:
        texts: "title. text" of each passage, what models read; plain: its text.
        questions: of people; gold: of each the number of its passage; folds: of each its fold, by article.
    """

    texts: list[str]
    plain: list[str]
    questions: list[str]
    gold: list[int]
    folds: list[int]


def read_collection(folder: Path, most: int | None = None) -> Collection:
    """The first `most` passages of `wiki_xquad`, those with questions first, and their questions."""
    passages, pages = lines_of(folder / "passages.jsonl.zst"), lines_of(folder / "pages.jsonl.zst")
    titles = {page["page"]: page["title"] for page in pages}
    chosen = list(passages)[:most] if most is not None else list(passages)
    number = {passage["pid"]: i for i, passage in enumerate(chosen)}
    asked = [line for line in lines_of(folder / "questions.jsonl.zst") if line["pid"] in number]
    return Collection(
        [f"{titles[passage['page']]}. {passage['text']}" for passage in chosen],
        [passage["text"] for passage in chosen],
        [line["question"] for line in asked],
        [number[line["pid"]] for line in asked],
        [int(line["fold"]) for line in asked],
    )


def lines_of(path: Path) -> Iterable[dict[str, Any]]:
    with pa.input_stream(str(path)) as file:
        return [json.loads(line) for line in file.read().decode().splitlines()]
