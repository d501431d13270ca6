"""How well a causal language model predicts a text: perplexity a token and a byte, bits a byte.

Documents are joined, each followed by one end of text, and cut into windows of the network's length L: window i holds the tokens i L .. i L + L, so
every token but the very first is a target once; the last window is shorter. Windows do not see each other. Bits a byte count the bytes of the
documents (UTF-8) and compare models of different tokenizers; perplexities a token do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from headstart.core.errors import BadInput
from headstart.engine.update import Precision, autocast
from headstart.objectives.token_loss import token_nll
from headstart.tasks.generation import Decoder

BATCH_TOKENS = 4096
LONGEST = 2048
"""Tokens of a window where the network has no limit of its own."""
AT_ONCE = 256  # documents tokenised together


@dataclass(frozen=True)
class TextScore:
    """Of a text.

    Attributes:
        nats: sum of -log p over the targets.
        targets: tokens that were predicted.
        text_bytes: UTF-8 bytes of the documents.
        documents: how many.
    """

    nats: float
    targets: int
    text_bytes: int
    documents: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.text_bytes

    @property
    def token_perplexity(self) -> float:
        return math.exp(min(self.nats / self.targets, 700.0))

    @property
    def byte_perplexity(self) -> float:
        return math.exp(min(self.nats / self.text_bytes, 700.0))

    def to_json(self) -> dict[str, Any]:
        return {
            "bits_per_byte,none": self.bits_per_byte,
            "byte_perplexity,none": self.byte_perplexity,
            "token_perplexity,none": self.token_perplexity,
            "nats_per_token,none": self.nats / self.targets,
            "targets": self.targets,
            "bytes": self.text_bytes,
            "documents": self.documents,
        }


@torch.no_grad()
def score_text(
    decoder: Decoder,
    documents: Iterable[str],
    device: torch.device,
    precision: Precision = "fp32",
    length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> TextScore:
    """Scores all documents as one stream.

    Args:
        length: inputs of a window; None: the positions of the network.
        batch_tokens: tokens that run together; what comes out does not depend on it.

    Raises:
        BadInput: there is nothing to predict.
    """
    limits = [limit for limit in (decoder.length, length) if limit is not None]
    length = min(limits, default=LONGEST)
    model = decoder.model.to(device).eval()
    stream: list[int] = []
    waiting: list[str] = []
    totals = {"nats": 0.0, "targets": 0, "bytes": 0, "documents": 0}
    windows = max(1, batch_tokens // length)

    def tokenise() -> None:
        for ids in decoder.ids(waiting):
            stream.extend([*ids, decoder.end])
        waiting.clear()

    def run(count: int, size: int) -> None:
        """The first `count` windows of `size` inputs."""
        rows = torch.tensor([stream[start : start + size + 1] for start in range(0, count * size, size)], device=device)
        hidden = model.base_model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        totals["nats"] += float(token_nll(model.get_output_embeddings()(hidden), rows[:, 1:]).double().sum())
        totals["targets"] += count * size
        del stream[: count * size]  # the last target of a window is the first input of the next

    with autocast(device, precision):
        for text in documents:
            totals["bytes"] += len(text.encode())
            totals["documents"] += 1
            waiting.append(text)
            if len(waiting) == AT_ONCE:
                tokenise()
            while len(stream) > windows * length:
                run(windows, length)
        tokenise()
        while len(stream) > length:
            run(min(windows, (len(stream) - 1) // length), length)
        if len(stream) > 1:
            run(1, len(stream) - 1)
    if not totals["targets"] or not totals["bytes"]:
        raise BadInput("holds no text to predict.", "Give a text of at least two tokens.")
    return TextScore(totals["nats"], int(totals["targets"]), int(totals["bytes"]), int(totals["documents"]))
