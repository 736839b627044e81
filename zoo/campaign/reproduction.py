"""Training recorded runs again, with the settings they were recorded with, and comparing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from agents.errors import ConfigError, NaturalZooError
from zoo.campaign.cells import Places
from zoo.campaign.planning import Task
from zoo.campaign.results import Result, load_results
from zoo.campaign.rows import number
from zoo.campaign.statistics import mean_and_std
from zoo.config import RunConfig, resolve_config
from zoo.plain_yaml import dump_yaml

__all__ = ["Comparison", "compare", "recorded_results", "repeat"]


def recorded_results(places: Places, algo: str, env_id: str, n_seeds: int | None) -> list[Result]:
    """Return the finished results of one row of the tables, by rising seed.

    :param n_seeds: only so many; None for all.
    :raises ConfigError: there is none.
    """
    results = [
        result
        for result in load_results(places)
        if (result.cell.algo, result.cell.env_id) == (algo, env_id) and result.error is None
    ]
    if not results:
        raise ConfigError(
            f"There is no result of {algo} on {env_id} in {places.results} to reproduce. Train it: "
            f"python -m zoo.benchmark run --algos {algo} --envs {env_id}."
        )
    return results[:n_seeds]


def repeat(result: Result) -> Task:
    """Return the run that repeats ``result``, whatever the presets say by now.

    :raises ConfigError: this version has no such settings any more.
    """
    cell = result.cell
    today = resolve_config(cell.algo, cell.env_id, untuned=True, seed=cell.seed, device="cpu")
    fields = dataclasses.asdict(today) | result.config
    return Task(cell, RunConfig.from_yaml(dump_yaml(fields), f"the result of {cell}"))


@dataclass(frozen=True)
class Comparison:
    """Recorded and repeated results of the same seeds."""

    recorded: Sequence[Result]
    repeated: Sequence[Result]

    @property
    def n_equal(self) -> int:
        """Runs whose every episode returned the same number, bit for bit."""
        pairs = zip(self.recorded, self.repeated, strict=True)
        return sum(one.returns == two.returns for one, two in pairs)

    @property
    def standard_errors(self) -> float | None:
        """Distance of the two means in standard errors, None with fewer than two seeds."""
        (one, std_one), (two, std_two) = self._means()
        if std_one is None or std_two is None:
            return None
        if one == two:
            return 0.0
        error = math.sqrt((std_one**2 + std_two**2) / len(self.recorded))
        return abs(one - two) / error if error > 0 else math.inf

    def _means(self) -> list[tuple[float, float | None]]:
        sides = (self.recorded, self.repeated)
        return [mean_and_std([result.mean_return for result in side]) for side in sides]

    def lines(self) -> list[str]:
        """Return a line per seed and one for the means."""
        texts = [
            f"seed {one.cell.seed}: recorded {one.mean_return:.2f}, repeated {two.mean_return:.2f}"
            + (", equal bit for bit" if one.returns == two.returns else "")
            for one, two in zip(self.recorded, self.repeated, strict=True)
        ]
        means = [
            number(mean) + ("" if std is None else f" ± {number(std, mean)}")
            for mean, std in self._means()
        ]
        cell = self.recorded[0].cell
        texts.append(
            f"{cell.algo} {cell.env_id}: recorded {means[0]}, repeated {means[1]}; "
            f"{self.n_equal} of {len(self.recorded)} runs equal bit for bit"
        )
        return texts


_MOST_STANDARD_ERRORS = 2.0


def compare(recorded: Sequence[Result], repeated: Sequence[Result]) -> Comparison:
    """Return both sides if they agree: bit for bit, or in the mean within two standard errors.

    Another processor or version may round differently, and training is chaotic: every run then
    differs, and only the means can be compared.

    :raises NaturalZooError: the means are farther apart.
    """
    comparison = Comparison(recorded, repeated)
    distance = comparison.standard_errors
    if comparison.n_equal < len(recorded) and distance and distance > _MOST_STANDARD_ERRORS:
        raise NaturalZooError(
            f"Not reproduced: {comparison.lines()[-1]}; the means are {distance:.1f} standard "
            f"errors apart. Recorded with {_versions(recorded[0])}, repeated with "
            f"{_versions(repeated[0])}."
        )
    return comparison


def _versions(result: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in result.versions.items() if version)
