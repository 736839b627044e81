"""Collecting trajectories with a behaviour policy, with SB3's promises to callbacks kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from agents.behavior import Behavior
from agents.trajectory_buffer import TrajectoryBuffer
from agents.transitions import Array, Observations

__all__ = ["BehaviorRollouts"]


class BehaviorRollouts:
    """Lets a behaviour policy act and keeps what it did.

    Where the environments were reset by someone else (a second ``learn``, a checkpoint of
    ``zoo.train``), the trajectories before it are forgotten: what goes on from there is the same
    as in a new process, which has none.

    :param behavior: the behaviour policy.
    :param buffer: where the trajectories are kept.
    """

    def __init__(self, behavior: Behavior, buffer: TrajectoryBuffer) -> None:
        self._behavior = behavior
        self._buffer = buffer
        self._next_obs: Any = None

    def collect(
        self,
        algorithm: OnPolicyAlgorithm,
        env: VecEnv,
        callback: BaseCallback,
        n_rollout_steps: int,
    ) -> bool:
        """Take ``n_rollout_steps`` steps in each environment.

        Callbacks see the local variables of SB3's ``collect_rollouts`` except ``values``;
        ``log_probs`` are those of the behaviour policy.

        :param algorithm: whose policy is the target policy.
        :param env: the training environments.
        :param callback: called at every step, and at the rollout's start and end.
        :param n_rollout_steps: steps per environment.
        :return: False if the callback ended training.
        """
        policy = algorithm.policy
        policy.set_training_mode(False)
        shown: dict[str, Any] = {"self": algorithm, "env": env, "callback": callback}
        shown.update(rollout_buffer=self._buffer, n_rollout_steps=n_rollout_steps)
        callback.on_rollout_start()
        if algorithm._last_obs is not self._next_obs:
            self._buffer.clear()
        if algorithm.use_sde:
            policy.reset_noise(env.num_envs)
        for n_steps in range(n_rollout_steps):
            period = algorithm.sde_sample_freq if algorithm.use_sde else -1
            if period > 0 and n_steps % period == 0:
                policy.reset_noise(env.num_envs)
            if not self._step(algorithm, env, callback, shown | {"n_steps": n_steps}):
                return False
        callback.update_locals(shown)
        callback.on_rollout_end()
        return True

    def pass_time(
        self,
        algorithm: OnPolicyAlgorithm,
        env: VecEnv,
        callback: BaseCallback,
        n_rollout_steps: int,
    ) -> bool:
        """Count steps and call callbacks as :meth:`collect`, but let nobody act.

        For learning from a data set, in which all the steps have been taken.
        """
        shown: dict[str, Any] = {"self": algorithm, "env": env, "callback": callback}
        shown.update(rollout_buffer=self._buffer, n_rollout_steps=n_rollout_steps)
        shown.update(dones=np.zeros(env.num_envs, bool), infos=[{} for _ in range(env.num_envs)])
        callback.on_rollout_start()
        for n_steps in range(n_rollout_steps):
            algorithm.num_timesteps += env.num_envs
            callback.update_locals(shown | {"n_steps": n_steps})
            if not callback.on_step():
                return False
        callback.on_rollout_end()
        return True

    def _step(
        self,
        algorithm: OnPolicyAlgorithm,
        env: VecEnv,
        callback: BaseCallback,
        shown: dict[str, Any],
    ) -> bool:
        obs: Any = algorithm._last_obs
        with torch.no_grad():
            drawn = self._behavior.act(algorithm.policy, obs_as_tensor(obs, algorithm.device))
        actions, log_probs = (tensor.cpu().numpy() for tensor in drawn)
        actions = actions.reshape(-1, *(algorithm.action_space.shape or ()))
        applied = _applied(algorithm, actions)
        new_obs, rewards, dones, infos = env.step(applied)
        algorithm.num_timesteps += env.num_envs
        callback.update_locals(
            shown
            | {
                "actions": actions,
                "clipped_actions": applied,
                "log_probs": log_probs,
                "new_obs": new_obs,
                "rewards": rewards,
                "dones": dones,
                "infos": infos,
            }
        )
        if not callback.on_step():
            return False
        algorithm._update_info_buffer(infos, dones)
        truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        self._buffer.add(
            obs,
            actions,
            log_probs,
            rewards,
            dones & ~truncated,
            dones & truncated,
            _before_reset(new_obs, dones, infos),  # type: ignore[arg-type]
        )
        algorithm._last_obs = self._next_obs = new_obs  # type: ignore[assignment]
        algorithm._last_episode_starts = dones
        return True


def _applied(algorithm: OnPolicyAlgorithm, actions: Array) -> Array:
    """Return the actions as the environments take them."""
    space = algorithm.action_space
    if not isinstance(space, spaces.Box):
        return actions
    if algorithm.policy.squash_output:
        return algorithm.policy.unscale_action(actions)
    clipped: Array = np.clip(actions, space.low, space.high)
    return clipped


def _before_reset(new_obs: Observations, dones: Array, infos: list[dict[str, Any]]) -> Observations:
    """Return the observations that the steps led to; finished environments show the next start."""
    if not dones.any():
        return new_obs
    last = {key: np.array(values) for key, values in _items(new_obs)}
    for env in np.flatnonzero(dones):
        terminal = infos[env].get("terminal_observation")
        if terminal is not None:
            for key, values in _items(terminal):
                last[key][env] = values
    return last if isinstance(new_obs, dict) else last[""]


def _items(observations: Any) -> list[tuple[str, Any]]:
    return list(observations.items()) if isinstance(observations, dict) else [("", observations)]
