"""An OC-GFN as estimators of torchgfn, whose samplers and losses then take it.

torchgfn (2.4) asks for numpy below 2, so it is no extra of ours: `pip install --no-deps torchgfn` beside what it imports.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import MachineError, UsageError
from headstart.data.environments.environment import Environment
from headstart.data.environments.grid import Grid
from headstart.data.environments.sequences import Words
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.methods.oc_gfn.trajectories import INVALID


def estimators(flow: ConditionalFlow) -> tuple[Any, Any]:
    """(ConditionalDiscretePolicyEstimator of P_F, ConditionalScalarEstimator of log F) with the weights of `flow`.

    A condition is our one-hot outcome, `environment.encode(outcomes)`; states are those of torchgfn's HyperGrid or BitSequence of the same sizes.

    Raises:
        UsageError: torchgfn has no such environment. MachineError: torchgfn is not installed.
    """
    environment = flow.environment
    if (isinstance(environment, Grid) and environment.edge_ends) or (isinstance(environment, Words) and environment.ends):
        raise UsageError(f"torchgfn has no environment like {environment.name} with these ends.", "Take a grid without edge_ends, or fixed lengths.")
    try:
        from gfn.estimators import ConditionalDiscretePolicyEstimator, ConditionalScalarEstimator
    except ImportError as error:
        raise MachineError(f"torchgfn cannot be imported ({error}).", "pip install --no-deps torchgfn, and what it imports.") from None
    exits = int(isinstance(environment, Words))  # there a complete string needs one more action, the exit
    parts = [_State(flow), _Outcome(flow)]
    preprocessor = _preprocessor(environment)
    policy = ConditionalDiscretePolicyEstimator(*parts, _Head(flow, flow.head_pf, exits), environment.n_actions + exits, preprocessor)
    return policy, ConditionalScalarEstimator(*parts, _Head(flow, flow.head_logf), preprocessor=preprocessor)


def encoded(environment: Environment, states: Tensor) -> Tensor:
    """float32 [..., encoding_size] of torchgfn's states, where a letter that is not there yet is -1."""
    last = torch.tensor(environment.sizes, device=states.device) - 1
    return environment.encode(torch.where(states < 0, last, states.minimum(last)).long())


def _preprocessor(environment: Environment) -> Any:
    from gfn.preprocessors import Preprocessor

    class OneHot(Preprocessor):
        """Our encoding of torchgfn's states."""

        def preprocess(self, states: Any) -> Tensor:
            return encoded(environment, states.tensor)

    return OneHot(environment.encoding_size)


class _State(nn.Module):
    """What the state adds to the first layer."""

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__()
        first: nn.Linear = flow.trunk[0]  # type: ignore[assignment]
        self.input_dim, self.output_dim = flow.environment.encoding_size, first.out_features
        self.register_buffer("weight", first.weight.detach()[:, : self.input_dim])

    weight: Tensor

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.weight)


class _Outcome(_State):
    """What the outcome adds to it, with the bias."""

    def __init__(self, flow: ConditionalFlow) -> None:
        super().__init__(flow)
        first: nn.Linear = flow.trunk[0]  # type: ignore[assignment]
        self.register_buffer("weight", first.weight.detach()[:, self.input_dim :])
        self.register_buffer("bias", first.bias.detach())

    bias: Tensor

    def forward(self, outcomes: Tensor) -> Tensor:
        return nn.functional.linear(outcomes, self.weight, self.bias)


class _Head(nn.Module):
    """The two parts added, the rest of the trunk, and a head; `exits` further actions that are never valid before the end."""

    def __init__(self, flow: ConditionalFlow, head: nn.Linear, exits: int = 0) -> None:
        super().__init__()
        self.rest, self.head, self.exits = flow.trunk[1:], head, exits
        self.input_dim, self.output_dim = 2 * head.in_features, head.out_features + exits

    def forward(self, both: Tensor) -> Tensor:
        state, outcome = both.chunk(2, -1)
        return nn.functional.pad(self.head(self.rest(state + outcome)), (0, self.exits), value=INVALID)
