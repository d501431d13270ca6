"""DropPos (Wang et al., NeurIPS 2023, arXiv 2309.03576): does naming dropped positions give a better start than none, and one not worse than MAE's?

Chest radiographs of 28 x 28 (`xray28`): encoders pre-train on the images of the pool and are fine-tuned on 100 of its labels.

- Besides the labels' task the encoders are asked for left and right, which a fixed layout tells: is the image shown as it is, or mirrored?
- Guard: an arm that names positions must have left chance behind; one that draws pixels must be better than drawing none.
- Where this differs from the specification: rates are chosen by the whole budget with seed 0, as in every claim here, not by a quarter of it with
  another seed, and by the mean of both tasks; the second set (`mnist4k`, gpu) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._images import (
    draw_images,
    encoded,
    few_labels,
    fine_tuned_logits,
    flat_pixels,
    held_out_metrics,
    mirror_accuracy,
    pixel_auc,
    take_images,
    write_pool,
)
from headstart.core.run import read_run
from headstart.tasks.image_data import ImageData, image_metrics

MIRROR_IMAGES, MIRROR_C = 20, 0.1
"""Images that teach left and right, and the penalty of the regression: with 200 images raw pixels do nearly as well as anything."""
TIMES_CHANCE = 3.0
"""That held-out positions must be named right."""
BELOW_GREY = 0.98
"""Of the loss of a decoder that predicts 0, that MAE's must be below."""


def open_data(scale: Scale, folder: Path) -> Data:
    """The pool without labels; labelled images drawn anew for each seed and repeat; the test part for the end."""
    options = scale.options
    file = data_folder("xray28", fixture=options.get("fixture", False)) / "xray28.npz"
    pool, test = read_part(file, "train"), read_part(file, "test")
    order = np.random.default_rng(0).permutation(len(pool))
    dev, rest = (take_images(pool, np.sort(part)) for part in np.split(order, [options["dev"]]))
    scored = {"dev": dev, "test": test}
    return Data(
        facts={
            "name": "xray28",
            "source": "PneumoniaMNIST of MedMNIST v2 (Yang et al. 2023; Kermany et al. 2018)",
            "train": {"pool": len(pool), "labels": 2 * options["per_class"]},
            "test": len(test),
            "split": f"official test part; {len(dev)} images of the pool for choices, from which no labels are drawn",
        },
        corpora={"train": [write_pool(folder / "pool.npz", pool.images)]},
        tasks=(labelled_task(rest, scored, options), mirror_task(rest.images, scored, options)),
        files=(file,),
        anchors={"raw pixels under logistic regression, the same numbers of images": pixel_floors(rest, test, scale)},
    )


def read_part(file: Path, part: str) -> ImageData:
    """The training or test images with their labels."""
    with np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays[f"{part}_images"][:, None], arrays[f"{part}_labels"].astype(np.int64).ravel()
    return ImageData(images, labels, ["normal", "pneumonia"], str(file))


def labelled_task(pool: ImageData, scored: Mapping[str, ImageData], options: Mapping[str, Any]) -> Task:
    """Fine-tuning on few labels, drawn by seed and repeat, the same for every arm."""
    config = few_labels(options["finetune_steps"], crop_smallest=0.7, flip=0.0)

    def measure(use: Use) -> Score:
        logits = fine_tuned_logits(use, draw_images(pool, options["per_class"], use.seed), scored[use.split], config)
        return Score(image_metrics(logits, scored[use.split].labels)["auc"])

    return Task("labels", measure)


def mirror_task(pool: np.ndarray, scored: Mapping[str, ImageData], options: Mapping[str, Any]) -> Task:
    """Is it mirrored? A few images teach it, several draws of them."""

    def measure(use: Use) -> Score:
        features = partial(encoded, use.model.export, pool)
        return mirror_accuracy(features, pool, scored[use.split].images, MIRROR_IMAGES, options["mirror_draws"], MIRROR_C, use.seed)

    return Task("mirrored", measure)


