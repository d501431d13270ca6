"""What the images decide of a run where a person names neither a preset nor a size: `headstart pretrain droppos --data my/images`.

- The network sees 8 x 8 patches, as in preset tiny, whatever the images: a patch is an eighth of what half of them reach on their shorter side, an
  even number of pixels from 4 to 16. The network then costs nearly the same, cutting the crops more. Smaller images: fewer patches of 4.
- Bands (SatMAE++): likewise, stored at no more than 128 pixels, for what enlarges the reconstruction costs with their square.
- On a GPU, 10,000 images or more of which half reach the size of the paper's crops get the small preset of the paper's form.
- An update has no more images, or pairs of them, than there are.
- A preset, a size or --init of your own turns this off; so does a run that was begun, however many files there are by now, and a preparation of
  these files: both go on with what they began with. Each setting that is chosen so has the origin "data" in the plan and in run.json.

No torch, unless a GPU decides. What cannot be read decides nothing: the preparation names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import hardware
from headstart.core.config import flatten, leaves, plain, provenance, replace_nested
from headstart.core.errors import BadInput, HeadstartError
from headstart.core.files import read_json
from headstart.core.run import read_run
from headstart.core.words import plural
from headstart.engine.config import Preset, Settings
from headstart.verbs._mixture_file import with_mixture
from headstart.verbs._parts import path_of
from headstart.verbs._same_run import GIVEN, places
from headstart.verbs.config import PretrainConfig, check_numbers, preset_config, run_folder

if TYPE_CHECKING:
    from headstart.data.image.survey import Survey
    from headstart.engine.method import Method

BY_DATA = "data"
"""Where a setting comes from that the data chose."""
OWN = ("preset", "method.image_size", "method.patch_size", "image.size", "image.tile")
"""Who names one of these chooses all of them."""
SMALLEST_PATCH, LARGEST_PATCH = 4, 16
SMALLEST_SIDE = 16
"""Pixels that a network sees at least: of images below they are made up."""
LARGEST_BANDS = 128
"""Pixels a side at which several bands are stored at most."""
MANY = 10_000
"""Images that a network of the paper's form asks for; MAE's users report poor results below some tens of thousands (facebookresearch/mae#19, #95)."""
FEWEST_ROWS = 8
"""Of an update."""


def by_data(
    slug: str, method: Settings | type[Method], config: PretrainConfig, origin: dict[str, str]
) -> tuple[PretrainConfig, dict[str, str]]:
    """(settings with what the images decide, where each comes from); both as they were where nothing is to be decided.

    Args:
        config: with preset `tiny`, and what the person set.
        origin: dotted name -> where a setting comes from.

    Raises:
        UsageError: a number that no run can have.
    """
    if method.sizing is None or not config.data or config.init is not None or any(origin.get(name) in GIVEN for name in OWN):
        return config, origin
    check_numbers(config)  # by their flags, before they are put together anew by their names
    whole = with_mixture(config)  # as run.json records it
    begun = _begun(slug, method, whole)
    if begun is not None:
        found = _chosen_then(begun)
    else:
        seen = _look([path_of(entry) for entry in whole.data], config.data_config)
        found = None if seen is None else choose(seen, method, lambda: _has_gpu(config.device))
    if found is None:
        return config, origin
    preset, chosen = found
    given = {name: value for name, value in flatten(config).items() if origin.get(name) in GIVEN}
    defaults, of_preset = preset_config(method, preset)
    sized = replace_nested(of_preset, {name: value for name, value in chosen.items() if name not in given})
    layers = [("default", defaults), ("preset", of_preset), (BY_DATA, sized)]
    found_origin = provenance(layers, {BY_DATA: ["preset", *chosen]}) | {name: origin[name] for name in given}
    return replace_nested(sized, given), found_origin


def by_data_of_store(
    method: Settings | type[Method], sources: Sequence[str], data: Any, out: Path, named: Collection[str]
) -> tuple[str, dict[str, Any]] | None:
    """(preset, dotted settings of the store) for images that are only prepared; None where they decide nothing.

    Args:
        out: the store. What was begun there goes on as it was chosen then, maybe on another machine or by another version.
        named: the settings that the person set.
    """
    if method.sizing is None or not {*OWN}.isdisjoint(named):
        return None
    found = _prepared_then(method, sources, data, out)
    if found is None:
        seen = _look(sources, data)
        if seen is None:
            return None
        found = choose(seen, method, lambda: _has_gpu("auto"))
    preset, chosen = found
    group = f"{method.data_group}."
    settings = flatten(preset_config(method, preset)[1].data_config, group)
    settings |= {name: value for name, value in chosen.items() if name.startswith(group)}
    return preset, {name: value for name, value in settings.items() if name not in named}


def _prepared_then(method: Settings | type[Method], sources: Sequence[str], data: Any, out: Path) -> tuple[str, dict[str, Any]] | None:
    """(preset, size) of the preparation that was finished in `out`, or begun there of these files; None where there is none, or its file is
    damaged."""
    for place in (out / "manifest.json", out / ".work" / "plan.json"):
        try:
            recorded, is_finished = read_json(place), place.name == "manifest.json"
            if not is_finished and not _is_begun_of(recorded, sources, data):
                return None
            preparation = recorded["preparation"]
            channels = int(recorded["form"]["channels"]) if is_finished else _seen_channels(sources, data)
            preset = _preset_then(method, preparation, channels)
            replace_nested(preset_config(method, preset)[1].data_config, {"size": preparation["size"]})  # refuses what is no size
        except (HeadstartError, KeyError, TypeError, ValueError):
            continue
        return preset, {f"{method.data_group}.size": preparation["size"]}
    return None


def _preset_then(method: Settings | type[Method], preparation: Mapping[str, Any], channels: int) -> str:
    """The preset that a preparation was of."""
    sizing = method.sizing
    assert sizing is not None
    if sizing.large is not None and all(preparation[name] == value for name, value in method.presets[sizing.large].data.items()):
        return sizing.large
    return sizing.bands if sizing.bands is not None and channels > 3 else sizing.usual


def _seen_channels(sources: Sequence[str], data: Any) -> int:
    seen = _look(sources, data)
    return 3 if seen is None else seen.channels


def _is_begun_of(plan: Any, sources: Sequence[str], data: Any) -> bool:
    from headstart.data.image.prepare import is_begun_of  # Pillow

    return is_begun_of(plan, sources, data)


def of_images(
    method: Settings | type[Method], sources: Sequence[str], data: Any, device: str, named: Collection[str]
) -> tuple[str, dict[str, Any]] | None:
    """(preset, settings that are not the preset's) for a run that another verb begins on these images; None where they decide nothing.

    Args:
        data: how they become a store.
        named: the settings that the person set.
    """
    if method.sizing is None or not {*OWN}.isdisjoint(named):
        return None
    seen = _look(sources, data)
    return None if seen is None else choose(seen, method, lambda: _has_gpu(device))


def choose(seen: Survey, method: Settings | type[Method], has_gpu: Callable[[], bool]) -> tuple[str, dict[str, Any]]:
    """(preset, settings that are not the preset's) for these images.

    Args:
        has_gpu: asked only where it decides.
    """
    sizing = method.sizing
    assert sizing is not None
    name, side = sizing.usual, seen.side
    if sizing.bands is not None and seen.channels > 3:
        name, side = sizing.bands, min(side, LARGEST_BANDS)
    elif sizing.large is not None and seen.images >= MANY and side >= method.presets[sizing.large].data["size"] and has_gpu():
        return sizing.large, {}
    preset = method.presets[name]
    return name, sizes(preset, side) | _rows(preset, seen.rows)


def sizes(preset: Preset, side: int) -> dict[str, int]:
    """The sizes of a preset's network and store, for images whose shorter side has so many pixels: as many patches as the preset's, larger ones."""
    seen, patches = preset.method.image_size, preset.method.image_size // preset.method.patch_size
    there = side * seen // preset.data["size"]  # what of an image the network sees; the rest is for crops, or the larger scales
    patch = min(max(there // patches // 2 * 2, SMALLEST_PATCH), LARGEST_PATCH)
    size = min(patches, max(there, SMALLEST_SIDE) // patch) * patch
    return {"method.image_size": size, "method.patch_size": patch, "image.size": size * preset.data["size"] // seen}


def _rows(preset: Preset, rows: int) -> dict[str, int]:
    """The largest power of two that is no more than there are rows (images, or pairs of them), where the preset's batch is larger."""
    return {"batch": max(FEWEST_ROWS, 1 << max(rows, 1).bit_length() - 1)} if rows < preset.batch else {}


def _look(sources: Sequence[str], data: Any) -> Survey | None:
    from headstart.data.image.survey import survey  # Pillow: only where images are read

    return survey(sources, data)


def _has_gpu(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and bool(hardware.cuda_devices()))


def _begun(slug: str, method: Settings | type[Method], config: PretrainConfig) -> dict[str, Any] | None:
    """run.json of the run on this data that the same command began before; None where there is none."""
    sizing = method.sizing
    assert sizing is not None
    for preset in dict.fromkeys(name for name in (sizing.usual, sizing.large, sizing.bands, config.preset) if name is not None):
        try:
            info = read_run(run_folder(slug, replace_nested(config, {"preset": preset})))
        except BadInput:  # none, or one that its own opening refuses
            continue
        recorded = info.get("config")
        if info.get("method") == slug and isinstance(recorded, dict) and places(recorded.get("data")) == places(plain(config.data)):
            return info
    return None


def _chosen_then(info: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """(preset, settings) that the images chose when a run began; None where its preset was named, or it is of an earlier version."""
    origin = info.get("origin")
    if not isinstance(origin, dict) or origin.get("preset") != BY_DATA:
        return None
    recorded = dict(leaves(info["config"]))
    if "preset" not in recorded:
        return None
    return recorded["preset"], {name: recorded[name] for name, where in origin.items() if where == BY_DATA and name != "preset" and name in recorded}


def plan_lines(config: PretrainConfig, origin: Mapping[str, str], stores: Sequence[Any]) -> list[str]:
    """What was chosen by the images, as a sentence of the plan."""
    if origin.get("preset") != BY_DATA:
        return []
    images = sum(store.manifest["counts"]["images"] for store in stores)
    median = stores[0].manifest.get("median_side")
    size, patch = config.method.image_size, config.method.patch_size
    reached = "" if median is None else f", half of them at least {median:,} pixels high and wide"
    found = [
        f"  chosen     by {plural(images, 'image')}{reached}: preset {config.preset}, {size} x {size} pixels in patches of {patch},"
        f" {config.global_batch:,} an update; --preset or a size of your own (--method.image-size, --image.size) says otherwise"
    ]
    stored, is_raw = stores[0].height, stores[0].folder not in [Path(path_of(entry)) for entry in config.data]
    if is_raw and stores[0].channels > 3 and median is not None and median > stored:  # a pixel of a satellite has a size on the ground
        flags = f"--preset {config.preset} --image.size {stored} --image.tile {stored} --method.image-size {size} --method.patch-size {patch}"
        found.append(f"             they are shrunk to {stored} pixels; {flags} cuts them into windows instead")
    return found
