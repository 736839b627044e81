"""How a worker comes by environments of its own."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)

from agents.errors import ConfigError

__all__ = ["WorkerEnv", "make_worker_env", "worker_env_recipe"]

WorkerEnv = str | Callable[[], gym.Env[Any, Any] | VecEnv]
"""A Gymnasium id, or a function that makes one environment or all ``n_envs`` of a worker."""

# What every worker gets anew (statistics, order of channels) or the learner does itself (counting).
_REBUILT = (VecNormalize, VecTransposeImage, VecMonitor)
_ADVICE = (
    "Pass worker_env=, a function without arguments that makes one such environment, or "
    "n_workers=1, which steps the given one in this process."
)


def worker_env_recipe(env: VecEnv, worker_env: WorkerEnv | None) -> Callable[[], VecEnv]:
    """Return a function that makes a worker's environments in the worker's process.

    :param env: the learner's, which says how many a worker has and, without ``worker_env``, what
        they are: their Gymnasium specs.
    :param worker_env: what they are, if given.
    :raises ConfigError: ``env`` cannot be made again.
    """
    if worker_env is None:
        return functools.partial(_from_specs, _specs(env))
    return functools.partial(_from_user, worker_env, env.num_envs)


def make_worker_env(recipe: Callable[[], VecEnv], t_start: float) -> VecEnv:
    """Follow a recipe and count the episodes.

    :param t_start: Unix time from which the episodes' times count.
    """
    env = recipe()
    if not is_vecenv_wrapped(env, VecMonitor) and not all(env.env_is_wrapped(Monitor)):
        env = VecMonitor(env)
        env.t_start = t_start
    return env


def _from_user(worker_env: WorkerEnv, n_envs: int) -> VecEnv:
    make = functools.partial(gym.make, worker_env) if isinstance(worker_env, str) else worker_env
    first = _quietly(make)
    if not isinstance(first, VecEnv):
        rest = [_quietly(make) for _ in range(n_envs - 1)]
        return _vectorized([first, *rest])
    if first.num_envs != n_envs:
        raise ConfigError(
            f"worker_env made {first.num_envs} environments, the algorithm's env has {n_envs}; "
            f"make {n_envs}, or one Gymnasium environment, which is then made {n_envs} times."
        )
    return first


def _from_specs(specs: Sequence[EnvSpec]) -> VecEnv:
    return _vectorized([_quietly(functools.partial(gym.make, spec)) for spec in specs])


def _vectorized(envs: Sequence[Any]) -> VecEnv:
    return DummyVecEnv([functools.partial(_itself, env) for env in envs])


def _itself(env: Any) -> Any:
    return env


def _quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        # The learner's own environment has given this advice already.
        warnings.filterwarnings("ignore", r".*You should consider upgrading", DeprecationWarning)
        return make()


def _specs(env: VecEnv) -> list[EnvSpec]:
    """Return the specs of ``env``, each enough to make the environment again."""
    inner = env
    while isinstance(inner, VecEnvWrapper):
        if not isinstance(inner, _REBUILT):
            raise ConfigError(
                f"Workers cannot make {type(inner).__name__} again, which wraps the environments. "
                + _ADVICE
            )
        inner = inner.venv
    return [_rebuildable(spec) for spec in inner.get_attr("spec")]


def _rebuildable(spec: EnvSpec | None) -> EnvSpec:
    if spec is None or spec.entry_point is None:
        raise ConfigError(
            "Workers cannot make the environment again: it did not come from gymnasium.make. "
            + _ADVICE
        )
    wrappers = tuple(w for w in spec.additional_wrappers if w.name != Monitor.__name__)
    for wrapper in wrappers:
        if wrapper.kwargs is None:
            raise ConfigError(
                f"Workers cannot make the wrapper {wrapper.name} of {spec.id} again: it does not "
                "record its arguments (gymnasium.utils.RecordConstructorArgs). " + _ADVICE
            )
    return dataclasses.replace(spec, additional_wrappers=wrappers)
