"""SatMAE++ (Noman et al., CVPR 2024, arXiv 2403.05419): does drawing at two or three scales give a better start than drawing at one?

A Sentinel-2 scene of Slovenia (`satms/s2_slovenia`: five dates, ten bands, 101 x 100 pixels): pre-trained on windows of its upper rows, asked for the
land use of single pixels of its lower rows; on a GPU also the other way round.

- Pixels of one scene resemble their neighbours, so the folds are blocks of rows: no window that is asked shares a pixel with one that taught.
- Windows are clipped with the statistics of the clear dates of the training rows, before the store is made; the two cloudy dates stay in the pool.
- Where this differs from the specification: rates are chosen by the whole budget with seed 0, as in every claim here, not by a quarter of it; the
  second scene (`s2_amazon`) and the distances at the larger scales on the lower rows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._images import few_labels, fine_tuned_logits, held_out_metrics, probed_logits, write_pool
from headstart.core.errors import BadInput
from headstart.data.arrays import HEADER_ERRORS
from headstart.methods.satmaepp.config import SENTINEL_BANDS, SENTINEL_GROUPS
from headstart.tasks.image_data import ImageData

CLASSES = {2: "forest", 3: "grassland", 4: "shrubland", 8: "built-up"}
"""Land use that is asked for, by its number in the scene."""
CLEAR = (2, 3, 4)
"""Dates without clouds."""
FOLDS = {"train": (slice(0, 45), slice(63, 101)), "fold_2": (slice(55, 101), slice(0, 37))}
"""Name of the corpus -> rows to learn from, rows to be asked; rows between may be seen by the windows of either."""
POOL_WINDOW, WINDOW = 32, 16
"""Pixels a side: of what is pre-trained on, and of what surrounds a labelled pixel."""
GUARD_STRIDE = 16
"""Columns between the windows on which the guard looks."""
BELOW_BLANK = 0.98
"""Of the loss of drawing every band's mean, that an arm must be below."""


class Scene:
    """The scene in bytes, as one fold sees it.

    Args:
        bands: uint16 [dates, bands, rows, columns].
        land_use: uint8 [rows, columns].
        fold: of `FOLDS`.

    Attributes:
        pixels: uint8 [dates, bands, rows, columns]: mean +- 2 deviations of the clear dates' training rows are 0 to 255.
    """

    def __init__(self, bands: np.ndarray, land_use: np.ndarray, fold: str) -> None:
        self.learn, self.ask = FOLDS[fold]
        self.land_use = land_use
        clear = bands[list(CLEAR)][:, :, self.learn].astype(np.float64)
        mean, std = clear.mean((0, 2, 3)), clear.std((0, 2, 3))
        low, span = (mean - 2 * std)[:, None, None], (4 * std)[:, None, None]
        self.pixels = np.clip((bands - low) / span * 255, 0, 255).astype(np.uint8)
        margin = WINDOW // 2
        self._padded = np.pad(self.pixels, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="reflect")

    def pool(self) -> np.ndarray:
        """uint8 [n, bands, 32, 32]: every window that lies wholly in the rows to learn from, of every date."""
        rows = self.pixels[:, :, self.learn]
        windows = np.lib.stride_tricks.sliding_window_view(rows, (POOL_WINDOW, POOL_WINDOW), axis=(2, 3))  # [dates, bands, y, x, 32, 32]
        return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, rows.shape[1], POOL_WINDOW, POOL_WINDOW)

    def centres(self, rows: slice) -> list[np.ndarray]:
        """int64 [n, 2] for each class: (row, column) of its pixels in these rows."""
        found = [np.argwhere(self.land_use[rows] == number) for number in CLASSES]
        return [places + np.array([rows.start, 0]) for places in found]

    def windows(self, centres: np.ndarray, dates: np.ndarray) -> np.ndarray:
        """uint8 [n, bands, 16, 16]: rows r - 8 to r + 7 around (r, c), completed by reflection where they leave the scene."""
        return np.stack(
            [self._padded[date, :, row : row + WINDOW, column : column + WINDOW] for (row, column), date in zip(centres, dates, strict=True)]
        )

    def labelled(self, per_class: list[np.ndarray], dates: list[np.ndarray]) -> ImageData:
        """The windows around pixels of each class."""
        images = [self.windows(centres, of_class) for centres, of_class in zip(per_class, dates, strict=True)]
        labels = np.repeat(np.arange(len(CLASSES)), [len(part) for part in images])
        return ImageData(np.concatenate(images), labels, list(CLASSES.values()), "s2_slovenia")


