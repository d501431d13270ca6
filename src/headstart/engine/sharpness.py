"""How sharp the minimum is: the trace of the Hessian by Hutchinson's estimate, its largest eigenvalue, and how much the loss rises nearby.

- Every figure is of a loss on fixed batches with fixed draws, in float32, without dropout. Nothing of the network changes, nor torch's generators.
- One Hessian-vector product is a gradient of a gradient: about four forward passes, for any network (no layer needs an extension of its own). The
  graph of a batch's gradient is made once for several probes.
- The trace is the sum of v . Hv over random v with E[v v^T] = 1. Signs (Rademacher) have the smaller variance, 2 (||H||_F^2 - sum H_ii^2), Gaussians
  2 ||H||_F^2 (Hutchinson 1990; Avron and Toledo 2011).
- With labels drawn from the model's own prediction the expected Hessian is the Fisher matrix, E[grad log q grad log q^T], whose trace costs one
  backward pass a draw. With the data's labels the two agree only where the model equals the true conditionals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import Diverged, UsageError
from headstart.core.second_order import second_order
from headstart.engine.method import Predictions

Loss: TypeAlias = Callable[[], Tensor]
"""A scalar with a graph; the same at every call."""
ProbeKind: TypeAlias = Literal["rademacher", "gaussian"]
Parameters: TypeAlias = dict[str, nn.Parameter]
Made: TypeAlias = Callable[[int], None]
"""Is told how many products, or draws, were made just now."""

LEFT_OUT = ("*pooler*", "*predictions.bias", "*predictions.decoder.bias", "*lm_head.bias", "*lm_head.decoder.bias", "decoder.bias", "*.decoder.bias")
"""The pooler and the output bias of token prediction (Liuhong99/implicitbiasmlmcode pcfg/calculate_hessian.py)."""
FEWEST = 50
"""Estimates below which a trace is unreliable."""
LARGEST_ERROR = 0.1
"""Relative standard error above which it is."""
ROUND = 8
"""Probes of each batch between two looks at the error."""
BATCHED_SIZE = 1_000_000
"""Parameters up to which the products of several probes are made at once."""
AT_ONCE = 64
"""Products that the exact trace makes at once."""
MOST_EXACT = 20_000
"""Parameters up to which the exact trace, one product for each, is computed."""


@dataclass(frozen=True)
class Trace:
    """A trace with its error; where the batches are what is meant, not a sample."""

    mean: float
    standard_error: float
    """Over the probes, the batches kept. 0: exact."""
    estimates: int
    of_parameter: Mapping[str, float]
    """Tr of each parameter's own block of H; they sum to `mean`."""
    of_batch: Sequence[float]
    """The trace on each batch alone."""
    stopped: bool = False
    """Whether Ctrl-C ended it: of the rounds that were whole by then."""

    @property
    def relative_error(self) -> float:
        return self.standard_error / max(abs(self.mean), 1e-30)

    @property
    def unreliable(self) -> str:
        """Why the figure should not be used; empty: it may."""
        if self.standard_error == 0 and self.estimates >= 1:
            return ""
        if self.estimates < FEWEST:
            return f"only {self.estimates} estimates (at least {FEWEST})"
        if self.relative_error > LARGEST_ERROR:
            return f"a relative standard error of {self.relative_error:.1%} (at most {LARGEST_ERROR:.0%})"
        return ""


