"""Images that a parquet file holds itself, as bytes or as Hugging Face's datasets write them, give the store that their files give."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from headstart.core.errors import BadInput, OtherStore
from headstart.data import parquet
from headstart.data.compressed import FREE_BYTES, Bomb
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.documents import Image, Refused, Text, pieces_of
from headstart.data.interleaved.head import documents, write_first_documents
from headstart.data.interleaved.images import EmbeddedImages, is_embedded
from headstart.data.interleaved.store import InterleavedStore, prepare_interleaved
from tests.data.interleaved.conftest import page, write_images, write_lines

SETTINGS = InterleavedConfig(vocab_size=300, image_size=8, held_out_share=0.0)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = {"bytes": pa.binary(), "large": pa.large_binary(), "structures": STRUCT}


def as_kind(data: bytes | None, kind: str) -> Any:
    return {"bytes": data, "path": "a.png"} if kind == "structures" and data is not None else data


def arrays(store: InterleavedStore) -> dict[str, str]:
    """Hashes of the arrays, which the names of the files are no part of."""
    assert store.images is not None
    texts = {name: store.manifest["arrays"][name]["sha256"] for name in ("tokens", "document_offsets", "image_places", "image_numbers")}
    return texts | {name: entry["sha256"] for name, entry in store.images.manifest["arrays"].items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [("text_list", "image_list"), ("texts", "images")], ids=["released", "obelics"])
def test_bytes_give_the_store_that_files_give(kind: str, fields: tuple[str, str], tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 12)
    pages = [page(n, None if n % 4 == 3 else names[n % 12]) for n in range(40)]
    files = prepare_interleaved([write_lines(tmp_path / "data" / "pages.jsonl", pages)], tmp_path / "of-files", SETTINGS)
    held = [[name and as_kind((tmp_path / "data" / name).read_bytes(), kind) for name in one["image_list"]] for one in pages]
    columns = {fields[0]: [one["text_list"] for one in pages], fields[1]: pa.array(held, pa.list_(KINDS[kind]))}
    pq.write_table(pa.table(columns), tmp_path / "pages.parquet")
    store = prepare_interleaved([tmp_path / "pages.parquet"], tmp_path / "of-bytes", SETTINGS)
    assert arrays(store) == arrays(files)
    assert store.manifest["counts"]["images"] == 9, "each once"
    assert not (tmp_path / "of-bytes" / ".work").exists()
    again = prepare_interleaved([tmp_path / "pages.parquet"], tmp_path / "of-bytes", SETTINGS)
    assert again.manifest == store.manifest
    pq.write_table(pa.table(columns).slice(1), tmp_path / "pages.parquet")
    with pytest.raises(OtherStore, match="changed input files"):
        prepare_interleaved([tmp_path / "pages.parquet"], tmp_path / "of-bytes", SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_and_questions_may_hold_them_too(kind: str, tmp_path: Path) -> None:
    (name,) = write_images(tmp_path, 1)
    data = (tmp_path / name).read_bytes()
    pair = {"image": pa.array([as_kind(data, kind)], KINDS[kind]), "caption": ["a cat"]}
    asked = {"images": pa.array([[as_kind(data, kind)] * 2], pa.list_(KINDS[kind])), "question": ["is <image> like <image> ?"], "answer": ["yes"]}
    image = Image(f"sha256:{hashlib.sha256(data).hexdigest()}", data)
    expected = {"pair": [image, Text("a cat")], "asked": [Text("is "), image, Text(" like "), image, Text(" ?\n"), Text("yes", answer=True)]}
    for form, columns in (("pair", pair), ("asked", asked)):
        pq.write_table(pa.table(columns), tmp_path / f"{form}.parquet")
        ((_, document),) = documents([tmp_path / f"{form}.parquet"], SETTINGS)
        assert document.pieces == expected[form]
    (tmp_path / "smoke").mkdir()
    write_first_documents([tmp_path / "asked.parquet"], tmp_path / "smoke", SETTINGS, 1)
    assert [file.read_bytes() for file in sorted((tmp_path / "smoke" / "images").iterdir())] == [data, data]


def test_what_is_no_image_is_refused() -> None:
    for image, says in ((b"", "names an image"), ({"bytes": None, "path": None}, "neither text nor image"), ({"path": ""}, "names an image")):
        with pytest.raises(Refused, match=says):
            pieces_of({"text_list": ["a", None], "image_list": [None, image]})
    assert pieces_of({"text_list": ["a", None], "image_list": [{"bytes": None, "path": None}, {"bytes": None, "path": "b.png"}]})[1] == Image("b.png")
    with pytest.raises(Refused, match="has 2 images for 1 texts"):
        pieces_of({"text_list": ["a", None, None], "image_list": [None, b"x", b"y"]})


def test_a_restarted_preparation_finds_them_again(tmp_path: Path) -> None:
    image = Image(f"sha256:{hashlib.sha256(b'x').hexdigest()}", b"x")
    first = EmbeddedImages(tmp_path / ".work" / "embedded").keep(image, "a.parquet-record-1")
    again = EmbeddedImages(tmp_path / ".work" / "embedded")
    assert again.keep(image, "b.parquet-record-9") == first
    assert first.read_bytes() == b"x"
    assert is_embedded(first)
    assert not is_embedded(tmp_path / "data" / "embedded" / "00" / "a.png")
    assert len(again.keep(Image("sha256:" + "0" * 64, b"y"), "é" * 300).name.encode()) <= 255


def test_damage_names_the_file_and_record_that_it_came_from(tmp_path: Path) -> None:
    images = pa.array([[None, b"no picture"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"text_list": [["a", None]], "image_list": images}), tmp_path / "pages.parquet")
    with pytest.raises(BadInput, match=r"-pages\.parquet-record-1: "):
        prepare_interleaved([tmp_path / "pages.parquet"], tmp_path / "store", SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_stated_a_million_times_is_a_bomb(kind: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).bytes(2**20)
    often = FREE_BYTES // len(image) + 2
    index = pa.DictionaryArray.from_arrays(pa.array([0] * often, pa.int32()), pa.array([image], KINDS["large" if kind == "large" else "bytes"]))
    inner: pa.Array = pa.StructArray.from_arrays([index, pa.nulls(often, pa.string())], ["bytes", "path"]) if kind == "structures" else index
    table = pa.table({"text_list": [["a"]], "image_list": pa.ListArray.from_arrays([0, often], inner)})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < FREE_BYTES / 200
    tracemalloc.start()
    with pytest.raises(Bomb):
        list(parquet.rows(tmp_path / "bomb.parquet", ["image_list"]))
    assert tracemalloc.get_traced_memory()[1] < 2**25, "it is seen before its images are made"
    tracemalloc.stop()


def test_many_images_of_a_row_group_come_one_row_at_a_time(tmp_path: Path) -> None:
    rows = [[np.random.default_rng(n).bytes(2**20)] for n in range(24)]
    pq.write_table(pa.table({"image_list": pa.array(rows, pa.list_(pa.binary()))}), tmp_path / "large.parquet")
    assert [row["image_list"] for row in parquet.rows(tmp_path / "large.parquet", ["image_list"])] == rows


def test_a_picture_of_another_form_is_read_by_its_bytes(tmp_path: Path) -> None:
    data = io.BytesIO()
    Picture.new("RGB", (8, 8), (200, 10, 10)).save(data, "JPEG")
    pq.write_table(
        pa.table({"text_list": [["red", None]], "image_list": pa.array([[None, data.getvalue()]], pa.list_(pa.binary()))}), tmp_path / "a.parquet"
    )
    store = prepare_interleaved([tmp_path / "a.parquet"], tmp_path / "store", SETTINGS)
    assert store.manifest["counts"]["placed_images"] == 1
