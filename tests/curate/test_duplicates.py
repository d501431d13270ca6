"""Duplicates over a corpus: whole components go, snapshots in the right order, equal addresses by year."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any, Literal

import daft
import numpy as np
import pyarrow as pa
import pytest

from headstart.curate import duplicates, minhash
from headstart.curate.config import NearConfig, UrlConfig
from headstart.curate.duplicates import FEW, between, components, distinct, equal_urls, near_duplicates, normalised_url, signed
from headstart.curate.engine import over
from headstart.curate.tables import DOCUMENTS, items_of


def text(seed: int, words: int = 200) -> str:
    random_ = random.Random(seed)
    return " ".join("".join(random_.choices("abcdefghij", k=4)) for _ in range(words))


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    """(snapshot, url, text) of documents in order."""
    made = [
        {"order": place, "snapshot": snapshot, "url": url, "text_list": [body], "language": "en", "words": len(body.split())}
        for place, (snapshot, url, body) in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=DOCUMENTS)


def gone(rows: list[tuple[str, str, str]], config: NearConfig) -> dict[int, int]:
    found = near_duplicates(daft.from_arrow(signed(table(rows))), config)
    return dict(zip(found["order"].to_pylist(), found["other"].to_pylist(), strict=True))


def test_the_first_of_a_component_stays_though_its_ends_do_not_match() -> None:
    """A chain: neighbours are near, the ends are not; all but the first go."""
    words = text(1, 400).split()
    chain = [" ".join(words[start : start + 300]) for start in (0, 18, 36, 54, 72)]
    ends = minhash.bands(np.stack([minhash.signature(minhash.hash_shingles(minhash.shingles(one))) for one in (chain[0], chain[-1])]))
    rows = [("A", f"u{place}", body) for place, body in enumerate(chain)]
    assert gone(rows, NearConfig()) == {1: 0, 2: 0, 3: 0, 4: 0}
    assert not (ends[0] == ends[1]).all(axis=1).any(), "the ends alone would not have been found"


def test_of_two_snapshots_the_older_loses_unless_it_is_kept() -> None:
    rows = [("2022-05", "a", text(0)), ("2023-50", "b", text(0) + " end"), ("2023-50", "c", text(1)), ("2022-05", "d", text(2))]
    assert gone(rows, NearConfig()) == {0: 1}
    assert gone(rows, NearConfig(keep="older")) == {1: 0}
    assert gone(rows, NearConfig(pairs=False)) == {}


def test_only_neighbours_are_compared_oldest_pair_first() -> None:
    body = text(0)
    rows = [("2021", "a", body), ("2022", "b", text(5)), ("2023", "c", body)]
    assert gone(rows, NearConfig()) == {}, "2021 and 2023 are no neighbours"
    rows[1] = ("2022", "b", body)
    assert gone(rows, NearConfig()) == {0: 1, 1: 2}
    assert gone(rows, NearConfig(keep="older")) == {1: 0}, "what 2022 lost is not compared with 2023"


def test_within_a_snapshot_what_is_gone_takes_nothing_else_with_it() -> None:
    """The copy in the newer snapshot that was dropped there as a copy does not count as a witness against the older one; its twin does."""
    rows = [("2022", "a", text(0)), ("2023", "b", text(0)), ("2023", "c", text(0))]
    assert gone(rows, NearConfig()) == {0: 1, 2: 1}


@pytest.mark.parametrize("keep", ["newer", "older"])
@pytest.mark.parametrize("seed", range(4))
def test_between_snapshots_it_is_as_pair_after_pair(keep: Literal["newer", "older"], seed: int) -> None:
    """As the specification says it: of each pair of neighbours, the oldest first, a document goes if one that it matches is still there."""
    random_ = np.random.default_rng(seed)
    snapshot = {order: int(random_.integers(6)) for order in range(40)}
    near = {(a, b) for a, b in random_.integers(0, 40, (160, 2)).tolist() if snapshot[b] == snapshot[a] + 1}
    expected: dict[int, int] = {}
    for older in range(5):
        matches = [(a, b) for a, b in sorted(near) if snapshot[a] == older and a not in expected and b not in expected]
        for a, b in matches:
            goes, stays = (a, b) if keep == "newer" else (b, a)
            expected[goes] = min(stays, expected.get(goes, stays))
    assert len(expected) > 5
    older, newer = np.array(sorted(near, key=lambda pair: (snapshot[pair[0]], pair))).T
    pairs = (np.array([snapshot[a] for a in older.tolist()]), older, newer)
    assert dict(between(distinct(pairs, pairs), keep).tolist()) == expected


def bytes_of(ask: Callable[[Any], pa.Table], snapshots: str) -> float:
    """The memory that Python takes for one more copy that a question finds, at its peak."""
    peaks = []
    for n in (500, 2000, 8000):  # the first makes what is made once
        documents = twice(n, snapshots)
        tracemalloc.start()
        assert ask(documents).num_rows == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[2] - peaks[1]) / 6000


def twice(n: int, snapshots: str) -> Any:
    """A dataframe of so many documents, each twice."""
    band = pa.array([b"%064d" % (row % n) for row in range(2 * n)], pa.binary(minhash.BAND_BYTES))
    urls = [f"https://a.org/{row % n}" for row in range(2 * n)]
    columns = {"order": pa.array(range(2 * n), pa.int64()), "snapshot": [snapshots[row // n] for row in range(2 * n)], "url": urls}
    return daft.from_arrow(pa.table(columns | {"words": pa.array([3] * 2 * n, pa.int32()), "band_00": band, "band_01": band}))


def test_what_is_found_is_held_as_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuples of orders took 330 to 800 bytes a copy; of a month of a crawl there are a thousand million."""
    monkeypatch.setattr(duplicates, "BAND_COLUMNS", ("band_00", "band_01"))
    assert bytes_of(lambda documents: near_duplicates(documents, NearConfig()), "AA") < 250, "within a snapshot"
    assert bytes_of(lambda documents: near_duplicates(documents, NearConfig()), "AB") < 250, "between two"
    assert bytes_of(lambda documents: equal_urls(documents, UrlConfig(scope="all")), "AB") < 250


