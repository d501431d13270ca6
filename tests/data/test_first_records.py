"""The first records of a source, for a smoke run: what cannot be used stops it, or is left out where the person says so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.head import read_images
from headstart.data.interleaved import head as interleaved
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.text import head as text
from headstart.data.text.config import TextConfig


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\n{"no": 1}\n{"text": "two"}\n')
    with pytest.raises(BadInput, match="2"):
        list(text.documents([path], TextConfig()))
    assert list(text.documents([path], TextConfig(on_bad_input="quarantine"))) == ["one", "two"]


def test_interleaved_documents(tmp_path: Path) -> None:
    """As a crawl gives them: a page with more images than texts is refused (specification, bad input)."""
    path = tmp_path / "documents.jsonl"
    gallery = {"text_list": ["seen", None, None], "image_list": [None, "a.png", "b.png"]}
    plain = {"text_list": ["one"], "image_list": [None]}
    path.write_text("".join(json.dumps(record) + "\n" for record in (plain, gallery, plain)))
    with pytest.raises(BadInput, match="2 images for 1 text"):
        list(interleaved.documents([path], InterleavedConfig()))
    assert len(list(interleaved.documents([path], InterleavedConfig(on_bad_input="quarantine")))) == 2


def test_images(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": [stream.getvalue(), None, stream.getvalue()]}), path)
    with pytest.raises(BadInput, match="record 2"):
        list(read_images([path], ImageConfig()))
    assert len(list(read_images([path], ImageConfig(on_bad_input="quarantine")))) == 2
