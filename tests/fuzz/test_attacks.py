"""Each attack that we know of, made by hand: what it wants does not happen, and the person is told."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from headstart.catalog.folder import what_lies_here
from headstart.core.config import read_yaml, replace_nested
from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.core.files import MAX_JSON_VALUES, atomic_write, locked, read_json
from headstart.core.run import OWN, RunFolder, read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, Reading, Record
from headstart.data.text.rows import MAX_LENGTH, Rows, packed_rows, rows_folder
from headstart.data.text.sources import find_inputs
from headstart.data.text.store import ARRAYS, TextStore, open_text_store, prepare_text
from headstart.data.text.tokenizer import load_tokenizer
from headstart.engine.budget import Budget
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import MAX_CLASSES, read_classification, read_questions, read_regression
from headstart.tasks.finetune import finetune
from headstart.tasks.saved import load_finetuned
from headstart.verbs._texts import SHOWN
from tests.corpus import documents, labelled, write_jsonl
from tests.running import headstart as command

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

reads_nothing_outside = pytest.mark.promise("A hostile store, model, run or fine-tuned model cannot make headstart read a file outside its folder.")
writes_nothing_outside = pytest.mark.promise("A hostile store or run cannot make headstart write, empty or delete anything outside its folder.")
runs_no_code = pytest.mark.promise("No code of a file is run: no pickle, no YAML object, no module of a model folder, no kernel that it names.")
bounded = pytest.mark.promise("Stated sizes are checked before memory is taken: a small file cannot fill the memory or keep the processor busy.")
never_waits = pytest.mark.promise("A named pipe or device in place of a file is refused; nothing waits for it.")
clean_terminal = pytest.mark.promise("Names and texts from outside reach a terminal without their control characters.")


@pytest.fixture
def theirs(sound_store: TextStore, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(sound_store.folder, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def model(sound_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(sound_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's folder, which nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "letters.txt").write_text("dear diary")
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def link(path: Path, target: Path) -> None:
    """Moves what lies at `path` to `target`, and leaves a link."""
    shutil.move(path, target)
    path.symlink_to(target)


class Touch:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


# --- folders that lead outside ----------------------------------------------------------------------------------------------------------------------


@reads_nothing_outside
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", *(f"{name}.npy" for name in ARRAYS)])
def test_a_store_whose_file_is_a_link_to_elsewhere(theirs: Path, outside: Path, name: str) -> None:
    link(theirs / name, outside / name)
    with pytest.raises(BadInput, match="leads out of its folder"):
        open_text_store(theirs)


def test_a_store_may_itself_be_a_link_and_hold_links_within(theirs: Path, tmp_path: Path) -> None:
    link(theirs / "tokens.npy", theirs / "moved.npy")
    (tmp_path / "here").symlink_to(theirs)
    open_text_store(tmp_path / "here")


@reads_nothing_outside
def test_rows_that_are_a_link_to_elsewhere(theirs: Path, outside: Path) -> None:
    opened = open_text_store(theirs)
    link(theirs / "rows", outside / "rows")
    with pytest.raises(BadInput, match="leads out of its folder"):
        packed_rows(opened, 32, "train", [2], [3])


@writes_nothing_outside
def test_rows_in_the_place_of_somebodys_folder(theirs: Path, outside: Path) -> None:
    """The name of the folder for these rows is a hash that anyone can compute; making rows begins with emptying it."""
    opened = open_text_store(theirs)
    key = {"builder": "packed", "begin": [2], "end": [3], "wrap": "chunk"}
    for split, length in (("train", 48), ("held_out", 48)):
        (theirs / "rows").mkdir(exist_ok=True)
        folder = theirs / "rows" / f"{split}-{length}-{rows_folder(opened, key, split, length).name.rsplit('-')[-1]}"
        folder.symlink_to(outside)
        with pytest.raises(BadInput, match="leads out of its folder"):
            packed_rows(opened, length, split, [2], [3])  # type: ignore[arg-type]
    assert (outside / "letters.txt").read_text() == "dear diary"


@writes_nothing_outside
def test_a_lock_file_that_is_a_link(theirs: Path, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"), locked(tmp_path / "lock", "works"):
        pass
    opened = open_text_store(theirs)
    folder = rows_folder(opened, {"builder": "packed", "begin": [], "end": [], "wrap": "chunk"}, "train", 40)
    folder.with_suffix(".lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"):
        packed_rows(opened, 40)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"):
        RunFolder(tmp_path / "run")
    assert (outside / "letters.txt").read_text() == "dear diary"


@writes_nothing_outside
def test_a_temporary_name_that_lies_in_wait(outside: Path, tmp_path: Path) -> None:
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to(outside / "letters.txt")
    with atomic_write(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert (outside / "letters.txt").read_text() == "dear diary"
    assert read_json(tmp_path / "a.json") == {}


@writes_nothing_outside
@pytest.mark.parametrize("name", [".work", "rows", "tokens.npy", "manifest.json", "quarantine.jsonl"])
def test_a_store_is_not_written_through_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(documents(20)))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).symlink_to(outside)
    with pytest.raises(BadInput, match="a store is not written"):
        prepare_text([tmp_path / "a.txt"], tmp_path / "new", TextConfig(vocab_size=300))
    assert [path.name for path in outside.iterdir()] == ["letters.txt"]


@writes_nothing_outside
@pytest.mark.parametrize("name", OWN)
def test_a_run_is_not_written_through_a_link(trained: Path, tmp_path: Path, outside: Path, name: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    if (tmp_path / "run" / name).exists():
        link(tmp_path / "run" / name, outside / name)
    else:  # a run on texts draws no pictures
        (tmp_path / "run" / name).symlink_to(outside, target_is_directory=True)
    before = sorted(outside.rglob("*"))
    with pytest.raises(BadInput, match="a run does not write"):
        RunFolder(tmp_path / "run")
    assert sorted(outside.rglob("*")) == before


@writes_nothing_outside
def test_a_leftover_that_is_a_link_is_removed_and_not_followed(trained: Path, tmp_path: Path, outside: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in (".rehearsal-x", ".export-writing", ".metrics.jsonl.tmp"):
        (tmp_path / "run" / name).symlink_to(outside)
    RunFolder(tmp_path / "run").close()
    assert (outside / "letters.txt").exists()
    assert not (tmp_path / "run" / ".rehearsal-x").is_symlink()


@reads_nothing_outside
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json"])
def test_a_model_folder_whose_file_is_a_link_to_elsewhere(model: Path, outside: Path, name: str) -> None:
    if (model / name).exists():
        link(model / name, outside / name)
    else:
        (model / name).symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)


def test_a_snapshot_in_the_cache_of_the_hub_is_made_of_links(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in model.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    load_encoder(snapshot)


@reads_nothing_outside
@pytest.mark.parametrize("part", ["../outside/part.safetensors", "ABSOLUTE", "linked/part.safetensors"])
def test_an_index_of_weights_that_names_a_file_elsewhere(model: Path, outside: Path, part: str) -> None:
    weights = load_file(model / "model.safetensors")
    save_file(weights, outside / "part.safetensors", metadata={"format": "pt"})
    (model / "model.safetensors").unlink()
    part = part.replace("ABSOLUTE", str(outside / "part.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, part)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    if part.startswith("linked"):
        (model / "linked").symlink_to(outside)
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)


@reads_nothing_outside
def test_a_tokenizer_config_that_names_a_file_elsewhere(model: Path, outside: Path) -> None:
    edit(model / "tokenizer_config.json", vocab_file=str(outside / "letters.txt"))
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)
    edit(model / "tokenizer_config.json", vocab_file="/home/somebody/long/gone/vocab.txt")  # as in many an old folder
    load_encoder(model)


@reads_nothing_outside
def test_a_fine_tuned_model_that_names_a_training_file(sound_finetuned: Path, tmp_path: Path, outside: Path) -> None:
    """`train` is a parameter of every task: a file that would be read, and whose labels an error would quote."""
    shutil.copytree(sound_finetuned, tmp_path / "model2")
    saved = json.loads((tmp_path / "model2" / "task.json").read_text())
    del saved["classes"]
    (tmp_path / "model2" / "task.json").write_text(json.dumps(saved | {"train": str(outside / "letters.txt")}))
    with pytest.raises(BadInput, match="is not a task of ours"):
        load_finetuned(tmp_path / "model2")


# --- code -------------------------------------------------------------------------------------------------------------------------------------------


@runs_no_code
def test_an_array_of_pickled_objects(theirs: Path, tmp_path: Path) -> None:
    np.save(theirs / "tokens.npy", np.array([Touch(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match=r"tokens\.npy"):
        open_text_store(theirs)
    assert not (tmp_path / "ran").exists()


@runs_no_code
def test_pickles_in_a_model_folder(model: Path, tmp_path: Path) -> None:
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt"):
        (model / name).write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    load_encoder(model)
    (model / "model.safetensors").unlink()
    torch.save({"w": Touch(tmp_path / "ran")}, model / "pytorch_model.bin")
    with pytest.raises(BadInput, match="weights cannot be read"):
        load_encoder(model)
    assert not (tmp_path / "ran").exists()


@runs_no_code
def test_modules_in_a_model_folder(model: Path, tmp_path: Path) -> None:
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
        (model / name).write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    edit(model / "config.json", auto_map={"AutoConfig": "configuration_evil.C", "AutoModel": "modeling_evil.M"})
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.T", "tokenization_evil.T"]})
    load_encoder(model)  # transformers has this architecture itself
    edit(model / "config.json", model_type="evil")
    with pytest.raises(BadInput, match="never run here"):
        load_encoder(model)
    assert not (tmp_path / "ran").exists()


@runs_no_code
@pytest.mark.parametrize("setting", [{"attn_implementation": "someone/kernel"}, {"text_config": {"_attn_implementation": "someone/kernel"}}])
def test_kernels_of_elsewhere(model: Path, setting: dict[str, Any]) -> None:
    edit(model / "config.json", **setting)
    with pytest.raises(BadInput, match="program code from elsewhere"):
        load_encoder(model)


@runs_no_code
def test_an_adapter_for_a_model_elsewhere(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/tmp", "peft_type": "LORA"}')
    with pytest.raises(BadInput, match="an adapter for another model"):
        load_encoder(model)


@runs_no_code
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir", "!!python/module:os"])
def test_objects_in_yaml(tmp_path: Path, tag: str) -> None:
    (tmp_path / "a.yaml").write_text(f"seed: {tag} [{tmp_path / 'ran'}]\n")
    with pytest.raises(BadInput, match="is not YAML"):
        read_yaml(tmp_path / "a.yaml")
    assert not (tmp_path / "ran").exists()


@runs_no_code
def test_a_pickled_extension_type_in_parquet(tmp_path: Path) -> None:
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Touch(tmp_path / "ran"))}
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata), pa.field("label", pa.string())])
    pq.write_table(pa.table({"text": ["one", "two"], "label": ["a", "b"]}, schema=schema), tmp_path / "a.parquet")
    assert read_classification(tmp_path / "a.parquet").texts == ["one", "two"]
    assert [item.text for item in read_all(tmp_path / "a.parquet") if isinstance(item, Record)] == ["one", "two"]
    assert not (tmp_path / "ran").exists()


# --- sizes ------------------------------------------------------------------------------------------------------------------------------------------


def read_all(path: Path, **settings: Any) -> list[Record | Fault]:
    (file,) = find_inputs([path]).files
    return list(Reading(file, TextConfig(**settings)))


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
        with pytest.raises(UsageError, match="minutes must be"):
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


# --- pipes, devices ---------------------------------------------------------------------------------------------------------------------------------


@never_waits
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/stdin", "/dev/tty"])
def test_pipes_and_devices(theirs: Path, model: Path, trained: Path, tmp_path: Path, kind: str) -> None:
    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
        return path

    readers: list[Callable[[], Any]] = [
        lambda: read_yaml(put(tmp_path / "a.yaml")),
        lambda: read_json(put(tmp_path / "a.json")),
        lambda: load_tokenizer(put(tmp_path / "tokenizer.json"), TextConfig()),
        lambda: load_tokenizer(put(tmp_path / "vocab.txt"), TextConfig()),
        lambda: read_classification(put(tmp_path / "a.csv")),
        lambda: read_classification(put(tmp_path / "b.parquet")),
        lambda: read_questions(put(tmp_path / "squad.json")),
        lambda: load_encoder(put(model / "config.json").parent),
    ]
    for name in ("rows/rows.json", "tokens.npy", "tokenizer.json", "manifest.json"):
        folder = next(theirs.glob("rows/*")) if name.startswith("rows") else theirs
        put(folder / Path(name).name)
        readers.append(lambda: packed_rows(open_text_store(theirs), 32, "train", [2], [3]))
        with pytest.raises(HeadstartError):
            readers.pop()()
    for read in readers:
        with pytest.raises(HeadstartError):
            read()
    shutil.copytree(trained, tmp_path / "run")
    put(tmp_path / "run" / "run.json")
    with pytest.raises(HeadstartError):
        read_run(tmp_path / "run")
    (item,) = read_all(put(tmp_path / "text.jsonl"))
    assert isinstance(item, Fault)
    assert what_lies_here(tmp_path).n_files


def test_a_link_to_nowhere_or_to_itself_in_a_folder_that_is_judged(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    assert what_lies_here(tmp_path).n_files == 1


# --- what a person sees -----------------------------------------------------------------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
"""Renames the window, clears the screen, turns red by a one-byte sequence, and reverses what follows."""


def assert_clean(text: str) -> None:
    assert not set(text) & set("\x1b\x07\x9b\u202e")


@pytest.mark.slow
@clean_terminal
def test_escape_sequences_do_not_reach_the_terminal(sound_model: Path, tmp_path: Path) -> None:
    folder, strange = tmp_path / "data", f"name{ESCAPE}\nheadstart: all is well.txt"
    folder.mkdir()
    text = "\n\n".join(f"{document} {ESCAPE}\n{ESCAPE}" for document in documents(30))
    (folder / strange).write_text(text)
    flags = ["--text.tokenizer-kind", "bpe", "--text.vocab-size", "400"]
    prepared = command("prepare", "causal-lm", "--data", folder, "--out", tmp_path / "store", *flags)
    assert prepared.returncode == 0, prepared.stderr
    shown = command("peek", tmp_path / "store", "--count", "30")
    assert shown.returncode == 0
    assert "\\x1b" in shown.stdout
    (folder / "bad.jsonl").write_text('{"text": 1}')
    refused = command("prepare", "causal-lm", "--data", folder / strange, folder / "bad.jsonl", "--out", tmp_path / "no")
    assert refused.returncode == 3
    train = write_jsonl(tmp_path / "train.jsonl", [record | {"label": record["label"] + ESCAPE} for record in labelled(8, 0)])
    flags = ["--seeds", "1", "--epochs", "1", "--device", "cpu", "--no-baseline"]
    tuned = command("finetune", "classification", "--init", sound_model, "--train", train, "--test", train, *flags)
    assert tuned.returncode == 0, tuned.stderr
    for done in (prepared, shown, refused, tuned):
        assert_clean(done.stdout + done.stderr)
        assert "\nheadstart: all is well" not in done.stdout + done.stderr


@clean_terminal
def test_messages_quote_records_of_any_length_and_kind(tmp_path: Path) -> None:
    error = BadInput(f"the label '{ESCAPE}' {'x' * 10**6}", f"mend {ESCAPE}", file=tmp_path / "a\nb\ud800")
    assert_clean(str(error))
    assert len(str(error).encode()) < 5000
    assert "a\\nb\\ud800" in str(error)


@pytest.mark.slow
def test_what_peek_shows_of_a_document_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(documents(400)))
    prepare_text([tmp_path / "a.txt"], tmp_path / "store", TextConfig(vocab_size=300, document_split="file"))
    shown = command("peek", tmp_path / "store", "--count", "1")
    assert "more characters in" in shown.stdout
    assert len(shown.stdout) < 2 * SHOWN
    whole = json.loads(command("peek", tmp_path / "store", "--count", "1", "--json").stdout)
    assert sum(map(len, whole["documents"][0]["sentences"])) > 2 * SHOWN


@pytest.mark.promise("A damaged run.json ends in a message that names the weights which are still there.")
def test_a_damaged_run_says_what_is_left(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(BadInput, match=r"(?s)not valid JSON.*run/export.*checkpoints/step-\d+/export.*--init") as caught:
        read_run(tmp_path / "run")
    assert str(tmp_path / "run" / "export") in caught.value.mend
    shutil.rmtree(tmp_path / "run" / "export")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(BadInput, match="cannot be continued"):
        read_run(tmp_path / "run")


def test_a_tokenizer_of_ours_passes(sound_store: TextStore) -> None:
    """The checks above refuse nothing that we write."""
    tokenizer, _ = load_tokenizer(sound_store.folder / "tokenizer.json", TextConfig())
    assert tokenizer.get_vocab() == Tokenizer.from_file(str(sound_store.folder / "tokenizer.json")).get_vocab()