def measured_parameters(network: nn.Module, leave_out: Sequence[str] | None = None) -> Parameters:
    """The parameters that sharpness is about, a shared one once.

    Args:
        leave_out: patterns of names, as of files (`*`); None: `LEFT_OUT`, of which a network need not have every one.

    Raises:
        UsageError: a given pattern fits no name; or none is left ("no parameters" is not a trace of 0).
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in leave_out or ():
        if not any(fnmatchcase(name, pattern) for name in names):
            some = ", ".join([*names[:2], *names[-2:]])
            raise UsageError(f"--leave-out: no parameter has a name like {pattern!r}.", f"Give patterns as of files, * for anything: {some}.")
    left_out = LEFT_OUT if leave_out is None else leave_out
    found = {name: value for name, value in network.named_parameters() if not any(fnmatchcase(name, pattern) for pattern in left_out)}
    if not found:
        raise UsageError("There are no parameters to measure.", "A trace is of a network; leave fewer out.")
    return found


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """While it lasts the network is in evaluation, all its parameters have gradients, and second derivatives work; afterwards all is as before."""
    modes = {module: module.training for module in network.modules()}
    learns = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.eval()
    network.requires_grad_(True)
    try:
        with torch.enable_grad(), second_order():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, learned in learns.items():
            parameter.requires_grad_(learned)


def draw_probe(parameters: Parameters, kind: ProbeKind, generator: torch.Generator) -> list[Tensor]:
    """A random direction with unit covariance; the draws are made on the CPU, so that every device has the same."""

    def one(parameter: Tensor) -> Tensor:
        if kind == "gaussian":
            return torch.randn(parameter.shape, generator=generator)
        return torch.randint(0, 2, parameter.shape, generator=generator).float().mul_(2).sub_(1)

    return [one(parameter).to(parameter.device, parameter.dtype) for parameter in parameters.values()]


def gradients(loss: Tensor, parameters: Parameters, graph: bool) -> list[Tensor]:
    """One tensor a parameter; zeros where the loss does not depend on it."""
    found = torch.autograd.grad(loss, list(parameters.values()), create_graph=graph, allow_unused=True)
    return [torch.zeros_like(parameter) if value is None else value for value, parameter in zip(found, parameters.values(), strict=True)]


def hessian_product(of: Sequence[Tensor], parameters: Parameters, direction: Sequence[Tensor]) -> list[Tensor]:
    """H v, from gradients with a graph, which is kept."""
    pairs = [(gradient, v) for gradient, v in zip(of, direction, strict=True) if gradient.requires_grad]
    if not pairs:  # a linear loss
        return [torch.zeros_like(v) for v in direction]
    along = torch.stack([(gradient * v).sum() for gradient, v in pairs]).sum()
    found = torch.autograd.grad(along, list(parameters.values()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(v) if value is None else value for value, v in zip(found, direction, strict=True)]


def hessian_products(of: Sequence[Tensor], parameters: Parameters, directions: Sequence[Sequence[Tensor]]) -> Iterator[Sequence[Tensor]]:
    """H v of several directions: of a small network at once, because there the calls cost more than the work."""
    small = sum(parameter.numel() for parameter in parameters.values()) <= BATCHED_SIZE
    if small and len(directions) > 1 and all(gradient.requires_grad for gradient in of):
        stacked = [torch.stack(parts) for parts in zip(*directions, strict=True)]
        try:
            wanted = list(parameters.values())
            found = torch.autograd.grad(of, wanted, grad_outputs=stacked, retain_graph=True, allow_unused=True, is_grads_batched=True)
        except RuntimeError:  # an operation that cannot be batched
            small = False
        else:
            filled = [torch.zeros_like(v) if value is None else value for value, v in zip(found, stacked, strict=True)]
            yield from ([part[i] for part in filled] for i in range(len(directions)))
            return
    for direction in directions:
        yield hessian_product(of, parameters, direction)


def uncounted(products: int) -> None:
    """For whom progress is no matter."""


def hutchinson_draws(
    loss: Loss, parameters: Parameters, count: int, kind: ProbeKind, generator: torch.Generator, at_once: int = 8, made: Made = uncounted
) -> Tensor:
    """float64 [count, parameters]: v . Hv of each draw, split over the parameters.

    Args:
        at_once: draws for which the graph of the gradient is kept.
    """
    found = []
    for start in range(0, count, at_once):
        of = gradients(loss(), parameters, graph=True)
        directions = [draw_probe(parameters, kind, generator) for _ in range(min(at_once, count - start))]
        for v, product in zip(directions, hessian_products(of, parameters, directions), strict=True):
            found.append(_dots(v, product))
            made(1)
        del of
    return torch.stack(found)


def seconds_a_product(loss: Loss, parameters: Parameters) -> float:
    """Of one Hessian-vector product as a trace makes them: of a small network the mean of a round, of a large one the first, its gradient's graph
    included."""
    count = ROUND if sum(parameter.numel() for parameter in parameters.values()) <= BATCHED_SIZE else 1
    began = time.perf_counter()
    hutchinson_draws(loss, parameters, count, "rademacher", torch.Generator().manual_seed(0))
    return (time.perf_counter() - began) / count


def _dots(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a.detach().double() * b.detach().double()).sum().cpu() for a, b in zip(one, other, strict=True)])


def hessian_trace(
    losses: Sequence[Loss],
    parameters: Parameters,
    *,
    probes: int = 200,
    kind: ProbeKind = "rademacher",
    relative_error: float = 0.02,
    seed: int = 0,
    made: Made = uncounted,
) -> Trace:
    """Tr H of the mean of several losses, in rounds of a few probes on each, until the error is small enough.

    Args:
        losses: one a batch.
        probes: at most so many on each.
        relative_error: the relative standard error at which it stops (not before 50 estimates); 0: all probes are made.

    Raises:
        Diverged: an estimate is no finite number. KeyboardInterrupt: Ctrl-C before the first round was whole; after it, what was measured is kept.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(loss: Loss, count: int) -> Tensor:
        return hutchinson_draws(loss, parameters, count, kind, generator, made=made)

    return _estimated(losses, parameters, probes, relative_error, draw)


