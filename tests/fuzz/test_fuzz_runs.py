"""Readers of configurations, runs and models, given what our writers write, damaged at random: each reads it, or refuses with our error."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart import methods
from headstart.core.config import read_yaml, replace_nested, to_yaml
from headstart.core.errors import BadInput
from headstart.core.run import RunFolder, read_lines, read_run
from headstart.data.text.store import TextStore, open_text_store
from headstart.engine.checkpoint import Checkpointer
from headstart.interop.electra_tf1 import from_tf1, to_tf1
from headstart.interop.transformers_io import load_encoder
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.network import RTDHead, config_of_folder, load, load_beside, save_beside
from headstart.tasks.saved import load_finetuned
from headstart.verbs.config import preset_config
from headstart.verbs.peek import store_folder
from headstart.verbs.sample import load_run
from tests.fuzz.fuzzing import LONGER, budget, bytes_or_json, spoilt, tried
from tests.fuzz.mutations import damaged, damaged_json

pytestmark = pytest.mark.timeout(120 * LONGER)

promise = pytest.mark.promise("A damaged or hostile file of any kind ends in a message that names it; never in a crash or a full memory.")


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
