"""The networks: small MLPs on one-hot states, with a linear head for each thing that they say."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from headstart.core import products
from headstart.data.environments.environment import Environment
from headstart.methods.oc_gfn.trajectories import masked_log_softmax

SLOPE = 0.01
"""Of LeakyReLU, as in GAFN's and the grid code's networks."""
RND_SIZES = (256, 256, 128)
"""Layers of the two networks whose difference is the novelty of a state."""


def mlp(sizes: tuple[int, ...], last_linear: bool = False, first: type[products.Linear] = products.Linear) -> nn.Sequential:
    """Linear layers with LeakyReLU after each; none after the last where it is a head."""
    layers: list[nn.Module] = []
    for number, (inner, outer) in enumerate(pairwise(sizes), 2):
        layers.append((first if number == 2 else products.Linear)(inner, outer))
        if not (last_linear and number == len(sizes)):
            layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers)


class SideBySide(products.Linear):
    """A layer on two inputs side by side, each of which can be multiplied alone by its columns of the weight. Through the layer, not past it: whoever
    watches layers (the count of what zeros save) sees every product."""

    def forward(self, input: Tensor, columns: slice = slice(None), shift: bool = True) -> Tensor:
        """[..., out] of input [..., those columns]; `shift`: plus the bias."""
        return products.linear(input, self.weight[:, columns], self.bias if shift else None)


class ConditionalFlow(nn.Module):
    """The OC-GFN: log F(s|y), P_F(.|s, y), and P_B where it is learned, from one trunk on the state and the outcome side by side."""

    def __init__(self, environment: Environment, hidden_size: int, num_layers: int, learned_backward: bool = False) -> None:
        super().__init__()
        self.environment = environment
        self.trunk = mlp((2 * environment.encoding_size, *[hidden_size] * num_layers), first=SideBySide)
        self.head_pf = products.Linear(hidden_size, environment.n_actions)
        self.head_logf = products.Linear(hidden_size, 1)
        self.head_pb = products.Linear(hidden_size, environment.n_actions) if learned_backward and not environment.tree else None

    def condition(self, outcomes: Tensor) -> Tensor:
        """[..., hidden]: what the outcome adds to the first layer. The same for all states of a trajectory, so it is computed once."""
        of_outcome: Tensor = self.trunk[0](self.environment.encode(outcomes), slice(self.environment.encoding_size, None))
        return of_outcome

    def hidden(self, states: Tensor, condition: Tensor) -> Tensor:
        """[..., hidden]: the trunk; `condition` is broadcast against `states`."""
        of_state: Tensor = self.trunk[0](self.environment.encode(states), slice(self.environment.encoding_size), False)
        return self.trunk[1:](of_state + condition)

    def forward(self, states: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor]:
        """(log P_F float32 [..., actions], log F float32 [...]) of states that are not done."""
        hidden = self.hidden(states, self.condition(outcomes))
        return masked_log_softmax(self.head_pf(hidden), self.environment.valid(states)), self.head_logf(hidden).float()[..., 0]


class Explorer(nn.Module):
    """GAFlowNet: a flow network that is paid for novelty alone, and proposes outcomes. Random network distillation says what is new."""

    def __init__(self, environment: Environment, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.environment = environment
        self.trunk = mlp((environment.encoding_size, *[hidden_size] * num_layers))
        self.head_pf = products.Linear(hidden_size, environment.n_actions)
        self.head_logf = products.Linear(hidden_size, 1)
        self.head_pb = None if environment.tree else products.Linear(hidden_size, environment.n_actions)
        self.log_z = nn.Parameter(torch.zeros(1))  # a vector: FSDP cuts along the first axis
        self.predictor = mlp((environment.encoding_size, *RND_SIZES), last_linear=True)
        fixed = mlp((environment.encoding_size, *RND_SIZES), last_linear=True)
        self._form_of_fixed = (fixed,)  # a tuple, so that its weights are not among the parameters
        self.fixed = nn.Module()  # buffers: they are saved, and never trained
        for name, value in fixed.named_parameters():
            self.fixed.register_buffer(name.replace(".", "_"), value.detach().clone())

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        return masked_log_softmax(self.head_pf(self.trunk(self.environment.encode(states))), valid)

    def surprise(self, states: Tensor) -> Tensor:
        """float32 [...]: the distance between the trained and the fixed network's output, not squared."""
        seen = self.environment.encode(states)
        (form,) = self._form_of_fixed
        wanted = functional_call(form, {name: getattr(self.fixed, name.replace(".", "_")) for name, _ in form.named_parameters()}, seen)
        return torch.linalg.vector_norm((self.predictor(seen) - wanted.detach()).float(), dim=-1)


class Numerators(nn.Module):
    """N(s'|s): one log-number for each action; normalised, a policy."""

    def __init__(self, environment: Environment, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.environment = environment
        self.layers = mlp((environment.encoding_size, *[hidden_size] * num_layers, environment.n_actions), last_linear=True)

    def forward(self, states: Tensor) -> Tensor:
        """float32 [..., actions]: log N, also of invalid actions, where it has no meaning."""
        return self.layers(self.environment.encode(states)).float()

    def policy(self, states: Tensor, valid: Tensor) -> Tensor:
        return masked_log_softmax(self(states), valid)
