"""Epochs drawn anew from several sources: index permutations over memory-mapped stores. No text is copied, no state is kept.

- An epoch of |S| tokens takes from each source its share: the first documents, until that many tokens are reached, of the permutation that
  (seed, source, epoch) names. `fixed` takes the draw of epoch 0 every time. (Guo et al. 2025, arXiv 2406.14833, strategy III; with one source and a
  fixed draw strategy I.)
- The documents of all sources are shuffled together, joined with one end of text after each, and cut into windows; the windows of an epoch are
  shuffled once more, as in Megatron-LM, so that a long document does not fill a batch. The stream runs on from one epoch into the next: no window is
  padded.
- An epoch is made when its first window is asked for, in time proportional to what is drawn (a million documents: about a second); of earlier ones
  only the lengths are kept. So any step can be asked for first, and resume, ranks and micro-batches need nothing more than its number.

`Epochs` has the face of `data.mixture.Mixture`, which `Loader` reads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from headstart.core.errors import UsageError
from headstart.data.permute import combine, permute
from headstart.data.text.store import TextStore

ORDER, WINDOWS = 2**40, 2**40 + 1
"""Keys of the two shuffles of an epoch; those of sources are hashes."""
KEPT = 3  # epochs whose documents are remembered: a batch may reach into the next one


@dataclass(frozen=True)
class Source:
    """Documents to draw from.

    Attributes:
        name: what a person calls it.
        share: of the tokens of an epoch.
        tokens: all of its token ids, memory-mapped.
        starts, lengths: int64 [documents], where each begins and how many tokens it has, without the end of text.
        key: names the source in draws, wherever it stands among others.
        vocab_size: ids are below it.
    """

    name: str
    share: Fraction
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    key: int
    vocab_size: int

    @classmethod
    def of(cls, store: TextStore, share: Fraction, name: str) -> Source:
        """The training documents of a store."""
        documents = store.documents("train")
        starts = np.asarray(store.document_offsets)[documents]
        lengths = np.asarray(store.document_offsets)[documents + 1] - starts
        return cls(name, share, store.tokens, starts, lengths, int(store.manifest["arrays"]["tokens"]["sha256"][:15], 16), store.vocab_size)

    @property
    def n_tokens(self) -> int:
        """With an end of text after each document."""
        return int(self.lengths.sum()) + len(self.lengths)

    def draw(self, seed: int, epoch: int, quota: int) -> np.ndarray:
        """int64: the first documents of the permutation of this epoch until `quota` tokens are reached; the one that crosses it is taken."""
        n = len(self.lengths)
        key, mean = combine(seed, self.key, epoch), self.n_tokens / n
        count = min(n, int(1.1 * quota / mean) + 16)
        while True:
            drawn = permute(np.arange(count), n, key)
            reached = np.cumsum(self.lengths[drawn] + 1)
            if reached[-1] >= quota or count == n:
                return drawn[: int(np.searchsorted(reached, quota)) + 1]
            count = min(n, 2 * count)


@dataclass(frozen=True)
class Epoch:
    """The documents of one epoch, in their order.

    Attributes:
        source: int64 [documents], number of the source.
        document: int64 [documents], number within the source.
        ends: int64 [documents], tokens up to and with the end of each.
    """

    source: np.ndarray
    document: np.ndarray
    ends: np.ndarray

    @property
    def n_tokens(self) -> int:
        return int(self.ends[-1])

    def tokens_of(self, source: int) -> int:
        """How many of its tokens are of a source, ends of text counted."""
        return int(np.diff(self.ends, prepend=0)[self.source == source].sum())


class Epochs:
    """A deterministic endless sequence of windows, epoch after epoch.

    Args:
        sources: their shares sum to 1; one with share 0 is never drawn from.
        tokens: |S|, of an epoch; a document of each source more at most.
        draw: "dynamic" or "fixed", see the module's head.
        seed: decides every draw and order.
        length: inputs of a window.
        end: id of the end of text.

    Attributes:
        parts: this alone: what `Loader` asks for batches.
        shares: of the sources, as given.

    Raises:
        UsageError: shares that do not sum to 1, or a source with less text than its share of an epoch.
    """

    def __init__(self, sources: Sequence[Source], tokens: int, draw: Literal["dynamic", "fixed"], seed: int, length: int, end: int) -> None:
        self.sources, self.tokens, self.kind, self.seed, self.length, self.end = list(sources), tokens, draw, seed, length, end
        self.shares = [source.share for source in sources]
        self.parts = [self]
        said = ", ".join(f"{source.name} {float(source.share):g}" for source in sources)
        if not all(0 <= share <= 1 for share in self.shares):
            raise UsageError(f"A share of an epoch is below 0 or above 1 ({said}).", "Correct the shares.")
        if sum(self.shares) != 1:
            raise UsageError(f"The shares of an epoch sum to {float(sum(self.shares)):g}, not to 1 ({said}).", "Correct the shares.")
        self.quotas = [round(share * tokens) for share in self.shares]
        for source, quota in zip(sources, self.quotas, strict=True):
            if quota > 0 and source.n_tokens < quota:
                there = f"{source.n_tokens:,} tokens" if source.n_tokens else "no text"
                what = f"An epoch of {tokens:,} tokens takes {quota:,} of {source.name} ({float(source.share):.1%}), which has {there}."
                raise UsageError(what, f"Lower --epochs.tokens or its share, or give more of {source.name}.")
        if not any(self.quotas):
            raise UsageError(f"An epoch of {tokens:,} tokens takes none of any source.", "Give a longer epoch: --epochs.tokens.")
        self._firsts = [0]  # tokens of the stream before each epoch that is known, and after the last
        self._made: dict[int, Epoch] = {}
        self._lock = threading.Lock()  # the prefetching thread and the run both ask

    # --- drawing ------------------------------------------------------------------------------------------------------------------------------

    def draws(self, number: int) -> list[np.ndarray]:
        """Of each source the documents that epoch `number` takes, in the order of their draw."""
        drawn_in = 0 if self.kind == "fixed" else number
        none = np.zeros(0, np.int64)
        return [source.draw(self.seed, drawn_in, quota) if quota else none for source, quota in zip(self.sources, self.quotas, strict=True)]

    def epoch(self, number: int) -> Epoch:
        """The documents of an epoch, counted from 0, in the order in which they are joined."""
        with self._lock:
            return self._epoch(number)

    def _epoch(self, number: int) -> Epoch:
        if number not in self._made:
            draws = self.draws(number)
            source = np.repeat(np.arange(len(draws)), list(map(len, draws)))
            document = np.concatenate(draws)
            order = permute(np.arange(len(source)), len(source), combine(self.seed, ORDER, number))
            source, document = source[order], document[order]
            lengths = np.empty(len(source), np.int64)
            for index, of in enumerate(self.sources):
                mine = source == index
                lengths[mine] = of.lengths[document[mine]] + 1
            self._made[number] = Epoch(source, document, np.cumsum(lengths))
            for old in sorted(self._made)[:-KEPT]:
                if old != number:
                    del self._made[old]
        return self._made[number]

    def _known_until(self, position: int) -> np.ndarray:
        """int64: where each epoch begins in the stream, up to the one that holds `position` and the end of that."""
        with self._lock:
            while self._firsts[-1] <= position:
                number = len(self._firsts) - 1
                total = self._firsts[1] if self.kind == "fixed" and number else self._epoch(number).n_tokens
                self._firsts.append(self._firsts[-1] + total)
            return np.array(self._firsts)

    # --- the face of a mixture ------------------------------------------------------------------------------------------------------------------

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(0, number of the window) of the samples with these global numbers, int64 [k] each."""
        samples = np.asarray(samples, np.int64)
        # A window is of the epoch that its last token is of: one epoch alone never depends on the next.
        firsts = np.maximum(self._known_until((int(samples.max()) + 2) * self.length) - 1, 0) // self.length  # the first window of each epoch
        epoch = np.searchsorted(firsts, samples, side="right") - 1
        window = np.empty(len(samples), np.int64)
        for number in np.unique(epoch):
            mine = epoch == number
            first, size = int(firsts[number]), int(firsts[number + 1] - firsts[number])
            window[mine] = first + permute(samples[mine] - first, size, combine(self.seed, WINDOWS, number))
        return np.zeros(len(samples), np.int64), window

    def epochs(self, samples: int) -> list[float]:
        """Passes after so many samples."""
        position = samples * self.length
        firsts = self._known_until(position)
        number = int(np.searchsorted(firsts, position, side="right")) - 1
        return [number + float((position - firsts[number]) / (firsts[number + 1] - firsts[number]))]

    def __len__(self) -> int:
        """Windows of an epoch, about."""
        return max(1, self.tokens // self.length)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """`input_ids` and `next_ids`, the token after each, int64 [batch, length], of the windows with these numbers."""
        ids = self.stream(rows[:, None] * self.length + np.arange(self.length + 1))
        return {"input_ids": ids[:, :-1], "next_ids": ids[:, 1:]}

    def stream(self, positions: np.ndarray) -> np.ndarray:
        """int64: the tokens at these places of the stream, of any shape."""
        flat = positions.reshape(-1)
        firsts = self._known_until(int(flat.max()))
        number = np.searchsorted(firsts, flat, side="right") - 1
        found = np.full(len(flat), self.end, np.int64)
        for index in np.unique(number):
            epoch, mine = self.epoch(int(index)), np.flatnonzero(number == index)
            within = flat[mine] - firsts[index]
            at = np.searchsorted(epoch.ends, within, side="right")
            before_end = epoch.ends[at] - 1 - within  # 0: the end of text itself
            for source_number, source in enumerate(self.sources):
                text = (epoch.source[at] == source_number) & (before_end > 0)
                document = epoch.document[at[text]]
                place = source.starts[document] + source.lengths[document] - before_end[text]
                ids = source.tokens[place]
                if ids.max(initial=0) >= source.vocab_size:
                    raise UsageError(f"{source.name} holds token ids beyond its vocabulary of {source.vocab_size:,}.", "Prepare it again.")
                found[mine[text]] = ids
        return found.reshape(positions.shape)
