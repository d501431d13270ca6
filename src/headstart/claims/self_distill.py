"""Self-distillation for further pre-training (Lee et al., ICLR 2023, arXiv 2210.02871): is it better than plain further pre-training at equal FLOPs?

An initial MAE on grey crops of 13 photographs (`phototex`), the same for all arms and seeds; further pre-training on all chest radiographs of
`xray28`, without labels; fine-tuning on 200 of them.

- Gate: fine-tuning the initial model must be better than fine-tuning random weights. Where it is not, there is nothing to keep, and the arms cannot
  differ for the paper's reason.
- `fpt_long` has the FLOPs of teacher and student together (the teacher's features computed in every step); `fpt` the steps of one stage: their
  difference says whether longer further pre-training overfits.
- Guards: the initial model's pixels beat drawing none, and the student ends nearer to its teacher than it began.
- Where this differs from the specification: the photographs' crops are drawn once, 100,000 (gpu 300,000), each seen three times under other masks;
  both strengths of the pull of the weights are shown, instead of one that was chosen; the second claim, on texts, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.claims._images import draw_images, held_out_metrics, pixel_auc, take_images, write_pool
from headstart.claims.droppos import read_part
from headstart.core.errors import BadInput, MissingDependency
from headstart.core.files import atomic_write
from headstart.core.run import read_lines
from headstart.tasks.image_classification import build, train_classifier
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData, image_metrics
from headstart.tasks.image_network import predict

SIDE = 28
SMALLEST, LARGEST = 0.1, 1.0
"""Sides of a photograph's crop, as shares of its short side."""
DEV_SEED = 100
BELOW_GREY = 0.98
"""Of the loss of a decoder that predicts 0, that MAE's must be below."""
RATES = (3e-4, 1e-3)
"""Of fine-tuning; each arm takes its best on dev."""


def open_data(scale: Scale, folder: Path) -> Data:
    """Crops of photographs to begin with, the radiographs without labels, and labelled draws of them."""
    options = scale.options
    file = data_folder("xray28", fixture=options.get("fixture", False)) / "xray28.npz"
    photos = sorted(data_folder("phototex", fixture=options.get("fixture", False)).glob("*.jpg"))
    pool, test = read_part(file, "train"), read_part(file, "test")
    order = np.random.default_rng(DEV_SEED).permutation(len(pool))
    dev, rest = (take_images(pool, np.sort(part)) for part in np.split(order, [options["dev"]]))
    scored = {"dev": dev, "test": test}
    return Data(
        facts={
            "name": "xray28",
            "source": "PneumoniaMNIST of MedMNIST v2 (Yang et al. 2023; Kermany et al. 2018); photographs of scikit-image and scikit-learn",
            "train": {"crops of photographs": options["crops"], "pool": len(pool), "labels": 2 * options["per_class"]},
            "test": len(test),
            "split": f"official test part; {len(dev)} images of the pool for choices, from which no labels are drawn",
        },
        corpora={
            "photos": [kept_crops(folder / f"photos-{options['crops']}.npz", photos, options["crops"])],
            "train": [write_pool(folder / "pool.npz", pool.images)],
        },
        tasks=labelled_tasks(pool, rest, scored, options),
        files=(file, *photos),
        leaks=leaks(pool, test),
        anchors={"raw pixels under logistic regression, the same numbers of images": pixel_floor(rest, test, scale)},
    )


def leaks(pool: ImageData, test: ImageData) -> tuple[str, ...]:
    """Test images that stand in the pool too."""
    seen = set(pool.contents())
    shared = sum(content in seen for content in test.contents())
    return (f"{shared:,} of {len(test):,} test images stand in the pool.",) if shared else ()


def kept_crops(path: Path, photos: list[Path], count: int) -> Path:
    """A .npz of the crops; made once, since drawing them takes half a minute."""
    if not path.exists():
        crops = photo_crops(photos, count)
        with atomic_write(path) as file:
            np.savez(file, images=crops)
    return path


def photo_crops(photos: list[Path], count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 1, 28, 28]: grey squares of random photographs, anywhere, of a tenth to all of the short side, half of them mirrored.

    Raises:
        BadInput: no photographs. MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependency("pillow", "image", "Cutting photographs") from None
    if not photos:
        raise BadInput("there is no photograph.", "Set HEADSTART_DATA to the folder that holds phototex.")
    grey = [Image.open(photo).convert("L") for photo in photos]  # .299 R + .587 G + .114 B
    random = np.random.default_rng(seed)
    which, mirrored = random.integers(len(grey), size=count), random.random(count) < 0.5
    shares, across, down = random.uniform(SMALLEST, LARGEST, count), random.random(count), random.random(count)
    crops = np.empty((count, 1, SIDE, SIDE), np.uint8)
    for i in range(count):
        photo = grey[which[i]]
        side = shares[i] * min(photo.size)
        left, top = across[i] * (photo.width - side), down[i] * (photo.height - side)
        crop = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)))
        crops[i, 0] = crop[:, ::-1] if mirrored[i] else crop
    return crops


