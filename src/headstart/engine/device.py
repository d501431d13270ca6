"""The device that a person asks for."""

from __future__ import annotations

import torch

from headstart.core.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """The device of "auto", "cpu" or "cuda".

    Raises:
        UsageError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("--device cuda was given, but torch sees no GPU here.", "`headstart doctor` shows what there is.")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"There is no device '{name}'.", "Give auto, cpu or cuda.") from None
