"""Sparse pre-training around any method (SPDF, Thangarasa et al. 2023, arXiv 2303.10464).

- Some weights of every matrix of every layer are held at exactly zero while the run trains; which ones is drawn once (`masks`).
- An update: forward and backward with the masked weights, gradients masked by selection, clipping, the optimiser's step, weights masked, and once a
  phase the moments (modelzoo/common/pytorch/optim/sparse/base.py at release 1.8, there in every step). So decay and momentum cannot bring a weight
  back, the clip norm does not see it, and a NaN in its gradient cannot reach the others.
- Dense kernels multiply the zeros all the same: the run is no faster. FLOPs are counted without them, and the executed ones said beside.
- A mask is one byte a weight, a buffer of this module: checkpointed, and under FSDP cut like its parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from headstart.core.errors import UsageError
from headstart.engine.distributed import local
from headstart.engine.flops import is_uncounted
from headstart.engine.method import Batch, Context, Method, Phase
from headstart.engine.pictures import Drawing
from headstart.interventions.base import Around
from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.export import write_report
from headstart.interventions.spdf.hold import hold_gradients, hold_moments, hold_weights
from headstart.interventions.spdf.masks import Matrix, draw, find_matrices, keep_largest, keep_n_of_m, kept_counts


class Sparse(Around):
    """A method some of whose weights stay zero.

    Attributes:
        matrices: those that are sparse.
        first_shares: of each the share of zeros that the run begins with.
        pruned: of each a bool buffer in the parameter's own layout, True where it is held at zero; named as the parameter, with "/" for ".".
        parameters_of: of each the parameter; under FSDP this process's part.
    """

    settings: SparsityConfig

    def __init__(self, inner: Method, config: SparsityConfig, seed: int) -> None:
        super().__init__(inner, config, seed)
        self.matrices = find_matrices(inner, config.include)
        self.parameters_of = self._parameters_now()
        if broken := [m.name for m, p in zip(self.matrices, self.parameters_of, strict=True) if bool(torch.isnan(p).any())]:
            raise UsageError(
                f"The starting weights hold NaN ({broken[0]}).",
                "A checkpoint of Cerebras marks its pruned weights so: `headstart.interop.cerebras.finalise` turns them into zeros and masks.",
            )
        self.pruned = nn.Module()
        for matrix, mask in zip(self.matrices, self.masks(config.first_level), strict=True):
            self.pruned.register_buffer(matrix.name.replace(".", "/"), mask)
        self._held_moments: tuple[torch.optim.Optimizer, str] | None = None  # of which optimiser, in which phase
        self.first_shares = [int(mask.sum()) / mask.numel() for mask in self.buffers_now()]
        if config.rescale_init:
            self._rescale()
        self.hold()

    # --- the masks ------------------------------------------------------------------------------------------------------------------------------

    def masks(self, level: float) -> Iterator[Tensor]:
        """Of each matrix, in its own layout: True where a weight is held at zero at this level."""
        config = self.settings
        if config.init == "from-weights":
            yield from self._zeros()
            return
        counts = kept_counts(self.matrices, level, config.distribution)
        for matrix, of_blocks, parameter in zip(self.matrices, counts, self.parameters_of, strict=True):
            kept = np.empty(matrix.shape, dtype=bool)
            for (name, rows), count in zip(matrix.blocks, of_blocks, strict=True):
                shape = (rows.stop - rows.start, matrix.shape[1])
                if config.init == "magnitude":
                    scores = np.abs(matrix.own(parameter.detach().double().cpu().numpy()))[rows].astype(np.float64)
                else:
                    scores = draw(self.seed, name, shape)
                kept[rows] = self._keep(matrix, scores, count)
            yield torch.from_numpy(np.ascontiguousarray(matrix.own(~kept)))

    def _keep(self, matrix: Matrix, scores: np.ndarray, count: int) -> np.ndarray:
        if self.settings.kept_of is None:
            return keep_largest(scores, count)
        n, m = self.settings.kept_of
        if scores.shape[1] % m:
            raise UsageError(f"{matrix.name} has {scores.shape[1]} inputs, no multiple of {m}.", "Leave it out with --sparsity.include.")
        return keep_n_of_m(scores, n, m)

    def _zeros(self) -> list[Tensor]:
        found = [parameter.detach() == 0 for parameter in self.parameters_of]
        if not any(bool(mask.any()) for mask in found):
            raise UsageError("--sparsity.init from-weights, but no starting weight is zero.", "Give a sparse model as --init, or a --sparsity.level.")
        return found

    @torch.no_grad()
    def _rescale(self) -> None:
        for parameter, mask in zip(self.parameters_of, self.buffers_now(), strict=True):
            parameter.mul_((mask.numel() / (~mask).sum()).sqrt())  # 1 / sqrt(1 - s)

    def _parameters_now(self) -> list[nn.Parameter]:
        named = dict(self.inner.named_parameters())
        return [named[matrix.name] for matrix in self.matrices]

    def buffers_now(self) -> list[Tensor]:
        """The masks, in the order of `matrices`."""
        return [getattr(self.pruned, matrix.name.replace(".", "/")) for matrix in self.matrices]

    def hold(self) -> None:
        """w <- w * m."""
        hold_weights(self.parameters_of, self.buffers_now())

    def cut(self) -> None:
        super().cut()
        self.parameters_of = self._parameters_now()
        for matrix, parameter, mask in zip(self.matrices, self.parameters_of, self.buffers_now(), strict=True):
            assert isinstance(parameter, DTensor)
            setattr(self.pruned, matrix.name.replace(".", "/"), cut_like(mask, parameter))

    # --- phases ----------------------------------------------------------------------------------------------------------------------------------

    def phases(self, total_steps: int) -> list[Phase]:
        found = super().phases(total_steps)
        if not self.settings.then:
            return found
        if len(found) > 1:
            raise UsageError(f"{self.card.slug} has phases of its own ({', '.join(phase.name for phase in found)}).", "Leave out --sparsity.then.")
        later = [
            dataclasses.replace(
                found[0], name=phase_name(level), steps=steps, on_start=self._entering(level), fresh_optimizer=True, fresh_schedule=True
            )
            for level, steps in zip(self.settings.then, self.settings.then_steps, strict=True)
        ]
        return [dataclasses.replace(found[0], name=phase_name(self.settings.level)), *later]

    def _entering(self, level: float) -> Callable[[], None]:
        def enter() -> None:
            for mask, parameter, new in zip(self.buffers_now(), self.parameters_of, self.masks(level), strict=True):
                local(mask).copy_(local(cut_like(new.to(mask.device), parameter) if isinstance(parameter, DTensor) else new))
            self.hold()

        return enter

    def level_in(self, phase: str) -> float:
        """The level of a phase of this run; what is not one of several is the first."""
        return next((level for level in self.settings.then if phase_name(level) == phase), self.settings.first_level)

    def _for_inner(self, ctx: Context) -> Context:
        """Between the phases of sparsity the method is in its one phase."""
        return dataclasses.replace(ctx, phase=self.inner.phases(ctx.total_steps)[0].name) if self.settings.then else ctx

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return super().loss(batch, self._for_inner(ctx))

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor] | None:
        return super().items(batch, self._for_inner(ctx))

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        return super().evaluate(batch, self._for_inner(ctx))

    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        return super().show(batch, self._for_inner(ctx), own_text)

    def drawings(self, batch: Batch, ctx: Context) -> list[Drawing]:
        return super().drawings(batch, self._for_inner(ctx))

    # --- an update -------------------------------------------------------------------------------------------------------------------------------

    def dense_in(self, phase: str) -> bool:
        """Whether a later phase holds nothing."""
        return bool(self.settings.then) and self.level_in(phase) == 0

    def edit_gradients(self, phase: str) -> None:
        super().edit_gradients(phase)
        if not self.dense_in(phase):
            hold_gradients(self.parameters_of, self.buffers_now())

    def edit_update(self, optimizer: torch.optim.Optimizer, phase: str) -> None:
        super().edit_update(optimizer, phase)
        if not self.dense_in(phase):
            self.hold()
            held = self._held_moments
            if held is None or held[0] is not optimizer or held[1] != phase:  # with masked gradients they stay zero from then on, as entries go alone
                hold_moments(optimizer, self.parameters_of, self.buffers_now())
                self._held_moments = optimizer, phase

    # --- what it costs, and what it leaves -------------------------------------------------------------------------------------------------------

    def zero_shares(self, level: float) -> list[float]:
        """The share of zeros of each matrix at a level."""
        if level == self.settings.first_level:
            return self.first_shares
        counts = kept_counts(self.matrices, level, self.settings.distribution)
        return [1 - sum(of_blocks) / (matrix.shape[0] * matrix.shape[1]) for matrix, of_blocks in zip(self.matrices, counts, strict=True)]

    @contextmanager
    def skipped_flops(self, phase: str) -> Iterator[Callable[[], int]]:
        """Counted at the layers: each product of a sparse matrix (forward; in the backward pass its own gradient and that of its input) is smaller by
        its share of zeros."""
        skipped: list[float] = []
        modules = dict(self.inner.named_modules())
        handles = [
            modules[matrix.name.rpartition(".")[0]].register_forward_hook(counter(skipped, 2 * share * matrix.shape[0]))
            for matrix, share in zip(self.matrices, self.zero_shares(self.level_in(phase)), strict=True)
        ]
        try:
            with super().skipped_flops(phase) as others:
                yield lambda: others() + round(sum(skipped))
        finally:
            for handle in handles:
                handle.remove()

    def plan_lines(self) -> list[str]:
        config, masks = self.settings, self.buffers_now()
        total = sum(matrix.shape[0] * matrix.shape[1] for matrix in self.matrices)
        shares = self.zero_shares(config.first_level)
        zeros = sum(share * matrix.shape[0] * matrix.shape[1] for share, matrix in zip(shares, self.matrices, strict=True))
        drawn = {"random": "drawn from the seed", "magnitude": "the smallest at the start", "from-weights": "those that are zero at the start"}
        pattern = f", {config.n_of_m} of the inputs" if config.n_of_m else ""
        later = "".join(f", then {level:g} for {steps:,} steps" for level, steps in zip(config.then, config.then_steps, strict=True))
        return [
            *super().plan_lines(),
            f"  sparsity   {zeros:,.0f} of {total:,} weights in {len(masks)} matrices stay zero"
            f" ({zeros / total:.4g}, {config.distribution}{pattern}; {drawn[config.init]}){later}",
        ]

    def export(self, folder: Path) -> None:
        super().export(folder)
        kept = {matrix: ~mask.detach().cpu() for matrix, mask in zip(self.matrices, self.buffers_now(), strict=True)}
        write_report(folder, kept, dict(self.inner.named_parameters()), self.settings, self.seed)


def phase_name(level: float) -> str:
    return "dense" if level == 0 else f"sparse-{level:g}"


def counter(skipped: list[float], flops: float) -> Callable[[nn.Module, Any, Tensor], None]:
    """A hook that adds, for each number that goes into a layer, `flops` times the number of its products. A row of `methods.oc_gfn` may meet some of
    the columns of the weight alone."""

    def count(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if is_uncounted():
            return
        x, weight = args[0], module.weight
        assert isinstance(weight, Tensor)
        products = 1
        if output.requires_grad and torch._C._current_graph_task_id() == -1:  # not where the backward pass computes activations again
            products += int(weight.requires_grad) + int(x.requires_grad)
        skipped.append(flops * products * x.numel())

    return count


def cut_like(mask: Tensor, parameter: DTensor) -> DTensor:
    """This process's part of a mask that all have whole."""
    mesh = parameter.device_mesh
    return distribute_tensor(mask.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)


INTERVENTION = Sparse
