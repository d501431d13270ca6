"""Which environment, and its sizes. The flags are `--environment.NAME`. No torch here: the command line answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUILTIN = {
    "hypergrid": "a grid of `side` cells in `dimensions` directions, from the origin by single steps",
    "bits": "`length` bits (40), appended as words of `word_bits`",
    "tfbind8": "DNA of `length` letters (8) ACGT",
    "rna": "RNA of `length` letters (14) ACGU",
    "amp": "peptides of 1 to `length` (50) of the 20 amino acids",
    "words": "strings of `length` letters (8) of `alphabet`",
}
"""Name -> what it builds. --data builtin:NAME takes it."""
PREFIX = "builtin:"
REWARDS = {
    "corners": ("hypergrid", "2.5 near the four corners, .5 around them, .001 elsewhere"),
    "sparse": ("hypergrid", "1 at three cells, 0 elsewhere"),
    "modes": ("bits", "exp(-d / 3), d bits to the nearest of 60 modes made of five motifs"),
    "rna": ("rna", "builtin:rna:TARGETS.tsv, how strongly a strand binds to targets: a table with the columns name and sequence"),
    "amp": ("amp", "the chance of being antimicrobial; builtin:amp:FOLDER reads modlamp's tables from there"),
}
"""Rewards of the paper's tasks: name -> (the environment of its objects, what it is). `headstart adapt RUN --reward builtin:NAME` takes it."""
HOW_TO_GIVE = f"Give FILE.py:FUNCTION, a table with the columns sequence and value, FILE.npz:NAME, or {PREFIX}NAME ({', '.join(REWARDS)})."


def reward_file(spec: str) -> Path | None:
    """The file or folder that a reward is read from, there or not; None for a built-in one that needs none.

    FILE.py:FUNCTION, FILE.npz:NAME, builtin:NAME:FILE, or the file itself.
    """
    if spec.startswith(PREFIX):
        place = spec.removeprefix(PREFIX).partition(":")[2]
        return Path(place) if place else None
    for ending in (".py", ".npz"):
        if f"{ending}:" in spec:
            return Path(spec.partition(f"{ending}:")[0] + ending)
    return Path(spec)


@dataclass
class EnvironmentConfig:
    """Sizes of a built-in environment; one of your own has its sizes in its class."""

    name: str | None = None
    """Of a Python file with several environments: the class. None: the only one."""
    length: int | None = None
    """Letters (bits) of an object, at most so many where the length is free. None: that of the environment's own paper."""
    alphabet: str = "ACGT"
    """words: the letters, in the order of the actions."""
    word_bits: int = 4
    """bits: bits that one action appends."""
    side: int = 8
    """hypergrid: cells in each direction. The paper: 16 to 128."""
    dimensions: int = 2
    """hypergrid: directions."""
    edge_ends: bool = True
    """hypergrid: entering the last cell of a direction ends, as in GAFN's code. Off: only stopping does, as in torchgfn."""

    def preparation(self) -> dict[str, Any]:
        """What decides the environment."""
        return asdict(self)
