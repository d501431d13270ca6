"""Every reader, given what our writers write, damaged at random: it reads it, or says with an error of ours why not."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart import methods
from headstart.catalog.folder import what_lies_here
from headstart.core.config import read_yaml, replace_nested, to_yaml
from headstart.core.errors import BadInput, HeadstartError
from headstart.core.run import RunFolder, read_lines, read_run
from headstart.data.text import describe
from headstart.data.text.config import TextConfig
from headstart.data.text.encode import encode_parts, read_part
from headstart.data.text.read import Reading
from headstart.data.text.sources import find_inputs
from headstart.data.text.store import TextStore, open_text_store
from headstart.data.text.tokenizer import check_tokenizer, load_tokenizer, sentence_encoder, train_tokenizer
from headstart.engine.checkpoint import Checkpointer
from headstart.interop.electra_tf1 import from_tf1, to_tf1
from headstart.interop.transformers_io import load_encoder
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.network import RTDHead, config_of_folder, load, load_beside, save_beside
from headstart.tasks.data import read_classification, read_questions, read_regression, read_tags
from headstart.tasks.saved import load_finetuned
from headstart.verbs.config import preset_config
from headstart.verbs.peek import lines, store_folder
from headstart.verbs.sample import load_run
from tests.corpus import documents, labelled
from tests.fuzz.mutations import damaged, damaged_json

LONGER = int(os.environ.get("HEADSTART_FUZZ", "1"))
pytestmark = pytest.mark.timeout(120 * LONGER)


def budget(examples: int) -> Callable[[Any], Any]:
    """The same examples in every run of the tests; HEADSTART_FUZZ=20 tries twenty times as many, and new ones."""
    return settings(
        max_examples=examples * LONGER, derandomize=LONGER == 1, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def tried(read: Callable[[], Any]) -> None:
    """Anything but success and an error of ours goes through, and fails the test."""
    try:
        read()
    except HeadstartError as refused:
        message = str(refused)
    else:
        return
    message.encode()  # it can be printed
    assert "\x1b" not in message


@contextmanager
def spoilt(path: Path, data: bytes) -> Iterator[None]:
    """The file with other bytes for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def bytes_or_json(path: Path) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged_json(json.loads(path.read_bytes())), damaged(path.read_bytes()))


promise = pytest.mark.promise("A damaged or hostile file of any kind ends in a message that names it; never in a crash or a full memory.")


# --- core -------------------------------------------------------------------------------------------------------------------------------------


@promise
def test_configurations(tmp_path: Path) -> None:
    _, chosen = preset_config(methods.load("mlm"), "tiny")
    path = tmp_path / "config.yaml"

    @budget(150)
    @given(damaged(to_yaml(chosen).encode()))
    def fuzz(data: bytes) -> None:
        path.write_bytes(data)
        tried(lambda: replace_nested(chosen, read_yaml(path)))

    fuzz()


@promise
def test_run_folders(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("checkpoints", "tb"))

    @budget(150)
    @given(bytes_or_json(run / "run.json"))
    def fuzz_info(data: bytes) -> None:
        with spoilt(run / "run.json", data):
            tried(lambda: read_run(run))
            tried(lambda: store_folder(run))

    @budget(25)
    @given(damaged_json(json.loads((run / "run.json").read_bytes())))
    def fuzz_sample(data: bytes) -> None:
        with spoilt(run / "run.json", data):
            tried(lambda: load_run(run))

    @budget(100)
    @given(damaged((run / "metrics.jsonl").read_bytes()))
    def fuzz_metrics(data: bytes) -> None:
        with spoilt(run / "metrics.jsonl", data):
            tried(lambda: list(read_lines(run / "metrics.jsonl")))
            tried(lambda: cut(run))

    def cut(folder: Path) -> None:
        opened = RunFolder(folder)
        opened.cut(8)
        opened.close()

    fuzz_info()
    fuzz_sample()
    fuzz_metrics()


# --- data -------------------------------------------------------------------------------------------------------------------------------------


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


# --- models -----------------------------------------------------------------------------------------------------------------------------------


@promise
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"])
def test_model_folders(sound_model: Path, name: str) -> None:
    path = sound_model / name
    data = path.read_bytes()
    header = st.builds(lambda begin: begin + data[1500:], damaged(data[:1500]))
    spoiling = bytes_or_json(path) if name.endswith(".json") else st.one_of(header, damaged(data))

    @budget(50)
    @given(spoiling)
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(lambda: load_encoder(sound_model))

    fuzz()


@promise
def test_weights_without_safetensors(sound_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sound_model, folder)
    weights = load_encoder(folder).module.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({f"electra.{name}": value for name, value in weights.items()}, folder / "pytorch_model.bin")
    data = (folder / "pytorch_model.bin").read_bytes()
    load_encoder(folder)
    index = json.dumps({"metadata": {}, "weight_map": {f"electra.{name}": "pytorch_model.bin" for name in weights}}).encode()

    @budget(30)
    @given(damaged(data))
    def fuzz(data: bytes) -> None:
        with spoilt(folder / "pytorch_model.bin", data):
            tried(lambda: load_encoder(folder))

    @budget(25)
    @given(damaged_json(json.loads(index)))
    def fuzz_index(data: bytes) -> None:
        (folder / "pytorch_model.bin.index.json").write_bytes(data)
        tried(lambda: load_encoder(folder))

    fuzz()
    (folder / "pytorch_model.bin").rename(folder / "part.bin")
    index = index.replace(b"pytorch_model.bin", b"part.bin")
    fuzz_index()


