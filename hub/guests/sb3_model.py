"""A Stable-Baselines3 model from what :mod:`hub.guests.sb3_archive` read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from agents.errors import BundleError
from hub.guests.sb3_archive import Sb3Archive
from hub.guests.sb3_names import algorithm_named

__all__ = ["build_sb3_model", "untrained_sb3_model"]

_BEFORE_1_7 = "pi_features_extractor"


def build_sb3_model(
    archive: Sb3Archive,
    where: str,
    *,
    instead: Mapping[str, Any] | None = None,
    n_envs: int | None = None,
    device: str = "cpu",
) -> BaseAlgorithm:
    """Return the model, ready to predict; ``set_env`` lets it go on training.

    :param archive: from :func:`hub.guests.sb3_archive.read_sb3_archive`.
    :param where: its name, for messages.
    :param instead: settings for those that the archive holds as functions; without one the
        algorithm's default is taken.
    :param n_envs: environments that it will be given; None for as many as it was trained in.
    :param device: of torch.
    :raises BundleError: the weights do not fit the networks that the settings make.
    """
    try:
        model = untrained_sb3_model(
            archive.algo,
            archive.policy,
            archive.observation_space,
            archive.action_space,
            {**archive.settings, **(instead or {})},
            archive.policy_kwargs,
            n_envs=n_envs or archive.n_envs,
            device=device,
        )
        _set_parameters(model, archive)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, AssertionError) as error:
        detail = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{where} cannot be loaded with the installed stable-baselines3: {detail}"
        ) from error
    for name, value in archive.counters.items():
        if hasattr(model, name):
            setattr(model, name, value)
    if model.use_sde:
        model.policy.reset_noise()  # type: ignore[operator]
    return model


def untrained_sb3_model(
    algo: str,
    policy: str,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    settings: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any],
    *,
    n_envs: int = 1,
    device: str = "cpu",
) -> BaseAlgorithm:
    """Return SB3's algorithm on given spaces, without an environment and with random weights.

    :param algo: its name in lower case.
    :param policy: such as ``"MlpPolicy"``.
    :param settings: keywords of its constructor; a schedule is a number or a mapping.
    :param policy_kwargs: keywords of the policy's.
    """
    make: Callable[..., BaseAlgorithm] = algorithm_named(algo)
    with warnings.catch_warnings():
        # SB3's advice to whoever chose these settings does not help whoever loads them.
        warnings.simplefilter("ignore", UserWarning)
        model = make(
            policy=policy,
            env=None,
            device=device,
            policy_kwargs=dict(policy_kwargs),
            _init_setup_model=False,
            **{name: _callable(value) for name, value in settings.items()},
        )
        model.observation_space = observation_space
        model.action_space = action_space
        model.n_envs = n_envs
        model._setup_model()
    return model


def _callable(value: Any) -> float | Callable[[float], float] | Any:
    if not isinstance(value, dict):
        return value
    return LinearSchedule(value["start"], value["end"], value.get("end_fraction", 1.0))


def _set_parameters(model: BaseAlgorithm, archive: Sb3Archive) -> None:
    """Put the state dicts in, also those that older versions of SB3 wrote."""
    parameters: Any = dict(archive.parameters)
    try:
        model.set_parameters(parameters, exact_match=True)
    except RuntimeError as error:
        if _BEFORE_1_7 not in str(error):
            raise
        model.set_parameters(parameters, exact_match=False)
    except ValueError:
        # Before SB3 2.4 DQN's optimiser also held the target network.
        group = parameters["policy.optimizer"]["param_groups"][0]
        count = len(model.policy.optimizer.param_groups[0]["params"])
        if len(group["params"]) != 2 * count:
            raise
        group["params"] = group["params"][:count]
        model.set_parameters(parameters, exact_match=True)
    for name, value in archive.variables.items():
        own = getattr(model, name, None)
        if own is not None and own.shape == value.shape:
            own.data = value.data.to(own.device)