def _estimated(
    losses: Sequence[Loss], parameters: Parameters, probes: int, relative_error: float, draw: Callable[[Loss, int], Tensor]
) -> Trace:
    draws: list[Tensor] = [torch.zeros(0, len(parameters), dtype=torch.float64) for _ in losses]
    while len(draws[0]) < probes:
        count = min(ROUND, probes - len(draws[0]))
        try:
            draws = [torch.cat([of_batch, draw(loss, count)]) for of_batch, loss in zip(draws, losses, strict=True)]
        except KeyboardInterrupt:
            if not len(draws[0]):
                raise
            return replace(_summary(draws, list(parameters)), stopped=True)
        found = _summary(draws, list(parameters))
        if not math.isfinite(found.mean):
            raise Diverged("The second derivatives are no finite numbers.", "Look at the loss of this model first: headstart replay.")
        if found.estimates >= FEWEST and found.relative_error <= relative_error:
            break
    return found


def _summary(draws: Sequence[Tensor], names: Sequence[str]) -> Trace:
    whole = [of_batch.sum(1) for of_batch in draws]  # [probes] each
    count = len(whole[0])
    error = math.sqrt(sum(float(of_batch.var()) / count for of_batch in whole)) / len(whole) if count > 1 else math.inf
    means = torch.stack([of_batch.mean(0) for of_batch in draws]).mean(0)
    return Trace(
        float(means.sum()), error, count * len(whole), dict(zip(names, means.tolist(), strict=True)), [float(of_batch.mean()) for of_batch in whole]
    )