@promise
@pytest.mark.parametrize("name", ["task.json", "head.safetensors"])
def test_finetuned_models(sound_finetuned: Path, name: str) -> None:
    path = sound_finetuned / name
    spoiling = bytes_or_json(path) if name.endswith(".json") else damaged(path.read_bytes())

    @budget(40)
    @given(spoiling)
    def fuzz(data: bytes) -> None:
        with spoilt(path, data):
            tried(lambda: load_finetuned(sound_finetuned, "cpu").predict(["the old boat"]))

    fuzz()


@promise
def test_electra_folders(sound_model: Path, sound_store: TextStore, tmp_path: Path) -> None:
    head = RTDHead(16)
    save_beside(head, tmp_path / "head.safetensors")

    @budget(60)
    @given(damaged((tmp_path / "head.safetensors").read_bytes()))
    def fuzz_head(data: bytes) -> None:
        with spoilt(tmp_path / "head.safetensors", data):
            tried(lambda: load_beside(head, tmp_path / "head.safetensors"))

    def build() -> None:
        config = config_of_folder(sound_model, ElectraConfig(), sound_store.vocab_size)
        load(sound_model, config, sound_store.vocab_size, sound_store.special_ids)

    @budget(25)
    @given(damaged_json(json.loads((sound_model / "config.json").read_bytes())))
    def fuzz_config(data: bytes) -> None:
        with spoilt(sound_model / "config.json", data):
            tried(build)

    fuzz_head()
    fuzz_config()


@promise
def test_tf1_checkpoints(sound_model: Path) -> None:
    encoder = load_encoder(sound_model).module
    arrays = to_tf1({f"electra.{name}": value for name, value in encoder.state_dict().items()})
    from_tf1(arrays)
    names = ["", "x", "electra/", "electra/../x", "electra/encoder/layer_9/x/kernel"]
    strange: list[Any] = [np.array(["x"]), np.array([None]), np.zeros(()), np.zeros((2, 0)), np.zeros((1, 2, 3, 4)), np.array([1j])]

    @budget(80)
    @given(st.sampled_from(sorted(arrays)), st.sampled_from(names), st.sampled_from(strange))
    def fuzz(old: str, new: str, array: np.ndarray) -> None:
        changed = {(new or old) if name == old else name: array if name == old else value for name, value in arrays.items()}
        tried(lambda: from_tf1(changed))

    fuzz()


# --- tasks ------------------------------------------------------------------------------------------------------------------------------------


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


# --- engine, catalog --------------------------------------------------------------------------------------------------------------------------


@promise
def test_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpointer = Checkpointer(folder)
    checkpointer.save(3, {"method": {"w": torch.arange(6.0).reshape(2, 3)}, "step": 3, "names": ["a", None]})
    checkpointer.close()
    files = sorted(path for path in (folder / "step-00000003").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".json", ".safetensors"}

    @budget(250)
    @given(st.sampled_from(files), st.data())
    def fuzz(path: Path, more: st.DataObject) -> None:
        spoiling = bytes_or_json(path) if path.suffix == ".json" else damaged(path.read_bytes())
        with spoilt(path, more.draw(spoiling)):
            reader = Checkpointer(folder)
            tried(lambda: reader.load_newest(lambda line: None))
            reader.close()

    @budget(80)
    @given(damaged_json(json.loads((folder / "step-00000003" / "state.json").read_bytes())))
    def fuzz_with_its_hash(data: bytes) -> None:
        """A hash says that nothing was damaged, not that nobody hostile wrote it."""
        manifest = folder / "step-00000003" / "manifest.json"
        stated = manifest.read_bytes().decode()
        state = folder / "step-00000003" / "state.json"
        old = hashlib.sha256(state.read_bytes()).hexdigest()
        assert old in stated
        with spoilt(state, data), spoilt(manifest, stated.replace(old, hashlib.sha256(data).hexdigest()).encode()):
            reader = Checkpointer(folder)
            tried(lambda: reader.load_newest(lambda line: None))
            reader.close()

    fuzz()
    fuzz_with_its_hash()


@promise
def test_folders_that_are_judged(tmp_path: Path) -> None:
    @budget(150)
    @given(st.sampled_from(sorted(TABLES)), st.data())
    def fuzz(name: str, more: st.DataObject) -> None:
        (tmp_path / name).write_bytes(more.draw(damaged(TABLES[name])))
        tried(lambda: what_lies_here(tmp_path))
        (tmp_path / name).unlink()

    fuzz()


def test_the_fuzzer_finds_what_is_not_ours(tmp_path: Path) -> None:
    """A reader that lets an error of another kind out fails, so these tests can fail."""

    @budget(50)
    @given(damaged(b'{"a": 1}'))
    def fuzz(data: bytes) -> None:
        tried(lambda: json.loads(data))

    with pytest.raises((ValueError, BaseExceptionGroup)):
        fuzz()
    with pytest.raises(BadInput):
        open_text_store(tmp_path)
