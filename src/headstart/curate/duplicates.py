"""Which documents are there twice, over the whole corpus: near-duplicates by MinHash (webmath A4) and equal addresses (A5).

Both are questions to a dataframe of documents and answer with a dataframe of those to drop: `order`, `reason`. Daft groups and joins, on one
machine or a
cluster; what comes to the driver are the duplicates, not the documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from headstart.curate import minhash
from headstart.curate.config import NearConfig, UrlConfig
from headstart.curate.tables import Stage, drop, texts_of, with_column, with_items, year_of

BAND_COLUMNS = tuple(f"band_{number:02d}" for number in range(minhash.BANDS))
CHARACTER_LANGUAGES = ("zh", "ja", "th")
"""Written without blanks: their 5-grams are of characters."""
FEW_GRAMS, LONG = 10, 200
"""A text of so many characters with fewer 5-grams of words is hardly found again: it is written without blanks, in another language than those."""
FEW = "text: too few 5-grams of words"


def signed(table: pa.Table) -> pa.Table:
    """The stage before `near_duplicates`: columns band_00 .. band_13, 64 bytes each; null where a text has no 5-gram. Drops nothing;
    texts that are hardly found again are counted (`FEW`)."""
    texts, by_character = texts_of(table), [language in CHARACTER_LANGUAGES for language in table["language"].to_pylist()]
    values, has = minhash.signatures(texts, by_character)
    cut = minhash.bands(values)  # [rows, 14, 64]
    kind = pa.binary(minhash.BAND_BYTES)
    for number, name in enumerate(BAND_COLUMNS):
        band = np.ascontiguousarray(cut[:, number])
        column = pa.FixedSizeBinaryArray.from_buffers(kind, len(band), [_bitmap(has), pa.py_buffer(band.tobytes())])
        table = with_column(table, name, column, kind)
    few = sum(not characters and _has_few(text) for text, characters in zip(texts, by_character, strict=True))
    return with_items(drop(table, [None] * table.num_rows), Counter({FEW: few} if few else {}))


def _has_few(text: str) -> bool:
    some = FEW_GRAMS + minhash.N_GRAM
    return len(text) >= LONG and len(text.split(None, some)) < some and len(minhash.shingles(text, characters=False)) < FEW_GRAMS


def _bitmap(valid: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())


def components(edges: np.ndarray) -> np.ndarray:
    """Exact connected components.

    Args:
        edges: int64 [n, 2], pairs of orders.

    Returns:
        int64 [m, 2]: (order, the first order of its component), for every order of an edge that is not the first of its component, sorted.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(edges):
        return np.zeros((0, 2), dtype=np.int64)
    nodes, places = np.unique(edges, return_inverse=True)
    places = places.reshape(edges.shape)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (places[:, 0], places[:, 1])), shape=(len(nodes), len(nodes)))
    _, label = connected_components(graph, directed=False)
    first = np.full(label.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, label, nodes)
    others = nodes != first[label]
    return np.stack([nodes[others], first[label[others]]], axis=1)


def near_duplicates(documents: Any, config: NearConfig) -> pa.Table:
    """Documents to drop as near-duplicates.

    First within each snapshot: documents that agree in a band are joined, and of each connected component the first of the input stays. Then each
    snapshot with the next in time, oldest pair first, among what is left: the document of the older one goes (`keep="older"`: of the newer).

    Args:
        documents: a Daft dataframe with `order`, `snapshot` and the columns of `signed`.

    Returns:
        order, reason, other (the order of the document that stays), sorted by order.
    """
    import daft
    from daft import col

    edges = []
    for band in BAND_COLUMNS:
        groups = documents.where(col(band).not_null()).groupby("snapshot", band).agg(col("order").list_agg().alias("orders"))
        same = groups.where(col("orders").list_count("all") > daft.lit(1)).select("orders").to_arrow()["orders"].to_pylist()
        edges += [(orders[0], other) for orders in same for other in orders[1:]]
    within = components(np.array(edges, dtype=np.int64).reshape(-1, 2))
    found = {order: ("near-duplicate in its snapshot", first) for order, first in within.tolist()}
    snapshots = sorted(documents.select("snapshot").distinct().to_pydict()["snapshot"]) if config.pairs else []
    if len(snapshots) < 2:
        return removals(found)
    place = {snapshot: number for number, snapshot in enumerate(snapshots)}
    gone = daft.from_arrow(pa.table({"order": pa.array(sorted(found), type=pa.int64())}))
    left = documents.join(gone, on="order", how="anti") if found else documents
    pairs: set[tuple[int, int, int]] = set()
    for band in BAND_COLUMNS:
        lists = (col("order").list_agg().alias("orders"), col("snapshot").list_agg().alias("snapshots"))
        groups = left.where(col(band).not_null()).groupby(band).agg(*lists).where(col("orders").list_count("all") > daft.lit(1))
        same = groups.select("orders", "snapshots").to_arrow()
        for orders, names in zip(same["orders"].to_pylist(), same["snapshots"].to_pylist(), strict=True):
            order_of = dict(zip(map(place.__getitem__, names), orders, strict=True))  # one of a snapshot: the others went within it
            pairs.update((number, order, order_of[number + 1]) for number, order in order_of.items() if number + 1 in order_of)
    reason = f"near-duplicate in the {config.keep} snapshot"
    return removals(found | {order: (reason, other) for order, other in between(pairs, config.keep).items()})


