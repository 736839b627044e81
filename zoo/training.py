"""From a run configuration to a trained agent in its run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize, unwrap_vec_normalize

from agents.errors import ConfigError, RunFolderError
from agents.registry import algorithm_class
from zoo.agent_file import AgentFile, load_agent_file
from zoo.atomic import atomic_write
from zoo.callbacks import BetweenRollouts, ProgressBar, StopSignal
from zoo.config import RunConfig
from zoo.envs import make_vec_env
from zoo.logs import TrackingOptions, make_logger
from zoo.runs import RunFolder
from zoo.segments import TrainingState

__all__ = ["Interrupted", "Resumption", "build_model", "find_resumption", "train"]


class Interrupted(Exception):
    """Training was asked to stop; what was learnt is saved."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint


@dataclass(frozen=True)
class Resumption:
    """Where training goes on."""

    path: Path
    """The file that was loaded."""
    file: AgentFile
    state: TrainingState


def find_resumption(run: RunFolder) -> Resumption | None:
    """Return the furthest saved state of ``run``, None if it never came to a checkpoint.

    :raises RunFolderError: the furthest file is damaged or not ours.
    """
    checkpoints = list(run.checkpoints().values())
    path = run.final_model if run.final_model.is_file() else next(reversed(checkpoints), None)
    if path is None:
        return None
    file = load_agent_file(path)
    if not file.training_state:
        raise RunFolderError(
            f"{path} holds no training state: it was not written by natural-zoo and cannot be "
            "resumed. Start a new run instead."
        )
    return Resumption(path, file, TrainingState.from_dict(file.training_state))


@contextmanager
def train(
    config: RunConfig,
    run: RunFolder,
    *,
    resumption: Resumption | None = None,
    tracking: TrackingOptions | None = None,
    progress: bool = True,
) -> Iterator[BaseAlgorithm]:
    """Train as ``config`` says, save everything in ``run`` and yield the trained model.

    The training environments are closed when the block ends.

    :param resumption: from :func:`find_resumption`; None trains from the start.
    :param tracking: where metrics go besides the run folder.
    :param progress: show a progress bar on standard error.
    :raises Interrupted: the process was asked to stop; a checkpoint was saved.
    """
    torch.set_num_threads(config.n_threads)
    env = _make_training_env(config, run, resumption)
    try:
        model = build_model(config, env)
        _learn(model, config, run, resumption, tracking or TrackingOptions(), progress)
        yield model
    finally:
        env.close()


def build_model(config: RunConfig, env: VecEnv) -> BaseAlgorithm:
    """Return the untrained algorithm of ``config`` on ``env``."""
    # A minibatch size that does not divide the batch is the user's choice, and SB3 handles it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You have specified a mini-batch size", UserWarning)
        return algorithm_class(config.algo)(
            policy=config.policy,
            env=env,
            seed=config.seed,
            device=config.device,
            **config.agent_kwargs(),
        )


def _learn(
    model: BaseAlgorithm,
    config: RunConfig,
    run: RunFolder,
    resumption: Resumption | None,
    tracking: TrackingOptions,
    progress: bool,
) -> None:
    if resumption is not None:
        model.set_parameters(resumption.file.parameters, exact_match=False)
        model.num_timesteps = resumption.state.num_timesteps
        model._update_current_progress_remaining(model.num_timesteps, config.n_timesteps)
    model.set_logger(make_logger(run, config, tracking, model.num_timesteps))
    between_rollouts = BetweenRollouts(
        config, run, (resumption.file, resumption.state) if resumption else None
    )
    stop = StopSignal()
    callbacks: list[BaseCallback] = [between_rollouts, stop]
    if progress:
        callbacks.append(ProgressBar(config.n_timesteps, f"{config.algo} {config.env_id}"))
    remaining = config.n_timesteps - model.num_timesteps
    with stop.listening():
        if remaining > 0:
            model.learn(
                remaining,
                callback=CallbackList(callbacks),
                log_interval=config.log_interval or 1,
                reset_num_timesteps=False,
            )
    if stop.requested:
        between_rollouts.save_checkpoint()
        model.logger.close()
        raise Interrupted(run.checkpoint(model.num_timesteps))
    if remaining > 0:
        between_rollouts.save_final()
        _save_for_rl_zoo(run, model)
    model.logger.close()


def _make_training_env(config: RunConfig, run: RunFolder, resumption: Resumption | None) -> VecEnv:
    env = make_vec_env(
        config.env_id,
        config.n_envs,
        config.seed,
        config.vec_env,
        config.env_kwargs,
        config.env_threads or 0,
    )
    env = _monitored(env, config, run, resumption)
    if config.normalize is None:
        return env
    try:
        return VecNormalize(env, **config.normalize)
    except ValueError as error:
        space = env.observation_space
        env.close()
        raise ConfigError(
            f"{config.env_id} has {type(space).__name__} observations, which cannot be "
            "normalised; pass --hyperparams normalize=false."
        ) from error


def _monitored(
    env: VecEnv, config: RunConfig, run: RunFolder, resumption: Resumption | None
) -> VecEnv:
    """Write every training episode to the monitor file, appending to it on a resume."""
    monitor = VecMonitor(env)
    elapsed = resumption.state.elapsed_seconds if resumption else 0.0
    monitor.t_start = time.time() - elapsed
    if resumption is not None and run.monitor.is_file():
        with run.monitor.open("r+b") as file:
            file.truncate(resumption.state.monitor_bytes)
    monitor.results_writer = ResultsWriter(
        str(run.monitor),
        header={"t_start": monitor.t_start, "env_id": config.env_id},
        override_existing=resumption is None,
    )
    return monitor


def _save_for_rl_zoo(run: RunFolder, model: BaseAlgorithm) -> None:
    """Write the pickled normaliser where RL Zoo's commands look for it."""
    normalizer = unwrap_vec_normalize(model.env) if model.env is not None else None
    if normalizer is not None:
        import pickle

        with atomic_write(run.vec_normalize) as file:
            pickle.dump(normalizer, file)
