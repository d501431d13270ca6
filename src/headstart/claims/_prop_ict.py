"""An arm of PROP's claim: inverse cloze as a cross-encoder. Which of two passages without it is a sentence from? No method of the library.

Pair, loss and masked words are those of prop; the sentence takes the place of the set, and the passage of the next document that of the same one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from headstart.data.text.store import TextStore
from headstart.engine.method import Batch, Context
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Pairs, Prop, of_pairs, text_of

ENDS = (".", "!", "?")


class Ict(Prop):
    """A row becomes two: a sentence with the rest of its document, and with that of another."""

    ends: Tensor  # int64 [n]: tokens that end a sentence

    def __init__(self, config: PropConfig, store: TextStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        found = [number for end in ENDS if (number := store.tokenizer.token_to_id(end)) is not None]
        self.register_buffer("ends", torch.tensor(found, dtype=torch.int64), persistent=False)

    def pairs(self, batch: Batch, ctx: Context) -> Pairs:
        text, sizes = text_of(batch)
        inside = torch.arange(text.shape[1], device=text.device) < sizes
        ends = torch.isin(text, self.ends) & inside
        number = ends.cumsum(1) - ends.long()  # of the sentence that each token belongs to
        sentences = torch.where(inside, number, 0).amax(1, keepdim=True) + 1
        chosen = (ctx.rng.uniform("ict.sentence", 1) * sentences).long()
        sentence, rest = (self.only(text, flags) for flags in (inside & (number == chosen), inside & (number != chosen)))
        most = self.config.sequence_length // 2
        first, first_sizes = sentence[0].repeat_interleave(2, 0), sentence[1].clamp(max=most).repeat_interleave(2, 0)
        second, second_sizes = (torch.stack([values, values.roll(-1, 0)], 1).flatten(0, 1) for values in rest)
        counts = ((sentences > 1) & (sentences.roll(-1, 0) > 1)).float()[:, 0]
        return Pairs(self.lay(first, first_sizes, second, second_sizes), of_pairs(ctx), counts)

    @staticmethod
    def only(text: Tensor, flags: Tensor) -> tuple[Tensor, Tensor]:
        """(the flagged tokens of each row, in order and first; how many there are, [rows, 1])."""
        order = (~flags).to(torch.uint8).sort(dim=1, stable=True).indices
        return text.gather(1, order), flags.sum(1, keepdim=True)

    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        return []
