"""Classifier 2 from the scores of any callable, in rounds: a later one asks half at random and half where the classifier before is in doubt."""

from __future__ import annotations

import random
from collections.abc import Sequence

import daft
import pyarrow as pa

from headstart.curate import training
from headstart.curate.classify import cleaned
from headstart.curate.config import CurateConfig, PrecisionConfig
from tests.curate.crawl import MATHS, SHOES

PAGES = 120
ROUNDS, EACH = 3, 20


def mixed(seed: int) -> str:
    """30 words, some of mathematics, the others of shoes."""
    random_ = random.Random(seed)
    of_mathematics = seed % 31
    words = random_.choices(MATHS, k=of_mathematics) + random_.choices(SHOES, k=30 - of_mathematics)
    random_.shuffle(words)
    return " ".join(words)


CORPUS = [(f"https://x.org/{seed}", mixed(seed)) for seed in range(PAGES)]


def frame() -> daft.DataFrame:
    columns = {"url": [url for url, _ in CORPUS], "order": list(range(PAGES)), "text_list": [[text] for _, text in CORPUS]}
    return daft.from_arrow(pa.table(columns))


def test_later_rounds_ask_where_the_classifier_is_in_doubt() -> None:
    asked: list[list[tuple[str, str]]] = []
    said: list[str] = []

    def score(documents: Sequence[tuple[str, str]]) -> list[float | None]:
        asked.append(list(documents))
        return [10 * sum(word in MATHS for word in text.split()) / 30 for _, text in documents]

    config = CurateConfig(precision=PrecisionConfig(sample=ROUNDS * EACH, rounds=ROUNDS))
    model = training.precision(frame(), CORPUS, config, said.append, score)
    assert [len(batch) for batch in asked] == [EACH] * ROUNDS
    assert len({url for batch in asked for url, _ in batch}) == ROUNDS * EACH, "no document is asked for twice"
    told = [line for line in said if line.startswith("second classifier")]
    assert [line.split(" of ")[1].split(" by ")[0] for line in told] == [f"{EACH * n} documents scored 6 or more" for n in (1, 2, 3)]
    assert "by the given callable" in told[0]

    once = CurateConfig(precision=PrecisionConfig(sample=EACH))
    first = training.precision(frame(), CORPUS, once, said.append, score)
    assert asked[ROUNDS] == asked[0], "the first round is a run of one"
    drawn = [one for one in training.sample(frame(), ROUNDS * EACH, 1) if one not in asked[0]]
    at_random, rest = drawn[: EACH // 2], drawn[EACH // 2 :]
    doubt = sorted(abs(float(first.positive([cleaned(text)])[0]) - 0.5) for _, text in rest)
    of_second = [abs(float(first.positive([cleaned(text)])[0]) - 0.5) for _, text in asked[1][EACH // 2 :]]
    assert asked[1][: EACH // 2] == at_random
    assert of_second == doubt[: EACH // 2]
    assert of_second[-1] < doubt[-1]
    texts = [cleaned(text) for _, text in CORPUS]
    assert not (model.positive(texts) == first.positive(texts)).all(), "the last classifier has learned from all rounds"
