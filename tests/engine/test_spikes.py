"""A jump of the loss is said once; an ordinary descent, its noise and a change of phase are not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import median

import pytest

from headstart.engine.spikes import Spikes
from tests.running import METHODS

GOLDEN = Path(__file__).parents[1] / "golden"


def said(losses: list[float], phases: list[str] | None = None) -> list[tuple[int, str]]:
    """(step, sentence) of every spike of a curve."""
    spikes = Spikes()
    phases = phases or ["train"] * len(losses)
    notes = [(step, spikes.note(step, loss, phase)) for step, (loss, phase) in enumerate(zip(losses, phases, strict=True), 1)]
    return [(step, note) for step, note in notes if note]


def descent(noise: float, seed: int, steps: int = 200) -> list[float]:
    """From the unigram entropy down a power law, as losses of language models go."""
    rng = random.Random(seed)
    return [2.5 + 4 * (1 + step / 20) ** -0.7 + rng.gauss(0, noise) for step in range(steps)]


@pytest.mark.parametrize("slug", METHODS)
def test_the_golden_traces_are_silent_also_where_their_phases_change(slug: str) -> None:
    golden = json.loads((GOLDEN / f"{slug}.json").read_text())
    assert said(golden["losses"], golden["phases"]) == []
    if len(set(golden["phases"])) > 2:
        assert said(golden["losses"]), "without its phases ELECTRA's new loss is a jump: the curve can make a noise"


@pytest.mark.parametrize("noise", [0.001, 0.02, 0.2, 0.5])
def test_a_noisy_descent_is_silent(noise: float) -> None:
    for seed in range(50):
        assert said(descent(noise, seed)) == []


def test_a_jump_is_said_once_with_its_numbers() -> None:
    losses = descent(0.02, 0)
    jump = [losses[i] + 4 if 150 <= i < 156 else loss for i, loss in enumerate(losses)]
    ((step, sentence),) = said(jump)
    assert step == 151
    assert sentence == f"The loss jumped from {median(losses[130:150]):.3g} (median of the last 20 log steps) to {losses[150] + 4:.3g} at step 151."


def test_a_second_jump_is_said_again() -> None:
    losses = descent(0.02, 0)
    assert [step for step, _ in said([loss + 5 * (i in (100, 140)) for i, loss in enumerate(losses)])] == [101, 141]


def test_a_slow_climb_and_a_number_that_is_none_are_no_jump() -> None:
    assert said([2.0 + 0.02 * step for step in range(200)]) == []
    assert said([2.0] * 30 + [float("inf"), float("nan")]) == [], "that is the guard's business"
    assert [step for step, _ in said([2.0] * 9 + [float("nan")] * 30 + [9.0])] == [40]


def test_small_steps_of_a_flat_or_small_loss_are_no_jump() -> None:
    assert said([2.0] * 30 + [2.2]) == [], "ten percent of a curve without any noise"
    assert said([0.01] * 30 + [0.2]) == [], "0.2 nats, although twenty times the loss"


def test_saved_and_loaded_it_goes_on() -> None:
    losses = [loss + 5 * (99 <= i < 103) for i, loss in enumerate(descent(0.02, 0))]
    whole = said(losses)
    for stop in (50, 98, 99, 100, 101):
        first, second = Spikes(), Spikes()
        notes = [(step, first.note(step, loss, "train")) for step, loss in enumerate(losses[:stop], 1)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        notes += [(step, second.note(step, loss, "train")) for step, loss in enumerate(losses[stop:], stop + 1)]
        assert [(step, note) for step, note in notes if note] == whole
