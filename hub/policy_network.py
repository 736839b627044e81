"""Reading what an SB3 policy computes, so that it can be written down elsewhere (ONNX, C).

Every deterministic policy of SB3 is the same chain::

    raw observations → normalise, clip → one-hot, scale images → extractor → body → output → action

``body → output`` are plain torch modules. What ``output`` gives is a mean (Box actions), logits
(MultiDiscrete, MultiBinary) or one value per choice (Discrete, DQN's Q-values); the action space
then says what becomes of it: clip, tanh and unscale, argmax, threshold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from agents.errors import ExportError, UnknownName
from hub.normalizer import Normalizer

__all__ = [
    "ObservationInput",
    "PolicyNetwork",
    "Scaling",
    "extractor_body",
    "read_policy",
    "refuse_own_methods",
]

Array = npt.NDArray[np.float64]

_OBSERVATION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
# A policy that overrides one of these computes something else than the chain above.
_METHODS = ("_predict", "forward", "extract_features", "predict", "unscale_action")
_ACTOR_CRITIC_METHODS = ("_predict", "get_distribution", "_get_action_dist_from_latent", "predict")
_ADVICE = (
    "put your network into features_extractor_class instead, which is exported whatever it computes"
)
_THEIRS = ("stable_baselines3.", "sb3_contrib.tqc.")


@dataclass(frozen=True)
class Scaling:
    """``clip((x − mean) / std, ±clip)`` with ``std = √(var + epsilon)``."""

    mean: Array
    std: Array
    clip: float


@dataclass(frozen=True)
class ObservationInput:
    """One raw observation: the whole, or one key of a Dict."""

    name: str
    """``"obs"``, or the key."""
    space: spaces.Space[Any]
    """As the environment gives it."""
    scaling: Scaling | None
    is_image: bool
    """SB3 divides it by 255."""
    is_transposed: bool
    """It has its channels last, and the policy takes them first."""


@dataclass(frozen=True)
class PolicyNetwork:
    """The deterministic policy as a chain of modules."""

    inputs: tuple[ObservationInput, ...]
    """One per key of a Dict, in the space's order."""
    observation_space: spaces.Space[Any]
    """As the environment gives observations."""
    extractor: nn.Module
    body: tuple[nn.Module, ...]
    """From the features to the latent vector."""
    output: tuple[nn.Module, ...]
    """From the latent vector to the mean, the logits or the Q-values."""
    squashed: bool
    """The mean goes through tanh and is stretched to the bounds; otherwise it is clipped."""
    action_space: spaces.Space[Any]

    @property
    def is_dict(self) -> bool:
        """Whether observations are dictionaries."""
        return isinstance(self.observation_space, spaces.Dict)


def read_policy(
    policy: BasePolicy,
    normalizer: Normalizer | None,
    transposed_images: Collection[str] = (),
) -> PolicyNetwork:
    """Return the chain that ``policy.predict(…, deterministic=True)`` computes.

    :param policy: of PPO, A2C and all with an ``ActorCriticPolicy``; of SAC, TQC, TD3, DDPG, DQN.
    :param normalizer: the statistics that its observations were normalised with, None without.
    :param transposed_images: ``"obs"`` or ``"obs.KEY"`` of each image that the environment gives
        with its channels last, which SB3 turns round in a wrapper (``VecTransposeImage``).
    :raises ExportError: the policy computes something else, or a space is not supported.
    """
    _refuse_recurrent(policy)
    extractor, body, output, squashed = _modules(policy)
    _check_action_space(policy.action_space)
    inputs = _inputs(policy, normalizer, transposed_images)
    is_dict = isinstance(policy.observation_space, spaces.Dict)
    return PolicyNetwork(
        inputs=inputs,
        observation_space=(
            spaces.Dict([(entry.name, entry.space) for entry in inputs])
            if is_dict
            else inputs[0].space
        ),
        extractor=extractor,
        body=body,
        output=output,
        squashed=squashed,
        action_space=policy.action_space,
    )


_Modules = tuple[nn.Module, tuple[nn.Module, ...], tuple[nn.Module, ...], bool]


def _modules(policy: BasePolicy) -> _Modules:
    """Return extractor, body, output and whether the output is squashed."""
    if isinstance(policy, ActorCriticPolicy):
        refuse_own_methods(type(policy), _ACTOR_CRITIC_METHODS)
        body = extractor_body(policy.mlp_extractor, "actor")
        return policy.pi_features_extractor, body, (policy.action_net,), policy.squash_output
    if isinstance(policy, DQNPolicy):
        refuse_own_methods(type(policy), _METHODS)
        refuse_own_methods(type(policy.q_net), _METHODS)
        return policy.q_net.features_extractor, tuple(policy.q_net.q_net), (), False
    actor = getattr(policy, "actor", None)
    if isinstance(actor, BasePolicy):
        refuse_own_methods(type(policy), _METHODS)
        refuse_own_methods(type(actor), (*_METHODS, "get_action_dist_params"))
        latent, mean = getattr(actor, "latent_pi", None), getattr(actor, "mu", None)
        if isinstance(latent, nn.Sequential) and isinstance(mean, nn.Module):  # SAC, TQC
            return actor.features_extractor, tuple(latent), (mean,), True
        if isinstance(mean, nn.Sequential) and type(mean[-1]) is nn.Tanh:  # TD3
            *layers, last, _ = mean
            return actor.features_extractor, tuple(layers), (last,), True
    raise ExportError(
        f"Cannot export a {type(policy).__name__}; known are the policies of algorithms with an "
        "ActorCriticPolicy (PPO, A2C, NPG, TRPO, …) and of SAC, TQC, TD3, DDPG and DQN."
    )