def labelled_tasks(pool: ImageData, rest: ImageData, scored: Mapping[str, ImageData], options: Mapping[str, Any]) -> tuple[Task, ...]:
    """Fine-tuning on few labels, drawn by seed and repeat, the same for every arm: AUC, and of the same trainings balanced accuracy."""
    values = pool.images.astype(np.float64)
    mean, std = (torch.tensor(found, dtype=torch.float32) for found in (values.mean((0, 2, 3)), values.std((0, 2, 3))))

    @lru_cache(maxsize=8)
    def logits(export: Path, split: str, rate: float, seed: int, device: str) -> np.ndarray:
        config, labelled = recipe(options["finetune_steps"]), draw_images(rest, options["per_class"], seed)
        network = build(export, config, labelled, mean, std, seed)
        train_classifier(network, labelled, config, rate, seed, torch.device(device))
        return predict(network, scored[split].images, config, torch.device(device))

    def measure(metric: str) -> Callable[[Use], Score]:
        def of_use(use: Use) -> Score:
            found = logits(use.model.export, use.split, use.setting, use.seed, use.device)
            return Score(image_metrics(found, scored[use.split].labels)[metric])

        return of_use

    return tuple(Task(metric, measure(metric), RATES) for metric in ("auc", "balanced_accuracy"))


def recipe(steps: int) -> ImageFinetuneConfig:
    """The paper's fine-tuning: every weight at one rate, class token, hidden dropout, linear schedule; norms decay."""
    return ImageFinetuneConfig(
        steps=steps,
        batch=32,
        weight_decay=0.01,
        decay_norms=True,
        layer_decay=1.0,
        clip_norm=1.0,
        schedule="linear",
        warmup_share=0.05,
        minimum_share=0.0,
        pooling="class",
        head_deviation=0.02,
        dropout=0.1,
        crop_smallest=0.7,
        flip=0.0,
    )


def pixel_floor(pool: ImageData, test: ImageData, scale: Scale) -> float:
    """AUC of what the pixels alone give."""
    return float(np.mean([pixel_auc(draw_images(pool, scale.options["per_class"], 1000 * seed), test) for seed in range(scale.seeds)]))


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether the networks learnt to draw, and whether the student came to its teacher."""
    found = held_out_metrics(model, read_part(data.files[0], "test").images, device)
    loss, limit = found["held_out/pixel_loss"], BELOW_GREY * found["held_out/grey_loss"]
    drawn = [Guard("held-out pixel loss", loss, limit, loss < limit)]
    distances = [line["distance"] for line in read_lines(model.folder / "metrics.jsonl") if "distance" in line]
    if not distances:
        return drawn
    return [*drawn, Guard("student's distance from its teacher at the end", distances[-1], distances[0], distances[-1] < distances[0])]


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The curve of plain further pre-training over its steps, of each metric for itself."""
    curve = [name for name in ("finetune", "fpt_half", "fpt", "fpt_double", "fpt_long") if name in figures]
    return [
        f"{words} over the steps of plain further pre-training, from none to those of equal FLOPs:"
        f" {', '.join(f'{name} {figures[name][task]:.4f}' for name in curve)}."
        for task, words in (("auc", "AUC"), ("balanced_accuracy", "Balanced accuracy"))
        if curve
    ]


_SMALL = {
    "preset": "tiny",
    "batch": 64,
    "precision": "fp32",
    "method.image_size": SIDE,
    "method.patch_size": 4,
    "method.crop_smallest": 1.0,
    "method.flip": 0.0,
    "image.size": SIDE,
    "image.held_out_share": 0.0,
    "image.duplicates": "keep",
    "optimizer.weight_decay": 0.01,
    "schedule.name": "linear",
    "schedule.warmup_share": 0.0,
}


