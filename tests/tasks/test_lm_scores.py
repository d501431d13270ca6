"""How well a model predicts a text."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks.generation import Decoder
from headstart.tasks.lm_scores import AT_ONCE, TextScore, score_text
from tests.tasks.conftest import PIECES, word_piece

CPU = torch.device("cpu")
DOCUMENTS = ["the old mill was built in 1843 and burnt down twice", "anna lives in oslo . it is cold", "a good film"]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A random network of 8 positions."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(PIECES), n_embd=32, n_layer=2, n_head=2, n_positions=8, bos_token_id=2, eos_token_id=3))
    save_model_folder(model, word_piece(), folder := tmp_path_factory.mktemp("model"))
    return Decoder.load(folder)


@torch.no_grad()
def by_hand(decoder: Decoder, length: int) -> tuple[float, int]:
    stream = [token for ids in decoder.ids(DOCUMENTS) for token in [*ids, decoder.end]]
    nats, targets = 0.0, 0
    for start in range(0, len(stream) - 1, length):
        window = stream[start : start + length + 1]
        logits = decoder.model(torch.tensor([window[:-1]])).logits[0].log_softmax(-1)
        nats -= sum(float(logits[place, token]) for place, token in enumerate(window[1:]))
        targets += len(window) - 1
    assert targets == len(stream) - 1  # every token but the first, once
    return nats, targets


@pytest.mark.parametrize("length", [8, 5, 3])
def test_windows_of_the_joined_documents(decoder: Decoder, length: int) -> None:
    found = score_text(decoder, DOCUMENTS, CPU, length=length, batch_tokens=2 * length)
    nats, targets = by_hand(decoder, length)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert (found.targets, found.documents, found.text_bytes) == (targets, 3, sum(map(len, DOCUMENTS)))


def test_many_documents_are_one_stream(decoder: Decoder) -> None:
    many = [DOCUMENTS[number % 3] for number in range(2 * AT_ONCE + 50)]
    at_once = score_text(decoder, many, CPU, batch_tokens=10**9)
    assert score_text(decoder, iter(many), CPU, batch_tokens=64).nats == pytest.approx(at_once.nats, rel=1e-5)
    assert at_once.targets == sum(len(ids) + 1 for ids in decoder.ids(many)) - 1


def test_windows_are_no_longer_than_the_network(decoder: Decoder) -> None:
    assert score_text(decoder, DOCUMENTS, CPU, length=100).nats == score_text(decoder, DOCUMENTS, CPU).nats


def test_per_token_and_per_byte() -> None:
    score = TextScore(nats=3 * math.log(4), targets=3, text_bytes=6, documents=1)
    assert score.token_perplexity == pytest.approx(4)
    assert score.byte_perplexity == pytest.approx(2)
    assert score.bits_per_byte == pytest.approx(1)
    assert score.to_json()["nats_per_token,none"] == pytest.approx(math.log(4))


def test_nothing_to_predict_is_refused(decoder: Decoder) -> None:
    for documents in ([], [""]):
        with pytest.raises(BadInput, match="no text"):
            score_text(decoder, documents, CPU)
