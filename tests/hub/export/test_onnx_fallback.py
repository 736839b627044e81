"""Networks that are not SB3's: traced by torch, inside the same file."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents.errors import ExportError
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.onnx_graph.graph import GraphBuilder, Tensor
from hub.onnx_graph.lowering import TracedNode, lower


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


class Pooled(BaseFeaturesExtractor):
    """A stack of known layers: a convolution without zeros around it, groups, a global mean."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 4)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding="same", groups=2, bias=False),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers(observations)


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


class Gated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(x) + x


@pytest.mark.parametrize("activation", [nn.Softsign, Gated])
def test_own_activation(agents: Any, activation: type[nn.Module]) -> None:
    model = _make(agents, "vector", activation_fn=activation)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 64))


def test_own_convolution(agents: Any) -> None:
    """Padding, dilation, pooling: not SB3's, but computed in both precisions."""
    model = _make(agents, "image", "CnnPolicy", features_extractor_class=Convolution)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 16))


def test_pooled_convolution(agents: Any) -> None:
    model = _make(agents, "image", "CnnPolicy", features_extractor_class=Pooled)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 16))


@pytest.mark.parametrize(
    "activation", [partial(nn.ELU, alpha=0.3), partial(nn.Hardtanh, -0.2, 0.7), nn.Dropout]
)
def test_activations_with_settings(agents: Any, activation: Any) -> None:
    model = _make(agents, "vector", activation_fn=activation)
    agents.assert_parity(model.policy, None, agents.sample(model.observation_space, 64))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _either(x)


@torch.jit.script_if_tracing
def _either(x: torch.Tensor) -> torch.Tensor:
    if bool(x.sum() > 0):  # of the whole batch: one observation's action would depend on another
        return x
    return -x


def test_branches_are_refused(agents: Any) -> None:
    model = _make(agents, "vector", activation_fn=Branching)
    with pytest.raises(ExportError, match=r"branches on its input \(If\), .* torch\.where"):
        build_policy_onnx(model.policy)


def _conv_node(names: list[str], constants: list[Any], shape: Any) -> TracedNode:
    node = onnx.helper.make_node("Conv", names, ["y"])
    return TracedNode(node, names, constants, [shape, None])


def test_what_cannot_be_written_in_float64_is_refused() -> None:
    kernel = np.ones((1, 2, 3, 3))
    builder = GraphBuilder("float64")
    with pytest.raises(ExportError, match="shape that Conv is given is not known; export float32"):
        lower(builder, _conv_node(["x", "w"], [None, kernel], None), "s")
    with pytest.raises(ExportError, match="weights of Conv depend on the observation"):
        lower(builder, _conv_node(["x", "w"], [None, None], (2, 5, 5)), "s")
    assert lower(GraphBuilder("float32"), _conv_node(["x", "w"], [None, None], None), "s") is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "SAME_UPPER", "strides": [2, 1]},
        {"auto_pad": "SAME_LOWER", "strides": [1, 3]},
        {"auto_pad": "VALID", "dilations": [2, 1]},
        {"pads": [0, 1, 2, 3], "strides": [2, 2]},
    ],
)
def test_convolutions_are_those_of_onnx(agents: Any, attributes: dict[str, Any]) -> None:
    """Of whole numbers, so that float32 is exact."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-3, 4, (3, 2, 4, 2)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    images = rng.integers(-5, 6, (4, 2, 7, 6)).astype(np.float32)
    results = []
    for builder in (GraphBuilder("float32"), GraphBuilder("float64")):
        image = builder.input("x", builder.elem_type, (2, 7, 6))
        builder.real("w", kernel)
        traced = TracedNode(node, ["x", "w"], [None, kernel], [image.shape, None])
        name = lower(builder, traced, "s")
        if name is None:
            builder.splice(node)
            name = "y"
        flat = builder.node("Flatten", [name], "flat", (1,), axis=1)
        builder.output("values", builder.elem_type, Tensor(flat.name, ("n",)))
        results.append(agents.run_onnx(builder.model({}, "a convolution"), {"x": images}, "values"))
    assert results[1].dtype == np.float64
    np.testing.assert_array_equal(*results)


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