def exact_trace(losses: Sequence[Loss], parameters: Parameters, made: Made = uncounted) -> Trace:
    """Tr H by one product for each parameter's entry.

    Raises:
        UsageError: there are more than `MOST_EXACT`.
    """
    size = sum(parameter.numel() for parameter in parameters.values())
    if size > MOST_EXACT:
        raise UsageError(f"The exact trace takes a product for each of {size:,} parameters.", f"Up to {MOST_EXACT:,} are made; leave --exact out.")
    totals = torch.zeros(len(losses), len(parameters), dtype=torch.float64)
    for at, loss in enumerate(losses):
        of = gradients(loss(), parameters, graph=True)
        for number, gradient in enumerate(of):
            for entries in torch.arange(gradient.numel()).split(AT_ONCE):
                directions = [[torch.zeros_like(parameter) for parameter in parameters.values()] for _ in entries]
                for direction, entry in zip(directions, entries, strict=True):
                    direction[number].view(-1)[entry] = 1.0
                products = hessian_products(of, parameters, directions)
                totals[at, number] += sum(float(product[number].reshape(-1)[entry]) for product, entry in zip(products, entries, strict=True))
                made(len(entries))
    means = totals.mean(0)
    return Trace(float(means.sum()), 0.0, len(losses), dict(zip(parameters, means.tolist(), strict=True)), totals.sum(1).tolist())


