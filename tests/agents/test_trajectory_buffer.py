"""The ring of trajectories: order, ends, what follows a cut, and passes over everything."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.trajectory_buffer import TrajectoryBatch, TrajectoryBuffer
from agents.transitions import Transitions

SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACTIONS = spaces.Discrete(3)


def fill(
    n_rows: int, n_steps: int, n_envs: int = 2, ends: dict[tuple[int, int], str] | None = None
):
    """Fill a buffer: environment ``e`` sees ``100e + t``; what follows an end is 0.5 more."""
    buffer = TrajectoryBuffer(n_rows, SPACE, ACTIONS, n_envs=n_envs)
    envs = np.arange(n_envs)
    for step in range(n_steps):
        kinds = [(ends or {}).get((step, env)) for env in envs]
        terminated = np.array([kind == "terminated" for kind in kinds])
        truncated = np.array([kind == "truncated" for kind in kinds])
        following = 100.0 * envs + step + 1 + 0.5 * (terminated | truncated) - 0.0
        buffer.add(
            (100.0 * envs + step).reshape(-1, 1),
            envs + step % 3 - envs,
            -0.1 * step - envs,
            1.0 * step,
            terminated,
            truncated,
            following.reshape(-1, 1),
        )
    return buffer


def next_observations(batch: TrajectoryBatch) -> np.ndarray:
    """Return ``s_{t+1}`` as the learner sees it; NaN after a real end."""
    shape = batch.rewards.shape
    observations = batch.observations.reshape(shape)
    following = torch.cat([observations[1:], torch.full_like(observations[:1], torch.nan)])
    following = following.masked_scatter(batch.truncated, batch.bootstrap_observations)
    return torch.where(batch.terminated, torch.nan, following).numpy()


def test_a_batch_is_what_happened() -> None:
    buffer = fill(5, 5, ends={(1, 0): "terminated", (2, 1): "truncated"})
    np.random.seed(0)
    batch = next(buffer.batches(5, 2))
    observations = batch.observations.reshape(5, 2)
    order = [0, 1] if observations[0, 0] == 0 else [1, 0]
    columns = observations[:, order].numpy()
    np.testing.assert_array_equal(columns, [[t, 100 + t] for t in range(5)])
    assert batch.actions.shape == (10, 1)
    np.testing.assert_array_equal(batch.actions.reshape(5, 2)[:, 0], [0, 1, 2, 0, 1])
    expected = np.array([[-0.1 * t, -0.1 * t - 1] for t in range(5)], np.float32)
    np.testing.assert_array_equal(batch.behavior_log_probs[:, order], expected)
    np.testing.assert_array_equal(batch.rewards[:, 0], range(5))
    terminated, truncated = (
        flags[:, order].numpy() for flags in (batch.terminated, batch.truncated)
    )
    assert np.argwhere(terminated).tolist() == [[1, 0]]
    # A time limit inside, and the end of the data in both columns.
    assert np.argwhere(truncated).tolist() == [[2, 1], [4, 0], [4, 1]]
    following = next_observations(batch)[:, order]
    np.testing.assert_array_equal(following[:, 0], [1, np.nan, 3, 4, 5])
    np.testing.assert_array_equal(following[:, 1], [101, 102, 103.5, 104, 105])


def test_the_oldest_steps_are_overwritten() -> None:
    buffer = fill(4, 7, n_envs=1, ends={(2, 0): "truncated", (5, 0): "truncated"})
    assert (buffer.size, buffer.n_transitions) == (4, 4)
    batch = next(buffer.batches(4, 1))
    np.testing.assert_array_equal(batch.observations.flatten(), [3, 4, 5, 6])
    np.testing.assert_array_equal(next_observations(batch).flatten(), [4, 5, 6.5, 7])


@pytest.mark.parametrize(("n_rows", "n_steps"), [(12, 12), (12, 31)])
def test_passes_cut_differently_and_miss_nothing(n_rows: int, n_steps: int) -> None:
    buffer = fill(
        n_rows, n_steps, ends={(n_steps - 5, 0): "terminated", (n_steps - 7, 1): "truncated"}
    )
    oldest = n_steps - n_rows
    np.random.seed(1)
    batches = buffer.batches(4, 2)
    starts = set()
    for _ in range(20):
        seen: list[float] = []
        for batch in islice(batches, 3):  # a pass: 3 cuts of 2 environments, 2 at a time
            observations = batch.observations.reshape(4, 2).numpy()
            starts.add(float(observations[0, 0] % 100))
            seen += observations.flatten().tolist()
            step, env = observations % 100, observations // 100
            following = next_observations(batch)
            ends = np.isnan(following)
            assert (ends == ((step == n_steps - 5) & (env == 0))).all()
            expected = observations + 1 + 0.5 * ((step == n_steps - 7) & (env == 1))
            np.testing.assert_array_equal(following[~ends], expected[~ends])
            # Nothing runs on from the newest step to the oldest without a cut.
            newest = step[:-1] == n_steps - 1
            assert batch.truncated[:-1].numpy()[newest].all()
        expected_all = [100.0 * e + t for e in range(2) for t in range(oldest, n_steps)]
        assert sorted(seen) == expected_all
    assert len(starts) == n_rows


def test_less_data_than_asked_for() -> None:
    buffer = fill(100, 6)
    batch = next(buffer.batches(64, 8))
    assert batch.rewards.shape == (6, 2)
    buffer.clear()
    assert buffer.n_transitions == 0


def test_observations_by_name_and_of_other_kinds() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "n": spaces.Discrete(5)})
    buffer = TrajectoryBuffer(3, space, spaces.Box(-1, 1, (2,), np.float64), n_envs=1)
    for step in range(3):
        obs, following = (
            {"image": np.full((1, 2, 2), k, np.uint8), "n": np.array([k])} for k in (step, step + 1)
        )
        ends = np.array([step == 1])
        buffer.add(obs, np.ones((1, 2)), np.zeros(1), np.zeros(1), ~ends & ends, ends, following)
    batch = next(buffer.batches(3, 1))
    assert isinstance(batch.observations, dict)
    assert batch.observations["image"].dtype == torch.uint8
    assert batch.observations["image"][:, 0, 0].tolist() == [0, 1, 2]
    assert batch.bootstrap_observations["image"][:, 1, 1].tolist() == [2, 3]
    assert batch.bootstrap_observations["n"].flatten().tolist() == [2, 3]
    assert batch.actions.dtype == torch.float32


def test_a_data_set_is_one_environment_s_trajectory() -> None:
    """Two episodes, the second one broken off and gone on with elsewhere."""
    starts = np.array([0, 1, 10, 11, 20], np.float32)
    ends = np.array([1, 2, 11, 12, 21], np.float32)
    transitions = Transitions(
        starts.reshape(-1, 1),
        np.array([0, 1, 2, 0, 1]),
        np.arange(5.0),
        ends.reshape(-1, 1),
        np.array([False, True, False, False, False]),
        np.zeros(5, bool),
    )
    assert transitions.cut_off().tolist() == [False, False, False, True, True]
    buffer = TrajectoryBuffer.of_transitions(transitions, np.zeros(5), SPACE, ACTIONS)
    batch = next(buffer.batches(5, 1))
    np.testing.assert_array_equal(next_observations(batch).flatten(), [1, np.nan, 11, 12, 21])
    assert batch.rewards.flatten().tolist() == [0, 1, 2, 3, 4]
