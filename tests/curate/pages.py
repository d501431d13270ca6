"""The pages that extraction is tried on: the shared set where it is, and three small pages of it that are kept with the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

SHARED = Path(os.environ.get("HEADSTART_DATA") or Path(__file__).parents[3] / "shared" / "data") / "webmath"
KEPT = Path(__file__).parents[1] / "fixtures" / "webmath"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    data = pa.input_stream(str(path), compression="zstd").read() if path.suffix == ".zst" else path.read_bytes()
    return [json.loads(line) for line in data.decode().splitlines()]


def kept_pages() -> dict[str, dict[str, Any]]:
    """Three mathematical pages and two others, by id."""
    return {page["id"]: page for page in read_jsonl(KEPT / "pages.jsonl")}


def kept_expected() -> list[dict[str, Any]]:
    return read_jsonl(KEPT / "expected.jsonl")


def shared_pages() -> dict[str, dict[str, Any]]:
    """All 127 pages, by id; skips the test where they are not."""
    if not (SHARED / "pages.jsonl.zst").exists():
        pytest.skip("needs the shared pages (HEADSTART_DATA/webmath)")
    return {page["id"]: page for page in read_jsonl(SHARED / "pages.jsonl.zst")}


def shared_expected() -> list[dict[str, Any]]:
    shared_pages()
    return read_jsonl(SHARED / "expected.jsonl")
