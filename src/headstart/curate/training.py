"""The classifiers learn from the corpus itself (webmath A3, A7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.curate import labels
from headstart.curate.classify import VIEWS, learn, plain
from headstart.curate.config import CurateConfig, PrecisionConfig
from headstart.curate.endpoint import from_endpoint
from headstart.curate.fasttext import MANY, Classifier
from headstart.curate.tables import text_of

SHOWN = 3
"""Documents that a file of scores lacks and that are said; more are listed beside the answers."""
WITHOUT = "without-score.jsonl"
FEWEST = 5
"""Documents of each side, at least: with fewer a classifier learns names."""


def sample(documents: Any, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(URL, text) of `count` random documents, the same for any number of shards and workers: those whose URL has the smallest hash.

    Args:
        documents: a Daft dataframe with url, order, text_list.
    """
    from daft import col

    drawn = documents.select("url", "order", "text_list", col("url").hash(seed=seed).alias("drawn")).sort(["drawn", "order"]).limit(count)
    rows = drawn.select("url", "text_list").to_pydict()
    return [(url, text_of(texts)) for url, texts in zip(rows["url"], rows["text_list"], strict=True)]


def recall(random: Sequence[tuple[str, str]], config: CurateConfig, say: Callable[[str], None]) -> Classifier:
    """Classifier 1: documents of the domain against random documents of the crawl. Without `positives` the rules say which of the random documents
    are
    mathematics, and the others are the other side.

    Args:
        random: (URL, text) of random documents, as they were extracted.

    Raises:
        BadInput: fewer than five documents on a side.
    """
    settings = config.recall
    texts = [text for _, text in random]
    if settings.positives is not None:
        positive, negative = list(labels.read_texts(settings.positives)), texts
    else:
        positive, negative = labels.split_by_score(texts, labels.by_rules(random), config.precision.positive_from)
    _refuse_few("first", positive, negative, "Give documents of your domain with --recall.positives, or a classifier with --recall.model.")
    source = "given" if settings.positives is not None else "found by rules"
    say(f"first classifier: {len(positive):,} documents {source} against {len(negative):,} random ones of the crawl")
    return learn(positive, negative, plain, None, settings.seed, say)


def precision(
    documents: Any,
    random: Sequence[tuple[str, str]],
    config: CurateConfig,
    say: Callable[[str], None],
    score: labels.Score | None = None,
    kept: Path | None = None,
) -> Classifier:
    """Classifier 2: documents of a high score against as many random documents of the crawl; in later rounds half of the sample is what the
    classifier before finds doubtful.

    Args:
        documents: a Daft dataframe of the documents that are left; a sample of them is scored.
        random: (URL, text) of random documents, as they were extracted.
        score: any callable that scores documents; None: what the settings name (`scorer`).
        kept: a file for the scores of an endpoint as they come: those that are there already are not asked for. Beside it stand the documents that
            a file of scores lacks.

    Raises:
        BadInput: fewer than five documents on a side, or a server that does not answer.
    """
    settings = config.precision
    ask, source = scorer(settings, kept) if score is None else (score, "the given callable")
    view = VIEWS[settings.view]
    labelled: dict[tuple[str, str], float | None] = {}
    share = max(settings.sample // settings.rounds, 1)
    model: Classifier | None = None
    for number in range(settings.rounds):
        drawn = [one for one in sample(documents, settings.sample, settings.seed + number) if one not in labelled]
        chosen = drawn[:share] if model is None else _doubtful(drawn, model, view, share)
        if score is None and settings.scores is None and settings.endpoint is not None:  # minutes may pass before the first answer
            say(f"scores: {len(chosen):,} documents by {source}")
        labelled |= dict(zip(chosen, ask(chosen), strict=True))
        model = _learn_from(labelled, random, settings, source, say, kept)
    assert model is not None
    return model


def _learn_from(
    labelled: dict[tuple[str, str], float | None],
    random: Sequence[tuple[str, str]],
    settings: PrecisionConfig,
    source: str,
    say: Callable[[str], None],
    kept: Path | None = None,
) -> Classifier:
    good = {url or text for (url, text), score in labelled.items() if score is not None and score >= settings.positive_from}
    positive = [text for url, text in labelled if (url or text) in good]
    negative = [text for url, text in random if (url or text) not in good]  # in a small crawl the random ones would be the same pages
    if len(positive) + len(negative) >= MANY:
        negative = negative[: len(positive)]
    missing = [url for (url, _), score in labelled.items() if score is None]
    told = f"second classifier: {len(positive):,} of {len(labelled):,} documents scored {settings.positive_from:g} or more by {source}"
    again = f"; to ask for them again delete {kept}, or its lines with null" if kept is not None and kept.is_file() else ""
    if len(missing) > SHOWN and settings.scores is not None and kept is not None:
        listed = kept.with_name(WITHOUT)
        with atomic_write(listed) as file:
            file.writelines(json.dumps({"url": url}).encode() + b"\n" for url in missing)
        again = f"; {listed} names all"
    lacking = f" ({len(missing):,} have no score: {', '.join(missing[:SHOWN])}{' ...' if missing[SHOWN:] else ''}{again})" if missing else ""
    say(f"{told}{lacking}, against {len(negative):,} random ones")
    _refuse_few("second", positive, negative, "Give scores with --precision.scores, a server with --precision.endpoint, or --precision.model.")
    return learn(positive, negative, VIEWS[settings.view], None, settings.seed, say)


def scorer(settings: PrecisionConfig, kept: Path | None = None) -> tuple[labels.Score, str]:
    """Who scores the sample, and its name.

    Args:
        kept: a file for the scores of an endpoint.
    """
    if settings.scores is not None:
        return labels.from_file(settings.scores), settings.scores.name
    if settings.endpoint is not None:
        return from_endpoint(settings.endpoint, settings.endpoint_model, kept), settings.endpoint_model or settings.endpoint
    return labels.by_rules, "rules"


def _doubtful(drawn: Sequence[tuple[str, str]], model: Classifier, view: Callable[[str], str], count: int) -> list[tuple[str, str]]:
    """Half random documents, half those nearest to a probability of one half."""
    random, rest = list(drawn[: count // 2]), list(drawn[count // 2 :])
    distance = abs(model.positive(view(text) for _, text in rest) - 0.5)
    return random + [rest[place] for place in distance.argsort(kind="stable")[: count - len(random)].tolist()]


def _refuse_few(which: str, positive: Sequence[str], negative: Sequence[str], mend: str) -> None:
    if min(len(positive), len(negative)) < FEWEST:
        there = f"{len(positive)} positive and {len(negative)} negative documents"
        what = f"The {which} classifier has {there} to learn from, and needs {FEWEST} of each."
        raise BadInput(what, mend)
