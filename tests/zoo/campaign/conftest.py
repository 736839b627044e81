"""Results that no training made, for tests of what is told about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from zoo.campaign.results import Result
from zoo.config import resolve_config


@pytest.fixture(scope="session")
def make_results() -> Callable[..., list[Result]]:
    """Return ``make_results(algo, env_id, means, …)``: one result per mean, its episodes ±1."""

    def make(
        algo: str,
        env_id: str,
        means: Sequence[float],
        *,
        n_timesteps: int = 1_000_000,
        seconds: float = 120.0,
        errors: Sequence[str] = (),
    ) -> list[Result]:
        results = []
        for index, outcome in enumerate([*means, *errors]):
            config = resolve_config(
                algo, env_id, seed=100_000 + 1_000 * index, n_timesteps=n_timesteps, device="cpu"
            )
            result = Result(
                config=dataclasses.asdict(config),
                attempts=["a" * 40],
                versions={"mujoco": "3.14.0", "envpool": None},
                machine={"processor": "Test"},
            )
            if isinstance(outcome, str):
                results.append(dataclasses.replace(result, error=outcome))
                continue
            changes = {
                "n_timesteps": n_timesteps,
                "seconds": seconds + index,
                "returns": (outcome - 1.0, outcome + 1.0),
                "lengths": (10, 10),
                "curve": ((500_000, (0.0, outcome)), (1_000_000, (outcome, outcome))),
            }
            results.append(dataclasses.replace(result, **changes))
        return results

    return make
