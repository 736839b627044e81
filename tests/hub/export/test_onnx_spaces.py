"""Every space and every policy: the file does what SB3 does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import TQC
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

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
