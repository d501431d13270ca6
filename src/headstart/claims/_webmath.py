"""What the three claims of webmath share: the pages, their documents, and which of them are what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from headstart.claims._claim import Paper
from headstart.claims._data import data_folder
from headstart.core.errors import BadInput
from headstart.curate.extract import Document, PageDropped, extract

PAPER = Paper(
    statement="Continued pre-training on the corpus gives better mathematical reasoning than none or on other corpora, for texts and for images.",
    value="1.3 B, GSM8K / MMLU-STEM: none 4.8 / 25.6, OpenWebMath 11.0 / 29.6, this corpus 26.1 / 35.6; MathVerse 22.3 -> 26.9",
    where="Tables 2 to 5",
)
SITES = ("mpmath", "julia", "ula")
"""In the names of the sources that are never trained on: whole sites, for pages of one site share their frame."""
OTHER_HELD_OUT = ("p067", "p071")
"""Pages of a handbook that are in no arm: what is forgotten."""
OLDER = ("p010", "p011", "p012")
"""Older builds of p004, p007 and p003, which near-duplicate removal takes out."""
NEAR = ("p105", "p106", "p107")
"""The installation guide for another machine: copies of p098, p100 and p099."""


@dataclass(frozen=True)
class Page:
    """A page of the set."""

    id: str
    url: str
    source: str
    language: str
    mathematical: bool
    markup: str
    html: str

    @property
    def of_held_out_site(self) -> bool:
        """Whether it is never trained on: its site is held out."""
        return any(name in self.source.lower() or name in urlsplit(self.url).netloc.lower() for name in SITES)


def read_pages(fixture: bool = False) -> tuple[list[Page], list[dict[str, Any]], tuple[Path, ...]]:
    """(all pages, what is expected of some of them, the files that they were read from).

    Args:
        fixture: take the few pages kept with the tests where the set is not there.

    Raises:
        BadInput: the set is missing or damaged.
    """
    folder = data_folder("webmath", fixture=fixture)
    files = tuple(next((path for path in (folder / f"{name}.jsonl.zst", folder / f"{name}.jsonl") if path.is_file()), folder / f"{name}.jsonl")
                  for name in ("pages", "expected"))  # fmt: skip
    rows, expected = (_records(path) for path in files)
    pages = [Page(row["id"], row["url"], str(row["source"]), row["lang"], bool(row["math"]), str(row["markup"]), row["html"]) for row in rows]
    return pages, [row for row in expected if "formulas" in row], files


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        data = pa.input_stream(str(path), compression="zstd" if path.suffix == ".zst" else None).read()
        return [json.loads(line) for line in data.decode().splitlines()]
    except (OSError, pa.ArrowException, ValueError) as error:
        raise BadInput(f"cannot be read ({error}).", "Copy it again.", file=path) from error


def english(pages: Sequence[Page]) -> list[tuple[Page, Document]]:
    """The English pages with their documents, near-duplicates taken out."""
    found = []
    for page in pages:
        if page.language == "en" and page.id not in OLDER + NEAR:
            try:
                found.append((page, extract(page.html, page.url)))
            except PageDropped:
                continue
    return found
