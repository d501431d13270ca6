"""Token rows of different lengths: kept flat on the device, padded only to the longest row of each batch.

Batches of similar length are drawn from a shuffled pool, so little is padded and the order still changes every epoch. A batch is a few gathers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from headstart.core.rng import mix_int

_POOL = 8  # batches that are sorted by length together; larger pools pad less and mix less


@dataclass
class Rows:
    """Rows of token ids, one after another.

    Args:
        ids: int32 [total], all rows; row i is ids[offsets[i]:offsets[i + 1]].
        offsets: int64 [n + 1].
        token_values: name -> [total], a value for each token (segments, labels of words).
        row_values: name -> [n], a value for each row (labels, positions).
        token_padding: name -> what stands at padding, 0 unless named.
        host_values: name -> [total], a value for each token that only predictions need; never on the device.
    """

    ids: np.ndarray
    offsets: np.ndarray
    token_values: dict[str, np.ndarray] = field(default_factory=dict)
    row_values: dict[str, np.ndarray] = field(default_factory=dict)
    token_padding: dict[str, int] = field(default_factory=dict)
    host_values: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]."""
        return np.diff(self.offsets)


def make_rows(
    ids: Sequence[Sequence[int]],
    token_values: Mapping[str, Sequence[Sequence[int]]] | None = None,
    row_values: Mapping[str, Sequence[int] | Sequence[float]] | None = None,
    token_padding: dict[str, int] | None = None,
    host_values: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> Rows:
    """Rows from lists of lists."""
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=offsets[1:])

    def flat(rows: Sequence[Sequence[int]]) -> np.ndarray:
        return np.fromiter((value for row in rows for value in row), dtype=np.int32, count=offsets[-1])

    return Rows(
        flat(ids),
        offsets,
        {name: flat(values) for name, values in (token_values or {}).items()},
        {name: np.asarray(values) for name, values in (row_values or {}).items()},
        token_padding or {},
        {name: flat(values) for name, values in (host_values or {}).items()},
    )


def take(rows: Rows, index: np.ndarray) -> Rows:
    """Some of the rows, in the order of `index`, int64 [m]."""
    lengths = rows.lengths[index]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    at = np.arange(offsets[-1]) + np.repeat(rows.offsets[index] - offsets[:-1], lengths)
    return Rows(
        rows.ids[at],
        offsets,
        {name: values[at] for name, values in rows.token_values.items()},
        {name: values[index] for name, values in rows.row_values.items()},
        rows.token_padding,
        {name: values[at] for name, values in rows.host_values.items()},
    )


class DeviceRows:
    """Rows on a device, from which batches are gathered.

    Args:
        rows: the rows.
        pad_id: token id at padding.
        device: where they lie; a fine-tuning set is small beside a network.
    """

    def __init__(self, rows: Rows, pad_id: int, device: torch.device) -> None:
        self.lengths = rows.lengths
        self.device = device
        self._token_values = {"input_ids": rows.ids, **rows.token_values}
        self._padding = {"input_ids": pad_id, **rows.token_padding}
        self._tokens = {name: torch.from_numpy(values).to(device) for name, values in self._token_values.items()}
        self._rows = {name: torch.from_numpy(values).to(device) for name, values in rows.row_values.items()}
        self._offsets = torch.from_numpy(rows.offsets).to(device)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows named, padded on the right to the longest of them.

        Returns:
            token values int64 [batch, length] (`input_ids` and those of the rows), row values [batch], and `attention_mask` bool [batch, length] if
            a row is padded.
        """
        lengths = self.lengths[rows]
        width = int(lengths.max())
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        place = torch.arange(width, device=self.device)
        start = self._offsets[index][:, None]
        real = place < (self._offsets[index + 1][:, None] - start)  # [batch, length]
        at = torch.where(real, start + place, start)
        batch = {name: torch.where(real, values[at], self._padding.get(name, 0)).long() for name, values in self._tokens.items()}
        batch |= {name: values[index] for name, values in self._rows.items()}
        if int(lengths.min()) < width:
            batch["attention_mask"] = real
        return batch


def epoch_batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Every row once, in a new order each epoch that depends only on (seed, epoch). Rows of similar length come together; the last batch may be
    smaller."""
    random = np.random.default_rng([mix_int(seed), epoch])
    order = random.permutation(len(lengths))
    whole = order[: len(order) // batch * batch]
    batches: list[np.ndarray] = []
    for start in range(0, len(whole), _POOL * batch):
        pool = whole[start : start + _POOL * batch]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += np.split(pool, len(pool) // batch)
    if len(whole) < len(order):
        batches.append(order[len(whole) :])
    return [batches[i] for i in random.permutation(len(batches))]
