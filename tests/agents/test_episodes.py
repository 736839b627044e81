"""Whole episodes, counted before they are seen, whatever their lengths."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

from agents import REINFORCE, episodes
from agents.episodes import Episodes, collect_episodes
from agents.errors import ConfigError
from agents.rollout_normalize import RolloutNormalize


class Script(gym.Env[Any, Any]):
    """Episodes of given lengths; the observation is (environment, episode, step)."""

    observation_space = spaces.Box(-1.0, 1e6, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, index: int, lengths: list[int]) -> None:
        self.index, self.lengths = index, itertools.cycle(lengths)
        self.episode = -1

    def _observe(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.n_steps], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.length, self.n_steps = next(self.lengths), 0
        self.episode += 1
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.abs(action).max() <= 1.0
        self.n_steps += 1
        return self._observe(), 1.0, self.n_steps >= self.length, False, {}


def scripts(*lengths: list[int]) -> VecEnv:
    makers = [lambda i=i, each=each: Script(i, each) for i, each in enumerate(lengths)]
    return VecMonitor(DummyVecEnv(makers))


class Watch(BaseCallback):
    """Keeps the buffer of each rollout and counts the calls."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.limit = limit
        self.rollouts: list[np.ndarray] = []
        self.n_starts = 0

    def _on_rollout_start(self) -> None:
        self.n_starts += 1

    def _on_step(self) -> bool:
        return self.n_calls < self.limit

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        assert buffer.full
        assert buffer.pos == buffer.buffer_size == len(buffer.rewards)
        self.rollouts.append(buffer.observations[:, 0].copy())


def make(env: VecEnv, n_steps: int, **kwargs: Any) -> REINFORCE:
    return REINFORCE("MlpPolicy", env, psi="reward_to_go", n_steps=n_steps, seed=1, **kwargs)


def collect(env: VecEnv, n_steps: int, **kwargs: Any) -> Episodes:
    """Return the first rollout of an agent."""
    agent = make(env, n_steps, **kwargs)
    _, callback = agent._setup_learn(10**6)
    collected = collect_episodes(agent, env, callback, n_steps)
    assert collected is not None
    return collected


def rows(*whole: tuple[int, int, int]) -> list[list[float]]:
    """Return the observations of episodes given as (environment, episode, length)."""
    return [[env, episode, step] for env, episode, n in whole for step in range(n)]


def test_what_begins_in_time_is_played_to_its_end() -> None:
    # Episodes begin at steps 0, 3, 5, 8 (which is too late), and at 0, 2, 4, 6 (too late).
    watch = Watch()
    agent = make(scripts([3, 2, 3, 9], [2, 2, 2, 9]), n_steps=6)
    agent.learn(1, callback=watch, log_interval=10**6)
    expected = rows((0, 0, 3), (0, 1, 2), (0, 2, 3), (1, 0, 2), (1, 1, 2), (1, 2, 2))
    np.testing.assert_array_equal(watch.rollouts[0], expected)
    assert watch.n_calls == 8
    assert agent.num_timesteps == 16
    assert agent.logger.name_to_value["rollout/episodes"] == 6
    assert agent.logger.name_to_value["rollout/unused_share"] == pytest.approx(2 / 16)


def test_one_step_asks_for_one_episode_each() -> None:
    collected = collect(scripts([5], [2], [1]), n_steps=1)
    expected = rows((0, 0, 5), (1, 0, 2), (2, 0, 1))
    np.testing.assert_array_equal(collected.flat(collected.observations), expected)
    assert collected.rewards.shape == (5, 3)
    assert collected.n_episodes == 3
    np.testing.assert_array_equal(collected.counted.sum(axis=0), [5, 2, 1])


def test_every_rollout_begins_with_new_episodes() -> None:
    watch = Watch()
    agent = make(scripts([4], [3]), n_steps=2)
    agent.learn(3 * 8, callback=watch)
    assert len(watch.rollouts) == watch.n_starts == 3
    for rollout in watch.rollouts:
        np.testing.assert_array_equal(rollout[:, 2], [0, 1, 2, 3, 0, 1, 2])
    # What each environment had begun meanwhile, its episode 1, is cut off and never seen.
    np.testing.assert_array_equal(watch.rollouts[1][:, 1], [2] * 7)


def test_environments_between_two_episodes_are_not_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    env = scripts([4], [2, 2])
    resets: list[None] = []
    reset = type(env).reset
    monkeypatch.setattr(type(env), "reset", lambda self: (resets.append(None), reset(self))[1])
    make(env, n_steps=4).learn(5 * 8)
    assert len(resets) == 1


def test_long_and_short_episodes_are_as_frequent_as_they_are_likely() -> None:
    """The first ones to finish, and those that fit into n_steps, would nearly all be short."""

    class Coin(Script):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            super().reset(**kwargs)
            self.length = 12 if self.np_random.random() < 0.5 else 1
            return self._observe(), {}

    env = VecMonitor(DummyVecEnv([lambda: Coin(0, [1]), lambda: Coin(1, [1])]))
    agent = make(env, n_steps=6)
    _, callback = agent._setup_learn(10**6)
    n_long = n_episodes = 0
    for _ in range(300):
        collected = collect_episodes(agent, env, callback, 6)
        assert collected is not None
        n_episodes += collected.n_episodes
        n_long += (int(collected.counted.sum()) - collected.n_episodes) // 11
    deviation = (n_long - 0.5 * n_episodes) / (0.25 * n_episodes) ** 0.5
    assert n_episodes > 900
    assert abs(deviation) < 4.0


def test_logged_means_are_of_what_counts() -> None:
    # While the first environment plays 20 steps, the second plays many short episodes.
    agent = make(scripts([20], [2]), n_steps=1)
    agent.learn(1)
    assert agent.ep_info_buffer is not None
    assert sorted(info["l"] for info in agent.ep_info_buffer) == [2, 20]


