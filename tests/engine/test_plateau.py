"""The plateau is left when the last log steps together lie below it, from the first log step on."""

from __future__ import annotations

import math

from headstart.engine.plateau import MARGIN, Plateau, steps_to_leave


def test_it_is_left_where_the_last_three_log_steps_lie_below_together() -> None:
    plateau = Plateau(entropy=6.0, metric="loss")
    line = 6.0 - MARGIN
    assert not plateau.note(10, {"loss": 7.5})
    assert not plateau.note(20, {"loss": line - 0.1})  # the mean still holds 7.5
    assert not plateau.note(30, {"loss": line - 0.1})
    assert plateau.note(40, {"loss": line - 0.1})
    assert plateau.left_at == 40
    assert not plateau.note(50, {"loss": 1.0})  # said once
    assert "at step 40" in plateau.verdict()


def test_a_run_that_never_left_says_where_it_ended() -> None:
    plateau = Plateau(entropy=6.0, metric="loss")
    for step, value in ((10, 8.0), (20, 6.4), (30, 6.1)):
        plateau.note(step, {"loss": value})
    assert "it ended at 6.10" in plateau.verdict()
    plateau.note(40, {"other": 1.0})
    assert plateau.left_at is None


def test_a_loss_that_is_no_number_has_not_left_it() -> None:
    plateau = Plateau(entropy=6.0, metric="loss")
    for step in range(10, 60, 10):
        assert not plateau.note(step, {"loss": math.nan})
    assert plateau.left_at is None
    assert "never left" in plateau.verdict()
    for step in (60, 70):
        assert not plateau.note(step, {"loss": 1.0})  # the mean still holds one that is none
    assert plateau.note(80, {"loss": 1.0})


def test_its_state_survives_a_restart() -> None:
    first, second = Plateau(6.0, "loss"), Plateau(6.0, "loss")
    for step in (10, 20):
        first.note(step, {"loss": 5.6 + 0.2 * (step == 10)})
    second.load_state_dict(first.state_dict())
    assert second.note(30, {"loss": 5.6}) == first.note(30, {"loss": 5.6})
    assert second.left_at == first.left_at


def test_more_predicted_tokens_a_step_need_fewer_steps() -> None:
    assert steps_to_leave(1000) == 10 * steps_to_leave(10_000)
