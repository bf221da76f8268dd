"""Durations and learning-rate schedules."""

import functools

import pytest

from mmjax.core.errors import UserError
from mmjax.training.duration import steps
from mmjax.training.schedule import Schedule

to_steps = functools.partial(steps, batch_size=32, examples_per_epoch=1000)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(7, 7), ("300 steps", 300), ("1 step", 1), ("2 epochs", 63), ("3e3 examples", 94), ("0.5 epochs", 16)],
)
def test_durations(duration, expected):
    assert to_steps(duration) == expected


@pytest.mark.parametrize("duration", ["10", "ten steps", "10 minutes", ""])
def test_a_wrong_duration_is_a_sentence(duration):
    with pytest.raises(UserError, match="is not understood; expected '<number> steps"):
        to_steps(duration)


def test_cosine_rises_and_falls():
    rate = Schedule("cosine", warmup="10 steps").build(2.0, 110, to_steps)
    assert [float(rate(s)) for s in (0, 5, 10, 110)] == pytest.approx([0, 1, 2, 0], abs=1e-6)
    assert float(rate(60)) == pytest.approx(1.0, abs=1e-6)


def test_rsqrt_and_its_cooldown():
    rate = Schedule("rsqrt", warmup=10, cooldown=20, timescale=100).build(1.0, 400, to_steps)
    assert float(rate(10)) == pytest.approx(1.0)
    assert float(rate(310)) == pytest.approx(0.5)
    assert float(rate(390)) == pytest.approx(0.5 * (480 / 100) ** -0.5, rel=1e-5)
    assert float(rate(400)) == 0


def test_constant_with_cooldown_to_a_final_share():
    rate = Schedule("constant", cooldown=10, final=0.1).build(1.0, 100, to_steps)
    assert [float(rate(s)) for s in (0, 90, 95, 100)] == pytest.approx([1, 1, 0.55, 0.1], abs=1e-6)


def test_a_schedule_that_does_not_fit_is_a_sentence():
    with pytest.raises(UserError, match="do not fit in 5 steps"):
        Schedule(warmup=10).build(1.0, 5, to_steps)
    with pytest.raises(UserError, match=r"schedule.kind: 'cosin' is unknown. Did you mean 'cosine'\?"):
        Schedule("cosin").build(1.0, 5, to_steps)
