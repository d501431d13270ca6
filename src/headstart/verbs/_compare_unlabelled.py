"""A comparison without labels: which network finds the other half of a held-out document. Weaker evidence than any task.

The documents are the held-out ones of the first run's store, so every network reads the same texts. RankMe and the held-out loss stand beside it; a
loss is comparable only between runs of one method on one store, since tokenizer, masking and text decide its scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.core.run import read_lines
from headstart.data.text.store import TextStore, open_text_store
from headstart.engine.probes import rankme
from headstart.interop.transformers_io import Encoder, load_encoder
from headstart.tasks.data import TextData
from headstart.tasks.label_curve import frozen_features
from headstart.tasks.text_classification import text_rows
from headstart.verbs._advise_measure import FEWEST_LABELS, MAX_DOCUMENTS, text_halves
from headstart.verbs._compare_arms import Arm
from headstart.verbs._compare_measure import Values

LOSS = "held_out/loss"
MAX_LENGTH = 128


@dataclass
class Documents:
    """Held-out documents in two halves."""

    store: Path
    firsts: list[str]
    seconds: list[str]


def held_out_documents(arms: Sequence[Arm]) -> Documents:
    """Of the first run whose store is still there.

    Raises:
        UsageError: there is none, or it holds too few documents.
    """
    for arm in arms:
        for entry in arm.info.get("data", []):
            if entry.get("kind") != "text":
                continue
            try:
                store: TextStore = open_text_store(Path(entry["store"]))
            except (BadInput, OSError):
                continue
            firsts, seconds = text_halves(store, MAX_DOCUMENTS)
            if len(firsts) < FEWEST_LABELS:
                what = f"The store {store.folder} has only {len(firsts)} held-out documents that can be halved: too few to compare networks on."
                raise UsageError(what, "Give --labels FILE.")
            return Documents(store.folder, firsts, seconds)
    raise UsageError("There are no labels, and no run whose prepared text is still there.", "Give --labels FILE.")


def halves_found(arm: Arm, station: int, documents: Documents, seeds: int, device: torch.device) -> tuple[Values, float]:
    """For each network (source, or seed of a random start) which documents' second halves are nearest to their firsts; and the mean RankMe."""
    rights, ranks = [], []
    for source in arm.sources:
        for seed in range(seeds if arm.fresh else 1):
            encoder = load_encoder(source.exports[station].folder, fresh=arm.fresh, seed=seed, dropout=0.0)
            one, two = (_vectors(encoder, texts, device) for texts in (documents.firsts, documents.seconds))
            ranks.append(rankme(torch.cat([one, two])))
            rights.append(_nearest(one, two))
    right = np.array(rights, dtype=np.float64)  # [networks, documents]
    right = right[None] if arm.fresh else right[:, None]  # [pre-training seeds, fine-tuning seeds, documents]
    return Values(right.mean(2), right, documents=True), float(np.mean(ranks))


def _vectors(encoder: Encoder, texts: list[str], device: torch.device) -> Tensor:
    """float32 [n, hidden], centred: what all have in common tells nothing apart."""
    rows = text_rows(TextData(texts, []), encoder, min(MAX_LENGTH, encoder.max_length or MAX_LENGTH))
    found = frozen_features(encoder, rows, "mean", device)
    return found - found.mean(0)


def _nearest(one: Tensor, two: Tensor) -> list[int]:
    """1 where the nearest second half (cosine) is the document's own."""
    similar = F.normalize(one, dim=1) @ F.normalize(two, dim=1).T
    return (similar.argmax(1) == torch.arange(len(one))).int().tolist()


def losses(arms: Sequence[Arm]) -> list[dict[str, Any] | None]:
    """The last held-out loss of each arm, and whether it may be compared with that of another arm."""
    found = [_last_loss(arm) for arm in arms]
    keys = [_scale(arm) for arm in arms]
    return [
        None if value is None else {"value": value, "comparable": keys.count(keys[i]) > 1 and keys[i] is not None}
        for i, value in enumerate(found)
    ]


def _last_loss(arm: Arm) -> float | None:
    values = []
    for source in arm.sources:
        path = source.path / "probes.jsonl"
        if not path.is_file():
            return None
        lines = [line["value"] for line in read_lines(path) if line.get("probe") == LOSS and isinstance(line.get("value"), int | float)]
        values += lines[-1:]
    return float(np.mean(values)) if len(values) == len(arm.sources) else None


def _scale(arm: Arm) -> Any:
    """Equal for arms whose losses measure the same."""
    if not arm.info:
        return None
    data = [(entry.get("store"), entry.get("tokenizer_sha256")) for entry in arm.info.get("data", [])]
    return arm.info.get("method"), data
