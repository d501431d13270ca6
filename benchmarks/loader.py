"""Which loader for fixed-length rows of token ids: ours (a gather from a memory map), torch's DataLoader over Arrow, or grain?

All give shuffled batches of the same rows as int64 tensors, from files in the page cache. Measured: tokens a second, and the seconds from nothing
to the batch of a step in the middle of the third epoch, which is what a resumed run waits for. Every peer runs with its best number of workers.

python -m benchmarks.loader [--rows 300000] [--length 128] [--batch 256] [--out benchmarks/results/loader.json]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.parts import IdRows
from benchmarks.result import write_result
from headstart.data.loader import Loader, Prefetcher
from headstart.data.mixture import Mixture


class ArrowRows(torch.utils.data.Dataset[Any]):
    """An Arrow file as Hugging Face datasets keeps it: memory-mapped, rows taken a batch at a time."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.column: Any = None

    def __len__(self) -> int:
        return len(self._column())

    def _column(self) -> Any:
        if self.column is None:  # opened in each worker
            with pa.memory_map(self.path) as source:
                self.column = pa.ipc.open_file(source).read_all().column("input_ids").chunk(0)
        return self.column

    def __getitems__(self, indices: list[int]) -> Any:
        taken = self._column().take(pa.array(indices))
        return torch.from_numpy(taken.flatten().to_numpy().reshape(len(indices), -1).astype(np.int64))


def ours(path: Path, batch: int, seed: int, skip: int) -> Iterator[Any]:
    loader = Loader(Mixture([IdRows(np.load(path, mmap_mode="r"))], seed=seed), batch)
    for step in range(skip, 10**9):
        yield loader.batch(step)


def ours_ahead(path: Path, batch: int, seed: int, skip: int) -> Iterator[Any]:
    loader = Loader(Mixture([IdRows(np.load(path, mmap_mode="r"))], seed=seed), batch)
    prefetcher = Prefetcher(loader.batch, skip, 10**9)
    try:
        yield from prefetcher
    finally:
        prefetcher.close()


def torch_arrow(path: Path, batch: int, seed: int, skip: int, workers: int) -> Iterator[Any]:
    """DataLoader has no position: to continue, the sampler is run to it (what accelerate's skip_first_batches does)."""
    rows = ArrowRows(path)
    steps = len(rows) // batch
    generator = torch.Generator().manual_seed(seed)
    first, rest = divmod(skip, steps)
    for epoch in range(10**9):
        sampler = torch.utils.data.RandomSampler(rows, generator=generator)
        batches: Any = torch.utils.data.BatchSampler(sampler, batch, drop_last=True)
        if epoch < first:
            next(iter(batches))
            continue
        batches = list(islice(batches, rest, None)) if epoch == first else batches
        yield from torch.utils.data.DataLoader(rows, batch_sampler=batches, num_workers=workers, collate_fn=identity)


def identity(value: Any) -> Any:
    return value


def grain_memmap(path: Path, batch: int, seed: int, skip: int, workers: int) -> Iterator[Any]:
    """MapDataset with its own shuffle; the position is set, as its checkpoints do."""
    import grain

    rows = np.load(path, mmap_mode="r")
    data = grain.MapDataset.source(rows).seed(seed).shuffle().repeat().batch(batch)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=4 * workers)
    iterator = iter(data.to_iter_dataset(options))
    if skip:
        iterator.set_state(iterator.get_state() | {"next_index": skip})
    for ids in iterator:
        yield torch.from_numpy(ids.astype(np.int64))


def tokens_per_second(make: Callable[[int], Iterator[Any]], tokens: int, seconds: float = 3.0) -> float:
    """Median of three runs of some seconds each, after a warm-up."""
    rates = []
    for _ in range(3):
        batches = make(0)
        for _ in range(10):
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            count += 1
        rates.append(count * tokens / (time.perf_counter() - start))
        batches.close()  # type: ignore[attr-defined]
        gc.collect()
    return statistics.median(rates)


def seconds_to_resume(make: Callable[[int], Iterator[Any]], step: int) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        batches = make(step)
        next(batches)
        times.append(time.perf_counter() - start)
        batches.close()  # type: ignore[attr-defined]
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loader.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    step = int(2.5 * args.rows / args.batch)
    with tempfile.TemporaryDirectory() as folder:
        memmap, arrow = Path(folder, "ids.npy"), Path(folder, "ids.arrow")
        ids = np.random.default_rng(0).integers(0, 30_000, (args.rows, args.length)).astype(np.uint16)
        np.save(memmap, ids)
        table = pa.table({"input_ids": pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), args.length)})
        with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        ways: dict[str, Callable[[int], Iterator[Any]]] = {"ours": lambda skip: ours(memmap, args.batch, 0, skip)}
        ways["ours, prefetched by a thread"] = lambda skip: ours_ahead(memmap, args.batch, 0, skip)
        for workers in (0, 1, 2):
            ways[f"torch DataLoader over Arrow, {workers} workers"] = lambda skip, workers=workers: torch_arrow(arrow, args.batch, 0, skip, workers)
        for workers in (1, 2, 8):
            ways[f"grain over a memory map, {workers} threads"] = lambda skip, workers=workers: grain_memmap(memmap, args.batch, 0, skip, workers)
        figures = {}
        for name, make in ways.items():
            rate = tokens_per_second(make, args.batch * args.length)
            figures[name] = {"tokens_per_second": round(rate), "resume_s": round(seconds_to_resume(make, step), 4)}
            print(f"{name}: {rate / 1e6:.1f} M tokens/s, {figures[name]['resume_s']:.4f} s to step {step}", flush=True)
    mine = {"plain": figures.pop("ours"), "prefetched by a thread": figures.pop("ours, prefetched by a thread")}
    best = max(figure["tokens_per_second"] for figure in figures.values())
    write_result(
        args.out,
        name="loader",
        what=f"shuffled batches of {args.batch} rows of {args.length} tokens out of {args.rows:,}; resume_s: to the first batch of step {step}",
        ours=mine,
        peer=figures,
        ratio=mine["plain"]["tokens_per_second"] / best,
        must=1.0,
        command=f"python -m benchmarks.loader --rows {args.rows} --length {args.length} --batch {args.batch}",
    )


if __name__ == "__main__":
    main()
