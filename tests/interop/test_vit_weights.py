"""Weights of vision transformers from elsewhere: every layout that is read, what is adapted, what is refused, and what an export holds."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, Dinov2Config, Dinov2Model, ViTForImageClassification, ViTModel
from transformers import ViTConfig as TheirConfig

from headstart.backbones.positions import interpolate_positions
from headstart.backbones.vit import ViT, ViTConfig, adapt_channels
from headstart.core.errors import BadInput
from headstart.interop.vit import METHOD_FILE, SHAPE_FILE, load_beside, load_encoder, load_vit, read_tensors, read_vit, save_vit
from headstart.interop.vit_names import fold_layer_scale, from_transformers, to_transformers

SMALL = ViTConfig(image_size=(16, 16), patch_size=4, hidden_size=48, num_layers=2, num_heads=3)
THEIRS: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192, "image_size": 16, "patch_size": 4,
}  # fmt: skip


def vit(seed: int = 0, **changes: Any) -> ViT:
    torch.manual_seed(seed)
    network = ViT(SMALL.at(**changes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def images(channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))


def noisy(network: Any) -> Any:
    """Away from the start, where norms and biases say nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def answers_equal(network: ViT, theirs: Any, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), theirs(x).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_names_go_to_transformers_and_back() -> None:
    state = vit().state_dict() | {"mask_token": torch.zeros(1, 1, 4), "decoder_embed.weight": torch.randn(4, 48)}
    state |= {f"decoder_{name}": value for name, value in state.items() if name.startswith("blocks.0.")}
    for prefix in ("", "vit."):
        theirs = to_transformers(state, prefix)
        assert len(theirs) == len(state) + 2 * 2 * 3  # thirds for one: two more names for each weight and bias of three blocks
        back = from_transformers(theirs)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], value) for name, value in state.items())
    query = to_transformers(state)["encoder.layer.1.attention.attention.key.weight"]
    assert torch.equal(query, state["blocks.1.attn.qkv.weight"][48:96])


@pytest.mark.parametrize("head", [False, True])
def test_a_folder_of_transformers_answers_alike(tmp_path: Path, head: bool) -> None:
    config = TheirConfig(**THEIRS, layer_norm_eps=1e-6, num_labels=5)
    theirs = noisy(ViTForImageClassification(config) if head else ViTModel(config))
    theirs.save_pretrained(tmp_path)
    network, notes = load_vit(tmp_path)
    assert notes == []
    assert network.config.num_heads == 3
    answers_equal(network, theirs.vit if head else theirs, images())


def test_names_of_transformers_in_memory_are_read_too() -> None:
    theirs = noisy(ViTModel(TheirConfig(**THEIRS, layer_norm_eps=1e-6), add_pooling_layer=False))
    network = ViT(SMALL)
    network.load_state_dict(from_transformers(theirs.state_dict()))
    answers_equal(network, theirs, images())


def test_a_folder_of_dinov2_answers_alike(tmp_path: Path) -> None:
    """Its layer scales are folded into the matrices before them."""
    settings = {name: value for name, value in THEIRS.items() if name != "intermediate_size"}
    theirs = noisy(Dinov2Model(Dinov2Config(**settings, mlp_ratio=4, layerscale_value=0.3, layer_norm_eps=1e-6)))
    theirs.save_pretrained(tmp_path)
    network, notes = load_vit(tmp_path)
    assert notes == []
    answers_equal(network, theirs, images())
    assert fold_layer_scale({"x": torch.ones(1)}).keys() == {"x"}


