"""Advantages and returns by hand, with time limits told apart from real ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from agents.functional import (
    discounted_returns,
    generalized_advantages,
    standardized,
    whole_returns,
)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


REWARDS, VALUES, NEXT_VALUES = column(1, 2, 3), column(10, 20, 30), column(20, 30, 40)
NONE = flags(0, 0, 0)


def test_no_end_by_hand() -> None:
    # γ = 0.5, λ = 0.5: δ = (1+10−10, 2+15−20, 3+20−30) = (1, −3, −7), A_t = δ_t + A_{t+1}/4.
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, NONE, NONE, gamma=0.5, gae_lambda=0.5
    )
    assert torch.equal(result, column(1 - 4.75 / 4, -3 - 7 / 4, -7))


def test_a_real_end_has_no_future_and_cuts_the_trace() -> None:
    # δ_1 = 2 − 20 = −18, and nothing of A_2 = −7 reaches it.
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, flags(0, 1, 0), NONE, gamma=0.5, gae_lambda=0.5
    )
    assert torch.equal(result, column(1 - 18 / 4, -18, -7))


def test_a_time_limit_bootstraps_and_cuts_the_trace() -> None:
    # δ_1 = 2 + 15 − 20 = −3, and nothing of A_2 = −7 reaches it.
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, NONE, flags(0, 1, 0), gamma=0.5, gae_lambda=0.5
    )
    assert torch.equal(result, column(1 - 3 / 4, -3, -7))


def test_a_real_end_at_the_time_limit_is_a_real_end() -> None:
    both = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, flags(0, 1, 0), flags(0, 1, 0), gamma=0.5, gae_lambda=0.5
    )
    assert torch.equal(both, column(1 - 18 / 4, -18, -7))


def test_a_real_end_in_the_last_row() -> None:
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, flags(0, 0, 1), NONE, gamma=0.5, gae_lambda=0.5
    )
    assert torch.equal(result, column(1 + (-3 - 27 / 4) / 4, -3 - 27 / 4, -27))


def test_lambda_zero_is_the_td_residual() -> None:
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, flags(0, 1, 0), NONE, gamma=0.5, gae_lambda=0.0
    )
    assert torch.equal(result, column(1, -18, -7))


def test_lambda_one_is_the_monte_carlo_advantage() -> None:
    # G = (1 + 2/2 + 3/4 + 40/8, 2 + 3/2 + 40/4, 3 + 40/2) = (7.75, 13.5, 23).
    result = generalized_advantages(
        REWARDS, VALUES, NEXT_VALUES, NONE, NONE, gamma=0.5, gae_lambda=1.0
    )
    assert torch.equal(result, column(7.75 - 10, 13.5 - 20, 23 - 30))


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_the_value_after_a_real_end_is_ignored_whatever_it_is(garbage: float) -> None:
    result = generalized_advantages(
        REWARDS,
        VALUES,
        column(20, garbage, 40),
        flags(0, 1, 0),
        NONE,
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert torch.equal(result, column(1 - 18 / 4, -18, -7))


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_a_broken_episode_does_not_reach_the_one_before(end: str) -> None:
    ends = {"terminated": NONE, "truncated": NONE} | {end: flags(0, 1, 0)}
    result = generalized_advantages(
        column(1, 2, float("nan")), VALUES, NEXT_VALUES, **ends, gamma=0.5, gae_lambda=0.5
    )
    assert torch.isfinite(result[:2]).all()
    assert torch.isnan(result[2]).all()


def test_environments_do_not_mix() -> None:
    def wide(*columns: torch.Tensor) -> torch.Tensor:
        return torch.cat(columns, dim=1)

    together = generalized_advantages(
        wide(REWARDS, REWARDS, REWARDS),
        wide(VALUES, VALUES, VALUES),
        wide(NEXT_VALUES, NEXT_VALUES, NEXT_VALUES),
        wide(NONE, flags(0, 1, 0), NONE),
        wide(NONE, NONE, flags(0, 1, 0)),
        gamma=0.5,
        gae_lambda=0.5,
    )
    expected = wide(column(-0.1875, -4.75, -7), column(-3.5, -18, -7), column(0.25, -3, -7))
    assert torch.equal(together, expected)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_rollout_buffer_of_sb3(seed: int, gae_lambda: float) -> None:
    # SB3 knows one kind of end and adds γ V(s') to the reward at a time limit; the same result.
    rng = np.random.default_rng(seed)
    n_steps, n_envs, gamma = 40, 3, 0.97
    rewards, values, terminal_values = rng.normal(size=(3, n_steps, n_envs)).astype(np.float32)
    last_values = rng.normal(size=n_envs).astype(np.float32)
    kind = rng.choice(3, size=(n_steps, n_envs), p=[0.8, 0.1, 0.1])
    terminated, truncated = kind == 1, kind == 2
    dones = terminated | truncated

    box = spaces.Box(-1.0, 1.0, (1,), np.float32)
    buffer = RolloutBuffer(n_steps, box, box, "cpu", gae_lambda, gamma, n_envs)
    starts = np.vstack([np.ones((1, n_envs), bool), dones[:-1]])
    for t in range(n_steps):
        buffer.add(
            np.zeros((n_envs, 1), np.float32),
            np.zeros((n_envs, 1), np.float32),
            rewards[t] + gamma * terminal_values[t] * truncated[t],
            starts[t],
            torch.from_numpy(values[t]),
            torch.zeros(n_envs),
        )
    buffer.compute_returns_and_advantage(torch.from_numpy(last_values), dones[-1])

    following = np.vstack([values[1:], last_values[None]])
    ours = generalized_advantages(
        torch.from_numpy(rewards),
        torch.from_numpy(values),
        torch.from_numpy(np.where(dones, terminal_values, following)),
        torch.from_numpy(terminated),
        torch.from_numpy(truncated),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    assert dones.sum() > 10
    np.testing.assert_allclose(ours.numpy(), buffer.advantages, rtol=1e-4, atol=1e-5)


def test_returns_bootstrap_only_at_the_end_of_the_data() -> None:
    result = discounted_returns(REWARDS, NEXT_VALUES, NONE, NONE, gamma=0.5)
    assert torch.equal(result, column(7.75, 13.5, 23))


def test_returns_of_a_real_end() -> None:
    result = discounted_returns(REWARDS, NEXT_VALUES, flags(0, 1, 0), NONE, gamma=0.5)
    assert torch.equal(result, column(2, 2, 23))


def test_returns_of_a_time_limit() -> None:
    # 2 + 30/2 = 17, then 1 + 17/2.
    result = discounted_returns(REWARDS, NEXT_VALUES, NONE, flags(0, 1, 0), gamma=0.5)
    assert torch.equal(result, column(9.5, 17, 23))


def test_returns_of_a_real_end_in_the_last_row() -> None:
    result = discounted_returns(REWARDS, NEXT_VALUES, flags(0, 0, 1), NONE, gamma=0.5)
    assert torch.equal(result, column(2.75, 3.5, 3))


def test_undiscounted_returns_are_sums() -> None:
    result = discounted_returns(REWARDS, 0 * NEXT_VALUES, flags(0, 0, 1), NONE, gamma=1.0)
    assert torch.equal(result, column(6, 5, 3))


def test_discount_zero_sees_one_reward() -> None:
    assert torch.equal(discounted_returns(REWARDS, NEXT_VALUES, NONE, NONE, gamma=0.0), REWARDS)


def test_standardized_by_hand() -> None:
    # Mean 2, standard deviation √((4 + 0 + 4) / 2) = 2.
    result = standardized(torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(result, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.1, 3.1, 3.1], [1e9, 1e9, 1e9 + 64]])
def test_equal_weights_become_zeros(values: list[float]) -> None:
    assert not standardized(torch.tensor(values)).any()


def test_the_whole_return_is_that_of_an_episodes_first_step() -> None:
    returns = torch.stack([torch.tensor([5.0, 3.0, 2.0, 9.0]), torch.tensor([4.0, 1.0, 8.0, 7.0])])
    returns, starts = returns.T, torch.tensor([[1, 0, 0, 1], [1, 0, 1, 0]]).T.bool()
    expected = torch.tensor([[5.0, 5.0, 5.0, 9.0], [4.0, 4.0, 8.0, 8.0]]).T
    assert torch.equal(whole_returns(returns, starts), expected)
