"""Scoring texts by a word trigram: sorted arrays against the same model as a loop over dictionaries, MB of text a second on one core.

python -m benchmarks.ngram [--mb 4] [--out benchmarks/results/ngram.json]

The texts are those of the shared `textmed` (--data: another folder of .jsonl.zst with a field `text`), the first 40 of them the reference. Both sides
split words alike and give equal perplexities; they take turns, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.data.text.ngram import Trigram, words_of

REFERENCE = 40
START, END, UNKNOWN = "<s>", "</s>", "<unk>"


class Dictionaries:
    """The model of `headstart.data.text.ngram` as one writes it down: a dictionary of counts for each length of history."""

    def __init__(self, texts: Sequence[str]) -> None:
        seen = collections.Counter(word for text in texts for word in words_of(text))
        self.known = {word for word, count in seen.items() if count > 1}
        self.unknown_types = max(1, len(seen) - len(self.known))
        self.counts: tuple[dict[tuple[str, ...], collections.Counter[str]], ...] = ({}, {}, {})
        for text in texts:
            words = [START, START, *self.shown(text), END]
            for i in range(2, len(words)):
                for n, table in enumerate(self.counts):
                    table.setdefault(tuple(words[i - n : i]), collections.Counter())[words[i]] += 1
        self.totals = [{history: sum(found.values()) for history, found in table.items()} for table in self.counts]

    def shown(self, text: str) -> list[str]:
        return [word if word in self.known else UNKNOWN for word in words_of(text)]

    def perplexity(self, text: str) -> float:
        words = [START, START, *self.shown(text), END]
        log = 0.0
        for i in range(2, len(words)):
            p = 1 / (len(self.known) + 2)  # the words, the end, <unk>
            for n, (table, totals) in enumerate(zip(self.counts, self.totals, strict=True)):
                history = tuple(words[i - n : i])
                if (found := table.get(history)) is not None:
                    p = (found[words[i]] + len(found) * p) / (totals[history] + len(found))
            log += math.log(p / self.unknown_types if words[i] == UNKNOWN else p)
        return math.exp(-log / (len(words) - 2))


def texts_of(folder: Path) -> Iterator[str]:
    """Every text of a folder's files."""
    for file in sorted(folder.glob("*.jsonl.zst")):
        with pa.input_stream(str(file), compression="zstd") as stream:
            yield from (json.loads(line)["text"] for line in stream.read().decode().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_folder("textmed"))
    parser.add_argument("--mb", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ngram.json"))
    args = parser.parse_args()
    reference, pool, size = [], [], 0
    for text in texts_of(args.data):
        if len(reference) < REFERENCE:
            reference.append(text)
        elif size < args.mb * 1e6:
            pool.append(text)
            size += len(text.encode())
    ours, peer = Trigram.train(reference), Dictionaries(reference)
    ways: dict[str, Callable[[], object]] = {"ours": lambda: ours.score(pool), "peer": lambda: [peer.perplexity(text) for text in pool]}
    rates = in_turns({name: partial(timed, way, size) for name, way in ways.items()}, args.repeats)
    np.testing.assert_allclose(ours.score(pool).perplexity, [peer.perplexity(text) for text in pool], rtol=1e-9)
    write_result(
        args.out,
        name="scoring texts by a trigram against a loop over dictionaries",
        what=f"{size / 1e6:.1f} MB of text on one core, equal perplexities",
        ours={"mb_per_s": float(np.median(rates["ours"])), "all": rates["ours"]},
        peer={"what": "a loop over dictionaries", "mb_per_s": float(np.median(rates["peer"])), "all": rates["peer"]},
        ratio=median_ratio(rates["ours"], rates["peer"]),
        must=5,
        aim=10,
        command=f"python -m benchmarks.ngram --mb {args.mb:g}",
    )


def timed(work: Callable[[], object], size: int) -> float:
    """MB a second."""
    began = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
