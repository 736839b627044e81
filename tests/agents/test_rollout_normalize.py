"""Statistics that stand still within a rollout, and are the samples' own after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from agents import NPG
from agents.rollout_normalize import RolloutNormalize

N_STEPS, N_ENVS, GAMMA = 8, 3, 0.9
SCALE = np.array([1.0, 100.0, 1e-3], np.float32)


class Scales(gym.Env[np.ndarray, np.ndarray]):
    """Observes numbers of very different size, pays large rewards, ends in both ways."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def _observe(self) -> np.ndarray:
        return (SCALE * (2.0 + self.np_random.standard_normal(3))).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        reward = 50.0 * float(self.np_random.random())
        ends = bool(self.np_random.random() < 0.2), self.n_steps >= 5
        return self._observe(), reward, *ends, {}


class Tape(VecEnvWrapper):
    """Keeps what the environments below said, before anything is scaled."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.first: Any = None
        self.observations: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.terminals: dict[tuple[int, int], np.ndarray] = {}

    def reset(self) -> Any:
        self.first = self.venv.reset()
        return self.first

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        for index in np.flatnonzero(dones):
            terminal = infos[index]["terminal_observation"].copy()
            self.terminals[len(self.dones), int(index)] = terminal
        self.observations.append(obs.copy())
        self.rewards.append(rewards.copy())
        self.dones.append(dones.copy())
        return obs, rewards, dones, infos

    def discounted(self) -> np.ndarray:
        """Return the running discounted returns, which start again after each episode."""
        running, all_of_them = np.zeros(N_ENVS), []
        for rewards, dones in zip(self.rewards, self.dones, strict=True):
            running = GAMMA * running + rewards
            all_of_them.append(running)
            running = np.where(dones, 0.0, running)
        return np.array(all_of_them)


def make(**kwargs: Any) -> tuple[RolloutNormalize, Tape]:
    tape = Tape(make_vec_env(Scales, N_ENVS, seed=0))
    return RolloutNormalize(tape, N_STEPS, gamma=GAMMA, **kwargs), tape


def step(env: VecEnv, n_steps: int) -> list[Any]:
    actions = np.zeros((N_ENVS, 1), np.float32)
    return [env.step(actions) for _ in range(n_steps)]


def moments(samples: np.ndarray) -> RunningMeanStd:
    """Return the statistics of all samples at once, beside SB3's pseudo-sample of N(0, 1)."""
    result = RunningMeanStd(shape=samples.shape[1:])
    result.update(samples)
    return result


