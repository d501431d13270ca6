"""The raw input of curation: WARC files, JSON lines and Parquet, as batches of pages or documents. One file is one shard of all that follows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.core.words import first_line
from headstart.curate.addresses import kind_of, open_source
from headstart.curate.config import ReadConfig
from headstart.curate.extract.decode import sound
from headstart.curate.tables import DOCUMENTS, PAGES, count_words, text_of
from headstart.curate.warc import BadResponse, Record, Unreadable, parse_response, read_warc
from headstart.data import parquet
from headstart.data.compressed import Bomb, Decompressed
from headstart.data.text.read import UTF_16, Lines

BATCH_ROWS = 256
BATCH_BYTES = 1 << 20
"""Few enough that their memory is used again and again: where it is fresh each time, as with 32 MB, reading takes a fifth longer."""
MAX_LINE = 1 << 26
HTML_TYPES = ("text/html", "application/xhtml+xml")
RECORD_TYPES = ("warcinfo", "request", "metadata", "resource", "revisit", "conversion", "continuation")
"""Of the WARC standard, without responses. A file may hold any others, so they count as one."""
UNREADABLE = "unreadable: "
"""Reasons that begin so count as damage of the input: more than a share of them stops the run."""
IMAGE_FACTS: dict[str, type] = {"status": str, "sha256": str, "width": int, "height": int, "file": str}
_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}")


def read_source(address: str, shard: int, config: ReadConfig) -> Iterator[pa.Table]:
    """Batches of an input file: PAGES where it holds HTML, DOCUMENTS where it holds texts. Rows that cannot be read come with their reason in
    `dropped`."""
    kind = kind_of(address) or ""
    if kind == ".parquet":
        yield from _batches(_parquet_records(address, config), shard, address, config)
        return
    with open_source(address, config) as file:
        if kind.startswith(".warc"):
            yield from _tables(_warc_rows(file, shard, address, config), PAGES)
        else:
            yield from _batches(_json_records(file, kind), shard, address, config)


# WARC


def _warc_rows(file: BinaryIO, shard: int, address: str, config: ReadConfig) -> Iterator[dict[str, Any]]:
    crawl = _CRAWL.search(address)
    snapshot = crawl[0] if crawl else None
    record: Record | Unreadable | None = None
    for record in read_warc(file, max_record=config.max_record_mb << 20):
        row: dict[str, Any] = {"order": shard << 32 | record.number, "id": f"{shard}-{record.number}", "snapshot": config.snapshot or snapshot or ""}
        if isinstance(record, Unreadable):
            yield row | {"url": record.url, "dropped": UNREADABLE + record.reason}
            continue
        headers = record.headers
        if headers.get("warc-type") == "warcinfo" and snapshot is None and (named := _CRAWL.search(record.block[:65536].decode("latin-1"))):
            snapshot = named[0]
        row["url"] = headers.get("warc-target-uri", "").strip("<>")
        row["snapshot"] = config.snapshot or snapshot or _week(headers.get("warc-date", ""))
        yield row | _page(record, config)
    if record is None:  # a WARC file has at least a record about itself; nothing is what a failed download leaves
        name = config.snapshot or snapshot or ""
        yield {"order": shard << 32, "id": f"{shard}-0", "url": "", "snapshot": name, "dropped": UNREADABLE + "empty file"}


def _page(record: Record, config: ReadConfig) -> dict[str, Any]:
    """The columns of a page that the HTTP message decides."""
    kind = record.headers.get("warc-type", "")
    if kind != "response":
        return {"dropped": f"record type {kind if kind in RECORD_TYPES else 'unknown'}"}
    try:
        response = parse_response(record.block, max_body=config.max_record_mb << 20)
    except BadResponse as error:
        return {"dropped": f"{UNREADABLE}{error}"}
    content_type = response.headers.get("content-type", "")
    if response.status != 200:
        return {"content_type": content_type, "dropped": f"status {response.status}"}
    mime = content_type.partition(";")[0].strip().lower()
    if mime not in HTML_TYPES:
        return {"content_type": content_type, "dropped": "mime type"}
    return {"content_type": content_type, "html": response.body, "dropped": None}


def _week(written: str) -> str:
    """A name for the crawl of a record's date: its year and week."""
    try:
        year, week, _ = date.fromisoformat(written[:10]).isocalendar()
    except ValueError:
        return ""
    return f"{year}-{week:02d}"


# JSON lines and Parquet


def _json_records(file: BinaryIO, kind: str) -> Iterator[dict[str, Any] | str]:
    """Objects, or the reason why a line is none."""
    for line in _lines(file, kind):
        if isinstance(line, Unreadable):
            yield UNREADABLE + line.reason
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield UNREADABLE + "not JSON"
            continue
        yield record if isinstance(record, dict) else UNREADABLE + "not a JSON object"


def _lines(file: BinaryIO, kind: str) -> Iterator[bytes | Unreadable]:
    """Lines of at most MAX_LINE bytes; a longer one, and damage of the compressed stream, come as Unreadable."""
    compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(kind).suffix)
    try:
        lines = Lines(Decompressed(file, compression, file.tell) if compression else file, MAX_LINE)
        if lines.head.startswith(UTF_16):
            yield Unreadable(0, "UTF-16, not UTF-8")
            return
        for line in lines:
            yield Unreadable(0, "line too long") if line is None else line
    except Bomb:
        yield Unreadable(0, "decompression bomb")
    except (OSError, pa.ArrowException):  # what the file's own reader cannot read is BadInput
        yield Unreadable(0, "damaged compression")


