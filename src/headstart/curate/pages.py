"""What happens to a page before and while it becomes a document: the pre-filter (webmath A0) and the extraction (A2, built in `extract`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pyarrow as pa

from headstart.curate.config import PrefilterConfig
from headstart.curate.extract import Document, ExtractConfig, PageDropped
from headstart.curate.extract.decode import decode, sound
from headstart.curate.tables import DOCUMENTS, Stage, count_words, drop, with_column, with_items

_HOST = re.compile(r"[^\s/@]+\.[^\s/@]+|localhost|\[[0-9a-fA-F:.]+\]")


def prefilter(config: PrefilterConfig) -> Stage:
    """The stage: drops what has no web address, is too short or too long, or no text; `html` becomes characters."""

    def stage(table: pa.Table) -> pa.Table:
        texts: list[str | None] = []
        reasons: list[str | None] = []
        for url, data, content_type in zip(*(table[name].to_pylist() for name in ("url", "html", "content_type")), strict=True):
            text, reason = None, _address(url, config)
            if reason is None and len(data or b"") < config.min_bytes:
                reason = "too short"
            elif reason is None and len(data) > config.max_bytes:
                reason = "too large"
            if reason is None:
                try:
                    text, _ = decode(data, content_type or "")
                except PageDropped as dropped:
                    reason = dropped.reason
            texts.append(None if text is None else sound(text))
            reasons.append(reason)
        return drop(with_column(table, "html", texts, pa.large_string()), reasons)

    return stage


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