def pixel_floors(pool: ImageData, test: ImageData, scale: Scale) -> dict[str, float]:
    """What the pixels alone give: an arm below that has learnt nothing of use."""
    draws = [draw_images(pool, scale.options["per_class"], 1000 * seed) for seed in range(scale.seeds)]
    mirrored = mirror_accuracy(flat_pixels, pool.images, test.images, MIRROR_IMAGES, scale.options["mirror_draws"], MIRROR_C, seed=0)
    return {"labels": float(np.mean([pixel_auc(drawn, test) for drawn in draws])), "mirrored": mirrored.value}


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether the budget was large enough, on the test images without their labels."""
    found = held_out_metrics(model, read_part(data.files[0], "test").images, device)
    if "held_out/pixel_loss" in found:
        loss, limit = found["held_out/pixel_loss"], BELOW_GREY * found["held_out/grey_loss"]
        return [Guard("held-out pixel loss", loss, limit, loss < limit)]
    sizes = read_run(model.folder)["config"]["method"]
    limit = TIMES_CHANCE / (sizes["image_size"] // sizes["patch_size"]) ** 2
    names = {"position_accuracy": "held-out position accuracy", "textured_accuracy": "that on patches of more than one colour"}
    return [Guard(what, found[f"held_out/{name}"], limit, found[f"held_out/{name}"] > limit) for name, what in names.items()]


_SMALL = {
    "preset": "tiny",
    "batch": 128,
    "precision": "fp32",
    "method.image_size": 28,
    "method.patch_size": 4,
    "method.crop_smallest": 0.5,
    "method.flip": 0.0,
    "image.size": 28,
    "image.held_out_share": 0.0,
}
_ARMS = (
    Arm("droppos", "droppos"),
    Arm("mae", "mae"),
    Arm("droppos_plain", "droppos", {"method.sigma": 0.0, "method.attentive": False}),
    Arm("scratch", "droppos", trained=False),
)
_OPTIONS = {"per_class": 50, "dev": 200, "finetune_steps": 190, "mirror_draws": 5}

CLAIM = Claim(
    slug="droppos",
    statement="At equal training FLOPs, pre-training by naming dropped positions gives a vision transformer that fine-tunes better than a random"
    " start and not worse than MAE.",
    paper=Paper(
        statement="DropPos is ahead of MAE at the same number of epochs, most of all on detection and segmentation.",
        value="ViT-B/16, ImageNet-1k: DropPos 84.2 at 800 epochs; MAE 83.6 at 1,600",
        where="README of the official code",
    ),
    metric="test AUC after fine-tuning on 100 labels; beside it the accuracy of telling mirrored images",
    comparisons=(
        Comparison("droppos", "scratch", margin=0.005, tasks=("labels",)),
        Comparison("droppos", "mae", margin=0.01, claimed="not worse", tasks=("labels",)),
        Comparison("droppos", "mae", decides=False, margin=0.02, tasks=("mirrored",)),
        Comparison("droppos", "droppos_plain", decides=False, tasks=("labels",)),
        Comparison("mae", "scratch", decides=False, margin=0.005, tasks=("labels",)),
    ),
    presets={
        "smoke": Scale(
            arms=_ARMS,
            seeds=1,
            learning_rates=(1e-3,),
            settings={**_SMALL, "batch": 32, "budget.flops": 2e10},
            options={"per_class": 8, "dev": 30, "finetune_steps": 5, "mirror_draws": 1, "fixture": True},
        ),
        "cpu": Scale(
            arms=_ARMS,
            seeds=3,
            learning_rates=(5e-4, 1e-3),
            settings={**_SMALL, "budget.flops": 5e12},
            repeats=3,
            options=_OPTIONS,
        ),
        "gpu": Scale(
            arms=_ARMS,
            seeds=5,
            learning_rates=(5e-4, 1e-3),
            settings={
                **_SMALL,
                "batch": 512,
                "precision": "bf16",
                "budget.flops": 1.5e14,
                "method.hidden_size": 192,
                "method.num_layers": 8,
            },
            repeats=3,
            options={**_OPTIONS, "finetune_steps": 300},
        ),
    },
    open_data=open_data,
    guards=guards,
)