def _parquet_records(address: str, config: ReadConfig) -> Iterator[dict[str, Any] | str]:
    """Rows, or the reason why one cannot be read.

    Raises:
        BadInput: the file is damaged.
    """
    import pyarrow.parquet as pq

    with open_source(address, config) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS):
                yield from _rows(batch)
        except parquet.ERRORS as error:
            raise BadInput(f"is damaged, cut off, or no Parquet file ({first_line(error)}).", "Copy or download it again.", file=address) from error


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """The rows of a batch; those that Python cannot hold as the reason why."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [UNREADABLE + "not UTF-8"] if len(batch) == 1 else _one_by_one(batch)
    except (ValueError, OverflowError):  # a date that it does not know
        return [UNREADABLE + "a value that cannot be read"] if len(batch) == 1 else _one_by_one(batch)


def _one_by_one(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    return [row for place in range(len(batch)) for row in _rows(batch.slice(place, 1))]


def _batches(records: Iterator[dict[str, Any] | str], shard: int, address: str, config: ReadConfig) -> Iterator[pa.Table]:
    """The kind of the first readable record decides what the file holds."""
    held, first = [], None
    for record in records:
        held.append(record)
        if isinstance(record, dict):
            first = record
            break
    pages = first is None or "html" in first
    rows = (_row(record, pages, number, shard, address, config) for number, record in enumerate(_chain(held, records)))
    yield from _tables(rows, PAGES if pages else DOCUMENTS)


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _row(record: dict[str, Any] | str, pages: bool, number: int, shard: int, address: str, config: ReadConfig) -> dict[str, Any]:
    row: dict[str, Any] = {"order": shard << 32 | number, "id": f"{shard}-{number}", "url": "", "snapshot": config.snapshot or ""}
    if isinstance(record, str):
        return row | {"dropped": record}
    about = {} if pages else _about(record)
    crawl = _CRAWL.search(address)
    url = next((found for found in (record.get("url"), record.get("URL"), about.get("url")) if isinstance(found, str)), "")
    snapshot = record.get("snapshot") or about.get("snapshot") or (crawl[0] if crawl else "")
    row |= {"id": sound(str(record.get("id") or about.get("id") or row["id"])), "url": sound(url)}
    row["snapshot"] = config.snapshot or sound(str(snapshot))
    return row | (_html(record) if pages else _document(record, about))


def _html(record: dict[str, Any]) -> dict[str, Any]:
    html = record.get("html")
    if not isinstance(html, str | bytes):
        return {"dropped": UNREADABLE + "no html"}
    data = html if isinstance(html, bytes) else sound(html).encode()
    content_type = record.get("content_type") if isinstance(html, bytes) else "text/html; charset=utf-8"  # a JSON text was decoded already
    return {"html": data, "content_type": str(content_type or "text/html"), "dropped": None}


def _document(record: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    texts, images = record.get("text_list", record.get("texts")), record.get("image_list", record.get("images"))
    if texts is None and isinstance(record.get("text"), str):
        texts, images = [record["text"]], [None]
    if not isinstance(texts, list) or not isinstance(images, list):
        return {"dropped": UNREADABLE + "no text"}
    if len(texts) != len(images) or any((a is None) == (b is None) for a, b in zip(texts, images, strict=True)):
        return {"dropped": UNREADABLE + "texts and images do not interleave"}
    if not all(isinstance(text, str) for text in texts if text is not None):
        return {"dropped": UNREADABLE + "no text"}
    if not all(isinstance(image, str) for image in images if image is not None):
        return {"dropped": UNREADABLE + "images that are no addresses"}
    language = record.get("language") or about.get("ft_lang_label")
    return {
        "text_list": [None if text is None else sound(text) for text in texts],
        "image_list": [None if image is None else sound(image) for image in images],
        "language": sound(language) if isinstance(language, str) else None,
        "language_probability": _number(about.get("ft_lang_prob")),
        "math_prob": _number(about.get("math_prob")),
        "quality_prob": _number(about.get("quality_prob")),
        "formulas": _count(about.get("formulas")),
        "html_bytes": _count(about.get("html_size")),
        "image_facts": _image_facts(record, about),
        "words": count_words(text_of(texts)),
        "images": sum(image is not None for image in images),
        "dropped": None,
    }


def _about(record: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a released document; a document without any that can be read is still one."""
    metadata = record.get("general_metadata", record.get("metadata"))
    try:
        about = json.loads(metadata) if isinstance(metadata, str) else metadata
    except (ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _image_facts(record: dict[str, Any], about: dict[str, Any]) -> str | None:
    """What a document says of its fetched images (`layouts`): in the metadata of the released layout, or place by place in OBELICS's."""
    told = about.get("images")
    if told is None and "general_metadata" in record:
        try:
            told = json.loads(record.get("metadata") or "null")
        except (ValueError, RecursionError, TypeError):
            return None
    facts: dict[str, dict[str, Any]] = {}
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict) and isinstance(url := one.get("url", one.get("src")), str):
            known = {name: value for name, kind in IMAGE_FACTS.items() if isinstance(value := one.get(name), kind)}
            facts |= {sound(url): known} if known else {}
    return json.dumps(facts, sort_keys=True) if facts else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= 1 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _tables(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows in tables of bounded size."""
    held: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row.get("html") or b"") + sum(len(text or "") for text in row.get("text_list") or ())
        if len(held) == BATCH_ROWS or size >= BATCH_BYTES:
            yield pa.Table.from_pylist(held, schema=schema)
            held, size = [], 0
    if held:
        yield pa.Table.from_pylist(held, schema=schema)
