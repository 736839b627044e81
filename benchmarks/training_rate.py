"""Steps per second of whole training, ours and the peers'."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

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
    "shared_trpo_model",
    "tianshou",
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
_OURS_AS_PEER = PEER_TRPO | {
    "cg_max_iters": 25,
    "line_search_max_backtracks": 9,
    "line_search_accept_ratio": 0.0,
}


def default_model(
    algo: str,
    env_id: str,
    env_threads: int,
    wrapper: Callable[[VecEnv], VecEnv] = lambda venv: venv,
) -> Any:
    """Return an agent in our default configuration, as ``zoo.train`` makes it.

    :param env_threads: threads that step the environments; 0 for as many as pay.
    :param wrapper: around the bare environments.
    """
    torch.set_num_threads(1)
    config = resolve_config(algo, env_id, seed=0)
    backend = choose_backend("auto", env_id)
    venv = make_vec_env(env_id, config.n_envs, 0, backend, config.env_kwargs, env_threads)
    env: Any = VecMonitor(wrapper(venv))
    if config.normalize is not None:
        env = RolloutNormalize(env, config.agent["n_steps"], **config.normalize)
    return algorithm_class(algo)(
        policy=config.policy, env=env, seed=0, device="cpu", **config.agent_kwargs()
    )


def default_rate(algo: str, env_id: str, n_timesteps: int) -> Callable[[], float]:
    """Return a measurement of our default configuration."""
    return lambda: _timed(default_model(algo, env_id, 0), n_timesteps)


def rate_of(
    make: Callable[..., Any],
    env_id: str,
    n_envs: int,
    n_timesteps: int,
    *,
    backend: str = "dummy",
    env_threads: int = 0,
    torch_threads: int | None = 1,
    frozen_statistics: bool = False,
    **kwargs: Any,
) -> Callable[[], float]:
    """Return a measurement of one algorithm class with given hyperparameters.

    :param torch_threads: None leaves torch its own choice, one per core.
    :param frozen_statistics: normalise once per rollout (ours) instead of at every step (SB3).
    """

    def measure() -> float:
        torch.set_num_threads(torch_threads or len(os.sched_getaffinity(0)))
        env: Any = VecMonitor(make_vec_env(env_id, n_envs, 0, backend, None, env_threads))
        env = RolloutNormalize(env, kwargs["n_steps"]) if frozen_statistics else VecNormalize(env)
        return _timed(make("MlpPolicy", env, seed=0, device="cpu", **kwargs), n_timesteps)

    return measure


def shared_trpo(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and sb3-contrib's TRPO with identical hyperparameters (2 environments)."""
    peer = rate_of(
        sb3_contrib.TRPO, env_id, 2, n_timesteps, torch_threads=None, cg_max_steps=25, **PEER_TRPO
    )
    return _ours(agents.TRPO, env_id, 2, n_timesteps, _OURS_AS_PEER) | {"sb3-contrib": peer}


def shared_trpo_model(env_id: str, wrapper: Callable[[VecEnv], VecEnv]) -> Any:
    """Return our TRPO with sb3-contrib's hyperparameters, everything on one thread.

    :param wrapper: around the bare environments.
    """
    torch.set_num_threads(1)
    env = VecMonitor(wrapper(make_vec_env(env_id, 2, 0, "mujoco", None, 1)))
    normalized = RolloutNormalize(env, PEER_TRPO["n_steps"])
    return agents.TRPO("MlpPolicy", normalized, seed=0, device="cpu", **_OURS_AS_PEER)


def shared_ppo(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and SB3's PPO with identical hyperparameters (8 environments, 2048 samples)."""
    kwargs: dict[str, Any] = {"n_steps": 256, "batch_size": 64}
    peer = rate_of(stable_baselines3.PPO, env_id, 8, n_timesteps, torch_threads=None, **kwargs)
    return _ours(agents.PPO, env_id, 8, n_timesteps, kwargs) | {"SB3": peer}


def shared_a2c(env_id: str, n_timesteps: int) -> dict[str, Callable[[], float]]:
    """Return ours and SB3's A2C with identical hyperparameters (8 environments, SB3's defaults)."""
    kwargs: dict[str, Any] = {"n_steps": 5}
    peer = rate_of(stable_baselines3.A2C, env_id, 8, n_timesteps, torch_threads=None, **kwargs)
    return _ours(agents.A2C, env_id, 8, n_timesteps, kwargs) | {"SB3": peer}


def tianshou(
    algo: str, env_id: str, n_timesteps: int, interpreter: Path
) -> dict[str, Callable[[], float]]:
    """Return ours and Tianshou 2's NPG or TRPO with identical hyperparameters.

    :param algo: ``"npg"`` or ``"trpo"``.
    :param interpreter: Python of the virtual environment that has Tianshou.
    """
    script = Path(__file__).with_name("tianshou_peer.py")
    command = [str(interpreter), str(script), algo, env_id, str(n_timesteps)]

    def measure() -> float:
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(run.stdout.split()[-1])

    # The settings of tianshou_peer.py.
    settings: dict[str, Any] = {
        "n_steps": 64,
        "batch_size": 1024,
        "n_critic_updates": 20,
        "cg_max_iters": 10,
        "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -0.5},
    }
    own: dict[str, Any] = {"step_size": 0.1} if algo == "npg" else {"target_kl": 0.02}
    make = algorithm_class(algo)
    return _ours(make, env_id, 16, n_timesteps, settings | own) | {"Tianshou": measure}


def _ours(
    make: Callable[..., Any], env_id: str, n_envs: int, n_timesteps: int, kwargs: dict[str, Any]
) -> dict[str, Callable[[], float]]:
    """Return our class as it is meant to be run, and on the peer's own environments."""
    meant: dict[str, Any] = {"backend": "mujoco", "frozen_statistics": True}
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
