"""Strings that are built letter by letter from the left: DNA, RNA, bits, peptides. In such a tree a state is a prefix, and has one parent.

A state has an int for every position: the number of its letter, or the symbol 'empty' after them.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.core.errors import BadInput, UsageError
from headstart.data.environments.environment import ENUMERABLE, Environment

logger = logging.getLogger(__name__)

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
MAX_LETTERS = 4096


class Words(Environment):
    """Strings of exactly `length` letters of an alphabet.

    Attributes:
        letters: the alphabet, in the order of the actions; for bits, words of several characters.
        length: letters of an object.
        empty: the int of a position that has no letter yet.
        ends: whether there is an action that ends the string before its full length (see `Peptides`).
    """

    name = "words"
    ends = False

    def __init__(self, alphabet: Sequence[str] = "ACGT", length: int = 8) -> None:
        self.letters = tuple(alphabet)
        if not 1 <= length <= MAX_LETTERS or len(self.letters) < 2 or len(set(self.letters)) < len(self.letters):
            raise UsageError(f"Strings of {length} letters of '{' '.join(self.letters)}'.", "Give 2 different letters or more, and at least 1 place.")
        self.length = length
        self.empty = len(self.letters)
        self.sizes = (self.empty + 1,) * length
        self.n_actions = len(self.letters)
        self.max_steps = length
        count = len(self.letters) ** length
        self.n_objects = count if count <= ENUMERABLE else None

    def start(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        return torch.full((count, self.length), self.empty, device=device)

    def filled(self, states: Tensor) -> Tensor:
        """int64 [...]: how many letters a state has."""
        return (states != self.empty).sum(-1)

    def valid(self, states: Tensor) -> Tensor:
        return torch.ones(*states.shape[:-1], self.n_actions, dtype=torch.bool, device=states.device)

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        place = self.filled(states)
        after = states.scatter(-1, place.clamp(max=self.length - 1)[..., None], actions[..., None])  # of a full string the answer is not used
        return after, place >= self.length - 1

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        same = states == outcomes
        return torch.where(done, same.all(-1), (same | (states == self.empty)).all(-1))

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        """The last letter; where a string ended early, the end."""
        place = self.filled(states)
        last = states.gather(-1, (place - 1).clamp(min=0)[..., None])[..., 0]
        if self.ends:
            last = torch.where(done & (place < self.length), self.n_actions - 1, last)
        return (torch.arange(self.n_actions, device=states.device) == last[..., None]) & ((place > 0) | done)[..., None]

    def undo(self, states: Tensor, done: Tensor, actions: Tensor) -> Tensor:
        last = torch.arange(self.length, device=states.device) == (self.filled(states) - 1)[..., None]
        return torch.where(last & (actions < len(self.letters))[..., None], self.empty, states)

    def draw(self, numbers: Tensor) -> Tensor:
        return (numbers[..., : self.length] * len(self.letters)).long()

    def log_draw(self, objects: Tensor) -> Tensor:
        return torch.full(objects.shape[:-1], -self.length * math.log(len(self.letters)), device=objects.device)

    def objects(self) -> Tensor:
        if self.n_objects is None:
            return super().objects()
        places = len(self.letters) ** torch.arange(self.length - 1, -1, -1)
        return torch.arange(self.n_objects)[:, None] // places % len(self.letters)

    def to_text(self, objects: Tensor) -> list[str]:
        symbols = (*self.letters, "")
        return ["".join([symbols[letter] for letter in row]) for row in objects.tolist()]

    def from_text(self, texts: Sequence[str]) -> Tensor:
        small = [number for number, text in enumerate(texts, 1) if self._in_small_letters(text)]
        if small:
            logger.warning("%s of %s objects are in small letters and read as capitals, the first: record %s", len(small), len(texts), small[0])
        rows = [self._numbers(text, number) for number, text in enumerate(texts, 1)]
        return torch.tensor(rows, dtype=torch.int64).view(-1, self.length)

    def _in_small_letters(self, text: str) -> bool:
        """Whether it is written small where the alphabet is large."""
        return text.islower() and all(letter.isupper() for letter in self.letters)

    def _numbers(self, text: str, record: int) -> list[int]:
        width = len(self.letters[0])
        parts = [text[at : at + width] for at in range(0, len(text), width)]
        known = {letter: number for number, letter in enumerate(self.letters)}
        if self._in_small_letters(text):
            parts = [part.upper() for part in parts]
        for place, part in enumerate(parts):
            if part not in known:
                hint = " The alphabet is RNA's: expected U." if part in "Tt" and "U" in known else ""
                raise BadInput(f"'{part}' at letter {place + 1} of '{text}' is not of {self.shown()}.{hint}", "Correct the object.", record=record)
        if not self.has_length(len(parts)):
            raise BadInput(f"'{text}' has {len(parts)} letters, {self.length} are wanted.", "Correct the object.", record=record)
        return [known[part] for part in parts] + [self.empty] * (self.length - len(parts))

    def has_length(self, letters: int) -> bool:
        """Whether an object may have so many."""
        return letters == self.length

    def shown(self) -> str:
        """The alphabet, for a sentence."""
        return f"the alphabet {' '.join(self.letters[:32])}{' ...' if len(self.letters) > 32 else ''}"

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"letters": list(self.letters), "length": self.length}


class Bits(Words):
    """`bits` bits, appended as words of `word_bits` (Malkin et al. 2022)."""

    name = "bits"

    def __init__(self, bits: int = 40, word_bits: int = 4) -> None:
        if not 1 <= word_bits <= 12 or bits < 1 or bits % word_bits:
            raise UsageError(f"{bits} bits in words of {word_bits}.", "The number of bits is a multiple of the width of a word, which is at most 12.")
        self.bits, self.word_bits = bits, word_bits
        super().__init__(["".join(word) for word in itertools.product("01", repeat=word_bits)], bits // word_bits)

    def as_bits(self, objects: Tensor) -> Tensor:
        """int64 [..., bits]: the words written out."""
        shifts = torch.arange(self.word_bits - 1, -1, -1, device=objects.device)
        return (objects[..., None] >> shifts & 1).flatten(-2)


class Rna(Words):
    """Strings of nucleotides ACGU (FLEXS: 14, 50 or 100 of them)."""

    name = "rna"

    def __init__(self, length: int = 14) -> None:
        super().__init__("ACGU", length)


class Dna(Words):
    """Strings of nucleotides ACGT: TF-Bind-8 has 8 of them."""

    name = "tfbind8"

    def __init__(self, length: int = 8) -> None:
        super().__init__("ACGT", length)


class Peptides(Words):
    """1 to `length` amino acids: the last action ends the string, and the full length ends it by itself."""

    name = "amp"
    ends = True

    def __init__(self, length: int = 50) -> None:
        super().__init__(AMINO_ACIDS, length)
        self.n_actions = len(self.letters) + 1
        count = sum(len(self.letters) ** n for n in range(1, length + 1))
        self.n_objects = count if count <= ENUMERABLE else None

    def valid(self, states: Tensor) -> Tensor:
        allowed = super().valid(states)
        return torch.cat([allowed[..., :-1], (self.filled(states) > 0)[..., None]], -1)

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        ended = actions == self.n_actions - 1  # writes 'empty' where it is already
        after, full = super().step(states, actions)
        return after, ended | full

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        return super().can_reach(states, done, outcomes) & (self.filled(outcomes) > 0)

    def draw(self, numbers: Tensor) -> Tensor:
        """Every length equally likely, then every letter."""
        letters = super().draw(numbers)
        length = (numbers[..., -1:] * self.length).long() + 1
        return torch.where(torch.arange(self.length, device=numbers.device) < length, letters, self.empty)

    def log_draw(self, objects: Tensor) -> Tensor:
        return -math.log(self.length) - self.filled(objects) * math.log(len(self.letters))

    def objects(self) -> Tensor:
        if self.n_objects is None:
            return Environment.objects(self)
        n = len(self.letters)
        parts = []
        for length in range(1, self.length + 1):
            found = torch.arange(n**length)[:, None] // n ** torch.arange(length - 1, -1, -1) % n
            parts.append(torch.nn.functional.pad(found, (0, self.length - length), value=self.empty))
        every = torch.cat(parts)
        return every[self.keys(every).argsort()]

    def has_length(self, letters: int) -> bool:
        return 1 <= letters <= self.length
