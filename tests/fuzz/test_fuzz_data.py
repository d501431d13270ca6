"""Readers of texts, labels, stores and tokenizers, given what our writers write, damaged at random: each reads it, or refuses with our error."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.catalog.folder import what_lies_here
from headstart.data.image.config import ImageConfig
from headstart.data.image.survey import survey
from headstart.data.text import describe
from headstart.data.text.config import TextConfig
from headstart.data.text.encode import encode_parts, read_part
from headstart.data.text.read import Reading
from headstart.data.text.sources import find_inputs
from headstart.data.text.store import TextStore, open_text_store
from headstart.data.text.tokenizer import check_tokenizer, load_tokenizer, sentence_encoder, train_tokenizer
from headstart.methods import settings
from headstart.tasks.data import read_classification, read_questions, read_regression, read_tags
from headstart.verbs._sizing import choose
from headstart.verbs.peek import lines
from tests.corpus import documents, labelled
from tests.fuzz.fuzzing import LONGER, budget, bytes_or_json, spoilt, tried
from tests.fuzz.mutations import damaged, damaged_json

pytestmark = pytest.mark.timeout(120 * LONGER)

promise = pytest.mark.promise("A damaged or hostile file of any kind ends in a message that names it; never in a crash or a full memory.")


def look(folder: Path) -> None:
    store = open_text_store(folder)
    for text in lines(describe.peek(store, 2)):
        text.encode()


def spoil(store: TextStore, path: Path, examples: int, contents: st.SearchStrategy[bytes]) -> None:
    """A person looks at the store while one of its files says something else."""

    @budget(examples)
    @given(contents)
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(lambda: look(store.folder))

    fuzz()


@promise
def test_manifests(sound_store: TextStore) -> None:
    path = sound_store.folder / "manifest.json"
    spoil(sound_store, path, 200, bytes_or_json(path))


@promise
def test_manifests_of_images_that_choose_a_size(tmp_path: Path) -> None:
    """A command looks at them while it reads its flags."""
    method = settings("mae")

    def choose_by_it() -> None:
        if (seen := survey([tmp_path], ImageConfig())) is not None:
            assert choose(seen, method, lambda: True)[0] in method.presets

    @budget(200)
    @given(damaged_json({"counts": {"images": 16}, "form": {"size": 20, "channels": 3}}))
    def fuzz(data: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(data)
        tried(choose_by_it)

    fuzz()


@promise
@pytest.mark.parametrize("name", ["tokens", "document_offsets", "held_out", "rows/ids", "rows/lengths", "rows/second"])
def test_arrays(sound_store: TextStore, name: str) -> None:
    *_, path = sound_store.folder.glob(f"{name.replace('/', '/*/')}.npy")
    data = path.read_bytes()
    header = st.builds(lambda begin: begin + data[128:], damaged(data[:128]))

    spoil(sound_store, path, 40, st.one_of(header, damaged(data)))


@promise
def test_descriptions_of_rows(sound_store: TextStore) -> None:
    (path,) = sound_store.folder.glob("rows/*/rows.json")
    spoil(sound_store, path, 80, bytes_or_json(path))


@promise
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_tokenizers(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "tokenizer.json"
    config = TextConfig(tokenizer_kind=kind, vocab_size=300)
    trained = train_tokenizer([line for text in documents(60) for line in text.splitlines()], config)
    path.write_text(trained.to_str())

    def encode() -> None:
        tokenizer, _ = load_tokenizer(path, config)
        check_tokenizer(sentence_encoder(tokenizer)[0], path)

    @budget(150)
    @given(bytes_or_json(path))
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(encode)

    fuzz()


@promise
def test_other_tokenizer_files(tmp_path: Path, sound_model: Path) -> None:
    shutil.copy(sound_model / "tokenizer_config.json", tmp_path)
    shutil.copy(sound_model / "tokenizer.json", tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s"]))

    @budget(60)
    @given(bytes_or_json(tmp_path / "tokenizer_config.json"), damaged((tmp_path / "vocab.txt").read_bytes()))
    def fuzz(config: bytes, vocabulary: bytes) -> None:
        with spoilt(tmp_path / "tokenizer_config.json", config), spoilt(tmp_path / "vocab.txt", vocabulary):
            tried(lambda: load_tokenizer(tmp_path, TextConfig()))
            tried(lambda: load_tokenizer(tmp_path / "vocab.txt", TextConfig()))

    fuzz()


def table(records: list[dict[str, str]], separator: str) -> bytes:
    rows = ["text" + separator + "label", *(f"{record['text']}{separator}{record['label']}" for record in records)]
    return ("\n".join(rows) + "\n").encode()


def tables(records: list[dict[str, str]]) -> dict[str, bytes]:
    """File name -> bytes, of every form that texts and labelled files come in."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records), sink)
    jsonl = "".join(json.dumps(record) + "\n" for record in records).encode()
    return {
        "a.jsonl": jsonl,
        "a.csv": table(records, ","),
        "a.tsv": table(records, "\t"),
        "a.parquet": sink.getvalue().to_pybytes(),
        "a.jsonl.gz": gzip.compress(jsonl, mtime=0),
        "a.csv.zst": bytes(pa.Codec("zstd").compress(table(records, ","), asbytes=True)),
    }


