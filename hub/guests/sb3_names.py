"""Which algorithm, policy and classes an SB3 archive means, by exact lists."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from agents.errors import BundleError, MissingDependency, UnknownName
from hub.guests.pickle_reader import Symbol

__all__ = ["ALGORITHM_NAMES", "CLASSES", "POLICIES", "algorithm_named", "algorithm_of"]

_ON_POLICY = "stable_baselines3.common.policies"
_OFF_POLICY = {
    "stable_baselines3.sac.policies": "SACPolicy",
    "stable_baselines3.td3.policies": "TD3Policy",
    "stable_baselines3.dqn.policies": "DQNPolicy",
    "sb3_contrib.tqc.policies": "TQCPolicy",
    "sb3_contrib.qrdqn.policies": "QRDQNPolicy",
}
POLICIES: Mapping[Symbol, str] = {
    Symbol(_ON_POLICY, "ActorCriticPolicy"): "MlpPolicy",
    Symbol(_ON_POLICY, "ActorCriticCnnPolicy"): "CnnPolicy",
    Symbol(_ON_POLICY, "MultiInputActorCriticPolicy"): "MultiInputPolicy",
    **{Symbol(module, name): "MlpPolicy" for module, name in _OFF_POLICY.items()},
    **{
        Symbol(module, name): name
        for module in _OFF_POLICY
        for name in ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
    },
}
"""SB3's policy classes and the names that its algorithms know them by."""

_CLASSES: tuple[type, ...] = (
    *(nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus),
    *(nn.Identity, nn.Hardswish, nn.Hardtanh, nn.Mish, nn.ReLU6, nn.SELU, nn.Softsign),
    *(torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD, RMSpropTFLike),
    *(torch_layers.FlattenExtractor, torch_layers.NatureCNN, torch_layers.CombinedExtractor),
)
CLASSES: Mapping[Symbol, type] = {Symbol(c.__module__, c.__name__): c for c in _CLASSES}
"""The classes that keywords of a policy may name."""

_ALGORITHMS = {
    "ppo": ("stable_baselines3", "PPO"),
    "a2c": ("stable_baselines3", "A2C"),
    "sac": ("stable_baselines3", "SAC"),
    "td3": ("stable_baselines3", "TD3"),
    "dqn": ("stable_baselines3", "DQN"),
    "trpo": ("sb3_contrib", "TRPO"),
    "tqc": ("sb3_contrib", "TQC"),
    "qrdqn": ("sb3_contrib", "QRDQN"),
}


ALGORITHM_NAMES = tuple(_ALGORITHMS)


def algorithm_of(policy: Symbol, settings: Mapping[str, Any], where: str) -> str:
    """Return the algorithm that wrote an archive, which does not name it.

    :param policy: its policy class.
    :param settings: what else is in it; each algorithm has keys that no other has.
    :raises BundleError: it is none of those that are read.
    """
    if policy.module == _ON_POLICY:
        if "cg_max_steps" in settings and "target_kl" in settings:
            return "trpo"
        if "clip_range" in settings:
            return "ppo"
        if "gae_lambda" in settings and "n_epochs" not in settings:
            return "a2c"
    if policy.module in _OFF_POLICY and policy in POLICIES:
        return policy.module.split(".")[1]  # DDPG's archives are those of TD3 with its settings
    raise BundleError(
        f"{where} was written by an algorithm that is not read: its policy is {policy}. Read are "
        f"{', '.join(sorted(_ALGORITHMS))}."
    )


def algorithm_named(name: str) -> type[BaseAlgorithm]:
    """Return SB3's class.

    :raises UnknownName: there is none of that name.
    :raises MissingDependency: it is sb3-contrib's, which is not installed.
    """
    if name not in _ALGORITHMS:
        raise UnknownName("algorithm of Stable-Baselines3", name, _ALGORITHMS)
    package, class_name = _ALGORITHMS[name]
    try:
        algorithm: type[BaseAlgorithm] = getattr(importlib.import_module(package), class_name)
    except ImportError as error:
        raise MissingDependency(
            f"{name} is an algorithm of {package} ({error}). Type: pip install sb3-contrib"
        ) from error
    return algorithm
