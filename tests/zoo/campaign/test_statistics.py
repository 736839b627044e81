"""The statistics, against numbers worked out by hand and a bootstrap written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zoo.campaign.statistics import (
    interquartile_mean,
    mean_and_std,
    normalised,
    performance_profiles,
)


def test_mean_and_standard_deviation_over_seeds() -> None:
    assert mean_and_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7.0**0.5, rel=1e-15))
    assert mean_and_std([4.5]) == (4.5, None)


def test_normalised_return() -> None:
    assert normalised(2_000.0, zero=-300.0, one=5_784.0) == pytest.approx(2_300 / 6_084)
    assert normalised(-4.1, zero=-43.23, one=-4.1) == 1.0


@pytest.mark.parametrize(
    ("scores", "iqm"),
    [
        ([10.0, 0.0, 2.0, 4.0, 3.0], 3.0),  # 5 / 4 rounds down: one score off each end
        ([1.0, 2.0, 3.0, 100.0], 2.5),
        ([1.0, 2.0, 30.0], 11.0),  # 3 / 4 rounds down to none: the mean
        ([7.0], 7.0),
    ],
)
def test_interquartile_mean_of_one_task(scores: list[float], iqm: float) -> None:
    estimate = interquartile_mean(np.array(scores)[:, None], n_resamples=50)
    assert estimate.value == pytest.approx(iqm, rel=1e-15)
    assert min(scores) <= estimate.low <= estimate.high <= max(scores)


def test_interquartile_mean_pools_the_tasks() -> None:
    scores = np.array([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0], [3.0, 100.0]])
    # sorted 0 1 2 3 5 6 7 100: two off each end
    assert interquartile_mean(scores, n_resamples=50).value == pytest.approx((2 + 3 + 5 + 6) / 4)


def test_equal_seeds_have_no_interval() -> None:
    estimate = interquartile_mean(np.array([[1.0, 4.0]] * 5), n_resamples=50)
    # strata: task 1 only ever gives 1, task 2 only 4, so every resample is the data itself
    assert (estimate.value, estimate.low, estimate.high) == (2.5, 2.5, 2.5)


def test_interval_of_three_seeds_is_that_of_all_resamples() -> None:
    """Three scores have 27 equally likely resamples; their means are the exact distribution."""
    scores = [0.0, 3.0, 9.0]
    means = sorted(np.mean(draw) for draw in itertools.product(scores, repeat=3))
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    estimate = interquartile_mean(np.array(scores)[:, None], n_resamples=4_000)
    assert (estimate.low, estimate.high) == (low, high) == (0.0, 9.0)
    # P(all three are 0) = 1/27 > 2.5 %, so the ends are the extremes; a tighter set of scores:
    scores = [0.0, 3.0, 3.0, 9.0, 9.0]
    draws = np.array(list(itertools.product(scores, repeat=5)))
    middle = np.sort(draws, axis=1)[:, 1:4].mean(axis=1)
    low, high = np.quantile(middle, [0.025, 0.975], method="inverted_cdf")
    estimate = interquartile_mean(np.array(scores)[:, None], n_resamples=4_000)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_tables_repeat_and_leave_numpy_alone() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 3))
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    one = interquartile_mean(scores, n_resamples=100)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert interquartile_mean(scores, n_resamples=100) == one


def test_performance_profile() -> None:
    scores = {"npg": np.array([[0.0, 1.0], [0.5, 2.0]]), "trpo": np.array([[3.0, 3.0], [3.0, 3.0]])}
    profiles = performance_profiles(scores, np.array([-1.0, 0.0, 0.5, 1.5, 2.0]), n_resamples=50)
    np.testing.assert_array_equal(profiles["npg"].share, [1.0, 0.75, 0.5, 0.25, 0.0])
    np.testing.assert_array_equal(profiles["trpo"].share, [1.0] * 5)
    np.testing.assert_array_equal(profiles["trpo"].low, [1.0] * 5)
    assert (profiles["npg"].low <= profiles["npg"].share).all()
    assert (profiles["npg"].high >= profiles["npg"].share).all()


def test_profile_is_rliable_s_own() -> None:
    from rliable.library import score_distributions

    from zoo.campaign.statistics import _share_above

    scores = np.random.default_rng(0).integers(0, 5, size=(5, 3)).astype(float)  # with equal ones
    thresholds = np.linspace(-1.0, 5.0, 13)
    np.testing.assert_allclose(
        _share_above(scores, thresholds), score_distributions(scores, thresholds), atol=1e-15
    )
