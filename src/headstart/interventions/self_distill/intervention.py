"""Self-distillation for further pre-training (Lee et al., ICLR 2023, arXiv 2210.02871), around any method with one feature per row.

- Stage 1 is the method as it is, from the weights of --init: it gives the teacher. Stage 2 begins with the *same first weights* again, not with the
  teacher, with a fresh optimiser, schedule and order of rows; to the method's loss it adds the squared distance of the student's feature of each
  complete row from the teacher's.
- The distance is summed over the features and meaned over the rows (seanie12/self-distillation trainer.py). With a mean over the features the pull
  would be a thousandth as strong, and the method plain further pre-training.
- At ViT-B/16 a step of stage 2 costs 3.39 steps of MAE: teacher 35.1 and clean pass 105.4 beside MAE's 58.7 GFLOP an image. Where rows are always
  seen alike the teacher's features are computed once and stored: 2.80 steps.
- The stage is no part of any draw: with weight 0 stage 2 repeats stage 1 bit for bit.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import Diverged, UsageError
from headstart.core.progress import Reporter
from headstart.core.rng import Rng
from headstart.engine.distributed import is_cut, local
from headstart.engine.guard import first_nonfinite
from headstart.engine.method import Batch, Context, Method, Phase
from headstart.engine.trial import spans
from headstart.interop.vit import FRESH
from headstart.interventions.base import Around, inside
from headstart.interventions.self_distill.config import SelfDistillConfig
from headstart.interventions.self_distill.rows import ROW, NumberedRows, numbered

STORED_BYTES = 256 * 2**20
"""Up to this size `features: auto` keeps a table: 87,000 rows of width 768. Checkpoints hold it too."""
FILL_ROWS = 256
"""Rows of a pass that fills the table."""
ROWS = "self_distill.rows"
"""The items that the distance is meaned over, for a global batch that is cut."""
DECODER, TEACHER, STUDENT = "decoder", "teacher", "student"


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """float32 scalar: ||student - teacher||^2, summed over the features [batch, dim] and meaned over the rows; no gradient reaches the teacher."""
    return (student.float() - teacher.detach().float()).square().sum(-1).mean()


def weight_distance(network: nn.Module, reference: nn.Module) -> Tensor:
    """Scalar, with gradient: the sum over all parameters that learn of (theta - theta_ref)^2."""
    pairs = [(own, other) for own, other in zip(network.parameters(), reference.parameters(), strict=True) if own.requires_grad]
    return torch.stack([_whole((own - other.detach()).float().square().sum()) for own, other in pairs]).sum()


def relative_distance(network: nn.Module, reference: nn.Module) -> float:
    """||theta - theta_ref|| / ||theta_ref|| over all parameters."""
    with torch.no_grad():
        moved = sum(float(_whole((own - other).square().sum())) for own, other in zip(network.parameters(), reference.parameters(), strict=True))
        size = sum(float(_whole(other.square().sum())) for other in reference.parameters())
    return float((moved / max(size, 1e-12)) ** 0.5)


class SelfDistill(Around):
    """A method that is trained twice, the second time pulled towards its first self.

    Attributes:
        initial: theta_init, frozen.
        teacher: the teacher, frozen; theta_init until its stage has ended.
        features: float32 [rows, dim], the teacher's feature of every training row, where they are stored.
    """

    features: Tensor

    def __init__(self, inner: Method, config: SelfDistillConfig, seed: int) -> None:
        super().__init__(inner, config, seed)
        self.settings: SelfDistillConfig = config
        self.initial = frozen_copy(inner)
        self.teacher = frozen_copy(inner)
        self.own_phases = [phase.name for phase in inner.phases(1 << 30)]
        self.numbered: NumberedRows | None = None
        self.sharded = False

    # --- stages -------------------------------------------------------------------------------------------------------------------------------

    def phases(self, total_steps: int) -> list[Phase]:
        """[decoder] -> [teacher] -> student -> student 2 ...: stages of equal length (the last has what is left over), each with the method's own
        phases."""
        config = self.settings
        stages = ([TEACHER] if config.teacher == "trained" else []) + [STUDENT, *(f"{STUDENT} {n}" for n in range(2, config.rounds + 1))]
        found = []
        if config.decoder_steps:
            backbone = {id(parameter) for parameter in self.backbone().parameters()}
            outside = {name for name, parameter in self.inner.named_parameters() if id(parameter) not in backbone}
            found.append(inside(Phase(DECODER, config.decoder_steps, trainable=lambda name: name in outside)))
        left = max(1, total_steps - config.decoder_steps)
        length = max(1, left // len(stages))
        for stage in stages[:-1]:
            found += self._stage(stage, length)
        found += self._stage(stages[-1], max(1, left - (len(stages) - 1) * length), last=True)
        return [dataclasses.replace(found[0], restarts=False), *found[1:]]  # the first has nothing to begin again

    def _stage(self, stage: str, steps: int, last: bool = False) -> list[Phase]:
        """The method's own phases over so many steps; the last stage keeps the one of open length open."""
        phases = []
        for phase, start, stop in spans(self.inner.phases(steps), steps):
            name = f"{stage}: {phase.name}" if len(self.own_phases) > 1 else stage
            phases.append(dataclasses.replace(inside(phase), name=name, steps=None if last and phase.steps is None else stop - start))
        phases[0] = dataclasses.replace(phases[0], restarts=True, on_start=self._start(stage, phases[0].on_start))
        return phases

    def _start(self, stage: str, then: Callable[[], None] | None) -> Callable[[], None]:
        """What happens when a stage begins: whoever was trained becomes the teacher, and the method is theta_init again."""

        def start() -> None:
            if stage == TEACHER or (stage == STUDENT and self.settings.teacher == "initial"):
                copy_state(self.inner, self.initial)  # of another decoder, where that was trained first
                copy_state(self.inner, self.teacher)
            else:
                copy_state(self.inner, self.teacher)
                self._refuse_idle_teacher()
                if self.settings.student == "initial":
                    copy_state(self.initial, self.inner)
            if stage != TEACHER and self.numbered is not None and "features" in self._buffers:
                self._store_features(self.numbered)
            if then is not None:
                then()

        return start

    def _refuse_idle_teacher(self) -> None:
        pairs = zip(self.teacher.backbone().parameters(), self.initial.backbone().parameters(), strict=True)
        if all(torch.equal(local(one.detach()), local(other.detach())) for one, other in pairs):
            raise UsageError("The teacher is the initial model: its stage changed nothing.", "Give more steps, or a learning rate above 0.")

    def own(self, ctx: Context) -> Context:
        """The context as the method knows it."""
        return dataclasses.replace(ctx, phase=self._own_name(ctx.phase))

    def _own_name(self, phase: str) -> str:
        """The method's own name of a phase: "student: causal" is its "causal"."""
        return phase.partition(": ")[2] or self.own_phases[-1]

    # --- one step -----------------------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The method's loss; in a student's stage with the distance, and the pull of the weights where asked."""
        own, config = self.own(ctx), self.settings
        rows = batch.get(ROW)
        batch = {name: value for name, value in batch.items() if name != ROW}
        if not is_student(ctx.phase):
            return self.inner.loss(batch, own)
        scalars = self.inner.loss(batch, own) if config.objective else {}
        terms = []
        if config.objective:
            terms.append(scalars["loss"])
            scalars["objective"] = scalars["loss"].detach()
        share = ctx.share(ROWS)  # of the rows of the global batch, where the method sums several means
        count = row_count(batch)
        if config.weight:
            feature = self.inner.feature(batch, own, config.pooling)
            distance = feature_distance(feature, self.target(batch, own, rows))
            terms.append(config.weight * share * distance)
            spread = feature.detach().float().std(0, correction=0).mean()  # 0: every row has the same feature
            scalars |= {"distance": distance.detach(), "weight/distance": count, "feature_std": spread, "weight/feature_std": count}
        if config.pull_weight:
            pull = weight_distance(self.backbone(), (self.initial if config.pull_to == "initial" else self.teacher).backbone())
            terms.append(config.pull_weight * share * pull)
            scalars |= {"pull": pull.detach(), "weight/pull": count}
        scalars["loss"] = torch.stack([term.float() for term in terms]).sum() if len(terms) > 1 else terms[0]
        return scalars

    @torch.no_grad()
    def target(self, batch: Batch, own: Context, rows: Tensor | None = None) -> Tensor:
        """[batch, dim]: the teacher's features of the complete rows: from the table where it has them."""
        if rows is not None and "features" in self._buffers:
            return self.features[rows]
        return self.teacher.feature(batch, own, self.settings.pooling)

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        """Where the method sums means over items of its own, the rows beside them; otherwise a part of a batch counts as it does for the method."""
        own = self.inner.items({name: value for name, value in batch.items() if name != ROW}, self.own(ctx))
        if not is_student(ctx.phase):
            return own
        if not self.settings.objective:
            return {ROWS: row_count(batch)}
        return None if own is None else own | {ROWS: row_count(batch)}

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.inner.observe({**scalars, "loss": scalars.get("objective", scalars["loss"])})
        if (decay := self.settings.teacher_decay) is not None and "distance" in scalars:
            averages = [local(value.detach()) for value in self.teacher.parameters()]
            torch._foreach_lerp_(averages, [local(value.detach()) for value in self.inner.parameters()], 1.0 - decay)

    def observed(self) -> list[Tensor]:
        return self.inner.observed() + ([] if self.settings.teacher_decay is None else list(self.teacher.parameters()))

    def passes(self, phase: str) -> int:
        return self.inner.passes(self._own_name(phase))

    def elsewhere(self, phase: str) -> AbstractContextManager[None] | None:
        return self.inner.elsewhere(self._own_name(phase))

    def edit_gradients(self, phase: str) -> None:
        self.inner.edit_gradients(self._own_name(phase))

    def edit_update(self, optimizer: torch.optim.Optimizer, phase: str) -> None:
        self.inner.edit_update(optimizer, self._own_name(phase))

    @contextmanager
    def skipped_flops(self, phase: str) -> Iterator[Callable[[], int]]:
        with self.inner.skipped_flops(self._own_name(phase)) as skipped:
            yield skipped

    # --- features that are stored ---------------------------------------------------------------------------------------------------------------

    def training_rows(self, parts: Sequence[Any]) -> list[Any]:
        """The rows with their numbers, where the teacher's features are stored by them."""
        parts, config = self.inner.training_rows(parts), self.settings
        width = int(self.backbone().config.hidden_size)  # type: ignore[union-attr,arg-type]
        size = 4 * width * sum(map(len, parts))
        why = "rows are augmented" if self.inner.augments else "the weights are cut over processes" if self.sharded else None
        if why is not None and config.features == "stored":
            raise UsageError(f"The teacher's features cannot be stored: {why}.", "Give --self-distill.features online.")
        stored = config.features == "stored" or (config.features == "auto" and config.teacher_decay is None and size <= STORED_BYTES)
        if why is not None or not stored or config.weight == 0:
            return parts
        self.numbered = numbered(parts)
        device = next(self.inner.parameters()).device
        self.register_buffer("features", torch.zeros(len(self.numbered), width, device=device))
        return list(self.numbered.parts)

    @torch.no_grad()
    def _store_features(self, rows: NumberedRows) -> None:
        """Fills the table by one pass over all rows, in float32."""
        device = self.features.device
        with Reporter("teacher's features", len(rows), "rows") as reporter:
            for batch in rows.batches(FILL_ROWS):
                numbers = torch.from_numpy(batch.pop(ROW))
                tensors = {name: torch.from_numpy(value).to(device) for name, value in batch.items()}
                ctx = Context(0, 1, self.own_phases[-1], Rng.at(self.seed, 0, numbers.to(device)), device)
                found = self.teacher.feature(tensors, ctx, self.settings.pooling).float()
                if not bool(torch.isfinite(found).all()):
                    place = first_nonfinite(self.teacher, lambda: self.teacher.feature(tensors, ctx, self.settings.pooling).sum())  # noqa: B023
                    what = f"The teacher's features are no finite numbers. The first module that made one: {place}."
                    raise Diverged(what, "Lower the learning rate.")
                self.features[numbers.to(device)] = found
                reporter.advance(len(numbers))

    # --- what a person sees -------------------------------------------------------------------------------------------------------------------

    def plan_lines(self) -> list[str]:
        config = self.settings
        kept = "features stored, one pass over the rows a round (its FLOPs are not counted)"
        if "features" not in self._buffers:
            kept = "features computed in every step" if config.weight else "no distance"
        lines = [f"  distill    teacher: {config.teacher}, {config.rounds} x student from {config.student}; {kept}"]
        fresh = [name for module in self.inner.modules() for name in getattr(module, FRESH, ())]
        if fresh and not config.decoder_steps:
            shown = ", ".join(fresh[:3]) + (f" and {len(fresh) - 3} more" if len(fresh) > 3 else "")
            lines.append(f"             --init lacks the decoder's {shown}: every stage would begin with random ones;")
            lines.append("             --self-distill.decoder-steps STEPS trains them first, the backbone held")
        if self.inner.augments:
            lines.append("             rows are augmented, teacher and student see the same part of each; the paper's are not augmented")
        return [*self.inner.plan_lines(), *lines]

    def probes(self) -> dict[str, Callable[[Method], float]]:
        """How far the backbone has moved from the weights of --init, relative to their norm."""
        return self.inner.probes() | {"moved": lambda live: relative_distance(self.backbone(), self.initial.backbone())}

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """The method's held-out scalars; in a student's stage also the distance from the teacher."""
        own = self.own(ctx)
        scalars = self.inner.evaluate(batch, own)
        if is_student(ctx.phase):
            scalars["distance"] = feature_distance(self.inner.feature(batch, own, self.settings.pooling), self.target(batch, own))
        return scalars

    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        return self.inner.show(batch, self.own(ctx), own_text)

    def drawings(self, batch: Batch, ctx: Context) -> list[Any]:
        return self.inner.drawings(batch, self.own(ctx))

    # --- how it lies on machines ----------------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> SelfDistill:
        super().train(mode)
        self.initial.eval()
        self.teacher.eval()
        return self

    def compile_parts(self) -> None:
        self.inner.compile_parts()
        self.teacher.compile_parts()

    def plain_parts(self) -> None:
        self.inner.plain_parts()
        self.teacher.plain_parts()

    def cut(self) -> None:
        self.sharded = True
        for method in (self.inner, self.initial, self.teacher):
            method.cut()


