"""Fine-tuning settings by the size of the network: what ELECTRA was tuned for at 110 M parameters leaves a network of one million where it began.

| recipe | for networks | learning rate | passes, batch | rest |
| --- | --- | --- | --- | --- |
| `small` | under 20 M parameters | 1e-3; from 5 M 3e-4, ELECTRA-small's in the paper | 10, 16 | AdamW, no layer decay, mean loss and pooling |
| `electra` | all others | 1e-4 | 3, 32 | the official code at base size (`FinetuneConfig`) |

`small` is what the demonstration, `compare` and the claims measured with. Few labels are passed over more often: a training of fewer than
`FEWEST_STEPS` steps hardly moves a network, whatever its size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

from headstart.tasks.config import FinetuneConfig

Recipe: TypeAlias = Literal["auto", "small", "electra"]

LARGE_NETWORK = 20_000_000
MIDDLE_NETWORK = 5_000_000
FEWEST_STEPS = 100
"""Ten passes over eight records are ten steps, in which a pre-trained network of 32 dimensions came to .29 where 100 steps gave .86 (four topics,
three seeds)."""

SMALL: dict[str, Any] = {"epochs": 10, "batch": 16, "optimizer": "adamw", "layer_decay": 1.0, "loss_reduction": "mean", "pooling": "mean"}
"""Settings of `small` that differ from the official ones, but for the learning rate."""


def network_size(folder: Path) -> int:
    """Parameters of the network in a transformers folder; its weights are not read."""
    from headstart.interop.transformers_io import load_encoder

    return sum(parameter.numel() for parameter in load_encoder(folder, fresh=True).module.parameters())


def chosen(recipe: Recipe, parameters: int) -> Literal["small", "electra"]:
    """What `auto` means for a network of so many parameters."""
    if recipe == "auto":
        return "electra" if parameters >= LARGE_NETWORK else "small"
    return recipe


def settings(recipe: Literal["small", "electra"], parameters: int) -> dict[str, Any]:
    """What a recipe says of a network of so many parameters, where it differs from `FinetuneConfig`."""
    return {} if recipe == "electra" else SMALL | {"learning_rate": 3e-4 if parameters >= MIDDLE_NETWORK else 1e-3}


def epochs(config: FinetuneConfig, records: int) -> float:
    """Passes over so many records: those of the config, or more where that would be fewer than `FEWEST_STEPS`."""
    return max(config.epochs, FEWEST_STEPS / math.ceil(records / min(config.batch, records)))
