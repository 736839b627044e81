"""Environments whose numbers can be worked out by hand, and ways to make them in a worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agents.a3c import A3C

# A worker's process may not be able to import this file: its classes travel with the pickle.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Script(gym.Env[Any, Any]):
    """Plays back rewards; observations count the steps.

    :param rewards: of the steps, again from the start after an end.
    :param ends: ``{step: "terminated" or "truncated"}``.
    """

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)

    def __init__(
        self,
        rewards: Sequence[float] = (1.0,),
        ends: dict[int, str] | None = None,
        action_space: gym.Space[Any] | None = None,
    ) -> None:
        self.rewards = rewards
        self.ends = {19: "truncated"} if ends is None else ends
        self.action_space = action_space or spaces.Discrete(2)
        self.n_steps = 0

    def observe(self) -> np.ndarray[Any, Any]:
        return np.array([0.1 * self.n_steps, 1.0 - 0.2 * self.n_steps], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward, end = self.rewards[self.n_steps % len(self.rewards)], self.ends.get(self.n_steps)
        self.n_steps += 1
        return self.observe(), reward, end == "terminated", end == "truncated", {}


class Guess(gym.Env[Any, Any]):
    """Shows one of four numbers and rewards repeating it; 20 steps an episode."""

    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self.show(), {}

    def show(self) -> int:
        self.number = int(self.np_random.integers(4))
        return self.number

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.number)
        self.n_steps += 1
        return self.show(), reward, False, self.n_steps >= 20, {}


@pytest.fixture
def script() -> type[Script]:
    return Script


@pytest.fixture
def guess() -> type[Guess]:
    return Guess


@pytest.fixture
def make_crew() -> Iterator[Callable[..., A3C]]:
    """Make an A3C agent with workers; at the end no process of any is left."""
    import multiprocessing

    def make(env: Callable[[], gym.Env[Any, Any]] = Guess, **kwargs: Any) -> A3C:
        settings: dict[str, Any] = {"n_workers": 2, "n_steps": 8, "seed": 1, "worker_env": env}
        return A3C("MlpPolicy", env(), **(settings | kwargs))

    yield make
    assert multiprocessing.active_children() == []
