"""Curation, stage by stage and beside datatrove: pages and MB a second of one core, memory as the input grows, and what a month of crawl costs.

The input is a crawl that is made here: 16 WARC files of variants of the shared pages (`data/webmath`), each with a share of its words drawn anew,
every tenth one a near-copy of the page before.

Each stage: `headstart curate webmath` with everything switched on and one worker tells the seconds of its stages, the whole-corpus questions among
them. It is run over 1, 4 and all 16 files: the peak of its largest process (VmHWM) at each size is stated, the rates are those of the largest. The
classifiers have the paper's vectors and n-grams (256, trigrams), with 100,000 buckets instead of two million: as many rows are read for a page.

Beside datatrove, the same work on the same files, on one core, file by file in turns:

    reading     WARC to HTML with its characters         datatrove's WarcReader (warcio)
    extraction  HTML to plain text                       datatrove's Trafilatura (its process with a time limit, as ours has one)
    MinHash     signatures, buckets, components, filter  datatrove's four blocks, 14 x 8, 64-bit sha1, the same texts; all files at once

CPU seconds would hide what processes of their own cost, so seconds of the clock on a quiet machine are taken. 20,000 pages take about 25 minutes,
14 of them datatrove's.

The peer: pip install -c constraints.txt -e '.[bench-curate]'

python -m benchmarks.curate [--pages 20000] [--out benchmarks/results/curate.json]
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.parts import median_ratio
from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.core import hardware
from headstart.curate.config import NearConfig, PrefilterConfig, ReadConfig
from headstart.curate.passes import BETWEEN
from headstart.curate.sources import read_source
from headstart.curate.tables import DOCUMENTS

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
FILES = 16
SIZES = {"1x": 1, "4x": 4, "16x": FILES}
"""Files of each size of the input."""
CRAWL = {"name": "CC-MAIN-2023-50", "pages": 3.35e9, "megabytes": 454 * 2**40 / 1e6}
"""A month's crawl as Common Crawl announces it."""
PAPER = {"extract": 57.2, "signatures": 9.5, "urls": 5.4, "rules": 3.9, "precision": 3.8, "decontaminate": 0.024, BETWEEN: 9.5}
"""Of 122 billion pages of a crawl how many came to a stage in the paper (webmath, table of stages), in billions; to a stage that is not named came as
many as to the one before it."""
PEERS = ("headstart", "datatrove")
NEAR = 10
"""One page in so many is a near-copy of the one before."""
ITEMS = 1000
"""Test items that documents are compared with, of 30 words."""


def shared_pages() -> list[dict[str, Any]]:
    """The shared pages: html, url, math ..."""
    data = pa.input_stream(str(data_folder("webmath") / "pages.jsonl.zst"), compression="zstd").read()
    return [json.loads(line) for line in data.decode().splitlines()]


def variant(html: str, random_: random.Random, share: float = 0.3) -> str:
    """The page with a share of its words behind tags drawn anew from itself: as long, with the same markup, and no near-duplicate."""
    pieces = html.split(">")
    for place in range(1, len(pieces)):
        text, open_, tag = pieces[place].partition("<")
        words = text.split(" ")
        if len(words) > 3:
            for i in range(len(words)):
                if random_.random() < share:
                    words[i] = words[random_.randrange(len(words))][::-1]
            pieces[place] = " ".join(words) + open_ + tag
    return ">".join(pieces)


