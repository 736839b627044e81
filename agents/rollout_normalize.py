"""VecNormalize whose statistics stand still while a rollout is collected."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

__all__ = ["RolloutNormalize"]


class RolloutNormalize(VecNormalize):
    """Scales observations and rewards as SB3's ``VecNormalize``, updating once per rollout.

    SB3 updates its running mean and variance at every step, so that one batch holds observations
    on many scales; here the whole rollout is on one, and the update is one operation on all its
    observations instead of one per step. Only the very first rollout, before which there are no
    statistics, is scaled as SB3 does, so that nothing is learnt on raw numbers. Statistics after a
    rollout are those of the same samples, up to rounding.

    :param venv: the environments; Box observations.
    :param n_steps: steps per environment in a rollout, after which the statistics are updated;
        None updates when :meth:`end_rollout` is called, for rollouts whose length is not known
        beforehand.
    :param kwargs: as in ``VecNormalize``.
    """

    def __init__(self, venv: VecEnv, n_steps: int | None, **kwargs: Any) -> None:
        super().__init__(venv, **kwargs)
        if not isinstance(self.observation_space, spaces.Box):
            raise ValueError("RolloutNormalize needs Box observations; use SB3's VecNormalize")
        self.n_steps = n_steps
        self._observations: list[np.ndarray[Any, Any]] = []
        self._discounted: list[np.ndarray[Any, Any]] = []
        self._n_steps_collected = 0
        self._without_statistics = True
        self._freeze()

    def _freeze(self) -> None:
        """Take over the statistics that the next rollout is scaled with."""
        obs_rms = self._moments()
        self._mean = obs_rms.mean
        self._inverse_std = 1.0 / np.sqrt(obs_rms.var + self.epsilon)
        self._reward_scale = float(1.0 / np.sqrt(self.ret_rms.var + self.epsilon))

    def _has_statistics(self) -> bool:
        return bool(self.ret_rms.count >= 1.0)  # SB3 starts at 1e-4

    def _moments(self) -> RunningMeanStd:
        # SB3 declares one and keeps a dict of them for Dict observations.
        moments: RunningMeanStd | dict[str, RunningMeanStd] = self.obs_rms if self.norm_obs else {}
        if isinstance(moments, RunningMeanStd):
            return moments
        return RunningMeanStd(shape=())

    def reset(self) -> np.ndarray[Any, Any]:
        """Reset all environments; a rollout under way is forgotten."""
        self.old_obs = obs = _array(self.venv.reset())
        self.returns = np.zeros(self.num_envs)
        self._observations.clear()
        self._discounted.clear()
        self._n_steps_collected = 0
        self._without_statistics = not self._has_statistics()
        self._freeze()
        return self._scaled(obs)

    def step_wait(self) -> VecEnvStepReturn:
        """Return scaled observations and rewards; the last step of a rollout updates."""
        venv_obs, rewards, dones, infos = self.venv.step_wait()
        obs = _array(venv_obs)
        self.old_obs, self.old_reward = obs, rewards
        if self.training:
            self._note(obs, rewards)
        scaled_obs, scaled_rewards = self._scaled(obs), rewards
        if self.norm_reward:
            scaled_rewards = _clip(rewards * self._reward_scale, self.clip_reward)
        if dones.any():
            for index in np.flatnonzero(dones):
                if "terminal_observation" in infos[index]:
                    terminal = infos[index]["terminal_observation"]
                    infos[index]["terminal_observation"] = self._scaled(terminal)
            self.returns = np.where(dones, 0.0, self.returns)
        if self._n_steps_collected == self.n_steps:
            self.end_rollout()
        return scaled_obs, scaled_rewards.astype(np.float32, copy=False), dones, infos

    def _note(self, obs: np.ndarray[Any, Any], rewards: np.ndarray[Any, Any]) -> None:
        """Keep what the statistics are updated with; without statistics yet, do it now."""
        self.returns = self.returns * self.gamma + rewards
        self._observations.append(obs)
        self._discounted.append(self.returns)
        self._n_steps_collected += 1
        if self._without_statistics:
            self._update()

    def _scaled(self, obs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not self.norm_obs:
            return obs
        scaled = np.subtract(obs, self._mean)
        scaled *= self._inverse_std
        return _clip(scaled, self.clip_obs).astype(np.float32)

    def end_rollout(self) -> None:
        """Update the statistics with all steps since the last update."""
        if self._n_steps_collected == 0:
            return
        self._update()
        self._n_steps_collected = 0
        self._without_statistics = False

    def _update(self) -> None:
        if self._discounted:
            if self.norm_obs:
                self.obs_rms.update(np.concatenate(self._observations))
            self.ret_rms.update(np.concatenate(self._discounted))
        self._observations.clear()
        self._discounted.clear()
        self._freeze()

    def as_vec_normalize(self) -> VecNormalize:
        """Return SB3's own wrapper with the same statistics and settings, for others to load."""
        plain = VecNormalize(
            self.venv,
            training=self.training,
            norm_obs=self.norm_obs,
            norm_reward=self.norm_reward,
            clip_obs=self.clip_obs,
            clip_reward=self.clip_reward,
            gamma=self.gamma,
            epsilon=self.epsilon,
        )
        plain.ret_rms = self.ret_rms
        if self.norm_obs:
            plain.obs_rms = self.obs_rms
        return plain


def _clip(values: np.ndarray[Any, Any], largest: float) -> np.ndarray[Any, Any]:
    """Clip in place; ``np.clip`` takes three times as long on so few numbers."""
    np.maximum(values, -largest, out=values)
    np.minimum(values, largest, out=values)
    return values


def _array(observations: VecEnvObs) -> np.ndarray[Any, Any]:
    if not isinstance(observations, np.ndarray):
        raise TypeError(f"Box observations are arrays, got {type(observations).__name__}")
    return observations
