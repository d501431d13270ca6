"""Frozen features measured: figures by hand, the penalty chosen on training records alone, random starts beside each network."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from headstart.core.errors import BadInput, UsageError
from headstart.core.progress import Reporter
from headstart.interop.vit import TIMM_FILE
from headstart.tasks.data import TextData
from headstart.tasks.frozen import PENALTIES, Frozen, Scores, best_penalty, folds, probe_images, probe_texts, score
from headstart.tasks.frozen_config import FrozenConfig
from tests.lit import lit, small_vit

TRAIN = TextData(["the old mill", "a cold film", "the mill was old", "the film is cold"] * 3, [0, 1, 0, 1] * 3, ["mill", "film"])
TEST = TextData(["an old old mill", "a film", "cold film", "the mill burnt down"], [0, 1, 1, 0], ["mill", "film"])


def of(linear: list[int], neighbours: list[int] | None = None) -> Scores:
    return Scores(np.array(linear, bool), np.array(neighbours or linear, bool), 1.0, 2, 1.0)


def test_scores_of_features_that_are_known() -> None:
    """Two classes on two axes: all are right; with the other labels none is, and the rank of features on two axes is two."""
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    features = 10.0 * torch.nn.functional.one_hot(labels, 2) + 0.1 * torch.randn(40, 2)
    found = score(features[:30], features[30:], labels[:30], labels[30:], 5)
    assert found.linear.all()
    assert found.neighbours.all()
    assert found.rankme == pytest.approx(2, abs=0.05)
    assert found.dim == 2
    wrong = score(features[:30], features[30:], labels[:30], 1 - labels[30:], 5)
    assert not wrong.linear.any()
    assert not wrong.neighbours.any()


def test_folds_hold_a_fifth_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    fold = folds(labels)
    assert [fold[labels == label].bincount(minlength=5).tolist() for label in (0, 1)] == [[2] * 5, [1] * 5]
    assert torch.equal(fold, folds(labels))


def test_the_penalty_follows_the_records() -> None:
    """Where every penalty is right the strongest is taken. A little in each of 200 features, and 60 records: a strong one, near the difference of
    the classes' means. Two features that each need the other, and 4,000 records: a weak one."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    knows = labels[:, None] * 2.0 - 1
    assert best_penalty(knows + 0.01 * torch.randn(60, 1), labels) == PENALTIES[-1]
    assert best_penalty(0.15 * knows + torch.randn(60, 200), labels) >= 1000
    many = torch.arange(4000) % 2
    shared = torch.randn(4000, 1)
    apart = 0.02 * (many[:, None] * 2.0 - 1) + 0.01 * torch.randn(4000, 1)
    assert best_penalty(torch.cat([shared, shared + apart], 1), many) == PENALTIES[0]


def test_the_verdict_needs_random_starts_that_differ() -> None:
    better = Frozen("m", of([1] * 40), [of([1, 0] * 20), of([0, 1] * 20), of([1, 0, 0, 1] * 10)])
    assert better.difference() is not None
    assert better.verdict().startswith("m knows more than a random start: a linear probe reaches 1.0000 against 0.5000 from random")
    assert Frozen("m", of([0] * 40), better.random).verdict().startswith("m knows less than a random start")
    assert Frozen("m", of([1, 0] * 20), better.random).verdict().startswith("m may know no more than a random start")
    assert "1 random start cannot decide: give --random-starts 3 or more" in Frozen("m", of([1, 0]), [of([0, 1])]).verdict()
    assert "says nothing of what pre-training gave" in Frozen("m", of([1, 0]), []).verdict()


def test_texts_of_two_networks(electra: Path, gpt2: Path) -> None:
    found = probe_texts([electra, gpt2, electra], TRAIN, TEST, FrozenConfig(random_starts=2, device="cpu"))
    assert [len(one.random) for one in found.models] == [2, 2, 2]
    assert found.models[0].random is found.models[2].random, "one shape, one set of random starts"
    assert found.models[0].scores.to_json() == found.models[2].scores.to_json()
    assert found.models[0].scores.dim == 32
    assert found.data == {"train": 12, "test": 4, "classes": ["mill", "film"], "majority": 0.5}
    assert found.lines()[0].startswith("network")
    assert found.leaks == ["None of the 4 test records stands in the training file."]
    assert sum(line.startswith("  random start") for line in found.lines()) == 3


def test_pooling_and_length_reach_the_network(electra: Path) -> None:
    def vectors(**settings: object) -> dict[str, float]:
        config = FrozenConfig(random_starts=0, device="cpu", **settings)  # type: ignore[arg-type]
        return probe_texts([electra], TRAIN, TEST, config).models[0].scores.to_json()

    assert vectors()["rankme"] != vectors(pooling="cls")["rankme"] != vectors(pooling="last")["rankme"]
    with pytest.raises(UsageError, match="max_length is 65, but the network has 64 positions"):
        vectors(max_length=65)