class Fold:
    """What one fold teaches and asks.

    Args:
        per_class: labelled pixels of each class that a measurement learns from.
        dev: pixels of each class that are kept for choices.
        most: test pixels of a class, at most.
    """

    def __init__(self, scene: Scene, per_class: int, dev: int, most: int) -> None:
        self.scene, self.per_class = scene, per_class
        random = np.random.default_rng(0)
        shuffled = [random.permutation(places) for places in scene.centres(scene.learn)]
        kept = [min(dev, len(places) - per_class) for places in shuffled]  # fold 2 has 48 built-up pixels to learn from
        self.dev_centres = [places[:count] for places, count in zip(shuffled, kept, strict=True)]
        self.centres = [places[count:] for places, count in zip(shuffled, kept, strict=True)]
        asked = [random.permutation(places)[:most] for places in scene.centres(scene.ask)]
        self.scored = {"dev": self.on_clear_dates(self.dev_centres), "test": self.on_clear_dates(asked)}

    def on_clear_dates(self, centres: list[np.ndarray]) -> ImageData:
        """Every pixel at every clear date."""
        return self.scene.labelled(
            [np.repeat(places, len(CLEAR), axis=0) for places in centres], [np.tile(CLEAR, len(places)) for places in centres]
        )

    def draw(self, seed: int) -> ImageData:
        """Labelled pixels of each class, each at a clear date at random: the same for every arm."""
        random = np.random.default_rng([seed, self.per_class])
        chosen = [random.permutation(places)[: self.per_class] for places in self.centres]
        return self.scene.labelled(chosen, [random.choice(CLEAR, len(places)) for places in chosen])


def open_data(scale: Scale, folder: Path) -> Data:
    """A pool of windows for each fold, and the pixels that are asked for."""
    options = scale.options
    file = data_folder("satms", fixture=options.get("fixture", False)) / "s2_slovenia.npz"
    bands, land_use = read_scene(file)
    names = list(dict.fromkeys(arm.corpus for arm in scale.arms))
    scenes = {name: Scene(bands, land_use, name) for name in names}
    folds = {name: Fold(scene, options["per_class"], options["dev"], options["most"]) for name, scene in scenes.items()}
    return Data(
        facts={
            "name": "s2_slovenia",
            "source": "Sentinel-2 L1C and land use, from sentinel-hub/eo-learn (MIT); contains modified Copernicus Sentinel data",
            "train": {"windows": len(scenes[names[0]].pool()), "labels": len(CLASSES) * options["per_class"]},
            "test": {name: len(fold.scored["test"]) for name, fold in folds.items()},
            "split": "blocks of rows: 0-44 learn and 63-100 are asked; fold 2: 55-100 and 0-36. Three clear dates are asked, all five pre-trained on",
        },
        corpora={name: [write_pool(folder / f"{name}.npz", scene.pool())] for name, scene in scenes.items()},
        tasks=(land_use_task(folds, options),),
        files=(file,),
        anchors={"mean and deviation of 5 x 5 pixels under logistic regression, the same labels": neighbourhood_floors(folds, scale)},
    )


