"""Every distinct object is scored once, and bad rewards are refused with the object."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from headstart.core.errors import BadInput, UsageError
from headstart.data.environments.environment import Environment
from headstart.data.environments.rewards import from_function, read_reward
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Dna, Rna


class Asked:
    """A reward that keeps what it was asked for."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.texts: list[str] = []

    def __call__(self, objects: Tensor) -> Tensor:
        self.texts += self.environment.to_text(objects)
        return (objects == 2).sum(-1).float()


@pytest.mark.parametrize("environment", [Dna(4), Rna(14)], ids=["table", "dictionary"])
def test_an_object_is_asked_for_once_in_the_order_of_its_first_coming(environment: Environment) -> None:
    reward = Asked(environment)
    scores = Scores(environment, reward)
    letters = "".join("GACU" if isinstance(environment, Rna) else "GACT")
    texts = [letter * environment.max_steps for letter in letters]
    first = environment.from_text([texts[1], texts[0], texts[1]])
    assert scores(first).tolist() == [0.0, environment.max_steps, 0.0]
    again = environment.from_text([texts[2], texts[0], texts[3], texts[2]]).view(2, 2, -1)
    assert scores(again).tolist() == [[0.0, environment.max_steps], [0.0, 0.0]]
    assert reward.texts == [texts[1], texts[0], texts[2], texts[3]]
    assert scores.distinct == 4
    objects, values = scores.seen(3)
    assert environment.to_text(objects) == [texts[1], texts[0], texts[2]]
    assert values.tolist() == [0.0, environment.max_steps, 0.0]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_reward_that_is_none_names_its_object(value: float) -> None:
    environment = Dna(4)
    scores = Scores(environment, from_function(environment, lambda texts: [value if text == "ACGT" else 1.0 for text in texts]))
    with pytest.raises(BadInput, match=rf"The reward of ACGT is {value}.*\n.*exp\(beta"):
        scores(environment.from_text(["AAAA", "ACGT"]))


def test_a_reward_of_another_number_is_refused() -> None:
    environment = Dna(4)
    with pytest.raises(UsageError, match="gave 1 number for 2 objects"):
        Scores(environment, from_function(environment, lambda texts: [1.0]))(environment.from_text(["AAAA", "ACGT"]))


def test_nothing_but_zeros_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    environment = Dna(8)
    scores = Scores(environment, from_function(environment, lambda texts: np.zeros(len(texts))))
    scores(environment.objects()[:999])
    assert not caplog.records
    scores(environment.objects()[:1001])
    assert "the first 1,001 rewards are 0" in caplog.text
    scores(environment.objects()[:2001])
    assert len(caplog.records) == 1


def test_a_table_is_read_and_lacks_nothing_silently(tmp_path: Path) -> None:
    environment = Dna(4)
    (tmp_path / "scores.csv").write_text("sequence,value\nACGT,0.5\nacga,2\n")
    reward = read_reward(str(tmp_path / "scores.csv"), environment)
    assert reward(environment.from_text(["ACGA", "ACGT"])).tolist() == [2.0, 0.5]
    with pytest.raises(BadInput, match="no entry for TTTT"):
        reward(environment.from_text(["ACGT", "TTTT"]))
    (tmp_path / "bad.csv").write_text("sequence,value\nACGT,0.5\nACGA,much\n")
    with pytest.raises(BadInput, match="record 3"):
        read_reward(str(tmp_path / "bad.csv"), environment)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"sequence,value\nACGT,1\nacgt,2\n", "record 3: gives acgt two values, 1 and 2"),
        (b"sequence,value\nACGT,-1\n", "record 2: gives ACGT the value -1"),
        (b"sequence,value\nACGT,nan\n", "record 2: gives ACGT the value nan"),
        (b"sequence,value,value\nACGT,1,2\n", "has two columns 'value'"),
        (b"sequence,value\nACG\xe9,1\n", "record 2: is not UTF-8"),
        (b'sequence,value\n"ACGT,1\n', "record 2: is not valid CSV"),
    ],
)
def test_a_table_that_is_none_is_refused_before_it_is_asked(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read_reward(str(tmp_path / "scores.csv"), Dna(4))


@pytest.mark.parametrize("body", ["1 / 0", "['much'] * len(texts)", "None"])
def test_a_function_that_fails_names_an_object(body: str, tmp_path: Path) -> None:
    environment = Dna(4)
    (tmp_path / "score.py").write_text(f"def score(texts):\n    return {body}\n")
    reward = Scores(environment, read_reward(f"{tmp_path / 'score.py'}:score", environment))
    with pytest.raises((BadInput, UsageError), match="reward"):
        reward(environment.from_text(["GGAT"]))


def test_a_function_is_read_from_its_file(tmp_path: Path) -> None:
    environment = Dna(4)
    (tmp_path / "score.py").write_text("def score(texts):\n    return [text.count('G') for text in texts]\n")
    assert read_reward(f"{tmp_path / 'score.py'}:score", environment)(environment.from_text(["GGAT"])).tolist() == [2.0]
    with pytest.raises(BadInput, match="no function 'scores'"):
        read_reward(f"{tmp_path / 'score.py'}:scores", environment)
    with pytest.raises(BadInput, match="does not exist"):
        read_reward("nowhere.csv", environment)
