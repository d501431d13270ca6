"""Sets of words that stand for a document, by its smoothed unigram language model (PROP, arXiv 2010.10137; Albert-Ma/PROP). All on the device, with
static shapes and no host sync.

- p(w|D) = (tf + mu p(w|C)) / (|D| + mu), the Dirichlet-smoothed query likelihood; |D| and mu count statistic words.
- A set is drawn from V_D, the words of D that have a background probability and some that D lacks: those have nearly equal probability, a sample of
  them is enough.
- A drawn word is accepted with a probability that falls with its frequency (word2vec's sub-sampling), else drawn anew: the same as one draw from the
  product of both. So no draw is ever repeated.
- A set's score is the sum of ln p(w|D), not normalised over V_D and without the acceptance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.rng import Rng

TIE = 1e-9
"""Scores nearer than this are equal: the same words in another order sum to another last digit."""
LEAST_UNIFORM = 2.0**-53


def dirichlet(counts: Tensor, document_words: Tensor, background: Tensor, mu: float) -> Tensor:
    """p(w|D) of words with these counts in a document of so many words.

    Args:
        counts, background: [..., words]; document_words: [..., 1].
    """
    return (counts + mu * background) / (document_words + mu)


def keep_probability(frequency: np.ndarray, threshold: float) -> np.ndarray:
    """float64: the share of its draws that a word keeps, min(1, sqrt(t / f) + t / f), by its frequency in the corpus; 1 for one without a count."""
    ratio = np.divide(threshold, frequency, out=np.full(len(frequency), np.inf), where=frequency > 0)
    return np.minimum(1.0, np.sqrt(ratio) + ratio)


def truncated_poisson(mean: float) -> np.ndarray:
    """float64 [longest]: P(length <= 1), P(length <= 2) ... of a Poisson that is drawn anew while it is 0, until one is below 2^-53."""
    probabilities = [mean * math.exp(-mean) / -math.expm1(-mean)]
    while len(probabilities) <= mean or probabilities[-1] > LEAST_UNIFORM:
        probabilities.append(probabilities[-1] * mean / (len(probabilities) + 1))
    return np.minimum(np.cumsum(probabilities), 1.0)


def uniform(rng: Rng, name: str, *shape: int) -> Tensor:
    """float64 [batch, *shape], uniform on the multiples of 2^-53 in [0, 1): rare words of a large corpus lie below float32's 2^-24."""
    return ((rng.bits(name, *shape) >> 11) & ((1 << 53) - 1)).double() * LEAST_UNIFORM


class Vocabulary(NamedTuple):
    """V_D of each document of a batch."""

    words: Tensor
    """int64 [batch, words]: numbers of words; the last number of all where there is none."""
    probability: Tensor
    """float64 [batch, words]: p(w|D), not normalised over V_D."""
    weight: Tensor
    """float64 [batch, words]: what a draw is proportional to; 0 where there is no word."""


class Sets(NamedTuple):
    """Two sets of each document."""

    words: Tensor
    """int64 [batch, 2, longest]."""
    lengths: Tensor
    """int64 [batch]: words of both sets; what stands behind is not meant."""
    scores: Tensor
    """float64 [batch, 2]."""


