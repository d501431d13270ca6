"""Linear probes of encoders on the tasks of a language with known statistics (data.languages): which features a model of the optimal loss has.

Features are the last hidden states of the places of a sentence side by side, one linear layer learns on them (Liuhong99/implicitbiasmlmcode
pcfg/run_lp.py): AdamW at 1e-3, batch 512, 50 epochs, dropout .1, 50 steps of warm-up and a linear decay; the accuracy is that of the last epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.text import encode
from headstart.core.errors import BadInput
from headstart.data.languages.files import distinct_sentences
from headstart.data.languages.language import Ints, Language
from headstart.tasks.exact_loss import BATCH, Words, token_rows


@dataclass(frozen=True)
class Pool:
    """Distinct sentences with their classes; none is in both parts."""

    train: Ints
    train_labels: Ints
    test: Ints
    test_labels: Ints
    classes: list[str]

    @property
    def majority(self) -> float:
        """Share of the largest class of the test sentences."""
        return float(np.bincount(self.test_labels).max() / len(self.test_labels))


def draw_pool(language: Language, task: str, train: int, test: int, shortest: int, seed: int = 0) -> Pool:
    """Sentences of at least `shortest` words, drawn until there are enough distinct ones.

    Raises:
        BadInput: the language has too few.
    """
    label = language.tasks[task]
    found = distinct_sentences(language, train + test, max(shortest, label.shortest), np.random.default_rng([seed, 2]))
    if found is None:
        raise BadInput(f"{language.name} has fewer than {train + test:,} distinct sentences of {shortest} words or more.", "Ask for fewer.")
    labels = label.of(found)
    return Pool(found[:train], labels[:train], found[train:], labels[train:], label.classes)


@torch.no_grad()
def probe_features(model: Any, sentences: Ints, words: Words, places: int, device: torch.device, dropout: bool = False) -> Tensor:
    """float32 [n, places * width], on the device: the last hidden states of the places 1 to `places` of each sentence, side by side. Padding has the
    encoder's output there, as in the official code (pcfg/run_lp.py).

    Args:
        model: a transformers ForMaskedLM.
        places: of the longest sentence.
        dropout: leave the encoder's own on, which the official script does by an oversight.
    """
    rows, mask = token_rows(sentences[:, :places], words)
    rows = torch.nn.functional.pad(rows, (0, max(0, places + 2 - rows.shape[1])), value=words.pad)
    mask = torch.nn.functional.pad(mask, (0, rows.shape[1] - mask.shape[1]), value=False)
    model.train(dropout)
    found = []
    for start in range(0, len(rows), BATCH):
        some = slice(start, start + BATCH)
        states = encode(model.base_model, {"input_ids": rows[some].to(device), "attention_mask": mask[some].to(device)})
        found.append(states[:, 1 : places + 1].flatten(1).float())
    model.eval()
    return torch.cat(found)


def linear_probe(
    features: Tensor, labels: Tensor, scored: Tensor, classes: int, seed: int, *, epochs: int = 50, batch: int = 512, dropout: float = 0.1
) -> Tensor:
    """int64 [m]: the classes of `scored` [m, dim] by a linear layer that learned on `features` [n, dim]; by the draws of the seed alone."""
    steps = epochs * -(-len(features) // batch)
    warmup = min(50, steps)
    with torch.random.fork_rng(devices=[features.device] if features.is_cuda else []), torch.enable_grad():
        torch.manual_seed(seed)
        layer = nn.Linear(features.shape[1], classes).to(features.device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
        step = 0
        for _ in range(epochs):
            order = torch.randperm(len(features)).to(features.device)
            for rows in order.split(batch):
                rate = min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
                optimizer.param_groups[0]["lr"] = 1e-3 * rate
                loss = F.cross_entropy(layer(F.dropout(features[rows], dropout)), labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1
    with torch.no_grad():
        return layer(scored).argmax(1)
