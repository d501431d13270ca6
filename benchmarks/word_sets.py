"""Sets of words of documents (prop): ours, whole batches on the device, against the official algorithm as its code does it in Python: for each
document lists of words and probabilities, for each word a draw with `numpy.random.choice(list, p=...)` that is accepted or made anew, lists searched
with `in`, and a table of the background that unseen words are drawn from. Its process pool is left out: one thread each.

The table has 1e6 entries here instead of 1e8: that one takes 400 MB and changes nothing a draw costs.

python -m benchmarks.word_sets [--documents 200] [--pairs 5] [--out benchmarks/results/word_sets.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.claims._text import write_documents
from headstart.claims.prop import read_collection
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.methods.prop.background import Background, background_of
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Prop
from headstart.methods.prop.statistics import Statistics, count_words, statistics_of

REPEATS = 5
TABLE = 1_000_000


class Official:
    """The official algorithm, one document after another; what is a fault of it (ends of workers, words under 100 occurrences) is left out."""

    def __init__(self, found: Statistics, background: Background, mean_length: float = 3.0, vocabulary: int = 500) -> None:
        self.words, self.mean_length, self.vocabulary, self.mu = found.words, mean_length, vocabulary, found.mu
        self.background = {word: float(p) for word, p in zip(found.words, background.probability, strict=True) if p > 0}
        self.keep = {word: float(p) for word, p in zip(found.words, background.keep, strict=True)}
        names, shares = list(self.background), np.array(list(self.background.values()))
        self.table = [names[i] for i in np.repeat(np.arange(len(names)), np.maximum(1, (shares / shares.sum() * TABLE).astype(int)))]

    def pairs(self, counts: dict[str, int], count: int) -> list[tuple[list[str], list[str], float, float]]:
        """So many pairs of sets, with their scores, of a document with these counts of words."""
        total = sum(counts.values())
        own = [word for word in counts if word in self.background]
        wanted = self.vocabulary - len(own) if len(own) < self.vocabulary else 100
        others = [self.table[np.random.randint(len(self.table))] for _ in range(wanted)]
        words = list(own)
        for word in others:
            if word not in words:  # quadratic, as there
                words.append(word)
        p = {word: (counts.get(word, 0) + self.mu * self.background[word]) / (total + self.mu) for word in words}
        of_all = sum(p.values())
        found = []
        for _ in range(count):
            length = 0
            while length == 0:
                length = np.random.poisson(self.mean_length)
            sets = (self.drawn(p, of_all, length), self.drawn(p, of_all, length))
            scores = [float(sum(np.log(p[word]) for word in one)) for one in sets]
            found.append((*sets, *scores))
        return found  # type: ignore[return-value]

    def drawn(self, p: dict[str, float], of_all: float, length: int) -> list[str]:
        chosen: list[str] = []
        while len(chosen) < length:
            word = np.random.choice(list(p), p=[value / of_all for value in p.values()])  # both lists are made for each word, as there
            if np.random.random() < self.keep[word]:
                chosen.append(word)
        return chosen


def timed(ways: dict[str, object]) -> dict[str, float]:
    """Median seconds of one core of each way, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, work in ways.items():
            start = time.process_time()
            work()  # type: ignore[operator]
            if repeat:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def counts_of(found: Statistics, document: int) -> dict[str, int]:
    at = slice(found.ends[document], found.ends[document + 1])
    return {found.words[i]: int(n) for i, n in zip(found.counted[at], found.counts[at], strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/word_sets.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        text = write_documents(Path(scratch) / "docs.jsonl", read_collection(data_folder("wiki_xquad")).texts)
        store: TextStore = prepare_text([text], Path(scratch) / "store", TextConfig(vocab_size=4000, held_out_share=0.0))
        config = PropConfig(short_doc_tokens=0)
        found = statistics_of(store, config.word_pattern, config.stopwords)
        start = time.process_time()
        count_words(store, config.word_pattern, frozenset())
        counting = time.process_time() - start
        official, method = Official(found, background_of(found, config)), Prop(config, store)
        rows = Prop.rows(store, config)
        numbers = np.arange(min(arguments.documents, len(rows)))
        documents = [counts_of(found, int(number)) for number in rows.documents[numbers]]
        parts = np.array_split(numbers, max(1, len(numbers) // 64))
        batches = [{name: torch.as_tensor(value) for name, value in rows.batch(part).items()} for part in parts]

        def ours() -> None:
            for draw in range(arguments.pairs):
                for batch in batches:
                    method.sets.draw(Rng.at(0, draw, torch.arange(len(batch["words"]))), batch["words"], batch["counts"])

        seconds = timed({"ours": ours, "official": lambda: [official.pairs(counts, arguments.pairs) for counts in documents]})
        sets = 2 * arguments.pairs * len(numbers)
        rate = {name: sets / value for name, value in seconds.items()}
        write_result(
            arguments.out,
            name="word_sets",
            what=f"sets of words a second, {len(numbers)} documents, {arguments.pairs} pairs each, K = {config.set_vocabulary}, one thread of a CPU",
            ours={"sets_per_second": round(rate["ours"])},
            peer={"name": "the official algorithm, re-implemented in Python and numpy", "sets_per_second": round(rate["official"])},
            ratio=round(rate["ours"] / rate["official"], 1),
            must=1.0,
            command=f"python -m benchmarks.word_sets --documents {arguments.documents} --pairs {arguments.pairs}",
            counting={"megabytes_per_second": round(text.stat().st_size / 1e6 / counting, 1), "text_megabytes": round(text.stat().st_size / 1e6, 2)},
        )


if __name__ == "__main__":
    main()
