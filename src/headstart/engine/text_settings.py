"""What methods on texts refuse of their settings before a text is read: a store may take hours. No torch here."""

from __future__ import annotations

from headstart.core.bounds import BELOW_1, COUNT, refuse_outside
from headstart.core.errors import UsageError


def check_masks(mask_share: float, random_share: float) -> None:
    """Refuses shares of the chosen tokens that are none. Raises UsageError."""
    if not (mask_share >= 0 and random_share >= 0 and mask_share + random_share <= 1):
        raise UsageError("--method.mask-share and --method.random-share are shares of the chosen tokens.", "Give two that sum to at most 1.")


def check_network(hidden_size: int, num_layers: int, num_heads: int, intermediate_size: int, dropout: float, sequence_length: int) -> None:
    """Refuses sizes that no transformer can have.

    Raises:
        UsageError: the first one.
    """
    if num_layers < 1 or num_heads < 1 or hidden_size < 1:
        raise UsageError(f"A network of {num_layers} layers, {num_heads} heads and width {hidden_size} cannot be built.", "Give at least 1 of each.")
    if hidden_size % (2 * num_heads):
        what = f"A width of {hidden_size} cannot be split over {num_heads} heads of an even size."
        raise UsageError(what, f"Choose a multiple of {2 * num_heads} as --method.hidden-size, or another --method.num-heads.")
    refuse_outside({"intermediate_size": intermediate_size, "dropout": dropout}, {"intermediate_size": COUNT, "dropout": BELOW_1}, "method.")
    if sequence_length < 4:
        raise UsageError(f"--method.sequence-length is {sequence_length}.", "Give at least 4.")