def assert_moments(actual: RunningMeanStd, expected: RunningMeanStd) -> None:
    np.testing.assert_allclose(actual.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(actual.var, expected.var, rtol=1e-5)
    assert actual.count == pytest.approx(expected.count, rel=1e-12)


def test_a_rollout_of_unknown_length_ends_when_it_is_told_to() -> None:
    env, tape = make()
    env.n_steps = None
    env.reset()
    step(env, N_STEPS)
    env.end_rollout()
    count = env.obs_rms.count
    step(env, N_STEPS + 3)
    assert env.obs_rms.count == count
    env.end_rollout()
    assert_moments(env.obs_rms, moments(np.concatenate(tape.observations).astype(np.float64)))
    assert_moments(env.ret_rms, moments(tape.discounted().flatten()))
    before = env.obs_rms.mean.copy()
    env.end_rollout()  # nothing new, nothing changed
    np.testing.assert_array_equal(env.obs_rms.mean, before)


@pytest.mark.parametrize("n_rollouts", [1, 2, 5])
def test_statistics_are_those_of_all_samples(n_rollouts: int) -> None:
    env, tape = make()
    env.reset()
    step(env, n_rollouts * N_STEPS)
    assert len(tape.observations) == n_rollouts * N_STEPS
    samples = np.concatenate(tape.observations).astype(np.float64)
    assert_moments(env.obs_rms, moments(samples))
    assert_moments(env.ret_rms, moments(tape.discounted().ravel()))
    # Against numpy itself; the pseudo-sample weighs 1e-4 of one sample.
    np.testing.assert_allclose(env.obs_rms.mean, samples.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(env.ret_rms.mean, tape.discounted().mean(), rtol=1e-4)
    assert np.any(tape.dones)
    assert not np.all(tape.dones)


def test_statistics_are_sb3s_on_the_same_samples() -> None:
    env, _ = make()
    theirs = VecNormalize(make_vec_env(Scales, N_ENVS, seed=0), gamma=GAMMA)
    env.reset()
    theirs.reset()
    theirs.obs_rms = RunningMeanStd(shape=(3,))  # they count the very first observations
    step(env, 4 * N_STEPS)
    step(theirs, 4 * N_STEPS)
    assert_moments(env.obs_rms, theirs.obs_rms)
    assert_moments(env.ret_rms, theirs.ret_rms)
    np.testing.assert_allclose(env.returns, theirs.returns)


def test_a_rollout_is_scaled_by_the_statistics_before_it() -> None:
    env, tape = make(clip_obs=1.5, clip_reward=0.8)
    env.reset()
    step(env, N_STEPS)
    for rollout in range(1, 4):
        mean, var, ret_var = env.obs_rms.mean.copy(), env.obs_rms.var.copy(), env.ret_rms.var
        for index, (obs, rewards, *_) in enumerate(step(env, N_STEPS), rollout * N_STEPS):
            scaled = (tape.observations[index] - mean) / np.sqrt(var + 1e-8)
            np.testing.assert_allclose(obs, np.clip(scaled, -1.5, 1.5), rtol=1e-5, atol=1e-6)
            scaled = tape.rewards[index] / np.sqrt(ret_var + 1e-8)
            np.testing.assert_allclose(rewards, np.clip(scaled, -0.8, 0.8), rtol=1e-5)
            assert obs.dtype == rewards.dtype == np.float32
        assert not np.allclose(env.obs_rms.mean, mean)
        assert not np.allclose(env.ret_rms.var, ret_var)


@pytest.mark.parametrize("n_steps", [N_STEPS, None])
def test_the_first_rollout_is_scaled_as_sb3_does(n_steps: int | None) -> None:
    env, tape = make()
    env.n_steps = n_steps
    theirs = VecNormalize(make_vec_env(Scales, N_ENVS, seed=0), gamma=GAMMA)
    first = env.reset()
    theirs.reset()
    np.testing.assert_allclose(first, np.clip(tape.first, -10.0, 10.0), rtol=1e-6)
    theirs.obs_rms = RunningMeanStd(shape=(3,))  # they count the very first observations
    for ours, expected in zip(step(env, N_STEPS), step(theirs, N_STEPS), strict=True):
        for one, other in zip(ours[:3], expected[:3], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        for one, other in zip(ours[3], expected[3], strict=True):
            if "terminal_observation" in other:
                np.testing.assert_allclose(
                    one["terminal_observation"], other["terminal_observation"], rtol=1e-5, atol=1e-6
                )


def test_statistics_that_were_loaded_are_not_updated_within_a_rollout() -> None:
    env, _ = make()
    env.obs_rms.update(np.ones((5, 3)))
    env.ret_rms.update(np.arange(5.0))
    env.reset()
    step(env, N_STEPS - 1)
    assert env.obs_rms.count == env.ret_rms.count == 5.0001
    step(env, 1)
    assert env.obs_rms.count == 5.0001 + N_STEPS * N_ENVS


def test_an_agent_learns_from_one_scale_per_rollout() -> None:
    env, tape = make()
    agent = NPG("MlpPolicy", env, n_steps=N_STEPS, batch_size=24, n_critic_updates=1, seed=1)
    agent.learn(N_STEPS * N_ENVS)
    mean, std = env.obs_rms.mean.copy(), np.sqrt(env.obs_rms.var + 1e-8)
    agent.learn(N_STEPS * N_ENVS, reset_num_timesteps=False)
    seen = agent.rollout_buffer.observations.reshape(N_ENVS, N_STEPS, 3).swapaxes(0, 1)
    raw = np.array(tape.observations[N_STEPS:-1])
    # All but the observation that the first rollout ended with.
    np.testing.assert_allclose(seen[1:], np.clip((raw - mean) / std, -10, 10), rtol=1e-4, atol=1e-5)
    assert torch.isfinite(agent.policy.value_net.weight).all()


def test_terminal_observations_are_scaled_alike() -> None:
    env, tape = make()
    env.reset()
    step(env, N_STEPS)
    mean, std = env.obs_rms.mean.copy(), np.sqrt(env.obs_rms.var + 1e-8)
    n_ends = 0
    for index, (_, _, dones, infos) in enumerate(step(env, N_STEPS), N_STEPS):
        for i, info in enumerate(infos):
            assert ("terminal_observation" in info) == dones[i]
            if dones[i]:
                expected = np.clip((tape.terminals[index, i] - mean) / std, -10.0, 10.0)
                np.testing.assert_allclose(info["terminal_observation"], expected, rtol=1e-5)
                assert info["terminal_observation"].dtype == np.float32
                n_ends += 1
    assert n_ends > 1


def test_the_originals_can_be_asked_for() -> None:
    env, tape = make()
    env.reset()
    np.testing.assert_array_equal(env.get_original_obs(), tape.first)
    step(env, N_STEPS + 1)
    np.testing.assert_array_equal(env.get_original_obs(), tape.observations[-1])
    np.testing.assert_array_equal(env.get_original_reward(), tape.rewards[-1])


def test_without_training_statistics_stay() -> None:
    env, tape = make()
    env.reset()
    step(env, N_STEPS)
    env.training = False
    mean, var, ret_var = env.obs_rms.mean.copy(), env.obs_rms.var.copy(), env.ret_rms.var.copy()
    results = step(env, 3 * N_STEPS)
    np.testing.assert_array_equal(env.obs_rms.mean, mean)
    np.testing.assert_array_equal(env.obs_rms.var, var)
    np.testing.assert_array_equal(env.ret_rms.var, ret_var)
    expected = (tape.observations[-1] - mean) / np.sqrt(var + 1e-8)
    np.testing.assert_allclose(results[-1][0], np.clip(expected, -10, 10), rtol=1e-4, atol=1e-6)


def test_training_can_be_off_from_the_start() -> None:
    env, _ = make(training=False)
    env.reset()
    step(env, 2 * N_STEPS)
    assert env.obs_rms.count == env.ret_rms.count == 1e-4


def test_observations_alone() -> None:
    env, tape = make(norm_reward=False)
    env.reset()
    results = step(env, 2 * N_STEPS)
    np.testing.assert_array_equal([rewards for _, rewards, *_ in results], tape.rewards)
    assert np.abs(np.array([obs for obs, *_ in results])[N_STEPS:]).mean() < 2.0


def test_rewards_alone() -> None:
    env, tape = make(norm_obs=False)
    np.testing.assert_array_equal(env.reset(), tape.first)
    ret_var = None
    for index in range(2 * N_STEPS):
        if index == N_STEPS:
            ret_var = float(env.ret_rms.var)
        ((obs, rewards, dones, infos),) = step(env, 1)
        np.testing.assert_array_equal(obs, tape.observations[index])
        for i in np.flatnonzero(dones):
            terminal = infos[i]["terminal_observation"]
            np.testing.assert_array_equal(terminal, tape.terminals[index, i])
    assert ret_var is not None
    expected = np.clip(tape.rewards[-1] / np.sqrt(ret_var + 1e-8), -10, 10)
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    assert_moments(env.ret_rms, moments(tape.discounted().ravel()))


def test_reset_forgets_the_rollout_under_way() -> None:
    env, tape = make()
    env.reset()
    step(env, N_STEPS)
    count = env.obs_rms.count
    step(env, N_STEPS - 1)
    assert env.returns.any()
    env.reset()
    assert not env.returns.any()
    assert env.obs_rms.count == count
    step(env, 1)
    assert env.obs_rms.count == count  # not N_STEPS since the reset
    step(env, N_STEPS - 1)
    kept = np.concatenate(tape.observations[:N_STEPS] + tape.observations[-N_STEPS:])
    assert_moments(env.obs_rms, moments(kept.astype(np.float64)))


def test_sb3s_own_wrapper_scales_the_same() -> None:
    settings = {"clip_obs": 2.0, "clip_reward": 0.5, "epsilon": 1e-3}
    env, tape = make(**settings)
    env.reset()
    step(env, 2 * N_STEPS)
    plain = env.as_vec_normalize()
    assert type(plain) is VecNormalize
    assert plain.venv is tape
    raw, rewards = np.concatenate(tape.observations), np.concatenate(tape.rewards)
    np.testing.assert_allclose(plain.normalize_obs(raw), env._scaled(raw), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain.normalize_obs(raw), env.normalize_obs(raw))
    np.testing.assert_array_equal(plain.normalize_reward(rewards), env.normalize_reward(rewards))
    assert np.abs(plain.normalize_obs(raw)).max() == 2.0
    assert {name: getattr(plain, name) for name in settings} == settings
    assert plain.gamma == GAMMA


@pytest.mark.parametrize("setting", ["training", "norm_obs", "norm_reward"])
def test_sb3s_own_wrapper_has_the_same_switches(setting: str) -> None:
    plain = make(**{setting: False})[0].as_vec_normalize()
    switches = {name: getattr(plain, name) for name in ("training", "norm_obs", "norm_reward")}
    assert switches == {"training": True, "norm_obs": True, "norm_reward": True} | {setting: False}


def test_sb3_saves_and_loads_both(tmp_path: Path) -> None:
    env, tape = make()
    env.reset()
    step(env, N_STEPS)
    raw = tape.observations[-1]
    env.as_vec_normalize().save(str(tmp_path / "plain.pkl"))
    env.save(str(tmp_path / "ours.pkl"))
    for name, cls in (("plain", VecNormalize), ("ours", RolloutNormalize)):
        loaded = VecNormalize.load(str(tmp_path / f"{name}.pkl"), make_vec_env(Scales, N_ENVS))
        assert type(loaded) is cls
        np.testing.assert_array_equal(loaded.normalize_obs(raw), env.normalize_obs(raw))
    loaded.reset()
    ((obs, *_),) = step(loaded, 1)
    expected = loaded.normalize_obs(loaded.get_original_obs())
    np.testing.assert_allclose(obs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm_obs", [True, False])
def test_dictionaries_are_refused(norm_obs: bool) -> None:
    venv = DummyVecEnv([lambda: SimpleMultiObsEnv(random_start=False)])
    with pytest.raises(ValueError, match="Box observations; use SB3's VecNormalize"):
        RolloutNormalize(venv, N_STEPS, norm_obs=norm_obs)
