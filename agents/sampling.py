"""Drawing actions as SB3's policies do, from the same random stream, as fast as they allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import obs_as_tensor

from agents.action_value import ActionValuePolicy
from agents.mlp_structure import MLPStructure, actor_mlp

__all__ = ["Sampler", "action_sampler", "acts_as_sb3", "mlp_sampler"]

# SB3's own arithmetic, bit for bit: a hair's difference in an action is another episode later on.
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": torch.nn.functional.elu,
    "silu": torch.nn.functional.silu,
}

Sampler = Callable[[np.ndarray[Any, Any]], torch.Tensor]
"""Maps a batch of observations to sampled actions."""


def acts_as_sb3(policy: ActorCriticPolicy) -> bool:
    """Tell whether one batch of values and log-probabilities is what SB3's steps would give."""
    return any(
        all(
            getattr(type(policy), name) is getattr(known, name)
            for name in ("forward", "predict_values")
        )
        for known in (ActorCriticPolicy, ActionValuePolicy)
    )


def action_sampler(policy: ActorCriticPolicy) -> Callable[[Any], torch.Tensor]:
    """Return what draws actions as ``policy`` does, as fast as it allows.

    :return: maps a batch of observations, as environments give them, to actions.
    """
    mlp = actor_mlp(policy) if acts_as_sb3(policy) else None
    if mlp is not None:
        return mlp_sampler(policy, mlp)
    return lambda observations: policy(obs_as_tensor(observations, policy.device))[0]


def mlp_sampler(policy: ActorCriticPolicy, mlp: MLPStructure) -> Sampler:
    """Return what draws actions as ``policy`` does, from the same random stream."""
    latent = _latent(policy, mlp)
    distribution = policy.action_dist
    if isinstance(distribution, DiagGaussianDistribution):
        std = policy.log_std.detach().exp()
        weight, bias = _detached(mlp.layers[-1])

        def sample_gaussian(obs: np.ndarray[Any, Any]) -> torch.Tensor:
            mean = torch.addmm(bias, latent(obs), weight)
            return torch.randn_like(mean).mul_(std).add_(mean)

        return sample_gaussian

    def sample(obs: np.ndarray[Any, Any]) -> torch.Tensor:
        return policy._get_action_dist_from_latent(latent(obs)).sample()

    return sample


def _latent(policy: ActorCriticPolicy, mlp: MLPStructure) -> Sampler:
    """Return the hidden layers of the policy network as a function of raw observations."""
    space = policy.observation_space
    plain = isinstance(space, spaces.Box) and not is_image_space(space)
    layers = [_detached(layer) for layer in mlp.layers[:-1]]
    activation = _ACTIVATIONS[mlp.activation]
    device = policy.device
    on_cpu = device.type == "cpu"

    def latent(obs: np.ndarray[Any, Any]) -> torch.Tensor:
        hidden = torch.from_numpy(obs) if on_cpu else torch.as_tensor(obs, device=device)
        if not plain:
            hidden = BaseModel.extract_features(policy, hidden, mlp.extractor)
        elif obs.dtype != np.float32 or obs.ndim != 2:
            hidden = hidden.float().flatten(start_dim=1)
        for weight, bias in layers:
            hidden = activation(torch.addmm(bias, hidden, weight))
        return hidden

    return latent


def _detached(layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a layer, sharing memory, so that no operation records a graph.

    Sampling one vector step takes three fifths of the time that it takes with parameters.
    """
    return layer.weight.detach().t(), layer.bias.detach()
