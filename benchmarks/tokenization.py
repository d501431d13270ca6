"""How fast a corpus becomes a token store, against the bare encoding call of the `tokenizers` library on the same lines in memory.

Ours reads and checks the file, splits sentences, encodes, counts, and writes parts; the peer only encodes (all cores, no conversion to an array).
Also measured: one string a document instead of one a sentence, and processes instead of threads.

python -m benchmarks.tokenization [--mb 24] [--kind wordpiece] [--out benchmarks/results/tokenization-KIND.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.result import write_result
from headstart.core.hardware import cores
from headstart.data.text.builtin import builtin_documents
from headstart.data.text.config import TextConfig
from headstart.data.text.encode import encode_parts, in_order, split_sentences, tokenizer_threads
from headstart.data.text.sources import find_inputs
from headstart.data.text.tokenizer import SENTENCE_END, sentence_encoder, train_tokenizer

_encoder: Tokenizer | None = None


def to_array(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.uint32)


def in_process(texts: list[str]) -> bytes:
    assert _encoder is not None
    return to_array(_encoder, texts).tobytes()


def median_s(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each way, taken in turns, so that another load on the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    global _encoder
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=24)
    parser.add_argument("--kind", choices=("wordpiece", "bpe", "unigram"), default="wordpiece")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    documents: list[str] = []
    for document in builtin_documents():
        documents.append(document.text)
        if sum(map(len, documents)) > args.mb * 1e6:
            break
    config = TextConfig(tokenizer_kind=args.kind)
    sentences = [split_sentences(text, args.kind == "bpe") for text in documents]
    lines = list(chain.from_iterable(sentences))
    tokenizer = train_tokenizer(lines[: len(lines) // 4], config)
    encoder, _ = sentence_encoder(tokenizer)
    marked = [SENTENCE_END.join(group) + SENTENCE_END for group in sentences]
    batches = [marked[start : start + 32] for start in range(0, len(marked), 32)]
    _encoder = encoder
    workers = cores()
    size = sum(len(text.encode()) for text in documents) / 1e6

    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("fork").Pool(workers) as processes:
        path = Path(folder, "corpus.jsonl")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        files = find_inputs([path]).files
        runs = iter(range(10**6))

        def threads() -> None:
            with tokenizer_threads(workers) as pool:
                for _ in in_order(pool, lambda batch: to_array(encoder, batch), batches, 2 * workers + 1):
                    pass

        seconds = median_s(
            {
                "whole path, file to parts": lambda: encode_parts(files, tokenizer, config, Path(folder, str(next(runs))), workers),
                "whole path, one worker": lambda: encode_parts(files, tokenizer, config, Path(folder, str(next(runs))), 1),
                "encode_batch, lines": lambda: tokenizer.encode_batch(lines, add_special_tokens=False),
                "encode_batch, documents": lambda: tokenizer.encode_batch(["\n".join(group) for group in sentences], add_special_tokens=False),
                "threads, marked documents, to arrays": threads,
                "processes, marked documents, to arrays": lambda: processes.map(in_process, batches, chunksize=1),
            },
            args.repeats,
        )
    rates = {name: round(size / value, 2) for name, value in seconds.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate} MB/s")
    mine, alone = rates.pop("whole path, file to parts"), rates.pop("whole path, one worker")
    write_result(
        args.out or Path(f"benchmarks/results/tokenization-{args.kind}.json"),
        name="tokenization",
        what=f"{size:.0f} MB of docstrings, {args.kind} of {config.vocab_size}, {workers} threads; ratio: whole path to encode_batch on its lines",
        ours={"MB_per_s": mine, "MB_per_s_of_one_worker": alone, "speedup_of_workers": round(mine / alone, 2)},
        peer={"MB_per_s": rates},
        ratio=mine / rates["encode_batch, lines"],
        must=0.9,
        aim=1.0,
        command=f"python -m benchmarks.tokenization --mb {args.mb:g} --kind {args.kind}",
    )


if __name__ == "__main__":
    main()
