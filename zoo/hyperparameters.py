"""Settings of one algorithm on one task: everything a preset says, checked and complete.

:mod:`zoo.presets` reads the files. Here a key must be a keyword of the algorithm's constructor or
one of :data:`RUN_KEYS`, a value of the type that it is annotated with, and classes are named from a
fixed list.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError, UnknownName
from agents.registry import algorithm_class
from hub import signatures
from hub.bundle_format.named_classes import NAMED_CLASSES
from hub.schedules import SCHEDULE_KEYS, build_schedule
from zoo.plain_yaml import check_plain
from zoo.presets import override_entry, parse_overrides, read_entry
from zoo.typed_values import coerce

__all__ = [
    "NORMALIZE_KEYS",
    "RUN_KEYS",
    "Hyperparameters",
    "build_agent_kwargs",
    "check_agent",
    "resolve_hyperparameters",
]

#: Keys of an entry that are not keywords of the algorithm, with their types.
RUN_KEYS: dict[str, Any] = {
    "source": str,
    "policy": str,
    "n_timesteps": int,
    "n_envs": int,
    "normalize": bool | dict[str, Any] | None,
    "env_kwargs": dict[str, Any] | None,
}
_RUN_DEFAULTS: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 1_000_000,
    "n_envs": 1,
    "normalize": False,
    "env_kwargs": None,
}
#: Keywords of VecNormalize, with their types; ``gamma`` is the agent's unless it is given.
NORMALIZE_KEYS: dict[str, Any] = {
    "norm_obs": bool,
    "norm_reward": bool,
    "clip_obs": float,
    "clip_reward": float,
    "gamma": float,
    "epsilon": float,
}
_NORMALIZE_DEFAULTS: dict[str, Any] = {
    "norm_obs": True,
    "norm_reward": True,
    "clip_obs": 10.0,
    "clip_reward": 10.0,
    "epsilon": 1e-8,
}

# Constructor arguments that the run supplies, with what to type instead of a key in a file.
_SUPPLIED = {
    "env": "Give the environment with --env.",
    "policy": "",
    "seed": "Give the seed with --seed.",
    "device": "Give the device with --device.",
    "tensorboard_log": "Give the folder with --tensorboard-log.",
    "worker_env": "Workers make the environment of --env with --env-kwargs.",
    "verbose": "Leave it out: the command line decides what is printed.",
    "_init_setup_model": "",
}
_POLICY_SUPPLIED = ("observation_space", "action_space", "lr_schedule", "use_sde")
_LOWEST = {
    "n_timesteps": 1,
    "n_envs": 1,
    "n_steps": 1,
    "n_epochs": 1,
    "n_critic_updates": 1,
    "batch_size": 2,  # one sample has no spread to normalise by
}
_FRACTIONS = ("gamma", "gae_lambda")


@dataclass(frozen=True)
class Hyperparameters:
    """A checked entry.

    :param source: where the values come from.
    :param policy: name of the policy.
    :param n_timesteps: how long to train.
    :param n_envs: environments side by side.
    :param normalize: all keywords of VecNormalize, or None for none.
    :param env_kwargs: keywords of the environment.
    :param agent: keywords of the algorithm's constructor as plain data, defaults included.
    """

    source: str
    policy: str
    n_timesteps: int
    n_envs: int
    normalize: dict[str, Any] | None
    env_kwargs: dict[str, Any]
    agent: dict[str, Any]


def resolve_hyperparameters(
    algo: str,
    env_id: str,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    conf_file: str | Path | None = None,
    untuned: bool = False,
) -> Hyperparameters:
    """Return the checked settings of one algorithm on one task.

    :param algo: registered name of the algorithm.
    :param env_id: Gymnasium's name of the task.
    :param overrides: ``KEY=VALUE`` texts, or dotted keys with plain values.
    :param conf_file: a file to read instead of ``hyperparams/<algo>.yml``.
    :param untuned: take the file's ``default`` entry alone, whatever the environment is.
    :raises UnknownName: no such algorithm, entry, policy or key.
    :raises ConfigError: a value cannot be used.
    """
    algorithm_class(algo)  # an unknown algorithm is the first thing to say
    entry = read_entry(algo, env_id, conf_file, untuned)
    changes = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    check_plain(changes, "overrides")
    settings = _RUN_DEFAULTS | override_entry(entry, changes)
    run = {
        key: coerce(key, settings.pop(key), kind, _RUN_DEFAULTS.get(key))
        for key, kind in RUN_KEYS.items()
    }
    agent = check_agent(algo, run["policy"], settings)
    _check_ranges(run | agent)
    return Hyperparameters(
        source=run["source"],
        policy=run["policy"],
        n_timesteps=run["n_timesteps"],
        n_envs=run["n_envs"],
        normalize=_normalize(run["normalize"], agent.get("gamma", 0.99)),
        env_kwargs=run["env_kwargs"] or {},
        agent=agent,
    )


def check_agent(algo: str, policy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all keywords of the algorithm's constructor, typed, its defaults filled in.

    The defaults are part of the record: a run must repeat itself under a later version of the
    algorithm, whose defaults may differ.

    :param algo: registered name of the algorithm.
    :param policy: the policy's name, whose keywords ``policy_kwargs`` holds.
    :param settings: the keywords that were given, as plain data.
    :raises UnknownName: no such policy, or the constructor has no such keyword.
    :raises ConfigError: a value is of another type.
    """
    algorithm = algorithm_class(algo)
    if policy not in algorithm.policy_aliases:
        raise UnknownName(f"{algo} policy", policy, algorithm.policy_aliases)
    parameters = {
        name: parameter
        for name, parameter in signatures.parameters(algorithm).items()
        if name not in _SUPPLIED and not signatures.takes_class(parameter.annotation)
    }
    for key in settings:
        if key not in parameters:
            advice = _SUPPLIED.get(key, "")
            raise UnknownName(f"{algo} setting", key, {*RUN_KEYS, *parameters}, advice)
    agent = {}
    for name, parameter in parameters.items():
        default = _plain_default(parameter)
        if name == "policy_kwargs" and settings.get(name) is not None:
            agent[name] = _check_policy_kwargs(settings[name], algorithm.policy_aliases[policy])
        elif name in settings:
            agent[name] = coerce(name, settings[name], parameter.annotation, default)
        elif default is not None or parameter.default is None:
            agent[name] = coerce(name, default, parameter.annotation)
    return agent