def test_a_snapshot_for_every_page_ends() -> None:
    """A date in place of a crawl's name: thousands of neighbours are compared in one look (pair after pair it would meet the limit of the run)."""
    rows = [(f"2023-{n:05d}", f"u{n}", text(n // 2 % 500, 30)) for n in range(2000)]
    found = gone(rows, NearConfig())
    assert len(found) == 1000
    assert all(other == order + 1 for order, other in found.items())


def test_texts_without_blanks_in_another_language_are_counted() -> None:
    bodies = [("\u0e01\u0e32\u0e23" * 100, "th"), ("\u0e81\u0eb2\u0e99" * 100, "lo"), ("a b " * 99, "en"), ("short", "en")]
    rows = [{"order": n, "text_list": [body], "language": language} for n, (body, language) in enumerate(bodies)]
    assert items_of(signed(pa.Table.from_pylist(rows, schema=DOCUMENTS))) == {FEW: 1}


def test_short_texts_are_never_duplicates_and_chinese_goes_by_characters() -> None:
    assert gone([("A", "a", "one two three four"), ("A", "b", "one two three four")], NearConfig()) == {}
    chinese = "数学是研究数量结构变化以及空间等概念的一门学科" * 3
    made = table([("A", "a", chinese), ("A", "b", chinese)])
    made = made.set_column(made.schema.get_field_index("language"), "language", pa.array(["zh", "zh"]))
    assert near_duplicates(daft.from_arrow(signed(made)), NearConfig())["order"].to_pylist() == [1]
    assert gone([("A", "a", chinese), ("A", "b", chinese)], NearConfig()) == {}, "as English it is three words"


@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_a_search(seed: int) -> None:
    edges = np.random.default_rng(seed).integers(0, 60, (40, 2))
    label = {int(node): int(node) for node in edges.ravel()}
    for _ in range(60):
        for a, b in edges.tolist():
            label[a] = label[b] = min(label[a], label[b])
    expected = sorted((node, first) for node, first in label.items() if node != first)
    assert sorted(map(tuple, components(edges).tolist())) == expected


def test_normalisation_does_what_it_says() -> None:
    assert minhash.normalised("  Ünï  3.14, 1,000;\u0007tab\tΑ—B ") == "uni 0 0 0 tab α b"
    assert minhash.normalised("e\u0301") == minhash.normalised("é") == "e"


def test_equal_addresses() -> None:
    rows = [("CC-MAIN-2022-05", "https://a.org/x", "1"), ("CC-MAIN-2022-21", "http://A.org/x/#top", "1")]
    rows.append(("CC-MAIN-2022-21", "https://a.org/x", "1 2"))

    def found(config: UrlConfig) -> dict[int, str]:
        answer = equal_urls(daft.from_arrow(table(rows)), config)
        return dict(zip(answer["order"].to_pylist(), answer["reason"].to_pylist(), strict=True))

    assert found(UrlConfig()) == {0: "same URL in a newer snapshot"}
    assert found(UrlConfig(scope="snapshot")) == {}
    assert found(UrlConfig(normalise=True)) == {0: "same URL in a newer snapshot", 1: "same URL in its snapshot, shorter"}
    rows = [("A", "", "1"), ("A", "", "2 words"), ("B", "", "1")]
    assert found(UrlConfig(scope="all", normalise=True)) == {}, "texts without an address have none in common"
    assert normalised_url("HTTPS://A.org/B/?q=1#f") == "a.org/B/?q=1"


def test_a_stage_runs_over_any_dataframe() -> None:
    """As the pipeline runs it on a table of Arrow, so on a dataframe of Daft."""
    made = table([("A", "a", text(0)), ("A", "b", "short")])
    frame = over(daft.from_arrow(made), signed).to_arrow()
    assert frame.num_rows == 2
    wanted = signed(made)
    for name in ("band_00", "band_13", "dropped", "url"):
        assert frame[name].to_pylist() == wanted[name].to_pylist(), name
