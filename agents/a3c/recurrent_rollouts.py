"""Collecting segments with a policy that has a memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from agents.a3c.lstm_policy import LstmPolicy, LstmState

__all__ = ["collect_recurrent_rollouts"]


@torch.no_grad()
def collect_recurrent_rollouts(
    algorithm: OnPolicyAlgorithm,
    policy: LstmPolicy,
    env: VecEnv,
    callback: BaseCallback,
    buffer: RolloutBuffer,
    n_steps: int,
    state: LstmState,
) -> tuple[bool, LstmState]:
    """Fill ``buffer`` as ``OnPolicyAlgorithm.collect_rollouts`` does, carrying the state along.

    :param algorithm: whose steps are counted.
    :param policy: the algorithm's.
    :param state: after the step before; where an episode has just begun it is forgotten.
    :return: False if the callback ended training, and the state after the last step.
    """
    policy.set_training_mode(False)
    buffer.reset()
    callback.on_rollout_start()
    seen: dict[str, Any] = {
        "self": algorithm,
        "env": env,
        "callback": callback,
        "rollout_buffer": buffer,
        "n_rollout_steps": n_steps,
    }
    for step in range(n_steps):
        obs, starts = algorithm._last_obs, algorithm._last_episode_starts
        if obs is None or starts is None:
            raise RuntimeError("the environments were not reset before the rollout")
        actions_tensor, values, log_probs, state = policy(
            _to_device(obs, policy), state, torch.as_tensor(starts, device=policy.device)
        )
        actions = actions_tensor.cpu().numpy()
        clipped_actions = _clip(actions, algorithm.action_space)
        new_obs, rewards, dones, infos = env.step(clipped_actions)
        algorithm.num_timesteps += env.num_envs
        seen.update(n_steps=step, actions=actions, clipped_actions=clipped_actions)
        seen.update(new_obs=new_obs, rewards=rewards, dones=dones, infos=infos)
        seen.update(values=values, log_probs=log_probs)
        callback.update_locals(seen)
        if not callback.on_step():
            return False, state
        algorithm._update_info_buffer(infos, dones)
        _bootstrap(algorithm, policy, state, rewards, dones, infos)
        if isinstance(algorithm.action_space, spaces.Discrete):
            actions = actions.reshape(-1, 1)
        buffer.add(obs, actions, rewards, starts, values, log_probs)  # type: ignore[arg-type]
        algorithm._last_obs = new_obs  # type: ignore[assignment]
        algorithm._last_episode_starts = dones
    dones = _not_none(algorithm._last_episode_starts)
    last_values = policy.predict_values(
        _to_device(_not_none(algorithm._last_obs), policy),
        state,
        torch.as_tensor(dones, device=policy.device),
    )
    buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)
    callback.update_locals(seen)
    callback.on_rollout_end()
    return True, state


def _bootstrap(
    algorithm: OnPolicyAlgorithm,
    policy: LstmPolicy,
    state: LstmState,
    rewards: np.ndarray[Any, Any],
    dones: np.ndarray[Any, Any],
    infos: list[dict[str, Any]],
) -> None:
    """Add ``γ V(s')`` where a time limit cut the episode off: its future was not zero."""
    for index in np.flatnonzero(dones):
        info = infos[index]
        if not info.get("TimeLimit.truncated", False) or "terminal_observation" not in info:
            continue
        obs, _ = policy.obs_to_tensor(info["terminal_observation"])
        own = slice(index, index + 1)
        going_on = torch.zeros(1, device=policy.device)
        value = policy.predict_values(obs, (state[0][own], state[1][own]), going_on)
        rewards[index] += algorithm.gamma * value.item()


def _clip(actions: Any, space: spaces.Space[Any]) -> Any:
    return np.clip(actions, space.low, space.high) if isinstance(space, spaces.Box) else actions


def _to_device(obs: Any, policy: LstmPolicy) -> Any:
    return obs_as_tensor(obs, policy.device)


def _not_none(value: Any) -> Any:
    if value is None:
        raise RuntimeError("the rollout took no step")
    return value
