"""Recognising the common MLP inside an SB3 policy, so that it can take the fast path.

A policy qualifies only if what SB3 computes is exactly ``head(mlp(extractor(obs)))`` with an
extractor that has no parameters. Anything else (CNNs, gSDE, overridden methods, frozen or hooked
layers) goes through automatic differentiation instead, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from agents.functional.mlp import MLPLinearization, mlp_outputs

__all__ = ["MLPStructure", "actor_mlp", "critic_mlp", "find_layers", "is_common_actor"]

_ACTIVATION_NAMES: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.SiLU: "silu",
}
_DISTRIBUTIONS = (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
_ACTOR_METHODS = ("get_distribution", "_get_action_dist_from_latent", "extract_features")
_CRITIC_METHODS = ("predict_values", "extract_features")


class MLPStructure(NamedTuple):
    """The layers of one network of a policy."""

    extractor: BaseFeaturesExtractor
    """Has no parameters."""
    layers: list[nn.Linear]
    activation: str
    """Key of :data:`agents.functional.mlp.ACTIVATIONS`."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """``[W_1, b_1, …, W_L, b_L]``."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]

    def inputs(self, policy: ActorCriticPolicy, observations: PyTorchObs) -> torch.Tensor:
        """Return what the first layer is fed with, shape ``(N, n_in)``."""
        return BaseModel.extract_features(policy, observations, self.extractor)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the last layer makes of ``inputs``, without a graph."""
        return mlp_outputs(
            [layer.weight for layer in self.layers],
            [layer.bias for layer in self.layers],
            self.activation,
            inputs,
        )

    def linearize(self, inputs: torch.Tensor) -> MLPLinearization:
        """Return the network linearised at its present parameters for :meth:`inputs`."""
        with torch.no_grad():
            return MLPLinearization(
                [layer.weight for layer in self.layers],
                [layer.bias for layer in self.layers],
                self.activation,
                inputs,
            )


def is_common_actor(policy: ActorCriticPolicy) -> bool:
    """Tell whether SB3's own code turns the last layer's outputs into a known distribution."""
    return _uses_sb3_methods(policy, _ACTOR_METHODS) and type(policy.action_dist) in _DISTRIBUTIONS


def actor_mlp(policy: ActorCriticPolicy) -> MLPStructure | None:
    """Return the layers of the policy network, or None if it is not a common MLP."""
    if not is_common_actor(policy) or type(policy.mlp_extractor) is not MlpExtractor:
        return None
    return find_layers(
        policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net
    )


def critic_mlp(policy: ActorCriticPolicy) -> MLPStructure | None:
    """Return the layers of the value network, or None if it is not a common MLP."""
    if not _uses_sb3_methods(policy, _CRITIC_METHODS):
        return None
    if type(policy.mlp_extractor) is not MlpExtractor:
        return None
    return find_layers(
        policy.vf_features_extractor, policy.mlp_extractor.value_net, policy.value_net
    )


def _uses_sb3_methods(policy: ActorCriticPolicy, names: Sequence[str]) -> bool:
    return all(getattr(type(policy), name) is getattr(ActorCriticPolicy, name) for name in names)


def find_layers(
    extractor: BaseFeaturesExtractor, body: nn.Module, head: nn.Module
) -> MLPStructure | None:
    """Return the layers of ``head(body(extractor(obs)))``, or None if that is not a common MLP."""
    if any(True for _ in extractor.parameters()) or not isinstance(body, nn.Sequential):
        return None
    modules = [*body, head]
    layers = [module for module in modules[0::2] if type(module) is nn.Linear]
    activations = {type(module) for module in modules[1::2]}
    well_formed = len(layers) == len(modules[0::2]) and len(activations) <= 1
    activation = next((_ACTIVATION_NAMES.get(kind) for kind in activations), "tanh")
    trainable = all(p.requires_grad for layer in layers for p in layer.parameters())
    biased = all(layer.bias is not None for layer in layers)
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    if not well_formed or activation is None or not trainable or not biased or hooked:
        return None
    return MLPStructure(extractor, layers, activation)
