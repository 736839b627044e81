"""One training with one seed, scored: a process of its own that can be killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import NaturalZooError, RunFolderError, TrainingDiverged
from hub.atomic import write_text
from zoo.callbacks import evaluate_model
from zoo.config import RunConfig
from zoo.jobs import Job, failure_reason
from zoo.periodic_evaluations import load_evaluations
from zoo.runs import RunFolder, make_run
from zoo.training import find_resumption, prepare

__all__ = ["DIVERGED", "Scoring", "train_and_score"]

DIVERGED = 3
"""Exit code of a training whose parameters are no longer finite."""
_NEVER = 2**62


class Scoring:
    """A training that is under way, or done.

    :param config: what to train.
    :param folder: where its files are: ``SEED.json`` with the score, the run folder ``SEED`` and
        ``SEED.log``.
    :param evaluation_seed: of all its evaluations; a search must not see the benchmark's.
    :param n_episodes: of its final evaluation.
    """

    def __init__(
        self, config: RunConfig, folder: Path, *, evaluation_seed: int, n_episodes: int
    ) -> None:
        self.config = config
        self._run = RunFolder(folder / str(config.seed), config.env_id)
        self._log = folder / f"{config.seed}.log"
        self._score = folder / f"{config.seed}.json"
        self.job: Job | None = None
        if self._returns() is None:
            folder.mkdir(parents=True, exist_ok=True)
            make_run(self._run, config)
            arguments = (config.to_yaml(), str(self._run.path), str(self._score))
            self.job = Job(train_and_score, (*arguments, evaluation_seed, n_episodes), self._log)

    @property
    def exit_code(self) -> int | None:
        """0 for success, :data:`DIVERGED`, negative for a signal, None while it runs."""
        return 0 if self.job is None else self.job.exit_code

    def mean_return(self) -> float:
        """Return the mean return of the final evaluation.

        :raises RunFolderError: there is none.
        """
        returns = self._returns()
        if returns is None:
            raise RunFolderError(f"{self._score} has no final evaluation.")
        return float(np.mean(returns))

    def curve(self) -> dict[int, float]:
        """Return the mean returns of the evaluations on the way so far, by steps."""
        try:
            evaluations = load_evaluations(self._run, _NEVER)
        except RunFolderError:
            return {}
        return {timesteps: each.mean_return for timesteps, each in evaluations.items()}

    def error(self) -> str:
        """Return why it failed, in a line."""
        return failure_reason(self.exit_code, self._log)

    def stop(self) -> None:
        """End the process if it still runs; it can be resumed from its last checkpoint."""
        if self.job is not None and self.job.exit_code is None:
            self.job.kill()

    def remove_run(self) -> None:
        """Delete the run folder, whose score is kept."""
        shutil.rmtree(self._run.path, ignore_errors=True)

    def _returns(self) -> list[float] | None:
        """Return the recorded returns, None if there are none of just this configuration."""
        try:
            content: dict[str, Any] = json.loads(self._score.read_text(encoding="utf-8"))
            if content["config"] != _plain(self.config):
                return None
            return [float(value) for value in content["returns"]] or None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def train_and_score(
    config_text: str, run_path: str, score_path: str, evaluation_seed: int, n_episodes: int
) -> int:
    """Train as a process of its own, go on with what is there, and write the score.

    :return: the exit code; a known error is one line on standard error.
    """
    config = RunConfig.from_yaml(config_text)
    run = RunFolder(Path(run_path), config.env_id)
    try:
        with run.locked():
            run.remove_temporary_files()
            returns = _train(config, run, evaluation_seed, n_episodes)
    except NaturalZooError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return DIVERGED if isinstance(error, TrainingDiverged) else 1
    content = {"returns": returns, "config": _plain(config)}
    write_text(Path(score_path), json.dumps(content) + "\n")
    return 0


def _train(config: RunConfig, run: RunFolder, evaluation_seed: int, n_episodes: int) -> list[float]:
    resumption = find_resumption(run)
    with prepare(config, run, resumption=resumption, evaluation_seed=evaluation_seed) as training:
        training.learn(progress=False)
        evaluation = evaluate_model(
            training.model, config, seed=evaluation_seed, n_episodes=n_episodes
        )
    return evaluation.returns


def _plain(config: RunConfig) -> dict[str, Any]:
    """Return the settings as JSON reads them back, without where they come from."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    del values["source"]
    return values
