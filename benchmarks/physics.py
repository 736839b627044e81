"""The physics limit: MuJoCo's own stepping and nothing else.

How long ``mj_step`` takes depends on the contacts, so there are two limits: on the episodes of
random actions, and on the very episodes that training went through.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from benchmarks.training_rate import default_model
from hub.gym_env import make_gym_env

__all__ = ["physics_rate", "random_episodes", "training_episodes"]

Episode = dict[str, Any]
"""Where an episode starts (``qpos``, ``qvel``) and the controls (``ctrl``) that it is given."""


def random_episodes(env_id: str, n_steps: int, seed: int = 0) -> list[Episode]:
    """Play Gymnasium with random actions and return what it asked of the physics, per episode."""
    env: Any = make_gym_env(env_id)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    episodes: list[Episode] = []
    starts = True
    for _ in range(n_steps):
        if starts:
            episodes.append(_start(env.unwrapped.data))
        action = env.action_space.sample()
        episodes[-1]["ctrl"].append(action.astype(np.float64))
        *_, terminated, truncated, _ = env.step(action)
        starts = terminated or truncated
        if starts:
            env.reset()
    env.close()
    return episodes


def training_episodes(algo: str, env_id: str, n_steps: int) -> list[Episode]:
    """Train in our default configuration and return what was asked of the physics."""
    recorders: list[_Recorder] = []

    def record(venv: VecEnv) -> VecEnv:
        recorders.append(_Recorder(venv))
        return recorders[0]

    model = default_model(algo, env_id, 1, wrapper=record)
    model.learn(n_steps)
    model.env.close()
    return recorders[0].finished


class _Recorder(VecEnvWrapper):
    """Writes down the episodes of environments that are stepped in this process."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._data = [env.data for env in venv.get_attr("unwrapped")]
        self._episodes: list[Episode] = []
        self.finished: list[Episode] = []

    def reset(self) -> VecEnvObs:
        obs = self.venv.reset()
        self._episodes = [_start(data) for data in self._data]
        self.finished += self._episodes
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        for episode, action in zip(self._episodes, actions, strict=True):
            episode["ctrl"].append(action.astype(np.float64))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        for i in dones.nonzero()[0]:
            self._episodes[i] = _start(self._data[i])
            self.finished.append(self._episodes[i])
        return obs, rewards, dones, infos


def _start(data: Any) -> Episode:
    return {"qpos": data.qpos.copy(), "qvel": data.qvel.copy(), "ctrl": []}


def physics_rate(env_id: str, episodes: list[Episode], processes: int = 1) -> Callable[[], float]:
    """Return a measurement of control steps per second of ``mj_step`` alone."""
    if processes == 1:
        return lambda: _replay(env_id, episodes)

    def measure() -> float:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes) as pool:
            jobs = [(env_id, episodes)] * processes
            return sum(pool.starmap(_replay, jobs, chunksize=1))

    return measure


def _replay(env_id: str, episodes: list[Episode]) -> float:
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