def row_count(batch: Batch) -> Tensor:
    """float32 scalar on the batch's device, made there: a captured CUDA graph takes nothing from the host."""
    first = next(iter(batch.values()))
    return torch.full((), float(len(first)), device=first.device)


def is_student(phase: str) -> bool:
    """Whether a phase is of a student's stage."""
    return phase.startswith(STUDENT)


def frozen_copy(method: Method) -> Method:
    """The method with weights of its own that never learn, dropout off. What is no part of the network (the store, the tokenizer) is shared."""
    internal = vars(nn.Module())
    shared: dict[int, Any] = {}
    for module in method.modules():
        for name, value in vars(module).items():
            if name not in internal and not isinstance(value, Tensor | nn.Module | dict | list | tuple) and not callable(value):
                shared[id(value)] = value
    twin: Method = copy.deepcopy(method, shared)
    return twin.requires_grad_(False).eval()


@torch.no_grad()
def copy_state(source: Method, target: Method) -> None:
    """All parameters and buffers of a network into one of the same build, in place; of cut ones each process's parts."""
    pairs = zip((*source.parameters(), *source.buffers()), (*target.parameters(), *target.buffers()), strict=True)
    for value, place in pairs:
        local(place.detach()).copy_(local(value.detach()))


def _whole(value: Tensor) -> Tensor:
    """Of a cut tensor the whole."""
    return value.full_tensor() if is_cut(value) else value


INTERVENTION = SelfDistill
