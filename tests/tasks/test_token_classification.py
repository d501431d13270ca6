"""Tagging: pieces of words, windows, BIOES, the summed loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig, TaggingConfig
from headstart.tasks.data import TaggedData
from headstart.tasks.token_classification import NO_WORD, Tagging, TaggingHead, tagging_loss, windows, word_pieces

DATA = TaggedData([["Anna", "Berg", "lives"], ["the", "mills", "burnt"]], [["B-P", "I-P", "O"], ["O", "B-M", "O"]])


def test_13_tagging_loss_is_a_sum_over_words() -> None:
    """A sentence of two words and one of ten, uniform logits over 5 tags: 12 ln 5."""
    tags = torch.full((2, 14), NO_WORD)
    tags[0, [1, 2]] = torch.tensor([0, 3])
    tags[1, 1:11] = torch.arange(10) % 5
    assert tagging_loss(torch.zeros(2, 14, 5), tags).item() == pytest.approx(19.313255, abs=1e-5)
    assert 12 * math.log(5) == pytest.approx(19.313255, abs=1e-6)
    head = TaggingHead(4, 5, 0.0)
    torch.nn.init.zeros_(head.output.weight)
    assert head.loss(torch.randn(2, 14, 4), {"tag": tags}).item() == pytest.approx(19.313255, abs=1e-5)


def test_the_first_piece_of_each_word_carries_its_tag(encoder: Encoder) -> None:
    task = Tagging(FinetuneConfig(), DATA)
    assert task.metric == "f1"
    assert task.tags == ["B-P", "E-P", "O", "S-M"]
    rows = task.rows(DATA, encoder, training=True)
    vocab = encoder.tokenizer.get_vocab()
    assert rows.ids[: rows.offsets[1]].tolist() == [2, vocab["anna"], vocab["berg"], vocab["lives"], 3]
    second = slice(rows.offsets[1], rows.offsets[2])
    assert rows.ids[second].tolist() == [2, vocab["the"], vocab["mill"], vocab["##s"], vocab["burnt"], 3]
    assert rows.token_values["tag"][second].tolist() == [NO_WORD, 2, 3, NO_WORD, 2, NO_WORD]
    assert rows.host_values["word"][second].tolist() == [NO_WORD, 0, 1, NO_WORD, 2, NO_WORD]
    assert set(rows.token_values["token_type_ids"].tolist()) == {1}  # the official tagging task starts with segment 1


def test_sentences_are_cut_and_scored_as_blue_does(encoder: Encoder) -> None:
    settings = TaggingConfig(f1="blue", longest=3)
    data = TaggedData([["a", "b", "c", "d", "e"], ["f"]], [["B", "I", "O", "B", "O"], ["I"]])
    task = Tagging(FinetuneConfig(tagging=settings), data)
    assert task.metric == "f1"
    assert task.train.words == [["a", "b", "c"], ["d", "e"], ["f"]]
    assert task.score([["B", "E", "O"], ["B", "O"], ["E"]], task.train)["f1"] == 1.0, "the last word belongs to the entity before it"
    assert task.records([], task.train) is None
    strict = Tagging(FinetuneConfig(), data)
    assert strict.score([["B", "E", "O", "S", "O"], ["O"]], strict.train)["f1"] == pytest.approx(4 / 5)


def test_a_causal_network_is_read_at_the_last_piece(causal: Encoder) -> None:
    rows = Tagging(FinetuneConfig(), DATA).rows(DATA, causal, training=True)
    second = slice(rows.offsets[1], rows.offsets[2])
    assert rows.host_values["word"][second].tolist() == [NO_WORD, 0, NO_WORD, 1, 2]  # no end token


def test_a_word_of_no_piece_becomes_unknown(encoder: Encoder) -> None:
    vocab = encoder.tokenizer.get_vocab()
    assert word_pieces([["the", "\u200b", "mill", "\ufffd\ufffd"]], encoder) == [[[vocab["the"]], [1], [vocab["mill"]], [1]]]


def test_byte_level_words_keep_their_leading_space(encoder: Encoder) -> None:
    pieces = ["a", "b", "c", "Ġ", "Ġa", "Ġb", "bc", "Ġbc"]
    merges = [("Ġ", "a"), ("Ġ", "b"), ("b", "c"), ("Ġ", "bc")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    other = replace(encoder, tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert word_pieces([["a", "bc", "a"]], other) == [[[0], [5, 2], [4]]]  # "a", " b" + "c", " a"


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ([1, 1, 1], 3, [(0, 3)]),
        ([1, 2, 1], 3, [(0, 2), (2, 3)]),
        ([2, 2, 2], 3, [(0, 1), (1, 2), (2, 3)]),
        ([1, 9, 1], 3, [(0, 1), (1, 2), (2, 3)]),  # a word longer than a window has one of its own
        ([5], 3, [(0, 1)]),
    ],
)
def test_windows_hold_whole_words(lengths: list[int], room: int, expected: list) -> None:
    assert windows(lengths, room) == expected


def test_a_long_sentence_is_cut_into_windows_and_put_together_again(encoder: Encoder) -> None:
    words = ["mills"] * 20
    data = TaggedData([words, ["the"]], [["X", "Y"] * 10, ["Y"]])
    task = Tagging(FinetuneConfig(max_length=12), data)
    assert task.metric == "accuracy"
    rows = task.rows(data, encoder, training=True)
    assert rows.lengths.max() == 12
    assert rows.row_values["sentence"].tolist() == [0, 0, 0, 0, 1]
    width = rows.lengths.max()
    perfect = np.zeros((len(rows), width), dtype=np.int16)
    for i in range(len(rows)):
        tags = rows.token_values["tag"][rows.offsets[i] : rows.offsets[i + 1]]
        perfect[i, : len(tags)] = np.where(tags == NO_WORD, 0, tags)
    predictions = task.predictions({"tag": perfect}, rows, data)
    assert predictions == data.tags
    assert task.score(predictions, data) == {"accuracy": 1.0}


def test_tags_that_training_never_showed_are_said_and_wrong(encoder: Encoder) -> None:
    task = Tagging(FinetuneConfig(), TaggedData([["a", "b"]], [["X", "Y"]]))
    test = TaggedData([["a", "b"]], [["X", "Z"]])
    assert task.unseen(test) == "1 words of the test file have a tag that training never showed (Z); they count as wrong."
    assert task.unseen(task.train) is None
    assert task.score([["X", "Y"]], test) == {"accuracy": 0.5}
    task.rows(test, encoder, training=False)


def test_stuck_taggers_and_single_tags() -> None:
    task = Tagging(FinetuneConfig(), DATA)
    assert task.stuck([["O", "O"], ["O"]]) == "it gives the tag 'O' to every word"
    assert task.stuck([["O", "B-P"], ["O"]]) is None
    with pytest.raises(BadInput, match="only the tag 'O'"):
        Tagging(FinetuneConfig(), TaggedData([["a"]], [["O"]], "x.conll"))
