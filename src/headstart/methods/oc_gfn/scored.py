"""Objects are drawn, and the network learns through the answers that they were drawn with: none is computed again.

Keeping autograd's graph of every step means as many small backward passes as there are steps; asking for all states once more, a second forward pass.
Here what each layer said while drawing is kept, and one backward pass goes over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from headstart.core import products
from headstart.data.environments.environment import Environment, offsets
from headstart.methods.oc_gfn.network import SLOPE
from headstart.methods.oc_gfn.trajectories import INVALID, Trajectories, built, is_small, masked_log_softmax

Layers: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Weight [out, in] and bias [out] of each layer of a network on one-hot states; LeakyReLU after each, logits of the actions after the last."""


def roll_scored(
    environment: Environment, layers: Layers, uniform: Tensor, epsilon: float | Tensor = 0.0, lazy: bool = False
) -> tuple[Trajectories, Tensor]:
    """As `roll` with the policy of `layers`, and log P_F float32 [batch, max_steps] of the actions under that policy, with gradients."""
    batch, steps, _ = uniform.shape
    few = lazy and is_small(environment, batch * steps)
    most = environment.n_states if few else batch * steps
    kept = Kept(environment, layers, most, sums=lazy and not few and type(environment).encode is Environment.encode)
    explores = isinstance(epsilon, Tensor) or epsilon > 0
    policy = (lambda states, valid: kept(states, valid).log_softmax(-1)) if explores else kept  # logits with noise are a draw already
    with torch.no_grad():
        trajectories, rows = built(environment, policy, uniform, epsilon, lazy)
    taken = rows.shape[1]
    chosen = rows * environment.n_actions + trajectories.actions[:, :taken]
    log_pf = kept.log_probs().flatten().gather(0, chosen.flatten()).view(chosen.shape)
    return trajectories, F.pad(log_pf, (0, steps - taken))


class Kept:
    """A network on states that keeps what its layers answered, of all calls in one tensor: 6 MB an update of 256 strings of 40 bits would be
    copied to put them together afterwards.

    Args:
        most: so many rows are asked for, all calls together.
        sums: the first layer adds up the columns of its weight that the ones of a state choose, instead of multiplying all others by zero; the same
            sums in the same order. Not where FLOPs are counted: they are those of the product.
    """

    def __init__(self, environment: Environment, layers: Layers, most: int, sums: bool = False) -> None:
        self.environment, self.layers = environment, layers
        weight, _ = layers[0]
        self.columns = weight.detach().t().contiguous() if sums else None  # [encoding, hidden]
        self.asked = 0
        self.states: list[Tensor] = []
        self.valid: list[Tensor] = []
        self.hidden = [weight.new_empty(most, len(weight)) for weight, _ in layers[:-1]]
        self.logits: list[Tensor] = []

    def __call__(self, states: Tensor, valid: Tensor) -> Tensor:
        """float32 [rows, actions]: logits. To be asked without gradients; `log_probs` has them."""
        here = slice(self.asked, self.asked + len(states))
        self.asked = here.stop
        answer = self._first(states)
        for hidden, (weight, bias) in zip(self.hidden, self.layers[1:], strict=True):
            answer = products.linear(torch.ops.aten.leaky_relu.out(answer, SLOPE, out=hidden[here]), weight, bias)
        self.states.append(states)
        self.valid.append(valid)
        self.logits.append(answer)
        return torch.where(valid, answer.float(), INVALID)

    def _first(self, states: Tensor) -> Tensor:
        """[rows, hidden]: the first layer, before its LeakyReLU."""
        weight, bias = self.layers[0]
        if self.columns is None:
            return products.linear(self.environment.encode(states), weight, bias)
        return F.embedding_bag(states + offsets(self.environment.sizes, states.device), self.columns, mode="sum").add_(bias)

    def log_probs(self) -> Tensor:
        """float32 [all rows, actions]: log-probabilities of all calls, one after another, with gradients."""
        states = torch.cat(self.states)
        ones = self.columns is not None and not states.is_cuda  # on a GPU the order in which they are added would not be the same twice
        first = states + offsets(self.environment.sizes, states.device) if ones else self.environment.encode(states)
        answers = [first, *(hidden[: self.asked] for hidden in self.hidden), torch.cat(self.logits)]
        logits: Tensor = _Answered.apply(answers, *[part for layer in self.layers for part in layer])
        return masked_log_softmax(logits, torch.cat(self.valid))


def column_sums(gradient: Tensor, ones: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a weight [out, in] that multiplied one-hot rows: column i is the sum of those rows of `gradient` [rows, out] whose state has
    a one at i; `ones` int64 [rows, places] tells where."""
    columns = gradient.new_zeros(weight.shape[1], weight.shape[0])
    for place in ones.unbind(1):
        columns.index_add_(0, place, gradient)
    return columns.t()


class _Answered(torch.autograd.Function):
    """Logits that are known already; the backward pass is that of the network that made them.

    Args:
        answers: of all rows the one-hot states (or int64 [rows, places], where their ones are), what each hidden layer made of them, and the logits.
        parameters: weight and bias of each layer, in turns.
    """

    @staticmethod
    def forward(ctx: Any, answers: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*answers[:-1], *parameters[::2])
        return answers[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        found: list[Tensor] = []
        for number in reversed(range(count)):
            x, weight = inputs[number], weights[number]
            onednn = products.worth_it(x, weight)
            of_weight = products.outer_sum(gradient, x, onednn) if x.is_floating_point() else column_sums(gradient, x, weight)
            found = [of_weight, gradient.sum(0), *found]
            if number:  # through the LeakyReLU whose result x is; a state has no gradient
                gradient = torch.ops.aten.leaky_relu_backward(products.matmul(gradient, weight, onednn), x, SLOPE, True)
        return None, *found
