"""What a file says of a vision model's or GPT's shape is explained by its weights before anything of that size is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.backbones.croco import Binocular, CrossDecoder, DecoderConfig
from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput
from headstart.interop.cerebras import import_cerebras
from headstart.interop.croco import SHAPE_FILE as CROCO_SHAPE
from headstart.interop.croco import WEIGHTS_FILE, find_croco, save_croco
from headstart.interop.vit import SHAPE_FILE, TIMM_FILE, load_vit, save_vit

pytestmark = pytest.mark.timeout(60)  # what must not build for ever fails here
bounded = pytest.mark.promise("Stated sizes are checked before memory is taken: a small file cannot fill the memory or keep the processor busy.")
SMALL = ViTConfig(image_size=(16, 16), patch_size=4, hidden_size=48, num_layers=2, num_heads=3)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def load_croco(folder: Path) -> None:
    network = find_croco(folder)
    assert network is not None
    network.binocular()


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    save_vit(ViT(SMALL), tmp_path / "vit")
    return tmp_path / "vit"


@pytest.fixture
def croco(tmp_path: Path) -> Path:
    encoder = SMALL.at(class_token=False, positions="rope")
    decoder = DecoderConfig(hidden_size=32, num_layers=1, num_heads=2, positions="rope")
    (tmp_path / "croco").mkdir()
    save_croco(Binocular(ViT(encoder), CrossDecoder(48, decoder, encoder.grid, outputs=0)), tmp_path / "croco")
    return tmp_path / "croco"


@pytest.mark.parametrize(
    ("stated", "what"),
    [
        ({"num_layers": 10**9}, "states more than 1,024 layers"),
        ({"hidden_size": 48 * 10**5}, "states a network of"),
        ({"mlp_ratio": 1e9}, "states a network of"),
        ({"mlp_ratio": 1e300}, "cannot be built"),
        ({"image_size": [2**30, 2**30], "positions": "rope"}, "more than 8,192 pixels a side"),
        ({"image_size": ["16", "16"]}, "is no shape of a vision transformer"),
        ({"num_heads": 0}, "cannot be built"),
        ({"hidden_size": 48.5}, "cannot be built"),
        ({"groups": [[0]] * 2000}, "states more than 1,024 layers or groups"),
    ],
)
@bounded
def test_an_export_of_a_vision_transformer(vit: Path, stated: dict[str, Any], what: str) -> None:
    load_vit(vit)
    edit(vit / SHAPE_FILE, **stated)
    with pytest.raises(BadInput, match=what):
        load_vit(vit)


@pytest.mark.parametrize(
    ("stated", "what"),
    [
        ({"mlp_ratio": 1e9}, "says mlp_ratio"),
        ({"enc_num_heads": "3"}, "says {'patch_size'"),
        ({"dec_num_heads": True}, "says {'patch_size'"),
        ({"img_size": 2**30}, "says img_size"),
    ],
)
@bounded
def test_an_export_of_croco(croco: Path, stated: dict[str, Any], what: str) -> None:
    load_croco(croco)
    edit(croco / CROCO_SHAPE, **stated)
    with pytest.raises(BadInput, match=what):
        load_croco(croco)


@pytest.mark.parametrize(
    ("name", "stated", "what"),
    [
        (f"dec_blocks.{10**9}.norm1.weight", {"dec_depth": 10**9 + 1}, "says {'patch_size'"),
        (f"enc_blocks.{10**9}.norm1.weight", {"enc_depth": 10**9 + 1}, "says {'patch_size'"),
        ("dec_blocks.1000.norm1.weight", {"dec_depth": 1001, "dec_embed_dim": 2**20}, "states a network of"),
    ],
)
@bounded
def test_croco_of_names_that_count_further_than_its_weights(croco: Path, name: str, stated: dict[str, Any], what: str) -> None:
    state = {key: value for key, value in load_file(croco / WEIGHTS_FILE).items() if not key.startswith(("dec_", "decoder_"))}
    save_file(state | {name: torch.zeros(2)}, croco / WEIGHTS_FILE)
    edit(croco / CROCO_SHAPE, **stated)
    with pytest.raises(BadInput, match=what):
        find_croco(croco)


@bounded
def test_croco_without_its_weights(croco: Path) -> None:
    save_file({"other": torch.zeros(2)}, croco / WEIGHTS_FILE)
    with pytest.raises(BadInput, match="holds no network of CroCo"):
        find_croco(croco)


@pytest.mark.parametrize("name", [TIMM_FILE, SHAPE_FILE])
def test_a_vision_export_whose_file_is_a_link_to_elsewhere(vit: Path, tmp_path: Path, name: str) -> None:
    (vit / name).rename(tmp_path / name)
    (vit / name).symlink_to(tmp_path / name)
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_vit(vit)


@bounded
def test_a_checkpoint_of_cerebras(tmp_path: Path) -> None:
    layer = "transformer_decoder.layers.{}.ffn.ffn.0.linear_layer.weight"
    ends = {"embedding_layer.word_embeddings.weight": torch.zeros(1, 2**17), "embedding_layer.position_embeddings.weight": torch.zeros(1, 2**17)}
    for last, what in ((10**9, "1,000,000,001 layers"), (100, "states a network of")):
        torch.save(ends | {layer.format(0): torch.zeros(4, 4), layer.format(last): torch.zeros(4, 4)}, tmp_path / "x.mdl")
        with pytest.raises(BadInput, match=what):
            import_cerebras(tmp_path / "x.mdl", tmp_path / "model", num_heads=2, tokenizer=None)
    torch.save({"w": torch.zeros(1).expand(2**30)}, tmp_path / "wide.mdl")
    with pytest.raises(BadInput, match="describes tensors of 4,09"):
        import_cerebras(tmp_path / "wide.mdl", tmp_path / "model", num_heads=2, tokenizer=None)