def _arms(initial: Mapping[str, Any], steps: int, curve: bool = False, pulls: tuple[float, ...] = ()) -> tuple[Arm, ...]:
    """All arms.

    Args:
        initial: what the pre-training of the common start has of its own: batch and budget.
        steps: of one stage.
        curve: also half and twice the steps of plain further pre-training.
        pulls: strengths of the pull of the weights towards the start.
    """
    begin = Arm(
        "initial",
        "mae",
        {"optimizer.weight_decay": 0.05, "schedule.name": "cosine", "schedule.warmup_share": 0.1, **initial},
        corpus="photos",
        seeds=1,
        learning_rate=1e-3,
    )

    def plain(name: str, n: int) -> Arm:
        why = f"{n} steps: a point of the curve over the steps"
        return Arm(name, "mae", {"budget.flops": None, "budget.steps": n}, start=begin, unequal=why)

    distilled = {"self_distill.rounds": 1, "self_distill.features": "online"}
    pulled = {"self_distill.rounds": 1, "self_distill.teacher": "initial", "self_distill.weight": 0.0}
    return (
        Arm("scratch", "mae", trained=False),
        Arm("finetune", "mae", trained=False, start=begin),
        *((plain("fpt_half", steps // 2),) if curve else ()),
        plain("fpt", steps),
        *((plain("fpt_double", 2 * steps),) if curve else ()),
        Arm("fpt_long", "mae", start=begin),
        Arm("self_distill", "mae", distilled, start=begin),
        *(Arm(f"fpt_pull_{pull:g}", "mae", {**pulled, "self_distill.pull_weight": pull}, start=begin) for pull in pulls),
    )


_PULLS = (1e-3, 1e-2)
_OPTIONS = {"per_class": 100, "dev": 200}

CLAIM = Claim(
    slug="self_distill",
    statement="From the same initial model and at equal total FLOPs, self-distilled further pre-training fine-tunes better than plain further"
    " pre-training.",
    paper=Paper(
        statement="Self-distillation is ahead of further pre-training and of fine-tuning at once on images and texts; longer further pre-training"
        " of a vision transformer overfits.",
        value="not read from the paper here; the chest X-ray set is one of its six sets of images",
        where="abstract; figure on the steps of further pre-training",
    ),
    metric="test AUC after fine-tuning on 200 labels",
    comparisons=(
        Comparison("finetune", "scratch", decides=False, tasks=("auc",), gate="weak initial model: it fine-tunes no better than random weights"),
        Comparison("self_distill", "fpt_long", margin=0.005, tasks=("auc",)),
        Comparison("self_distill", "fpt", decides=False, margin=0.005, tasks=("auc",)),
        Comparison("self_distill", "finetune", decides=False, margin=0.005, tasks=("auc",)),
        *(Comparison("self_distill", f"fpt_pull_{pull:g}", decides=False, margin=0.005, tasks=("auc",)) for pull in _PULLS),
        Comparison(
            "fpt",
            "fpt_long",
            decides=False,
            tasks=("auc",),
            meaning={
                "reproduced": "longer further pre-training overfits: its AUC is lower",
                "not reproduced": "no overfitting seen at this scale",
                "inconclusive": "whether longer further pre-training overfits is not told by these seeds",
            },
        ),
        Comparison("self_distill", "fpt_long", decides=False, margin=0.01, tasks=("balanced_accuracy",)),
    ),
    presets={
        "smoke": Scale(
            arms=_arms({"budget.flops": 4.5e10, "batch": 32}, steps=5),
            seeds=1,
            learning_rates=(5e-4,),
            settings={**_SMALL, "batch": 16, "budget.flops": 2.7e10},
            options={"per_class": 8, "dev": 30, "finetune_steps": 5, "crops": 300, "fixture": True},
        ),
        "cpu": Scale(
            arms=_arms({"budget.flops": 2e13, "batch": 128}, steps=200),
            seeds=3,
            learning_rates=(5e-4,),
            settings={**_SMALL, "budget.flops": 4.244e12},
            repeats=2,
            options={**_OPTIONS, "finetune_steps": 190, "crops": 100_000},
        ),
        "gpu": Scale(
            arms=_arms({"budget.flops": 3e14, "batch": 512}, steps=200, curve=True, pulls=_PULLS),
            seeds=5,
            learning_rates=(5e-4,),
            settings={
                **_SMALL,
                "batch": 256,
                "precision": "bf16",
                "budget.flops": 1.0785e14,
                "method.hidden_size": 192,
                "method.num_layers": 8,
                "method.num_heads": 6,
            },
            repeats=2,
            options={**_OPTIONS, "finetune_steps": 300, "crops": 300_000},
        ),
    },
    open_data=open_data,
    guards=guards,
    remarks=remarks,
)