def test_a_folder_of_timm(tmp_path: Path) -> None:
    source = vit(hidden_size=192)
    save_file(source.state_dict() | {"head.weight": torch.zeros(10, 192), "head.bias": torch.zeros(10)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224", "num_classes": 10}))
    network, notes = load_vit(tmp_path)
    assert notes == []
    assert network.config.num_heads == 3  # of the published width 192
    assert torch.equal(network(images()), source(images()))


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_files_of_torch(tmp_path: Path, key: str | None, wrapper: str) -> None:
    source = vit(positions="learned")
    state = {wrapper + name: value.detach() for name, value in source.state_dict().items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "vit.pth")
    network, notes = load_vit(tmp_path / "vit.pth", num_heads=3)
    assert notes == []
    assert torch.equal(network(images()), source(images()))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in vit().state_dict().items()}, tmp_path / "vit.safetensors")
    assert {value.dtype for value in read_tensors(tmp_path / "vit.safetensors").values()} == {torch.float32}


def test_positions_and_channels_are_adapted_and_said(tmp_path: Path) -> None:
    source = vit()
    save_vit(source, tmp_path)
    network, notes = load_vit(tmp_path, image_size=(24, 16), channels=5)
    assert notes == [
        "The patch embedding was made for 3 channels and was adapted to 5.",
        "The positions of a grid of 4 x 4 patches were interpolated (bicubic) to 6 x 4.",
    ]
    assert torch.equal(network.pos_embed, interpolate_positions(source.pos_embed, (4, 4), (6, 4)))
    assert torch.equal(network.patch_embed.proj.weight, adapt_channels(source.patch_embed.proj.weight, 5))
    grey = images(1)
    one, _ = load_vit(tmp_path, channels=1)
    torch.testing.assert_close(one(grey), source(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_file_without_a_class_token_starts_one(tmp_path: Path) -> None:
    source = vit(class_token=False)
    save_file(source.state_dict(), tmp_path / "croco.safetensors")
    found = read_vit(tmp_path / "croco.safetensors")
    assert found.grid == (4, 4)
    network = ViT(SMALL)
    notes = load_encoder(network, found)
    assert notes == ["The file has no cls_token: it starts fresh."]
    assert torch.equal(network.pos_embed[:, 1:], source.pos_embed)
    bare = ViT(SMALL.at(class_token=False))
    save_file(vit().state_dict(), tmp_path / "vit.safetensors")
    assert load_encoder(bare, read_vit(tmp_path / "vit.safetensors")) == []
    assert torch.equal(bare.pos_embed, vit().pos_embed[:, 1:])


def test_rotary_networks_and_groups_come_back_from_their_export(tmp_path: Path) -> None:
    for number, changes in enumerate(
        ({"positions": "rope", "class_token": False}, {"channels": 4, "groups": ((0, 3), (1, 2)), "group_width": 8}, {"positions": "none"})
    ):
        source = vit(**changes)
        save_vit(source, tmp_path / str(number))
        assert not (tmp_path / str(number) / "config.json").exists()  # transformers has no such network
        network, notes = load_vit(tmp_path / str(number))
        assert notes == []
        x = images(source.config.channels)
        assert torch.equal(network(x), source(x))


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_an_export_is_a_folder_of_transformers_and_of_timm(tmp_path: Path, positions: str) -> None:
    source = vit(positions=positions, image_size=(16, 24), channels=2)
    save_vit(source, tmp_path, {"do_resize": True}, {"mask_token": torch.ones(1, 1, 4)})
    theirs = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    answers_equal(source, theirs, images(2, 16, 24))
    assert theirs.config.layer_norm_eps == 1e-6
    assert torch.equal(load_file(tmp_path / "timm.safetensors")["blocks.1.attn.qkv.weight"], source.blocks[1].attn.qkv.weight)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {"do_resize": True}
    assert load_file(tmp_path / METHOD_FILE).keys() == {"mask_token"}
    network, notes = load_vit(tmp_path)
    assert notes == []
    assert network.config == source.config
    (tmp_path / SHAPE_FILE).unlink()  # what others see of it
    again, _ = load_vit(tmp_path)
    x = images(2, 16, 24)
    assert torch.equal(again(x), source(x))


def test_what_lies_beside_the_encoder_is_taken_where_it_fits(tmp_path: Path) -> None:
    module, other = torch.nn.Linear(4, 6), torch.nn.Linear(4, 7)
    save_vit(vit(), tmp_path, beside=dict(module.state_dict()))
    found = read_vit(tmp_path)
    copy = torch.nn.Linear(4, 6)
    assert load_beside(copy, found, grid=(4, 4)) == []
    assert torch.equal(copy.weight, module.weight)
    assert load_beside(other, found, grid=(4, 4)) == ["The decoder starts fresh: the file holds none of this kind and size."]
    half = torch.nn.Module()
    half.weight, half.extra = torch.nn.Parameter(torch.zeros(6, 4)), torch.nn.Parameter(torch.zeros(3))
    assert load_beside(half, found, grid=(4, 4)) == ["Of the decoder, 1 weights start fresh (extra): the file's have another shape."]
    assert torch.equal(half.weight, module.weight)



def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    torch.save({"model": vit().state_dict(), "args": Touch()}, tmp_path / "bad.pth")
    with pytest.raises(BadInput, match="cannot be read without running what it holds"):
        read_vit(tmp_path / "bad.pth")
    assert not marker.exists()


def test_bombs_are_refused(tmp_path: Path) -> None:
    state = vit().state_dict()
    torch.save(state | {"big": torch.zeros(1).expand(2**30)}, tmp_path / "wide.pth")  # 4 GiB of one number
    with pytest.raises(BadInput, match="describes tensors of 4,09"):
        read_vit(tmp_path / "wide.pth")
    torch.save(state, tmp_path / "vit.pth")
    with zipfile.ZipFile(tmp_path / "vit.pth") as source, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    with pytest.raises(BadInput, match=r"is compressed, as torch\.save never does"):
        read_vit(tmp_path / "packed.pth")


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    (tmp_path / "notes.txt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    save_file({"layers.0.weight": torch.zeros(2)}, tmp_path / "mlp.safetensors")
    expected = {
        "old.pth": "is no file of torch.save",
        "torn.safetensors": "cannot be read as safetensors|holds no vision transformer",
        "notes.txt": "is no weight file",
        "list.pth": "holds no weights by name",
        "mlp.safetensors": "holds no vision transformer that is known here",
        "absent.pth": "there is no such file or folder",
    }
    for name, words in expected.items():
        with pytest.raises(BadInput, match=words):
            read_vit(tmp_path / name)


def test_parts_that_ours_has_not_are_refused(tmp_path: Path) -> None:
    state = dict(vit().state_dict())
    save_file(state | {"blocks.0.attn.q_norm.weight": torch.ones(16)}, tmp_path / "qk.safetensors")
    with pytest.raises(BadInput, match=r"a plain vision transformer has not: blocks\.0\.attn\.q_norm\.weight"):
        read_vit(tmp_path / "qk.safetensors")
    save_file(state | {"reg_token": torch.ones(1, 4, 48)}, tmp_path / "registers.safetensors")
    with pytest.raises(BadInput, match=r"has register tokens \(reg_token\)"):
        load_vit(tmp_path / "registers.safetensors", num_heads=3)
    save_file(state | {"scale_token": torch.ones(1, 4, 48)}, tmp_path / "others.safetensors")
    with pytest.raises(BadInput, match="has 1 others, for example scale_token"):
        load_vit(tmp_path / "others.safetensors", num_heads=3)
    with pytest.raises(BadInput, match="how many heads"):
        load_vit(tmp_path / "others.safetensors")
    with pytest.raises(BadInput, match="the network's is"):
        load_encoder(ViT(SMALL.at(mlp_ratio=2.0)), read_vit_of(vit(), tmp_path))


def read_vit_of(network: ViT, folder: Path) -> Any:
    save_vit(network, folder)
    return read_vit(folder)


def test_positions_of_no_square_need_a_config(tmp_path: Path) -> None:
    save_file(vit(image_size=(16, 24)).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(BadInput, match="has 24 positions, which are no square grid"):
        read_vit(tmp_path / "vit.safetensors")
