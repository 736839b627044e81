"""Collecting experience fast, with what SB3 promises about it kept.

SB3 asks the whole policy for every step: actions, values and log-probabilities. Only the actions
are needed to step on. Here the actor alone runs per step, by hand where it is a common MLP, and
values and log-probabilities of the rollout are computed in one batch afterwards. Actions are drawn
from the same random stream, so that the same seed gives the same transitions either way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from agents.action_value import ActionValuePolicy
from agents.mlp_structure import MLPStructure, actor_mlp, critic_mlp
from agents.policy_model import action_distribution
from agents.sampling import acts_as_sb3, mlp_sampler

__all__ = ["FastRollouts", "collect_rollouts"]


def collect_rollouts(
    algorithm: OnPolicyAlgorithm,
    env: VecEnv,
    callback: BaseCallback,
    rollout_buffer: RolloutBuffer,
    n_rollout_steps: int,
) -> bool:
    """Fill ``rollout_buffer`` as ``OnPolicyAlgorithm.collect_rollouts`` does.

    A policy that is not a common MLP or that acts or values in a way of its own, gSDE, Dict
    observations and buffer classes of one's own take SB3's method itself. Callbacks see each step
    with SB3's local variables except ``obs_tensor``, ``values`` and ``log_probs``; the last two
    exist when the rollout ends, for all its steps at once.

    :param algorithm: whose policy acts.
    :param env: the training environments.
    :param callback: called at every step, and at the rollout's start and end.
    :param rollout_buffer: reset and filled.
    :param n_rollout_steps: steps per environment.
    :return: False if the callback ended training.
    """
    mlp = actor_mlp(algorithm.policy) if acts_as_sb3(algorithm.policy) else None
    if mlp is None or algorithm.use_sde or type(rollout_buffer) is not RolloutBuffer:
        return OnPolicyAlgorithm.collect_rollouts(
            algorithm, env, callback, rollout_buffer, n_rollout_steps
        )
    algorithm.policy.set_training_mode(False)
    rollout_buffer.reset()
    callback.on_rollout_start()
    rollout = _Rollout(algorithm, mlp, env, callback, rollout_buffer)
    for step in range(n_rollout_steps):
        if not rollout.advance(step, n_rollout_steps):
            return False
    rollout.finish()
    callback.on_rollout_end()
    return True


class FastRollouts(OnPolicyAlgorithm):
    """An on-policy algorithm that collects with :func:`collect_rollouts`.

    ``class MyAlgo(FastRollouts, stable_baselines3.PPO)`` keeps SB3's update;
    ``class MyAlgo(FastRollouts)`` brings one of its own.
    """

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fill ``rollout_buffer`` as :func:`collect_rollouts` says."""
        return collect_rollouts(self, env, callback, rollout_buffer, n_rollout_steps)


