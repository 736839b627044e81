"""What every registered algorithm promises, whoever wrote it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from agents.functional import flatten
from agents.registry import algorithm_class, algorithm_names, constructor_parameters

every_algorithm = pytest.mark.parametrize("name", algorithm_names())

SPACES: dict[str, gym.Space] = {
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}


class Identity(gym.Env[Any, Any]):
    """Rewards repeating the observation (for Box: being close to it); repeatable from its seed."""

    def __init__(self, kind: str = "discrete") -> None:
        self.action_space = self.observation_space = SPACES[kind]
        self.kind = kind

    def _observe(self) -> Any:
        if self.kind == "box":
            self.state = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        elif self.kind == "discrete":
            self.state = self.np_random.integers(4)
        elif self.kind == "multi-discrete":
            self.state = self.np_random.integers([2, 3])
        else:
            self.state = self.np_random.integers(2, size=3).astype(np.int8)
        return self.state

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.kind == "box":
            reward = 1.0 - float(np.abs(action - self.state).mean())
        else:
            reward = float(np.all(action == self.state))
        self.n_steps += 1
        return self._observe(), reward, False, self.n_steps >= 20, {}


def settings(name: str, **kwargs: Any) -> dict[str, Any]:
    """Return ``kwargs`` and small sizes, as far as the algorithm has them."""
    small = {"n_steps": 32, "batch_size": 64, "n_epochs": 4, "n_critic_updates": 4, "seed": 1}
    known = constructor_parameters(algorithm_class(name))
    return {key: value for key, value in small.items() if key in known} | kwargs


def make(name: str, kind: str = "discrete", **kwargs: Any) -> BaseAlgorithm:
    env = make_vec_env(lambda: Identity(kind), n_envs=4)
    return algorithm_class(name)("MlpPolicy", env, **settings(name, **kwargs))


def timesteps(name: str, asked: int) -> int:
    """Return the timesteps after which ``learn(asked)`` ends with rollouts of ``n_steps=32``.

    REINFORCE plays the episodes that begin in these steps to their end, of 20 steps each.
    """
    rollout = 4 * {"reinforce": 40}.get(name, 32)
    return -(-asked // rollout) * rollout


def weights(agent: BaseAlgorithm) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


def observations(agent: BaseAlgorithm) -> np.ndarray:
    agent.observation_space.seed(0)
    return np.stack([agent.observation_space.sample() for _ in range(50)])


@every_algorithm
def test_the_same_seed_gives_the_same_parameters(name: str) -> None:
    first = weights(make(name).learn(512))
    assert torch.equal(weights(make(name).learn(512)), first)
    assert not torch.equal(weights(make(name, seed=2).learn(512)), first)


@every_algorithm
@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_a_saved_agent_acts_the_same(name: str, kind: str, tmp_path: Path) -> None:
    agent = make(name, kind).learn(512)
    agent.save(tmp_path / "agent")
    loaded = algorithm_class(name).load(tmp_path / "agent")
    assert torch.equal(weights(loaded), weights(agent))
    obs = observations(agent)
    expected, _ = agent.predict(obs, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)

    fresh = make(name, kind, seed=9)
    assert not torch.equal(weights(fresh), weights(agent))
    fresh.set_parameters(agent.get_parameters())
    np.testing.assert_array_equal(fresh.predict(obs, deterministic=True)[0], expected)


@every_algorithm
def test_a_loaded_agent_goes_on_learning(name: str, tmp_path: Path) -> None:
    agent = make(name).learn(512)
    agent.save(tmp_path / "agent")
    loaded = algorithm_class(name).load(tmp_path / "agent", env=agent.get_env())
    before, n_updates = weights(loaded), loaded._n_updates
    loaded.learn(256, reset_num_timesteps=False)
    assert loaded.num_timesteps == timesteps(name, 512) + timesteps(name, 256)
    assert loaded._n_updates > n_updates > 0
    assert not torch.equal(weights(loaded), before)
    assert torch.isfinite(weights(loaded)).all()


@every_algorithm
@pytest.mark.parametrize("kind", list(SPACES))
def test_it_acts_and_learns_in_each_space(name: str, kind: str) -> None:
    agent = make(name, kind)
    before = weights(agent)
    agent.learn(512)
    assert torch.isfinite(weights(agent)).all()
    assert not torch.equal(weights(agent), before)
    for deterministic in (True, False):
        actions, _ = agent.predict(observations(agent), deterministic=deterministic)
        assert all(agent.action_space.contains(action) for action in actions)


LEARNING: dict[str, tuple[int, dict[str, Any]]] = {
    "actor_critic": (8_000, {"learning_rate": 1e-2}),
    "reinforce": (8_000, {"learning_rate": 3e-2}),
    "a2c": (10_000, {"n_steps": 5, "learning_rate": 4e-3}),
    "a3c": (10_000, {"n_steps": 5, "learning_rate": 4e-3}),
    "npg": (8_000, {"target_kl": 0.02}),
    "off_pac": (10_000, {"learning_rate": 1e-2, "critic_learning_rate": 1e-2}),
    "ppo": (8_000, {"learning_rate": 3e-3}),
    "ppo_kl": (8_000, {"learning_rate": 3e-3, "target_kl": 0.03}),
    "trpo": (8_000, {"target_kl": 0.02}),
}


def test_every_algorithm_is_asked_to_learn() -> None:
    assert set(LEARNING) == set(algorithm_names())


@pytest.mark.parametrize("name", list(LEARNING))
def test_it_learns_to_repeat_the_observation(name: str) -> None:
    n_timesteps, kwargs = LEARNING[name]
    agent = make(name, gamma=0.0, **kwargs)
    # Sampled, not greedy: a greedy policy that has learnt nothing can be right by luck.
    before, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=8, deterministic=False)
    agent.learn(n_timesteps)
    after, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=8, deterministic=False)
    assert before < 10.0
    assert after >= 0.9 * 20


OURS: dict[str, dict[str, Any]] = {
    "a3c": {"n_steps": 8, "learning_rate": 4e-3, "ent_coef": 0.0},
    "actor_critic": {"learning_rate": 3e-2},
    "reinforce": {"learning_rate": 5e-2},
    "npg": {"target_kl": 0.05},
    "ppo_kl": {"learning_rate": 1e-2, "target_kl": 0.05, "n_epochs": 3},
    "trpo": {"target_kl": 0.05},
}


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.parametrize("kind", ["box", "multi-discrete", "multi-binary"])
def test_ours_improve_in_every_other_space(name: str, kind: str) -> None:
    agent = make(name, kind, gamma=0.0, **OURS[name])
    before, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=8)
    agent.learn(4_000)
    after, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=8)
    assert after > before + 0.3 * (20 - before)


@every_algorithm
def test_gsde_learns_with_finite_parameters(name: str) -> None:
    agent = make(name, "box", use_sde=True, sde_sample_freq=4)
    before = agent.policy.log_std.detach().clone()
    agent.learn(512)
    assert torch.isfinite(weights(agent)).all()
    assert not torch.equal(agent.policy.log_std, before)


@every_algorithm
def test_images(name: str) -> None:
    env = make_vec_env(
        lambda: FakeImageEnv(action_dim=3, screen_height=36, screen_width=36), n_envs=2
    )
    agent = algorithm_class(name)("CnnPolicy", env, **settings(name, n_steps=32))
    before = weights(agent)
    agent.learn(64)
    assert torch.isfinite(weights(agent)).all()
    assert not torch.equal(weights(agent), before)


@every_algorithm
def test_dictionaries_of_observations(name: str) -> None:
    env = make_vec_env(lambda: SimpleMultiObsEnv(random_start=False, channel_last=False), n_envs=2)
    agent = algorithm_class(name)("MultiInputPolicy", env, **settings(name, n_steps=32))
    before = weights(agent)
    agent.learn(64)
    assert torch.isfinite(weights(agent)).all()
    assert not torch.equal(weights(agent), before)


class Counter(BaseCallback):
    """Counts its calls and stops training after ``limit`` steps of the vectorised environment."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.n_rollouts = 0

    def _on_rollout_end(self) -> None:
        self.n_rollouts += 1

    def _on_step(self) -> bool:
        return self.n_calls < self.limit


@every_algorithm
def test_callbacks_count_and_can_stop(name: str) -> None:
    counter = Counter(limit=10_000)
    make(name).learn(4 * 32 * 3, callback=counter)
    assert (counter.n_calls, counter.n_rollouts) == (timesteps(name, 4 * 32 * 3) // 4, 3)
    stopped = make(name).learn(10_000, callback=Counter(limit=7))
    assert stopped.num_timesteps == 4 * 7


@every_algorithm
def test_the_csv_logger_has_a_row_per_iteration(name: str, tmp_path: Path) -> None:
    agent = make(name, n_steps=32)
    logger = configure(str(tmp_path), ["csv"])
    agent.set_logger(logger)
    agent.learn(4 * 32 * 4, log_interval=1)
    logger.close()
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rollout = timesteps(name, 1)
    expected = [rollout, 2 * rollout, 3 * rollout, 4 * rollout]
    assert [int(row["time/total_timesteps"]) for row in rows] == expected
    assert [row["train/n_updates"] != "" for row in rows] == [False, True, True, True]
    assert all(0.0 <= float(row["rollout/ep_rew_mean"]) <= 20.0 for row in rows)
