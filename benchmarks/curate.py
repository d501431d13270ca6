"""Curation beside datatrove, and what it costs: pages and MB a second of reading, extraction and MinHash, memory as the input grows.

The input is a crawl that is made here: WARC files of variants of the shared pages (`data/webmath`), each with a share of its words drawn anew, every
tenth one a near-copy of another page; what is timed is the same work of both on the same files, in turns, on one core:

    reading     WARC to HTML with its characters         datatrove's WarcReader (warcio)
    extraction  HTML to text                             datatrove's Trafilatura (its process with a time limit, as ours has one)
    MinHash     signatures, buckets, components, filter  datatrove's four blocks, 14 x 8, 64-bit sha1, the same texts
    whole       all three, one after another

CPU seconds would hide what processes of their own cost, so seconds of the clock on a quiet machine are taken. Memory is the peak of the largest
process (VmHWM) of `headstart curate text` over 1, 4 and 16 times the input.

The peer: pip install -c constraints.txt -e '.[bench-curate]'

python -m benchmarks.curate [--pages 2000] [--repeats 3] [--skip-memory] [--out benchmarks/results/curate.json]
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.core import hardware
from headstart.curate.config import NearConfig, PrefilterConfig, ReadConfig
from headstart.curate.sources import read_source
from headstart.curate.tables import DOCUMENTS

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
PAGES_A_FILE = 1000
CRAWL = {"name": "CC-MAIN-2023-50", "pages": 3.35e9, "megabytes": 454 * 2**40 / 1e6}
"""A month's crawl as Common Crawl announces it."""
PEERS = ("headstart", "datatrove")
NEAR = 10
"""One page in so many is a near-copy of the one before."""


def shared_pages() -> list[str]:
    """The HTML of the shared pages."""
    data = pa.input_stream(str(data_folder("webmath") / "pages.jsonl.zst"), compression="zstd").read()
    return [json.loads(line)["html"] for line in data.decode().splitlines()]


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


def write_crawl(folder: Path, pages: int, seed: int = 0) -> list[Path]:
    """WARC files of variants; each record a gzip member, as a crawl has them."""
    folder.mkdir(parents=True)
    originals, random_ = shared_pages(), random.Random(seed)
    files, before = [], ""
    for first in range(0, pages, PAGES_A_FILE):
        files.append(folder / f"CC-MAIN-2023-50-{first // PAGES_A_FILE:05d}.warc.gz")
        with files[-1].open("wb") as file:
            for number in range(first, min(first + PAGES_A_FILE, pages)):
                near = number % NEAR == NEAR - 1
                before = html = before.replace("</body>", f"<p>Copy {number}.</p></body>") if near else variant(random_.choice(originals), random_)
                file.write(gzip.compress(_record(number, html.encode()), 6, mtime=0))
    return files


def _record(number: int, html: bytes) -> bytes:
    block = HEADER + html
    fields = (
        "WARC/1.0", "WARC-Type: response", f"WARC-Record-ID: <urn:uuid:{number:032d}>", "WARC-Date: 2023-12-01T00:00:00Z",
        f"WARC-Target-URI: https://site{number % 97}.example.org/{number}", "WARC-Identified-Payload-Type: text/html",
        f"Content-Length: {len(block)}",
    )  # fmt: skip
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# ours


def our_reading(files: Sequence[Path]) -> list[pa.Table]:
    from headstart.curate.pages import prefilter

    stage = prefilter(PrefilterConfig(min_bytes=0))
    return [stage(table) for shard, file in enumerate(files) for table in read_source(str(file), shard, ReadConfig())]


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


def their_reading(folder: Path) -> list[Any]:
    from datatrove.pipeline.readers import WarcReader

    return list(WarcReader(str(folder), glob_pattern="*.warc.gz").run())


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


# memory


def peak_memory(files: Sequence[Path], folder: Path) -> float:
    """MB of the largest process of `headstart curate text` over some files."""
    words = [sys.executable, "-m", "headstart", "curate", "text", *map(str, files), "--out", str(folder), "--workers", "2"]
    largest = 0
    with tempfile.TemporaryFile("w+") as errors:
        process = psutil.Popen(words, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                family = [process.pid, *(child.pid for child in process.children(recursive=True))]
                largest = max(largest, *(hardware.peak_resident_bytes(pid) or 0 for pid in family))
            time.sleep(0.05)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read())
    return largest / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-pages", type=int, default=1000, help="at 1 x; 4 and 16 times as many after it")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curate.json"))
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(write_crawl(folder / "crawl", args.pages), folder, args)


