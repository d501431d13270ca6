"""Which documents are there twice, over the whole corpus: near-duplicates by MinHash (webmath A4) and equal addresses (A5).

Both are questions to a dataframe of documents and answer with a dataframe of those to drop: `order`, `reason`. Daft groups and joins, on one
machine or a
cluster; what comes to the driver are the duplicates, not the documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.curate import minhash
from headstart.curate.config import NearConfig, UrlConfig
from headstart.curate.tables import Stage, drop, texts_of, with_column, with_items, year_of

BAND_COLUMNS = tuple(f"band_{number:02d}" for number in range(minhash.BANDS))
CHARACTER_LANGUAGES = ("zh", "ja", "th")
"""Written without blanks: their 5-grams are of characters."""
FEW_GRAMS, LONG = 10, 200
"""A text of so many characters with fewer 5-grams of words is hardly found again: it is written without blanks, in another language than those."""
FEW = "text: too few 5-grams of words"
Columns: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


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


def _first_of(orders: np.ndarray, joined: np.ndarray) -> np.ndarray:
    """int64 [n]: the first order of the component of each; of those that are in none themselves.

    Args:
        joined: as `components` gives them.
    """
    if not len(joined):
        return orders
    places = np.searchsorted(joined[:, 0], orders).clip(max=len(joined) - 1)
    return np.where(joined[places, 0] == orders, joined[places, 1], orders)


def near_duplicates(documents: Any, config: NearConfig) -> pa.Table:
    """Documents to drop as near-duplicates.

    First within each snapshot: documents that agree in a band are joined, and of each connected component the first of the input stays. Then each
    snapshot with the next in time, oldest pair first, among what is left: the document of the older one goes (`keep="older"`: of the newer).

    What is found is held as arrays of integers, those of one band beside the distinct ones of the bands before. Measured at their peak: 170 bytes for
    each copy within a snapshot, 120 between two, where lists and sets of tuples had 3,300 and 560.

    Args:
        documents: a Daft dataframe with `order`, `snapshot` and the columns of `signed`.

    Returns:
        order, reason, other (the order of the document that stays), sorted by order.
    """
    import daft
    from daft import col

    within = np.zeros((0, 2), dtype=np.int64)
    for band in BAND_COLUMNS:
        group, (orders,) = _agreeing(documents.where(col(band).not_null()), ("snapshot", band), ("order",))
        starts = np.diff(group, prepend=-1) != 0
        edges = np.stack([orders, orders[starts][group]], axis=1)[~starts]
        new = edges[_first_of(edges[:, 0], within) != _first_of(edges[:, 1], within)]
        within = components(np.concatenate([within, new])) if len(new) else within  # connects what all edges so far connect
    reasons = ("near-duplicate in its snapshot", f"near-duplicate in the {config.keep} snapshot")
    snapshots = sorted(documents.select("snapshot").distinct().to_pydict()["snapshot"]) if config.pairs else []
    if len(snapshots) < 2:
        return removals(within, np.zeros(len(within), dtype=np.int8), reasons)
    gone = daft.from_arrow(pa.table({"order": within[:, 0]}))
    left = documents.join(gone, on="order", how="anti") if len(within) else documents
    pairs: Columns = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    for band in BAND_COLUMNS:
        pairs = distinct(pairs, _neighbours(left.where(col(band).not_null()), band, snapshots))
    others = between(pairs, config.keep)
    return removals(np.concatenate([within, others]), np.repeat(np.arange(2, dtype=np.int8), [len(within), len(others)]), reasons)


def _agreeing(rows: Any, keys: Sequence[str], columns: Sequence[str]) -> tuple[np.ndarray, list[Any]]:
    """(numbers 0, 1, ... of groups, ascending: int64 [n]; their columns) of the rows of a dataframe that agree in the keys with another one."""
    import daft
    from daft import col

    lists = rows.groupby(*keys).agg(*(col(name).list_agg() for name in columns)).where(col(columns[0]).list_count("all") > daft.lit(1))
    found = lists.select(*columns).to_arrow()
    group = np.repeat(np.arange(found.num_rows), pc.list_value_length(found[columns[0]]).to_numpy())
    flat = [pc.list_flatten(found[name]) for name in columns]
    return group, [column.to_numpy() if pa.types.is_integer(column.type) else column for column in flat]


def _places(names: pa.ChunkedArray, known: Sequence[str]) -> np.ndarray:
    """int32 [n]: the place of each name among the known ones."""
    found: np.ndarray = pc.index_in(names, value_set=pa.array(known, type=names.type)).to_numpy()
    return found


def _neighbours(rows: Any, band: str, snapshots: Sequence[str]) -> Columns:
    """Pairs of documents of neighbouring snapshots that agree in a band: (place of the older snapshot, order in it, order in the next one)."""
    group, (orders, names) = _agreeing(rows, (band,), ("order", "snapshot"))
    place = _places(names, snapshots)
    sort = np.lexsort((place, group))
    group, place, orders = group[sort], place[sort], orders[sort]
    first = np.flatnonzero((group[1:] == group[:-1]) & (place[1:] == place[:-1] + 1))  # one of a snapshot: the others went within it
    return place[first], orders[first], orders[first + 1]


def distinct(held: Columns, new: Columns) -> Columns:
    """The rows of both, each once, sorted. No more than a column is there twice."""
    columns = [np.concatenate(both) for both in zip(held, new, strict=True)]
    sort = np.lexsort(columns[::-1])
    for number in range(len(columns)):
        columns[number] = columns[number][sort]
    own = np.ones(len(sort), dtype=bool)
    own[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return columns[0][own], columns[1][own], columns[2][own]


def between(pairs: Columns, keep: Literal["newer", "older"]) -> np.ndarray:
    """Documents to drop for one in the neighbouring snapshot, oldest pair of snapshots first: int64 [m, 2], with the first of those that they are
    dropped for. One look at all pairs, so that it takes no longer where a crawl was given a snapshot for every day.

    Args:
        pairs: place of the older snapshot in time (int32 [n]), document in it, near-duplicate in the next one (int64 [n]), sorted.
    """
    place, older, newer = pairs
    if keep == "newer":  # what it is dropped for belongs to a later pair, so it is still there
        first = np.diff(older, prepend=-1) != 0
        return np.stack([older[first], newer[first]], axis=1)
    found, gone = [np.zeros((0, 2), dtype=np.int64)], np.zeros(0, dtype=np.int64)
    for of_place in np.split(np.arange(len(place)), np.flatnonzero(np.diff(place)) + 1):
        there = of_place[~np.isin(older[of_place], gone)]  # those that went before went for one in the snapshot before
        gone, first = np.unique(newer[there], return_index=True)
        found.append(np.stack([gone, older[there][first]], axis=1))
    return np.concatenate(found)


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
    group, (orders, names, words) = _agreeing(rows, ("scope", "address"), ("order", "snapshot", "words"))
    snapshot = _places(names, sorted(pc.unique(names).to_pylist()))
    sort = np.lexsort((-orders, words, snapshot, group))
    group, orders, snapshot = group[sort], orders[sort], snapshot[sort]
    last = np.diff(group, append=-1) != 0  # of each group the one that stays
    best = np.flatnonzero(last)[group]
    older = (snapshot != snapshot[best])[~last]
    reasons = ("same URL in its snapshot, shorter", "same URL in a newer snapshot")
    return removals(np.stack([orders, orders[best]], axis=1)[~last], older.astype(np.int8), reasons)


def normalised_url(url: str) -> str:
    """The address without scheme, fragment and a slash at its end, the host in lower case."""
    rest = url.partition("://")[2] or url
    host, slash, path = rest.partition("#")[0].partition("/")
    return (host.lower() + slash + path).rstrip("/")


def removals(found: np.ndarray, reason: np.ndarray, reasons: Sequence[str]) -> pa.Table:
    """What is dropped, as a table sorted by order.

    Args:
        found: int64 [n, 2], (order, other); reason: int8 [n], index into `reasons`.
    """
    sort = np.argsort(found[:, 0])
    why = pa.DictionaryArray.from_arrays(pa.array(reason[sort]), pa.array(reasons, pa.string())).dictionary_decode()
    return pa.table({"order": found[sort, 0], "reason": why, "other": found[sort, 1]})


def removed(gone: pa.Table) -> Stage:
    """The stage that drops what `near_duplicates` or `equal_urls` named."""
    known, reasons = gone["order"].to_numpy(), gone["reason"].combine_chunks()

    def stage(table: pa.Table) -> pa.Table:
        orders = table["order"].to_numpy()
        places = np.searchsorted(known, orders)
        is_there = np.isin(orders, known)
        return with_column(table, "dropped", reasons.take(pa.array(places, mask=~is_there)), pa.string())

    return stage
