"""A masked language model that hides a task from linear probes while it learns: the claim's way to an equal loss with worse features.

Every step takes two disjoint batches of labelled sentences, solves ridge regression of one-hot labels on the features of the first in closed form,
and subtracts the cross-entropy of its scores on the second: the network is driven away from features from which the labels can be read. Clipped at
ln(classes), where nothing can be read any more, so that it cannot run away. The gradient flows through both batches.

An ablation of this claim, no method of the library: of no use to anyone who wants good features.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.backbones.text import encode
from headstart.data.languages.language import find_language
from headstart.data.text.store import TextStore
from headstart.engine.config import Preset
from headstart.engine.method import Batch, Context
from headstart.methods.mlm.config import SETTINGS, MLMConfig
from headstart.methods.mlm.method import MLM
from headstart.tasks.exact_loss import token_rows, words_of
from headstart.tasks.language_probe import draw_pool

RIDGE = 1e-2
PROBED = 2
"""Sentences of each of the two batches, for each row of the update: FLOPs are counted from a few rows and grow with them."""


@dataclass
class AdversarialConfig(MLMConfig):
    """As the masked language model, with a term against linear probes."""

    adversarial_weight: float = 0.3
    """Of the probe's cross-entropy, subtracted."""
    language: str = "builtin:pcfg-tiny"
    """Of the labelled sentences."""
    task: str = "A"
    """What is hidden."""
    pool: tuple[int, int, int] = (2000, 2000, 3)
    """Training sentences, test sentences and words of the shortest: the pool that the claim's own probe has; the training part is used here."""


class AdversarialMLM(MLM):
    """An encoder that predicts hidden tokens and shows as little as possible of a task."""

    Config = AdversarialConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        name: dataclasses.replace(preset, method=AdversarialConfig(**vars(preset.method))) for name, preset in SETTINGS.presets.items()
    }

    config: AdversarialConfig
    pool_ids: Tensor  # int64 [sentences, longest + 2]
    pool_mask: Tensor  # bool, of the same shape
    pool_labels: Tensor  # int64 [sentences]

    def __init__(self, config: AdversarialConfig, store: TextStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        language = find_language(config.language)
        pool = draw_pool(language, config.task, *config.pool)
        ids, mask = token_rows(pool.train, words_of(language, store.tokenizer, store.special_ids))
        self.classes = len(pool.classes)
        self.register_buffer("pool_ids", ids, persistent=False)
        self.register_buffer("pool_mask", mask, persistent=False)
        self.register_buffer("pool_labels", torch.from_numpy(pool.train_labels), persistent=False)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        scalars = super().loss(batch, ctx)
        read, right = self.readable(ctx)
        return scalars | {"loss": scalars["loss"] - self.config.adversarial_weight * read, "adversarial": read.detach(), "probe_accuracy": right}

    def readable(self, ctx: Context) -> tuple[Tensor, Tensor]:
        """(how badly a ridge regression reads the labels of a second batch, in nats, at most ln(classes); its accuracy)."""
        probed = min(PROBED * len(ctx.rng.rows), len(self.pool_ids) // 2)
        keys = ctx.rng.bits("adversarial", -(-len(self.pool_ids) // len(ctx.rng.rows))).flatten()[: len(self.pool_ids)]
        chosen = keys.topk(2 * probed).indices
        hidden = encode(self.encoder, {"input_ids": self.pool_ids[chosen], "attention_mask": self.pool_mask[chosen]})
        features = hidden[:, 1:-1].flatten(1).float()  # [2 probed, places * width]
        first, second = features.split(probed)
        one_hot = F.one_hot(self.pool_labels[chosen], self.classes).float()
        gram = first.T @ first / probed + RIDGE * torch.eye(first.shape[1], device=first.device)
        scores = second @ torch.linalg.solve(gram, first.T @ one_hot[:probed] / probed)
        labels = self.pool_labels[chosen[probed:]]
        return F.cross_entropy(scores, labels).clamp(max=math.log(self.classes)), (scores.argmax(1) == labels).float().mean()
