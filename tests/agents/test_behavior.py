"""Behaviour policies: the probabilities they state are those they act with."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from agents.behavior import (
    BEHAVIORS,
    Behavior,
    MixtureBehavior,
    TargetBehavior,
    TemperedBehavior,
    make_behavior,
)
from agents.errors import ConfigError, UnknownName

N = 30_000
OBSERVATION_SPACE = spaces.Box(-1.0, 1.0, (3,), np.float32)
FINITE: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(2),
}
BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))
SETTINGS: dict[str, dict[str, float]] = {
    "mixture": {"epsilon": 0.3},
    "target": {},
    "tempered": {"temperature": 2.5},
    "uniform": {},
}


def make_policy(space: spaces.Space[Any], **kwargs: Any) -> ActorCriticPolicy:
    """Return a policy that is far from uniform."""
    torch.manual_seed(0)
    policy = ActorCriticPolicy(OBSERVATION_SPACE, space, lambda _: 1e-3, **kwargs)
    with torch.no_grad():
        policy.action_net.bias.copy_(torch.linspace(-0.8, 0.9, len(policy.action_net.bias)))
    return policy


def draw(behavior: Behavior, policy: ActorCriticPolicy) -> tuple[torch.Tensor, ...]:
    """Return actions, ``log b`` and ``log π`` of many draws in one state."""
    observations = torch.full((N, 3), 0.5)
    with torch.no_grad():
        actions, log_probs = behavior.act(policy, observations)
        target = policy.get_distribution(observations).log_prob(actions)
    assert log_probs.shape == (N,)
    return actions, log_probs, target


@pytest.mark.parametrize("name", list(BEHAVIORS))
@pytest.mark.parametrize("kind", list(FINITE))
def test_actions_are_as_frequent_as_stated(name: str, kind: str) -> None:
    policy = make_policy(FINITE[kind])
    actions, log_probs, target = draw(make_behavior(name, SETTINGS[name]), policy)
    rows = actions.reshape(N, -1).long()
    sizes = {"discrete": [4], "multi-discrete": [2, 3], "multi-binary": [2, 2]}[kind]
    total = 0.0
    for action in itertools.product(*map(range, sizes)):
        chosen = (rows == torch.tensor(action)).all(dim=1)
        stated = log_probs[chosen].exp()
        torch.testing.assert_close(stated, stated[:1].expand_as(stated))
        probability = float(stated[0])
        total += probability
        tolerance = 4 * math.sqrt(probability * (1 - probability) / N)
        assert float(chosen.float().mean()) == pytest.approx(probability, abs=tolerance)
        p = float(target[chosen][0].exp())
        uniform = 1 / math.prod(sizes)
        if name == "mixture":
            assert probability == pytest.approx(0.7 * p + 0.3 * uniform, rel=1e-5)
        elif name != "tempered":
            assert probability == pytest.approx(p if name == "target" else uniform, rel=1e-5)
    assert total == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}])
@pytest.mark.parametrize("name", ["mixture", "target", "tempered"])
def test_densities_of_box_actions_reweigh_to_the_target_policy(
    name: str, kwargs: dict[str, Any]
) -> None:
    """``E_b[ρ] = 1`` and ``E_b[ρ f(a)] = E_π[f(a)]``."""
    policy = make_policy(BOX, log_std_init=-1.0, **kwargs)
    if kwargs:
        policy.reset_noise(N)  # one noise matrix each, so that draws are independent
    actions, log_probs, target = draw(make_behavior(name, SETTINGS[name]), policy)
    ratios = (target - log_probs).exp()
    gaussian = policy.get_distribution(torch.full((1, 3), 0.5)).distribution
    mean, std = gaussian.mean[0].detach(), gaussian.stddev[0].detach()
    assert float(ratios.mean()) == pytest.approx(1.0, abs=0.03)
    weighted = ratios.unsqueeze(1)
    torch.testing.assert_close((weighted * actions).mean(0), mean, atol=0.03, rtol=0.0)
    second = (weighted * (actions - mean).square()).mean(0)
    torch.testing.assert_close(second, std.square(), atol=0.03, rtol=0.05)


def test_uniform_box_actions_fill_the_box() -> None:
    policy = make_policy(BOX)
    actions, log_probs, _ = draw(make_behavior("uniform"), policy)
    assert torch.allclose(log_probs, torch.tensor(-math.log(3.0 * 0.5)))
    low, high = torch.as_tensor(BOX.low), torch.as_tensor(BOX.high)
    assert ((actions >= low) & (actions <= high)).all()
    torch.testing.assert_close(actions.mean(0), (low + high) / 2, atol=0.03, rtol=0.0)
    torch.testing.assert_close(actions.var(0), (high - low) ** 2 / 12, atol=0.01, rtol=0.0)


def test_squashed_actions_are_uniform_before_they_are_unscaled() -> None:
    policy = make_policy(BOX, use_sde=True, squash_output=True)
    actions, log_probs, _ = draw(make_behavior("uniform"), policy)
    assert torch.allclose(log_probs, torch.tensor(-math.log(2.0 * 2.0)))
    assert actions.abs().max() <= 1.0
    assert actions.var(0) == pytest.approx([1 / 3, 1 / 3], abs=0.01)
    behavior = make_behavior("tempered")
    with pytest.raises(ConfigError, match="squash_output; pass behavior='mixture'"):
        behavior.check(policy)


@pytest.mark.parametrize("space", [*FINITE.values(), BOX])
def test_a_mixture_bounds_the_ratios(space: spaces.Space[Any]) -> None:
    _, log_probs, target = draw(MixtureBehavior(epsilon=0.2), make_policy(space))
    assert float((target - log_probs).exp().max()) <= 1 / 0.8 + 1e-5


def test_tempering_by_hand() -> None:
    # p ∝ exp(logits), and exp(logits / 2) of the hotter one; a Gaussian's variance doubles.
    policy = make_policy(spaces.Discrete(2))
    actions, log_probs, target = draw(TemperedBehavior(2.0), policy)
    odds = [
        float(values[actions == 1][0] - values[actions == 0][0]) for values in (log_probs, target)
    ]
    assert odds[0] == pytest.approx(odds[1] / 2, rel=1e-4)
    policy = make_policy(BOX)
    actions, _, _ = draw(TemperedBehavior(2.0), policy)
    std = policy.log_std.detach().exp()
    torch.testing.assert_close(actions.std(0), math.sqrt(2.0) * std, rtol=0.02, atol=0.0)


def test_the_target_itself_has_ratios_of_one() -> None:
    for space in (*FINITE.values(), BOX):
        _, log_probs, target = draw(TargetBehavior(), make_policy(space))
        assert torch.equal(log_probs, target)


def test_what_cannot_be_made_says_why() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'mixture'"):
        make_behavior("mixtur")
    with pytest.raises(ConfigError, match=r"epsilon=1\.0 must be between 0 and 1; use"):
        make_behavior("mixture", {"epsilon": 1.0})
    with pytest.raises(ConfigError, match=r"temperature=0\.0 must be positive"):
        make_behavior("tempered", {"temperature": 0.0})
    with pytest.raises(ConfigError, match="do not fit behavior='target'"):
        make_behavior("target", {"epsilon": 0.1})
    with pytest.raises(ConfigError, match="pass them to MixtureBehavior"):
        make_behavior(MixtureBehavior(), {"epsilon": 0.1})
    unbounded = make_policy(spaces.Box(-np.inf, np.inf, (2,), np.float32))
    with pytest.raises(ConfigError, match="has no bounds"):
        make_behavior("mixture").check(unbounded)
    make_behavior("tempered").check(unbounded)
