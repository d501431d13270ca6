"""The loss of a model on a language with known statistics, exactly: against the true probabilities of every word, not against one drawn word.

- A masked model: each place of each test sentence is hidden in turn, always as [MASK], and its prediction q is scored by the cross-entropy
  -sum p log(q + 1e-12) with the true conditionals p (Liuhong99/implicitbiasmlmcode pcfg/calculate_loss.py). q is over the whole vocabulary, so mass
  on tokens that are no words costs. The mean is over all places, not over sentence means.
- A causal model: the same at every place, given the words before it, the end of the sentence included.
- `excess` is the loss minus the optimum on the same sentences: of two models it says which is nearer to the truth without the noise of drawn labels,
  whose standard error on 300 sentences is about .02 nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from headstart.backbones.text import encode, mlm_logits
from headstart.core.errors import BadInput, UsageError
from headstart.data.languages.language import PAD, Floats, Ints, Language, entropy
from headstart.data.languages.pcfg import PCFG

FLOOR = 1e-12
"""Added to q, as in the official script: a word of probability 0 does not make the loss infinite."""
BATCH = 512


@dataclass(frozen=True)
class ExactLoss:
    """In nats."""

    loss: float
    optimum: float
    places: int
    standard_error: float
    """Of the excess, over places."""

    @property
    def excess(self) -> float:
        return self.loss - self.optimum


@dataclass(frozen=True)
class Words:
    """How a tokenizer writes the words of a language: one token each."""

    ids: Tensor
    """int64 [words]."""
    begin: int
    end: int
    mask: int | None
    pad: int


def words_of(language: Language, tokenizer: Tokenizer, specials: Mapping[str, int]) -> Words:
    """Raises BadInput where a word is no single token."""
    ids = []
    for word in language.words:
        found = tokenizer.encode(word, add_special_tokens=False).ids
        if len(found) != 1 or found[0] == specials.get("unk"):
            mend = f"Train on --data builtin:{language.name}, whose tokenizer has a token a word."
            raise BadInput(f"the tokenizer writes the word {word!r} of {language.name} as {len(found)} tokens, or not at all.", mend)
        ids.append(found[0])
    begin, end = specials.get("cls", specials.get("bos")), specials.get("sep", specials.get("eos"))
    if begin is None or end is None:
        raise BadInput("the tokenizer has no tokens that begin and end a sentence.", "Train on the language with a tokenizer of ours.")
    return Words(torch.tensor(ids), begin, end, specials.get("mask"), specials.get("pad", 0))


def token_rows(sentences: Ints, words: Words) -> tuple[Tensor, Tensor]:
    """(ids int64 [n, longest + 2]: begin, words, end, padding; attention mask bool of the same shape)."""
    known = torch.from_numpy(sentences)
    lengths = (known != PAD).sum(1)
    ids = torch.full((len(known), known.shape[1] + 2), words.pad)
    ids[:, 0] = words.begin
    ids[:, 1:-1] = torch.where(known == PAD, words.pad, words.ids[known.clamp(min=0)])
    ids[torch.arange(len(ids)), lengths + 1] = words.end
    return ids, torch.arange(ids.shape[1]) < (lengths + 2)[:, None]


@torch.no_grad()
def masked_log_probabilities(model: Any, language: Language, sentences: Ints, words: Words, device: torch.device) -> Floats:
    """float64 [n, longest, vocabulary]: log q of every place, hidden alone; zero at padding.

    Args:
        model: a transformers ForMaskedLM.
    """
    if words.mask is None:
        raise UsageError("The model has no [MASK] token.", "Give a masked language model.")
    refuse_short_positions(model, sentences.shape[1] + 2)
    rows, mask = token_rows(sentences, words)
    sentence, place = np.nonzero(sentences != PAD)
    hidden = rows[sentence].clone()
    hidden[torch.arange(len(hidden)), torch.from_numpy(place + 1)] = words.mask
    found = np.zeros((*sentences.shape, model.config.vocab_size))
    model.eval()
    for start in range(0, len(hidden), BATCH):
        some = slice(start, start + BATCH)
        ids, at = hidden[some].to(device), torch.from_numpy(place[some] + 1).to(device)
        states = encode(model.base_model, {"input_ids": ids, "attention_mask": mask[sentence[some]].to(device)})
        logits = mlm_logits(model, states[torch.arange(len(ids), device=device), at])
        found[sentence[some], place[some]] = logits.double().log_softmax(-1).cpu().numpy()
    return found


def refuse_short_positions(model: Any, length: int) -> None:
    """Raises BadInput where sentences are longer than the table of positions."""
    limit = getattr(model.config, "max_position_embeddings", length) - (model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0)
    if length > limit:
        raise BadInput(f"rows of {length} tokens do not fit the {limit} positions of the model.", "Train with a longer --method.sequence-length.")


def masked_loss(model: Any, language: Language, sentences: Ints, words: Words, device: torch.device) -> ExactLoss:
    """Of a transformers ForMaskedLM."""
    log_q = masked_log_probabilities(model, language, sentences, words, device)[..., words.ids.numpy()]
    return scored(language.conditionals(sentences), log_q, sentences != PAD)


@torch.no_grad()
def causal_loss(model: Any, language: Language, sentences: Ints, words: Words, device: torch.device) -> ExactLoss:
    """Of a transformers ForCausalLM: the mean over every word and the end of each sentence.

    Raises:
        UsageError: only for grammars is the optimum of next words known.
    """
    if not isinstance(language, PCFG):
        raise UsageError(f"The optimum of next words is known of grammars alone, not of {language.name}.", "Measure a masked model.")
    rows, mask = token_rows(sentences, words)
    model.eval()
    parts = [model(input_ids=ids.to(device), use_cache=False).logits[:, :-1].double().log_softmax(-1).cpu() for ids in rows.split(BATCH)]
    log_q = torch.cat(parts).numpy()[..., [*words.ids.tolist(), words.end]]  # [n, longest + 1, words + 1]
    return scored(language.next_words(sentences), log_q, mask[:, 1:].numpy())


def scored(truth: Floats, log_q: Floats, counted: np.ndarray) -> ExactLoss:
    """Of the places that count: `truth` and `log_q` float64 [..., words]."""
    p = truth[counted]
    losses = -(p * np.log(np.exp(log_q[counted]) + FLOOR)).sum(-1)
    optima = entropy(p)
    error = float((losses - optima).std() / np.sqrt(len(losses)))
    return ExactLoss(float(losses.mean()), float(optima.mean()), len(losses), error)
