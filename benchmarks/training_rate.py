"""Steps per second of whole training, ours and the peers'."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import agents
from agents.registry import algorithm_class
from agents.rollout_normalize import RolloutNormalize
from zoo.config import resolve_config
from zoo.envs import choose_backend, make_vec_env

__all__ = [
    "PEER_TRPO",
    "default_model",
    "default_rate",
    "rate_of",
    "shared_a2c",
    "shared_ppo",
    "shared_trpo",
]

# RL Zoo's hyperparams/trpo.yml, mujoco-defaults.
PEER_TRPO: dict[str, Any] = {
    "n_steps": 1024,
    "batch_size": 128,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "learning_rate": 1e-3,
    "target_kl": 0.01,
    "cg_damping": 0.1,
    "n_critic_updates": 20,
}


def default_model(algo: str, env_id: str, env_threads: int) -> Any:
    """Return an agent in our default configuration, as ``zoo.train`` makes it."""
    torch.set_num_threads(1)
    config = resolve_config(algo, env_id, seed=0)
    backend = choose_backend("auto", env_id)
    env: Any = VecMonitor(
        make_vec_env(env_id, config.n_envs, 0, backend, config.env_kwargs, env_threads)
    )
    if config.normalize is not None:
        env = RolloutNormalize(env, config.agent["n_steps"], **config.normalize)
    return algorithm_class(algo)(
        policy=config.policy, env=env, seed=0, device="cpu", **config.agent_kwargs()
    )


def default_rate(algo: str, env_id: str, n_timesteps: int, env_threads: int) -> Callable[[], float]:
    """Return a measurement of our default configuration."""
    return lambda: _timed(default_model(algo, env_id, env_threads), n_timesteps)


def rate_of(
    make: Callable[..., Any],
    env_id: str,
    n_envs: int,
    n_timesteps: int,
    *,
    backend: str = "dummy",
    frozen_statistics: bool = False,
    **kwargs: Any,
) -> Callable[[], float]:
    """Return a measurement of one algorithm class with given hyperparameters.

    :param frozen_statistics: normalise once per rollout (ours) instead of at every step (SB3).
    """

    def measure() -> float:
        torch.set_num_threads(1)
        env: Any = VecMonitor(make_vec_env(env_id, n_envs, 0, backend, None, 1))
        env = RolloutNormalize(env, kwargs["n_steps"]) if frozen_statistics else VecNormalize(env)
        return _timed(make("MlpPolicy", env, seed=0, device="cpu", **kwargs), n_timesteps)

    return measure


def shared_trpo(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and sb3-contrib's TRPO with identical hyperparameters (2 environments)."""
    ours = PEER_TRPO | {
        "cg_max_iters": 25,
        "line_search_max_backtracks": 9,
        "line_search_accept_ratio": 0.0,
    }
    peer = rate_of(sb3_contrib.TRPO, env_id, 2, n_timesteps, cg_max_steps=25, **PEER_TRPO)
    return _ours(agents.TRPO, env_id, 2, n_timesteps, ours) | {"sb3-contrib": peer}


def shared_ppo(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and SB3's PPO with identical hyperparameters (8 environments, 2048 samples)."""
    kwargs: dict[str, Any] = {"n_steps": 256, "batch_size": 64}
    peer = rate_of(stable_baselines3.PPO, env_id, 8, n_timesteps, **kwargs)
    return _ours(agents.PPO, env_id, 8, n_timesteps, kwargs) | {"SB3": peer}


def shared_a2c(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and SB3's A2C with identical hyperparameters (8 environments, SB3's defaults)."""
    kwargs: dict[str, Any] = {"n_steps": 5}
    peer = rate_of(stable_baselines3.A2C, env_id, 8, n_timesteps, **kwargs)
    return _ours(agents.A2C, env_id, 8, n_timesteps, kwargs) | {"SB3": peer}


def _ours(
    make: Callable[..., Any], env_id: str, n_envs: int, n_timesteps: int, kwargs: dict[str, Any]
) -> dict[str, Callable[[], float]]:
    """Return our class as it is meant to be run, and on the peer's own environments."""
    meant: dict[str, Any] = {"backend": "envpool", "frozen_statistics": True}
    return {
        "ours": rate_of(make, env_id, n_envs, n_timesteps, **meant, **kwargs),
        "ours, Gymnasium": rate_of(make, env_id, n_envs, n_timesteps, **kwargs),
    }


def _timed(model: Any, n_timesteps: int) -> float:
    start = time.perf_counter()
    model.learn(n_timesteps)
    rate = model.num_timesteps / (time.perf_counter() - start)
    model.env.close()
    return float(rate)
