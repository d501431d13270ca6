"""Fine-tuning from end to end on tasks that can be learned in seconds, and its honesty when they cannot."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from headstart.core.errors import BadInput, Diverged, UsageError
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig, RegulariserConfig
from headstart.tasks.data import Question, QuestionData, TaggedData, TextData
from headstart.tasks.finetune import finetune
from headstart.tasks.result import PRETRAINED, RANDOM, Arm, Result, SeedRun
from headstart.tasks.saved import load_finetuned
from headstart.tasks.text_classification import TextClassification
from headstart.tasks.training import train

NEUTRAL = ["the", "a", "old", "mill", "was", "built", "by", "anna", "berg", "in"]


def sentiment(n: int, seed: int = 0, classes: tuple[str, ...] = ("neg", "pos")) -> TextData:
    """Sentences of neutral words with "good" or "bad" somewhere."""
    random = np.random.default_rng(seed)
    labels = [int(label) for label in random.integers(0, 2, n)]
    texts = []
    for label in labels:
        words = list(random.choice(NEUTRAL, random.integers(3, 12)))
        words.insert(int(random.integers(len(words))), ["bad", "good"][label])
        texts.append(" ".join(words))
    return TextData(texts, labels, list(classes))


EASY = FinetuneConfig(learning_rate=3e-3, epochs=8, batch=16, dropout=0.0)


def test_an_easy_task_is_learned_beside_a_random_start(electra: Path) -> None:
    lines: list[str] = []
    result = finetune("classification", electra, sentiment(200), sentiment(100, 1), config=EASY, seeds=2, report=lines.append)
    assert [arm.arm for arm in result.arms] == [PRETRAINED, RANDOM]
    assert result.arm(PRETRAINED).mean("accuracy") > 0.95
    assert [run.seed for run in result.arm(RANDOM).runs] == [0, 1]
    assert result.arms[0].runs[0].steps == 8 * math.ceil(200 / 16)
    assert sum("runs)" in line for line in lines) == 4  # beside them there may be lines of progress
    assert "(4 of 4 runs)" in lines[-1]
    assert len(result.table()) == 3
    assert result.lines()[-1] == result.verdict()
    assert result.to_json()["config"]["learning_rate"] == 3e-3
    json.dumps(result.to_json(), allow_nan=False)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone(electra: Path) -> None:
    def once(seed: int, learning_rate: float = 1e-3) -> tuple[float, torch.Tensor]:
        encoder = load_encoder(electra, dropout=0.1)
        task = TextClassification(EASY, sentiment(64))
        rows = task.rows(task.train, encoder, training=True)
        model, loss, _ = train(task, encoder, rows, replace(EASY, dropout=0.1, epochs=2), learning_rate, seed, torch.device("cpu"))
        return loss, model.head.output.weight.detach()  # type: ignore[union-attr]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    (first, weight), (again, same), (other, different) = once(3), once(3), once(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert torch.equal(weight, same)
    assert first != other
    assert not torch.equal(weight, different)
    assert not torch.equal(once(3, 0.0)[1], once(4, 0.0)[1])  # the head itself is drawn from the seed


def one_update(electra: Path, config: FinetuneConfig) -> dict[str, torch.Tensor]:
    encoder = load_encoder(electra, dropout=0.0)
    task = TextClassification(config, sentiment(24))
    rows = task.rows(task.train, encoder, training=True)
    model, _, steps = train(task, encoder, rows, config, 1e-2, 0, torch.device("cpu"))
    assert steps == 2
    return {name: value.detach() for name, value in model.named_parameters()}


def test_micro_batches_give_the_update_of_the_whole_batch(electra: Path) -> None:
    for reduction in ("sum", "mean"):
        config = FinetuneConfig(epochs=2, batch=24, dropout=0.0, warmup_share=0.0, loss_reduction=reduction, clip_norm=None, optimizer="adamw")
        whole, parts = one_update(electra, config), one_update(electra, replace(config, micro_batch=7))
        assert max((whole[name] - parts[name]).abs().max().item() for name in whole) < 2e-4  # one Adam step moves a weight by up to 0.01


def test_under_the_sum_a_smaller_batch_counts_less(electra: Path) -> None:
    """Batches of 20 and 4: Adam forgets a common factor of all gradients, but not that one batch has a fifth of the examples of the other."""
    config = FinetuneConfig(epochs=1, batch=20, dropout=0.0, warmup_share=0.0, clip_norm=None)
    summed, mean = one_update(electra, config), one_update(electra, replace(config, loss_reduction="mean"))
    assert max((summed[name] - mean[name]).abs().max().item() for name in summed) > 1e-3


def test_lower_layers_move_less(electra: Path) -> None:
    start = {f"encoder.{name}": value for name, value in load_encoder(electra, dropout=0.0).module.named_parameters()}
    config = FinetuneConfig(epochs=2, batch=24, dropout=0.0, warmup_share=0.0, layer_decay=0.1, weight_decay=0.0, official_llrd_gap=False)
    moved = {name: (value - start[name]).abs().max().item() for name, value in one_update(electra, config).items() if name in start}
    assert moved["encoder.encoder.layer.0.output.dense.weight"] == pytest.approx(0.1 * moved["encoder.encoder.layer.1.output.dense.weight"], rel=0.3)


def moved(electra: Path, regulariser: RegulariserConfig) -> dict[str, torch.Tensor]:
    """How far ten epochs moved each weight of the encoder."""
    config = replace(EASY, epochs=10, regulariser=regulariser)
    job = TextClassification(config, sentiment(32))
    encoder = load_encoder(electra, dropout=0.0)
    before = {name: value.detach().clone() for name, value in encoder.module.named_parameters()}
    train(job, encoder, job.rows(job.train, encoder, training=True), config, 3e-3, 0, torch.device("cpu"))
    return {name: (value.detach() - before[name]).abs() for name, value in encoder.module.named_parameters()}


def test_regularisers_keep_the_encoder_near_its_start(electra: Path) -> None:
    plain = moved(electra, RegulariserConfig())
    recalled = moved(electra, RegulariserConfig("recadam", gamma=100.0, t0=1000.0))
    held = moved(electra, RegulariserConfig("mars", radius=0.05))
    noised = moved(electra, RegulariserConfig("r3f", noise=0.5, weight=5.0))
    assert max(float(value.max()) for value in recalled.values()) < 1e-4 < max(float(value.max()) for value in plain.values())
    matrices = [name for name in held if name.endswith("dense.weight")]
    assert matrices
    assert all(float(held[name].sum(1).max()) <= 0.05 + 1e-5 for name in matrices)
    assert any(float(plain[name].sum(1).max()) > 0.1 for name in matrices)
    assert any(not torch.equal(noised[name], plain[name]) for name in plain)


def test_the_learning_rate_is_chosen_on_dev_with_the_first_seed(electra: Path) -> None:
    config = replace(EASY, learning_rates=(1e-7, 3e-3), epochs=10, layer_decay=1.0)
    result = finetune("classification", electra, sentiment(160), sentiment(60, 1), dev=sentiment(60, 2), config=config, seeds=1)
    for arm in result.arms:
        assert arm.learning_rate == 3e-3
        assert set(arm.tried) == {"1e-07", "0.003"}
        assert arm.tried["0.003"] > arm.tried["1e-07"]
    with pytest.raises(UsageError, match="dev data"):
        finetune("classification", electra, sentiment(20), sentiment(20, 1), config=config)


def test_runs_that_never_left_their_start_are_said(electra: Path) -> None:
    config = FinetuneConfig(learning_rate=1e-9, epochs=1, batch=16, dropout=0.0)
    result = finetune("classification", electra, sentiment(60), sentiment(40, 1), config=config, seeds=2, baseline=False)
    assert any("2 of 2 pretrained runs are stuck (seed 0, 1): it says" in warning for warning in result.warnings)
    assert any("stuck" in line for line in result.lines())
    assert "nothing can be said" in result.verdict()


def test_test_records_in_the_training_data_are_said(electra: Path) -> None:
    test = sentiment(20, 1)
    training = sentiment(40)
    training.texts[3] = test.texts[7].upper()
    result = finetune("classification", electra, training, test, config=replace(EASY, epochs=1), seeds=1, baseline=False)
    assert "1 of 20 test records (5.0 %) stands in the training file" in result.leaks[0]
    assert "record 8." in result.leaks[0]


def test_a_loss_that_is_not_finite_stops_with_the_learning_rate(electra: Path) -> None:
    with pytest.raises(Diverged, match="learning rate 1e\\+30"):
        finetune("classification", electra, sentiment(64), sentiment(20, 1), config=replace(EASY, learning_rate=1e30), seeds=1, baseline=False)


def test_files_go_in_and_a_model_comes_out(electra: Path, tmp_path: Path, jsonl: Callable[..., Path]) -> None:
    def write(name: str, data: TextData) -> Path:
        return jsonl(name, [{"text": text, "label": data.classes[label]} for text, label in zip(data.texts, data.labels, strict=True)])

    train_file, test_file = write("train.jsonl", sentiment(200)), write("test.jsonl", sentiment(50, 1))
    result = finetune("classification", electra, train_file, test_file, config=EASY, seeds=1, baseline=False, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["arms"][0]["mean"] == result.arms[0].mean("accuracy")

    model = load_finetuned(tmp_path / "out" / "model")
    test = sentiment(50, 1)
    said = model.predict(test.texts)
    right = np.mean([a == test.classes[b] for a, b in zip(said, test.labels, strict=True)])
    assert right == result.arms[0].mean("accuracy")
    assert model.predict(["the good mill", "a bad mill"]) == ["pos", "neg"]
    assert model.predict("the good mill") == ["pos"], "one text is no list of letters"
    assert model.predict([]) == []
    transformers.AutoModel.from_pretrained(tmp_path / "out" / "model")  # the backbone is an ordinary folder
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / "model")("good").input_ids[0] == 2

    (tmp_path / "out" / "model" / "head.safetensors").write_bytes(b"junk")
    with pytest.raises(BadInput, match=r"head\.safetensors"):
        load_finetuned(tmp_path / "out" / "model")


def test_regression_learns_a_number(electra: Path, tmp_path: Path) -> None:
    def counting(n: int, seed: int) -> TextData:
        data = sentiment(n, seed)
        return TextData(data.texts, [1.0 + 4.0 * label for label in data.labels])

    config = replace(EASY, layer_decay=1.0)
    result = finetune("regression", electra, counting(200, 0), counting(60, 1), config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert result.metric == "spearman"
    assert result.arms[0].mean("pearson") > 0.9
    low, high = load_finetuned(tmp_path / "out" / "model").predict(["the bad mill was built", "the good mill was built"])
    assert low < 2.5 < 3.5 < high


def test_pairs_are_compared(electra: Path, tmp_path: Path) -> None:
    def pairs(n: int, seed: int) -> TextData:
        data = sentiment(n, seed)
        return TextData(["the old mill"] * n, data.labels, data.classes, seconds=data.texts)

    result = finetune("classification", electra, pairs(200, 0), pairs(60, 1), config=EASY, seeds=1, baseline=False, out=tmp_path / "out")
    assert result.arms[0].mean("accuracy") > 0.9
    assert load_finetuned(tmp_path / "out" / "model").predict([("the old mill", "a good mill")]) == ["pos"]


def tagged(n: int, seed: int) -> TaggedData:
    """Names are "anna berg" or "berg": a span of two or of one."""
    random = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(n):
        sentence: list[str] = []
        marks: list[str] = []
        for _ in range(random.integers(3, 9)):
            pick = random.integers(4)
            sentence += [["anna", "berg"], ["oslo"], ["was"], ["mills"]][pick]
            marks += [["B-PER", "I-PER"], ["B-LOC"], ["O"], ["O"]][pick]
        words.append(sentence)
        tags.append(marks)
    return TaggedData(words, tags)


@pytest.mark.parametrize("kind", ["electra", "gpt2"])
def test_tagging_learns_spans(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(kind)
    config = replace(EASY, epochs=6, max_length=16)
    result = finetune("tagging", folder, tagged(120, 0), tagged(40, 1), config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert result.metric == "f1"
    assert result.arms[0].mean("f1") > (0.95 if kind == "electra" else 0.9)
    said = load_finetuned(tmp_path / "out" / "model").predict([["anna", "berg", "was", "oslo"]])
    assert said == [["B-PER", "E-PER", "O", "S-LOC"]]


def asked(n: int, seed: int, with_none: bool) -> QuestionData:
    """The answer is the word after "by"; where "by" is missing there is none."""
    random = np.random.default_rng(seed)
    questions = []
    for i in range(n):
        words = [str(word) for word in random.choice(["the", "old", "mill", "was", "built"], random.integers(4, 12))]
        name = str(random.choice(["anna", "berg", "oslo"]))
        impossible = with_none and bool(random.integers(3) == 0)
        if not impossible:
            place = int(random.integers(len(words)))
            words[place:place] = ["by", name]
        context = " ".join(words)
        start = -1 if impossible else context.index("by ") + 3
        questions.append(Question(str(i), "who built it?", context, () if impossible else (name,), start, impossible))
    return QuestionData(questions)


@pytest.mark.slow
def test_question_answering_finds_the_span_and_its_absence(electra: Path, tmp_path: Path) -> None:
    config = replace(EASY, epochs=12, max_length=20, layer_decay=1.0)
    files = asked(240, 0, True), asked(60, 1, True)
    result = finetune("question-answering", electra, *files, config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert result.arms[0].mean("f1") > 0.9
    assert result.arms[0].mean("no_answer_accuracy") > 0.9
    model = load_finetuned(tmp_path / "out" / "model")
    found, none = model.predict([("who built it?", "the mill was built by anna the mill"), ("who built it?", "the old mill was built")])
    assert found.text == "anna"
    assert model.task.said(none) == ""  # type: ignore[attr-defined]


def test_the_seed_makes_the_random_start(electra: Path) -> None:
    config = replace(EASY, epochs=1)
    first, again = (finetune("classification", electra, sentiment(48), sentiment(60, 1), config=config, seeds=[7]).arms for _ in range(2))
    assert [arm.runs[0].loss for arm in first] == [arm.runs[0].loss for arm in again]
    assert first[0].runs[0].loss != first[1].runs[0].loss


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "poetry"}, "no task 'poetry'"),
        ({"config": FinetuneConfig(epochs=0)}, "--epochs is 0"),
        ({"config": FinetuneConfig(batch=0)}, "--batch is 0"),
        ({"config": FinetuneConfig(dropout=1.0)}, r"--dropout is 1\.\n"),
        ({"config": FinetuneConfig(micro_batch=0)}, "--micro-batch is 0"),
        ({"seeds": 0}, "no seed"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str, electra: Path) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(**{"task": "classification", "model_folder": electra, "train": sentiment(20), "test": sentiment(20, 1), **settings})


def test_other_classes_in_the_test_data_are_refused(electra: Path) -> None:
    with pytest.raises(BadInput, match="classes"):
        finetune("classification", electra, sentiment(20), sentiment(20, 1, classes=("no", "yes")))


def result_of(mine: list[float], random: list[float] | None) -> Result:
    def arm(name: str, values: list[float]) -> Arm:
        return Arm(name, 1e-4, [SeedRun(i, {"accuracy": value}, None, 0.0, None, 1, 1.0) for i, value in enumerate(values)])

    arms = [arm(PRETRAINED, mine)] + ([] if random is None else [arm(RANDOM, random)])
    return Result("classification", "accuracy", "model", arms, {})


@pytest.mark.parametrize(
    ("mine", "random", "words"),
    [
        ([0.80, 0.82, 0.81], [0.70, 0.71, 0.72], "The head start helps: accuracy 0.8100 against 0.7100"),
        ([0.70, 0.71, 0.72], [0.80, 0.82, 0.81], "The head start hurts: accuracy 0.7100"),
        ([0.80, 0.70, 0.75], [0.75, 0.74, 0.73], "is open: accuracy 0.7500 against 0.7400"),
        ([0.80], [0.70], "One seed decides nothing"),
        ([0.80, 0.81], None, "without a random start beside it nothing can be said"),
    ],
)
def test_the_verdict_says_what_the_interval_says(mine: list[float], random: list[float] | None, words: str) -> None:
    assert words in result_of(mine, random).verdict()


def test_the_table_shows_mean_and_standard_error() -> None:
    rows = result_of([0.8, 0.9], [0.7, 0.7]).table()
    assert rows[0] == ["start", "accuracy", "seeds", "learning rate", "seconds a run"]
    assert rows[1] == ["pretrained", "0.8500 ± 0.0500", "2", "0.0001", "1.0"]
    assert rows[2][1] == "0.7000 ± 0.0000"


def test_each_seed_starts_from_the_folders_weights_not_from_the_seed_before(electra: Path) -> None:
    def losses(seeds: list[int]) -> list[float]:
        config = replace(EASY, epochs=2)
        return [run.loss for run in finetune("classification", electra, sentiment(48), sentiment(20, 1), config=config, seeds=seeds).arms[0].runs]

    assert losses([0, 1])[1] == losses([1])[0]


def test_every_seed_trains_on_its_own_draw_of_records(electra: Path) -> None:
    """The second draw has its labels swapped, so what it teaches is the opposite."""
    test, right = sentiment(40, seed=5), sentiment(64, seed=1)
    wrong = replace(right, labels=[1 - label for label in right.labels])
    config = FinetuneConfig(learning_rate=3e-3, epochs=12, batch=16, max_length=16, dropout=0.0, pooling="mean")
    result = finetune("classification", electra, [right, wrong], test, config=config, seeds=[3, 4], baseline=False)
    taught, misled = result.arm(PRETRAINED).values("accuracy")
    assert taught > 0.9
    assert misled < 0.1
    assert result.data["draws"] == 2


def test_as_many_draws_as_seeds(electra: Path) -> None:
    with pytest.raises(UsageError, match="2 training files for 3 seeds"):
        finetune("classification", electra, [sentiment(8), sentiment(8)], sentiment(8), seeds=3)
