"""Settings that no network on images can have are refused by their flag, before an image is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart import methods
from headstart.cli.pretrain import parse, refuse
from headstart.core.config import replace_nested
from headstart.core.errors import UsageError

METHODS = ("mae", "droppos", "satmaepp", "croco")
WITH_CROPS = ("mae", "droppos", "satmaepp")

ODD: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    (METHODS, {"image_size": 30, "patch_size": 4}, "The nearest good sides are 28 or 32"),
    (METHODS, {"image_size": 0}, "--method.image-size is 0."),
    (METHODS, {"image_size": -8}, "--method.image-size is -8."),
    (METHODS, {"image_size": 8, "patch_size": 16}, "The nearest good sides are 16;"),
    (METHODS, {"patch_size": 0}, "--method.patch-size is 0."),
    (METHODS, {"patch_size": -4}, "--method.patch-size is -4."),
    (METHODS, {"hidden_size": 0}, "--method.hidden-size is 0."),
    (METHODS, {"num_layers": 0}, "--method.num-layers is 0."),
    (METHODS, {"num_heads": 0}, "--method.num-heads is 0."),
    (METHODS, {"num_heads": 7}, "A width of 96 cannot be split over 7 heads."),
    (METHODS, {"decoder_hidden_size": 0}, "--method.decoder-hidden-size is 0."),
    (METHODS, {"decoder_heads": 0}, "--method.decoder-heads is 0."),
    (METHODS, {"decoder_layers": -1}, "--method.decoder-layers is -1."),
    (METHODS, {"decoder_heads": 7}, "heads (--method.decoder-hidden-size, --method.decoder-heads)."),
    (("mae", "satmaepp", "croco"), {"mask_ratio": 0.0}, "--method.mask-ratio is 0.0."),
    (METHODS, {"mask_ratio": 1.0}, "--method.mask-ratio is 1.0"),
    (METHODS, {"mask_ratio": 1.5}, "--method.mask-ratio is 1.5"),
    (METHODS, {"mask_ratio": -0.1}, "--method.mask-ratio is -0.1"),
    (WITH_CROPS, {"crop_smallest": 0.0}, "--method.crop-smallest is 0.0."),
    (WITH_CROPS, {"crop_smallest": 1.5}, "--method.crop-smallest is 1.5."),
    (WITH_CROPS, {"flip": -0.5}, "--method.flip is -0.5."),
    (WITH_CROPS, {"flip": 1.5}, "--method.flip is 1.5."),
    (("droppos",), {"drop_ratio": 1.5}, "--method.drop-ratio is 1.5."),
    (("droppos",), {"sigma": -1.0}, "--method.sigma is -1.0"),
    (("droppos",), {"sigma_epochs": 0}, "--method.sigma-epochs 0"),
    (("droppos",), {"temperature": 0.0}, "--method.temperature 0.0"),
    (("droppos",), {"pos_weight": -1.0}, "--method.pos-weight is -1.0."),
    (("satmaepp",), {"scales": 4}, "--method.scales is 4."),
    (("satmaepp",), {"crop_factor": 3}, "A crop of 3 times the input"),
    (("satmaepp",), {"proj_ratio": 0}, "--method.proj-ratio is 0."),
    (("croco",), {"colour_jitter": 2.0}, "--method.colour-jitter is 2.0."),
    (("mae",), {"image_size": 16, "patch_size": 16}, "A mask ratio of 0.75 shows 0 of 1 patches."),
    (("mae",), {"mask_ratio": 1e-9}, "A mask ratio of 1e-09 shows 64 of 64 patches."),
    (("droppos",), {"image_size": 16, "patch_size": 16}, "Of 1 patches 0 are seen"),
    (("droppos",), {"drop_ratio": 0.0}, "Of 64 patches 16 are seen, 16 of these with their position"),
    (("droppos",), {"mask_ratio": 0.0, "multi_task": True}, "With multi_task some patches must be hidden"),
    (("croco",), {"mask_ratio": 0.01}, "A mask ratio of 0.01 shows 64 of 64 patches of the first view."),
    (("satmaepp",), {"mask_ratio": 0.99, "groups": ("1,2", "3,4")}, "A mask ratio of 0.99 shows 0 of 32 tokens."),
    (("satmaepp",), {"mask_ratio": 0.98, "band_names": tuple("abcdefg")}, "A mask ratio of 0.98 shows 0 of 32 tokens."),
    (("satmaepp",), {"mask_ratio": 0.99, "spatial_mask": True}, "A mask ratio of 0.99 shows 0 of 16 tokens."),
]
EDGES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("droppos",), {"mask_ratio": 0.0}),
    (("droppos",), {"drop_ratio": 1.0}),
    (("mae", "droppos", "satmaepp"), {"decoder_layers": 0}),
    (WITH_CROPS, {"crop_smallest": 1.0, "flip": 0.0}),
    (WITH_CROPS, {"flip": 1.0}),
    (("croco",), {"colour_jitter": 1.0}),
]


@pytest.mark.parametrize(
    ("slug", "odd", "words"), [(slug, odd, words) for slugs, odd, words in ODD for slug in slugs], ids=lambda value: str(value)[:40]
)
def test_an_odd_setting_is_refused_by_its_flag(slug: str, odd: dict[str, Any], words: str) -> None:
    config = replace_nested(methods.settings(slug).Config(), odd)
    with pytest.raises(UsageError) as caught:
        config.check()
    assert words in str(caught.value)
    assert "\n" in str(caught.value)  # and says what to write instead


@pytest.mark.parametrize(("slug", "edge"), [(slug, edge) for slugs, edge in EDGES for slug in slugs], ids=lambda value: str(value)[:40])
def test_the_edge_of_what_is_sensible_is_taken(slug: str, edge: dict[str, Any]) -> None:
    replace_nested(methods.settings(slug).Config(), edge).check()


def test_bands_that_the_settings_of_the_images_name_decide_how_many_tokens_there_are() -> None:
    """Of ten bands a place has three tokens, of three one; where only the first image tells, its store does."""
    settings = methods.settings("satmaepp")
    config = replace_nested(settings.Config(), {"mask_ratio": 0.96})  # of 16 places: of 48 tokens one is seen, of 16 none
    config.check(replace_nested(settings.DataConfig(), {"bands": tuple(range(1, 11))}))
    config.check(settings.DataConfig())
    for few in ({"bands": (1, 2, 3)}, {"mode": "rgb"}, {"mode": "grey"}):
        with pytest.raises(UsageError, match="shows 0 of 16 tokens"):
            config.check(replace_nested(settings.DataConfig(), few))


@pytest.mark.parametrize("slug", METHODS)
def test_every_preset_passes(slug: str) -> None:
    settings = methods.settings(slug)
    for preset in settings.presets.values():
        preset.method.check(replace_nested(settings.DataConfig(), preset.data))


def test_a_command_is_refused_before_its_images_are_read(tmp_path: Path) -> None:
    """A store may take hours; here the only image is broken, and nothing says so."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    for flags, words in (
        (("--method.crop-smallest", "0"), "--method.crop-smallest is 0.0."),
        (("--image.size", "64", "--method.image-size", "128"), "the images would be stored at 64 x 64"),
        (("--image.size", "16", "--method.image-size", "16", "--method.patch-size", "16"), "shows 0 of 1 patches"),
    ):
        with pytest.raises(UsageError) as caught:
            refuse(parse(["mae", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--budget.steps", "1", *flags]))
        assert words in str(caught.value)
        assert not (tmp_path / "run").exists()
