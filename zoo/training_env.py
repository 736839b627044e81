"""The environments that an agent is trained on: monitored, normalised and closed for sure."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    unwrap_vec_wrapper,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from agents.errors import ConfigError
from agents.rollout_normalize import RolloutNormalize
from zoo.config import RunConfig
from zoo.envs import make_vec_env
from zoo.runs import RunFolder
from zoo.segments import Resumption

__all__ = ["EpisodeRecorder", "make_training_env", "worker_env_recipe"]

_TIMESTEPS = "timesteps"


class _TimestepCounter(VecEnvWrapper):
    """Tells after how many steps of training an episode ended.

    The lengths of the finished episodes do not add up to that: at a checkpoint, and when training
    ends, episodes under way are left uncounted.
    """

    def __init__(self, venv: VecEnv, n_timesteps: int) -> None:
        super().__init__(venv)
        self._n_timesteps = n_timesteps

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        self._n_timesteps += self.num_envs
        for index in dones.nonzero()[0]:
            infos[index][_TIMESTEPS] = self._n_timesteps
        return obs, rewards, dones, infos


class EpisodeRecorder(BaseCallback):
    """Writes the episodes of an algorithm that steps environments in processes of its own.

    They pass by the monitor around the algorithm's environments, which nobody steps.
    """

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self._write(info["episode"])
        return True

    def _write(self, episode: dict[str, Any]) -> None:
        monitor = unwrap_vec_wrapper(self.training_env, VecMonitor)
        if monitor is None or monitor.results_writer is None:
            return
        row = {name: episode[name] for name in ("r", "l")}
        row["t"] = round(time.time() - monitor.t_start, 6)
        monitor.results_writer.write_row(row | {_TIMESTEPS: self.model.num_timesteps})


def worker_env_recipe(config: RunConfig) -> Callable[[], VecEnv]:
    """Return what makes the environments of one worker, in the worker's process.

    As many as the run has, in one thread: there is a process per worker already.
    """
    backend = "dummy" if config.vec_env == "subproc" else config.vec_env
    return functools.partial(
        make_vec_env, config.env_id, config.n_envs, None, backend, config.env_kwargs, 1
    )


def make_training_env(
    config: RunConfig, run: RunFolder, resumption: Resumption | None, stack: ExitStack
) -> VecEnv:
    """Return the environments, which ``stack`` closes.

    Ctrl-C reaches every process of a terminal: those of the environments leave it to this one.
    """
    with _interrupts_ignored() if config.vec_env == "subproc" else nullcontext():
        env = make_vec_env(
            config.env_id,
            config.n_envs,
            config.seed,
            config.vec_env,
            config.env_kwargs,
            config.env_threads or 0,
        )
    stack.callback(_close, env)
    env = _monitored(env, config, run, resumption, stack)
    if config.normalize is None:
        return env
    n_steps = config.agent.get("n_steps")
    try:
        if n_steps is not None and isinstance(env.observation_space, spaces.Box):
            return RolloutNormalize(env, n_steps, **config.normalize)
        return VecNormalize(env, **config.normalize)
    except ValueError as error:
        raise ConfigError(
            f"{config.env_id} has {type(env.observation_space).__name__} observations, which "
            "cannot be normalised; pass --hyperparams normalize=false."
        ) from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _close(env: VecEnv) -> None:
    """Close the environments; processes that no longer answer are ended."""
    try:
        env.close()
    except (EOFError, OSError):
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, SubprocVecEnv):
            raise
        for process, remote in zip(unwrapped.processes, unwrapped.remotes, strict=True):
            process.terminate()
            process.join()
            remote.close()
        unwrapped.closed = True


def _monitored(
    env: VecEnv,
    config: RunConfig,
    run: RunFolder,
    resumption: Resumption | None,
    stack: ExitStack,
) -> VecEnv:
    """Write every training episode to the monitor file, appending to it on a resume."""
    reached = resumption.state.num_timesteps if resumption else 0
    monitor = VecMonitor(_TimestepCounter(env, reached), info_keywords=(_TIMESTEPS,))
    elapsed = resumption.state.elapsed_seconds if resumption else 0.0
    monitor.t_start = time.time() - elapsed
    goes_on = resumption is not None and run.monitor.is_file()
    if resumption is not None and goes_on:
        with run.monitor.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.truncate(min(size, resumption.state.monitor_bytes))
    monitor.results_writer = ResultsWriter(
        str(run.monitor),
        header={"t_start": monitor.t_start, "env_id": config.env_id},
        extra_keys=(_TIMESTEPS,),
        override_existing=not goes_on,
    )
    stack.callback(monitor.results_writer.close)
    return monitor
