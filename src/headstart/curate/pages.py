"""What happens to a page before and while it becomes a document: the pre-filter (webmath A0) and the extraction (A2, built in `extract`)."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pyarrow as pa

from headstart.curate.config import PrefilterConfig
from headstart.curate.extract import Document, ExtractConfig, PageDropped
from headstart.curate.extract.decode import decode, ordinary, sound
from headstart.curate.tables import DOCUMENTS, Stage, count_words, drop, with_column, with_items

_HOST = re.compile(r"[^\s/@]+\.[^\s/@]+|localhost|\[[0-9a-fA-F:.]+\]")


def prefilter(config: PrefilterConfig) -> Stage:
    """The stage: drops what has no web address, is too short or too long, or no text; `html` becomes characters."""

    def stage(table: pa.Table) -> pa.Table:
        texts: list[bytes | None] = []
        reasons: list[str | None] = []
        for url, data, content_type in zip(*(table[name].to_pylist() for name in ("url", "html", "content_type")), strict=True):
            text, reason = None, _address(url, config)
            if reason is None and len(data or b"") < config.min_bytes:
                reason = "too short"
            elif reason is None and len(data) > config.max_bytes:
                reason = "too large"
            if reason is None:
                try:
                    text = utf8(data, content_type or "")
                except PageDropped as dropped:
                    reason = dropped.reason
            texts.append(text)
            reasons.append(reason)
        column = pa.array(texts, pa.large_binary()).view(pa.large_string())
        return drop(with_column(table, "html", column, pa.large_string()), reasons)

    return stage


def utf8(data: bytes, content_type: str) -> bytes:
    """The characters of a page in UTF-8: of most pages their own bytes, which are not made characters for it (a third of the time).

    Raises:
        PageDropped: as `decode`.
    """
    plain = ordinary(data)
    if plain is not None and _valid(plain):
        return plain
    return sound(decode(data, content_type)[0]).encode()


def _valid(data: bytes) -> bool:
    column = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(struct.pack("=qq", 0, len(data))), pa.py_buffer(data)])
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _address(url: str | None, config: PrefilterConfig) -> str | None:
    if not url:
        return "no URL"
    if len(url) > config.max_url:
        return "URL too long"
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") is not None
    except ValueError:
        fits = False
    return None if fits else "URL is no web address"


def extraction(config: ExtractConfig, extract: Callable[..., Document]) -> Stage:
    """The stage: pages to documents of interleaved texts and images.

    Args:
        extract: `headstart.curate.extract.extract`, or a `TimedExtractor` of `config`, whose limits on time and memory hold for any page.
    """

    def stage(table: pa.Table) -> pa.Table:
        rows, items = [], Counter[str]()
        for page in table.to_pylist():
            html = page["html"]  # characters from the pre-filter, or bytes as they were crawled
            row = {name: page[name] for name in DOCUMENTS.names if name in page}
            row["html_bytes"] = len(html.encode() if isinstance(html, str) else html)
            try:
                document = extract(html, page["url"], content_type=page["content_type"] or "")
            except PageDropped as dropped:
                rows.append(row | {"dropped": dropped.reason})
                continue
            except RuntimeError:  # a fault of ours on one page of a million: it is counted, with the page's address, and the crawl goes on
                rows.append(row | {"dropped": "extraction failed"})
                continue
            items.update(f"{one.what}: {one.reason.removeprefix(f'{one.what}: ')}" for one in document.dropped)
            texts = [None if text is None else sound(text) for text in document.text_list]
            rows.append(
                row
                | {
                    "text_list": texts,
                    "image_list": document.image_list,
                    "words": sum(count_words(text) for text in texts if text is not None),
                    "images": sum(image is not None for image in document.image_list),
                    "formulas": len(document.formulas),
                    "dropped": None,
                }
            )
        extra = [field for field in table.schema if field.name not in DOCUMENTS.names and field.name not in ("html", "content_type")]
        return with_items(pa.Table.from_pylist(rows, schema=pa.schema([*DOCUMENTS, *extra])), items)

    return stage
