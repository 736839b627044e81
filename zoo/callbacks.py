"""What happens around training: evaluation, checkpoints, progress, and a clean stop.

Evaluation and checkpoints take place between two rollouts, where the parameters are those of a
whole update.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from tqdm import tqdm

from agents.errors import RunFolderError
from hub.atomic import write_bytes
from hub.seeding import PERIODIC_EVALUATION_SEED, evaluation_seeds
from hub.vec_normalize import normalizer_of
from zoo.agent_file import save_agent_file
from zoo.config import RunConfig
from zoo.evaluation import Actor, Evaluation, evaluate, policy_actor
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
    "ProgressBar",
    "StopSignal",
    "evaluate_model",
    "load_evaluations",
    "model_actor",
    "progress_bar",
    "save_evaluations",
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


def save_evaluations(run: RunFolder, evaluations: dict[int, Evaluation]) -> None:
    """Write the learning curve in the format of SB3's ``EvalCallback``."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        timesteps=np.array(list(evaluations), dtype=np.int64),
        results=np.array([e.returns for e in evaluations.values()]),
        ep_lengths=np.array([e.lengths for e in evaluations.values()], dtype=np.int64),
    )
    write_bytes(run.evaluations, buffer.getvalue())


def load_evaluations(run: RunFolder, num_timesteps: int) -> dict[int, Evaluation]:
    """Return the learning curve up to ``num_timesteps``; later points are dropped."""
    if num_timesteps == 0 or not run.evaluations.is_file():
        return {}
    try:
        with np.load(run.evaluations) as arrays:
            columns = [arrays[name] for name in ("timesteps", "results", "ep_lengths")]
            return {
                int(timesteps): Evaluation([], list(returns), list(lengths))
                for timesteps, returns, lengths in zip(*columns, strict=True)
                if timesteps <= num_timesteps
            }
    except Exception as error:  # whatever NumPy and zipfile make of damage
        raise RunFolderError(
            f"{run.evaluations} is corrupted ({type(error).__name__}). Delete it to go on without "
            "the learning curve so far."
        ) from error


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread that watches the bar


def progress_bar(total: int, name: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
    """Return a bar on standard error; in a file it writes a line now and then."""
    return _Bar(
        total=total,
        initial=initial,
        desc=name,
        unit=unit,
        unit_scale=True,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=_bar_period(),
        miniters=1,
    )


def _bar_period() -> float:
    return 0.2 if sys.stderr.isatty() else 15.0


class ProgressBar(BaseCallback):
    """A bar on standard error: steps, steps/s, time left and the mean training return."""

    def __init__(self, n_timesteps: int, name: str) -> None:
        super().__init__()
        self._n_timesteps = n_timesteps
        self._name = name
        self._bar: tqdm[Any] | None = None
        self._next_update = 0.0

    def _on_training_start(self) -> None:
        self._bar = progress_bar(
            self._n_timesteps, self._name, "step", initial=self.model.num_timesteps
        )

    def _on_step(self) -> bool:
        if time.monotonic() >= self._next_update:
            self._update()
        return True

    def close(self) -> None:
        """Leave the bar as it stands, also after an error."""
        if self._bar is not None:
            self._update()
            self._bar.close()
            self._bar = None

    def _update(self) -> None:
        if self._bar is None:
            return
        episodes = self.model.ep_info_buffer
        if episodes:
            mean = np.mean([episode["r"] for episode in episodes])
            self._bar.set_postfix_str(f"return {mean:.1f}", refresh=False)
        # A stopped run has gone back to its last whole update.
        done = min(self.model.num_timesteps, self._n_timesteps)
        self._bar.update(max(done - self._bar.n, 0))
        self._next_update = time.monotonic() + _bar_period()


class StopSignal(BaseCallback):
    """Ends training between two steps when the process is asked to stop.

    The first Ctrl-C (or SIGTERM, as a scheduler sends) lets the policy stay what the last whole
    update made it; a second one ends the process at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
        self.cut_short = False
        """Whether the request came early enough to end training before its time."""

    def _on_step(self) -> bool:
        self.cut_short = self.requested
        return not self.requested

    def arrives_within(self, seconds: float) -> bool:
        """Return whether the process is asked to stop, now or in a moment."""
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM inside the block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self._request) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
