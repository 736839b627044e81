"""Schedules: their values, their spelling in files, and what a wrong one says."""

from __future__ import annotations

import pickle

import pytest

from agents.errors import ConfigError, UnknownName
from hub.schedules import (
    SCHEDULE_KEYS,
    Constant,
    Exponential,
    Linear,
    Schedule,
    build_schedule,
    normalize_schedule,
)

ALL = [Constant(0.2), Linear(0.1, 0.02), Exponential(0.02, 0.001)]


def test_keys_that_may_be_schedules() -> None:
    rates = {"learning_rate", "critic_learning_rate", "secondary_learning_rate"}
    sizes = {"clip_range", "clip_range_vf", "max_step_size", "step_size", "target_kl"}
    assert rates | sizes == SCHEDULE_KEYS


def test_linear_meets_both_ends_exactly() -> None:
    # SB3's start + (end - start) gives 0.020000000000000004 here.
    schedule = Linear(0.1, 0.02)
    assert schedule(1.0) == 0.1
    assert schedule(0.0) == 0.02
    assert schedule(0.5) == pytest.approx(0.06)


def test_exponential_is_geometric() -> None:
    schedule = Exponential(0.04, 0.01)
    assert schedule(1.0) == 0.04
    assert schedule(0.0) == 0.01
    assert schedule(0.5) == pytest.approx(0.02)
    assert schedule(0.75) / schedule(0.5) == pytest.approx(schedule(0.5) / schedule(0.25))


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_overshoot_stays_at_the_end(schedule: Schedule) -> None:
    assert schedule(-0.01) == schedule(0.0)
    assert schedule(1.01) == schedule(1.0)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_survives_pickling(schedule: Schedule) -> None:
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert again(0.3) == schedule(0.3)


def test_repr_says_what_it_is() -> None:
    assert repr(build_schedule("learning_rate", "lin_3e-4")) == "Linear(start=0.0003, end=0.0)"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (3e-4, 3e-4),
        ("lin_3e-4", {"schedule": "linear", "start": 3e-4, "end": 0.0}),
        ({"schedule": "linear", "start": 1}, {"schedule": "linear", "start": 1.0, "end": 0.0}),
        ({"schedule": "constant", "value": 0.2}, {"schedule": "constant", "value": 0.2}),
        (
            {"end": 0.001, "start": 0.02, "schedule": "exponential"},
            {"schedule": "exponential", "start": 0.02, "end": 0.001},
        ),
    ],
)
def test_normal_form(value: object, expected: object) -> None:
    plain = normalize_schedule("learning_rate", value)
    assert plain == expected
    assert normalize_schedule("learning_rate", plain) == plain


def test_build_leaves_the_normal_form_alone() -> None:
    plain = {"schedule": "linear", "start": 0.1, "end": 0.02}
    assert build_schedule("target_kl", plain) == Linear(0.1, 0.02)
    assert plain == {"schedule": "linear", "start": 0.1, "end": 0.02}


def test_number_stays_a_number() -> None:
    value = build_schedule("learning_rate", 1)
    assert value == 1.0
    assert isinstance(value, float)


def test_unknown_schedule_suggests() -> None:
    with pytest.raises(UnknownName) as caught:
        build_schedule("clip_range", {"schedule": "liner", "start": 0.2})
    assert str(caught.value) == (
        "Unknown schedule 'liner'. Did you mean 'linear'? Known: constant, exponential, linear. "
        "Write for example `clip_range: 3e-4`, `clip_range: lin_3e-4` or "
        "`clip_range: {schedule: linear, start: 3e-4, end: 0.0}`."
    )


def test_unknown_field_suggests() -> None:
    with pytest.raises(UnknownName, match=r"Unknown field of a linear schedule 'strat'.*'start'"):
        build_schedule("learning_rate", {"schedule": "linear", "strat": 0.2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"schedule": "linear"}, "learning_rate: a linear schedule needs 'start'"),
        ({"schedule": "exponential", "start": 1.0}, "needs 'end'"),
        ({"schedule": "exponential", "start": 1.0, "end": 0}, "greater than 0. Use 'linear'"),
        ({"schedule": "linear", "start": True}, "learning_rate.start: True is not a finite number"),
        ({"schedule": "linear", "start": "0.1"}, "learning_rate.start: '0.1' is not a finite"),
        ({"start": 0.1}, "Unknown schedule 'None'"),
        ("linear", "learning_rate: 'linear' is neither a number nor a schedule"),
        ("lin_fast", "learning_rate: 'lin_fast' is neither"),
        ("lin_nan", "learning_rate: nan is not a finite number"),
        (float("inf"), "learning_rate: inf is not a finite number"),
        (None, "learning_rate: None is not a finite number"),
        ([0.1], r"learning_rate: \[0.1\] is not a finite number"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_schedule("learning_rate", value)
    assert "\n" not in str(caught.value)