def between(pairs: Iterable[tuple[int, int, int]], keep: Literal["newer", "older"]) -> dict[int, int]:
    """Documents to drop for one in the neighbouring snapshot, oldest pair of snapshots first, with the first of those that they are dropped for. One
    look at all pairs, so that it takes no longer where a crawl was given a snapshot for every day.

    Args:
        pairs: (place of the older snapshot in time, document in it, near-duplicate in the next one).
    """
    found: dict[int, int] = {}
    for _, older, newer in sorted(pairs):
        if keep == "newer":  # what it is dropped for belongs to a later pair, so it is still there
            found[older] = min(newer, found.get(older, newer))
        elif older not in found:
            found[newer] = min(older, found.get(newer, older))
    return found


def equal_urls(documents: Any, config: UrlConfig) -> pa.Table:
    """Documents to drop because their address stands once more: among the snapshots of a calendar year (or `scope`) the newest stays; within one
    snapshot the longer, then the first. What has no address is not compared.

    Args:
        documents: a Daft dataframe with order, url, snapshot, words.

    Returns:
        order, reason, other, sorted by order.
    """
    import daft
    from daft import col

    scopes: dict[str, Callable[[str], str]] = {"year": year_of, "all": lambda snapshot: "", "snapshot": str}
    scope = daft.func(scopes[config.scope], return_dtype=daft.DataType.string())(col("snapshot"))
    address = daft.func(normalised_url, return_dtype=daft.DataType.string())(col("url")) if config.normalise else col("url")
    rows = documents.where(col("url") != daft.lit("")).select("order", "snapshot", "words", address.alias("address"), scope.alias("scope"))
    lists = [col(name).list_agg().alias(f"{name}s") for name in ("order", "snapshot", "words")]
    same = rows.groupby("scope", "address").agg(*lists).where(col("orders").list_count("all") > daft.lit(1)).to_arrow()
    found = {}
    for group in zip(*(same[name].to_pylist() for name in ("orders", "snapshots", "wordss")), strict=True):
        (newest, _, best), *others = sorted(zip(group[1], group[2], (-order for order in group[0]), strict=True), reverse=True)
        for snapshot, _, order in others:
            found[-order] = ("same URL in its snapshot, shorter" if snapshot == newest else "same URL in a newer snapshot", -best)
    return removals(found)


def normalised_url(url: str) -> str:
    """The address without scheme, fragment and a slash at its end, the host in lower case."""
    rest = url.partition("://")[2] or url
    host, slash, path = rest.partition("#")[0].partition("/")
    return (host.lower() + slash + path).rstrip("/")


def removals(found: dict[int, tuple[str, int]]) -> pa.Table:
    """{order: (reason, other)} as a table sorted by order."""
    orders = sorted(found)
    reasons, others = [found[order][0] for order in orders], [found[order][1] for order in orders]
    return pa.table({"order": pa.array(orders, pa.int64()), "reason": pa.array(reasons, pa.string()), "other": pa.array(others, pa.int64())})


def removed(gone: pa.Table) -> Stage:
    """The stage that drops what `near_duplicates` or `equal_urls` named."""
    reasons = dict(zip(gone["order"].to_pylist(), gone["reason"].to_pylist(), strict=True))

    def stage(table: pa.Table) -> pa.Table:
        return drop(table, [reasons.get(order) for order in table["order"].to_pylist()])

    return stage
