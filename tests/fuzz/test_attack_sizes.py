"""Small files that would fill the memory or keep the processor busy: stated sizes are checked first."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from headstart.core.config import read_yaml, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import MAX_JSON_VALUES, read_json
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault
from headstart.data.text.rows import MAX_LENGTH, Rows, packed_rows
from headstart.data.text.store import TextStore, open_text_store, prepare_text
from headstart.data.text.tokenizer import load_tokenizer
from headstart.engine.budget import Budget
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import MAX_CLASSES, read_classification, read_questions, read_regression
from headstart.tasks.finetune import finetune
from tests.corpus import documents, write_jsonl
from tests.fuzz.attacks import edit, read_all

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

bounded = pytest.mark.promise("Stated sizes are checked before memory is taken: a small file cannot fill the memory or keep the processor busy.")


@bounded
def test_an_array_that_states_a_terabyte(theirs: Path) -> None:
    manifest = json.loads((theirs / "manifest.json").read_text())
    manifest["arrays"]["tokens"]["shape"] = [2**40]
    (theirs / "manifest.json").write_text(json.dumps(manifest))
    path = theirs / "tokens.npy"
    stated = np.load(path).shape[0]
    header = path.read_bytes()[:128].replace(f"({stated},)".encode(), f"({2**40},)".encode())
    path.write_bytes((header[:118].rstrip() + b" " * 128)[:127] + b"\n" + path.read_bytes()[128:])
    with pytest.raises(BadInput, match=r"tokens\.npy: cannot be opened"):
        open_text_store(theirs)


@bounded
def test_a_vocabulary_that_its_tokenizer_has_not(theirs: Path) -> None:
    manifest = json.loads((theirs / "manifest.json").read_text())
    manifest["tokenizer"]["vocab_size"] = 10**9
    (theirs / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="states a vocabulary of 1000000000"):
        open_text_store(theirs)


@bounded
def test_rows_that_no_memory_holds(sound_store: TextStore) -> None:
    with pytest.raises(UsageError, match=f"Give at most {MAX_LENGTH:,}"):
        packed_rows(sound_store, 10**12)
    with pytest.raises(UsageError, match="at most 4 million"):
        TextConfig(vocab_size=10**12)


@pytest.mark.promise("A token id beyond the vocabulary ends in a message before it reaches the model.")
def test_token_ids_beyond_the_vocabulary(theirs: Path) -> None:
    opened = open_text_store(theirs)
    rows = packed_rows(opened, 32, "train", [2], [3])
    ids = np.load(rows.folder / "ids.npy")
    ids[5, 3] = opened.vocab_size
    np.save(rows.folder / "ids.npy", ids)
    spoilt = Rows(rows.folder, opened.vocab_size)
    spoilt.batch(np.array([0, 1]))
    with pytest.raises(BadInput, match="beyond the vocabulary"):
        spoilt.batch(np.array([4, 5]))


def explosive(tokenizer: dict[str, Any], attack: str) -> None:
    if attack == "doubling":  # 1,000 characters for each, four times over
        step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [step] * 4}
    elif attack == "false table":  # "the array has 2**32 - 1 bytes"
        tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "/////wAA"}
    elif attack == "broken table":
        tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    elif attack == "endless words":
        tokenizer["model"]["max_input_chars_per_word"] = 10**9
    elif attack == "far id":
        tokenizer["model"]["vocab"]["boat"] = 2**32 - 1
    elif attack == "unknown special":
        step = {"SpecialToken": {"id": "[NOWHERE]", "type_id": 0}}
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [step], "pair": [step], "special_tokens": {}}
    elif attack == "no unknown":
        del tokenizer["model"]["vocab"]["[UNK]"]
        tokenizer["added_tokens"] = []


@bounded
@pytest.mark.parametrize("attack", ["doubling", "false table", "broken table", "endless words", "far id", "unknown special", "no unknown"])
def test_tokenizers_that_explode_or_panic(theirs: Path, model: Path, attack: str) -> None:
    for folder in (theirs, model):
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        explosive(tokenizer, attack)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        open_text_store(theirs)
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        load_encoder(model)


@bounded
def test_a_pattern_that_backtracks_without_end(sound_store: TextStore, sound_model: Path, tmp_path: Path) -> None:
    """Oniguruma gives up after ten million retries, and the tokenizers library panics."""
    tokenizer = json.loads((sound_store.folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(z+)+$"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    attack = "z" * 28 + "a"
    (tmp_path / "a.txt").write_text("\n\n".join([*documents(20), attack + "\n" + attack]))
    with pytest.raises(BadInput, match="the tokenizer fails on this text"):
        prepare_text([tmp_path / "a.txt"], tmp_path / "store", TextConfig(tokenizer=str(tmp_path / "tokenizer.json")))
    shutil.copytree(sound_model, tmp_path / "model")
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "model")
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": attack, "label": "a"}, {"text": "boat", "label": "b"}])
    with pytest.raises(BadInput, match="the tokenizer fails on this text"):
        finetune("classification", tmp_path / "model", train, train, config=FinetuneConfig(device="cpu"), seeds=1)


@bounded
@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"hidden_size": 10**9, "num_attention_heads": 10**8}, "describes a network of"),
        ({"vocab_size": 10**10}, "describes a network of"),
        ({"max_position_embeddings": 10**10}, "describes a network of"),
        ({"num_hidden_layers": 500, "hidden_size": 2048}, "describes a network of"),
        ({"model_type": "gpt2", "max_position_embeddings": 10**8, "n_embd": 16, "n_head": 2, "n_layer": 2}, "describes a network of"),
        ({"num_hidden_layers": 10**9}, "more than the 1,024"),
        ({"model_type": "modernbert", "num_hidden_layers": 10**9}, "more than the 1,024"),
        ({"num_labels": 10**9}, "more than the 1,048,576"),
        ({"intermediate_size": -1}, "not a size"),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_networks_that_their_weights_do_not_explain(model: Path, settings: dict[str, Any], what: str, fresh: bool) -> None:
    edit(model / "config.json", **settings)
    with pytest.raises(BadInput, match=what):
        load_encoder(model, fresh=fresh)


@bounded
def test_a_head_of_safetensors_that_states_a_length_without_end(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    for length in (2**63, 2**31, len(data) * 2):
        (model / "model.safetensors").write_bytes(length.to_bytes(8, "little") + data[8:])
        with pytest.raises(BadInput, match="weights cannot be read"):
            load_encoder(model)


@bounded
def test_json_of_many_or_deep_values(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b"[]," * (MAX_JSON_VALUES + 1) + b"0]")
    with pytest.raises(BadInput, match="more than 16,777,216 values"):
        read_json(path)
    for data in (b"[" * 10**6, b'{"a":' * 10**6, b"1" * 10**5, b"NaN", b"[-Infinity]"):
        path.write_bytes(data)
        with pytest.raises(BadInput, match="not valid JSON"):
            read_json(path)


@bounded
def test_yaml_of_a_billion_laughs(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    path.write_text("\n".join(laughs))
    with pytest.raises(BadInput, match="an alias"):
        read_yaml(path)
    others = {"seed: 1\nseed: 2\n": "comes twice", "[" * 200_000: "recursion", "seed: " + "9" * 5000: "digits", "day: 2020-99-99": "month"}
    for text, what in others.items():
        path.write_text(text)
        with pytest.raises(BadInput, match=what):
            read_yaml(path)
    for value in (".nan", ".inf", "-.inf", "1e999"):
        path.write_text(f"minutes: {value}\n")
        with pytest.raises(UsageError, match=r"minutes is (nan|-?inf)|minutes must be"):
            replace_nested(Budget(), read_yaml(path))


@bounded
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_decompression_bombs(tmp_path: Path, suffix: str) -> None:
    """Two gigabytes of the same words over and over, in eight megabytes or less."""
    block = b"the old boat drifts " * 2**16
    packed = gzip.compress(block, 9, mtime=0) if suffix == ".gz" else bytes(pa.Codec("zstd").compress(block, asbytes=True))
    for name in ("a.txt", "a.jsonl", "a.csv"):
        path = tmp_path / (name + suffix)
        path.write_bytes(packed * 1600)  # members one after another are one file
        *_, last = read_all(path)
        assert isinstance(last, Fault)
        assert "decompression bomb" in last.what
    with pytest.raises(BadInput, match="decompression bomb"):
        read_classification(path)


@bounded
def test_a_parquet_file_that_says_one_long_string_many_times(tmp_path: Path) -> None:
    """4 MB, which would be 4 GB if the rows were made at once, and any number if they were made one by one."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 2**22])
    table = pa.table({"text": text, "label": ["a", "b"] * 500})
    pq.write_table(table, tmp_path / "a.parquet", compression="none")
    *many, last = read_all(tmp_path / "a.parquet", max_document_mb=1)
    assert all("larger than 1.0 MB" in item.what for item in many if isinstance(item, Fault))
    assert isinstance(last, Fault)
    assert "decompression bomb" in last.what
    with pytest.raises(BadInput, match="decompression bomb"):
        read_classification(tmp_path / "a.parquet")


