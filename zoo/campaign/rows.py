"""Results gathered into rows, one per algorithm and task, and normalised for all tasks together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agents.errors import ConfigError
from zoo.campaign.published import reference
from zoo.campaign.random_policy import random_return
from zoo.campaign.results import Result
from zoo.campaign.statistics import Floats, normalised

__all__ = ["Row", "Scores", "gather", "number", "score_matrices"]


@dataclass
class Row:
    """All seeds of one algorithm on one task.

    :param finished: by rising seed.
    :param failed: seeds that have no agent; a mean over the others is marked.
    """

    algo: str
    env_id: str
    finished: list[Result] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)

    @property
    def returns(self) -> list[float]:
        """The mean return of each seed's final agent."""
        return [result.mean_return for result in self.finished]

    @property
    def minutes(self) -> float:
        """The median time of a training."""
        return float(np.median([result.seconds for result in self.finished])) / 60.0


def gather(results: Iterable[Result]) -> list[Row]:
    """Return the rows by task, then algorithm.

    :raises ConfigError: there is no result, or runs of one row were trained for different lengths.
    """
    rows: dict[tuple[str, str], Row] = {}
    for result in results:
        cell = result.cell
        row = rows.setdefault((cell.env_id, cell.algo), Row(cell.algo, cell.env_id))
        (row.finished if result.error is None else row.failed).append(result)
    if not rows:
        raise ConfigError(
            "There is no result to report on; start some with python -m zoo.benchmark run."
        )
    for row in rows.values():
        _check_lengths(row)
    return [rows[key] for key in sorted(rows)]


def _check_lengths(row: Row) -> None:
    lengths = {int(result.config["n_timesteps"]) for result in row.finished}
    if len(lengths) > 1:
        raise ConfigError(
            f"The runs of {row.algo} on {row.env_id} were trained for different lengths "
            f"({', '.join(map(str, sorted(lengths)))} steps), and no mean of them means anything. "
            "Train them alike: python -m zoo.benchmark run --redo-outdated."
        )


@dataclass(frozen=True)
class Scores:
    """Normalised returns of several algorithms on the same tasks.

    :param matrices: by algorithm, shape ``(n_seeds, n_tasks)``.
    :param env_ids: the tasks.
    """

    matrices: Mapping[str, Floats]
    env_ids: Sequence[str]


def score_matrices(rows: Sequence[Row]) -> Scores:
    """Return normalised returns on the tasks that every algorithm has finished seeds of.

    0 is the return of random actions and 1 the highest published on-policy mean; a task without
    one of the two is left out. A matrix has as many seeds as the task with the fewest.
    """
    algos = sorted({row.algo for row in rows})
    by_key = {(row.algo, row.env_id): row for row in rows if row.finished}
    env_ids = [
        env_id
        for env_id in sorted({row.env_id for row in rows})
        if _scale(env_id) is not None and all((algo, env_id) in by_key for algo in algos)
    ]
    matrices = {}
    for algo in algos if env_ids else []:
        columns = [_normalised(by_key[algo, env_id]) for env_id in env_ids]
        n_seeds = min(map(len, columns))
        matrices[algo] = np.array([column[:n_seeds] for column in columns]).T
    return Scores(matrices, env_ids)


def _normalised(row: Row) -> list[float]:
    scale = _scale(row.env_id)
    if scale is None:
        raise ValueError(row.env_id)
    return [normalised(value, zero=scale[0], one=scale[1]) for value in row.returns]


def _scale(env_id: str) -> tuple[float, float] | None:
    """Return the returns that stand for 0 and 1."""
    zero, bar = random_return(env_id), reference(env_id)
    return None if zero is None or bar is None else (zero, bar.value)


def number(value: float, like: float | None = None) -> str:
    """Return a return as tables show it: whole, or with two decimals where returns are small.

    :param like: the number whose size decides, such as the mean for its standard deviation.
    """
    return f"{value:.0f}" if abs(value if like is None else like) >= 100 else f"{value:.2f}"
