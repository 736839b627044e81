"""How every trial of a study is trained and scored: decided once, recorded in the study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from hub.seeding import purpose_seeds
from zoo.config import RunConfig, resolve_config
from zoo.envs import choose_backend
from zoo.presets import read_entries
from zoo.tuning.search_space import Overrides, SearchSpace

__all__ = ["OBJECTIVES", "Protocol", "aggregate"]

#: What is made of the seeds' mean returns.
OBJECTIVES = ("mean", "iqm")


def aggregate(objective: str, returns: Sequence[float]) -> float:
    """Return the score of a configuration from the mean return of each seed.

    :param objective: ``"mean"``, or ``"iqm"``: the mean of the middle half, a quarter of the seeds,
        rounded down, left out at each end. With fewer than four seeds both are the mean.
    """
    values = sorted(returns)
    cut = len(values) // 4 if objective == "iqm" else 0
    return float(np.mean(values[cut : len(values) - cut]))


@dataclass(frozen=True)
class Protocol:
    """What all trials of a study have in common.

    :param algo: registered name.
    :param env_id: the task.
    :param space: what is searched.
    :param n_timesteps: steps of a trial's training.
    :param n_seeds: trainings of a trial; the same seeds for every trial.
    :param n_evaluations: looks at a training under way, by which a trial may be pruned.
    :param n_episodes: of the final evaluation of a training.
    :param objective: one of :data:`OBJECTIVES`.
    :param fixed: settings of every trial, dotted, which the space does not change.
    :param from_preset: search around the task's entry instead of the ``default`` one.
    :param conf_file: the hyperparameters to read instead of the shipped ones.
    """

    algo: str
    env_id: str
    space: SearchSpace
    n_timesteps: int
    n_seeds: int = 3
    n_evaluations: int = 4
    n_episodes: int = 20
    objective: str = "mean"
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    from_preset: bool = False
    conf_file: Path | None = None

    def __post_init__(self) -> None:
        lowest = {"n_seeds": 1, "n_evaluations": 0, "n_episodes": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: {getattr(self, name)} is below {least}.")
        if self.n_timesteps < self.n_evaluations + 1:
            raise ConfigError(f"{self.n_timesteps} steps are too few to look at them on the way.")

    @property
    def seeds(self) -> list[int]:
        """The training seeds of every trial, which neither re-ranking nor benchmark uses."""
        return purpose_seeds("tuning", self.n_seeds)

    @property
    def period(self) -> int:
        """Steps between two looks at a training."""
        return self.n_timesteps // (self.n_evaluations + 1)

    def config(
        self, overrides: Overrides, seed: int, *, n_timesteps: int | None = None, looks: bool = True
    ) -> RunConfig:
        """Return one training with ``overrides`` on top of what all trials share.

        :param n_timesteps: None for those of a trial.
        :param looks: evaluate on the way.
        :raises ConfigError: the settings do not fit together.
        """
        n_timesteps = n_timesteps or self.n_timesteps
        return resolve_config(
            self.algo,
            self.env_id,
            overrides={**self.fixed, **overrides},
            conf_file=self.conf_file,
            untuned=not self.from_preset,
            n_timesteps=n_timesteps,
            seed=seed,
            vec_env=choose_backend("auto", self.env_id),
            n_threads=1,
            env_threads=1,
            eval_freq=self.period if looks and self.n_evaluations else None,
            device="cpu",
        )

    def check(self) -> None:
        """Resolve every corner of the search space: a wrong key is told before the first trial.

        :raises ConfigError: some settings of the space cannot be used.
        """
        for corner in self.space.corners():
            self.config(corner, self.seeds[0]).agent_kwargs()

    def record(self) -> dict[str, Any]:
        """Return the protocol as JSON values: equal records give comparable trials."""
        base = dataclasses.asdict(self.config({}, self.seeds[0]))
        del base["source"]
        record = {
            "algo": self.algo,
            "env_id": self.env_id,
            "n_timesteps": self.n_timesteps,
            "seeds": self.seeds,
            "n_evaluations": self.n_evaluations,
            "n_episodes": self.n_episodes,
            "objective": self.objective,
            "search_space": self.space.definition,
            "base": base,
        }
        values: dict[str, Any] = json.loads(json.dumps(record))
        return values

    def has_preset(self) -> bool:
        """Return whether there is an entry for the task."""
        return self.env_id in read_entries(self.algo, self.conf_file)

    def usual_length(self) -> int:
        """Return the steps of the task's preset, or of the ``default`` entry."""
        config = resolve_config(
            self.algo,
            self.env_id,
            conf_file=self.conf_file,
            untuned=not self.has_preset(),
            device="cpu",
        )
        return config.n_timesteps