def write_crawl(folder: Path, originals: Sequence[str], pages: int, files: int = FILES) -> list[Path]:
    """WARC files of variants, each of as many pages; each record a gzip member, as a crawl has them. A file depends on its number alone."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_write_file, range(files), repeat(folder), repeat(originals), repeat(pages // files)))


def _write_file(number: int, folder: Path, originals: Sequence[str], pages: int) -> Path:
    path, random_, html = folder / f"CC-MAIN-2023-50-{number:05d}.warc.gz", random.Random(number), ""
    with path.open("wb") as file:
        for place in range(pages):
            near = place % NEAR == NEAR - 1
            html = html.replace("</body>", f"<p>Copy {place}.</p></body>") if near else variant(random_.choice(originals), random_)
            file.write(gzip.compress(_record(number * pages + place, html.encode()), 6, mtime=0))
    return path


def _record(number: int, html: bytes) -> bytes:
    block = HEADER + html
    fields = (
        "WARC/1.0", "WARC-Type: response", f"WARC-Record-ID: <urn:uuid:{number:032d}>", "WARC-Date: 2023-12-01T00:00:00Z",
        f"WARC-Target-URI: https://site{number % 97}.example.org/{number}", "WARC-Identified-Payload-Type: text/html",
        f"Content-Length: {len(block)}",
    )  # fmt: skip
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


T = TypeVar("T")


def timed(work: Callable[..., T], *given: Any) -> tuple[T, float]:
    """What it gives, and its seconds."""
    started = time.perf_counter()
    return work(*given), time.perf_counter() - started


def drained(rows: Iterable[Any]) -> None:
    """Reads to the end and keeps nothing, as the next stage would."""
    deque(rows, maxlen=0)


# ours


def our_reading(file: Path, shard: int = 0) -> Iterator[pa.Table]:
    from headstart.curate.pages import prefilter

    return map(prefilter(PrefilterConfig(min_bytes=0)), read_source(str(file), shard, ReadConfig()))


def our_extraction(tables: Sequence[pa.Table]) -> list[pa.Table]:
    from headstart.curate.extract import ExtractConfig
    from headstart.curate.extract.timed import TimedExtractor
    from headstart.curate.pages import extraction

    config = ExtractConfig(math=False, images=False)
    with TimedExtractor(config) as extractor:
        return [extraction(config, extractor)(table) for table in tables]


def our_minhash(documents: pa.Table, folder: Path) -> int:
    """Signatures to Parquet, duplicates by Daft, the documents that stay to Parquet, as the pipeline does it; how many stay."""
    from headstart.curate import engine
    from headstart.curate.duplicates import near_duplicates, removed, signed

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "signed.parquet"
    with pq.ParquetWriter(file, signed(documents.slice(0, 1)).schema, compression="zstd") as writer:
        for start in range(0, documents.num_rows, 256):
            writer.write_table(signed(documents.slice(start, 256)))
    stage = removed(near_duplicates(engine.documents([file]), NearConfig()))
    kept = 0
    with pq.ParquetFile(file) as source, pq.ParquetWriter(folder / "kept.parquet", documents.schema, compression="zstd") as writer:
        for batch in source.iter_batches(256, columns=documents.schema.names):
            table = stage(pa.Table.from_batches([batch]))
            table = table.filter(pc.is_null(table["dropped"]))
            kept += table.num_rows
            writer.write_table(table)
    return kept


# datatrove's


def their_reading(file: Path) -> Iterator[Any]:
    from datatrove.pipeline.readers import WarcReader

    return iter(WarcReader(str(file.parent), glob_pattern=file.name).run())


def their_extraction(documents: Sequence[Any]) -> list[Any]:
    from datatrove.pipeline.extractors import Trafilatura

    return list(Trafilatura(favour_precision=False, timeout=10).run(iter(documents)))


def their_minhash(documents: Sequence[Any], folder: Path) -> int:
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    shutil.rmtree(folder, ignore_errors=True)
    signatures, buckets, remove = (str(folder / name) for name in ("signatures", "buckets", "remove"))
    config = MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="sha1"), n_grams=5, num_buckets=14, hashes_per_bucket=8)
    MinhashDedupSignature(output_folder=signatures, config=config).run(iter(documents), 0, 1)
    for rank in range(14):
        MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config).run(None, rank, 14)
    MinhashDedupCluster(input_folder=buckets, output_folder=remove, config=config).run(None, 0, 1)
    kept = list(MinhashDedupFilter(input_folder=remove).run(iter(documents), 0, 1))
    for _ in JsonlWriter(str(folder / "kept")).run(iter(kept), 0, 1):
        pass
    return len(kept)


def same_texts(documents: pa.Table) -> list[Any]:
    """Our documents as datatrove has them: both find duplicates among the same texts."""
    from datatrove.data import Document

    texts = documents["text_list"].to_pylist()
    return [Document(text="\n".join(text for text in parts if text), id=str(place)) for place, parts in enumerate(texts)]


# the whole pipeline


def classifiers(folder: Path, pages: Sequence[Mapping[str, Any]]) -> tuple[Path, Path]:
    """Classifiers for both stages, of mathematical pages against the others."""
    from headstart.curate.classify import cleaned, learn, plain
    from headstart.curate.extract import extract
    from headstart.curate.fasttext import FastTextConfig, save_classifier

    texts = [(bool(page["math"]), extract(page["html"], page["url"]).text()) for page in pages]
    config = FastTextConfig(learning_rate=0.5, epochs=5, bucket=100_000)
    paths = folder / "recall.safetensors", folder / "precision.safetensors"
    for path, view in zip(paths, (plain, cleaned), strict=True):
        sides = ([text for math, text in texts if math is side] for side in (True, False))
        save_classifier(learn(*sides, view, config, 0, lambda line: None), path)
    return paths


def items_file(path: Path, pages: Sequence[Mapping[str, Any]]) -> Path:
    """Items of random words of the pages."""
    random_ = random.Random(0)
    words = [word for page in pages for word in page["html"].split() if word.isalpha()]
    path.write_text("\n".join(" ".join(random_.choices(words, k=30)) for _ in range(ITEMS)) + "\n", encoding="utf-8")
    return path


def curated(files: Sequence[Path], out: Path, more: Sequence[str]) -> tuple[dict[str, Any], float]:
    """What `headstart curate webmath` with one worker says of its stages, and the MB of its largest process."""
    words = [sys.executable, "-m", "headstart", "curate", "webmath", *map(str, files), "--out", str(out), "--workers", "1", "--json", *more]
    largest = 0
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as errors:
        process = psutil.Popen(words, stdout=told, stderr=errors)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                family = [process.pid, *(child.pid for child in process.children(recursive=True))]
                largest = max(largest, *(hardware.peak_resident_bytes(pid) or 0 for pid in family))
            time.sleep(0.2)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read())
        told.seek(0)
        return json.loads(told.read()), largest / 1e6


def by_stage(counted: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Pages that came to each stage, and its seconds with those of the question that the whole corpus was asked for it."""
    seconds, found = dict(counted["seconds"]), {}
    for stage in counted["stages"]:
        name = stage["stage"]
        took = seconds.pop(name, 0.0) + seconds.pop(f"asked: {name}", 0.0)
        found[name] = {"pages": stage["entered"], "seconds": round(took, 3)}
    entered = max(stage["entered"] for stage in counted["stages"])
    return found | {name: {"pages": entered, "seconds": round(took, 3)} for name, took in seconds.items()}


