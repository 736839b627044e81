"""Ranking the best trials again: full length, fresh seeds, fresh episodes.

The best of many trials is best by luck, too: its seeds have chosen it. So the first few of a search
are trained again with seeds that it has not seen, beside the preset that is there already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agents.errors import ConfigError, NaturalZooError
from hub.seeding import RERANKING_EVALUATION_SEED, purpose_seeds
from zoo.campaign.statistics import mean_and_std
from zoo.config import RunConfig, resolve_config
from zoo.envs import choose_backend
from zoo.jobs import wait_for_any
from zoo.tuning.protocol import Protocol, aggregate
from zoo.tuning.scoring import Scoring
from zoo.tuning.search_space import Overrides
from zoo.tuning.trials import OVERRIDES

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["PRESET", "Candidate", "best", "candidates", "rerank"]

PRESET = "preset"
_N_EPISODES = 100
_POLL_SECONDS = 1.0


@dataclass
class Candidate:
    """Settings that are ranked again.

    :param name: ``"trial 12"``, or :data:`PRESET` for the entry that is there already.
    :param overrides: of the trial; None for the preset.
    :param configs: one training per seed.
    :param returns: mean return of each seed that is done.
    :param error: why it is out of the race; empty if it is not.
    """

    name: str
    overrides: Overrides | None
    configs: list[RunConfig]
    returns: dict[int, float] = field(default_factory=dict)
    error: str = ""

    def score(self, objective: str) -> float:
        """Return the objective over all seeds."""
        return aggregate(objective, list(self.returns.values()))

    def described(self) -> str:
        """Return mean and standard deviation over the seeds."""
        mean, std = mean_and_std(list(self.returns.values()))
        return f"{mean:.1f}" + ("" if std is None else f" ± {std:.1f}")


def candidates(
    study: Study, protocol: Protocol, n_best: int, n_seeds: int, n_timesteps: int | None
) -> list[Candidate]:
    """Return the best complete trials, best first, and the preset if there is one.

    :param n_timesteps: of each training; None for the preset's, or the default entry's.
    :raises ConfigError: no trial is complete.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    complete = [trial for trial in complete if trial.state.name == "COMPLETE"]
    if not complete:
        raise ConfigError(
            f"No trial of the study '{study.study_name}' is complete, so there is nothing to rank. "
            "Run more of them: --n-trials."
        )
    complete.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    n_timesteps = n_timesteps or protocol.usual_length()
    seeds = purpose_seeds("reranking", n_seeds)
    found = []
    for trial in complete[:n_best]:
        overrides = trial.user_attrs[OVERRIDES]
        configs = [
            protocol.config(overrides, seed, n_timesteps=n_timesteps, looks=False) for seed in seeds
        ]
        found.append(Candidate(f"trial {trial.number}", overrides, configs))
    if protocol.has_preset():
        configs = [_preset_config(protocol, seed, n_timesteps) for seed in seeds]
        found.append(Candidate(PRESET, None, configs))
    return found


def rerank(
    ranked: Sequence[Candidate],
    folder: Path,
    *,
    n_jobs: int,
    say: Callable[[str], None],
) -> None:
    """Train and score every candidate with every seed; what is done already is kept.

    A candidate that fails with one seed is out: its mean over the others would be too good.
    """
    waiting = deque(_in_order(ranked))
    running: list[tuple[Candidate, Scoring]] = []
    try:
        while waiting or running:
            while waiting and len(running) < n_jobs:
                candidate, config = waiting.popleft()
                if not candidate.error:
                    running.append((candidate, _score(candidate, config, folder)))
            for candidate, scoring in list(running):
                if scoring.exit_code is None:
                    continue
                running.remove((candidate, scoring))
                _take(candidate, scoring, say)
            jobs = [scoring.job for _, scoring in running if scoring.job is not None]
            if jobs and len(jobs) == len(running):
                wait_for_any(jobs, _POLL_SECONDS)
    finally:
        for _, scoring in running:
            scoring.stop()


def best(ranked: Sequence[Candidate], objective: str) -> Candidate:
    """Return the candidate with the highest objective.

    :raises NaturalZooError: all have failed.
    """
    sound = [candidate for candidate in ranked if not candidate.error]
    if not sound:
        raise NaturalZooError(
            f"All candidates have failed when they were ranked again, {ranked[0].name}: "
            f"{ranked[0].error}"
        )
    return max(sound, key=lambda candidate: candidate.score(objective))


def _preset_config(protocol: Protocol, seed: int, n_timesteps: int) -> RunConfig:
    return resolve_config(
        protocol.algo,
        protocol.env_id,
        conf_file=protocol.conf_file,
        n_timesteps=n_timesteps,
        seed=seed,
        vec_env=choose_backend("auto", protocol.env_id),
        n_threads=1,
        env_threads=1,
        eval_freq=None,
        device="cpu",
    )


def _in_order(ranked: Sequence[Candidate]) -> Iterator[tuple[Candidate, RunConfig]]:
    """Yield the first seed of every candidate first: what is out is out early."""
    for configs in zip(*(candidate.configs for candidate in ranked), strict=True):
        yield from zip(ranked, configs, strict=True)


def _score(candidate: Candidate, config: RunConfig, folder: Path) -> Scoring:
    return Scoring(
        config,
        folder / candidate.name.replace(" ", "_"),
        evaluation_seed=RERANKING_EVALUATION_SEED,
        n_episodes=_N_EPISODES,
    )


def _take(candidate: Candidate, scoring: Scoring, say: Callable[[str], None]) -> None:
    seed = scoring.config.seed
    if scoring.exit_code != 0:
        candidate.error = scoring.error()
        say(f"{candidate.name}, seed {seed} FAILED and is out: {candidate.error}")
        return
    candidate.returns[seed] = scoring.mean_return()
    scoring.remove_run()
    say(f"{candidate.name}, seed {seed}: {candidate.returns[seed]:.2f}")