class _Rollout:
    """One rollout on its way into the buffer."""

    def __init__(
        self,
        algorithm: OnPolicyAlgorithm,
        actor: MLPStructure,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
    ) -> None:
        self._algorithm = algorithm
        self._actor = actor
        self._env = env
        self._callback = callback
        self._buffer = rollout_buffer
        self._sample = mlp_sampler(algorithm.policy, actor)
        self._locals: dict[str, Any] = {
            "self": algorithm,
            "env": env,
            "callback": callback,
            "rollout_buffer": rollout_buffer,
        }
        self._time_limits: list[tuple[int, int, np.ndarray[Any, Any]]] = []
        space = algorithm.action_space
        self._action_shape: tuple[int, ...] = space.shape or ()
        self._bounds = (space.low, space.high) if isinstance(space, spaces.Box) else None
        self._obs_shape = rollout_buffer.observations.shape[1:]
        self._action_rows = rollout_buffer.actions.shape[1:]

    def advance(self, step: int, n_rollout_steps: int) -> bool:
        """Take one step in every environment; returns False if the callback ends training."""
        algorithm, buffer = self._algorithm, self._buffer
        obs = algorithm._last_obs
        if not isinstance(obs, np.ndarray):
            raise RuntimeError("the environments were not reset before the rollout")
        with torch.no_grad():
            actions = self._sample(obs).cpu().numpy().reshape(-1, *self._action_shape)
        clipped_actions = actions
        if self._bounds is not None:  # np.clip takes three times as long on so few numbers
            low, high = self._bounds
            clipped_actions = np.minimum(np.maximum(actions, low), high)
        new_obs, rewards, dones, infos = self._env.step(clipped_actions)
        algorithm.num_timesteps += self._env.num_envs
        self._locals.update(
            n_rollout_steps=n_rollout_steps,
            n_steps=step,
            actions=actions,
            clipped_actions=clipped_actions,
            new_obs=new_obs,
            rewards=rewards,
            dones=dones,
            infos=infos,
        )
        self._callback.update_locals(self._locals)
        if not self._callback.on_step():
            return False
        algorithm._update_info_buffer(infos, dones)
        if dones.any():
            self._note_time_limits(step, dones, infos)
        buffer.observations[step] = obs.reshape(self._obs_shape)
        buffer.actions[step] = actions.reshape(self._action_rows)
        buffer.rewards[step] = rewards
        buffer.episode_starts[step] = algorithm._last_episode_starts
        buffer.pos = step + 1
        algorithm._last_obs = new_obs  # type: ignore[assignment]
        algorithm._last_episode_starts = dones
        return True

    def _note_time_limits(
        self, step: int, dones: np.ndarray[Any, Any], infos: list[dict[str, Any]]
    ) -> None:
        """Remember the last observation of episodes that were cut off by a time limit."""
        for index in np.flatnonzero(dones):
            info = infos[index]
            if info.get("TimeLimit.truncated", False) and "terminal_observation" in info:
                self._time_limits.append((step, int(index), info["terminal_observation"]))

    @torch.no_grad()
    def finish(self) -> None:
        """Compute values, log-probabilities and advantages of the whole rollout."""
        algorithm, buffer = self._algorithm, self._buffer
        policy = algorithm.policy
        shape = buffer.rewards.shape
        observations = _tensor(
            buffer.observations.reshape(-1, *buffer.observations.shape[2:]), policy
        )
        actions = _tensor(buffer.actions.reshape(-1, buffer.action_dim), policy)
        # The types that SB3's own buffer hands to ``log_prob``.
        discrete = isinstance(algorithm.action_space, spaces.Discrete)
        actions = actions.long().flatten() if discrete else actions.float()
        values = _values(policy, observations, actions)
        outputs = self._actor.outputs(self._actor.inputs(policy, observations))
        log_probs = action_distribution(policy, outputs).log_prob(actions)
        buffer.values[:] = values.reshape(shape).cpu().numpy()
        buffer.log_probs[:] = log_probs.reshape(shape).cpu().numpy()
        buffer.full = True
        if self._time_limits:
            self._bootstrap(policy)
        last_obs, dones = algorithm._last_obs, algorithm._last_episode_starts
        if not isinstance(last_obs, np.ndarray) or dones is None:
            raise RuntimeError("the rollout took no step")
        last_values = _values(policy, _tensor(last_obs, policy))
        _compute_returns_and_advantages(buffer, last_values.flatten().cpu().numpy(), dones)
        n_steps = self._locals["n_rollout_steps"]
        self._locals.update(n_steps=n_steps, values=values, log_probs=log_probs)
        self._callback.update_locals(self._locals)

    def _bootstrap(self, policy: ActorCriticPolicy) -> None:
        """Add ``γ V(s')`` where a time limit cut the episode off: its future was not zero."""
        steps, indices, observations = zip(*self._time_limits, strict=True)
        values = _values(policy, _tensor(np.stack(observations), policy)).flatten()
        gamma = self._algorithm.gamma
        self._buffer.rewards[list(steps), list(indices)] += gamma * values.cpu().numpy()


def _values(
    policy: ActorCriticPolicy, observations: torch.Tensor, actions: torch.Tensor | None = None
) -> torch.Tensor:
    if actions is not None and isinstance(policy, ActionValuePolicy):
        return policy.action_values(observations, actions)
    mlp = critic_mlp(policy)
    if mlp is None:
        return policy.predict_values(observations)
    return mlp.outputs(mlp.inputs(policy, observations))


def _compute_returns_and_advantages(
    buffer: RolloutBuffer, last_values: np.ndarray[Any, Any], dones: np.ndarray[Any, Any]
) -> None:
    """Do what SB3's ``RolloutBuffer.compute_returns_and_advantage`` does, in the same arithmetic.

    Only the recurrence is left to a loop over the steps, which with two environments is a tenth
    of a rollout's overhead.
    """
    going_on = 1.0 - np.concatenate([buffer.episode_starts[1:], dones[None].astype(np.float32)])
    next_values = np.concatenate([buffer.values[1:], last_values[None]])
    residuals = buffer.rewards + buffer.gamma * next_values * going_on - buffer.values
    decays = buffer.gamma * buffer.gae_lambda * going_on
    following = np.zeros_like(last_values)
    for residual, decay, advantages in zip(
        residuals[::-1], decays[::-1], buffer.advantages[::-1], strict=True
    ):
        np.multiply(decay, following, out=advantages)
        np.add(residual, advantages, out=advantages)
        following = advantages
    buffer.returns = buffer.advantages + buffer.values


def _tensor(array: np.ndarray[Any, Any], policy: ActorCriticPolicy) -> torch.Tensor:
    return torch.as_tensor(array, device=policy.device)
