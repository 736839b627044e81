"""Every space and every policy: the file does what SB3 does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import TQC
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents.errors import UnknownName
from hub.onnx_export import build_policy_onnx

N = 96


@pytest.mark.parametrize("action", ["asymmetric", "discrete"])
@pytest.mark.parametrize(
    "observation",
    list(
        (
            "vector",
            "matrix",
            "discrete",
            "multi-discrete",
            "multi-binary",
            "multi-binary-matrix",
            "bytes",
        )
    ),
)
def test_vectors(agents: Any, observation: str, action: str) -> None:
    model = A2C("MlpPolicy", agents.World(observation, action), device="cpu")
    space = model.observation_space
    normalizer = agents.statistics(space) if isinstance(space, spaces.Box) else None
    actions = agents.assert_parity(
        agents.enlarge(model.policy), normalizer, agents.sample(space, N)
    )
    assert len(np.unique(actions)) > 1  # a constant would agree, too


@pytest.mark.parametrize("action", ["box", "multi-discrete", "multi-binary"])
def test_actions(agents: Any, action: str) -> None:
    model = PPO("MlpPolicy", agents.World("vector", action), device="cpu")
    policy = agents.enlarge(model.policy)
    observations = agents.sample(model.observation_space, N)
    actions = agents.assert_parity(policy, agents.statistics(model.observation_space), observations)
    assert len(np.unique(actions, axis=0)) > 3
    assert all(model.action_space.contains(one) for one in actions)


@pytest.mark.parametrize("action", ["half-open", "unbounded"])
def test_infinite_bounds(agents: Any, action: str) -> None:
    space = agents.OBSERVATIONS["vector"]
    policy = ActorCriticPolicy(space, agents.ACTIONS[action], lr_schedule=lambda _: 0.0)
    actions = agents.assert_parity(agents.enlarge(policy), None, agents.sample(space, N))
    assert abs(actions).max() > 1.0


@pytest.mark.parametrize(
    ("algorithm", "action"),
    [(A2C, "box"), (PPO, "multi-discrete"), (SAC, "asymmetric"), (DQN, "discrete")],
)
@pytest.mark.parametrize("observation", ["image", "dict"])
def test_images_and_dicts(agents: Any, algorithm: Any, action: str, observation: str) -> None:
    policy = "CnnPolicy" if observation == "image" else "MultiInputPolicy"
    size = "features_dim" if observation == "image" else "cnn_output_dim"
    options: dict[str, Any] = {"policy_kwargs": {"features_extractor_kwargs": {size: 24}}}
    if algorithm in (SAC, DQN):
        options["buffer_size"] = 10
    model = algorithm(policy, agents.World(observation, action), device="cpu", **options)
    normalizer = None
    if observation == "dict":  # some keys are normalised, the others pass
        normalizer = agents.statistics(model.observation_space, ("grid", "obs"))
    agents.assert_parity(
        agents.enlarge(model.policy, 1.5), normalizer, agents.sample(model.observation_space, 24)
    )


@pytest.mark.parametrize(
    ("algorithm", "action", "options"),
    [
        (SAC, "asymmetric", {}),
        (SAC, "box", {"use_sde": True}),
        (TQC, "asymmetric", {}),
        (TQC, "box", {"use_sde": True}),
        (TD3, "asymmetric", {}),
        (DQN, "discrete", {}),
    ],
)
def test_off_policy(agents: Any, algorithm: Any, action: str, options: dict[str, Any]) -> None:
    model = algorithm(
        "MlpPolicy", agents.World("vector", action), device="cpu", buffer_size=10, **options
    )
    policy = agents.enlarge(model.policy, 1.5)
    normalizer = agents.statistics(model.observation_space)
    actions = agents.assert_parity(policy, normalizer, agents.sample(model.observation_space, N))
    assert len(np.unique(actions, axis=0)) > 3


@pytest.mark.parametrize("squash", [False, True])
def test_gsde(agents: Any, squash: bool) -> None:
    model = PPO(
        "MlpPolicy",
        agents.World("vector", "asymmetric"),
        use_sde=True,
        policy_kwargs={"squash_output": squash},
        device="cpu",
    )
    policy = agents.enlarge(model.policy)
    agents.assert_parity(
        policy,
        agents.statistics(model.observation_space),
        agents.sample(model.observation_space, N),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"activation_fn": nn.ReLU, "net_arch": [32]},
        {"activation_fn": nn.ELU, "net_arch": {"pi": [16, 24, 8], "vf": []}},
        {"activation_fn": nn.SiLU, "net_arch": []},
        {"activation_fn": nn.LeakyReLU, "share_features_extractor": False},
        {"activation_fn": nn.Sigmoid},
        {"activation_fn": nn.Identity},
        {"activation_fn": nn.ReLU6},
    ],
)
def test_networks(agents: Any, options: dict[str, Any]) -> None:
    model = PPO("MlpPolicy", agents.World("vector", "box"), policy_kwargs=options, device="cpu")
    policy = agents.enlarge(model.policy)
    agents.assert_parity(policy, None, agents.sample(model.observation_space, N))


def test_images_as_the_environment_gives_them(agents: Any) -> None:
    """SB3 turns channels-last images round outside the policy; the file does it inside."""
    model = A2C("CnnPolicy", agents.World("image", "asymmetric"), device="cpu")
    policy = agents.enlarge(model.policy, 1.5)
    observations = agents.sample(model.observation_space, 8)
    for dtype in ("float32", "float64"):
        turned = build_policy_onnx(policy, dtype=dtype, transposed_images=("obs",))
        (given,) = turned.graph.input
        assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [0, 36, 36, 2]
        np.testing.assert_array_equal(
            agents.run_onnx(turned, np.moveaxis(observations, 1, -1)),
            agents.run_onnx(build_policy_onnx(policy, dtype=dtype), observations),
        )
    properties = {entry.key: entry.value for entry in turned.metadata_props}
    assert properties["image_layout"] == "HWC"
    assert json.loads(properties["observation_space"])["shape"] == [36, 36, 2]


def test_images_of_a_dict_as_the_environment_gives_them(agents: Any) -> None:
    model = A2C("MultiInputPolicy", agents.World("dict", "asymmetric"), device="cpu")
    observations = agents.sample(model.observation_space, 8)
    expected = agents.run_onnx(build_policy_onnx(model.policy), observations)
    turned = build_policy_onnx(model.policy, transposed_images=["obs.camera"])
    observations["camera"] = np.moveaxis(observations["camera"], 1, -1)
    np.testing.assert_array_equal(agents.run_onnx(turned, observations), expected)
    with pytest.raises(
        UnknownName, match=r"Unknown image 'obs\.kamera'. Did you mean 'obs\.camera'"
    ):
        build_policy_onnx(model.policy, transposed_images=["obs.kamera"])


def test_numbers_that_hardly_change(agents: Any) -> None:
    """A mean that float32 rounds by more than the deviation is subtracted in two parts."""
    model = A2C("MlpPolicy", agents.World("vector", "box"), device="cpu")
    policy = agents.enlarge(model.policy)
    normalizer = agents.statistics(model.observation_space)
    normalizer.arrays["obs.mean"][2] = 8.9074626
    normalizer.arrays["obs.var"][2] = 1e-12
    observations = agents.sample(model.observation_space, N).astype(np.float32)
    steps = np.linspace(-3e-5, 3e-5, N)
    observations[:, 2] = (8.9074626 + steps).astype(np.float32)
    agents.assert_parity(policy, normalizer, observations.astype(np.float64))
    names = [entry.name for entry in build_policy_onnx(policy, normalizer).graph.initializer]
    assert "obs.mean_rest" in names
    double = build_policy_onnx(policy, normalizer, dtype="float64")
    assert "obs.mean_rest" not in [entry.name for entry in double.graph.initializer]


def test_silu_is_not_fused(agents: Any) -> None:
    """ONNX Runtime up to 1.20 makes QuickGelu of ``x sigmoid(x)`` and cannot compute that."""
    options = {"activation_fn": nn.SiLU}
    model = PPO("MlpPolicy", agents.World("vector", "box"), policy_kwargs=options, device="cpu")
    operators = {node.op_type for node in build_policy_onnx(model.policy).graph.node}
    assert "Sigmoid" not in operators
    assert {"Exp", "Div"} <= operators
