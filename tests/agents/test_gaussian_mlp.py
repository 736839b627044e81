"""Gradients by hand against autograd, and which policies they are for."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from torch import nn

from agents.functional import flatten
from agents.gaussian_mlp import GaussianMLP, find_gaussian_mlp

VECTOR = spaces.Box(-1.0, 1.0, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32)
N = 11

ARCHITECTURES: list[Any] = [[], [5], [6, 5], {"pi": [5, 4], "vf": []}, {"pi": [], "vf": [7]}]
every_network = pytest.mark.parametrize("layers", ARCHITECTURES, ids=str)
every_activation = pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])


def make(
    cls: type[ActorCriticPolicy] = ActorCriticPolicy,
    observation_space: gym.Space = VECTOR,
    action_space: gym.Space = ACTIONS,
    **kwargs: Any,
) -> ActorCriticPolicy:
    """Return a policy with random biases and deviations, where SB3 starts from constants."""
    policy = cls(observation_space, action_space, lambda _: 1e-3, **kwargs)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return policy


def networks_of(policy: ActorCriticPolicy) -> GaussianMLP:
    networks = find_gaussian_mlp(policy)
    assert networks is not None
    return networks


def mlp(parameters: list[torch.Tensor], activation: nn.Module, inputs: torch.Tensor) -> Any:
    hidden = inputs
    for layer, (weight, bias) in enumerate(zip(parameters[0::2], parameters[1::2], strict=True)):
        if layer > 0:
            hidden = activation(hidden)
        hidden = hidden @ weight.T + bias
    return hidden


@every_network
@every_activation
def test_the_gradient_is_autograds(layers: Any, activation: type[nn.Module]) -> None:
    networks = networks_of(make(net_arch=layers, activation_fn=activation))
    parameters = [p.detach().double().requires_grad_() for p in networks.parameters]
    inputs, actions = torch.randn(N, 4).double(), torch.randn(N, 3).double()
    w, u = torch.randn(N).double(), torch.randn(N).double()
    c = 0.37

    split = 1 + 2 * len(networks.actor.layers)
    mean = mlp(parameters[1:split], activation(), inputs)
    values = mlp(parameters[split:], activation(), inputs).flatten()
    distribution = torch.distributions.Normal(mean, parameters[0].exp().expand_as(mean))
    log_prob = distribution.log_prob(actions).sum(dim=1)
    entropy = distribution.entropy().sum(dim=1).mean()
    loss = w @ log_prob + u @ values + c * entropy
    expected = flatten(torch.autograd.grad(loss, parameters))

    sweep = networks.sweep(parameters, inputs, actions)
    close = {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(sweep.gradient(w, u, c), expected, **close)
    torch.testing.assert_close(sweep.log_prob, log_prob.detach(), **close)
    torch.testing.assert_close(sweep.values, values.detach(), **close)
    assert sweep.entropy == pytest.approx(entropy.item(), rel=1e-12)


@pytest.mark.parametrize("weights", ["log_prob", "values", "entropy"])
def test_each_part_of_the_gradient_is_its_own(weights: str) -> None:
    networks = networks_of(make(net_arch=[5]))
    sweep = networks.sweep(networks.parameters, torch.randn(N, 4), torch.randn(N, 3))
    ones, zeros = torch.ones(N), torch.zeros(N)
    gradient = sweep.gradient(
        ones if weights == "log_prob" else zeros,
        ones if weights == "values" else zeros,
        1.0 if weights == "entropy" else 0.0,
    )
    sizes = [parameter.numel() for parameter in networks.parameters]
    log_std, *others = torch.split(gradient, sizes)
    actor, critic = others[:4], others[4:]
    assert torch.equal(log_std, torch.ones(3)) == (weights == "entropy")
    assert any(part.any() for part in actor) == (weights == "log_prob")
    assert any(part.any() for part in critic) == (weights == "values")


@every_network
@every_activation
def test_a_sweep_is_what_the_policy_evaluates(layers: Any, activation: type[nn.Module]) -> None:
    policy = make(net_arch=layers, activation_fn=activation)
    networks = networks_of(policy)
    observations, actions = torch.randn(N, 4), torch.randn(N, 3)
    inputs = networks.actor.inputs(policy, observations)
    sweep = networks.sweep(networks.parameters, inputs, actions)
    with torch.no_grad():
        values, log_prob, entropy = policy.evaluate_actions(observations, actions)
    torch.testing.assert_close(sweep.values, values.flatten(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sweep.log_prob, log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.full((N,), sweep.entropy), entropy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.0, 1.0, (2, 3), np.float64),
        IMAGE,
        spaces.Discrete(5),
        spaces.MultiDiscrete([2, 3]),
    ],
    ids=["matrix", "image", "discrete", "multi-discrete"],
)
def test_every_flat_observation_is_understood(space: gym.Space) -> None:
    policy = make(observation_space=space)
    networks = networks_of(policy)
    space.seed(0)
    observations = torch.as_tensor(np.stack([space.sample() for _ in range(N)]))
    actions = torch.randn(N, 3)
    inputs = networks.actor.inputs(policy, observations)
    sweep = networks.sweep(networks.parameters, inputs, actions)
    with torch.no_grad():
        values, log_prob, _ = policy.evaluate_actions(observations, actions)
    torch.testing.assert_close(sweep.values, values.flatten(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sweep.log_prob, log_prob, rtol=1e-4, atol=1e-4)


def test_the_parameters_are_all_of_them_once() -> None:
    policy = make()
    body = policy.mlp_extractor
    expected = [
        policy.log_std,
        *body.policy_net.parameters(),
        *policy.action_net.parameters(),
        *body.value_net.parameters(),
        *policy.value_net.parameters(),
    ]
    parameters = networks_of(policy).parameters
    assert [id(p) for p in parameters] == [id(p) for p in expected]
    assert {id(p) for p in parameters} == {id(p) for p in policy.parameters()}


class OwnEvaluation(ActorCriticPolicy):
    """Asks for less exploration than it says."""

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        return values, log_prob, 0.5 * entropy


class OwnDistribution(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi: torch.Tensor) -> Any:
        return super()._get_action_dist_from_latent(0.5 * latent_pi)


class OwnValues(ActorCriticPolicy):
    def predict_values(self, obs: Any) -> torch.Tensor:
        return 2.0 * super().predict_values(obs)


class ExtraParameter(ActorCriticPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize("cls", [OwnEvaluation, OwnDistribution, OwnValues, ExtraParameter])
def test_policies_with_ways_of_their_own_are_not_for_it(cls: type[ActorCriticPolicy]) -> None:
    assert find_gaussian_mlp(make(cls)) is None


@pytest.mark.parametrize(
    "kwargs",
    [
        {"use_sde": True},
        {"share_features_extractor": False},
        {"activation_fn": nn.LeakyReLU},
        {"cls": ActorCriticCnnPolicy, "observation_space": IMAGE},
        {
            "cls": MultiInputActorCriticPolicy,
            "observation_space": spaces.Dict({"image": IMAGE, "vector": VECTOR}),
        },
        {"action_space": spaces.Discrete(3)},
        {"action_space": spaces.MultiDiscrete([2, 3])},
        {"action_space": spaces.MultiBinary(3)},
    ],
    ids=["gsde", "unshared", "activation", "cnn", "dict", "discrete", "multi", "binary"],
)
def test_uncommon_policies_are_not_for_it(kwargs: dict[str, Any]) -> None:
    assert find_gaussian_mlp(make(**kwargs)) is None


@pytest.mark.parametrize("frozen", ["log_std", "actor", "critic"])
def test_frozen_parameters_are_not_for_it(frozen: str) -> None:
    policy = make()
    chosen = {
        "log_std": policy.log_std,
        "actor": policy.action_net.weight,
        "critic": policy.value_net.bias,
    }[frozen]
    chosen.requires_grad_(requires_grad=False)
    assert find_gaussian_mlp(policy) is None


def test_hooked_layers_are_not_for_it() -> None:
    policy = make()
    handle = policy.action_net.register_forward_hook(lambda *_: None)
    assert find_gaussian_mlp(policy) is None
    handle.remove()
    assert find_gaussian_mlp(policy) is not None


def test_a_shared_extractor_without_parameters_is() -> None:
    assert find_gaussian_mlp(make(share_features_extractor=True)) is not None
    assert find_gaussian_mlp(make(ortho_init=False, log_std_init=-1.0)) is not None
