"""An intervention is a method around a method: everything that the engine and the verbs ask is passed on, but what the intervention changes.

So it takes part in all of a run without the run knowing of it: its buffers and parameters are checkpointed, cut by FSDP and put back by a trial with
the method's own, its phases are planned, its extra passes are timed and counted, its part of the export is written and reloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart import interventions
from headstart.engine.method import Batch, Context, Method, Phase, Predictions
from headstart.engine.pictures import Drawing

INNER = "inner."
"""What the names of the inner method's parameters begin with."""


class Around(Method):
    """Passes everything on to `inner`; an intervention overrides what it changes, and calls `self.inner` for the rest.

    Args:
        inner: the method, or an intervention around it, with its first weights, on the CPU.
        config: the intervention's own settings.
        seed: of the run.

    Names of parameters begin with "inner." in checkpoints; what depends on a name (a mask's draw) takes that of `inner.named_parameters()`, which is
    the same whatever lies around. Attributes that are none of the contract's (`store`, `tokenizer`, `encoder`) are those of the method.
    """

    def __init__(self, inner: Method, config: Any, seed: int) -> None:
        super().__init__()
        self.inner = inner
        self.settings = config
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        """What nobody between here and the method has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "inner" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.inner, name)

    @property
    def predicts_tokens(self) -> bool:  # type: ignore[override]
        return self.inner.predicts_tokens

    @property
    def likelihood(self) -> bool:  # type: ignore[override]
        return self.inner.likelihood

    @property
    def plateau_metric(self) -> str:  # type: ignore[override]
        return self.inner.plateau_metric

    @property
    def part_metric(self) -> str:  # type: ignore[override]
        return self.inner.part_metric

    @property
    def part_unit(self) -> str:  # type: ignore[override]
        return self.inner.part_unit

    @property
    def embedding_note(self) -> str:  # type: ignore[override]
        return self.inner.embedding_note

    @property
    def begin_flops(self) -> int:  # type: ignore[override]
        return self.inner.begin_flops

    def reload(self, folder: Path) -> Method:
        return self.inner.reload(folder)

    def encode(self, records: Sequence[Any]) -> Batch:
        return self.inner.encode(records)

    def compile_parts(self) -> None:
        self.inner.compile_parts()

    def plain_parts(self) -> None:
        self.inner.plain_parts()

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        return self.inner.predictions(batch, ctx, one)

    def predicted_per_row(self) -> float:
        return self.inner.predicted_per_row()

    def phases(self, total_steps: int) -> list[Phase]:
        return [inside(phase) for phase in self.inner.phases(total_steps)]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return self.inner.loss(batch, ctx)

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        return self.inner.items(batch, ctx)

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.inner.observe(scalars)

    def observed(self) -> list[Tensor]:
        return self.inner.observed()

    def passes(self, phase: str) -> int:
        return self.inner.passes(phase)

    def elsewhere(self, phase: str) -> AbstractContextManager[None] | None:
        return self.inner.elsewhere(phase)

    def edit_gradients(self, phase: str) -> None:
        self.inner.edit_gradients(phase)

    def edit_update(self, optimizer: torch.optim.Optimizer, phase: str) -> None:
        self.inner.edit_update(optimizer, phase)

    def cut(self) -> None:
        self.inner.cut()

    def skipped_flops(self, phase: str) -> AbstractContextManager[Callable[[], int]]:
        return self.inner.skipped_flops(phase)

    def learning_rate(self, step: int, total_steps: int, peak: float) -> float | None:
        return self.inner.learning_rate(step, total_steps, peak)

    def training_rows(self, parts: Sequence[Any]) -> list[Any]:
        return self.inner.training_rows(parts)

    def probes(self) -> dict[str, Callable[[Method], float]]:
        return self.inner.probes()

    def plan_lines(self) -> list[str]:
        return self.inner.plan_lines()

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return self.inner.evaluate(batch, ctx)

    def backbone(self) -> nn.Module:
        return self.inner.backbone()

    def embed(self, batch: Batch) -> Tensor:
        return self.inner.embed(batch)

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        return self.inner.feature(batch, ctx, pooling)

    @property
    def augments(self) -> bool:
        return self.inner.augments

    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        return self.inner.show(batch, ctx, own_text)

    def drawings(self, batch: Batch, ctx: Context) -> list[Drawing]:
        return self.inner.drawings(batch, ctx)

    def warnings(self) -> list[str]:
        return self.inner.warnings()

    def early_warnings(self) -> list[str]:
        return self.inner.early_warnings()

    def export(self, folder: Path) -> None:
        self.inner.export(folder)


def inside(phase: Phase) -> Phase:
    """A phase of the inner method as one of the method around it: only the inner parameters learn, those that the phase names among them."""
    wanted = phase.trainable

    def trainable(name: str) -> bool:
        return name.startswith(INNER) and (wanted is None or wanted(name.removeprefix(INNER)))

    return replace(phase, trainable=trainable)


def wrap(method: Method, config: Any) -> Method:
    """The method with the interventions of a configuration around it; the method itself where there are none.

    Raises:
        UsageError: one of them has no sense with it.
    """
    interventions.refuse(type(method), config)
    for entry in interventions.active(config):
        module = importlib.import_module(f"{interventions.__name__}.{entry.card.slug}.intervention")
        around: type[Around] = module.INTERVENTION
        method = around(method, getattr(config, entry.group), config.seed)
    return method
