"""Fitting the critic: it learns what it should and leaves the policy alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from torch import nn

from agents import critic, critic_values
from agents.critic import critic_parameters, fit_adam
from agents.functional import flatten
from agents.gauss_newton import fit_gauss_newton
from agents.surrogate import Surrogate

N = 40
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)

Fit = Callable[[ActorCriticPolicy, list[nn.Parameter], torch.Tensor, torch.Tensor], float]


def adam(
    policy: ActorCriticPolicy, parameters: list[nn.Parameter], obs: torch.Tensor, y: torch.Tensor
) -> float:
    return fit_adam(policy, parameters, obs, y, n_epochs=3, batch_size=16)


def gauss_newton(
    policy: ActorCriticPolicy, parameters: list[nn.Parameter], obs: torch.Tensor, y: torch.Tensor
) -> float:
    return fit_gauss_newton(policy, parameters, obs, y, n_steps=3, damping=0.1)


both_critics = pytest.mark.parametrize("fit", [adam, gauss_newton])


def make(
    observation_space: gym.Space = VECTOR,
    cls: type[ActorCriticPolicy] = ActorCriticPolicy,
    **kwargs: object,
) -> tuple[ActorCriticPolicy, list[nn.Parameter], torch.Tensor, torch.Tensor]:
    """Return a policy, its critic's parameters, a batch of observations and returns."""
    policy = cls(observation_space, ACTIONS, lambda _: 1e-3, **kwargs)  # type: ignore[arg-type]
    observation_space.seed(0)
    observations = torch.as_tensor(np.stack([observation_space.sample() for _ in range(N)]))
    with torch.no_grad():
        actions = policy.get_distribution(observations).get_actions()
    surrogate = Surrogate(policy, observations, actions, torch.randn(N))
    parameters = critic_parameters(policy, observations, surrogate.parameters)
    return policy, parameters, observations, 3.0 + torch.randn(N)


def others(policy: nn.Module, parameters: list[nn.Parameter]) -> torch.Tensor:
    mine = {id(parameter) for parameter in parameters}
    return flatten(p.detach() for p in policy.parameters() if id(p) not in mine)


def loss(policy: ActorCriticPolicy, observations: torch.Tensor, returns: torch.Tensor) -> float:
    with torch.no_grad():
        values = policy.predict_values(observations).flatten().double()
    return float(((values - returns.double()) ** 2).mean())


def test_the_critics_parameters_are_those_of_the_value_network() -> None:
    policy, parameters, *_ = make()
    expected = [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]
    assert [id(p) for p in parameters] == [id(p) for p in expected]


def test_a_shared_extractor_belongs_to_the_policy() -> None:
    policy, parameters, *_ = make(IMAGE, ActorCriticCnnPolicy)
    assert [id(p) for p in parameters] == [id(p) for p in policy.value_net.parameters()]


def test_a_critic_with_its_own_extractor_trains_it() -> None:
    policy, parameters, *_ = make(IMAGE, ActorCriticCnnPolicy, share_features_extractor=False)
    mine = {id(parameter) for parameter in parameters}
    assert mine >= {id(parameter) for parameter in policy.vf_features_extractor.parameters()}
    assert not mine & {id(parameter) for parameter in policy.pi_features_extractor.parameters()}


@both_critics
@pytest.mark.parametrize(
    ("space", "cls"), [(VECTOR, ActorCriticPolicy), (IMAGE, ActorCriticCnnPolicy)]
)
def test_the_policy_does_not_move(fit: Fit, space: gym.Space, cls: type[ActorCriticPolicy]) -> None:
    policy, parameters, observations, returns = make(space, cls)
    before = others(policy, parameters)
    critic_before = flatten(p.detach() for p in parameters)
    # Left-over gradients and optimiser state of the policy must not move it either.
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    fit(policy, parameters, observations, returns)
    assert torch.equal(others(policy, parameters), before)
    assert not torch.equal(flatten(p.detach() for p in parameters), critic_before)


@both_critics
def test_the_loss_falls(fit: Fit) -> None:
    policy, parameters, observations, returns = make()
    before = loss(policy, observations, returns)
    fit(policy, parameters, observations, returns)
    assert loss(policy, observations, returns) < before


