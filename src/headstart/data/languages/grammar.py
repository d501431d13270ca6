"""Probabilistic grammars without cycles: S -> root, symbol -> two symbols, symbol -> word.

Official files of this form (Liuhong99/implicitbiasmlmcode pcfg/rule_deep_mlm.txt) are NLTK's text form, which `from_text` reads and `to_text` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import read_bounded

START = "S"
SUM_TOLERANCE = 1e-3
"""Probabilities of a symbol that sum to 1 within this are normalised: rows of the official grammar are off by up to 2.3e-4."""
LONGEST = 256
"""Words of the longest sentence that a grammar may derive: charts grow with its square, probabilities of sentences must not underflow."""
MAX_BYTES = 2**26
NO_CYCLES = "A sentence must end: let no symbol derive itself."


@dataclass(frozen=True)
class Rule:
    """One right-hand side of a symbol."""

    symbol: str
    right: tuple[str, ...]
    """Two symbols, one root (of the start symbol only), or one word."""
    is_word: bool
    probability: float


class Grammar:
    """A checked grammar as arrays. Symbols are numbered in the order of their first rule, the start symbol is 0.

    Args:
        rules: in order; equal ones are summed at the place of the first.
        words: all words of the language, of which some may have no rule; None: those of the rules, in their order.

    Attributes:
        symbols: names; `symbols[0]` is the start.
        words: names.
        roots: int64 [roots], what the start symbol becomes; `root_probability` float64 [roots].
        parent, left, right: int64 [pairs]; `probability` float64 [pairs]: symbol -> left right, grouped by symbol.
        terminal: float64 [symbols, words]: symbol -> word.

    Raises:
        BadInput: it is not of this form, does not sum to 1, or has a symbol that is unreachable, endless or derives itself; the symbol is named.
    """

    def __init__(self, rules: Iterable[Rule], words: Sequence[str] | None = None, file: str | Path | None = None) -> None:
        self.file = file
        of_symbol: dict[str, dict[tuple[tuple[str, ...], bool], float]] = {}
        for rule in rules:
            entries = of_symbol.setdefault(rule.symbol, {})
            key = (rule.right, rule.is_word)
            entries[key] = entries.get(key, 0.0) + rule.probability
        if START not in of_symbol:
            raise self._bad(f"has no start symbol {START}.", f"Give rules {START} -> ROOT.")
        self.symbols = [START, *(symbol for symbol in of_symbol if symbol != START)]
        self.number = {symbol: index for index, symbol in enumerate(self.symbols)}
        found = dict.fromkeys(right[0] for entries in of_symbol.values() for right, is_word in entries if is_word)
        self.words = list(found) if words is None else list(words)
        self.word_number = {word: index for index, word in enumerate(self.words)}
        if missing := [word for word in found if word not in self.word_number]:
            raise self._bad(f"derives the word {missing[0]!r}, which is not among its words.", "Add it to the words.")
        self.rules = {symbol: self._checked(symbol, entries) for symbol, entries in of_symbol.items()}
        self._build()
        self._refuse_unreachable()
        self.shortest, self.longest = self._lengths()

    def _bad(self, what: str, mend: str) -> BadInput:
        return BadInput(what, mend, file=self.file) if self.file is not None else BadInput(f"The grammar {what}", mend)

    def _checked(self, symbol: str, entries: Mapping[tuple[tuple[str, ...], bool], float]) -> list[Rule]:
        for (right, is_word), probability in entries.items():
            if not (np.isfinite(probability) and probability >= 0):
                raise self._bad(f"gives {symbol} -> {' '.join(right)} the probability {probability}.", "Give a number of at least 0.")
            if not is_word and (unknown := next((name for name in right if name not in self.number), None)) is not None:
                raise self._bad(f"has no rule for {unknown}, which {symbol} derives.", "Add one that ends in words.")
            wanted = 1 if is_word or symbol == START else 2
            if len(right) != wanted or (symbol == START and is_word):
                form = f"{START} -> ROOT" if symbol == START else "SYMBOL -> SYMBOL SYMBOL, or SYMBOL -> WORD"
                raise self._bad(f"has the rule {symbol} -> {' '.join(right)}.", f"The form that is understood here: {form}.")
        total = sum(entries.values())
        if abs(total - 1) > SUM_TOLERANCE:
            raise self._bad(f"gives the rules of {symbol} probabilities that sum to {total:.6g}.", "Let them sum to 1.")
        return [Rule(symbol, right, is_word, probability / total) for (right, is_word), probability in entries.items()]

    def _build(self) -> None:
        roots = self.rules[START]
        self.roots = np.array([self.number[rule.right[0]] for rule in roots])
        self.root_probability = np.array([rule.probability for rule in roots])
        others = [rule for symbol in self.symbols[1:] for rule in self.rules[symbol]]
        pairs = [rule for rule in others if not rule.is_word]
        self.parent = np.array([self.number[rule.symbol] for rule in pairs], dtype=np.int64)
        self.left, self.right = (np.array([self.number[rule.right[side]] for rule in pairs], dtype=np.int64) for side in (0, 1))
        self.probability = np.array([rule.probability for rule in pairs])
        self.terminal = np.zeros((len(self.symbols), len(self.words)))
        for rule in others:
            if rule.is_word:
                self.terminal[self.number[rule.symbol], self.word_number[rule.right[0]]] = rule.probability

    def _refuse_unreachable(self) -> None:
        reached, queue = {START}, [START]
        while queue:
            for rule in self.rules[queue.pop()]:
                for name in () if rule.is_word else rule.right:
                    if name not in reached:
                        reached.add(name)
                        queue.append(name)
        if unreachable := [symbol for symbol in self.symbols if symbol not in reached]:
            raise self._bad(f"never reaches the symbol {unreachable[0]}.", "Remove its rules, or derive it from another symbol.")

    @cached_property
    def order(self) -> list[int]:
        """The symbols, each after all those that it derives.

        Raises:
            BadInput: one derives itself.
        """
        found: list[int] = []
        state: dict[str, bool] = {}  # False: being looked at
        stack = [(START, iter(self._derived(START)))]
        state[START] = False
        while stack:
            symbol, below = stack[-1]
            for name in below:
                if state.get(name) is False:
                    ends = any(rule.is_word for rule in self.rules[name])
                    what = "derives itself" if ends else "derives itself and never a word"
                    raise self._bad(f"lets {name} derive itself: a sentence may never end ({what}).", NO_CYCLES)
                if name not in state:
                    state[name] = False
                    stack.append((name, iter(self._derived(name))))
                    break
            else:
                state[symbol] = True
                found.append(self.number[symbol])
                stack.pop()
        return found

    def _derived(self, symbol: str) -> dict[str, None]:
        return dict.fromkeys(name for rule in self.rules[symbol] if not rule.is_word for name in rule.right)

    def _lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Words of the shortest and longest span that each symbol derives, int64 [symbols]."""
        shortest, longest = (np.zeros(len(self.symbols), dtype=np.int64) for _ in range(2))
        for index in self.order:
            spans = [
                (1, 1) if rule.is_word else tuple(sum(int(lengths[self.number[name]]) for name in rule.right) for lengths in (shortest, longest))
                for rule in self.rules[self.symbols[index]]
                if rule.probability > 0
            ]
            shortest[index], longest[index] = min(low for low, _ in spans), max(high for _, high in spans)
        if longest[0] > LONGEST:
            raise self._bad(f"derives sentences of up to {longest[0]:,} words.", f"At most {LONGEST} are computed exactly.")
        return shortest, longest

    @cached_property
    def expected_counts(self) -> np.ndarray:
        """float64 [symbols]: how often each symbol is expanded in a sentence, on average."""
        counts = np.zeros(len(self.symbols))
        counts[0] = 1.0
        for index in reversed(self.order):
            for rule in self.rules[self.symbols[index]]:
                for name in () if rule.is_word else rule.right:
                    counts[self.number[name]] += counts[index] * rule.probability
        return counts

    @cached_property
    def expected_length(self) -> float:
        """Words of a sentence, on average."""
        return float((self.expected_counts[:, None] * self.terminal).sum())

    # --- files ------------------------------------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """{"words": [...], "rules": [{"symbol", "pair" | "root" | "word", "probability"}]}; `from_json` is the inverse."""
        rules = []
        for symbol in self.symbols:
            for rule in self.rules[symbol]:
                right = {"word": rule.right[0]} if rule.is_word else {"root": rule.right[0]} if symbol == START else {"pair": list(rule.right)}
                rules.append({"symbol": symbol, **right, "probability": rule.probability})
        return {"words": self.words, "rules": rules}

    @classmethod
    def from_json(cls, content: Any, file: str | Path | None = None) -> Grammar:
        """Raises BadInput where `content` is no grammar."""
        mend = 'Its form: {"words": [...], "rules": [{"symbol": "A", "pair": ["B", "C"], "probability": 0.5}]}.'
        rules = content.get("rules") if isinstance(content, dict) else None
        words = content.get("words") if isinstance(content, dict) else None
        if not isinstance(rules, list) or not (words is None or (isinstance(words, list) and all(isinstance(word, str) for word in words))):
            raise BadInput("is no grammar.", mend, file=file)
        found = []
        for number, entry in enumerate(rules, 1):
            right = [entry[key] for key in ("pair", "root", "word") if key in entry] if isinstance(entry, dict) else []
            names = right[0] if right and isinstance(right[0], list) else right[:1]
            sound = len(right) == 1 and isinstance(entry.get("symbol"), str) and isinstance(entry.get("probability"), int | float)
            if not sound or not all(isinstance(name, str) for name in names):
                raise BadInput("is no rule.", mend, file=file, record=number)
            found.append(Rule(entry["symbol"], tuple(names), "word" in entry, float(entry["probability"])))
        return cls(found, words, file)

    def to_text(self) -> str:
        """NLTK's form, a rule a line: A -> B C [0.25]; words in quotes."""
        lines = []
        for symbol in self.symbols:
            for rule in self.rules[symbol]:
                right = f"'{rule.right[0]}'" if rule.is_word else " ".join(rule.right)
                lines.append(f"{symbol} -> {right} [{rule.probability!r}]")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str, words: Sequence[str] | None = None, file: str | Path | None = None) -> Grammar:
        """Of NLTK's form; several right-hand sides may be joined by |. Raises BadInput with the number of a line that is no rule."""
        rules = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            head, arrow, tail = line.partition("->")
            symbol = head.strip()
            if not arrow or not re.fullmatch(r"[\w^<>-]+", symbol):
                raise BadInput(f"is no rule: {line[:60]!r}", "The form: A -> B C [0.25] | 'word' [0.75]", file=file, record=number)
            for part in tail.split("|"):
                found = re.fullmatch(r"\s*(?:'([^']+)'|\"([^\"]+)\"|([\w^<>-]+(?:\s+[\w^<>-]+)*))\s*\[([-+.\deE]+)\]\s*", part)
                if found is None:
                    what = f"is no right-hand side: {part.strip()[:60]!r}"
                    raise BadInput(what, "The form: B C [0.25], or 'word' [0.75]", file=file, record=number)
                word = found[1] or found[2]
                try:
                    probability = float(found[4])
                except ValueError:
                    raise BadInput(f"has no probability: {found[4]!r}", "Give a number.", file=file, record=number) from None
                rules.append(Rule(symbol, (word,) if word else tuple(found[3].split()), bool(word), probability))
        return cls(rules, words, file)


def read_grammar(path: Path) -> Grammar:
    """A .json file (`Grammar.to_json`), or anything else in NLTK's text form.

    Raises:
        BadInput: it cannot be read, or is no grammar.
    """
    try:
        text = read_bounded(path, MAX_BYTES, "grammar").decode("utf-8")
        return Grammar.from_json(json.loads(text), path) if path.suffix == ".json" else Grammar.from_text(text, file=path)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read ({error}).", "Give a grammar as JSON, or in NLTK's text form.", file=path) from error
