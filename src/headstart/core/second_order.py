"""Second derivatives: while they are asked for, functions that can be differentiated only once give way to plain ones.

Faster kernels buy their speed by writing gradients themselves, which autograd then cannot differentiate again: fused attention ("derivative for
aten::_scaled_dot_product_flash_attention_backward is not implemented"), oneDNN's products, the loss that keeps no logits. They ask `wanted()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_wanted = False


def wanted() -> bool:
    """Whether what is computed now will be differentiated twice."""
    return _wanted


@contextmanager
def second_order() -> Iterator[None]:
    """Within it every network of this library can be differentiated twice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    global _wanted
    before, _wanted = _wanted, True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _wanted = before
