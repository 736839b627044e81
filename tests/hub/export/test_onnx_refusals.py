"""What `obs` → `actions` cannot say is refused, with a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.a3c import A3C
from agents.errors import ExportError
from hub.onnx_export import build_policy_onnx
from hub.onnx_graph.heads import action_bounds

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)


def _policy(observation: spaces.Space[Any], action: spaces.Space[Any]) -> ActorCriticPolicy:
    return ActorCriticPolicy(observation, action, lr_schedule=lambda _: 0.0)


def test_actions_that_do_not_start_at_zero() -> None:
    policy = _policy(VECTOR, spaces.Discrete(3, start=1))
    with pytest.raises(ExportError, match=r"The action is a Discrete\(3, start=1\).* subtract"):
        build_policy_onnx(policy)


def test_observations_that_do_not_start_at_zero() -> None:
    policy = _policy(spaces.MultiDiscrete([2, 2], start=[0, 5]), spaces.Discrete(3))
    with pytest.raises(ExportError, match=r"Observation 'obs' is a MultiDiscrete.* subtract"):
        build_policy_onnx(policy)


@pytest.mark.parametrize("algorithm", [RecurrentPPO, A3C])
def test_recurrent(agents: Any, algorithm: Any) -> None:
    model = algorithm("MlpLstmPolicy", agents.World("vector", "box"), device="cpu")
    with pytest.raises(ExportError, match=r"is recurrent: .*FrameStackObservation"):
        build_policy_onnx(model.policy)


class OwnPrediction(ActorCriticPolicy):
    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return -super()._predict(observation, deterministic)


def test_overridden_methods() -> None:
    policy = OwnPrediction(VECTOR, spaces.Discrete(2), lr_schedule=lambda _: 0.0)
    with pytest.raises(ExportError, match=r"overrides _predict\(\).* features_extractor_class"):
        build_policy_onnx(policy)


def test_overridden_methods_of_an_actor(agents: Any) -> None:
    model = SAC("MlpPolicy", agents.World("vector", "box"), buffer_size=10, device="cpu")
    actor = type(model.actor)
    model.actor.__class__ = type("Changed", (actor,), {"forward": actor.forward})
    with pytest.raises(ExportError, match=r"Changed overrides forward\(\)"):
        build_policy_onnx(model.policy)


class Renamed(ActorCriticPolicy):
    pass


def test_subclasses_that_change_nothing_are_taken() -> None:
    policy = Renamed(VECTOR, spaces.Discrete(2), lr_schedule=lambda _: 0.0)
    assert build_policy_onnx(policy).graph.output[0].name == "actions"


def test_unknown_policies() -> None:
    model = PPO("MlpPolicy", "Pendulum-v1", device="cpu")
    with pytest.raises(ExportError, match="Cannot export a FlattenExtractor; known are"):
        build_policy_onnx(model.policy.features_extractor)


def test_a_key_named_like_the_output() -> None:
    space = spaces.Dict({"actions": VECTOR, "other": VECTOR})
    policy_class = PPO.policy_aliases["MultiInputPolicy"]
    policy = policy_class(space, spaces.Discrete(2), lr_schedule=lambda _: 0.0)
    with pytest.raises(ExportError, match="'actions' is needed twice in the ONNX graph; rename"):
        build_policy_onnx(policy)


def test_bounds_of_float64_spaces_are_rounded_inwards() -> None:
    space = spaces.Box(
        np.array([-0.1, -0.3, -np.inf]), np.array([0.1, 0.3, np.inf]), dtype=np.float64
    )
    low, high = action_bounds(space)
    assert low.dtype == high.dtype == np.float32
    assert np.float64(np.float32(0.1)) > space.high[0]  # what plain rounding would give
    assert np.all(low.astype(np.float64) >= space.low)
    assert np.all(high.astype(np.float64) <= space.high)
    np.testing.assert_allclose(high, space.high, rtol=1e-7)
    np.testing.assert_allclose(low, space.low, rtol=1e-7)
