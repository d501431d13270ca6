"""Antimicrobial peptides: a reward that was learned from known ones.

The paper's authors take DBAASP with a split by an oracle (BioSeq-GFN-AL, lib/dataset/regression.py), which is not at hand; this one is trained on the
two tables of the package modlamp (BSD-3), and says how well it tells held-out peptides apart.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.core.errors import BadInput, MissingDependency
from headstart.core.rng import Rng
from headstart.data.environments.sequences import AMINO_ACIDS, Peptides

FILES = ("AMPvsUniProt.csv", "AMPvsTMset.csv")
HIDDEN = 256
STEPS = 300
BATCH = 256
TEST_SHARE = 0.2
LEAST = 20
"""Peptides of each kind, without which there is nothing to learn from."""


@dataclass(frozen=True)
class Peptide:
    """A known peptide."""

    sequence: str
    antimicrobial: bool


class AmpReward(nn.Module):
    """Probability of being antimicrobial, from a network with two hidden layers on the one-hot letters, frozen after training.

    Attributes:
        auc: on the held-out fifth.
        trained_on, tested_on: numbers of peptides.
    """

    def __init__(self, environment: Peptides, peptides: list[Peptide], seed: int = 0) -> None:
        super().__init__()
        self.environment = environment
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(environment.encoding_size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)]
            self.network = nn.Sequential(*layers)
        objects = environment.from_text([peptide.sequence for peptide in peptides])
        labels = torch.tensor([float(peptide.antimicrobial) for peptide in peptides])
        order = Rng.at(seed, 0, torch.arange(len(peptides))).uniform("split").argsort()
        held = int(TEST_SHARE * len(peptides))
        self.tested_on, self.trained_on = held, len(peptides) - held
        self._train(objects[order[held:]], labels[order[held:]], seed)
        self.requires_grad_(False)
        self.auc = auc(self(objects[order[:held]]), labels[order[:held]])

    def _train(self, objects: Tensor, labels: Tensor, seed: int) -> None:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-2)
        for step in range(STEPS):
            rows = Rng.at(seed, step, torch.arange(BATCH)).integers("row", len(objects))
            loss = F.binary_cross_entropy_with_logits(self.network(self.environment.encode(objects[rows]))[:, 0], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def forward(self, objects: Tensor) -> Tensor:
        """float32 [n], 0 to 1."""
        return torch.sigmoid(self.network(self.environment.encode(objects))[:, 0])


def read_peptides(environment: Peptides, folder: Path | None = None) -> list[Peptide]:
    """The distinct peptides of modlamp's tables that the environment can build.

    Args:
        folder: with the tables; None: the installed package's.

    Raises:
        MissingDependency: modlamp is not installed. BadInput: the tables are not there, or have hardly any peptide that the environment can build.
    """
    if folder is None:
        spec = importlib.util.find_spec("modlamp")
        if spec is None or spec.origin is None:
            raise MissingDependency("modlamp", "design", "The reward of antimicrobial peptides")
        folder = Path(spec.origin).parent / "data"
    found: dict[str, bool] = {}
    for name in FILES:
        try:
            with (folder / name).open(newline="", encoding="utf-8") as file:
                next(file)  # "5200,1,UniProt,AMP"
                for sequence, label in csv.reader(file):
                    found.setdefault(sequence.strip(), label.strip() == "1")  # the label has a blank before it
        except (OSError, ValueError, StopIteration, csv.Error) as error:
            mend = "Give the folder with both tables, or none for the package's."
            raise BadInput(f"is not that table of modlamp ({error}).", mend, file=folder / name) from None
    letters = set(AMINO_ACIDS)
    kept = [Peptide(sequence, label) for sequence, label in found.items() if environment.has_length(len(sequence)) and set(sequence) <= letters]
    if min(sum(peptide.antimicrobial is kind for peptide in kept) for kind in (True, False)) < LEAST:
        what = f"has hardly a peptide of at most {environment.length} letters of each kind."
        raise BadInput(what, "Raise --environment.length of the sampler.", file=folder)
    return kept


def auc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: how often a peptide of the one class is above one of the other."""
    above = (scores[labels == 1][:, None] - scores[labels == 0][None]).sign()
    return float(above.mean() / 2 + 0.5)