def extractor_body(mlp_extractor: nn.Module, part: str) -> tuple[nn.Module, ...]:
    """Return the modules between features and latent vector of an ``ActorCriticPolicy``.

    :param part: ``"actor"`` or ``"critic"``.
    """
    if type(mlp_extractor) is MlpExtractor:
        return tuple(mlp_extractor.policy_net if part == "actor" else mlp_extractor.value_net)
    return (_Half(mlp_extractor, part),)


class _Half(nn.Module):
    """The actor's or the critic's half of somebody's own ``mlp_extractor``."""

    def __init__(self, mlp_extractor: nn.Module, part: str) -> None:
        super().__init__()
        self._whole = mlp_extractor
        self._method = f"forward_{part}"

    def forward(self, features: Any) -> Any:
        return getattr(self._whole, self._method)(features)


def _refuse_recurrent(policy: BasePolicy) -> None:
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in policy.modules()):
        raise ExportError(
            f"{type(policy).__name__} is recurrent: its action depends on more than the "
            "observation, which `obs` → `actions` cannot say; train with MlpPolicy, or give it "
            "the last observations (gymnasium.wrappers.FrameStackObservation)."
        )


def refuse_own_methods(cls: type, names: tuple[str, ...], advice: str = _ADVICE) -> None:
    """Accept a class only if these methods are those of SB3 or sb3-contrib.

    :param advice: what to do instead, ends the message.

    :raises ExportError: somebody's own code computes something that is not known here.
    """
    for name in names:
        owner = next(base for base in cls.__mro__ if name in vars(base) or base is object)
        if owner is not object and not owner.__module__.startswith(_THEIRS):
            raise ExportError(
                f"{cls.__name__} overrides {name}() in {owner.__module__}.{owner.__qualname__}, so "
                f"what it computes is not known; {advice}."
            )


def _inputs(
    policy: BasePolicy, normalizer: Normalizer | None, transposed_images: Collection[str]
) -> tuple[ObservationInput, ...]:
    space = policy.observation_space
    parts: Mapping[str, tuple[str, spaces.Space[Any]]] = {"obs": ("obs", space)}
    if isinstance(space, spaces.Dict):
        parts = {f"obs.{key}": (key, part) for key, part in space.spaces.items()}
    unknown = set(transposed_images) - parts.keys()
    if unknown:
        raise UnknownName("image", sorted(unknown)[0], parts)
    return tuple(
        _input(
            name,
            part,
            policy.normalize_images,
            _scaling(normalizer, path),
            path in transposed_images,
        )
        for path, (name, part) in parts.items()
    )


def _input(
    name: str,
    space: spaces.Space[Any],
    normalize_images: bool,
    scaling: Scaling | None,
    is_transposed: bool,
) -> ObservationInput:
    if not isinstance(space, _OBSERVATION_SPACES):
        raise ExportError(
            f"Observation space {space} of '{name}' cannot be exported; allowed are Box, Discrete, "
            "MultiDiscrete, MultiBinary and a flat Dict of these."
        )
    _refuse_start(space, f"Observation '{name}'")
    is_image = normalize_images and is_image_space(space)
    if is_transposed and isinstance(space, spaces.Box):
        low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
        space = spaces.Box(low, high, dtype=space.dtype)
    return ObservationInput(name, space, scaling, is_image, is_transposed)


def _scaling(normalizer: Normalizer | None, name: str) -> Scaling | None:
    if normalizer is None or f"{name}.mean" not in normalizer.arrays:
        return None
    variance = normalizer.arrays[f"{name}.var"]
    return Scaling(
        mean=np.asarray(normalizer.arrays[f"{name}.mean"], dtype=np.float64),
        std=np.sqrt(np.asarray(variance, dtype=np.float64) + normalizer.epsilon),
        clip=float(normalizer.clip_obs),
    )


def _check_action_space(space: spaces.Space[Any]) -> None:
    if not isinstance(space, _OBSERVATION_SPACES):
        raise ExportError(
            f"Action space {space} cannot be exported; allowed are Box, Discrete, MultiDiscrete "
            "and MultiBinary."
        )
    _refuse_start(space, "The action")


def _refuse_start(space: spaces.Space[Any], what: str) -> None:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start != 0):
        raise ExportError(
            f"{what} is a {space}, which does not start at 0, where Stable-Baselines3 counts from "
            "0 all the same; subtract the start in the environment."
        )