class WordSets(nn.Module):
    """The sampler of a corpus. Its words are numbered by the ascending `hashes` of their letters, so that a batch of any store can name them.

    Args:
        hashes: int64 [words], ascending.
        background: float64 [words], p(w|C); 0 for words that are never drawn. Need not sum to 1.
        keep: float64 [words], from `keep_probability`.
        mu: statistic words of a document on average.
        mean_length: lambda of the Poisson that lengths are drawn from.
        vocabulary: K, the size that V_D is filled up to.
    """

    MORE = 100
    """Words that are added to a document which has K or more."""

    hashes: Tensor
    background: Tensor
    keep: Tensor
    pool: Tensor
    pool_cdf: Tensor
    length_cdf: Tensor

    def __init__(self, hashes: np.ndarray, background: np.ndarray, keep: np.ndarray, mu: float, mean_length: float, vocabulary: int) -> None:
        super().__init__()
        self.mu, self.vocabulary = mu, vocabulary
        pool = np.flatnonzero(background > 0)
        cdf = np.cumsum(background[pool])
        tables = {
            "hashes": hashes,
            "background": np.append(background, 0.0),  # the last one stands for no word
            "keep": np.append(keep, 1.0),
            "pool": pool,
            "pool_cdf": cdf / cdf[-1],  # over the words that have one: the official table gives what is missing to its first word
            "length_cdf": truncated_poisson(mean_length),
        }
        for name, values in tables.items():
            self.register_buffer(name, torch.from_numpy(np.array(values)), persistent=False)  # a copy: what is mapped cannot be written

    @property
    def longest(self) -> int:
        """Words of the longest set."""
        return len(self.length_cdf)

    @property
    def nothing(self) -> int:
        """The number that stands for no word."""
        return len(self.hashes)

    def number(self, hashes: Tensor, counts: Tensor) -> Tensor:
        """int64 [batch, words]: numbers of the words with these hashes; `nothing` where the corpus lacks it, or its count is 0."""
        found = torch.searchsorted(self.hashes, hashes.contiguous()).clamp(max=len(self.hashes) - 1)
        return torch.where((self.hashes[found] == hashes) & (counts > 0), found, self.nothing)

    def vocabulary_of(self, rng: Rng, hashes: Tensor, counts: Tensor) -> Vocabulary:
        """V_D of each document.

        Args:
            hashes: int64 [batch, words], of the distinct statistic words of each; counts: int64 [batch, words], 0 at padding.
        """
        numbers = self.number(hashes, counts)  # [batch, words]
        drawable = self.background[numbers] > 0
        own = drawable.sum(1, keepdim=True)  # |V_doc|
        wanted = torch.where(own < self.vocabulary, self.vocabulary - own, self.MORE)  # [batch, 1]
        slots = max(self.vocabulary - 1, self.MORE)
        place = torch.arange(slots, device=numbers.device)
        drawn = self.pool[torch.searchsorted(self.pool_cdf, uniform(rng, "sets.others", slots), right=True).clamp(max=len(self.pool) - 1)]
        drawn = torch.where(place < wanted, drawn, self.nothing).sort(1).values
        repeated = torch.zeros_like(drawn, dtype=torch.bool)
        repeated[:, 1:] = drawn[:, 1:] == drawn[:, :-1]
        inside = numbers.sort(1).values
        at = torch.searchsorted(inside, drawn).clamp(max=inside.shape[1] - 1)
        drawn = torch.where(repeated | (inside.gather(1, at) == drawn), self.nothing, drawn)
        words = torch.cat([torch.where(drawable, numbers, self.nothing), drawn], 1)
        tf = torch.cat([counts, torch.zeros_like(drawn)], 1)
        probability = dirichlet(tf.double(), counts.sum(1, keepdim=True).double(), self.background[words], self.mu)
        weight = torch.where(words == self.nothing, 0.0, probability * self.keep[words])
        return Vocabulary(words, probability, weight)

    def draw(self, rng: Rng, hashes: Tensor, counts: Tensor) -> Sets:
        """Two sets of each document, of one length; arguments as `vocabulary_of`."""
        of_document = self.vocabulary_of(rng, hashes, counts)
        lengths = torch.searchsorted(self.length_cdf, uniform(rng, "sets.length", 1), right=True).clamp(max=self.longest - 1) + 1  # [batch, 1]
        cdf = of_document.weight.cumsum(1)
        where = uniform(rng, "sets.words", 2 * self.longest) * cdf[:, -1:]
        last = (of_document.weight > 0).long().cumsum(1).argmax(1, keepdim=True)  # a draw that rounds up to the end
        at = torch.minimum(torch.searchsorted(cdf, where, right=True), last)
        shape = (len(hashes), 2, self.longest)
        words = of_document.words.gather(1, at).view(shape)
        logs = of_document.probability.gather(1, at).view(shape).log()
        counted = torch.arange(self.longest, device=words.device) < lengths[:, :, None]
        return Sets(words, lengths[:, 0], torch.where(counted, logs, 0.0).sum(2))


def positive_first(sets: Sets) -> tuple[Tensor, Tensor]:
    """(words int64 [batch, 2, longest] with the likelier set first, bool [batch]: the scores differ). Of equal ones the second set counts as the
    likelier one, as in the official code; they teach nothing."""
    first, second = sets.scores.unbind(1)
    differs = (first - second).abs() > TIE
    swap = ~(differs & (first > second))
    return torch.where(swap[:, None, None], sets.words.flip(1), sets.words), differs
