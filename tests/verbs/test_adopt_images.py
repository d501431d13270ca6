"""--init of vision transformers from elsewhere: their sizes are taken, and images of the size that they saw unless others are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstart import methods
from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput
from headstart.interop.vit import read_vit
from headstart.verbs._adopt import adopt
from headstart.verbs.config import preset_config


def checkpoint(folder: Path, side: int, patch: int, **more: torch.Tensor) -> Path:
    """A file of official names: width 192, so three heads."""
    network = ViT(ViTConfig(image_size=(side, side), patch_size=patch, hidden_size=192, num_layers=1, num_heads=3))
    torch.save({"model": {**network.state_dict(), **more}}, folder / "vit.pth")
    return folder / "vit.pth"


@pytest.mark.parametrize("slug", ["mae", "droppos", "satmaepp"])
@pytest.mark.parametrize(("side", "patch", "expected"), [(224, 16, 224), (96, 8, 96), (518, 14, 224)])
def test_images_are_as_large_as_the_network_saw(slug: str, side: int, patch: int, expected: int, tmp_path: Path) -> None:
    method = methods.load(slug)
    _, usual = preset_config(method, "tiny")
    init = checkpoint(tmp_path, side, patch)
    config, names = adopt(usual, {}, method, init)
    assert (config.method.patch_size, config.method.num_heads, config.method.image_size) == (patch, 3, expected)
    assert config.data_config.size == expected
    assert {"method.image_size", "image.size", "method.hidden_size"} <= set(names)
    asked, _ = adopt(usual, {"method.image_size": "flag", "image.size": "flag"}, method, init)
    assert (asked.method.image_size, asked.data_config.size) == (usual.method.image_size, usual.data_config.size)


def test_networks_with_register_tokens_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="register tokens"):
        read_vit(checkpoint(tmp_path, 28, 14, register_tokens=torch.zeros(1, 4, 192)))
