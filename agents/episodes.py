"""Collecting whole episodes with environments that run side by side, without favouring short ones.

Taking the first episodes that finish, or those that fit into a fixed number of steps, would take
short ones too often. Here an episode counts if it *begins* within the first ``n_steps`` steps of
its environment, which is decided before anything of it is seen, and a rollout ends when all that
count have ended. So the sum over episodes of anything is, in the mean, the mean number of episodes
times its expectation for one (Wald's equation), whatever the lengths.

What environments do while they wait for the longest episode does not count and is not used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from agents.errors import ConfigError
from agents.rollout_normalize import RolloutNormalize
from agents.sampling import action_sampler

__all__ = ["Episodes", "collect_episodes"]

_LONGEST = 100_000
"""Steps after which an episode is taken for one without an end."""


class Episodes(NamedTuple):
    """T steps of every environment, each from the start of an episode.

    Arrays have the shape ``(T, n_envs, …)``; Dict observations are a dictionary of such.
    """

    observations: Any
    actions: np.ndarray[Any, Any]
    rewards: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    """Bool: an episode begins with this step."""
    ends: np.ndarray[Any, Any]
    """Bool: the episode ends after this step, in either way."""
    counted: np.ndarray[Any, Any]
    """Bool: the step belongs to a whole episode that counts."""
    time_limits: list[tuple[int, int, Any]]
    """Step, environment and last observation of counted episodes that a time limit cut off."""

    @property
    def n_episodes(self) -> int:
        """How many episodes count."""
        return int((self.ends & self.counted).sum())

    def flat(self, array: Any) -> Any:
        """Return the entries that count, one episode after the other, shape ``(N, …)``."""
        if isinstance(array, dict):
            return {key: self.flat(value) for key, value in array.items()}
        return array.swapaxes(0, 1)[self.counted.T]


def collect_episodes(
    algorithm: OnPolicyAlgorithm, env: VecEnv, callback: BaseCallback, n_steps: int
) -> Episodes | None:
    """Play whole episodes with the policy of ``algorithm``.

    Environments in the middle of an episode are reset first: its beginning was another policy's.
    The logged means are of the episodes that count.

    :param algorithm: whose policy acts, and whose counters go on.
    :param env: the training environments.
    :param callback: called at the start and at every step, with SB3's local variables except
        ``obs_tensor``, ``values``, ``log_probs`` and ``rollout_buffer``.
    :param n_steps: episodes that begin within so many steps of their environment count.
    :return: None if the callback ended training.
    :raises ConfigError: an episode does not end.
    """
    algorithm.policy.set_training_mode(False)
    normalizer = unwrap_vec_normalize(env)
    if isinstance(normalizer, RolloutNormalize):
        normalizer.n_steps = None  # it is told below when the rollout ends
    callback.on_rollout_start()
    starts = algorithm._last_episode_starts
    if starts is None or not starts.all():
        algorithm._last_obs = env.reset()  # type: ignore[assignment]
        algorithm._last_episode_starts = np.ones(env.num_envs, dtype=bool)
    collector = _Collector(algorithm, env, callback, n_steps)
    while collector.counted.any():
        if not collector.advance():
            return None
    if isinstance(normalizer, RolloutNormalize):
        normalizer.end_rollout()
    return collector.episodes()


class _Collector:
    """One rollout while it is collected."""

    def __init__(
        self, algorithm: OnPolicyAlgorithm, env: VecEnv, callback: BaseCallback, n_steps: int
    ) -> None:
        self._algorithm = algorithm
        self._env = env
        self._callback = callback
        self._n_steps = n_steps
        self._sample = action_sampler(algorithm.policy)
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("observations", "actions", "rewards", "starts", "ends", "counted")
        }
        self._time_limits: list[tuple[int, int, Any]] = []
        self._begun = np.zeros(env.num_envs, dtype=int)
        self._locals: dict[str, Any] = {"self": algorithm, "env": env, "callback": callback}
        self.counted = np.ones(env.num_envs, dtype=bool)
        """Whether the episode under way in each environment counts."""

    def advance(self) -> bool:
        """Take one step in every environment; returns False if the callback ends training."""
        algorithm, step = self._algorithm, len(self._columns["rewards"])
        obs, starts = algorithm._last_obs, algorithm._last_episode_starts
        actions, applied = self._act(obs, step)
        new_obs, rewards, dones, infos = self._env.step(applied)
        algorithm.num_timesteps += self._env.num_envs
        self._locals |= {
            "n_rollout_steps": self._n_steps,
            "n_steps": step,
            "actions": actions,
            "clipped_actions": applied,
            "new_obs": new_obs,
            "rewards": rewards,
            "dones": dones,
            "infos": infos,
        }
        self._callback.update_locals(self._locals)
        if not self._callback.on_step():
            return False
        mine = [info if counts else {} for info, counts in zip(infos, self.counted, strict=True)]
        algorithm._update_info_buffer(mine, dones)
        row = (obs, actions, rewards, starts, dones, self.counted)
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)
        self._note_ends(step, dones, infos)
        algorithm._last_obs = new_obs  # type: ignore[assignment]
        algorithm._last_episode_starts = dones
        return True

    def _act(self, obs: Any, step: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the sampled actions and what the environments are given for them."""
        algorithm = self._algorithm
        policy, space = algorithm.policy, algorithm.action_space
        frequency = algorithm.sde_sample_freq
        if algorithm.use_sde and (step == 0 or (frequency > 0 and step % frequency == 0)):
            policy.reset_noise(self._env.num_envs)
        with torch.no_grad():
            actions = self._sample(obs).cpu().numpy().reshape(-1, *(space.shape or ()))
        if not isinstance(space, spaces.Box):
            return actions, actions
        if policy.squash_output:
            return actions, policy.unscale_action(actions)
        return actions, np.clip(actions, space.low, space.high)

    def _note_ends(
        self, step: int, dones: np.ndarray[Any, Any], infos: list[dict[str, Any]]
    ) -> None:
        for index in np.flatnonzero(dones & self.counted):
            info = infos[index]
            if info.get("TimeLimit.truncated", False) and "terminal_observation" in info:
                self._time_limits.append((step, int(index), info["terminal_observation"]))
        if dones.any():
            self._begun = np.where(dones, step + 1, self._begun)
            self.counted = np.where(dones, step + 1 < self._n_steps, self.counted)
        if step + 1 - self._begun[self.counted].min(initial=step + 1) >= _LONGEST:
            raise ConfigError(
                f"An episode has not ended after {_LONGEST} steps, and "
                f"{type(self._algorithm).__name__} learns from whole episodes. Give the "
                "environment a time limit: max_episode_steps=1000 of gymnasium.make or, on the "
                "command line, --env-kwargs max_episode_steps=1000."
            )

    def episodes(self) -> Episodes:
        """Return what was collected."""
        columns = self._columns
        observations = columns.pop("observations")
        if isinstance(observations[0], dict):
            stacked: Any = {
                key: np.stack([each[key] for each in observations]) for key in observations[0]
            }
        else:
            stacked = np.stack(observations)
        arrays = {name: np.stack(column) for name, column in columns.items()}
        return Episodes(stacked, time_limits=self._time_limits, **arrays)
