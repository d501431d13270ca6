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
from headstart.data.environments.environment import Environment
from headstart.methods.oc_gfn.network import SLOPE
from headstart.methods.oc_gfn.trajectories import INVALID, Trajectories, built, masked_log_softmax

Layers: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Weight [out, in] and bias [out] of each layer of a network on one-hot states; LeakyReLU after each, logits of the actions after the last."""


def roll_scored(
    environment: Environment, layers: Layers, uniform: Tensor, epsilon: float | Tensor = 0.0, lazy: bool = False
) -> tuple[Trajectories, Tensor]:
    """As `roll` with the policy of `layers`, and log P_F float32 [batch, max_steps] of the actions under that policy, with gradients."""
    kept = Kept(environment, layers)
    explores = isinstance(epsilon, Tensor) or epsilon > 0
    policy = (lambda states, valid: kept(states, valid).log_softmax(-1)) if explores else kept  # logits with noise are a draw already
    with torch.no_grad():
        trajectories, rows = built(environment, policy, uniform, epsilon, lazy)
    taken = rows.shape[1]
    chosen = rows * environment.n_actions + trajectories.actions[:, :taken]
    log_pf = kept.log_probs().flatten().gather(0, chosen.flatten()).view(chosen.shape)
    return trajectories, F.pad(log_pf, (0, uniform.shape[1] - taken))


class Kept:
    """A network on states that keeps what its layers answered."""

    def __init__(self, environment: Environment, layers: Layers) -> None:
        self.environment, self.layers = environment, layers
        self.valid: list[Tensor] = []
        self.answers: list[list[Tensor]] = []
        """Of every call the one-hot states, what each hidden layer made of them, and the logits."""

    def __call__(self, states: Tensor, valid: Tensor) -> Tensor:
        """float32 [rows, actions]: logits. To be asked without gradients; `log_probs` has them."""
        answers = [self.environment.encode(states)]
        for number, (weight, bias) in enumerate(self.layers, 1):
            answer = products.linear(answers[-1], weight, bias)
            answers.append(answer if number == len(self.layers) else F.leaky_relu_(answer, SLOPE))
        self.answers.append(answers)
        self.valid.append(valid)
        return torch.where(valid, answers[-1].float(), INVALID)

    def log_probs(self) -> Tensor:
        """float32 [all rows, actions]: log-probabilities of all calls, one after another, with gradients."""
        answers = [torch.cat(of_calls) for of_calls in zip(*self.answers, strict=True)]
        logits: Tensor = _Answered.apply(answers, *[part for layer in self.layers for part in layer])
        return masked_log_softmax(logits, torch.cat(self.valid))


class _Answered(torch.autograd.Function):
    """Logits that are known already; the backward pass is that of the network that made them.

    Args:
        answers: as in `Kept`, of all rows. parameters: weight and bias of each layer, in turns.
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
            found = [products.outer_sum(gradient, x, onednn), gradient.sum(0), *found]
            if number:  # through the LeakyReLU whose result x is; a state has no gradient
                gradient = torch.ops.aten.leaky_relu_backward(products.matmul(gradient, weight, onednn), x, SLOPE, True)
        return None, *found