def measure(files: Sequence[Path], folder: Path, args: argparse.Namespace) -> None:
    from loguru import logger

    logger.remove()
    pages = our_reading(files)
    n_pages, megabytes = sum(table.num_rows for table in pages), sum(table["html"].nbytes for table in pages) / 1e6
    html = their_reading(files[0].parent)
    documents = pa.concat_tables(table.select(DOCUMENTS.names) for table in our_extraction(pages))
    documents = documents.filter(pc.is_null(documents["dropped"]))
    theirs = same_texts(documents)
    kept: dict[str, int] = {}
    ways: dict[str, Callable[[], float]] = {
        "reading, headstart": lambda: seconds(lambda: our_reading(files)),
        "reading, datatrove": lambda: seconds(lambda: their_reading(files[0].parent)),
        "extraction, headstart": lambda: seconds(lambda: our_extraction(pages)),
        "extraction, datatrove": lambda: seconds(lambda: their_extraction([_copy(one) for one in html])),
        "MinHash, headstart": lambda: seconds(lambda: kept.update(ours=our_minhash(documents, folder / "ours"))),
        "MinHash, datatrove": lambda: seconds(lambda: kept.update(theirs=their_minhash([_copy(one) for one in theirs], folder / "theirs"))),
    }
    times = in_turns(ways, args.repeats)
    rates = {name: round(n_pages / sorted(found)[len(found) // 2], 1) for name, found in times.items()}
    stages = ("reading", "extraction", "MinHash")
    whole = {who: [sum(parts) for parts in zip(*(times[f"{stage}, {who}"] for stage in stages), strict=True)] for who in PEERS}
    for name, rate in rates.items():
        print(f"{name}: {rate:,.1f} pages/s, {rate * megabytes / n_pages:,.2f} MB/s")
    memory = {}
    if not args.skip_memory:
        for factor in (1, 4, 16):
            crawl = write_crawl(folder / f"crawl{factor}", args.memory_pages * factor)
            memory[f"{factor}x"] = round(peak_memory(crawl, folder / f"memory{factor}"), 1)
            print(f"{args.memory_pages * factor:,} pages: the largest process had {memory[f'{factor}x']:,.0f} MB")
    write_result(
        args.out,
        name="curate",
        what="MinHash deduplication of the same texts, seconds of datatrove's to ours, one core",
        ours={"pages_per_s": {name: rate for name, rate in rates.items() if name.endswith("headstart")}, "kept": kept["ours"]},
        peer={
            "name": f"datatrove {version('datatrove')}",
            "pages_per_s": {name: rate for name, rate in rates.items() if name.endswith("datatrove")},
            "kept": kept["theirs"],
        },
        ratio=median_ratio(times["MinHash, datatrove"], times["MinHash, headstart"]),
        must=2.0,
        command=f"python -m benchmarks.curate --pages {args.pages} --repeats {args.repeats}",
        pages=n_pages,
        megabytes=round(megabytes, 1),
        ratio_whole=round(median_ratio(whole["datatrove"], whole["headstart"]), 3),
        must_whole=1.0,
        ratio_reading=round(median_ratio(times["reading, datatrove"], times["reading, headstart"]), 3),
        ratio_extraction=round(median_ratio(times["extraction, datatrove"], times["extraction, headstart"]), 3),
        peak_mb_of_the_largest_process=memory,
        a_monthly_crawl=estimate(n_pages, megabytes, sorted(whole["headstart"])[len(whole["headstart"]) // 2]),
    )


def estimate(pages: int, megabytes: float, took: float) -> dict[str, Any]:
    """Core hours of a month's crawl at the measured rate, by its pages and by its bytes: its pages are not ours."""
    by_pages, by_bytes = CRAWL["pages"] / pages * took / 3600, CRAWL["megabytes"] / megabytes * took / 3600  # type: ignore[operator]
    print(f"{CRAWL['name']}: {by_pages:,.0f} core hours by pages, {by_bytes:,.0f} by bytes, for reading, extraction and MinHash of every page")
    return {"crawl": CRAWL, "core_hours_by_pages": round(by_pages), "core_hours_by_bytes": round(by_bytes)}


def _copy(document: Any) -> Any:
    """datatrove's blocks change the documents that they are given."""
    from datatrove.data import Document

    return Document(text=document.text, id=document.id, metadata=dict(document.metadata))


if __name__ == "__main__":
    main()