def read_scene(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint16 [dates, bands, rows, columns] and uint8 [rows, columns].

    Raises:
        BadInput: the file is not that scene.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            bands, land_use = arrays["bands"], arrays["lulc"]
    except (OSError, KeyError, *HEADER_ERRORS) as error:
        raise BadInput(f"cannot be read ({error}).", "Copy it again.", file=file) from error
    if bands.ndim != 4 or bands.shape[2:] != land_use.shape or bands.shape[1] != len(SENTINEL_BANDS):
        raise BadInput(f"holds bands {list(bands.shape)} and land use {list(land_use.shape)}.", "Copy it again.", file=file)
    return bands, land_use


def land_use_task(folds: Mapping[str, Fold], options: Mapping[str, Any]) -> Task:
    """Fine-tuning on few labelled pixels of the arm's own fold; balanced accuracy over the windows that are asked."""
    config = few_labels(options["finetune_steps"], crop_smallest=1.0, label_smoothing=0.1)

    def measure(use: Use) -> Score:
        fold = folds[use.model.arm.corpus]
        scored = fold.scored[use.split]
        return balanced(fine_tuned_logits(use, fold.draw(use.seed), scored, config).argmax(1), scored)

    return Task("land use", measure)


def balanced(guesses: np.ndarray, scored: ImageData) -> Score:
    """Mean over the classes of the share that was told."""
    share = 1.0 / np.bincount(scored.labels, minlength=len(scored.classes))[scored.labels]
    right = guesses == scored.labels
    only = np.unique(guesses)
    stuck = f"it says {scored.classes[only[0]]!r} for every window" if len(only) == 1 else None
    return Score(float((right * share).sum() / share.sum()), np.stack([right * share, share], 1), stuck)


def neighbourhood_floors(folds: Mapping[str, Fold], scale: Scale) -> dict[str, float]:
    """What mean and deviation of each band around a pixel give: an arm below that has learnt nothing of use."""
    floors = {}
    for name, fold in folds.items():
        asked, values = neighbourhoods(fold.scored["test"]), []
        for seed in range(scale.seeds):
            drawn = fold.draw(1000 * seed)
            logits = probed_logits(neighbourhoods(drawn), drawn.labels, asked)
            values.append(balanced(logits.argmax(1), fold.scored["test"]).value)
        floors[name] = float(np.mean(values))
    return floors


def neighbourhoods(data: ImageData) -> torch.Tensor:
    """float32 [n, 2 * bands]: of the 5 x 5 pixels around each centre."""
    middle = WINDOW // 2
    around = torch.from_numpy(data.images[:, :, middle - 2 : middle + 3, middle - 2 : middle + 3].astype(np.float32)).flatten(2)
    return torch.cat([around.mean(2), around.std(2, correction=0)], dim=1)


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether the budget was large enough: hidden tokens of windows of the other rows are drawn better than by every band's mean."""
    bands, land_use = read_scene(data.files[0])
    scene = Scene(bands, land_use, model.arm.corpus)
    asked = scene.pixels[:, :, scene.ask][..., :POOL_WINDOW, :]
    windows = np.concatenate([asked[..., x : x + POOL_WINDOW] for x in range(0, asked.shape[3] - POOL_WINDOW + 1, GUARD_STRIDE)])
    found = held_out_metrics(model, windows, device)
    loss, limit = found["held_out/pixel_loss"], BELOW_BLANK * found["held_out/blank_loss"]
    return [Guard("held-out pixel loss", loss, limit, loss < limit)]


_SMALL = {
    "preset": "tiny",
    "batch": 64,
    "precision": "fp32",
    "method.band_names": SENTINEL_BANDS,
    "method.groups": SENTINEL_GROUPS,
    "method.scaling": "byte",
    "method.group_width": 32,
    "method.crop_factor": 4,
    "method.crop_smallest": 0.25,
    "image.size": POOL_WINDOW,
    "image.mode": "bands",
    "image.held_out_share": 0.0,
    "image.duplicates": "keep",
}


def _arms(steps: int, fold: str = "train") -> tuple[Arm, ...]:
    """Those of one fold; `steps` are those that three scales get from the budget."""
    end = "" if fold == "train" else f"_{fold}"
    return (
        Arm(f"three_scale{end}", "satmaepp", {"method.scales": 3}, corpus=fold),
        Arm(f"two_scale{end}", "satmaepp", {"method.scales": 2}, corpus=fold),
        Arm(f"single_scale{end}", "satmaepp", {"method.scales": 1}, corpus=fold),
        Arm(
            f"single_scale_same_steps{end}",
            "satmaepp",
            {"method.scales": 1, "budget.flops": None, "budget.steps": steps},
            corpus=fold,
            unequal="as many steps as three scales: the paper compares equal epochs",
        ),
        Arm(f"scratch{end}", "satmaepp", trained=False, corpus=fold),
    )


def _comparisons(end: str = "") -> tuple[Comparison, ...]:
    return (
        Comparison(f"three_scale{end}", f"single_scale{end}", margin=0.01),
        Comparison(f"two_scale{end}", f"single_scale{end}", decides=False, margin=0.01),
        Comparison(f"three_scale{end}", f"single_scale_same_steps{end}", decides=False, margin=0.01),
        Comparison(f"single_scale{end}", f"scratch{end}", decides=False, margin=0.01),
    )


_OPTIONS = {"per_class": 40, "dev": 40, "most": 300, "finetune_steps": 200}

CLAIM = Claim(
    slug="satmaepp",
    statement="At equal training FLOPs, a vision transformer pre-trained by drawing multi-spectral images at three scales tells land use better than"
    " one pre-trained by drawing them at one.",
    paper=Paper(
        statement="SatMAE++ is ahead of SatMAE on multi-spectral and on optical data.",
        value="ViT-L, fMoW-Sentinel top-1: SatMAE++ 63.23, SatMAE 61.48; BigEarthNet mAP 85.11 against 82.62",
        where="README of the official code; abstract",
    ),
    metric="balanced test accuracy of land use after fine-tuning on 40 labelled pixels a class",
    comparisons=(*_comparisons(), *_comparisons("_fold_2")),
    presets={
        "smoke": Scale(
            arms=_arms(steps=10),
            seeds=1,
            learning_rates=(1e-3,),
            settings={**_SMALL, "batch": 16, "budget.flops": 2.8e10},
            options={"per_class": 5, "dev": 3, "most": 10, "finetune_steps": 3, "fixture": True},
        ),
        "cpu": Scale(
            arms=_arms(steps=276),
            seeds=3,
            learning_rates=(1e-3, 2e-3),
            settings={**_SMALL, "budget.flops": 3e12},
            options=_OPTIONS,
        ),
        "gpu": Scale(
            arms=(*_arms(steps=565), *_arms(steps=565, fold="fold_2")),
            seeds=5,
            learning_rates=(1e-3, 2e-3),
            settings={
                **_SMALL,
                "batch": 512,
                "precision": "bf16",
                "budget.flops": 1e14,
                "method.hidden_size": 192,
                "method.group_width": 64,
                "method.num_layers": 6,
                "method.num_heads": 6,
            },
            options={**_OPTIONS, "finetune_steps": 300},
        ),
    },
    open_data=open_data,
    guards=guards,
)
