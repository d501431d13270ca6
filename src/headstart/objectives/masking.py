"""Which tokens a masked language model hides, and how they are hidden. All on the device, with static shapes and no host sync.

- A row of `length` tokens has a fixed number of *slots* N; each slot is (position, weight). Slots past the row's own count have weight 0 and
  point to position 0, which is never written. So every tensor after the choice is [batch, N], whatever the rows hold.
- Two ways to choose: single tokens (`choose_positions`, ELECTRA and BERT) and whole groups of tokens (`choose_groups`: whole words, spans).
- Every draw comes from the counter-based `Rng`: the masks of a row do not depend on its rank, micro-batch or place in the batch.

Sources: google-research/electra pretrain/pretrain_helpers.py (counts, sampling with replacement, scatter), google-research/bert
create_pretraining_data.py (80/10/10, whole words), SpanBERT (arXiv 1907.10529, section 3.1: span lengths).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart.core.rng import Rng


def masking_slots(probability: float, length: int) -> int:
    """N, the number of slots of every row: 19 for 15 % of 128 tokens. The .005 is the official code's guard against rounding down."""
    return max(1, int((probability + 0.005) * length))


def slot_counts(n_tokens: Tensor, probability: float, slots: int) -> Tensor:
    """int64 [batch], 1..slots: how many slots a row of `n_tokens` uses; round half to even in float32, as the official TensorFlow code."""
    return (n_tokens.to(torch.float32) * probability).round().clamp(1, slots).to(torch.int64)


def choose_positions(
    rng: Rng, candidates: Tensor, n_tokens: Tensor, probability: float, slots: int, replacement: bool, name: str = "mask"
) -> tuple[Tensor, Tensor]:
    """Single tokens, uniform over the candidates of a row.

    Args:
        candidates: bool [batch, length], which tokens may be chosen.
        n_tokens: int64 [batch], non-padding tokens (special tokens included): `probability` of them are chosen.
        slots: N from `masking_slots`.
        replacement: draw each slot afresh, so a position may come twice (the official ELECTRA); otherwise all positions are distinct.

    Returns:
        positions int64 [batch, N] and weights float32 [batch, N], N at most the length where all are distinct. A row without a candidate gets
        weight 0 everywhere.
    """
    available = candidates.sum(1)  # [batch]
    counts = slot_counts(n_tokens, probability, slots)
    if replacement:
        counts = torch.where(available > 0, counts, 0)
        nth = (rng.integers(f"{name}.positions", 1 << 31, slots) * available[:, None]) >> 31  # [batch, N], 0..available-1
        positions = torch.searchsorted(candidates.cumsum(1), nth + 1).clamp_(max=candidates.shape[1] - 1)
    else:
        counts = torch.minimum(counts, available)
        keys = rng.uniform(f"{name}.positions", candidates.shape[1]).masked_fill(~candidates, -1.0)
        positions = keys.topk(min(slots, keys.shape[1]), dim=1).indices
    return _close_slots(positions, counts)


def independent_slots(probability: float, length: int) -> int:
    """Slots that a row needs where each token is chosen for itself: four standard deviations above the mean, which one row in 30,000 passes."""
    return min(length, math.ceil(length * probability + 4 * math.sqrt(length * probability * (1 - probability))))


def choose_independently(rng: Rng, candidates: Tensor, probability: float, slots: int, name: str = "mask") -> tuple[Tensor, Tensor]:
    """Each candidate for itself, as transformers' DataCollatorForLanguageModeling: how many a row has is a draw too, and it may be none.

    Returns:
        positions int64 [batch, N], ascending, and weights float32 [batch, N].
    """
    chosen = candidates & (rng.uniform(f"{name}.positions", candidates.shape[1]) < probability)
    positions = (~chosen).to(torch.uint8).sort(dim=1, stable=True).indices[:, :slots]
    return _close_slots(positions, chosen.sum(1).clamp(max=slots))


def choose_groups(
    rng: Rng,
    groups: Tensor,
    candidates: Tensor,
    n_tokens: Tensor,
    probability: float,
    slots: int,
    cut_last: bool,
    name: str = "mask",
    cut_first: bool = True,
) -> tuple[Tensor, Tensor]:
    """Whole groups of tokens in random order until the row's count is reached: a random key a group, tokens sorted by (key, position).

    Args:
        groups: int64 [batch, length], the group number of each token (0..length-1), from `word_groups` or `span_groups`.
        candidates, n_tokens, probability, slots: as in `choose_positions`.
        cut_last: cut the group that overshoots the count (SpanBERT); otherwise groups stay whole, one that does not fit is passed over and
            smaller ones behind it fill the rest (BERT's whole-word masking).
        cut_first: a row with no group that fits has its first one cut; otherwise it has none.

    Returns:
        positions int64 [batch, N], all distinct, and weights float32 [batch, N].
    """
    length = groups.shape[1]
    place = torch.arange(length, device=groups.device)
    counts = torch.minimum(slot_counts(n_tokens, probability, slots), candidates.sum(1))[:, None]  # [batch, 1]

    keys = (rng.bits(f"{name}.groups", length) & ((1 << 62) - 1)).gather(1, groups)  # [batch, length]: equal within a group
    order = keys.masked_fill(~candidates, (1 << 63) - 1).sort(dim=1, stable=True).indices
    chosen = place < counts
    if not cut_last:
        able = candidates.gather(1, order)
        sorted_groups = groups.gather(1, order)
        size = torch.zeros_like(groups).scatter_add_(1, groups, candidates.to(torch.int64)).gather(1, sorted_groups)
        first = torch.ones_like(able)
        first[:, 1:] = sorted_groups[:, 1:] != sorted_groups[:, :-1]
        inside = place - torch.where(first, place, 0).cummax(1).values  # rank of the token within its group
        whole = torch.zeros_like(able)
        for _ in range(2):  # the second pass fills what the first group too large left over; more passes gain under 0.1 tokens a row
            left = counts - whole.sum(1, keepdim=True)
            fits = able & ~whole & (size <= left)
            end = fits.cumsum(1) - inside - 1 + size  # tokens taken when this group is taken too
            whole = whole | (fits & (end <= left))
        chosen = torch.where(whole.any(1, keepdim=True), whole, chosen) if cut_first else whole
    packed = (~chosen).to(torch.uint8).sort(dim=1, stable=True).indices[:, :slots]  # chosen ones first, in order
    return _close_slots(order.gather(1, packed), chosen.sum(1))


