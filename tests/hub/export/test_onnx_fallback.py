"""Networks that are not SB3's: traced by torch, inside the same file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents.errors import ExportError
from hub.onnx_export import build_policy_onnx, onnx_bytes


class Normed(BaseFeaturesExtractor):
    """Statistics of a batch (frozen when acting), LayerNorm, and a gate."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 6)
        self.batch = nn.BatchNorm1d(5)
        self.layer = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.batch.running_mean.copy_(torch.arange(5.0))
        self.batch.running_var.copy_(torch.arange(1.0, 6.0))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.layer(self.batch(observations)))
        return torch.where(hidden > 0, hidden, 0.3 * torch.tanh(hidden))


class OfDict(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, 7)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([observations["obs"] * 2.0, observations["gear"]], dim=1)


class Convolution(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 12)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, 5, stride=(4, 6), padding=(1, 2), dilation=2),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers(observations).repeat(1, 4)[:, :12]


class Halves(nn.Module):
    """Somebody's own ``mlp_extractor``."""

    latent_dim_pi = latent_dim_vf = 4

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(n_features, 4), nn.Linear(n_features, 4)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return self.actor(features).abs()

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.critic(features)


class OwnHalves(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Halves(self.features_dim)  # type: ignore[assignment]


def _make(agents: Any, observation: str, policy: Any = "MlpPolicy", **kwargs: Any) -> PPO:
    model = PPO(policy, agents.World(observation, "box"), policy_kwargs=kwargs, device="cpu")
    agents.enlarge(model.policy)
    return model


def test_own_extractor(agents: Any) -> None:
    model = _make(agents, "vector", features_extractor_class=Normed)
    nn.init.ones_(model.policy.features_extractor.norm.weight)
    space = model.observation_space
    actions = agents.assert_parity(model.policy, agents.statistics(space), agents.sample(space, 64))
    assert len(np.unique(actions, axis=0)) > 10


def test_own_extractor_of_a_dict(agents: Any) -> None:
    model = _make(agents, "dict", "MultiInputPolicy", features_extractor_class=OfDict)
    normalizer = agents.statistics(model.observation_space, ("obs",))
    actions = agents.assert_parity(
        model.policy, normalizer, agents.sample(model.observation_space, 64)
    )
    assert len(np.unique(actions, axis=0)) > 10


def test_own_mlp_extractor(agents: Any) -> None:
    model = _make(agents, "vector", OwnHalves)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 64))


def test_own_activation(agents: Any) -> None:
    model = _make(agents, "vector", activation_fn=nn.Softsign)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 64))


def test_own_convolution(agents: Any) -> None:
    """Padding, dilation, pooling: not SB3's, but computed in both precisions."""
    model = _make(agents, "image", "CnnPolicy", features_extractor_class=Convolution)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 16))


def test_traced_files_are_clean(agents: Any) -> None:
    model = _make(agents, "vector", features_extractor_class=Normed)
    content = onnx_bytes(build_policy_onnx(model.policy))
    assert content == onnx_bytes(build_policy_onnx(model.policy))
    assert b"features/" in content
    for trace in (b".py", b"/home", b"/root", b"torch", b"Normed"):
        assert trace not in content


def test_what_float64_cannot_hold_is_refused(agents: Any) -> None:
    model = _make(agents, "vector", activation_fn=nn.GELU)
    observations = agents.sample(model.observation_space, 16)
    actions = agents.run_onnx(build_policy_onnx(model.policy), observations)
    expected = agents.run_sb3(model.policy, None, observations)
    np.testing.assert_allclose(actions, expected, atol=1e-5)
    with pytest.raises(ExportError, match=r"operator Erf, which ONNX Runtime cannot compute in fl"):
        build_policy_onnx(model.policy, dtype="float64")


class Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x.T @ x).real.sum() * x


def test_what_torch_cannot_trace_is_refused(agents: Any) -> None:
    model = _make(agents, "vector", activation_fn=Eigenvalues)
    with pytest.raises(ExportError, match=re.escape("Cannot trace Eigenvalues in float32: ")):
        build_policy_onnx(model.policy)
