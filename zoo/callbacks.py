"""What happens between two rollouts: evaluation, checkpoints, rows of the log.

Evaluation and checkpoints take place between two rollouts, where the parameters are those of a
whole update.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from hub.seeding import PERIODIC_EVALUATION_SEED, evaluation_seeds
from hub.vec_normalize import normalizer_of
from zoo.agent_file import save_agent_file
from zoo.config import RunConfig
from zoo.evaluation import Actor, Evaluation, evaluate, policy_actor
from zoo.periodic_evaluations import load_evaluations, save_evaluations
from zoo.runs import RunFolder
from zoo.segments import (
    Boundary,
    Resumption,
    Stopwatch,
    TrainingState,
    begin_segment,
    capture,
    restore,
    set_statistics,
    training_env,
)

__all__ = [
    "BetweenRollouts",
    "evaluate_model",
    "model_actor",
]


def model_actor(model: Any) -> Actor:
    """Return the deterministic actor with the model's statistics as they stand now."""
    wrapper = unwrap_vec_normalize(training_env(model))
    normalizer = None if wrapper is None else normalizer_of(wrapper)
    return policy_actor(model.policy, normalizer, deterministic=True)


def evaluate_model(model: Any, config: RunConfig, *, seed: int, n_episodes: int) -> Evaluation:
    """Play whole episodes on Gymnasium with the model's frozen statistics, deterministically."""
    return evaluate(
        model_actor(model),
        config.env_id,
        seeds=evaluation_seeds(seed, n_episodes),
        n_envs=config.n_eval_envs,
        env_kwargs=config.env_kwargs,
    )


class BetweenRollouts(BaseCallback):
    """Evaluates every ``eval_freq`` steps and saves a checkpoint every ``save_freq`` steps.

    A checkpoint ends a segment: it is written, and the next segment begins from it exactly as it
    would in a process that loads it. The log is written from here, too, since SB3 counts the
    rollouts of a resumed run from 1 again.

    :param config: of the run.
    :param run: its folder.
    :param resumed: what training goes on from, None from the start.
    :param log_interval: rollouts between two rows of the log.
    :param evaluation_seed: of the periodic evaluations, see :mod:`hub.seeding`.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        resumed: Resumption | None,
        log_interval: int,
        evaluation_seed: int = PERIODIC_EVALUATION_SEED,
    ) -> None:
        super().__init__()
        self._config = config
        self._run = run
        self._resumed = resumed
        self._log_interval = log_interval
        self._evaluation_seed = evaluation_seed
        state = resumed.state if resumed else TrainingState()
        self._iteration = state.iteration
        self._segment = state.segment
        self._best_mean_return = state.best_mean_return
        self._previous_timesteps = state.num_timesteps
        self._saved_timesteps = state.num_timesteps
        self._saved_path = resumed.path if resumed else None
        self._stopwatch = Stopwatch(state.elapsed_seconds)
        self._evaluations = load_evaluations(run, state.num_timesteps)
        self._boundary: Boundary | None = None

    def _on_rollout_start(self) -> None:
        if self._resumed is not None:
            set_statistics(self.model, self._resumed.file)
            restore(self.model, self._resumed.state)
            self._resumed = None
            begin_segment(self.model, self._config.seed, self._segment)
        else:
            if self._passed_multiple_of(self._config.eval_freq):
                self._evaluate()
            if self._passed_multiple_of(self._config.save_freq):
                self._save_checkpoint(self._capture())
                begin_segment(self.model, self._config.seed, self._segment)
        self._previous_timesteps = self.model.num_timesteps
        self._boundary = self._capture()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._iteration += 1
        if self._iteration % self._log_interval == 0:
            self.model.dump_logs(self._iteration)  # type: ignore[call-arg]

    def finish(self) -> None:
        """Evaluate the final agent if that is due, and save it; training can go on from it."""
        if self._passed_multiple_of(self._config.eval_freq):
            self._evaluate()
            self.logger.record(
                "time/total_timesteps", self.model.num_timesteps, exclude="tensorboard"
            )
            self.logger.dump(self.model.num_timesteps)
        self._segment += 1
        self._save(self._run.final_model, self._capture())

    def stop(self) -> Path | None:
        """Save the agent as the last whole update made it; what was collected since is dropped.

        :return: the file that training can go on from, None if nothing has been learnt yet.
        """
        boundary = self._boundary
        if boundary is not None and boundary.state.num_timesteps > self._saved_timesteps:
            self.model.num_timesteps = boundary.state.num_timesteps
            self._save_checkpoint(boundary)
        return self._saved_path

    def _passed_multiple_of(self, period: int | None) -> bool:
        if not period:
            return False
        return self.model.num_timesteps // period > self._previous_timesteps // period

    def _evaluate(self) -> None:
        evaluation = evaluate_model(
            self.model,
            self._config,
            seed=self._evaluation_seed,
            n_episodes=self._config.n_eval_episodes,
        )
        self._evaluations[self.model.num_timesteps] = evaluation
        save_evaluations(self._run, self._evaluations)
        mean = evaluation.mean_return
        self.logger.record("eval/mean_reward", mean)
        self.logger.record("eval/mean_ep_length", float(np.mean(evaluation.lengths)))
        if self._best_mean_return is None or mean > self._best_mean_return:
            self._best_mean_return = mean
            self._save(self._run.best_model, self._capture())

    def _capture(self) -> Boundary:
        monitor = self._run.monitor
        return capture(
            self.model,
            iteration=self._iteration,
            elapsed_seconds=self._stopwatch.elapsed(),
            monitor_bytes=monitor.stat().st_size if monitor.is_file() else 0,
            best_mean_return=self._best_mean_return,
        )

    def _save_checkpoint(self, boundary: Boundary) -> None:
        self._segment += 1
        path = self._run.checkpoint(boundary.state.num_timesteps)
        self._save(path, boundary)
        self._saved_timesteps, self._saved_path = boundary.state.num_timesteps, path

    def _save(self, path: Path, boundary: Boundary) -> None:
        state = boundary.state.to_dict() | {"segment": self._segment}
        save_agent_file(path, self.model, boundary.statistics, state)
