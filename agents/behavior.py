"""Behaviour policies: who acts, and with which probability.

Learning off-policy needs, next to each action, the probability with which it was chosen. A
behaviour policy therefore returns both. All of them are made from the target policy as it is at
that moment; data of older policies come from keeping what they did (``buffer_size``), data of
unrelated ones from a data set.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Bernoulli, Categorical, Normal

from agents.errors import ConfigError, UnknownName

__all__ = [
    "BEHAVIORS",
    "Behavior",
    "MixtureBehavior",
    "TargetBehavior",
    "TemperedBehavior",
    "UniformBehavior",
    "make_behavior",
]


class Behavior(ABC):
    """Chooses the actions of training and knows their probabilities."""

    def check(self, policy: ActorCriticPolicy) -> None:  # noqa: B027 - most need none
        """Refuse a policy that this behaviour cannot be made from.

        :raises ConfigError: with what to use instead.
        """

    @abstractmethod
    def act(
        self, policy: ActorCriticPolicy, observations: PyTorchObs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one action per observation.

        :param policy: the target policy.
        :param observations: a batch of ``n``.
        :return: actions as the policy's distribution takes them, shape ``(n, …)``, and their
            ``log b(a|s)``, shape ``(n,)``.
        """


class TargetBehavior(Behavior):
    """``b = π``: on-policy, every ratio is 1 until the policy is updated."""

    def act(
        self, policy: ActorCriticPolicy, observations: PyTorchObs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw from the target policy."""
        distribution = policy.get_distribution(observations)
        actions = distribution.get_actions()
        return actions, distribution.log_prob(actions)


class UniformBehavior(Behavior):
    """``b(a|s) = 1/|A|``: every action alike, for Box by its volume."""

    def check(self, policy: ActorCriticPolicy) -> None:
        """Refuse a Box without bounds, on which nothing is uniform."""
        space = policy.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ConfigError(
                f"{space} has no bounds, so that no action can be drawn uniformly from it; "
                "pass behavior='tempered' or behavior='target'."
            )

    def act(
        self, policy: ActorCriticPolicy, observations: PyTorchObs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw every action with the same probability."""
        n = _n_observations(observations)
        actions = _uniform_actions(policy, n)
        return actions, _uniform_log_prob(policy, actions)


class MixtureBehavior(UniformBehavior):
    """``b = (1 − ε) π + ε · uniform``: the target policy that sometimes does anything at all.

    Its ratios are bounded whatever the policy is: ``ρ < 1 / (1 − ε)``.

    :param epsilon: share of the uniform actions, between 0 and 1.
    :raises ConfigError: it is outside.
    """

    def __init__(self, epsilon: float = 0.1) -> None:
        if not 0.0 < epsilon < 1.0:
            raise ConfigError(
                f"epsilon={epsilon} must be between 0 and 1; use behavior='target' for 0 and "
                "behavior='uniform' for 1."
            )
        self.epsilon = epsilon

    def act(
        self, policy: ActorCriticPolicy, observations: PyTorchObs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw from the target policy, or uniformly with probability ε."""
        distribution = policy.get_distribution(observations)
        actions = distribution.get_actions()
        explores = torch.rand(len(actions), device=actions.device) < self.epsilon
        where = explores.reshape(-1, *(1,) * (actions.dim() - 1))
        actions = torch.where(where, _uniform_actions(policy, len(actions)), actions)
        log_prob = torch.logaddexp(
            distribution.log_prob(actions) + math.log1p(-self.epsilon),
            _uniform_log_prob(policy, actions) + math.log(self.epsilon),
        )
        return actions, log_prob


class TemperedBehavior(Behavior):
    """``b ∝ π^{1/τ}``: the target policy made hotter (τ > 1) or colder (τ < 1).

    Logits are divided by τ, a Gaussian's variance is multiplied by τ. A colder behaviour gives
    ratios without bound, and so does a hotter one in many dimensions: up to ``τ^{d/2}``.

    :param temperature: τ > 0; 1 is the target policy itself.
    :raises ConfigError: it is not positive.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        if not 0.0 < temperature < math.inf:
            raise ConfigError(f"temperature={temperature} must be positive; 2 is customary.")
        self.temperature = temperature

    def check(self, policy: ActorCriticPolicy) -> None:
        """Refuse squashed Gaussians, whose powers are no squashed Gaussians."""
        if policy.squash_output:
            raise ConfigError(
                "behavior='tempered' cannot be made from a policy with squash_output; "
                "pass behavior='mixture' or leave squash_output out."
            )

    def act(
        self, policy: ActorCriticPolicy, observations: PyTorchObs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw from the tempered policy."""
        return _tempered(policy.get_distribution(observations), self.temperature)


BEHAVIORS: dict[str, type[Behavior]] = {
    "mixture": MixtureBehavior,
    "target": TargetBehavior,
    "tempered": TemperedBehavior,
    "uniform": UniformBehavior,
}


def make_behavior(behavior: str | Behavior, kwargs: Mapping[str, Any] | None = None) -> Behavior:
    """Return the behaviour policy of that name, or the given one.

    :param behavior: key of :data:`BEHAVIORS`, or a behaviour of one's own.
    :param kwargs: of its constructor.
    :raises UnknownName: no behaviour has that name.
    :raises ConfigError: it does not take ``kwargs``.
    """
    kwargs = dict(kwargs or {})
    if isinstance(behavior, Behavior):
        if kwargs:
            raise ConfigError(
                f"behavior_kwargs={kwargs} are for a behavior given by name; "
                f"pass them to {type(behavior).__name__}."
            )
        return behavior
    if behavior not in BEHAVIORS:
        raise UnknownName("behavior", behavior, BEHAVIORS)
    try:
        return BEHAVIORS[behavior](**kwargs)
    except TypeError as error:
        raise ConfigError(
            f"behavior_kwargs={kwargs} do not fit behavior='{behavior}': {error}. "
            "mixture takes epsilon, tempered takes temperature, the others nothing."
        ) from error


def _n_observations(observations: PyTorchObs) -> int:
    if isinstance(observations, dict):
        return len(next(iter(observations.values())))
    return len(observations)


def _bounds(policy: ActorCriticPolicy) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest flat actions as the distribution sees them."""
    space = policy.action_space
    if not isinstance(space, spaces.Box):
        raise TypeError(f"{space} has no bounds")
    low, high = (torch.as_tensor(np.asarray(b)).flatten() for b in (space.low, space.high))
    if policy.squash_output:
        low, high = torch.full_like(low, -1.0), torch.ones_like(high)
    return low.to(policy.device), high.to(policy.device)


def _uniform_actions(policy: ActorCriticPolicy, n: int) -> torch.Tensor:
    space, device = policy.action_space, policy.device
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (n,), device=device)
    if isinstance(space, spaces.MultiDiscrete):
        columns = [torch.randint(int(k), (n,), device=device) for k in space.nvec]
        return torch.stack(columns, dim=1)
    if isinstance(space, spaces.MultiBinary):
        return torch.randint(2, (n, int(np.prod(space.shape))), device=device).float()
    low, high = _bounds(policy)
    return low + (high - low) * torch.rand(n, len(low), device=device)


def _uniform_log_prob(policy: ActorCriticPolicy, actions: torch.Tensor) -> torch.Tensor:
    space = policy.action_space
    if isinstance(space, spaces.Box):
        low, high = _bounds(policy)
        inside = ((actions >= low) & (actions <= high)).all(dim=1)
        log_density = -(high - low).log().sum()
        return torch.where(inside, log_density, -math.inf)
    if isinstance(space, spaces.Discrete):
        n_actions = math.log(int(space.n))
    elif isinstance(space, spaces.MultiDiscrete):
        n_actions = float(np.log(space.nvec).sum())
    else:
        n_actions = math.log(2.0) * actions.shape[1]
    return torch.full((len(actions),), -n_actions, device=actions.device)


def _tempered(distribution: Distribution, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from the distribution's power ``1/τ``; returns actions and log-probabilities."""
    each = distribution.distribution
    parts: list[Any] = each if isinstance(each, list) else [each]
    if isinstance(distribution, DiagGaussianDistribution | StateDependentNoiseDistribution):
        scale = math.sqrt(temperature)
        (normal,) = parts
        hotter: Any = Normal(normal.mean, scale * normal.stddev)
        if isinstance(distribution, StateDependentNoiseDistribution):
            actions = normal.mean + scale * distribution.get_noise(distribution._latent_sde)
        else:
            actions = hotter.sample()
        return actions, hotter.log_prob(actions).sum(dim=1)
    if isinstance(distribution, BernoulliDistribution):
        hotter = Bernoulli(logits=parts[0].logits / temperature)
        actions = hotter.sample()
        return actions, hotter.log_prob(actions).sum(dim=1)
    if isinstance(distribution, CategoricalDistribution | MultiCategoricalDistribution):
        hot_parts: list[Any] = [Categorical(logits=part.logits / temperature) for part in parts]
        columns = [hot.sample() for hot in hot_parts]
        log_probs = [hot.log_prob(column) for hot, column in zip(hot_parts, columns, strict=True)]
        several = isinstance(distribution, MultiCategoricalDistribution)
        return torch.stack(columns, dim=1) if several else columns[0], sum(log_probs)
    raise ConfigError(
        f"behavior='tempered' does not know {type(distribution).__name__}; "
        "pass behavior='mixture' or behavior='target'."
    )
