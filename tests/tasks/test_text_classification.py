"""Classification and regression: targets, pooling, head, rows."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData
from headstart.tasks.text_classification import Regression, TextClassification, TextHead, choose_pooling, pool, regression_target

TEXTS = TextData(["good film", "bad film, dull film"], [1, 0], ["neg", "pos"])
PAIRS = TextData(["good film", "dull"], [1, 0], ["no", "yes"], seconds=["fine", "one two three"])


def test_13_regression_target() -> None:
    assert regression_target(np.array([5.0, 1.0, 3.0]), 1.0, 5.0).tolist() == pytest.approx([0.8, 0.0, 0.4])


def test_regression_predictions_come_back_in_the_units_of_the_file() -> None:
    task = Regression(FinetuneConfig(), TextData(["a", "b"], [1.0, 5.0]))
    assert (task.minimum, task.maximum) == (1.0, 5.0)
    targets = regression_target(np.array([5.0, 1.0, 2.5]), 1.0, 5.0)
    assert task.predictions({"logits": targets[:, None]}, None, None) == pytest.approx([5.0, 1.0, 2.5])  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [[2.0, 2.0], [-3.0, 0.0]])
def test_a_range_that_gives_no_target_is_refused(numbers: list[float]) -> None:
    with pytest.raises(BadInput, match=r"\(y - minimum\) / maximum"):
        Regression(FinetuneConfig(), TextData(["a", "b"], numbers))


def test_pooling() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [9.0]], [[3.0], [4.0], [8.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(hidden, mask, "cls").tolist() == [[1.0], [3.0]]
    assert pool(hidden, mask, "mean").tolist() == [[1.5], [5.0]]
    assert pool(hidden, mask, "last").tolist() == [[2.0], [8.0]]
    assert pool(hidden, None, "last").tolist() == [[9.0], [8.0]]


def test_pooling_is_chosen_by_what_the_network_can_see(encoder: Encoder, causal: Encoder) -> None:
    assert choose_pooling("auto", encoder) == "cls"
    assert choose_pooling("auto", causal) == "mean"
    assert choose_pooling("last", causal) == "last"
    with pytest.raises(UsageError, match="sees nothing"):
        choose_pooling("cls", causal)


def test_the_head_is_dropout_and_one_glorot_layer() -> None:
    torch.manual_seed(0)
    head = TextHead(300, 100, "cls", 0.1)
    assert [type(module) for module in head.children()] == [nn.Dropout, nn.Linear]
    assert head.output.bias.abs().max() == 0
    bound = math.sqrt(6 / 400)
    assert 0.99 * bound < head.output.weight.abs().max() <= bound


def test_the_loss_is_a_sum_over_examples() -> None:
    head = TextHead(4, 3, "cls", 0.0)
    nn.init.zeros_(head.output.weight)
    hidden = torch.randn(5, 2, 4)
    loss = head.loss(hidden, {"label": torch.tensor([0, 1, 2, 1, 0])})
    assert loss.item() == pytest.approx(5 * math.log(3))

    number = TextHead(4, 1, "cls", 0.0)
    nn.init.zeros_(number.output.weight)
    assert number.loss(hidden, {"label": torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])}).item() == pytest.approx(5.0)


def test_rows_follow_the_tokenizers_template(encoder: Encoder) -> None:
    pieces = encoder.tokenizer.get_vocab()
    rows = TextClassification(FinetuneConfig(), TEXTS).rows(TEXTS, encoder, training=True)
    assert rows.ids[: rows.offsets[1]].tolist() == [2, pieces["good"], pieces["film"], 3]
    assert rows.row_values["label"].tolist() == [1, 0]
    assert "token_type_ids" not in rows.token_values

    rows = TextClassification(FinetuneConfig(), PAIRS).rows(PAIRS, encoder, training=True)
    assert rows.ids[: rows.offsets[1]].tolist() == [2, pieces["good"], pieces["film"], 3, pieces["fine"], 3]
    assert rows.token_values["token_type_ids"][: rows.offsets[1]].tolist() == [0, 0, 0, 0, 1, 1]


def test_long_texts_are_cut_to_the_length_and_keep_their_end_token(encoder: Encoder) -> None:
    task = TextClassification(FinetuneConfig(max_length=8), TextData(["film " * 50, "good"], [0, 1], ["a", "b"]))
    rows = task.rows(task.train, encoder, training=True)
    assert rows.lengths.tolist() == [8, 3]
    assert rows.ids[7] == 3


def test_the_length_never_exceeds_the_positions_of_the_network(encoder: Encoder) -> None:
    assert TextClassification(FinetuneConfig(), TEXTS).length(encoder) == 64
    with pytest.raises(UsageError, match="has 64 positions"):
        TextClassification(FinetuneConfig(max_length=65), TEXTS).length(encoder)


def test_unordered_pairs_are_trained_in_both_orders_but_tested_once(encoder: Encoder) -> None:
    task = TextClassification(FinetuneConfig(double_unordered=True), PAIRS)
    train, test = task.rows(PAIRS, encoder, training=True), task.rows(PAIRS, encoder, training=False)
    assert (len(train), len(test)) == (4, 2)
    assert train.row_values["label"].tolist() == [1, 0, 1, 0]
    pieces = encoder.tokenizer.get_vocab()
    third = train.ids[train.offsets[2] : train.offsets[3]].tolist()
    assert third == [2, pieces["fine"], 3, pieces["good"], pieces["film"], 3]
    with pytest.raises(UsageError, match="pairs"):
        TextClassification(FinetuneConfig(double_unordered=True), TEXTS).rows(TEXTS, encoder, training=True)


def test_predictions_and_stuck_runs() -> None:
    task = TextClassification(FinetuneConfig(), TEXTS)
    logits = np.array([[2.0, 1.0], [0.0, 1.0]])
    predictions = task.predictions({"logits": logits}, None, None)  # type: ignore[arg-type]
    assert predictions == ["neg", "pos"]
    assert task.score(predictions, TEXTS)["accuracy"] == 0.0
    assert task.stuck(predictions) is None
    assert task.stuck(["pos", "pos"]) == "it says 'pos' for every record"
    regression = Regression(FinetuneConfig(), TextData(["a", "b"], [1.0, 5.0]))
    assert regression.stuck([2.0, 2.01]) is not None
    assert regression.stuck([2.0, 2.1]) is None


def test_cross_entropy_of_the_head_is_torchs_own() -> None:
    torch.manual_seed(0)
    head = TextHead(4, 3, "mean", 0.0)
    hidden, mask, label = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]]), torch.tensor([2, 0])
    vectors = torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0)])
    expected = F.cross_entropy(vectors @ head.output.weight.T, label, reduction="sum")
    assert torch.allclose(head.loss(hidden, {"label": label, "attention_mask": mask}), expected)