def test_the_first_position_of_a_causal_network_sees_nothing(gpt2: Path) -> None:
    with pytest.raises(UsageError, match="first position of a causal network"):
        probe_texts([gpt2], TRAIN, TEST, FrozenConfig(pooling="cls", random_starts=0, device="cpu"))


def test_images_beside_random_starts(tmp_path: Path) -> None:
    small_vit(tmp_path)
    train, test = lit(30, 0, by=120), lit(20, 1, by=120)
    found = probe_images([tmp_path], copy.deepcopy(train), test, FrozenConfig(random_starts=3, device="cpu"))
    assert found.models[0].scores.linear.mean() > 0.8
    assert len({one.rankme for one in found.models[0].random}) == 3, "three networks"
    assert not found.leaks
    assert probe_images([tmp_path], train, train, FrozenConfig(random_starts=0, device="cpu")).leaks
    with pytest.raises(UsageError, match="--pooling last is for texts"):
        probe_images([tmp_path], train, test, FrozenConfig(pooling="last"))


def test_networks_of_one_shape_share_their_random_starts_and_progress_counts_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[float | None, float]] = []
    monkeypatch.setattr(Reporter, "close", lambda self: counted.append((self.total, self.done)))
    one, two = (small_vit(tmp_path / str(seed), seed) for seed in (0, 1))
    found = probe_images([one, two], lit(10, 0), lit(10, 1), FrozenConfig(random_starts=2, device="cpu"))
    assert found.models[0].random is found.models[1].random
    assert counted == [(4, 4)]


def test_a_setting_of_the_other_kind_is_refused_and_none_is_passed_over(electra: Path, tmp_path: Path) -> None:
    model = small_vit(tmp_path)
    for changes in ({"max_length": 9}, {"text_field": "body"}, {"second_field": "other"}):
        with pytest.raises(UsageError, match=f"--{next(iter(changes)).replace('_', '-')} is for texts, the models read images"):
            probe_images([model], lit(10, 0), lit(10, 1), replace(FrozenConfig(), **changes))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--bands is for images, the models read texts"):
        probe_texts([electra], TRAIN, TEST, FrozenConfig(bands=(1,)))


def test_the_field_of_the_classes_is_that_of_a_list_of_images_too(tmp_path: Path) -> None:
    model, images = small_vit(tmp_path / "model"), lit(12, 0)
    for number, image in enumerate(images.images):
        Image.fromarray(image[0]).save(tmp_path / f"{number}.png")
    for name, numbers in (("train", range(8)), ("test", range(8, 12))):
        lines = (f"{number}.png,{images.classes[images.labels[number]]}" for number in numbers)
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,side", *lines]))
    files = tmp_path / "train.csv", tmp_path / "test.csv"
    found = probe_images([model], *files, FrozenConfig(label_field="side", random_starts=0, device="cpu"))
    assert found.data["classes"] == ["left", "right"]
    with pytest.raises(BadInput, match="has no class"):
        probe_images([model], *files, FrozenConfig(random_starts=0, device="cpu"))


def test_what_starts_fresh_in_a_network_of_images_is_said_under_its_name(tmp_path: Path) -> None:
    """Weights without the last norm, as of a network that was fine-tuned with another head; the whole one beside it has nothing to say."""
    whole, cut = small_vit(tmp_path / "whole"), small_vit(tmp_path / "cut")
    save_file({name: value for name, value in load_file(cut / TIMM_FILE).items() if not name.startswith("norm.")}, cut / TIMM_FILE)
    found = probe_images([whole, cut], lit(10, 0), lit(10, 1), FrozenConfig(random_starts=0, device="cpu"))
    notes = [f"The file has no norm.{part}: it starts fresh." for part in ("weight", "bias")]
    assert [one["notes"] for one in found.to_json()["models"]] == [[], notes]
    assert found.lines()[4:6] == [f"{cut}: {note}" for note in notes], "behind the table, before the verdicts"


def test_a_class_that_no_training_record_has_is_refused(electra: Path, tmp_path: Path) -> None:
    for name, lines in (("train", "text,label\nthe mill,a\na film,b\n"), ("test", "text,label\nthe mill,c\n")):
        (tmp_path / f"{name}.csv").write_text(lines)
    with pytest.raises(BadInput, match="the label 'c' is not one of"):
        probe_texts([electra], tmp_path / "train.csv", tmp_path / "test.csv", FrozenConfig(device="cpu"))
