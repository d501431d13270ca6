"""The sentences of a causal language model over a few of its tokens, as a language with known statistics (data.languages).

The model is asked for the next token with all but the kept ones ruled out, so its probabilities are renormalised over them at every step: sentences
are drawn from the very distribution whose conditionals are computed. What a perfect masked model says of a place is then exact too: each kept token
is put there and the sentence scored, p(w | rest) proportional to P(sentence with w). That is V forward passes a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.language import PAD, Floats, Ints, Language
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer, special_ids
from headstart.interop.transformers_io import load_model

BATCH = 256
SAMPLES = 512
"""Sentences from which the frequent tokens and the shares of words are estimated."""


class CausalLanguage(Language):
    """Sentences of a fixed length.

    Args:
        model: a transformers ForCausalLM.
        tokens: int64 [words], the kept tokens; their texts are the words.
        begin: the token before a sentence.
        length: words of every sentence.
    """

    def __init__(self, model: Any, tokens: Sequence[int], words: Sequence[str], begin: int, length: int, name: str = "lm") -> None:
        if len(set(words)) < len(words) or any(not word or " " in word for word in words):
            raise UsageError("Two of the kept tokens have one text, or none.", "Keep tokens with texts of their own.")
        self.model = model.eval()
        self.tokens = torch.tensor(list(tokens))
        self.words = list(words)
        self.begin, self.longest, self.name = begin, length, name

    @classmethod
    def from_folder(cls, folder: str | Path, words: int = 64, length: int = 12, device: str = "cpu") -> CausalLanguage:
        """Of the most frequent tokens of a causal language model: those with the highest mean probability after beginnings of its own sentences.

        Raises:
            BadInput: the folder holds no such model. UsageError: fewer tokens than asked for have a text of their own.
        """
        tokenizer, names = load_tokenizer(folder, TextConfig())
        specials = special_ids(tokenizer, names)
        begin = specials.get("bos", specials.get("eos"))
        if begin is None:
            raise BadInput("its tokenizer has no token that begins a text.", "Give a model with one.", file=folder)
        network: Any = load_model(folder, AutoModelForCausalLM)
        model = network.to(device).eval()
        frequent = _frequent(model, begin, length)
        kept: dict[str, int] = {}
        for token in frequent.argsort(descending=True).tolist():
            text = tokenizer.decode([token]).strip()
            if token not in specials.values() and text and not any(map(str.isspace, text)) and text not in kept and "\ufffd" not in text:
                kept[text] = token
            if len(kept) == words:
                return cls(model, list(kept.values()), list(kept), begin, length, f"lm:{folder}")
        raise UsageError(f"Only {len(kept)} tokens of the model have a text of their own.", f"Ask for fewer than {words} words.")

    @torch.no_grad()
    def _log_probabilities(self, sentences: Tensor) -> Tensor:
        """float64 [n, length, words]: of each word at each place given those before it, renormalised over the kept tokens."""
        device = next(self.model.parameters()).device
        rows = torch.cat([torch.full((len(sentences), 1), self.begin), self.tokens[sentences[:, :-1]]], 1)
        found = [
            self.model(input_ids=some.to(device), use_cache=False).logits[..., self.tokens.to(device)].double().log_softmax(-1).cpu()
            for some in rows.split(BATCH)
        ]
        return torch.cat(found)

    def sample(self, count: int, rng: np.random.Generator) -> Ints:
        """Word by word, one uniform number for each."""
        sentences = torch.zeros(count, self.longest, dtype=torch.int64)
        for t in range(self.longest):
            shares = self._log_probabilities(sentences[:, : t + 1])[:, t].exp().numpy()
            cumulative = shares.cumsum(1)
            sentences[:, t] = torch.from_numpy((cumulative < rng.random(count)[:, None] * cumulative[:, -1:]).sum(1))
        return sentences.numpy()

    def log_probability(self, sentences: Ints) -> Floats:
        """float64 [n]: of whole sentences."""
        known = torch.from_numpy(sentences)
        return self._log_probabilities(known).gather(2, known[..., None])[..., 0].sum(1).numpy()

    def conditionals(self, sentences: Ints) -> Floats:
        if (sentences == PAD).any():
            raise BadInput(f"sentences of {self.name} have {self.longest} words.", "Give whole ones.")
        n_words = len(self.words)
        found = np.zeros((*sentences.shape, n_words))
        for at in range(self.longest):
            tried = np.repeat(sentences, n_words, 0)
            tried[:, at] = np.tile(np.arange(n_words), len(sentences))
            scores = self.log_probability(tried).reshape(len(sentences), n_words)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            found[:, at] = weights / weights.sum(1, keepdims=True)
        return found

    @cached_property
    def unigram(self) -> Floats:
        """Estimated on sentences of a fixed seed: there is no closed form."""
        drawn = self.sample(SAMPLES, np.random.default_rng(0))
        shares = self._log_probabilities(torch.from_numpy(drawn)).exp().mean((0, 1)).numpy()
        return np.asarray(shares / shares.sum())


@torch.no_grad()
def _frequent(model: Any, begin: int, length: int) -> Tensor:
    """float64 [vocabulary]: the mean probability of each token over places of sentences that the model draws."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    rows = torch.full((SAMPLES // 8, 1), begin)
    total = torch.zeros(())
    for _ in range(length):
        shares = model(input_ids=rows.to(device), use_cache=False).logits[:, -1].double().softmax(-1).cpu()
        total = total + shares.mean(0)
        rows = torch.cat([rows, torch.multinomial(shares, 1, generator=generator)], 1)
    return total / length
