import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import ConfigError
from hub.seeding import (
    EVALUATION_SEED_START,
    FINAL_EVALUATION_SEED,
    PERIODIC_EVALUATION_SEED,
    RERANKING_EVALUATION_SEED,
    SEED_SPACING,
    SEED_STARTS,
    TUNING_EVALUATION_SEED,
    check_seed,
    evaluation_seeds,
    purpose_seeds,
    segment_seed,
)


def test_first_segment_has_the_run_s_own_seed():
    assert segment_seed(7, 0) == 7


def test_segments_are_what_they_were():
    """Changing these would make old runs resume differently."""
    assert [segment_seed(3, k) for k in range(3)] == [3, 161358024, 1890341385]


@given(st.integers(0, EVALUATION_SEED_START - 100_001), st.integers(0, 1000))
def test_training_seeds_lie_below_those_of_evaluations(seed, segment):
    assert 0 <= segment_seed(check_seed(seed), segment) + 65_536 < EVALUATION_SEED_START


def test_segments_differ():
    seeds = {segment_seed(seed, segment) for seed in range(50) for segment in range(50)}
    assert len(seeds) == 2500


def test_evaluation_seeds():
    assert evaluation_seeds(0, 3) == [2**31, 2**31 + 1, 2**31 + 2]
    assert evaluation_seeds(1, 1_000_000)[0] == evaluation_seeds(0, 1_000_000)[-1] + 1


@pytest.mark.parametrize("seed", [-1, 2**31, 2**31 - 100_000])
def test_seed_out_of_range(seed):
    with pytest.raises(ConfigError, match="try --seed 0"):
        check_seed(seed)


@pytest.mark.parametrize(("seed", "n_episodes"), [(-1, 1), (0, 0), (0, 1_000_001)])
def test_evaluation_out_of_range(seed, n_episodes):
    with pytest.raises(ConfigError):
        evaluation_seeds(seed, n_episodes)


def test_purposes_share_no_first_episode():
    """Nothing that chooses settings may see a seed that published numbers are measured on."""
    assert purpose_seeds("benchmark", 5) == [100_000, 101_000, 102_000, 103_000, 104_000]
    assert purpose_seeds("tuning", 2) == [200_000, 201_000]
    assert purpose_seeds("reranking", 2) == [300_000, 301_000]
    taken = [
        seed + env
        for purpose in SEED_STARTS
        for seed in purpose_seeds(purpose, 100)
        for env in range(SEED_SPACING)
    ]
    assert len(set(taken)) == len(taken) == 300_000
    assert min(taken) == 100_000  # below are the seeds of runs by hand


def test_evaluations_that_choose_share_no_episode_with_the_final_one():
    purposes = [
        FINAL_EVALUATION_SEED,
        PERIODIC_EVALUATION_SEED,
        TUNING_EVALUATION_SEED,
        RERANKING_EVALUATION_SEED,
    ]
    assert purposes == [0, 1, 2, 3]


@pytest.mark.parametrize("n_seeds", [0, 101])
def test_so_many_seeds_there_are_not(n_seeds):
    with pytest.raises(ConfigError, match=r"give a number in 1 … 100"):
        purpose_seeds("benchmark", n_seeds)
