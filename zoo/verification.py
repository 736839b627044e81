"""Repeating what a bundle publishes: its episodes, and that its files are one agent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.errors import VerificationError
from hub.bundle import Bundle
from hub.runtime import OnnxPolicy
from hub.versions import installed_versions
from zoo.evaluation import Actor, Evaluation, evaluate, one_by_one
from zoo.onnx_comparison import OnnxComparison, compare_onnx_files
from zoo.provenance import machine
from zoo.published_evaluation import FLOAT64, PublishedEvaluation, read_published
from zoo.trained import load_trained

__all__ = ["Verification", "verify"]

MAX_STANDARD_ERRORS = 3.0
"""Between two mean returns that are the same within the spread."""

_MAX_VISITED = 10_000
# What returns depend on beside the agent; on torch only where it acted.
_DECISIVE = ("gymnasium", "mujoco", "numpy", "system", "architecture", "processor")


@dataclass(frozen=True)
class Verification:
    """What was found to be true."""

    published: Evaluation
    """The episodes that were repeated, as published."""
    repeated: Evaluation
    """The same episodes, as played here."""
    played_with: str
    """``policy.f64.onnx`` or ``torch``."""
    differences: tuple[str, ...]
    """What is not as it was for the publisher and may move returns, such as MuJoCo's version."""
    onnx: OnnxComparison | None
    """How the ONNX files compare with the weights; None if there are none."""

    @property
    def is_bit_equal(self) -> bool:
        """Whether every episode came out to the last bit; if not, within the spread."""
        return self.published == self.repeated


def verify(
    bundle: Bundle, *, n_episodes: int | None = None, on_episode: Callable[[], object] | None = None
) -> Verification:
    """Repeat the published evaluation and compare the bundle's files with each other.

    :param bundle: its digests have been checked by opening it.
    :param n_episodes: the first so many; None for all.
    :param on_episode: called after each episode.
    :raises VerificationError: something is not what is published about it.
    :raises BundleError: there is nothing to repeat.
    """
    published = read_published(bundle)
    episodes = _first(published.evaluation, n_episodes)
    visited = _Visited(_actor(bundle, published))
    repeated = evaluate(
        visited,
        bundle.manifest.env_id,
        seeds=episodes.seeds,
        n_envs=1,
        env_kwargs=bundle.manifest.env_kwargs,
        on_episode=on_episode,
    )
    comparison = None
    if published.played_with == FLOAT64:
        comparison = compare_onnx_files(bundle, visited.observations)
    differences = _differences(published)
    _compare_episodes(episodes, repeated, differences)
    return Verification(episodes, repeated, published.played_with, differences, comparison)


def _first(evaluation: Evaluation, n_episodes: int | None) -> Evaluation:
    return Evaluation(
        evaluation.seeds[:n_episodes],
        evaluation.returns[:n_episodes],
        evaluation.lengths[:n_episodes],
    )


def _actor(bundle: Bundle, published: PublishedEvaluation) -> Actor:
    if published.played_with == FLOAT64:
        return one_by_one(OnnxPolicy(bundle.path, float64=True, check_range=False))
    return dataclasses.replace(load_trained(bundle.path), exact=None).actor()


class _Visited:
    """An actor that keeps some of the observations it acts on, spread over all of them."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._stride = 1
        self._n_seen = 0
        self.observations: list[Any] = []

    def __call__(self, observations: Any) -> npt.NDArray[Any]:
        if self._n_seen % self._stride == 0:
            self.observations.append(_first_row(observations))
            if len(self.observations) == _MAX_VISITED:
                self.observations = self.observations[::2]
                self._stride *= 2
        self._n_seen += 1
        return self._actor(observations)


def _first_row(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: np.array(part[0]) for key, part in observations.items()}
    return np.array(observations[0])


def _differences(published: PublishedEvaluation) -> tuple[str, ...]:
    here = {**installed_versions("onnxruntime"), **machine()}
    keys = (*_DECISIVE, "torch") if published.played_with == "torch" else _DECISIVE
    return tuple(
        f"{key} {published.origin.get(key) or 'unknown'} there, {here[key] or 'none'} here"
        for key in keys
        if published.origin.get(key) != here[key]
    )


def _compare_episodes(
    published: Evaluation, repeated: Evaluation, differences: tuple[str, ...]
) -> None:
    """Require equality to the last bit, or where something differs, equality within the spread."""
    if published == repeated:
        return
    if not differences:
        i = next(
            i
            for i, seed in enumerate(published.seeds)
            if (published.returns[i], published.lengths[i])
            != (repeated.returns[i], repeated.lengths[i])
        )
        raise VerificationError(
            f"Episode {i} (seed {published.seeds[i]}) is published with return "
            f"{published.returns[i]!r} in {published.lengths[i]} steps and comes out as "
            f"{repeated.returns[i]!r} in {repeated.lengths[i]} with the same versions on the same "
            "kind of machine: evaluation.json is not what this agent reaches."
        )
    n = len(published.seeds)
    variance = published.std_return**2 + repeated.std_return**2
    error = math.sqrt(variance / n)
    difference = abs(published.mean_return - repeated.mean_return)
    if difference > MAX_STANDARD_ERRORS * error + 1e-6 * abs(published.mean_return):
        raise VerificationError(
            f"The mean return of {n} episodes is published as {published.mean_return:.2f} and "
            f"comes out as {repeated.mean_return:.2f}, {difference / max(error, 1e-12):.1f} "
            f"standard errors away; that is more than the differences explain ("
            f"{'; '.join(differences)})."
        )
