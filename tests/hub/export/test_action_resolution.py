"""The grid of float64 actions: what different runtimes round to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO, SAC

from hub.onnx_export import build_policy_onnx
from hub.onnx_graph.heads import action_resolution


def test_steps() -> None:
    high = np.array([1.0, 0.5, 0.4, 3.0, 1e10, np.inf, 0.0], dtype=np.float32)
    space = spaces.Box(-high, high)
    steps = [2.0**-20, 2.0**-21, 2.0**-21, 2.0**-20, 2.0**-20, 2.0**-20, 2.0**-20]
    assert action_resolution(space).tolist() == steps
    assert action_resolution(spaces.Box(-0.1, 0.26, (1,))).tolist() == [2.0**-21]


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_actions_are_whole_steps(agents: Any, algorithm: Any) -> None:
    options = {"buffer_size": 10} if algorithm is SAC else {}
    model = algorithm("MlpPolicy", agents.World("vector", "asymmetric"), device="cpu", **options)
    agents.enlarge(model.policy, 1.0)
    file = build_policy_onnx(model.policy, dtype="float64")
    actions = agents.run_onnx(file, agents.sample(model.observation_space, 300))
    space = model.action_space
    steps = actions / action_resolution(space).reshape(space.shape)
    inside = (actions > space.low) & (actions < space.high)
    assert inside.sum() > 300
    np.testing.assert_array_equal(steps[inside], np.rint(steps[inside]))
    assert all(space.contains(one) for one in actions)


def test_why_there_is_a_grid() -> None:
    """Float32 has boundaries without end near zero: noise of 1e-12 crosses many more of them."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1.0, 1.0, 2_000_000) * rng.uniform(0.0, 1.0, 2_000_000) ** 4
    noisy = values + 1e-12 * rng.normal(size=values.shape)
    step = action_resolution(spaces.Box(-1.0, 1.0, (1,)))[0]
    differ_in_float32 = np.sum(values.astype(np.float32) != noisy.astype(np.float32))
    differ_on_grid = np.sum(np.rint(values / step) != np.rint(noisy / step))
    assert differ_in_float32 > 100
    assert differ_on_grid < differ_in_float32 / 30
