"""What a bundle publishes about its returns, read without trust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.errors import BundleError, VerificationError
from hub.bundle import Bundle
from hub.bundle_format import strict_json as read
from zoo.evaluation import Evaluation

__all__ = ["FLOAT64", "PublishedEvaluation", "read_published"]

FLOAT64 = "policy.f64.onnx"
_FILE = "evaluation.json"
_REQUIRED = (
    *("seeds", "returns", "lengths", "mean_return", "std_return", "played_with"),
    *("num_timesteps", "versions", "machine"),
)
_MAX_EPISODES = 1_000_000


@dataclass(frozen=True)
class PublishedEvaluation:
    """The content of ``evaluation.json``."""

    evaluation: Evaluation
    played_with: str
    """``policy.f64.onnx``, or ``torch`` for an agent that has none."""
    origin: dict[str, str | None]
    """What the numbers may depend on: versions of packages, and the machine."""


def read_published(bundle: Bundle) -> PublishedEvaluation:
    """Return the published evaluation of a bundle.

    :raises BundleError: it has none, or one that cannot be read.
    :raises VerificationError: it contradicts itself or the bundle.
    """
    where = str(bundle.path / _FILE)
    if _FILE not in bundle.files:
        raise BundleError(
            f"{bundle.path} has no {_FILE} to repeat. Type: python -m zoo.evaluate {bundle.path}"
        )
    report = read.mapping(
        read.parse(bundle.read(_FILE), where),
        where,
        required=_REQUIRED,
        optional=None,
    )
    evaluation = _episodes(report, where)
    _check_summary(report, evaluation, where)
    _check_belongs(report, bundle, where)
    played_with = read.one_of(report["played_with"], f"{where}: played_with", (FLOAT64, "torch"))
    if played_with == FLOAT64 and FLOAT64 not in bundle.files:
        raise BundleError(f"{where} was played with {FLOAT64}, which the bundle does not have.")
    return PublishedEvaluation(evaluation, played_with, _origin(report, where))


def _episodes(report: dict[str, Any], where: str) -> Evaluation:
    columns = {
        name: read.sequence(report[name], f"{where}: {name}", most=_MAX_EPISODES)
        for name in ("seeds", "returns", "lengths")
    }
    seeds = [read.whole(seed, f"{where}: seeds") for seed in columns["seeds"]]
    returns = [read.finite(value, f"{where}: returns") for value in columns["returns"]]
    lengths = [read.whole(n, f"{where}: lengths", least=1) for n in columns["lengths"]]
    if not seeds or not len(seeds) == len(returns) == len(lengths):
        raise VerificationError(
            f"{where} has {len(seeds)} seeds, {len(returns)} returns and {len(lengths)} lengths."
        )
    if len(set(seeds)) != len(seeds):
        raise VerificationError(f"{where} counts an episode twice: a seed is repeated.")
    return Evaluation(seeds, returns, lengths)


def _check_summary(report: dict[str, Any], evaluation: Evaluation, where: str) -> None:
    """Compare mean and standard deviation with the episodes they summarise."""
    for name, expected in (
        ("mean_return", evaluation.mean_return),
        ("std_return", evaluation.std_return),
    ):
        given = read.finite(report[name], f"{where}: {name}")
        # Another NumPy may add up in another order.
        scale = max(1.0, float(np.abs(evaluation.returns).max()))
        if not math.isclose(given, expected, rel_tol=1e-9, abs_tol=1e-9 * scale):
            raise VerificationError(
                f"{where} says {name} {given}, its own episodes give {expected}."
            )


def _check_belongs(report: dict[str, Any], bundle: Bundle, where: str) -> None:
    manifest = bundle.manifest
    expected = {
        "algo": manifest.algorithm,
        "env_id": manifest.env_id,
        "env_kwargs": manifest.env_kwargs,
        "deterministic": True,
    }
    for name, own in expected.items():
        if report.get(name) != own:
            raise VerificationError(
                f"{where} says {name} {read.shown(report.get(name))}, the bundle's agent has "
                f"{read.shown(own)}."
            )


def _origin(report: dict[str, Any], where: str) -> dict[str, str | None]:
    origin: dict[str, str | None] = {}
    for name in ("versions", "machine"):
        values = read.mapping(report[name], f"{where}: {name}", optional=None)
        for key, value in values.items():
            shown = str(value) if isinstance(value, int) else value
            known = None if value is None else read.text(shown, f"{where}: {key}", longest=200)
            origin[str(key)] = known
    return origin
