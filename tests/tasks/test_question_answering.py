"""Question answering: windows, masks, the joint head, answers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headstart.core.errors import UsageError
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig, QuestionAnsweringConfig
from headstart.tasks.data import Question, QuestionData, read_questions
from headstart.tasks.question_answering import (
    Answer,
    QuestionAnswering,
    SpanHead,
    answer_mask,
    answer_pieces,
    document_windows,
    mask_logits,
    max_context,
)

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tasks" / "squad.json"
CONTEXT = "the old mill was built in 1843 by anna berg"


def question(text: str, start: int = -1, answer: str = "", context: str = CONTEXT) -> Question:
    return Question("q", text, context, (answer,) if answer else (), start, not answer)


def test_13_answer_mask_and_start_loss() -> None:
    mask = answer_mask(torch.tensor([[1, 1, 1, 1, 1, 0]]), torch.tensor([[0, 0, 0, 1, 1, 0]]))
    assert mask.tolist() == [[True, False, False, True, True, False]]
    logits = mask_logits(torch.tensor([[0.0, 5.0, 5.0, 1.0, 2.0, 9.0]]), mask)
    assert logits.softmax(-1)[0].tolist() == pytest.approx([0.0900, 0, 0, 0.2447, 0.6652, 0], abs=1e-4)
    assert F.cross_entropy(logits, torch.tensor([3])).item() == pytest.approx(1.407606, abs=1e-6)


def test_windows_overlap_by_the_stride() -> None:
    assert document_windows(10, 20, 4) == [(0, 10)]
    assert document_windows(10, 6, 4) == [(0, 6), (4, 10)]
    assert document_windows(11, 6, 4) == [(0, 6), (4, 10), (8, 11)]
    assert document_windows(9, 3, 128) == [(0, 3), (3, 6), (6, 9)]  # a stride longer than the window leaves no gap


def test_a_piece_counts_in_the_window_that_shows_most_around_it() -> None:
    """The official example: "bought", piece 7 of "the man went to the store and bought a gallon of", ends one window and is second in the next."""
    assert max_context(11, [(0, 5), (3, 8), (6, 11)])[7] == 2
    assert max_context(10, [(0, 6), (4, 10)]).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]  # 4: 1 against 0 around it; 5: 0 against 1
    assert max_context(12, [(0, 6), (3, 12)])[4] == 1  # 1 and 1: the longer window
    assert max_context(10, [(0, 6), (3, 9), (9, 10)])[4] == 0  # 1 and 1, equally long: the first


def test_answers_are_mapped_to_the_pieces_that_touch_them() -> None:
    offsets = np.array([[0, 3], [4, 7], [8, 12], [12, 13]])
    assert answer_pieces(offsets, question("?", 4, "old mill", "the old mill.")) == (1, 2)
    assert answer_pieces(offsets, question("?", 9, "il", "the old mill.")) == (2, 2)
    assert answer_pieces(np.array([[0, 3], [3, 7]]), question("?", 4, "old", "the old")) == (1, 1)  # a piece with its leading space


def test_rows_of_a_question(encoder: Encoder) -> None:
    data = QuestionData([question("who built it?", 34, "anna berg"), question("who burnt it?")])
    task = QuestionAnswering(FinetuneConfig(), data)
    assert task.answerable
    rows = task.rows(data, encoder, training=True)
    vocab = encoder.tokenizer.get_vocab()
    first = slice(0, rows.offsets[1])
    query = [vocab[piece] for piece in ("who", "built", "it", "?")]
    document = [vocab[piece] for piece in CONTEXT.split()]
    assert rows.ids[first].tolist() == [2, *query, 3, *document, 3]
    assert rows.token_values["token_type_ids"][first].tolist() == [0] * 6 + [1] * 11
    assert (rows.row_values["start"].tolist(), rows.row_values["end"].tolist()) == ([14, 0], [15, 0])
    assert rows.ids[[14, 15]].tolist() == [vocab["anna"], vocab["berg"]]
    assert rows.row_values["impossible"].tolist() == [0, 1]
    assert CONTEXT[rows.host_values["char_start"][14] : rows.host_values["char_end"][15]] == "anna berg"


def test_an_answer_outside_a_window_is_position_zero_there(encoder: Encoder) -> None:
    data = QuestionData([question("who?", 34, "anna berg")])
    task = QuestionAnswering(FinetuneConfig(max_length=12, qa=QuestionAnsweringConfig(document_stride=4)), data)
    rows = task.rows(data, encoder, training=True)  # [CLS] who ? [SEP] 7 pieces [SEP]
    assert rows.lengths.tolist() == [12, 11]
    assert rows.row_values["start"].tolist() == [0, 8]
    assert rows.row_values["end"].tolist() == [0, 9]
    context = [rows.host_values["max_context"][rows.offsets[i] : rows.offsets[i + 1]].tolist() for i in range(2)]
    assert context == [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0]]


def test_long_questions_are_cut(encoder: Encoder) -> None:
    data = QuestionData([question("who " * 40, 34, "anna berg")])
    rows = QuestionAnswering(FinetuneConfig(max_length=30, qa=QuestionAnsweringConfig(max_query_length=5)), data).rows(data, encoder, training=True)
    assert rows.token_values["token_type_ids"][: rows.offsets[1]].tolist()[:8] == [0, 0, 0, 0, 0, 0, 0, 1]
    with pytest.raises(UsageError, match="no room"):
        QuestionAnswering(FinetuneConfig(max_length=30), data).rows(data, encoder, training=True)


def reference_end_logits(head: SpanHead, hidden: torch.Tensor, start: int) -> torch.Tensor:
    both = torch.cat([hidden[start].expand(len(hidden), -1), hidden], -1)
    return head.end(F.gelu(head.end_hidden(both)))[:, 0]


def make_batch(hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    segments = torch.zeros(hidden.shape[:2], dtype=torch.long)
    segments[:, 3:] = 1
    return {
        "input_ids": torch.zeros(hidden.shape[:2], dtype=torch.long),
        "token_type_ids": segments,
        "start": torch.tensor([4, 0]),
        "end": torch.tensor([5, 0]),
        "impossible": torch.tensor([0, 1]),
    }


def test_the_loss_is_half_start_and_end_plus_half_answerability() -> None:
    torch.manual_seed(0)
    head = SpanHead(6, beam_size=3, answerable=True, answerable_weight=0.5)
    hidden = torch.randn(2, 8, 6)
    batch = make_batch(hidden)
    expected = 0.0
    for i in range(2):
        mask = answer_mask(torch.ones(1, 8), batch["token_type_ids"][i : i + 1])[0]
        start_logits = mask_logits(head.start(hidden[i])[:, 0], mask)
        end_logits = mask_logits(reference_end_logits(head, hidden[i], batch["start"][i]), mask)
        expected += (F.cross_entropy(start_logits, batch["start"][i]) + F.cross_entropy(end_logits, batch["end"][i])) / 2
        features = torch.cat([hidden[i, 0], start_logits.softmax(-1) @ hidden[i]])
        logit = head.answerable_output(F.gelu(head.answerable_hidden(features)))[0]
        expected += 0.5 * F.binary_cross_entropy_with_logits(logit, batch["impossible"][i].float())
    assert torch.allclose(head.loss(hidden, batch), expected, atol=1e-5)


def test_the_beam_holds_the_best_pairs() -> None:
    torch.manual_seed(0)
    head = SpanHead(6, beam_size=20, answerable=False)
    hidden = torch.randn(2, 8, 6)
    batch = make_batch(hidden)
    found = head.outputs(hidden, batch)
    assert found["start"].shape == (2, 20)
    assert found["log_prob"].shape == found["end"].shape == (2, 20, 20)
    mask = answer_mask(torch.ones(2, 8), batch["token_type_ids"])
    start_log_prob = mask_logits(head.start(hidden)[..., 0], mask).log_softmax(-1)
    for i, j, k in ((0, 0, 0), (1, 2, 3)):
        start, end = found["start"][i, j], found["end"][i, j, k]
        end_log_prob = mask_logits(reference_end_logits(head, hidden[i], start), mask[i]).log_softmax(-1)
        assert found["log_prob"][i, j, k].item() == pytest.approx((start_log_prob[i, start] + end_log_prob[end]).item(), abs=1e-4)
    assert torch.isinf(found["log_prob"][:, 8:]).all()  # eight positions have no twenty starts
    assert found["start"][0, 0] == start_log_prob[0].argmax()


def outputs_for(rows, choices: dict[int, tuple[int, int, float]], no_answer: list[float]) -> dict[str, np.ndarray]:
    n = len(rows)
    start, end = np.zeros((n, 2), dtype=np.int64), np.zeros((n, 2, 2), dtype=np.int64)
    log_prob = np.full((n, 2, 2), -math.inf)
    for row, (first, last, value) in choices.items():
        start[row, 0], end[row, 0, 0], log_prob[row, 0, 0] = first, last, value
    return {"start": start, "end": end, "log_prob": log_prob, "no_answer": np.array(no_answer)}


def test_answers_are_cut_from_the_original_text(encoder: Encoder) -> None:
    data = read_questions(FIXTURE)
    task = QuestionAnswering(FinetuneConfig(), read_questions(FIXTURE, training=True))
    rows = task.rows(data, encoder, training=True)
    gold = {i: (int(rows.row_values["start"][i]), int(rows.row_values["end"][i]), -0.1) for i in (0, 1, 3)}
    predictions = task.predictions(outputs_for(rows, gold, [-9, -9, 4, -9]), rows, data)
    assert [answer.text for answer in predictions] == ["1843", "Anna Berg", "", "Zöllner"]
    assert task.score(predictions, data) == {"exact_match": 1.0, "f1": 1.0, "no_answer_accuracy": 1.0}
    assert task.said(Answer("Berg", -2.7)) == ""  # above the threshold of -2.75
    assert task.said(Answer("Berg", -2.8)) == "Berg"


@pytest.mark.parametrize(
    ("pair", "fits"),
    [((14, 15), True), ((15, 14), False), ((0, 0), False), ((2, 3), False), ((14, 16), False), ((7, 9), True), ((7, 10), False), ((30, 31), False)],
)
def test_spans_that_cannot_be_answers_are_left_out(pair: tuple[int, int], fits: bool, encoder: Encoder) -> None:
    """Backwards, none, in the question, on the final [SEP], longer than allowed, in the padding."""
    data = QuestionData([question("who built it?", 34, "anna berg")])
    task = QuestionAnswering(FinetuneConfig(qa=QuestionAnsweringConfig(max_answer_length=3)), data)
    rows = task.rows(data, encoder, training=False)
    answer = task.predictions(outputs_for(rows, {0: (*pair, -0.1)}, [-math.inf]), rows, data)[0]
    assert bool(answer.text) == fits


def test_the_best_window_wins_and_a_piece_counts_once(encoder: Encoder) -> None:
    data = QuestionData([question("who?", 34, "anna berg")])
    task = QuestionAnswering(FinetuneConfig(max_length=12, qa=QuestionAnsweringConfig(document_stride=4)), data)
    rows = task.rows(data, encoder, training=False)
    # row 0 says "old" (2nd piece) with -1, row 1 "anna berg" with -0.5
    answer = task.predictions(outputs_for(rows, {0: (5, 5, -1.0), 1: (8, 9, -0.5)}, [3.0, -4.0]), rows, data)[0]
    assert answer.text == "anna berg"
    assert [text for text, _ in answer.n_best] == ["anna berg", "old"]
    assert answer.no_answer == -4.0
    both = [(row, place) for row in (0, 1) for place in range(4, 11) if place < rows.lengths[row] - 1]
    texts = []
    for row, place in both:
        said = task.predictions(outputs_for(rows, {row: (place, place, -1.0)}, [0.0, 0.0]), rows, data)[0].text
        texts += [said] if said else []
    assert sorted(texts) == sorted(CONTEXT.split())


def test_a_question_answering_head_is_glorot_with_zero_biases() -> None:
    head = SpanHead(8, answerable=True)
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        assert layer.bias.abs().max() == 0
        assert layer.weight.abs().max() <= math.sqrt(6 / sum(layer.weight.shape))
