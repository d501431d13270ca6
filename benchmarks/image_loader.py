"""Batches of decoded images from a store, against a folder of JPEG files decoded by torch's DataLoader, as torchvision's ImageFolder does.

Both give shuffled batches uint8 [batch, 3, size, size], files in the page cache; augmentation is left out of both. The peer's dataset decodes with
Pillow, resizes the shorter side and cuts the middle. It runs with its best number of workers.

python -m benchmarks.image_loader [--images 1500] [--size 128] [--batch 64] [--out benchmarks/results/image_loader.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.result import write_result
from headstart.data.image.config import ImageConfig, Storage
from headstart.data.image.rows import ImageRows
from headstart.data.image.store import prepare_images
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture


class Folder(torch.utils.data.Dataset[Any]):
    """Files of a folder, decoded one by one."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.rglob("*.jpg")), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        picture = Image.open(self.paths[index]).convert("RGB")
        scale = self.size / min(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
        left, top = (picture.width - self.size) // 2, (picture.height - self.size) // 2
        return torch.from_numpy(np.asarray(picture.crop((left, top, left + self.size, top + self.size))).transpose(2, 0, 1).copy())


def photographs(folder: Path, count: int) -> None:
    """`count` JPEG files of 500 x 375 pixels, as ImageNet's: smooth colours with fine grain, about 60 KB each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:375, 0:500]
    for number in range(count):
        waves = [128 + 90 * np.sin(x * a + y * b + c) for a, b, c in rng.uniform([0.005, 0.005, 0], [0.05, 0.05, 6], (3, 3))]
        pixels = np.stack(waves, -1) + rng.normal(0, 12, (375, 500, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=85)


def of_folder(folder: Path, size: int, batch: int, workers: int) -> Iterator[Any]:
    data = Folder(folder, size)
    while True:
        yield from torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True)


def of_store(data: Path, folder: Path, size: int, batch: int, storage: Storage) -> Iterator[Any]:
    store = prepare_images([data], folder, ImageConfig(size=size, storage=storage, held_out_share=0.0))
    loader = Loader(Mixture([ImageRows(store)], seed=0), batch)
    for step in range(10**9):
        yield loader.batch(step)


def images_per_second(make: Callable[[], Iterator[Any]], batch: int, seconds: float) -> float:
    """Median of three, after a warm-up."""
    batches = make()
    for _ in range(3):
        next(batches)
    rates = []
    for _ in range(3):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            count += 1
        rates.append(count * batch / (time.perf_counter() - start))
    batches.close()  # type: ignore[attr-defined]
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/image_loader.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name, "photos")
        photos.mkdir()
        photographs(photos, args.images)
        start = time.perf_counter()
        prepare_images([photos], Path(name, "decoded"), ImageConfig(size=args.size, held_out_share=0.0))
        preparing = args.images / (time.perf_counter() - start)
        ours = {
            storage: round(images_per_second(lambda s=storage: of_store(photos, Path(name, s), args.size, args.batch, s), args.batch, args.seconds))
            for storage in ("decoded", "encoded")
        }
        peer = {
            f"DataLoader over the folder, {workers} workers": round(
                images_per_second(lambda w=workers: of_folder(photos, args.size, args.batch, w), args.batch, args.seconds)
            )
            for workers in (0, 2, 4)
        }
    for way, rate in (ours | peer).items():
        print(f"{way}: {rate:,} images/s")
    write_result(
        args.out,
        name="image_loader",
        what=f"images/s: shuffled batches of {args.batch} images of {args.size} x {args.size} out of {args.images:,} JPEG files of 500 x 375",
        ours=ours,
        peer=peer,
        ratio=ours["decoded"] / max(peer.values()),
        must=10.0,
        command=f"python -m benchmarks.image_loader --images {args.images} --size {args.size} --batch {args.batch} --seconds {args.seconds:g}",
        preparing_images_per_second=round(preparing),
    )


if __name__ == "__main__":
    main()