def test_adam_is_the_plain_loop() -> None:
    policy, parameters, observations, returns = make()
    twin = make()[0]
    twin.load_state_dict(policy.state_dict())
    torch.manual_seed(7)
    reported = adam(policy, parameters, observations, returns)

    torch.manual_seed(7)
    twins = [*twin.mlp_extractor.value_net.parameters(), *twin.value_net.parameters()]
    optimizer = torch.optim.Adam(twins, lr=1e-3, eps=1e-5)  # SB3's defaults
    losses = []
    for _ in range(3):
        order = torch.randperm(N)
        for start in range(0, N, 16):
            index = order[start : start + 16]
            error = twin.predict_values(observations[index]).flatten() - returns[index]
            minibatch_loss = (error**2).mean()
            optimizer.zero_grad()
            minibatch_loss.backward()
            optimizer.step()
            losses.append(minibatch_loss.item())
    torch.testing.assert_close(flatten(parameters), flatten(twins), rtol=1e-5, atol=1e-7)
    assert reported == pytest.approx(np.mean(losses), rel=1e-5)


def copies(**kwargs: object) -> tuple[ActorCriticPolicy, ActorCriticPolicy]:
    """Return two policies with the same parameters."""
    policy, twin = make(**kwargs)[0], make(**kwargs)[0]
    twin.load_state_dict(policy.state_dict())
    return policy, twin


def value_parameters(policy: ActorCriticPolicy) -> list[nn.Parameter]:
    return [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]