def estimate(stages: Mapping[str, Mapping[str, float]], megabytes_a_page: float) -> dict[str, Any]:
    """Core hours of a month's crawl at the measured rates, if every page went through every stage, and if as many came to each as in the paper; by
    its pages, and by its bytes: its pages are not ours."""
    size = CRAWL["megabytes"] / CRAWL["pages"] / megabytes_a_page  # type: ignore[operator]
    hours, came = {"every_page": 0.0, "as_in_the_paper": 0.0}, 122.0
    for name, stage in stages.items():
        came = PAPER.get(name, came)
        a_page = stage["seconds"] / stage["pages"] / 3600
        hours["every_page"] += CRAWL["pages"] * a_page  # type: ignore[operator]
        hours["as_in_the_paper"] += CRAWL["pages"] * a_page * came / 122  # type: ignore[operator]
    return {
        "crawl": CRAWL,
        "core_hours_by_pages": {name: round(value) for name, value in hours.items()},
        "core_hours_by_bytes": {name: round(value * size) for name, value in hours.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curate.json"))
    args = parser.parse_args(arguments)
    pages = shared_pages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_crawl(folder / "crawl", [page["html"] for page in pages], args.pages)
        first, second = classifiers(folder, pages)
        flags = ["--recall.model", first, "--precision.model", second, "--precision.at-least", 0, "--recall.at-least", 0, "--private.mask"]
        flags += ["--decontaminate.benchmarks", items_file(folder / "items.txt", pages)]
        memory, counted = {}, {}
        for size, count in SIZES.items():
            counted, peak = curated(files[:count], folder / size, [str(flag) for flag in flags])
            memory[size] = round(peak, 1)
            print(f"{size}: {counted['stages'][0]['entered']:,} pages, the largest process had {peak:,.0f} MB", flush=True)
        stages = by_stage(counted)
        for stage, one in stages.items():
            print(f"{stage}: {one['pages'] / max(one['seconds'], 1e-9):,.0f} pages/s", flush=True)
        measure(files, folder, stages, memory, args)


def measure(files: Sequence[Path], folder: Path, stages: dict[str, dict[str, float]], memory: dict[str, float], args: argparse.Namespace) -> None:
    """Ours and datatrove's, file by file in turns, then MinHash of all, and the result."""
    from datatrove.utils.logging import logger

    logger.remove()  # a line a file, and one a process
    times: dict[str, list[float]] = {f"{part}, {who}": [] for part in ("reading", "extraction", "MinHash") for who in PEERS}
    kept, parts, n_pages, megabytes = {}, [], 0, 0.0
    for shard, file in enumerate(files):
        pages, html = list(our_reading(file, shard)), list(their_reading(file))  # so neither is the first that reads the file
        ways = [("reading, headstart", our_reading(file, shard)), ("reading, datatrove", their_reading(file))]
        for way, rows in ways if shard % 2 else reversed(ways):
            times[way].append(timed(drained, rows)[1])
        n_pages, megabytes = n_pages + sum(table.num_rows for table in pages), megabytes + sum(table["html"].nbytes for table in pages) / 1e6
        documents, took = timed(our_extraction, pages)
        times["extraction, headstart"].append(took)
        times["extraction, datatrove"].append(timed(their_extraction, html)[1])
        parts += [table.select(DOCUMENTS.names) for table in documents]
    texts = pa.concat_tables(parts)
    texts = texts.filter(pc.is_null(texts["dropped"]))
    kept["headstart"], took = timed(our_minhash, texts, folder / "ours")
    times["MinHash, headstart"].append(took)
    theirs = same_texts(texts)
    kept["datatrove"], took = timed(their_minhash, theirs, folder / "theirs")
    times["MinHash, datatrove"].append(took)
    rates = {name: round(n_pages / sum(took), 1) for name, took in times.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate:,.1f} pages/s, {rate * megabytes / n_pages:,.2f} MB/s")
    whole = {who: sum(sum(took) for name, took in times.items() if name.endswith(who)) for who in PEERS}
    month = estimate(stages, megabytes / n_pages)
    print(f"{CRAWL['name']}: {month['core_hours_by_pages']} core hours by pages, {month['core_hours_by_bytes']} by bytes")
    write_result(
        args.out,
        name="curate",
        what="MinHash deduplication of the same texts, seconds of datatrove's to ours, one core",
        ours={"pages_per_s": {name: rate for name, rate in rates.items() if name.endswith("headstart")}, "kept": kept["headstart"]},
        peer={
            "name": f"datatrove {version('datatrove')}",
            "pages_per_s": {name: rate for name, rate in rates.items() if name.endswith("datatrove")},
            "kept": kept["datatrove"],
        },
        ratio=times["MinHash, datatrove"][0] / times["MinHash, headstart"][0],
        must=2.0,
        command=f"python -m benchmarks.curate --pages {args.pages}",
        pages=n_pages,
        megabytes=round(megabytes, 1),
        ratio_whole=round(whole["datatrove"] / whole["headstart"], 3),
        must_whole=1.0,
        ratio_reading=round(median_ratio(times["reading, datatrove"], times["reading, headstart"]), 3),
        ratio_extraction=round(median_ratio(times["extraction, datatrove"], times["extraction, headstart"]), 3),
        stages=stages,
        peak_mb_of_the_largest_process=memory,
        a_monthly_crawl=month,
    )


if __name__ == "__main__":
    main()