TABLES = tables(labelled(40, 0))

TEXTS = TABLES | {"a.txt": "\n\n".join(documents(20)).encode(), "a.md": b"# One\n\ntext\n"}


@promise
@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    config = TextConfig(max_document_mb=1)

    @budget(60)
    @given(damaged(TEXTS[name]))
    def fuzz(data: bytes) -> None:
        path.write_bytes(data)
        (file,) = find_inputs([path]).files
        tried(lambda: list(Reading(file, config)))

    fuzz()


@promise
def test_half_made_stores(tmp_path: Path, sound_store: TextStore) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(documents(20)))
    inputs = find_inputs([tmp_path / "a.txt"]).files
    (path,) = encode_parts(inputs, sound_store.tokenizer, TextConfig(), tmp_path / "parts", 1)

    @budget(100)
    @given(damaged(path.read_bytes()))
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(lambda: [read_part(path, name) for name in (None, "tokens", "sentence_lengths")])

    fuzz()


@promise
@pytest.mark.parametrize("name", TABLES)
def test_labelled_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    @budget(50)
    @given(damaged(TABLES[name]))
    def fuzz(data: bytes) -> None:
        path.write_bytes(data)
        tried(lambda: read_classification(path))
        tried(lambda: read_regression(path))

    fuzz()


@promise
def test_labelled_records(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    @budget(200)
    @given(damaged_json({"text": "the old boat", "label": "harbour", "number": 1.5, "words": ["a", "b"], "tags": ["B-X", "O"]}))
    def fuzz(data: bytes) -> None:
        path.write_bytes(b'{"text": "one", "label": "kitchen", "number": 2, "words": "a b", "tags": "O O"}\n' + data)
        for read in (read_classification, lambda p: read_regression(p, label_field="number"), read_tags):
            tried(lambda read=read: json.dumps(vars(read(path)), ensure_ascii=False).encode())

    fuzz()


@promise
def test_tagged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"

    @budget(80)
    @given(damaged(b"-DOCSTART- O\n\nJohn B-PER\nlives O\n\nin O\nParis B-LOC\n"))
    def fuzz(data: bytes) -> None:
        path.write_bytes(data)
        tried(lambda: read_tags(path))

    fuzz()


@promise
def test_question_files(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    qa = {"id": "1", "question": "who?", "answers": [{"text": "the boat", "answer_start": 0}], "is_impossible": False}
    squad = {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": "the boat drifts", "qas": [qa, qa | {"id": "2"}]}]}]}
    path.write_text(json.dumps(squad))

    @budget(250)
    @given(bytes_or_json(path))
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(lambda: read_questions(path))
            tried(lambda: read_questions(path, training=True))

    fuzz()


@promise
def test_folders_that_are_judged(tmp_path: Path) -> None:
    @budget(150)
    @given(st.sampled_from(sorted(TABLES)), st.data())
    def fuzz(name: str, more: st.DataObject) -> None:
        (tmp_path / name).write_bytes(more.draw(damaged(TABLES[name])))
        tried(lambda: what_lies_here(tmp_path))
        (tmp_path / name).unlink()

    fuzz()