def fisher_trace(
    predictions: Sequence[Callable[[], Predictions]],
    parameters: Parameters,
    *,
    draws: int = 200,
    relative_error: float = 0.02,
    seed: int = 0,
    made: Made = uncounted,
) -> Trace:
    """The trace of the Hessian that the loss would have with labels from the model's own prediction: sum of shares * E ||grad log q(y)||^2.

    A draw takes a label and a random sign for each prediction; the squared norm of the sum of sign * sqrt(share) * gradient has this expectation, so
    all predictions of a batch share one backward pass.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(predict: Loss, count: int) -> Tensor:
        found = []
        for start in range(0, count, ROUND):
            of: Predictions = predict()  # type: ignore[assignment]
            log_q = F.log_softmax(of.logits.float(), -1)
            for _ in range(min(ROUND, count - start)):
                labels = torch.multinomial(log_q.detach().exp().cpu(), 1, generator=generator).to(log_q.device)
                signs = torch.randint(0, 2, (len(labels),), generator=generator).float().mul_(2).sub_(1).to(log_q.device)
                along = (signs * of.shares.sqrt() * log_q.gather(1, labels)[:, 0]).sum()
                parts = torch.autograd.grad(along, list(parameters.values()), retain_graph=True, allow_unused=True)
                found.append(torch.stack([torch.zeros(()).double() if p is None else p.detach().double().square().sum().cpu() for p in parts]))
                made(1)
        return torch.stack(found)

    return _estimated(predictions, parameters, draws, relative_error, draw)  # type: ignore[arg-type]


# --- other measures -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Eigenvalue:
    """The largest in magnitude, with its sign, as far as power iteration got."""

    value: float
    settled: bool
    """Whether the last iteration moved it by no more than the tolerance; otherwise its magnitude is at least about this."""


def largest_eigenvalue(
    losses: Sequence[Loss], parameters: Parameters, *, iterations: int = 50, tolerance: float = 1e-3, seed: int = 0, made: Made = uncounted
) -> Eigenvalue:
    """Of H of the mean loss, by power iteration: one product on each loss an iteration."""
    v = _unit(draw_probe(parameters, "gaussian", torch.Generator().manual_seed(seed)))
    value = 0.0
    for _ in range(iterations):
        product = [torch.zeros_like(part) for part in v]
        for loss in losses:
            of = gradients(loss(), parameters, graph=True)
            for total, part in zip(product, hessian_product(of, parameters, v), strict=True):
                total.add_(part.detach(), alpha=1 / len(losses))
            made(1)
        before, value = value, float(_dots(v, product).sum())
        if _norm(product) == 0:
            return Eigenvalue(0.0, True)
        v = _unit(product)
        if abs(value - before) <= tolerance * abs(value):
            return Eigenvalue(value, True)
    return Eigenvalue(value, False)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum().cpu() for tensor in tensors]).sum().sqrt())


def _unit(tensors: Sequence[Tensor]) -> list[Tensor]:
    norm = _norm(tensors)
    return [tensor / norm for tensor in tensors]


def ascent(of: Sequence[Tensor], weights: Sequence[Tensor], rho: float, adaptive: bool, norm: Tensor | None = None) -> list[Tensor]:
    """The step of length rho that raises a loss most: rho g / ||g|| (SAM, Foret et al. 2021), or in the metric of the weights' own sizes,
    rho w^2 g / ||w g|| (ASAM, Kwon et al. 2021, without their offset).

    Args:
        of: gradients. weights: of the same shapes.
        norm: that of all gradients (of w g), where these are parts of them; None: these are all.
    """
    scaled = [weight.detach().abs() * gradient for weight, gradient in zip(weights, of, strict=True)] if adaptive else list(of)
    if norm is None:
        norm = torch.stack([part.float().square().sum() for part in scaled]).sum().sqrt()
    size = rho / norm.clamp(min=1e-12)
    if adaptive:
        scaled = [weight.detach().abs() * part for weight, part in zip(weights, scaled, strict=True)]
    return [part * size.to(part.dtype) for part in scaled]


def sam_sharpness(losses: Sequence[Loss], parameters: Parameters, rho: float, adaptive: bool = False) -> float:
    """L(theta + the ascent step of length rho) - L(theta) of the mean loss: the rise that SAM trains against."""
    before = _mean(losses)
    totals = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for loss in losses:
        for total, part in zip(totals, gradients(loss(), parameters, graph=False), strict=True):
            total.add_(part, alpha=1 / len(losses))
    with moved(parameters, ascent(totals, list(parameters.values()), rho, adaptive)):
        return _mean(losses) - before


def average_sharpness(losses: Sequence[Loss], parameters: Parameters, sigma: float, draws: int = 20, seed: int = 0) -> float:
    """E[L(theta + sigma |theta| * n)] - L(theta), n normal: the mean rise in the metric of the weights' own sizes, which no rescaling of a layer
    changes (Andriushchenko et al. 2023). In pairs of n and -n, so that the slope cancels."""
    generator = torch.Generator().manual_seed(seed)
    before, rises = _mean(losses), []
    for _ in range(draws):
        step = [sigma * p.detach().abs() * v for p, v in zip(parameters.values(), draw_probe(parameters, "gaussian", generator), strict=True)]
        for sign in (1.0, -1.0):
            with moved(parameters, [sign * part for part in step]):
                rises.append(_mean(losses) - before)
    return sum(rises) / len(rises)


@torch.no_grad()
def _mean(losses: Sequence[Loss]) -> float:
    return sum(float(loss()) for loss in losses) / len(losses)


@contextmanager
def moved(parameters: Parameters, step: Sequence[Tensor]) -> Iterator[None]:
    """While it lasts the parameters are elsewhere; afterwards they have their bits again."""
    before = [parameter.detach().clone() for parameter in parameters.values()]
    with torch.no_grad():
        for parameter, part in zip(parameters.values(), step, strict=True):
            parameter.add_(part)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, kept in zip(parameters.values(), before, strict=True):
                parameter.copy_(kept)


# --- what a person reads --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A layer, or one matrix."""

    name: str
    parameters: int
    trace: float
    squared_norm: float
    """||w||^2."""
    scale_free: float = field(init=False)
    """Tr H * ||w||^2: stays where a layer is multiplied by a number that the next one undoes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale_free", self.trace * self.squared_norm)


def parts_of(trace: Trace, parameters: Parameters, layer_of: Callable[[str], str]) -> tuple[list[Part], list[Part]]:
    """(one entry a layer, one entry a matrix), in the order of the parameters."""
    matrices: list[Part] = []
    layers: dict[str, list[Part]] = {}
    for name, parameter in parameters.items():
        part = Part(name, parameter.numel(), trace.of_parameter[name], float(parameter.detach().double().square().sum()))
        if parameter.ndim > 1:
            matrices.append(part)
        key = layer_of(name)
        layers.setdefault(key, []).append(part)
    summed = [
        Part(key, sum(p.parameters for p in found), sum(p.trace for p in found), sum(p.squared_norm for p in found)) for key, found in layers.items()
    ]
    return summed, matrices
