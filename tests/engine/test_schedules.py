"""Learning-rate schedules by hand."""

import math
from itertools import pairwise

import pytest

from headstart.core.errors import UsageError
from headstart.engine.schedules import ScheduleConfig, multiplier


def test_11_electra_schedule() -> None:
    config = ScheduleConfig(name="electra", warmup_steps=10_000)
    rates = [5e-4 * multiplier(step, 1_000_000, config) for step in (0, 5_000, 10_000, 500_000, 1_000_000)]
    assert rates == pytest.approx([0.0, 2.4875e-4, 4.95e-4, 2.5e-4, 0.0], rel=1e-12)
    fine_tuning = ScheduleConfig(name="electra", warmup_share=0.1)
    rates = [3e-4 * multiplier(step, 1000, fine_tuning) for step in (50, 100, 550)]
    assert rates == pytest.approx([1.425e-4, 2.7e-4, 1.35e-4], rel=1e-12)


def test_electra_power_bends_the_decay_only() -> None:
    config = ScheduleConfig(name="electra", warmup_steps=10, power=2.0)
    assert multiplier(5, 100, config) == pytest.approx(0.5 * 0.95**2)
    assert multiplier(60, 100, config) == pytest.approx(0.4**2)


def test_electra_readme_continuation_is_a_plain_decay_over_the_extra_steps() -> None:
    old, extra, wanted = 4_000, 1_000, 2e-4
    whole = ScheduleConfig(name="electra", warmup_steps=100)
    own = ScheduleConfig(name="electra", warmup_steps=0)
    for step in (0, 1, 500, 999):
        readme = wanted * (old + extra) / extra * multiplier(old + step, old + extra, whole)
        assert readme == pytest.approx(wanted * multiplier(step, extra, own))


def test_linear() -> None:
    config = ScheduleConfig(name="linear", warmup_steps=10)
    assert [multiplier(step, 110, config) for step in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_linear_and_cosine_end_at_the_minimum_share_and_never_below() -> None:
    for name in ("linear", "cosine", "wsd"):
        config = ScheduleConfig(name=name, warmup_steps=0, minimum_share=0.1)
        curve = [multiplier(step, 100, config) for step in range(101)]
        assert curve[0] == 1.0
        assert curve[-1] == pytest.approx(0.1)
        assert all(later <= earlier for earlier, later in pairwise(curve))


def test_cosine() -> None:
    config = ScheduleConfig(name="cosine", warmup_steps=20)
    expected = [0.5, 1.0, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.0]
    assert [multiplier(step, 100, config) for step in (10, 20, 40, 60, 100)] == pytest.approx(expected)


def test_constant_keeps_the_peak_after_the_warmup() -> None:
    config = ScheduleConfig(name="constant", warmup_share=0.25)
    assert [multiplier(step, 40, config) for step in (5, 10, 39)] == pytest.approx([0.5, 1, 1])


def test_inverse_sqrt_halves_at_four_times_the_warmup() -> None:
    config = ScheduleConfig(name="inverse-sqrt", warmup_steps=100)
    assert [multiplier(step, 10_000, config) for step in (50, 100, 400, 10_000)] == pytest.approx([0.5, 1, 0.5, 0.1])


def test_wsd_is_flat_then_falls_by_the_square_root() -> None:
    config = ScheduleConfig(name="wsd", warmup_steps=10, decay_share=0.2)
    assert [multiplier(step, 100, config) for step in (10, 79, 80, 85, 100)] == pytest.approx([1, 1, 1, 0.5, 0])


def test_warmup_share_is_not_rounded_to_whole_steps() -> None:
    config = ScheduleConfig(name="constant", warmup_share=0.1)
    assert multiplier(1, 15, config) == pytest.approx(1 / 1.5)


def test_warmup_steps_win_over_the_share() -> None:
    assert multiplier(5, 100, ScheduleConfig(name="constant", warmup_steps=5, warmup_share=0.5)) == 1.0


@pytest.mark.parametrize(
    "config",
    [
        ScheduleConfig(name="triangle"),  # type: ignore[arg-type]
        ScheduleConfig(warmup_share=1.5),
        ScheduleConfig(warmup_steps=-1),
        ScheduleConfig(minimum_share=-0.1),
    ],
)
def test_settings_outside_their_range_are_refused(config: ScheduleConfig) -> None:
    with pytest.raises(UsageError):
        multiplier(0, 100, config)


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one step"):
        multiplier(0, 0, ScheduleConfig())