def word_groups(ids: Tensor, continues_word: Tensor) -> Tensor:
    """int64 [batch, length]: the number of the word each token belongs to.

    Args:
        continues_word: bool [vocab_size], from the store: the token goes on with the word before it.
    """
    return ((~continues_word[ids]).cumsum(1) - 1).clamp_(min=0)


def span_groups(rng: Rng, words: Tensor, p: float = 0.2, longest: int = 10, name: str = "mask") -> Tensor:
    """int64 [batch, length]: the row cut into spans of 1..`longest` words, lengths ~ Geometric(p) given that (mean 3.8; SpanBERT section 3.1).

    SpanBERT draws a start and a length for each span and lets spans overlap; cutting the row into spans and choosing among them gives the same
    lengths and one pass.
    """
    uniform = rng.uniform(f"{name}.spans", words.shape[1])  # one length for each possible span
    tail = 1.0 - (1.0 - p) ** longest
    lengths = (torch.log1p(-uniform * tail) / math.log(1.0 - p)).to(torch.int64).clamp_(max=longest - 1) + 1
    return torch.searchsorted(lengths.cumsum(1), words, right=True).clamp_(max=words.shape[1] - 1)


def apply_masking(
    ids: Tensor,
    positions: Tensor,
    weights: Tensor,
    mask_id: int,
    rng: Rng,
    mask_share: float = 0.85,
    random_share: float = 0.0,
    vocab_size: int = 0,
    name: str = "mask",
    random_ids: Tensor | None = None,
) -> Tensor:
    """int64 [batch, length]: the ids with each slot hidden. ELECTRA: 85 % [MASK], 15 % unchanged. BERT: shares .8 and .1, 10 % unchanged.

    Each slot throws its own coin, so a position drawn twice is hidden if either slot says so, as in the official code.

    Args:
        random_ids: int64 [n], the tokens that random ones are drawn from; None: all of `vocab_size`.
    """
    coin = rng.uniform(f"{name}.coin", positions.shape[1])
    values = torch.full_like(positions, mask_id)
    if random_share:
        drawn = rng.integers(f"{name}.random", vocab_size if random_ids is None else len(random_ids), positions.shape[1])
        values = torch.where(coin < mask_share, values, drawn if random_ids is None else random_ids[drawn])
    written = weights * (coin < mask_share + random_share)
    return scatter(ids, positions, written, values)[0]


def scatter(ids: Tensor, positions: Tensor, weights: Tensor, values: Tensor, official_duplicate_mean: bool = False) -> tuple[Tensor, Tensor]:
    """Writes `values` at `positions` where the weight is positive. Position 0 is never written.

    Args:
        ids: int64 [batch, length]; positions, weights, values: [batch, N].
        official_duplicate_mean: a position that comes twice gets the sum of its ids, floor-divided by their number, which is an unrelated
            token (google-research/electra#41). By default the first slot wins.

    Returns:
        the new ids, and bool [batch, length]: which positions were written.
    """
    slots = positions.shape[1]
    positions = torch.where(weights > 0, positions, 0)
    if official_duplicate_mean:
        writers = torch.zeros_like(ids).scatter_add_(1, positions, torch.ones_like(positions))
        total = torch.zeros_like(ids).scatter_add_(1, positions, values)
        new = total // writers.clamp(min=1)
        written = writers > 0
    else:
        numbers = torch.arange(slots, device=ids.device).expand_as(positions)
        winner = torch.full_like(ids, slots).scatter_reduce_(1, positions, numbers, "amin")  # [batch, length]: first slot that points here
        new = values.gather(1, winner.clamp(max=slots - 1))
        written = winner < slots
    written[:, 0].fill_(False)  # assigned, the value would be copied from the host
    return torch.where(written, new, ids), written


def _close_slots(positions: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Weight 1 for the first `counts` slots of each row; the others point to position 0."""
    used = torch.arange(positions.shape[1], device=positions.device) < counts[:, None]
    return torch.where(used, positions, 0), used.to(torch.float32)
