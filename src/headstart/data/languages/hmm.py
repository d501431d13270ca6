"""A hidden Markov chain as a language: states move, each shows a word. Sentences of 16 words; the labels are hidden states.

The paper has such a language too, its sizes were never released: these are ours (docs/methods/implicit_bias.md, "Where we differ").
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.language import Floats, Ints, Label, Language

STATES, WORDS, LENGTH = 12, 48, 16
POSITIONS = (6, 10)
"""Counted from 1: those whose states are the tasks."""


class HMM(Language):
    """`states` hidden states, each with its own words; every sentence has `length` words and begins in any state.

    Attributes:
        transition: float64 [states, states]; emission: float64 [states, words].
    """

    def __init__(self, seed: int = 0, states: int = STATES, words: int = WORDS, length: int = LENGTH) -> None:
        rng = np.random.default_rng(seed)
        self.name = "hmm"
        self.words = [str(word) for word in range(words)]
        self.longest = length
        self.transition = rng.dirichlet(np.full(states, 0.3), size=states)
        self.emission = rng.dirichlet(np.full(words, 0.1), size=states)
        self.start = np.full(states, 1 / states)

    def sample(self, count: int, rng: np.random.Generator) -> Ints:
        """One uniform number for each state and each word, place by place."""
        found = np.zeros((count, self.longest), dtype=np.int64)
        moves, shows = np.cumsum(self.transition, 1), np.cumsum(self.emission, 1)
        state = _choose(np.broadcast_to(np.cumsum(self.start), (count, len(self.start))), rng.random(count))
        for t in range(self.longest):
            if t:
                state = _choose(moves[state], rng.random(count))
            found[:, t] = _choose(shows[state], rng.random(count))
        return found

    def passes(self, sentences: Ints) -> tuple[Floats, Floats]:
        """float64 [n, length, states] each, scaled to sum to 1: the states at a place given the words before it, and how well each explains the words
        after it.

        Raises:
            BadInput: not whole sentences of the language.
        """
        if (sentences < 0).any() or sentences.shape[1] != self.longest:
            raise BadInput(f"sentences of hmm have {self.longest} words.", "Give whole ones.")
        shown = self.emission.T[sentences]  # [n, length, states]
        before, after = np.empty_like(shown), np.empty_like(shown)
        before[:, 0] = self.start
        for t in range(1, self.longest):
            before[:, t] = _scaled((before[:, t - 1] * shown[:, t - 1]) @ self.transition)
        after[:, -1] = 1 / len(self.start)
        for t in range(self.longest - 2, -1, -1):
            after[:, t] = _scaled((after[:, t + 1] * shown[:, t + 1]) @ self.transition.T)
        return before, after

    def conditionals(self, sentences: Ints) -> Floats:
        before, after = self.passes(sentences)
        return _scaled((before * after) @ self.emission)

    def state(self, sentences: Ints, position: int) -> Ints:
        """The most probable hidden state at a position (from 1), given the whole sentence."""
        if not 1 <= position <= self.longest:
            raise UsageError(f"There is no position {position}.", f"Positions are 1 to {self.longest}.")
        before, after = self.passes(sentences)
        at = position - 1
        return (before[:, at] * after[:, at] * self.emission.T[sentences[:, at]]).argmax(1)

    @cached_property
    def unigram(self) -> Floats:
        state, total = self.start, np.zeros(len(self.words))
        for _ in range(self.longest):
            total += state @ self.emission
            state = state @ self.transition
        return total / total.sum()

    @property
    def tasks(self) -> dict[str, Label]:
        """state-6, state-10: the hidden state there."""
        classes = [str(state) for state in range(len(self.start))]
        return {f"state-{at}": Label(lambda sentences, at=at: self.state(sentences, at), classes, self.longest) for at in POSITIONS}  # type: ignore[misc]


def _choose(cumulative: Floats, uniform: Floats) -> Ints:
    """The first entry of each row above its number."""
    return (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(1)


def _scaled(values: Floats) -> Floats:
    total = values.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise BadInput("a sentence has probability 0 in hmm.", "Give sentences of the language.")
    return values / total