def fit_both_ways(
    policy: ActorCriticPolicy,
    twin: ActorCriticPolicy,
    observations: torch.Tensor,
    returns: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[float, float]:
    """Fit ``policy`` by hand and ``twin`` by torch's own loop, in the same random order."""

    def no_hand(*_: object, **__: object) -> float:
        raise AssertionError("torch's loop was asked for")

    sizes = {"n_epochs": 5, "batch_size": 16}
    torch.manual_seed(7)
    by_hand = fit_adam(policy, value_parameters(policy), observations, returns, **sizes)
    with monkeypatch.context() as patch:
        patch.setattr(critic_values, "critic_mlp", lambda _policy: None)
        patch.setattr(critic, "_fit_adam_by_hand", no_hand)
        torch.manual_seed(7)
        by_torch = fit_adam(twin, value_parameters(twin), observations, returns, **sizes)
    return by_hand, by_torch


def assert_same_state(policy: ActorCriticPolicy, twin: ActorCriticPolicy) -> None:
    """Compare parameters and the optimiser's state; the policy's own parameters have none."""
    torch.testing.assert_close(
        flatten(policy.parameters()), flatten(twin.parameters()), rtol=1e-6, atol=1e-6
    )
    mine, expected = policy.optimizer.state_dict(), twin.optimizer.state_dict()
    assert mine["param_groups"] == expected["param_groups"]
    assert set(mine["state"]) == set(expected["state"])
    assert len(expected["state"]) == len(value_parameters(twin))
    for index, state in expected["state"].items():
        assert set(mine["state"][index]) == set(state)
        assert mine["state"][index]["step"] == state["step"]
        for key, value in state.items():
            torch.testing.assert_close(mine["state"][index][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])
@pytest.mark.parametrize("layers", [[], [8], [8, 8]])
def test_adam_is_the_same_by_hand_and_by_torch(
    activation: type[nn.Module], layers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, twin = copies(net_arch=layers, activation_fn=activation)
    _, _, observations, returns = make()
    start = flatten(p.detach() for p in value_parameters(policy))
    for call in range(1, 4):
        by_hand, by_torch = fit_both_ways(policy, twin, observations, returns, monkeypatch)
        assert by_hand == pytest.approx(by_torch, rel=1e-5)
        assert_same_state(policy, twin)
        steps = {int(state["step"]) for state in policy.optimizer.state.values()}
        assert steps == {call * 5 * 3}  # minibatches of 16, 16 and 8
    assert not torch.equal(flatten(value_parameters(policy)), start)


def test_adam_by_hand_and_by_torch_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, twin = copies()
    _, _, observations, returns = make()
    fit_both_ways(policy, twin, observations, returns, monkeypatch)
    fit_both_ways(twin, policy, observations, returns, monkeypatch)
    assert_same_state(policy, twin)


def test_adam_goes_on_from_a_saved_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, twin = copies()
    _, _, observations, returns = make()
    fit_both_ways(policy, twin, observations, returns, monkeypatch)
    loaded, _ = copies()
    loaded.load_state_dict(policy.state_dict())
    loaded.optimizer.load_state_dict(copy.deepcopy(policy.optimizer.state_dict()))
    fit_both_ways(loaded, twin, observations, returns, monkeypatch)
    assert_same_state(loaded, twin)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_adam_passes_over_the_same_minibatches_both_ways(
    bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, twin = copies()
    _, _, observations, returns = make()
    returns[3] = bad
    by_hand, by_torch = fit_both_ways(policy, twin, observations, returns, monkeypatch)
    assert not np.isfinite(by_hand)
    assert not np.isfinite(by_torch)
    assert_same_state(policy, twin)
    # One minibatch in each of the five passes holds the bad one.
    assert {int(state["step"]) for state in policy.optimizer.state.values()} == {5 * 2}


@pytest.mark.parametrize(
    "settings",
    [{"optimizer_class": torch.optim.AdamW}, {"optimizer_kwargs": {"weight_decay": 0.1}}],
    ids=str,
)
def test_other_optimisers_take_torchs_loop(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "_fit_adam_by_hand", lambda *_, **__: pytest.fail("by hand"))
    policy, parameters, observations, returns = make(**settings)
    before = loss(policy, observations, returns)
    adam(policy, parameters, observations, returns)
    assert loss(policy, observations, returns) < before


def test_adam_obeys_the_optimisers_learning_rate() -> None:
    policy, parameters, observations, returns = make()
    before = flatten(p.detach() for p in parameters)
    policy.optimizer.param_groups[0]["lr"] = 0.0
    adam(policy, parameters, observations, returns)
    assert torch.equal(flatten(p.detach() for p in parameters), before)


@pytest.mark.parametrize("damping", [0.001, 0.1, 1.0])
def test_gauss_newton_solves_ridge_regression_in_one_step(damping: float) -> None:
    # V(s) = w·s + b is linear, so that one step is w ← w + (XᵀX/N + λI)⁻¹ Xᵀ(y − Xw)/N.
    policy, parameters, observations, returns = make(net_arch={"pi": [4], "vf": []})
    design = torch.cat([observations.double(), torch.ones(N, 1).double()], dim=1)
    start = flatten(p.detach() for p in parameters).double()
    normal = design.T @ design / N + damping * torch.eye(4).double()
    residual = returns.double() - design @ start
    expected = start + torch.linalg.solve(normal, design.T @ residual / N)
    reported = fit_gauss_newton(
        policy, parameters, observations, returns, n_steps=1, damping=damping
    )
    torch.testing.assert_close(
        flatten(p.detach() for p in parameters), expected.float(), rtol=1e-4, atol=1e-5
    )
    assert reported == pytest.approx(float((residual**2).mean()), rel=1e-5)


@pytest.mark.parametrize("damping", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gauss_newton_never_raises_the_loss(damping: float, scale: float) -> None:
    policy, parameters, observations, returns = make()
    losses = [loss(policy, observations, scale * returns)]
    for _ in range(6):
        fit_gauss_newton(
            policy, parameters, observations, scale * returns, n_steps=1, damping=damping
        )
        losses.append(loss(policy, observations, scale * returns))
    assert all(after <= before * (1 + 1e-6) for before, after in zip(losses, losses[1:]))  # noqa: B905, RUF007
    assert losses[-1] < 0.9 * losses[0]


def test_gauss_newton_stays_where_every_step_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, parameters, observations, returns = make()
    before = flatten(p.detach() for p in parameters)
    monkeypatch.setattr("agents.gauss_newton._loss_decrease", lambda *_: lambda _: (-1.0, 0.0))
    gauss_newton(policy, parameters, observations, returns)
    assert torch.equal(flatten(p.detach() for p in parameters), before)


def test_gauss_newton_is_the_same_by_hand_and_by_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, parameters, observations, returns = make()
    twin = make()[0]
    twin.load_state_dict(policy.state_dict())
    twins = [*twin.mlp_extractor.value_net.parameters(), *twin.value_net.parameters()]
    fast = gauss_newton(policy, parameters, observations, returns)
    monkeypatch.setattr(critic_values, "critic_mlp", lambda _policy: None)
    slow = gauss_newton(twin, twins, observations, returns)
    assert fast == pytest.approx(slow, rel=1e-4)
    torch.testing.assert_close(flatten(parameters), flatten(twins), rtol=1e-3, atol=1e-4)


@both_critics
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_returns_that_are_no_numbers_do_not_spoil_the_critic(fit: Fit, bad: float) -> None:
    # One such step would leave NaN in every weight, and no later batch could mend that.
    policy, parameters, observations, returns = make()
    fit(policy, parameters, observations, torch.full_like(returns, bad))
    assert torch.isfinite(flatten(parameters)).all()
    before = loss(policy, observations, returns)
    fit(policy, parameters, observations, returns)
    assert loss(policy, observations, returns) < before


@both_critics
def test_a_frozen_critic_stays(fit: Fit) -> None:
    policy, _, observations, returns = make()
    for parameter in [*policy.mlp_extractor.value_net.parameters(), *policy.value_net.parameters()]:
        parameter.requires_grad_(requires_grad=False)
    parameters = critic_parameters(policy, observations, [])
    assert parameters == []
    before = flatten(p.detach() for p in policy.parameters())
    reported = fit(policy, parameters, observations, returns)
    assert reported == pytest.approx(loss(policy, observations, returns), rel=1e-5)
    assert torch.equal(flatten(p.detach() for p in policy.parameters()), before)
