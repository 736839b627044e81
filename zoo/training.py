"""From a run configuration to a trained agent in its run folder."""

from __future__ import annotations

import inspect
import pickle  # only to write what RL Zoo reads
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import (
    VecEnv,
    unwrap_vec_normalize,
)

from agents.errors import EnvironmentFault, RunFolderError, TrainingDiverged, WorkerCrashed
from agents.registry import algorithm_class, constructor_parameters
from agents.rollout_normalize import RolloutNormalize
from hub.atomic import write_bytes
from hub.seeding import PERIODIC_EVALUATION_SEED
from zoo.agent_file import load_agent_file
from zoo.callbacks import BetweenRollouts
from zoo.config import RunConfig
from zoo.logs import TrackingOptions, make_logger
from zoo.progress_bar import ProgressBar
from zoo.runs import RunFolder
from zoo.segments import Resumption, TrainingState, set_statistics
from zoo.stop_signal import StopSignal
from zoo.training_env import EpisodeRecorder, make_training_env, worker_env_recipe

__all__ = ["Interrupted", "Training", "build_model", "find_resumption", "prepare", "train"]

_NEVER = 2**62


class Interrupted(Exception):
    """Training was asked to stop; what was learnt is saved.

    :param checkpoint: the file, None if nothing had been learnt yet.
    :param is_final: whether training had come to its end: only the evaluation is missing.
    """

    def __init__(self, checkpoint: Path | None, *, is_final: bool = False) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint = checkpoint
        self.is_final = is_final


def find_resumption(run: RunFolder) -> Resumption | None:
    """Return the furthest saved state of ``run``, None if it never came to a checkpoint.

    :raises RunFolderError: the furthest file is damaged or not ours.
    """
    reached, last = max(run.checkpoints().items(), default=(-1, None))
    if run.final_model.is_file():
        final = _load_resumption(run.final_model)
        # A finished run that was being extended has checkpoints beyond its final agent.
        if final.state.num_timesteps >= reached:
            return final
    return None if last is None else _load_resumption(last)


