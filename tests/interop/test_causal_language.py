"""A causal language model as a language: its conditionals are those of the distribution that it draws from."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.tokenizer import word_tokenizer
from headstart.interop.causal_language import CausalLanguage
from headstart.interop.transformers_io import save_model_folder


def decoder(vocabulary: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def test_conditionals_are_exact_and_sentences_follow_them() -> None:
    language = CausalLanguage(decoder(9), [5, 7, 8], ["a", "b", "c"], begin=2, length=3)
    everything = np.array(list(itertools.product(range(3), repeat=3)))
    p = np.exp(language.log_probability(everything)).reshape(3, 3, 3)
    assert p.sum() == pytest.approx(1)  # nothing is lost on tokens that are not kept
    found = language.conditionals(everything)
    for sentence, of_sentence in zip(everything, found, strict=True):
        for at in range(3):
            joint = p[tuple(slice(None) if place == at else word for place, word in enumerate(sentence))]
            np.testing.assert_allclose(of_sentence[at], joint / joint.sum(), atol=1e-9)
    drawn = language.sample(4000, np.random.default_rng(0))
    shares = np.bincount(drawn @ [9, 3, 1], minlength=27) / 4000
    assert np.abs(shares - p.ravel()).max() < 0.03
    np.testing.assert_allclose(language.unigram, np.bincount(drawn.ravel(), minlength=3) / drawn.size, atol=0.03)
    with pytest.raises(BadInput, match="have 3 words"):
        language.conditionals(np.array([[0, 1, -1]]))


def test_the_frequent_tokens_of_a_folder_are_kept(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(12)]
    model = decoder(17)
    with torch.no_grad():  # tied to the input: the token with the largest embedding along the state wins; give one a place of its own
        model.transformer.ln_f.bias.zero_()
        model.transformer.ln_f.bias[0] = 9.0
        model.transformer.wte.weight[11] = 0.0
        model.transformer.wte.weight[11, 0] = 2.0
    save_model_folder(model, word_tokenizer(words), tmp_path / "model")
    language = CausalLanguage.from_folder(tmp_path / "model", words=6, length=4)
    assert language.words[0] == "w6"  # token 11
    assert len(set(language.words)) == 6 <= len(words)
    assert language.read(language.spell(language.test_sentences(3))).shape == (3, 4)
    with pytest.raises(UsageError, match="Only 12 tokens"):
        CausalLanguage.from_folder(tmp_path / "model", words=13, length=4)