@bounded
def test_labelled_files_of_absurd_values(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"text": "one", "label": f"class {i}"} for i in range(MAX_CLASSES + 1)])
    with pytest.raises(BadInput, match=r"has 10,001 classes, more than 10,000"):
        read_classification(path)
    cases: dict[bytes, Callable[[Path], Any]] = {
        b'{"text": "one", "label": %s}' % (b"9" * 400): read_regression,  # too large for a float
        b'{"text": "one", "label": "%s"}' % (b"9" * 5000): read_classification,  # too long for an integer
        b'{"text": "one", "label": %s}' % (b"9" * 5000): read_classification,
        b'{"text": "half \\ud800", "label": "a"}': read_classification,
        b'{"text": "one", "label": "\\ud800"}': read_classification,
        b'{"text": "nul \\u0000", "label": "a"}': read_classification,
        b'{"text": "one", "label": NaN}': read_regression,
        b'{"text": "one", "label": -1e999}': read_regression,
    }
    for line, read in cases.items():
        path.write_bytes(b'{"text": "two", "label": "1"}\n' + line)
        with pytest.raises(BadInput, match="record 2"):
            read(path)
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(BadInput, match="is empty"):
        read_classification(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('text,label\n"' + "x" * 2**25 + '",a\none,b\n')
    assert len(read_classification(tmp_path / "a.csv").texts[0]) == 2**25
    for start in ("1e999", "-3", '"x"'):
        qa = {"id": 1, "question": "q", "answers": [{"text": "b", "answer_start": "START"}]}
        squad = {"data": [{"paragraphs": [{"context": "a b", "qas": [qa]}]}]}
        path.write_text(json.dumps(squad).replace('"START"', start))
        with pytest.raises(BadInput, match="no answer with text and answer_start"):
            read_questions(path)


def test_a_tokenizer_of_ours_passes(sound_store: TextStore) -> None:
    """The checks above refuse nothing that we write."""
    tokenizer, _ = load_tokenizer(sound_store.folder / "tokenizer.json", TextConfig())
    assert tokenizer.get_vocab() == Tokenizer.from_file(str(sound_store.folder / "tokenizer.json")).get_vocab()
