"""What NPG and TRPO share: guards, schedules, logs, parameter checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from agents import NPG, TRPO
from agents.errors import ConfigError, UnknownName
from agents.functional import flatten
from agents.natural_gradient import NaturalGradientAlgorithm
from agents.surrogate import Surrogate

Algorithm = type[NaturalGradientAlgorithm]
both = pytest.mark.parametrize("algorithm", [NPG, TRPO])

POLICY_KEYS = {
    f"train/{key}"
    for key in (
        *("mean_kl", "target_kl", "predicted_gain", "actual_gain", "step_size", "backtracks"),
        *("accepted", "cg_iterations", "cg_residual", "fisher_curvature"),
    )
}
COMMON_KEYS = {
    f"train/{key}"
    for key in ("entropy", "explained_variance", "value_loss", "skipped_updates", "n_updates")
}


class Echo(gym.Env[int, int]):
    """Rewards the action that repeats the observation; repeatable from its seed."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps, self.state = 0, int(self.np_random.integers(3))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.state)
        self.n_steps, self.state = self.n_steps + 1, int(self.np_random.integers(3))
        return self.state, reward, False, self.n_steps >= 20, {}


class Records:
    """What each update has logged; SB3 would write it out only after the next rollout."""

    def __init__(self, agent: NaturalGradientAlgorithm) -> None:
        self.rows: list[dict[str, Any]] = []
        train = agent.train

        def train_and_keep() -> None:
            train()
            self.rows.append(dict(agent.logger.name_to_value))

        agent.train = train_and_keep  # type: ignore[method-assign]


def make(algorithm: Algorithm, **kwargs: Any) -> tuple[NaturalGradientAlgorithm, Records]:
    env = make_vec_env(Echo, n_envs=2)
    settings = {"n_steps": 32, "batch_size": 32, "seed": 0, "n_critic_updates": 2} | kwargs
    agent = algorithm("MlpPolicy", env, **settings)
    return agent, Records(agent)


def actor(agent: NaturalGradientAlgorithm) -> torch.Tensor:
    net = agent.policy.mlp_extractor.policy_net
    return flatten(p.detach() for p in [*net.parameters(), *agent.policy.action_net.parameters()])


class Spoil(BaseCallback):
    """Overwrites the advantages (and returns, if asked) of chosen rollouts, counted from 0."""

    def __init__(self, value: float, rollouts: set[int], *, returns: bool = False) -> None:
        super().__init__()
        self.value, self.rollouts, self.returns = value, rollouts, returns
        self.n_rollouts = 0
        self.before: list[torch.Tensor] = []

    def _on_rollout_end(self) -> None:
        self.before.append(actor(self.model))
        if self.n_rollouts in self.rollouts:
            self.model.rollout_buffer.advantages[:] = self.value
            if self.returns:
                self.model.rollout_buffer.returns[:] = self.value
        self.n_rollouts += 1

    def _on_step(self) -> bool:
        return True


@both
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("value", "reason"), [(0.0, "zero"), (float("nan"), "not finite")])
def test_a_batch_without_a_gradient_is_skipped_and_training_goes_on(
    algorithm: Algorithm, normalize: bool, value: float, reason: str
) -> None:
    agent, records = make(algorithm, normalize_advantage=normalize)
    spoil = Spoil(value, {1}, returns=True)
    agent.learn(4 * 64, callback=spoil)
    after = [*spoil.before[1:], actor(agent)]
    moved = [not torch.equal(a, b) for a, b in zip(spoil.before, after, strict=True)]
    assert moved == [True, False, True, True]
    assert agent.n_skipped_updates == 1
    assert [row["train/skipped_updates"] for row in records.rows] == [0, 1, 1, 1]
    assert reason in records.rows[1]["train/skip_reason"]
    assert all("train/skip_reason" not in records.rows[i] for i in (0, 2, 3))
    assert all(bool(torch.isfinite(p).all()) for p in agent.policy.parameters())


@both
@pytest.mark.parametrize("value", [0.1, -3.7, 1234.567])
def test_equal_advantages_are_no_advantage(algorithm: Algorithm, value: float) -> None:
    # Their mean is off by a rounding error, and a step of fixed KL makes any noise a full step.
    agent, records = make(algorithm)
    spoil = Spoil(value, {0})
    agent.learn(64, callback=spoil)
    assert torch.equal(actor(agent), spoil.before[0])
    assert "zero" in records.rows[0]["train/skip_reason"]


