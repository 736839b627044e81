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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import unwrap_vec_normalize
from tqdm import tqdm

from zoo.agent_file import AgentFile, save_agent_file
from zoo.atomic import write_bytes
from zoo.config import RunConfig
from zoo.evaluation import Evaluation, evaluate, policy_actor
from zoo.normalizer import ObservationNormalizer
from zoo.runs import RunFolder
from zoo.seeding import evaluation_seeds
from zoo.segments import (
    Stopwatch,
    TrainingState,
    begin_segment,
    capture,
    restore,
    training_env,
)

__all__ = ["BetweenRollouts", "ProgressBar", "StopSignal", "evaluate_model"]

PERIODIC_EVALUATION_SEED = 1
"""Not that of the final evaluation (0), whose episodes must not choose the best model."""


def evaluate_model(
    model: Any,
    config: RunConfig,
    *,
    seed: int,
    n_episodes: int,
    on_episode: Callable[[], object] | None = None,
) -> Evaluation:
    """Play whole episodes on Gymnasium with the model's frozen statistics, deterministically."""
    wrapper = unwrap_vec_normalize(training_env(model))
    normalizer = None if wrapper is None else ObservationNormalizer.frozen(wrapper)
    return evaluate(
        policy_actor(model.policy, normalizer, deterministic=True),
        config.env_id,
        seeds=evaluation_seeds(seed, n_episodes),
        n_envs=config.n_eval_envs,
        env_kwargs=config.env_kwargs,
        on_episode=on_episode,
    )


class BetweenRollouts(BaseCallback):
    """Evaluates every ``eval_freq`` steps and saves a checkpoint every ``save_freq`` steps.

    A checkpoint ends a segment: it is written, and the next segment begins from it exactly as it
    would in a process that loads it.

    :param config: of the run.
    :param run: its folder.
    :param resumed: the file and state that training goes on from, None from the start.
    """

    def __init__(
        self, config: RunConfig, run: RunFolder, resumed: tuple[AgentFile, TrainingState] | None
    ) -> None:
        super().__init__()
        self._config = config
        self._run = run
        self._resumed = resumed
        state = resumed[1] if resumed else TrainingState()
        self._segment = state.segment
        self._best_mean_return = state.best_mean_return
        self._previous_timesteps = state.num_timesteps
        self._stopwatch = Stopwatch(state.elapsed_seconds)
        self._evaluations: dict[int, Evaluation] = {}

    def _on_training_start(self) -> None:
        self._evaluations = load_evaluations(self._run, self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        if self._resumed is not None:
            restore(self.model, *self._resumed)
            self._resumed = None
            begin_segment(self.model, self._config.seed, self._segment)
            return
        if self._passed_multiple_of(self._config.eval_freq):
            self._evaluate()
        if self._passed_multiple_of(self._config.save_freq):
            self.save_checkpoint()
            begin_segment(self.model, self._config.seed, self._segment)
        self._previous_timesteps = self.num_timesteps_now

    def _on_step(self) -> bool:
        return True

    @property
    def num_timesteps_now(self) -> int:
        """Steps taken so far; the callback's own counter lags by one rollout here."""
        return self.model.num_timesteps

    def save_checkpoint(self) -> None:
        """Write the agent with everything needed to go on from here."""
        self._segment += 1
        self._save(self._run.checkpoint(self.num_timesteps_now))

    def save_final(self) -> None:
        """Write the final agent, from which training can be extended."""
        self._segment += 1
        self._save(self._run.final_model)

    def _passed_multiple_of(self, period: int | None) -> bool:
        if not period or self.num_timesteps_now == 0:
            return False
        return self.num_timesteps_now // period > self._previous_timesteps // period

    def _evaluate(self) -> None:
        evaluation = evaluate_model(
            self.model,
            self._config,
            seed=PERIODIC_EVALUATION_SEED,
            n_episodes=self._config.n_eval_episodes,
        )
        self._evaluations[self.num_timesteps_now] = evaluation
        save_evaluations(self._run, self._evaluations)
        mean = evaluation.mean_return
        self.logger.record("eval/mean_reward", mean)
        self.logger.record("eval/mean_ep_length", float(np.mean(evaluation.lengths)))
        if self._best_mean_return is None or mean > self._best_mean_return:
            self._best_mean_return = mean
            self._save(self._run.best_model)

    def _save(self, path: Any) -> None:
        monitor = self._run.monitor
        state = capture(
            self.model,
            segment=self._segment,
            elapsed_seconds=self._stopwatch.elapsed(),
            monitor_bytes=monitor.stat().st_size if monitor.is_file() else 0,
            best_mean_return=self._best_mean_return,
        )
        normalizer = unwrap_vec_normalize(training_env(self.model))
        save_agent_file(path, self.model, normalizer, state.to_dict())


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
    with np.load(run.evaluations) as arrays:
        columns = zip(arrays["timesteps"], arrays["results"], arrays["ep_lengths"], strict=True)
        return {
            int(timesteps): Evaluation([], list(returns), list(lengths))
            for timesteps, returns, lengths in columns
            if timesteps <= num_timesteps
        }


class ProgressBar(BaseCallback):
    """A bar on standard error: steps, steps/s, time left and the mean training return."""

    _PERIOD_SECONDS = 0.2

    def __init__(self, n_timesteps: int, name: str) -> None:
        super().__init__()
        self._n_timesteps = n_timesteps
        self._name = name
        self._bar: tqdm[Any] | None = None
        self._next_update = 0.0

    def _on_training_start(self) -> None:
        self._bar = tqdm(
            total=self._n_timesteps,
            initial=self.model.num_timesteps,
            desc=self._name,
            unit="step",
            unit_scale=True,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def _on_step(self) -> bool:
        if time.monotonic() >= self._next_update:
            self._update()
        return True

    def _on_training_end(self) -> None:
        if self._bar is not None:
            self._update()
            self._bar.close()

    def _update(self) -> None:
        if self._bar is None:
            return
        episodes = self.model.ep_info_buffer
        if episodes:
            mean = np.mean([episode["r"] for episode in episodes])
            self._bar.set_postfix_str(f"return {mean:.1f}", refresh=False)
        self._bar.update(min(self.model.num_timesteps, self._n_timesteps) - self._bar.n)
        self._next_update = time.monotonic() + self._PERIOD_SECONDS


class StopSignal(BaseCallback):
    """Ends training between two steps when the process is asked to stop.

    The first Ctrl-C (or SIGTERM, as a scheduler sends) lets the policy stay what the last whole
    update made it; a second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def _on_step(self) -> bool:
        return not self.requested

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