def test_an_episode_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "_LONGEST", 30)
    make(scripts([29], [3]), n_steps=40).learn(1)
    with pytest.raises(ConfigError, match=r"not ended after 30 steps.*max_episode_steps=1000"):
        make(scripts([5, 31], [3]), n_steps=40).learn(1)


def test_a_callback_ends_training_at_any_step() -> None:
    watch = Watch(limit=5)
    agent = make(scripts([4], [3]), n_steps=2)
    agent.learn(100, callback=watch)
    assert agent.num_timesteps == 2 * 5
    assert len(watch.rollouts) == 1
    assert agent._n_updates == 1


def test_callbacks_see_sb3s_local_variables() -> None:
    class Look(Watch):
        def _on_step(self) -> bool:
            names = {"self", "env", "actions", "clipped_actions", "new_obs", "rewards", "dones"}
            assert names | {"infos", "n_steps", "n_rollout_steps"} <= set(self.locals)
            assert self.locals["n_steps"] == self.n_calls - 1
            assert np.abs(self.locals["clipped_actions"]).max() <= 1.0
            return True

    make(scripts([4], [3]), n_steps=2, policy_kwargs={"log_std_init": 2.0}).learn(
        8, callback=Look()
    )


def test_statistics_are_updated_when_a_rollout_ends() -> None:
    env = RolloutNormalize(scripts([5], [3]), n_steps=2)
    agent = make(env, n_steps=4)
    counts: list[float] = []
    means: list[np.ndarray] = []

    class Count(Watch):
        def _on_step(self) -> bool:
            counts.append(float(env.obs_rms.count))
            means.append(env._mean.copy())
            return True

    agent.learn(2 * 12, callback=Count())
    # Rollouts of 6 steps: the second environment's second episode begins at step 3.
    assert len(counts) == 12
    assert counts == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0, 12.0] + [12.0] * 6, abs=1e-3)
    assert all(np.array_equal(mean, means[6]) for mean in means[6:])
    assert float(env.obs_rms.count) == pytest.approx(24.0, abs=1e-3)


def test_any_other_normaliser_is_left_to_itself() -> None:
    env = VecNormalize(scripts([5], [3]))
    make(env, n_steps=4).learn(1)
    assert float(env.obs_rms.count) == pytest.approx(2.0 + 2.0 * 6, abs=1e-3)  # SB3's own way


def test_dictionaries_of_observations() -> None:
    env = make_vec_env(lambda: SimpleMultiObsEnv(random_start=False, channel_last=False), 2)
    agent = REINFORCE("MultiInputPolicy", env, n_steps=3, seed=1)
    agent.learn(1, log_interval=10**6)
    buffer = agent.rollout_buffer
    n = int(buffer.buffer_size)
    assert {len(values) for values in buffer.observations.values()} == {n}
    assert buffer.episode_starts.sum() == agent.logger.name_to_value["rollout/episodes"] >= 2
    assert np.isfinite(buffer.returns).all()


def test_discrete_observations_and_actions() -> None:
    class Toy(gym.Env[Any, Any]):
        observation_space = spaces.Discrete(5)
        action_space = spaces.MultiBinary(3)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.n_steps = 0
            return 0, {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            assert np.shape(action) == (3,)
            self.n_steps += 1
            return self.n_steps, float(np.sum(action)), self.n_steps == 4, False, {}

    agent = REINFORCE("MlpPolicy", make_vec_env(Toy, 2), psi="return", n_steps=5, seed=1)
    watch = Watch()
    agent.learn(1, callback=watch)
    np.testing.assert_array_equal(watch.rollouts[0].flatten(), [0, 1, 2, 3] * 4)
    buffer = agent.rollout_buffer
    actions = buffer.actions.reshape(4, 4, 3).sum(axis=2)
    np.testing.assert_array_equal(buffer.rewards.reshape(4, 4), actions)


@pytest.mark.parametrize(("frequency", "expected"), [(-1, 1), (2, 3)])
def test_exploration_noise_is_drawn_as_often_as_asked(
    frequency: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(scripts([5], [4]), n_steps=2, use_sde=True, sde_sample_freq=frequency)
    draws: list[int] = []
    reset_noise = agent.policy.reset_noise
    monkeypatch.setattr(agent.policy, "reset_noise", lambda n: (draws.append(n), reset_noise(n))[1])
    agent.learn(1)
    assert draws == [2] * expected  # of a rollout of five steps


def test_squashed_actions_are_unscaled() -> None:
    class Wide(Script):
        action_space = spaces.Box(-5.0, 3.0, (2,), np.float32)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            seen.append(action)
            return super().step(np.zeros(2))

    seen: list[np.ndarray] = []
    env = VecMonitor(DummyVecEnv([lambda: Wide(0, [6])]))
    agent = make(env, 4, use_sde=True, policy_kwargs={"squash_output": True, "log_std_init": 1.0})
    agent.learn(1)
    stored = agent.rollout_buffer.actions.reshape(6, 2)
    assert np.abs(stored).max() <= 1.0
    np.testing.assert_allclose(np.array(seen), -5.0 + 4.0 * (stored + 1.0), atol=1e-5)


def test_the_log_probabilities_in_the_buffer_are_of_the_policy_that_acted() -> None:
    agent = make(scripts([4], [3]), n_steps=2, learning_rate=0.0)
    agent.learn(1)
    batch = next(iter(agent.rollout_buffer.get(batch_size=None)))
    with torch.no_grad():
        expected = agent.policy.get_distribution(batch.observations).log_prob(batch.actions)
    torch.testing.assert_close(batch.old_log_prob, expected)
