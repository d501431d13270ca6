"""Images a second through the augmentation of pre-training, against kornia's: the same batch, crop, flip and normalisation.

python -m benchmarks.augment [--rounds 7] [--device cpu] [--out benchmarks/results/augment-cpu.json]

kornia (0.9) is a tool of this benchmark alone. Keep it apart, in a folder of its own:

    pip install --no-deps --target peers kornia kornia_rs
    PYTHONPATH=src:peers python -m benchmarks.augment

Both sides are in this process and take turns, on as many threads as torch takes. Of kornia's two ways to crop (`slice`: each image by itself;
`resample`: all at once) the faster one counts, and it gets the batch as floats, while ours begins with the store's bytes. The filters are not the
same: ours has Pillow's antialiasing, which kornia's crops have not; `off_pillow` is how far a whole image that is halved is from what Pillow makes of
it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.core.rng import Rng
from headstart.data.image.augment import normalize, random_resized_crop_flip, resize

SHAPES = ((128, 32, 32), (128, 128, 128), (32, 256, 224))
"""(images, stored side, seen side): preset tiny, tiny on photographs, the paper's presets."""
SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
MUST, AIM = 1.0, 2.0


def images(count: int, side: int) -> Tensor:
    """uint8 [count, 3, side, side], smooth with some noise, as photographs are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side]
    waves = [128 + 80 * np.sin(x * a + y * b + c) for a, b, c in rng.uniform([0.02, 0.02, 0], [0.4, 0.4, 6], (count * 3, 3))]
    noisy = np.stack(waves).reshape(count, 3, side, side) + rng.normal(0, 15, (count, 3, side, side))
    return torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8))


def ours(batch: Tensor, size: int) -> Callable[[], Tensor]:
    mean, std = torch.full((3,), 127.5, device=batch.device), torch.full((3,), 64.0, device=batch.device)
    rows = torch.arange(len(batch), device=batch.device)
    step = 0

    def augment() -> Tensor:
        nonlocal step
        step += 1
        return normalize(random_resized_crop_flip(batch, Rng.at(0, step, rows), size, SCALE, RATIO), mean, std)

    return augment


def peer(batch: Tensor, size: int, way: str) -> Callable[[], Tensor]:
    import kornia.augmentation as K

    crop = K.RandomResizedCrop((size, size), scale=SCALE, ratio=RATIO, resample="bicubic", cropping_mode=way)
    normalise = K.Normalize(mean=torch.full((3,), 127.5), std=torch.full((3,), 64.0))
    chain = K.AugmentationSequential(crop, K.RandomHorizontalFlip(p=0.5), normalise).to(batch.device)
    floats = batch.float()
    return lambda: chain(floats)


def speed(augment: Callable[[], Tensor], count: int, seconds: float, device: torch.device) -> Callable[[], float]:
    """Measures images a second for a moment."""

    def measure() -> float:
        done, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds or done < 2:
            augment()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            done += 1
        return done * count / passed

    return measure


def off_pillow(batch: Tensor) -> dict[str, float]:
    """Root mean square, in grey levels, by which the first image at half its size differs from Pillow's bicubic."""
    import kornia.geometry.transform as K

    half = batch.shape[-1] // 2
    wanted = np.asarray(Image.fromarray(batch[0].permute(1, 2, 0).numpy()).resize((half, half), Image.Resampling.BICUBIC)).astype(np.float32)
    box = torch.tensor([[[0, 0], [2 * half - 1, 0], [2 * half - 1, 2 * half - 1], [0, 2 * half - 1]]], dtype=torch.float32)
    made = {"ours": resize(batch[:1], half), "kornia": K.crop_and_resize(batch[:1].float(), box, (half, half), mode="bicubic")}
    return {side: round(float(np.sqrt(np.square(found[0].permute(1, 2, 0).numpy() - wanted).mean())), 2) for side, found in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows = []
    for count, side, size in SHAPES:
        batch = images(count, side)
        off = off_pillow(batch)
        batch = batch.to(device)
        ways = {"ours": ours(batch, size), "slice": peer(batch, size, "slice"), "resample": peer(batch, size, "resample")}
        for augment in ways.values():
            augment()
        found = in_turns({name: speed(augment, count, arguments.seconds, device) for name, augment in ways.items()}, arguments.rounds)
        medians = {name: round(sorted(values)[len(values) // 2], 1) for name, values in found.items()}
        faster = max(("slice", "resample"), key=lambda name: medians[name])
        ratio = round(median_ratio(found["ours"], found[faster]), 2)
        rows.append({"images": count, "stored": side, "seen": size, "ratio": ratio, "way": faster, "images_per_second": medians, "off_pillow": off})
        print(rows[-1], flush=True)
    least = min(rows, key=lambda row: row["ratio"])
    write_result(
        arguments.out or Path(f"benchmarks/results/augment-{device.type}.json"),
        name=f"augment-{device.type}",
        what="images/s of random resized crop, flip and normalisation;"
        f" the smallest ratio of {len(rows)}: {least['stored']} to {least['seen']} pixels",
        ours={"images_per_second": least["images_per_second"]["ours"]},
        peer={"images_per_second": least["images_per_second"][least["way"]], "library": f"kornia {version('kornia')}", "way": least["way"]},
        ratio=least["ratio"],
        must=MUST,
        aim=AIM,
        command=f"python -m benchmarks.augment --rounds {arguments.rounds}" + ("" if device.type == "cpu" else f" --device {device.type}"),
        rows=rows,
    )


if __name__ == "__main__":
    main()
