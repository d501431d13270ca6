"""The training rows of ELECTRA: its examples, written once into the store."""

from __future__ import annotations

from typing import Literal

from headstart.data.text.rows import Rows
from headstart.data.text.store import TextStore
from headstart.methods.electra.config import ElectraConfig


def electra_rows(store: TextStore, config: ElectraConfig, split: Literal["train", "held_out"] = "train") -> Rows:
    raise NotImplementedError
