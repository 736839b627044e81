"""Policies whose critic values actions: ``Q(s, a)`` in the place of SB3's ``V(s)``."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BaseModel,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.mlp_structure import MLPStructure, find_layers

__all__ = [
    "ActionValueCnnPolicy",
    "ActionValuePolicy",
    "MultiInputActionValuePolicy",
    "action_critic_mlp",
]


class ActionValuePolicy(ActorCriticPolicy):
    """SB3's actor with an action-value critic: a network of features and action together.

    Where SB3 asks for the value of a state it gets ``Q(s, a)`` with ``a`` drawn from the policy,
    whose mean over ``a`` is ``V(s)``. So a rollout that SB3 collects holds the values and targets
    of on-policy temporal-difference learning (SARSA(λ)): ``values`` are ``Q(s_t, a_t)``, and
    ``returns`` are ``Q(s_t, a_t) + Σ_l (γλ)^l δ_{t+l}`` with
    ``δ_t = r_t + γ Q(s_{t+1}, a_{t+1}) − Q(s_t, a_t)``.

    The critic sees what the environment sees of an action: a Box action clipped to its bounds and
    scaled to −1 … 1 (where it has bounds), any other one-hot or as bits.

    Parameters are SB3's; ``net_arch["vf"]`` are the hidden layers of ``Q``.

    Ref: Rummery & Niranjan 1994, "On-line Q-learning using connectionist systems" (SARSA).
    """

    def _build_mlp_extractor(self) -> None:
        arch = self.net_arch
        actor, critic = (arch["pi"], arch["vf"]) if isinstance(arch, dict) else (arch, arch)
        self.mlp_extractor = MlpExtractor(
            self.features_dim,
            net_arch={"pi": list(actor or []), "vf": []},
            activation_fn=self.activation_fn,
            device=self.device,
        )
        width = self.features_dim + get_flattened_obs_dim(self.action_space)
        layers: list[nn.Module] = []
        for n_units in critic or []:
            layers += [nn.Linear(width, n_units), self.activation_fn()]
            width = n_units
        self.mlp_extractor.value_net = nn.Sequential(*layers).to(self.device)
        self.mlp_extractor.latent_dim_vf = width

    def action_values(self, obs: PyTorchObs, actions: torch.Tensor) -> torch.Tensor:
        """Return ``Q(s, a)``, shape ``(N, 1)``.

        :param obs: N observations as the policy takes them.
        :param actions: as the policy draws them, shape ``(N, …)``.
        """
        latent = self.mlp_extractor.forward_critic(self.critic_inputs(obs, actions))
        values: torch.Tensor = self.value_net(latent)
        return values

    def critic_inputs(self, obs: PyTorchObs, actions: torch.Tensor) -> torch.Tensor:
        """Return what the critic's first layer is fed with, shape ``(N, n_in)``."""
        features = BaseModel.extract_features(self, obs, self.vf_features_extractor)
        return torch.cat([features, self._encoded(actions)], dim=1)

    def _encoded(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions as numbers of the order of one, shape ``(N, n)``."""
        space = self.action_space
        if not isinstance(space, spaces.Box):
            actions = actions.reshape(-1, *(space.shape or ()))
            encoded = preprocess_obs(actions, space, normalize_images=False)
            if not isinstance(encoded, torch.Tensor):
                raise TypeError(f"{space} is not a space of actions")
            return encoded.flatten(start_dim=1)
        flat = actions.reshape(len(actions), -1).float()
        if self.squash_output:  # already within −1 … 1
            return flat
        low, high = (
            torch.as_tensor(bound.flatten(), dtype=torch.float32, device=flat.device)
            for bound in (space.low, space.high)
        )
        clipped = torch.minimum(torch.maximum(flat, low), high)
        bounded = torch.as_tensor(
            np.isfinite(space.low) & np.isfinite(space.high), device=flat.device
        ).flatten()
        scaled = 2.0 * (clipped - low) / (high - low) - 1.0
        return torch.where(bounded, scaled, clipped)

    def forward(
        self, obs: torch.Tensor, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return actions, their values ``Q(s, a)`` and their log-probabilities."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        values = self.action_values(obs, actions.detach())
        return actions.reshape(-1, *(self.action_space.shape or ())), values, log_prob

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Return ``Q(s, a)`` with ``a`` drawn from the policy: ``V(s)`` in the mean, ``(N, 1)``."""
        return self.action_values(obs, self.get_distribution(obs).get_actions().detach())

    def evaluate_actions(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the actions' values ``Q(s, a)``, their log-probabilities and the entropy."""
        distribution = self.get_distribution(obs)
        log_prob = distribution.log_prob(actions)
        return self.action_values(obs, actions), log_prob, distribution.entropy()


class ActionValueCnnPolicy(ActionValuePolicy, ActorCriticCnnPolicy):
    """:class:`ActionValuePolicy` on images."""


class MultiInputActionValuePolicy(ActionValuePolicy, MultiInputActorCriticPolicy):
    """:class:`ActionValuePolicy` on dictionaries of observations."""


def action_critic_mlp(policy: ActorCriticPolicy) -> MLPStructure | None:
    """Return the layers of ``Q`` behind :meth:`ActionValuePolicy.critic_inputs`, or None.

    None if the policy has no such critic, values actions in a way of its own, or its features have
    parameters.
    """
    if not isinstance(policy, ActionValuePolicy):
        return None
    names = ("action_values", "critic_inputs", "extract_features")
    if any(getattr(type(policy), name) is not getattr(ActionValuePolicy, name) for name in names):
        return None
    return find_layers(
        policy.vf_features_extractor, policy.mlp_extractor.value_net, policy.value_net
    )
