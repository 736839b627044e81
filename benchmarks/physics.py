"""The physics limit: MuJoCo's own stepping and nothing else."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from hub.gym_env import make_gym_env

__all__ = ["physics_rate", "record_controls"]


def record_controls(env_id: str, n_steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Play Gymnasium with random actions and return what it asked of the physics, per episode."""
    env: Any = make_gym_env(env_id)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    episodes: list[dict[str, Any]] = []
    starts = True
    for _ in range(n_steps):
        if starts:
            data = env.unwrapped.data
            episodes.append({"qpos": data.qpos.copy(), "qvel": data.qvel.copy(), "ctrl": []})
        action = env.action_space.sample()
        episodes[-1]["ctrl"].append(action.astype(np.float64))
        *_, terminated, truncated, _ = env.step(action)
        starts = terminated or truncated
        if starts:
            env.reset()
    env.close()
    return episodes


def physics_rate(env_id: str, n_steps: int, processes: int = 1) -> Callable[[], float]:
    """Return a measurement of control steps per second of ``mj_step`` alone."""
    episodes = record_controls(env_id, n_steps)
    if processes == 1:
        return lambda: _replay(env_id, episodes)

    def measure() -> float:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes) as pool:
            jobs = [(env_id, episodes)] * processes
            return sum(pool.starmap(_replay, jobs, chunksize=1))

    return measure


def _replay(env_id: str, episodes: list[dict[str, Any]]) -> float:
    env: Any = make_gym_env(env_id)
    model, data, frame_skip = env.unwrapped.model, env.unwrapped.data, env.unwrapped.frame_skip
    n_steps = 0
    start = time.perf_counter()
    for episode in episodes:
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = episode["qpos"], episode["qvel"]
        mujoco.mj_forward(model, data)
        for ctrl in episode["ctrl"]:
            data.ctrl[:] = ctrl
            mujoco.mj_step(model, data, frame_skip)
        n_steps += len(episode["ctrl"])
    rate = n_steps / (time.perf_counter() - start)
    env.close()
    return rate
