"""The same functions by faster means, put into a network of library modules before it is trained; parameters, their names and exports stay.

Measured on one CPU core: dropout takes a tenth of the time of torch's (`python -m benchmarks.dropout`), which draws a number of 64 bits for each
element from a generator that is not vectorised; GPT-2's GELU, written as six element-wise operations, is one. Dense layers take the faster library
for products in fp32 (`headstart.core.products`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from headstart.backbones.attention import use_fast_attention
from headstart.backbones.dropout import Dropout
from headstart.core import float8, products


def use_fast_kernels(network: nn.Module) -> None:
    """Replaces attention, dropout and activations of a network, in place, by faster ones that compute the same.

    Draws of dropout differ from torch's with the same seed; everything else agrees to float precision (attention in bf16: to that of bf16).
    """
    use_fast_attention(network)
    for module in list(network.modules()):
        if type(module) in FASTER:  # the class alone: the module, which others may share, and its parameters stay the same objects
            module.__class__ = FASTER[type(module)]
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
            elif type(child) is NewGELUActivation:
                setattr(module, name, GELUTanh().train(child.training))


def use_float8(network: nn.Module) -> int:
    """Has the dense layers of a network multiply in 8-bit floating point under bf16 autocast (`headstart.core.float8`), in place; parameters, their
    names and exports stay. Layers whose sizes the kernels do not take stay as they are, and so do heads that are computed without their module.

    Returns:
        how many layers.
    """
    taken = 0
    for module in network.modules():
        if type(module) in FLOAT8 and isinstance(weight := module.weight, Tensor) and float8.fits(weight):
            module.__class__ = FLOAT8[type(module)]
            taken += 1
    return taken


class GELUTanh(nn.Module):
    """GELU in its tanh approximation (Hendrycks and Gimpel 2016), as one operation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class TransposedLinear(Conv1D):
    """GPT-2's dense layer, whose weight is [in, out], by `products.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return products.linear(x, self.weight.t(), self.bias)


class Float8TransposedLinear(Conv1D):
    """GPT-2's dense layer by `float8.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return float8.linear(x, self.weight.t(), self.bias)


FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: products.Linear, Conv1D: TransposedLinear}
FLOAT8: dict[type[nn.Module], type[nn.Module]] = dict.fromkeys((nn.Linear, products.Linear), float8.Linear)
FLOAT8 |= dict.fromkeys((Conv1D, TransposedLinear), Float8TransposedLinear)
