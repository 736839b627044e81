"""Many environments behind one of four backends."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.resources
import json
import multiprocessing
from collections.abc import Mapping
from typing import Any, cast

from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from agents.errors import ConfigError, UnknownName
from hub.env_ids import check_env_id, is_mujoco_task
from hub.gym_env import make_gym_env
from zoo.finite_check import FiniteCheck

__all__ = ["BACKENDS", "choose_backend", "make_vec_env", "parity_note"]

BACKENDS = ("auto", "dummy", "subproc", "envpool", "mujoco")


def make_vec_env(
    env_id: str,
    n_envs: int,
    seed: int | None,
    backend: str = "dummy",
    env_kwargs: Mapping[str, Any] | None = None,
    n_threads: int = 0,
) -> VecEnv:
    """Return environments to train on, each observation and reward checked to be finite.

    Episodes are not counted here: wrap the result in SB3's ``VecMonitor``.

    :param env_id: such as ``"Walker2d-v4"``.
    :param n_envs: how many.
    :param seed: environment ``i`` gets ``seed + i`` at the first reset; None draws one.
    :param backend: ``"dummy"`` steps one after the other, ``"subproc"`` one process each,
        ``"envpool"`` in C++ threads, ``"mujoco"`` Gymnasium's own MuJoCo tasks together; see
        :func:`choose_backend` for ``"auto"``.
    :param env_kwargs: arguments of each environment.
    :param n_threads: threads of ``"envpool"`` and ``"mujoco"``; 0 takes one per processor core,
        ``"mujoco"`` no more than pay.
    """
    check_env_id(env_id)
    if n_envs < 1:
        raise ConfigError(f"--n-envs is {n_envs}, it must be at least 1. Type --n-envs 1.")
    name = choose_backend(backend, env_id)
    if name == "envpool":
        # Imported here: EnvPool is optional.
        from zoo.envpool_vec_env import EnvPoolVecEnv

        venv: VecEnv = EnvPoolVecEnv(env_id, n_envs, seed, env_kwargs, n_threads)
    elif name == "mujoco":
        from zoo.mujoco_vec_env import MujocoVecEnv

        venv = MujocoVecEnv(env_id, n_envs, env_kwargs, n_threads)
        venv.seed(seed)
    else:
        venv = _make_gym_vec_env(name, env_id, n_envs, env_kwargs)
        venv.seed(seed)
    venv.action_space.seed(seed)
    return FiniteCheck(venv, env_id)


def _make_gym_vec_env(
    backend: str, env_id: str, n_envs: int, env_kwargs: Mapping[str, Any] | None
) -> VecEnv:
    env_fns = [functools.partial(make_gym_env, env_id, env_kwargs) for _ in range(n_envs)]
    if backend == "dummy":
        return DummyVecEnv(env_fns)  # type: ignore[arg-type]
    # An error in a child process reaches the parent as a broken pipe: make one here first.
    env_fns[0]().close()
    # Forking this process would copy torch's locks in whatever state its threads hold them.
    methods = multiprocessing.get_all_start_methods()
    start_method = "forkserver" if "forkserver" in methods else "spawn"
    return SubprocVecEnv(env_fns, start_method=start_method)  # type: ignore[arg-type]


def choose_backend(requested: str, env_id: str) -> str:
    """Return the backend to use, one of :data:`BACKENDS` but ``"auto"``.

    ``"auto"`` takes ``"mujoco"`` for Gymnasium's MuJoCo tasks, which it steps bit for bit as
    ``"dummy"`` does and faster, and ``"dummy"`` for everything else: most environments step in
    tens of microseconds, for which a process each is too much.

    :param requested: one of :data:`BACKENDS`. All but ``"auto"`` are taken as they are.
    :param env_id: the environment.
    :raises UnknownName: there is no such backend.
    """
    if requested not in BACKENDS:
        raise UnknownName("backend", requested, BACKENDS, "Type --vec-env auto.")
    if requested != "auto":
        return requested
    return "mujoco" if is_mujoco_task(env_id) else "dummy"


def parity_note(env_id: str) -> str | None:
    """Return why EnvPool's task is not known to equal Gymnasium's, or None if it is.

    What ``python -m zoo.envpool_parity --write`` has measured holds for the EnvPool of then, which
    carries its own MuJoCo, and for the major version of the MuJoCo under Gymnasium.
    """
    measured = _measured_parity()
    versions = measured["versions"]
    installed = {name: _installed_version(name) for name in ("envpool", "mujoco")}
    if (
        installed["envpool"] != versions["envpool"]
        or installed["mujoco"].split(".")[0] != versions["mujoco"].split(".")[0]
    ):
        return (
            f"EnvPool was compared with Gymnasium at envpool {versions['envpool']} and mujoco "
            f"{versions['mujoco']}, installed are {installed['envpool']} and {installed['mujoco']}."
        )
    task = measured["tasks"].get(env_id)
    if task is None:
        return f"EnvPool's {env_id} has not been compared with Gymnasium's."
    return None if task["ok"] else f"EnvPool's {env_id} differs from Gymnasium's: {task['reason']}."


def _installed_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _measured_parity() -> dict[str, Any]:
    text = importlib.resources.files("zoo").joinpath("envpool_parity.json").read_text("utf-8")
    return cast(dict[str, Any], json.loads(text))