@both
def test_normalised_advantages_have_mean_zero_and_unit_spread(algorithm: Algorithm) -> None:
    agent, _ = make(algorithm)
    agent.learn(64)
    batch = next(iter(agent.rollout_buffer.get(batch_size=None)))
    advantages = agent._advantages(batch)
    assert float(advantages.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(advantages.std()) == pytest.approx(1.0, rel=1e-5)
    agent.normalize_advantage = False
    assert torch.equal(agent._advantages(batch), batch.advantages)


def negative(vector: torch.Tensor) -> torch.Tensor:
    return -vector


def not_a_number(vector: torch.Tensor) -> torch.Tensor:
    return torch.full_like(vector, float("nan"))


@both
@pytest.mark.parametrize("product", [negative, torch.zeros_like, not_a_number])
def test_a_fisher_matrix_that_is_not_positive_definite_is_skipped(
    algorithm: Algorithm,
    product: Callable[[torch.Tensor], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Surrogate, "fisher_vector_product", lambda *_: product)
    agent, records = make(algorithm)
    before = actor(agent)
    agent.learn(128)
    assert torch.equal(actor(agent), before)
    assert agent.n_skipped_updates == 2
    assert "positive definite" in records.rows[0]["train/skip_reason"]


@both
def test_a_skipped_update_has_the_columns_of_a_taken_one(algorithm: Algorithm) -> None:
    agent, records = make(algorithm)
    agent.learn(2 * 64, callback=Spoil(0.0, {0}))
    skipped, taken = records.rows
    assert set(skipped) - {"train/skip_reason"} >= POLICY_KEYS | COMMON_KEYS
    assert {k for k in skipped if k.startswith("train/")} - {"train/skip_reason"} == {
        k for k in taken if k.startswith("train/")
    }
    assert skipped["train/accepted"] == skipped["train/step_size"] == skipped["train/mean_kl"] == 0
    assert skipped["train/target_kl"] == 0.01


@both
def test_promised_keys_are_logged_with_their_meaning(algorithm: Algorithm) -> None:
    agent, records = make(algorithm, target_kl=0.005)
    agent.learn(3 * 64)
    for number, row in enumerate(records.rows, start=1):
        assert set(row) >= POLICY_KEYS | COMMON_KEYS
        assert row["train/target_kl"] == 0.005
        assert row["train/n_updates"] == number
        assert row["train/accepted"] == 1
        # α = √(2δ/dᵀFd), and gᵀd = dᵀFd when conjugate gradient has converged.
        full = np.sqrt(2 * 0.005 / row["train/fisher_curvature"])
        fraction = row["train/step_size"] / full
        assert fraction == pytest.approx(0.8 ** row["train/backtracks"])
        predicted = row["train/step_size"] * row["train/fisher_curvature"]
        assert row["train/predicted_gain"] == pytest.approx(predicted, rel=1e-3)
        assert 0.3 < row["train/actual_gain"] / row["train/predicted_gain"] < 1.5
        assert 0.0 < row["train/mean_kl"] < 0.01
        assert 0.0 < row["train/entropy"] <= np.log(3.0) + 1e-6
        assert 1 <= row["train/cg_iterations"] <= 15


@both
def test_schedules_follow_the_progress(algorithm: Algorithm) -> None:
    agent, records = make(algorithm, target_kl=lambda p: 0.02 * p, learning_rate=lambda p: 1e-2 * p)
    agent.learn(4 * 64)
    progress = [0.75, 0.5, 0.25, 0.0]
    assert [row["train/target_kl"] for row in records.rows] == pytest.approx(
        [0.02 * p for p in progress]
    )
    assert [row["train/learning_rate"] for row in records.rows] == pytest.approx(
        [1e-2 * p for p in progress]
    )
    assert records.rows[0]["train/mean_kl"] > 3 * records.rows[2]["train/mean_kl"] > 0.0
    assert records.rows[3]["train/mean_kl"] == pytest.approx(0.0, abs=1e-7)


@both
def test_the_learning_rate_moves_the_critic_only(algorithm: Algorithm) -> None:
    slow, fast = (make(algorithm, learning_rate=rate)[0].learn(64) for rate in (1e-4, 1e-2))
    assert torch.equal(actor(slow), actor(fast))
    assert not torch.equal(slow.policy.value_net.weight, fast.policy.value_net.weight)


@both
@pytest.mark.parametrize("bad", [-0.01, float("nan")])
def test_a_schedule_that_gives_no_bound_is_refused(algorithm: Algorithm, bad: float) -> None:
    agent, _ = make(algorithm, target_kl=lambda _: bad)
    with pytest.raises(ConfigError, match="schedule of target_kl"):
        agent.learn(64)


@both
@pytest.mark.parametrize("critic", ["adam", "gauss_newton"])
def test_the_critic_that_was_chosen_is_the_one_that_learns(
    algorithm: Algorithm, critic: str
) -> None:
    agent, _ = make(algorithm, critic=critic)
    before = agent.policy.value_net.weight.detach().clone()
    agent.learn(64)
    assert not torch.equal(agent.policy.value_net.weight, before)
    assert bool(agent.policy.optimizer.state) == (critic == "adam")


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_steps", 0),
        ("batch_size", 0),
        ("cg_max_iters", 0),
        ("n_critic_updates", 0),
        ("cg_damping", -0.1),
        ("cg_damping", float("nan")),
        ("cg_damping", float("inf")),
        ("critic_damping", -1.0),
        ("cg_rtol", -1e-9),
        ("target_kl", 0.0),
        ("target_kl", -0.01),
        ("target_kl", float("nan")),
        ("target_kl", float("inf")),
    ],
)
def test_a_parameter_out_of_range_is_refused(algorithm: Algorithm, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        make(algorithm, **{name: value})


@both
def test_one_sample_has_no_spread(algorithm: Algorithm) -> None:
    with pytest.raises(ConfigError, match=r"n_steps·n_envs = 1·1 is less than 2"):
        algorithm("MlpPolicy", Echo(), n_steps=1)


@both
def test_a_misspelt_critic_names_the_nearest(algorithm: Algorithm) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'gauss_newton'"):
        make(algorithm, critic="gaus_newton")


class OddActions(gym.Env[np.ndarray, Any]):
    """Its action space is the point; it never gets as far as a step."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, action_space: gym.Space) -> None:
        self.action_space = action_space


@both
@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]),
        spaces.Text(3),
    ],
    ids=["dict", "tuple", "text"],
)
def test_other_action_spaces_are_refused(algorithm: Algorithm, space: gym.Space) -> None:
    with pytest.raises(ConfigError, match=f"{algorithm.__name__} cannot act in .* Box, Discrete"):
        algorithm("MlpPolicy", OddActions(space))
