"""Pickles, modules, kernels, YAML objects in what comes from outside: none of their code is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from headstart.core.config import read_yaml
from headstart.core.errors import BadInput
from headstart.data.text.read import Record
from headstart.data.text.store import open_text_store
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.data import read_classification
from tests.fuzz.attacks import Touch, edit, read_all

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

runs_no_code = pytest.mark.promise("No code of a file is run: no pickle, no YAML object, no module of a model folder, no kernel that it names.")


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
