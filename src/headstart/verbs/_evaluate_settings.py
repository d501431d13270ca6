"""What `evaluate` takes: the same fields in Python and on the command line. No torch here, so that a wrong flag is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import MOST, Bounds, refuse_outside
from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.places import Folder, refuse_folder
from headstart.verbs.config import refuse_absent_data

RESULT = Folder("results.json", ("results", "config", "versions"), ("results_*.json", "samples_*.jsonl"))
"""What --out holds."""


@dataclass
class EvaluateSettings:
    """What a causal language model knows, without training: multiple choice, and how well it predicts a text."""

    model: Path | None = None
    """A run, an export or a transformers folder of a causal language model. Comes first on the command line."""
    items: tuple[Path, ...] = ()
    """Files of multiple-choice items: context, choices, answer (index from 0), optional id, task, group; or PubMedQA's question, context, label."""
    text: tuple[str, ...] = ()
    """Files of text to predict; the figures of each are its own."""
    pool: tuple[str, ...] = ()
    """Files of training text: items of which a window of 13 words stands there are counted and left out."""
    text_field: str = "text"
    """Field or column of --text and --pool that holds the text."""
    max_length: int | None = None
    """Tokens of a sequence, never more than the network has positions; None: so many."""
    out: Path | None = None
    """The folder of the results; None: runs/evaluations/NAME, NAME being that of the model."""
    samples: bool = False
    """Write samples_TASK.jsonl too: what the model says of each choice of each item."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU that has it."""
    json: bool = False
    """Print results.json."""
    debug: bool = False
    """Show tracebacks."""


def check(settings: EvaluateSettings) -> None:
    """Refuses, before torch is imported, what cannot be.

    Raises:
        UsageError: a setting. BadInput: a file that is not there.
    """
    check_device(settings.device)
    refuse_outside(settings, {"max_length": Bounds(2, MOST, "Give at least 2 tokens.")})
    if settings.model is None:
        raise UsageError("No model is given.", "example: headstart evaluate runs/causal-lm-tiny-0 --items items.jsonl --text test.jsonl")
    if not settings.model.exists():
        raise UsageError(f"{settings.model} does not exist.", "Give a run, an export, or a transformers folder on this disk.")
    if not settings.items and not settings.text:
        raise UsageError("Nothing to evaluate on is given.", "Give --items FILES, --text FILES, or both.")
    if settings.pool and not settings.items:
        raise UsageError("--pool says which items stand in training text, and there are no --items.", "Give --items FILES.")
    refuse_absent_data((*map(str, settings.items), *settings.text, *settings.pool))
    refuse_folder(results_folder(settings), ours=RESULT)


def results_folder(settings: EvaluateSettings) -> Path:
    """Where the results go."""
    assert settings.model is not None
    return settings.out or Path("runs") / "evaluations" / settings.model.absolute().name