def _check_policy_kwargs(given: object, policy: type) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(
            f"policy_kwargs: {given!r} is not a mapping, and Python is never run. Write YAML, as "
            "in `policy_kwargs: {net_arch: {pi: [64, 64], vf: [64, 64]}, activation_fn: tanh}`."
        )
    parameters = {
        name: parameter
        for name, parameter in signatures.parameters(policy).items()
        if name not in _POLICY_SUPPLIED
        and (name in NAMED_CLASSES or not signatures.takes_class(parameter.annotation))
    }
    checked = {}
    for key, value in given.items():
        if key not in parameters:
            raise UnknownName("key of policy_kwargs", key, parameters)
        if key in NAMED_CLASSES:
            if value not in list(NAMED_CLASSES[key]):
                raise UnknownName(key, str(value), NAMED_CLASSES[key])
            checked[key] = value
        else:
            default = _plain_default(parameters[key])
            checked[key] = coerce(
                f"policy_kwargs.{key}", value, parameters[key].annotation, default
            )
    return checked


def _plain_default(parameter: inspect.Parameter) -> Any:
    """Return the parameter's default if it is plain data, else None."""
    default = parameter.default
    return default if isinstance(default, bool | int | float | str) else None


def _check_ranges(settings: Mapping[str, Any]) -> None:
    for key, lowest in _LOWEST.items():
        value = settings.get(key)
        if value is not None and value < lowest:
            raise ConfigError(f"{key}: {value} is below {lowest}; write {key}: {lowest} or more.")
    for key in _FRACTIONS:
        if settings.get(key) is not None and not 0.0 <= settings[key] <= 1.0:
            raise ConfigError(
                f"{key}: {settings[key]} is not between 0 and 1; write for example {key}: 0.99."
            )
    n_steps, n_envs = settings.get("n_steps"), settings["n_envs"]
    if n_steps is not None and n_steps * n_envs < 2:
        raise ConfigError(
            f"n_steps: {n_steps} with n_envs: {n_envs} collects one sample per update and at "
            "least 2 are needed; write for example n_steps: 64."
        )


def _normalize(given: bool | dict[str, Any] | None, gamma: float) -> dict[str, Any] | None:
    """Return all keywords of VecNormalize, in the order of ``NORMALIZE_KEYS``."""
    if given is None or given is False:
        return None
    complete = _NORMALIZE_DEFAULTS | {"gamma": gamma}
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in NORMALIZE_KEYS:
                raise UnknownName("key of normalize", key, NORMALIZE_KEYS)
            name = f"normalize.{key}"
            complete[key] = coerce(name, value, NORMALIZE_KEYS[key], complete[key])
    return {key: complete[key] for key in NORMALIZE_KEYS}


def build_agent_kwargs(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return real constructor keywords: schedules as callables, named classes as classes.

    :param agent: as :attr:`Hyperparameters.agent`.
    """
    kwargs = copy.deepcopy(dict(agent))
    for key in SCHEDULE_KEYS & kwargs.keys():
        if isinstance(kwargs[key], dict):
            kwargs[key] = build_schedule(key, kwargs[key])
    policy_kwargs = kwargs.get("policy_kwargs") or {}
    for key, classes in NAMED_CLASSES.items():
        if key in policy_kwargs:
            policy_kwargs[key] = classes[policy_kwargs[key]]
    return kwargs
