"""A grammar as a language: sentences, exact probabilities of every hidden word, labels.

- The probability of a sentence is linear in the row of the chart that holds a word. Its gradient there, the outside probability of each symbol at
  that place, gives all conditionals of all places at once: one inside and one outside pass instead of an inside pass for each place and symbol.
- Charts are batched over sentences of equal length. A span of n words is filled from the symbols alone that derive so many.

All conditionals of 150 sentences of `paper` (1,599 places) take .1 s on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import PAD, Floats, Ints, Label, Language, padded

CHART_BYTES = 1 << 26
"""Of the largest array of a pass; sentences come in blocks of this size."""
BLOCK = 100_000
"""Sentences that are drawn at a time."""


class PCFG(Language):
    """The sentences of a grammar.

    Args:
        grammar: checked.
        root_prior: labels of task A are the most probable root of a sentence, P(root) P(sentence | root). Off, as the official code: P(root) is left
            out, so it is not the posterior class (they differ in 43 % of the sentences of `paper`).
    """

    def __init__(self, grammar: Grammar, name: str = "pcfg", root_prior: bool = False) -> None:
        self.grammar = grammar
        self.name = name
        self.root_prior = root_prior
        self.words = grammar.words
        self.longest = int(grammar.longest[0])
        self._rules = {length: _Rules(grammar, length) for length in range(2, self.longest + 1)}

    # --- sentences --------------------------------------------------------------------------------------------------------------------------------

    def sample(self, count: int, rng: np.random.Generator) -> Ints:
        """Depth first, left to right, one `random()` for every expanded symbol, those with a single rule included: the same draws on any machine."""
        grammar = self.grammar
        tables = {}
        for symbol, rules in grammar.rules.items():
            outcomes = [grammar.word_number[rule.right[0]] if rule.is_word else rule.right for rule in rules]
            tables[symbol] = (np.cumsum([rule.probability for rule in rules]), outcomes)
        sentences = []
        for _ in range(count):
            stack, sentence = [grammar.symbols[0]], []
            while stack:
                cumulative, outcomes = tables[stack.pop()]
                outcome = outcomes[int(np.searchsorted(cumulative, rng.random() * cumulative[-1]))]
                if isinstance(outcome, int):
                    sentence.append(outcome)
                else:
                    stack.extend(reversed(outcome))
            sentences.append(sentence)
        return padded(sentences, self.longest)

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """The same distribution, many sentences at once, level by level: other draws than `sample`."""
        return np.concatenate([self._draw(min(BLOCK, count - start), rng) for start in range(0, count, BLOCK)])

    def _draw(self, count: int, rng: np.random.Generator) -> Ints:
        edges, first, second = self._outcomes
        n_symbols = len(self.grammar.symbols)
        entries = np.zeros(count, dtype=np.int64)  # symbols; a word w is n_symbols + w
        sentence = np.arange(count)
        while (open_ := np.flatnonzero(entries < n_symbols)).size:
            symbols = entries[open_]
            outcome = np.searchsorted(edges, symbols + rng.random(len(symbols)), side="right")
            outcome = np.clip(outcome, self._begins[symbols], self._begins[symbols + 1] - 1)
            entries[open_] = first[outcome]
            copies = np.ones(len(entries), dtype=np.int64)
            copies[open_] = 1 + (second[outcome] >= 0)
            place = np.cumsum(copies) - copies
            grown, of_sentence = np.repeat(entries, copies), np.repeat(sentence, copies)
            has_second = second[outcome] >= 0
            grown[place[open_[has_second]] + 1] = second[outcome[has_second]]
            entries, sentence = grown, of_sentence
        found = np.full((count, self.longest), PAD, dtype=np.int64)
        begins = np.searchsorted(sentence, np.arange(count))
        found[sentence, np.arange(len(sentence)) - begins[sentence]] = entries - n_symbols
        return found

    @cached_property
    def _begins(self) -> Ints:
        """int64 [symbols + 1]: where the outcomes of each symbol begin."""
        return np.append(0, np.cumsum([len(self.grammar.rules[symbol]) for symbol in self.grammar.symbols]))

    @cached_property
    def _outcomes(self) -> tuple[Floats, Ints, Ints]:
        """Upper edges of all outcomes, those of symbol s between s and s + 1; what each becomes, and its second part (-1: none)."""
        grammar, edges, first, second = self.grammar, [], [], []
        for index, symbol in enumerate(grammar.symbols):
            rules = grammar.rules[symbol]
            edges.append(index + np.cumsum([rule.probability for rule in rules]))
            for rule in rules:
                names = [len(grammar.symbols) + grammar.word_number[rule.right[0]]] if rule.is_word else [grammar.number[name] for name in rule.right]
                first.append(names[0])
                second.append(names[1] if len(names) == 2 else -1)
        return np.concatenate(edges), np.array(first), np.array(second)

    # --- charts -----------------------------------------------------------------------------------------------------------------------------------

    def inside(self, words: Ints) -> list[Floats]:
        """The chart of sentences of one length: `chart[n]` is float64 [sentences, places, symbols], the probability that a symbol derives the n words
        from a place on; `chart[0]` is empty.

        Args:
            words: int64 [sentences, length].
        """
        count, length = words.shape
        n_symbols = len(self.grammar.symbols)
        chart = [np.zeros((count, 0, n_symbols)), self.grammar.terminal.T[words]]
        for n in range(2, length + 1):
            rules, places = self._rules[n], length - n + 1
            found = np.zeros((count, places, n_symbols))
            if rules.size:
                total = np.zeros((count, places, rules.size))
                for k in rules.cuts:
                    total += chart[k][:, :places, rules.left] * chart[n - k][:, k : k + places, rules.right]
                found[..., rules.parents] = np.add.reduceat(total * rules.probability, rules.starts, axis=2)
            chart.append(found)
        return chart

    def _outside(self, chart: list[Floats]) -> Floats:
        """float64 [sentences, length, symbols]: the gradient of each sentence's probability with respect to the row of single words in its chart."""
        length = len(chart) - 1
        grammar = self.grammar
        above = [np.zeros_like(level) for level in chart]
        above[length][:, 0, grammar.roots] += grammar.root_probability
        for n in range(length, 1, -1):
            rules, places = self._rules[n], length - n + 1
            if not rules.size:
                continue
            passed = above[n][..., rules.parent] * rules.probability
            for k in rules.cuts:
                left, right = chart[k][:, :places, rules.left], chart[n - k][:, k : k + places, rules.right]
                above[k][:, :places, rules.lefts] += np.add.reduceat((passed * right)[..., rules.by_left], rules.left_starts, axis=2)
                above[n - k][:, k : k + places, rules.rights] += np.add.reduceat((passed * left)[..., rules.by_right], rules.right_starts, axis=2)
        return above[1]

    def _blocks(self, sentences: Ints) -> Iterator[tuple[Ints, Ints]]:
        """(numbers of sentences of one length, their words [n, length]), in blocks whose charts fit `CHART_BYTES`."""
        lengths = self.lengths(sentences)
        for length in np.unique(lengths):
            chosen = np.flatnonzero(lengths == length)
            widest = max((self._rules[n].size * (int(length) - n + 1) for n in range(2, int(length) + 1)), default=1)
            size = max(1, CHART_BYTES // (8 * max(1, widest)))
            for start in range(0, len(chosen), size):
                some = chosen[start : start + size]
                yield some, sentences[some, :length]

    def conditionals(self, sentences: Ints) -> Floats:
        found = np.zeros((*sentences.shape, len(self.words)))
        for some, words in self._blocks(sentences):
            weights = self._outside(self.inside(words)) @ self.grammar.terminal  # [n, length, words]
            total = weights.sum(-1, keepdims=True)
            if not (total > 0).all():
                bad = some[np.flatnonzero((total <= 0).any((1, 2)))[0]]
                what = f"is no sentence of {self.name}: {self.spell(sentences[bad : bad + 1])[0]}"
                raise BadInput(what, "Its words are known, their order is not.")
            found[some, : words.shape[1]] = weights / total
        return found

    def probabilities(self, sentences: Ints, symbols: Sequence[str] | None = None) -> Floats:
        """float64 [sentences, symbols]: P(sentence | symbol); of the start symbol alone where none is named."""
        names = list(symbols) if symbols is not None else [self.grammar.symbols[0]]
        numbers = [self.grammar.number[name] for name in names]
        found = np.zeros((len(sentences), len(names)))
        for some, words in self._blocks(sentences):
            whole = self.inside(words)[words.shape[1]][:, 0]
            whole[:, 0] = whole[:, self.grammar.roots] @ self.grammar.root_probability
            found[some] = whole[:, numbers]
        return found

    def next_words(self, sentences: Ints) -> Floats:
        """What a perfect causal model says: float64 [sentences, longest + 1, words + 1], of each place the probabilities of the next word, and last
        that the sentence ends, given the words before. Places after the end are zero."""
        grammar = self.grammar
        n_words = len(self.words)
        found = np.zeros((len(sentences), sentences.shape[1] + 1, n_words + 1))
        for some, words in self._blocks(sentences):
            chart = self.inside(words)
            length = words.shape[1]
            for t in range(length + 1):
                found[some, t, :n_words] = self._prefix(words[:, :t], chart) if t < self.longest else 0.0
                if t:
                    whole = chart[t][:, 0]
                    found[some, t, n_words] = whole[:, grammar.roots] @ grammar.root_probability
            mass = found[some, : length + 1].sum(-1, keepdims=True)
            found[some[:, None], np.arange(length + 1)] = found[some, : length + 1] / mass
        return found

    def _prefix(self, words: Ints, chart: list[Floats]) -> Floats:
        """float64 [sentences, words]: P(a sentence begins with these words and then this one). `begun[i]` is the probability that a symbol derives
        words i.. and the next one, and anything after; it is linear in the next word, which stays an axis."""
        grammar = self.grammar
        count, t = words.shape
        begun = np.zeros((t + 1, count, len(grammar.symbols), len(self.words)))
        for i in range(t, -1, -1):
            for symbol in grammar.order[:-1]:  # each after those that it derives; the start comes last
                value = np.broadcast_to(grammar.terminal[symbol], (count, len(self.words))).copy() if i == t else np.zeros((count, len(self.words)))
                for rule in self._of_parent[symbol]:
                    left, right, p = grammar.left[rule], grammar.right[rule], grammar.probability[rule]
                    value += p * begun[i, :, left]
                    for n in range(1, t - i + 1):
                        value += p * chart[n][:, i, left, None] * begun[i + n, :, right]
                begun[i, :, symbol] = value
        return np.einsum("r,srw->sw", grammar.root_probability, begun[0][:, grammar.roots])

    @cached_property
    def _of_parent(self) -> list[Ints]:
        """The numbers of the pairs of each symbol."""
        return [np.flatnonzero(self.grammar.parent == symbol) for symbol in range(len(self.grammar.symbols))]

    # --- statistics and labels --------------------------------------------------------------------------------------------------------------------

    @cached_property
    def unigram(self) -> Floats:
        counts = self.grammar.expected_counts @ self.grammar.terminal
        return counts / counts.sum()

    @property
    def tasks(self) -> dict[str, Label]:
        """A: the root of the whole sentence; B, C: the symbol that most probably derives the first four or two words."""
        symbols = sorted(self.grammar.symbols)
        return {
            "A": Label(self._root_label, [self.grammar.symbols[root] for root in self.grammar.roots], 1),
            "B": Label(lambda sentences: self._span_label(sentences, 4), symbols, 4),
            "C": Label(lambda sentences: self._span_label(sentences, 2), symbols, 2),
        }

    def _root_label(self, sentences: Ints) -> Ints:
        names = [self.grammar.symbols[root] for root in self.grammar.roots]
        scores = self.probabilities(sentences, names)
        if self.root_prior:
            scores = scores * self.grammar.root_probability
        return scores.argmax(1)  # of equal ones, or where none derives it, the first

    def _span_label(self, sentences: Ints, length: int) -> Ints:
        if (self.lengths(sentences) < length).any():
            raise UsageError(f"A label of the first {length} words needs sentences of so many.", "Leave shorter ones out.")
        names = self.grammar.symbols[1:]
        at = np.array([sorted(self.grammar.symbols).index(name) for name in names])
        return at[self.probabilities(sentences[:, :length], names).argmax(1)]


class _Rules:
    """The pairs that derive spans of n words, as the passes over a chart want them."""

    def __init__(self, grammar: Grammar, n: int) -> None:
        low, high = grammar.shortest, grammar.longest
        fits = (low[grammar.left] + low[grammar.right] <= n) & (n <= high[grammar.left] + high[grammar.right])
        chosen = np.flatnonzero(fits)
        chosen = chosen[np.argsort(grammar.parent[chosen], kind="stable")]
        self.size = len(chosen)
        self.parent, self.left, self.right = grammar.parent[chosen], grammar.left[chosen], grammar.right[chosen]
        self.probability = grammar.probability[chosen]
        self.parents, self.starts = np.unique(self.parent, return_index=True)
        self.by_left, self.lefts, self.left_starts = _grouped(self.left)
        self.by_right, self.rights, self.right_starts = _grouped(self.right)
        self.cuts = [k for k in range(1, n) if ((k <= high[self.left]) & (n - k <= high[self.right])).any()]


def _grouped(values: npt.NDArray[np.int64]) -> tuple[Ints, Ints, Ints]:
    """(order that sorts them, the distinct ones, where each begins)."""
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    return order, distinct, starts
