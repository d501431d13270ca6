"""What verbs ask and say of environments (see `_kinds`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import UsageError
from headstart.core.terminal import printable
from headstart.core.words import plural
from headstart.verbs.config import ProbeConfig

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.engine.method import Method

PROCESSOR = ""
TASK = "other"
FEATURES = "other"
WITHOUT_PICTURES = "an environment"
LOADER = """\
from headstart.data.environments.store import builtin
from headstart.methods.oc_gfn.saved import read_flow

flow = read_flow("FOLDER", builtin("tfbind8"))  # the environment that config.json names
log_pf, log_f = flow(states, outcomes)"""
"""How an export is loaded: transformers has no such network."""
UNMEASURED = "Whether it helps with your reward: the command below adapts it beside a flow network from scratch, at equal numbers of scored objects."


@dataclass(frozen=True)
class Peek:
    """What an environment builds, to look at."""

    report: list[str]
    objects: list[str]


def refuse_stores(stores: Sequence[Any], config: Any) -> None:
    if len(stores) > 1:
        raise UsageError("Two environments cannot be trained on together.", "Give one as --data.")


def data_words(stores: Sequence[Any], rows: Sequence[Any]) -> str:
    return f"{stores[0].report()[0]}; made while training"


def input_words(store: Any) -> str:
    return f"{store.environment.encoding_size} inputs of a state, as many of the outcome"


def rows_words(rows: Any) -> str:
    return "as many as are asked for" if len(rows) > 2**20 else plural(len(rows), "random target")


def read_labelled(config: ProbeConfig, method: Method) -> tuple[Sequence[Any], Sequence[int], int]:
    raise UsageError("There are no labelled records of an environment.", "Leave out --probe.labels; a reward is adapted to afterwards.")


def read_records(sources: Sequence[str | Path], store: Any) -> Iterator[tuple[str, Any]]:
    """One object a line."""
    for source in sources:
        with Path(source).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{source}, line {number}", line.strip()


def show_neighbours(found: Sequence[Sequence[tuple[str, Any, float]]], store: Any, folder: Path) -> list[str]:
    """An object and after it the nearest others, each with its cosine."""
    return [printable(" ".join(f"{record} ({cosine:.3f})" for _, record, cosine in row), one_line=True) for row in found]


def load_line(export: Path) -> str:
    return f"from headstart.methods.oc_gfn.saved import read_flow; flow = read_flow({str(export)!r}, environment)"


def answers(export: Path) -> Tensor:
    """Its weights: an environment may be a program of the user's, which is not run for this."""
    import torch

    from headstart.core.files import own_file
    from headstart.interop.vit import read_tensors
    from headstart.methods.oc_gfn.saved import WEIGHTS, read_config

    read_config(export)
    return torch.cat([value.flatten() for value in read_tensors(own_file(export, WEIGHTS)).values()])


def next_lines(folder: Path) -> list[str]:
    return [
        f"Load it:   {load_line(folder / 'export')}",
        f"Adapt it:  headstart adapt {shlex.quote(str(folder))} --reward REWARD.py:FUNCTION --calls 2000",
        f"Look:      headstart sample {shlex.quote(str(folder))}",
    ]


def peek(store: Path, count: int, seed: int, sheet: Path | None) -> Peek:
    """Random objects."""
    import torch

    from headstart.core.rng import Rng
    from headstart.data.environments.store import open_environment_store

    opened = open_environment_store(store)
    environment = opened.environment
    drawn = environment.draw(Rng.at(seed, 0, torch.arange(count)).uniform("target", environment.state_size + 1))
    return Peek(opened.report(), environment.to_text(drawn))


def peek_lines(found: Peek) -> list[str]:
    return [printable(line, one_line=True) for line in (*found.report, *found.objects)]
