"""The contract of a method: what the engine asks of it, and nothing more (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from headstart.catalog import Card
from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.data.preparing import changed_settings
from headstart.engine.config import Preset, Sizing
from headstart.engine.distributed import ALONE, Ranks
from headstart.engine.pictures import Drawing

Batch: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What `Method.loss` may know beside the batch.

    `step` and `phase` are host values: branch on them only where a phase begins (a captured CUDA graph keeps the branch it saw).
    """

    step: int  # counted from 0; where phases restart, from the beginning of the last one that does
    total_steps: int  # of what `step` counts in
    phase: str
    rng: Rng  # keyed on (seed, step, global row, name)
    device: torch.device
    shares: Mapping[str, Tensor] | None = None  # see `Method.items`; None: the batch is whole
    ranks: Ranks = ALONE
    at: Tensor | None = None  # int64 scalar on the device: `step` as a captured CUDA graph reads it anew each time

    def share(self, name: str) -> Tensor | float:
        """This micro-batch's share of the items `name` of the global batch."""
        return 1.0 if self.shares is None else self.shares[name]

    def progress(self, stairs: int) -> Tensor:
        """How much of the run is over, in equal stairs: float32 scalar 0, 1/stairs ... (stairs - 1)/stairs, on the device. For what changes during a
        phase; nothing waits for it, and a captured CUDA graph follows it."""
        at = torch.full((), self.step, dtype=torch.int64, device=self.device) if self.at is None else self.at
        return (at * stairs // self.total_steps).clamp(max=stairs - 1) / stairs

    def gather(self, rows: Tensor) -> Tensor:
        """[batch, ...] of this process -> [ranks * batch, ...] of all, in the order of the global batch: for a loss that compares rows with each
        other. Gradients flow back to the process that has the row."""
        if self.ranks.world == 1:
            return rows
        return torch.cat(all_gather(rows.contiguous()))


@dataclass(frozen=True)
class Predictions:
    """Predictions of one class each, whose weighted mean is a loss."""

    logits: Tensor
    """[n, classes], with a graph."""
    targets: Tensor
    """int64 [n]: what the data says."""
    weights: Tensor
    """float32 [n], 0 for a place that does not count."""

    @property
    def shares(self) -> Tensor:
        """float32 [n]: what each counts in the mean."""
        return self.weights / self.weights.sum().clamp(min=1e-6)


@dataclass(frozen=True)
class Phase:
    """A span of a run. Exactly one phase of a method may leave `steps` None: it takes what is left of the budget.

    Args:
        name: what `ctx.phase` says during it.
        steps: its length in optimiser updates.
        trainable: which parameters get gradients, by name; None is all of them.
        on_start: called once when the phase begins (copy weights, freeze, reset). Never called again on resume.
        fresh_optimizer: start the optimiser's moments anew when the phase begins.
        restarts: the phase begins as a run of its own would, until the next such phase or the end: fresh moments, and schedule, order of the rows
            and random draws count from its first step (docs/decisions/0018-phases-that-restart.md).
        fresh_schedule: the learning rate alone begins its schedule anew, which ends where the next one begins.
        rate: the learning rates of the phase are so many times those of the schedule.
    """

    name: str
    steps: int | None = None
    trainable: Callable[[str], bool] | None = None
    on_start: Callable[[], None] | None = None
    fresh_optimizer: bool = False
    restarts: bool = False
    fresh_schedule: bool = False
    rate: float = 1.0


class Method(nn.Module):
    """One published pre-training recipe. A subclass holds its card, Config, presets and network, and scores a batch.

    `__init__(config, store, init=None)` builds the network; see `headstart.engine.text_method.TextMethod` for methods on text, and CONTRIBUTING.md.
    """

    card: ClassVar[Card]
    Config: ClassVar[type]
    presets: ClassVar[Mapping[str, Preset]]
    DataConfig: ClassVar[type]  # how its sources become a store
    data_group: ClassVar[str]  # the flags of DataConfig: --text.vocab-size and so on
    sizing: ClassVar[Sizing | None] = None  # how the data chooses a preset; None: `tiny` is taken
    predicts_tokens: ClassVar[bool] = False  # its loss starts at the unigram entropy of the corpus: the run draws the plateau line
    likelihood: ClassVar[bool] = False  # its loss is -log p of the tokens of a row, each once: it says how many bits a byte of text takes
    plateau_metric: ClassVar[str] = "loss"  # which returned metric is the token-prediction loss in nats
    wants_init: ClassVar[bool] = False  # it is about a trained model; without --init it is its own control
    wants_entries: ClassVar[int] = 1  # of --data: it is about so many corpora; with fewer it is its own control
    keeps_vocabulary: ClassVar[bool] = True  # of the model in --init; otherwise the data has its own, and text of the old one is not measured beside
    part_metric: ClassVar[str] = "loss"  # which scalar of `evaluate` is measured of each named part of the data
    part_unit: ClassVar[str] = "nats a token"  # of that scalar
    embedding_note: ClassVar[str] = ""  # what `embed` says of vectors that the method was not trained to give

    config: Any
    begin_flops: int = 0  # what its first weights took beyond those of --init: the budget pays for it

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: Any) -> Any:
        """Source -> store: once, on CPU, parallel, resumable, the same bytes for any number of workers."""
        raise NotImplementedError

    @classmethod
    def rows(cls, store: Any, config: Any, split: Literal["train", "held_out"] = "train") -> Any:
        """The training rows of a store: what a mixture is made of."""
        raise NotImplementedError

    @classmethod
    def smoke_source(cls, sources: Sequence[str | Path], folder: Path, data: Any, records: int) -> tuple[list[str], Any]:
        """The first `records` records of the sources, written into `folder`, and data settings that suit so few."""
        raise NotImplementedError

    @classmethod
    def open_store(cls, folder: Path) -> Any:
        """A prepared store."""
        raise NotImplementedError

    @classmethod
    def source_changes(cls, store: Any, sources: Sequence[str | Path]) -> list[str]:
        """What of the sources differs from what the store was made of, in words; nothing when they are the same."""
        return []

    @classmethod
    def preparation_changes(cls, store: Any, data: Any) -> dict[str, tuple[Any, Any]]:
        """Name of a data setting that decides the bytes of a store -> (what the store was made with, what `data` says), where they differ."""
        return changed_settings(store.manifest["preparation"], data.preparation())

    @classmethod
    def data_config_for(cls, data: Any, init: Path) -> Any:
        """The data settings when training continues from the model in `init`: its own tokenizer, for example."""
        return data

    @classmethod
    def settings_of(cls, init: Path, config: Any) -> dict[str, Any]:
        """What the model in `init` decides of the method's settings when training continues from it: name -> value."""
        return {}

    @classmethod
    def data_settings_of(cls, init: Path, data: Any) -> dict[str, Any]:
        """What it decides of the data settings."""
        return {}

    @classmethod
    def suggestions_of(cls, init: Path, config: Any, data: Any) -> dict[str, dict[str, Any]]:
        """What suits it, where nobody says otherwise: group of settings ("method", `data_group`) -> name -> value."""
        return {}

    @classmethod
    def share_preparation(cls, store: Any, data: Any) -> Any:
        """Data settings that prepare further sources as `store` was (with its tokenizer), so that both can be mixed."""
        return data

    @classmethod
    def refuse_init(cls, store: Any, init: Path) -> None:
        """Raises UsageError, or BadInput for a folder that contradicts itself, when the model in `init` cannot continue on this store."""

    def reload(self, folder: Path) -> Method:
        """A second network of this kind with the weights that `export` wrote into `folder`."""
        raise NotImplementedError

    def encode(self, records: Sequence[Any]) -> Batch:
        """Downstream records (texts, images ...) as a batch for `embed`."""
        raise NotImplementedError

    def compile_parts(self) -> None:
        """Compiles, in place, what repays it; by default the backbone."""
        self.backbone().compile()

    def plain_parts(self) -> None:
        """Undoes `compile_parts`. What was compiled stays in the compiler's cache: compiling the same once more costs moments."""
        for module in self.modules():
            module._compiled_call_impl = None  # what `nn.Module.compile` sets; torch has no call that takes it back

    def predictions(self, batch: Batch, ctx: Context, one: bool = False) -> Predictions | None:
        """The token predictions that the loss of this batch is the mean of, with gradient; None: it is no such mean.

        Args:
            one: of a masked model, hide one place of each row, drawn uniformly, always as [MASK]: the loss whose optimum is known for a language with
                known statistics.
        """
        return None

    def predicted_per_row(self) -> float:
        """About how many tokens one row predicts (only for methods with `predicts_tokens`)."""
        raise NotImplementedError

    def phases(self, total_steps: int) -> list[Phase]:
        """The spans of the run, in order; by default one over the whole budget."""
        return [Phase("train")]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Scores one batch: {"loss": scalar with gradient, more scalars to log}. The only place that sees a batch.

        "weight" is the number of items that the scalars are means over, "weight/NAME" that of one that differs: with them the means over the global
        batch come out right however it is cut (`engine.update`).
        """
        raise NotImplementedError

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        """For a loss that sums means over different items: how many of each this batch has, without running the network.

        Where the global batch is cut into micro-batches, `loss` then multiplies each mean with `ctx.share(name)`, so that the micro-batches' losses
        add up to that of the whole. A loss that is one mean returns its number of items as "weight" instead.
        """
        return None

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        """Called after every update with the means of `loss`'s scalars over the whole global batch: here running statistics are kept, so that they
        do not depend on micro-batches and processes. On the device, without reading it; what it does to buffers is undone where the update was left
        out, because its loss or gradient was no finite number."""

    def observed(self) -> list[Tensor]:
        """The buffers that `observe` may change."""
        return [] if type(self).observe is Method.observe else list(self.buffers())

    def passes(self, phase: str) -> int:
        """How many forward and backward passes an update of this phase has: their FLOPs count."""
        return 1

    def elsewhere(self, phase: str) -> AbstractContextManager[None] | None:
        """For an update whose gradient is taken at other weights (SAM). Called with the gradients of the global batch in the parameters; while what
        it gives lasts, the weights are elsewhere, and a second pass over the same batches, with the same draws, gives the gradients that count. None:
        the first ones do. On the device, without reading it; under FSDP as `edit_gradients` (docs/decisions/0023-second-pass.md)."""
        return None

    def edit_gradients(self, phase: str) -> None:
        """Called once an update with the gradients of the global batch in the parameters, before they are clipped. Under FSDP each process has its
        parts of them (`engine.distributed.local`). On the device, without reading it."""

    def edit_update(self, optimizer: torch.optim.Optimizer, phase: str) -> None:
        """Called after the optimiser's step, also where that was left out: what must hold for weights and moments. As `edit_gradients`."""

    def cut(self) -> None:
        """Called once when FSDP2 has cut the parameters over the processes: buffers that belong to parameters are cut here, as DTensors."""

    def skipped_flops(self, phase: str) -> AbstractContextManager[Callable[[], int]]:
        """Surrounds a forward and backward pass whose FLOPs are counted. What it gives says afterwards how many of them were products with weights
        that stay zero in this phase: an ordinary machine executes them, they do not count as training FLOPs."""
        return nullcontext(lambda: 0)

    def learning_rate(self, step: int, total_steps: int, peak: float) -> float | None:
        """The rate of a step (counted from 0) of a schedule of `total_steps`, where it is not --schedule that decides it."""
        return None

    def training_rows(self, parts: Sequence[Any]) -> list[Any]:
        """The rows of each store before they are mixed; what is given back has as many, in the same order, and may say more of each in a batch."""
        return list(parts)

    def probes(self) -> dict[str, Callable[[Method], float]]:
        """Name -> a measurement of the live method of its own kind, made beside the others at each evaluation."""
        return {}

    def plan_lines(self) -> list[str]:
        """Further lines of the plan."""
        return []

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The scalars of one held-out batch; by default those of `loss`. Called with dropout off and fixed draws."""
        return self.loss(batch, ctx)

    def backbone(self) -> nn.Module:
        """The network that downstream use takes."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        """[batch, dim]: one vector a row, from the backbone: what probes and comparisons look at."""
        raise NotImplementedError

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        """[batch, dim], with gradient: the backbone's vector of each complete row as `loss` sees it (cut and mirrored alike, nothing hidden), after
        the last norm: what self-distillation compares.

        Args:
            pooling: class: the state of the token that stands for the row; mean: that of all its tokens, meaned.

        Raises:
            UsageError: there is no such vector.
        """
        raise UsageError(f"{self.card.slug} gives no vector of a whole row.", "Leave self-distillation out.")

    @property
    def augments(self) -> bool:
        """Whether `loss` sees a row otherwise each time that it comes (crops, mirror images); hiding parts of it is no augmentation."""
        return False

    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """A line a row for a person to look at: masks and guesses, completions, suspicions. `own_text`: the rows are what a person typed, complete
        as it is.
        """
        return []

    def drawings(self, batch: Batch, ctx: Context) -> list[Drawing]:
        """Pictures of held-out rows for a person to look at; called where `show` is."""
        return []

    def warnings(self) -> list[str]:
        """What a person should know at the end of a run that went wrong in a way the method can tell; one sentence each."""
        return []

    def early_warnings(self) -> list[str]:
        """The same after a tenth of a run, by its last held-out evaluation: what to look at before the rest of the budget is spent."""
        return []

    def export(self, folder: Path) -> None:
        """Writes the model in the field's own format; `reload(folder)` is the inverse."""
        raise NotImplementedError
