"""The surrogate's two paths agree, and its numbers are those of its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

import agents.policy_model
from agents.errors import ConfigError
from agents.functional import dependent_parameters, fisher_vector_product, flatten, mean_kl
from agents.mlp_structure import actor_mlp, critic_mlp
from agents.policy_model import MLPModel
from agents.surrogate import Surrogate

N = 24
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
CONTINUOUS = spaces.Box(-2.0, 2.0, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS: dict[str, gym.Space] = {
    "box": CONTINUOUS,
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-binary": spaces.MultiBinary(3),
}
OBSERVATIONS: dict[str, gym.Space] = {
    "box": VECTOR,
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3)}),
}


def make_policy(
    observation_space: gym.Space,
    action_space: gym.Space,
    cls: type[ActorCriticPolicy] | None = None,
    *,
    double: bool = True,
    **kwargs: object,
) -> ActorCriticPolicy:
    if cls is None:
        is_dict = isinstance(observation_space, spaces.Dict)
        cls = MultiInputActorCriticPolicy if is_dict else ActorCriticPolicy
    policy = cls(observation_space, action_space, lambda _: 1e-3, **kwargs)  # type: ignore[arg-type]
    with torch.no_grad():  # SB3's head starts near zero, where many mistakes would not show
        policy.action_net.weight.mul_(30.0)
        if hasattr(policy, "log_std") and isinstance(policy.log_std, nn.Parameter):
            policy.log_std.add_(torch.randn_like(policy.log_std) / 3.0)
    if double:  # SB3 casts observations to float32
        policy.double()
        policy.features_extractor.register_forward_hook(lambda _m, _i, features: features.double())
    return policy


def sample_observations(space: gym.Space) -> PyTorchObs:
    space.seed(3)
    samples = [space.sample() for _ in range(N)]
    if isinstance(space, spaces.Dict):
        stacked = {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
        return obs_as_tensor(stacked, torch.device("cpu"))
    return obs_as_tensor(np.stack(samples), torch.device("cpu"))


def make_surrogate(policy: ActorCriticPolicy, *, double: bool = True) -> Surrogate:
    return Surrogate(policy, *make_batch(policy, double=double))


def make_batch(
    policy: ActorCriticPolicy, *, double: bool = True
) -> tuple[PyTorchObs, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    observations = sample_observations(policy.observation_space)
    with torch.no_grad():
        actions = policy.get_distribution(observations).get_actions()
    dtype = torch.float64 if double else torch.float32
    return observations, actions, torch.randn(N, dtype=dtype)


def is_fast(surrogate: Surrogate) -> bool:
    return isinstance(surrogate._model, MLPModel)


def kl_to_itself(policy: ActorCriticPolicy, observations: PyTorchObs) -> torch.Tensor:
    with torch.no_grad():
        old = policy.get_distribution(observations).distribution
    return mean_kl(old, policy.get_distribution(observations).distribution)


def assert_is_the_autograd_product(policy: ActorCriticPolicy, surrogate: Surrogate) -> None:
    kl = kl_to_itself(policy, make_batch(policy)[0])
    reference = dependent_parameters(kl, policy.parameters())
    assert [id(p) for p in surrogate.parameters] == [id(p) for p in reference]
    expected = fisher_vector_product(kl, reference, 0.07)
    actual = surrogate.fisher_vector_product(0.07)
    for _ in range(3):
        vector = torch.randn(len(surrogate.point()), dtype=surrogate.point().dtype)
        torch.testing.assert_close(actual(vector), expected(vector), rtol=1e-9, atol=1e-12)


def assert_is_the_autograd_gradient(policy: ActorCriticPolicy, surrogate: Surrogate) -> None:
    observations, actions, advantages = make_batch(policy)
    log_prob = policy.get_distribution(observations).log_prob(actions)
    objective = (torch.exp(log_prob - log_prob.detach()) * advantages).mean()
    expected = flatten(torch.autograd.grad(objective, surrogate.parameters))
    torch.testing.assert_close(surrogate.gradient(), expected, rtol=1e-9, atol=1e-12)


def assert_measures_as_autograd(policy: ActorCriticPolicy, surrogate: Surrogate) -> None:
    observations, actions, advantages = make_batch(policy)
    with torch.no_grad():
        old = policy.get_distribution(observations).distribution
        old_log_prob = policy.get_distribution(observations).log_prob(actions)
        gain, kl = surrogate.evaluate(surrogate.point() + 0.01)
        distribution = policy.get_distribution(observations)
        ratio = torch.exp(distribution.log_prob(actions) - old_log_prob)
        expected_kl = float(mean_kl(old, distribution.distribution))
    assert gain == pytest.approx(float(((ratio - 1.0) * advantages).mean()), rel=1e-9)
    assert kl == pytest.approx(expected_kl, rel=1e-9)
    assert kl > 0.0


@pytest.mark.parametrize("observations", list(OBSERVATIONS))
@pytest.mark.parametrize("actions", list(ACTIONS))
def test_fast_path_is_the_autograd_path(observations: str, actions: str) -> None:
    policy = make_policy(OBSERVATIONS[observations], ACTIONS[actions])
    surrogate = make_surrogate(policy)
    assert is_fast(surrogate)
    assert_is_the_autograd_product(policy, surrogate)
    assert_is_the_autograd_gradient(policy, surrogate)
    assert_measures_as_autograd(policy, surrogate)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])
@pytest.mark.parametrize("net_arch", [[], [5], {"pi": [6, 5, 4], "vf": [3]}])
def test_fast_path_of_every_shape(activation: type[nn.Module], net_arch: object) -> None:
    policy = make_policy(VECTOR, CONTINUOUS, net_arch=net_arch, activation_fn=activation)
    surrogate = make_surrogate(policy)
    assert is_fast(surrogate)
    assert_is_the_autograd_product(policy, surrogate)


def every_third(observations: PyTorchObs) -> PyTorchObs:
    if isinstance(observations, dict):
        return {key: value[::3] for key, value in observations.items()}
    return observations[::3]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("observations", list(OBSERVATIONS))
@pytest.mark.parametrize("actions", list(ACTIONS))
def test_fisher_of_every_third_state(observations: str, actions: str, fast: bool) -> None:
    policy = make_policy(OBSERVATIONS[observations], ACTIONS[actions])
    states, taken, advantages = make_batch(policy)
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(agents.policy_model, "actor_mlp", lambda _policy: None)
        surrogate = Surrogate(policy, states, taken, advantages)
        part = Surrogate(policy, every_third(states), taken[::3], advantages[::3])
    assert is_fast(surrogate) == fast
    vector = torch.randn(len(surrogate.point()), dtype=torch.float64)
    actual = surrogate.fisher_vector_product(0.03, subsampling=3)(vector)
    expected = part.fisher_vector_product(0.03)(vector)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
    everything = surrogate.fisher_vector_product(0.03)(vector)
    assert not torch.allclose(actual, everything, rtol=1e-6)


class Shifted(ActorCriticPolicy):
    """Computes another distribution than SB3 would."""

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        distribution = super().get_distribution(obs)
        distribution.distribution.loc = torch.sin(distribution.distribution.loc)
        return distribution


def freeze_log_std(policy: ActorCriticPolicy) -> None:
    policy.log_std.requires_grad_(requires_grad=False)


def freeze_first_layer(policy: ActorCriticPolicy) -> None:
    for parameter in policy.mlp_extractor.policy_net[0].parameters():
        parameter.requires_grad_(requires_grad=False)


def drop_a_bias(policy: ActorCriticPolicy) -> None:
    policy.action_net.bias = None


def hook_a_layer(policy: ActorCriticPolicy) -> None:
    policy.action_net.register_forward_hook(lambda _module, _inputs, output: 2.0 * output)


def squash_the_head(policy: ActorCriticPolicy) -> None:
    policy.action_net = nn.Sequential(policy.action_net, nn.Tanh())


@pytest.mark.parametrize(
    "change", [freeze_log_std, freeze_first_layer, drop_a_bias, hook_a_layer, squash_the_head]
)
def test_an_unusual_policy_takes_the_general_path(
    change: Callable[[ActorCriticPolicy], None],
) -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    assert is_fast(make_surrogate(policy))
    change(policy)
    surrogate = make_surrogate(policy)
    assert not is_fast(surrogate)
    assert all(parameter.requires_grad for parameter in surrogate.parameters)
    assert_is_the_autograd_product(policy, surrogate)


@pytest.mark.parametrize(
    ("cls", "kwargs"), [(Shifted, {}), (ActorCriticPolicy, {"activation_fn": nn.GELU})]
)
def test_a_policy_of_ones_own_takes_the_general_path(
    cls: type[ActorCriticPolicy], kwargs: dict[str, object]
) -> None:
    policy = make_policy(VECTOR, CONTINUOUS, cls, **kwargs)
    surrogate = make_surrogate(policy)
    assert not is_fast(surrogate)
    assert_is_the_autograd_product(policy, surrogate)


@pytest.mark.parametrize("squash", [False, True])
def test_gsde_takes_the_general_path(squash: bool) -> None:
    policy = make_policy(VECTOR, CONTINUOUS, use_sde=True, squash_output=squash, double=False)
    policy.reset_noise()
    surrogate = make_surrogate(policy, double=False)
    assert not is_fast(surrogate)
    assert any(parameter is policy.log_std for parameter in surrogate.parameters)
    gradient = surrogate.gradient()
    assert torch.isfinite(gradient).all()
    curvature = float(gradient @ surrogate.fisher_vector_product(0.0)(gradient))
    assert curvature > 0.0
    assert surrogate.evaluate(surrogate.point()) == pytest.approx((0.0, 0.0), abs=1e-6)
    # The model's KL, ½ vᵀFv, is the measured one for a short step.
    step = gradient * math.sqrt(2e-4 / curvature)
    assert surrogate.evaluate(surrogate.point() + step)[1] == pytest.approx(1e-4, rel=0.1)


def test_a_cnn_takes_the_general_path_and_shares_its_extractor() -> None:
    policy = make_policy(IMAGE, spaces.Discrete(3), ActorCriticCnnPolicy, double=False)
    surrogate = make_surrogate(policy, double=False)
    assert not is_fast(surrogate)
    mine = {id(parameter) for parameter in surrogate.parameters}
    assert mine >= {id(parameter) for parameter in policy.features_extractor.parameters()}
    assert not mine & {id(parameter) for parameter in policy.value_net.parameters()}
    gradient = surrogate.gradient()
    curvature = float(gradient @ surrogate.fisher_vector_product(0.0)(gradient))
    step = gradient * math.sqrt(2e-4 / curvature)
    assert surrogate.evaluate(surrogate.point() + step)[1] == pytest.approx(1e-4, rel=0.1)


def test_the_critic_is_recognised_on_its_own() -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    policy.action_net = nn.Sequential(policy.action_net, nn.Tanh())
    assert actor_mlp(policy) is None
    assert critic_mlp(policy) is not None


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_gradient_is_the_slope_of_evaluate(actions: str) -> None:
    surrogate = make_surrogate(make_policy(VECTOR, ACTIONS[actions]))
    start, gradient = surrogate.point(), surrogate.gradient()
    for _ in range(3):
        direction = torch.randn_like(start)
        h = 1e-5
        ahead, _ = surrogate.evaluate(start + h * direction)
        behind, _ = surrogate.evaluate(start - h * direction)
        assert (ahead - behind) / (2 * h) == pytest.approx(
            float(gradient @ direction), rel=1e-5, abs=1e-8
        )


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_gradient_is_the_plain_policy_gradient(actions: str) -> None:
    policy = make_policy(VECTOR, ACTIONS[actions])
    surrogate = make_surrogate(policy)
    observations, taken, advantages = make_batch(policy)
    objective = (policy.get_distribution(observations).log_prob(taken) * advantages).mean()
    expected = flatten(torch.autograd.grad(objective, surrogate.parameters))
    torch.testing.assert_close(surrogate.gradient(), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_gradient_can_be_asked_for_twice(actions: str) -> None:
    surrogate = make_surrogate(make_policy(VECTOR, ACTIONS[actions]))
    assert torch.equal(surrogate.gradient(), surrogate.gradient())


@pytest.mark.parametrize("actions", list(ACTIONS))
def test_the_old_policy_gains_nothing_and_does_not_diverge(actions: str) -> None:
    surrogate = make_surrogate(make_policy(VECTOR, ACTIONS[actions]))
    start = surrogate.point()
    assert surrogate.evaluate(start + 0.1)[1] > 0.0
    assert surrogate.evaluate(start) == (0.0, 0.0)


def test_evaluate_is_the_definition() -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    surrogate = make_surrogate(policy)
    observations, actions, advantages = make_batch(policy)
    old = policy.get_distribution(observations)
    old_log_prob = old.log_prob(actions).detach()
    mean, scale = old.distribution.loc.detach(), old.distribution.scale.detach()
    gain, kl = surrogate.evaluate(surrogate.point() + 0.02)
    new = policy.get_distribution(observations)
    ratio = (new.log_prob(actions) - old_log_prob).exp()
    expected = ((ratio - 1.0) * advantages).mean().item()
    assert gain == pytest.approx(expected, rel=1e-9)
    # KL(old ‖ new) in closed form; the other order differs.
    m, s = new.distribution.loc.detach(), new.distribution.scale.detach()
    forward = (s / scale).log() + (scale**2 + (mean - m) ** 2) / (2 * s**2) - 0.5
    backward = (scale / s).log() + (s**2 + (mean - m) ** 2) / (2 * scale**2) - 0.5
    assert kl == pytest.approx(float(forward.sum(dim=1).mean()), rel=1e-9)
    assert abs(kl - float(backward.sum(dim=1).mean())) > 1e-6


def test_evaluate_writes_the_candidate() -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    surrogate = make_surrogate(policy)
    candidate = surrogate.point() + 0.25
    critic = flatten(policy.value_net.parameters()).detach()
    surrogate.evaluate(candidate)
    assert torch.equal(surrogate.point(), candidate)
    n_log_std = policy.log_std.numel()
    assert torch.equal(policy.log_std.detach(), candidate[:n_log_std])
    assert torch.equal(flatten(policy.value_net.parameters()).detach(), critic)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("actions", list(ACTIONS))
def test_a_broken_candidate_is_measured_as_not_finite(actions: str, bad: float) -> None:
    surrogate = make_surrogate(make_policy(VECTOR, ACTIONS[actions]))
    gain, kl = surrogate.evaluate(torch.full_like(surrogate.point(), bad))
    assert not math.isfinite(gain)
    assert not math.isfinite(kl)


def test_entropy_is_the_mean_over_states() -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    surrogate = make_surrogate(policy)
    expected = (policy.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().item()
    assert surrogate.entropy == pytest.approx(expected, rel=1e-9)


def test_a_policy_without_trainable_parameters_is_refused() -> None:
    policy = make_policy(VECTOR, CONTINUOUS)
    for parameter in policy.parameters():
        parameter.requires_grad_(requires_grad=False)
    with pytest.raises(ConfigError, match="frozen"):
        make_surrogate(policy)