def _load_resumption(path: Path) -> Resumption:
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
    :raises Interrupted: the process was asked to stop; what was learnt is saved.
    """
    with prepare(config, run, resumption=resumption, tracking=tracking) as training:
        training.learn(progress=progress)
        yield training.model


@dataclass(frozen=True)
class Training:
    """Everything that training needs, ready to begin."""

    model: BaseAlgorithm
    config: RunConfig
    run: RunFolder
    resumption: Resumption | None
    between_rollouts: BetweenRollouts

    def learn(self, *, progress: bool = True) -> None:
        """Train to the end, with evaluations and checkpoints on the way.

        :param progress: show a progress bar on standard error.
        :raises Interrupted: the process was asked to stop; what was learnt is saved.
        :raises EnvironmentFault: an environment has died or breaks its contract.
        :raises WorkerCrashed: a process that trains has died.
        """
        if self.model.num_timesteps >= self.config.n_timesteps and self.resumption is not None:
            set_statistics(self.model, self.resumption.file)  # nothing left but the evaluation
            _save_for_rl_zoo(self.run, self.model)
            return
        stop = StopSignal()
        callbacks: list[BaseCallback] = [self.between_rollouts, stop]
        if getattr(self.model, "has_worker_processes", False):
            callbacks.insert(0, EpisodeRecorder())
        with stop.listening(), ExitStack() as bar:
            if progress:
                shown = ProgressBar(
                    self.config.n_timesteps, f"{self.config.algo} {self.config.env_id}"
                )
                callbacks.append(shown)
                bar.callback(shown.close)
            self._learn(callbacks, stop)
            if stop.cut_short:
                raise Interrupted(self.between_rollouts.stop())
            self.between_rollouts.finish()
            _save_for_rl_zoo(self.run, self.model)
        if stop.requested:  # too late to stop training, in time to skip the final evaluation
            raise Interrupted(self.run.final_model, is_final=True)

    def _learn(self, callbacks: list[BaseCallback], stop: StopSignal) -> None:
        try:
            self.model.learn(
                self.config.n_timesteps - self.model.num_timesteps,
                callback=CallbackList(callbacks),
                log_interval=_NEVER,  # BetweenRollouts writes the log
                reset_num_timesteps=False,
            )
        except WorkerCrashed:
            stop.cut_short = stop.arrives_within(1.0)  # a scheduler's signal ended it, too
            if not stop.cut_short:
                raise
        except (EOFError, ConnectionError) as error:
            # A scheduler's signal ends the environments' processes, too, maybe before this one.
            stop.cut_short = stop.arrives_within(1.0)
            if not stop.cut_short:
                raise EnvironmentFault(
                    f"A process that stepped {self.config.env_id} has died. Its own message, if "
                    "any, is above; --vec-env dummy keeps everything in one process."
                ) from error
        except ValueError as error:
            if _is_finite(self.model):
                raise
            raise self._diverged() from error
        if not _is_finite(self.model):  # since the very last update
            raise self._diverged()

    def _diverged(self) -> TrainingDiverged:
        return TrainingDiverged(
            f"The parameters are no longer finite after {self.model.num_timesteps} steps: "
            "training has diverged. Lower learning_rate or target_kl with --hyperparams."
        )


@contextmanager
def prepare(
    config: RunConfig,
    run: RunFolder,
    *,
    resumption: Resumption | None = None,
    tracking: TrackingOptions | None = None,
    evaluation_seed: int = PERIODIC_EVALUATION_SEED,
) -> Iterator[Training]:
    """Build environments, agent and logger, and close them when the block ends.

    What cannot work fails here, before the first step.

    :param evaluation_seed: of the periodic evaluations, see :mod:`hub.seeding`.
    """
    torch.set_num_threads(config.n_threads)
    with ExitStack() as stack:
        env = make_training_env(config, run, resumption, stack)
        model = build_model(config, env)
        if resumption is not None:
            _set_parameters(model, config, resumption)
        model.set_logger(make_logger(run, config, tracking or TrackingOptions(), model))
        stack.callback(model.logger.close)
        between_rollouts = BetweenRollouts(
            config, run, resumption, _log_interval(model, config), evaluation_seed
        )
        yield Training(model, config, run, resumption, between_rollouts)


def _log_interval(model: BaseAlgorithm, config: RunConfig) -> int:
    """Return the rollouts between two rows of the log: the algorithm's own if not set."""
    if config.log_interval is not None:
        return config.log_interval
    default = inspect.signature(model.learn).parameters["log_interval"].default
    return default if isinstance(default, int) else 1


def _set_parameters(model: BaseAlgorithm, config: RunConfig, resumption: Resumption) -> None:
    try:
        model.set_parameters(resumption.file.parameters, exact_match=True)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{resumption.path} does not fit the run's config.yml: {' '.join(str(error).split())}"
        ) from error
    model.num_timesteps = resumption.state.num_timesteps
    model._update_current_progress_remaining(model.num_timesteps, config.n_timesteps)


def _is_finite(model: BaseAlgorithm) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.policy.parameters())


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
            **_worker_kwargs(config),
        )


def _worker_kwargs(config: RunConfig) -> dict[str, Any]:
    """Return how workers make their environments, for an algorithm that has workers."""
    if "worker_env" not in constructor_parameters(algorithm_class(config.algo)):
        return {}
    return {"worker_env": worker_env_recipe(config)}


def _save_for_rl_zoo(run: RunFolder, model: BaseAlgorithm) -> None:
    """Write the pickled normaliser where RL Zoo's commands look for it."""
    normalizer = unwrap_vec_normalize(model.env) if model.env is not None else None
    if normalizer is None:
        return
    if isinstance(normalizer, RolloutNormalize):
        normalizer = normalizer.as_vec_normalize()
    write_bytes(run.vec_normalize, pickle.dumps(normalizer))
