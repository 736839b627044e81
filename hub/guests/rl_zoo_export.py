"""An agent in the files that RL Zoo's ``load_from_hub`` and ``enjoy`` read.

These are pickles, because RL Zoo reads nothing else; everything here is only written. They name
classes of Stable-Baselines3, NumPy and Gymnasium alone, so that they load where natural-zoo is not
installed. RL Zoo knows no NPG: an algorithm that it does not know is written as the one of its own
that has the same networks, which plays the same; training would go on as that one.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle  # to write what RL Zoo reads
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.errors import ConfigError
from hub.guests.pickle_reader import Symbol
from hub.guests.sb3_model import untrained_sb3_model
from hub.guests.sb3_names import ALGORITHM_NAMES, POLICIES, algorithm_named
from hub.normalizer import Normalizer
from hub.schedules import Linear
from hub.vec_normalize import wrap

__all__ = ["RL_ZOO_FILES", "rl_zoo_files", "rl_zoo_name"]

RL_ZOO_FILES = (
    *("args.yml", "env_kwargs.yml", "results.json", "train_eval_metrics.zip"),
    "vec_normalize.pkl",
)
"""What is written beside the archive; ``config.yml`` is the bundle's own."""
_NEAREST = {"npg": "trpo"}
_METRICS = ("evaluations.npz", "*.monitor.csv")


def rl_zoo_name(algo: str, model: BaseAlgorithm) -> str:
    """Return the name that RL Zoo has for an agent's algorithm.

    :param algo: our name.
    :param model: the agent.
    :raises ConfigError: RL Zoo cannot play it.
    """
    if algo in ALGORITHM_NAMES:
        return algo
    policy = Symbol(type(model.policy).__module__, type(model.policy).__name__)
    if POLICIES.get(policy) is None or "actor" not in policy.name.lower():
        raise ConfigError(f"RL Zoo has no algorithm for {algo} with {policy}; leave --rl-zoo out.")
    return _NEAREST.get(algo, "a2c")


def rl_zoo_files(
    model: BaseAlgorithm,
    normalizer: Normalizer | None,
    *,
    algo: str,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    run: Path | None = None,
    seed: int | None = None,
) -> dict[str, bytes]:
    """Return the files by their names in the repository.

    :param model: the agent.
    :param normalizer: its frozen statistics.
    :param algo: our name of its algorithm.
    :param env_id: Gymnasium id.
    :param evaluation: the content of ``evaluation.json``.
    :param run: the run folder, for the metrics of training; None for none.
    :param seed: of the training.
    :raises ConfigError: RL Zoo cannot play it.
    :raises MissingDependency: its algorithm is sb3-contrib's, which is not installed.
    """
    name = rl_zoo_name(algo, model)
    genuine = _genuine(name, model)
    archive = io.BytesIO()
    genuine.save(archive)
    settings = {
        "algo": name,
        "env": env_id,
        "env_kwargs": dict(env_kwargs) or None,
        "n_timesteps": model.num_timesteps,
        "seed": seed,
    }
    results = {
        "mean_reward": evaluation["mean_return"],
        "std_reward": evaluation["std_return"],
        "is_deterministic": evaluation.get("deterministic", True),
        "n_eval_episodes": len(evaluation["returns"]),
        "eval_datetime": evaluation.get("created"),
    }
    return {
        f"{name}-{env_id.replace('/', '-')}.zip": _tidied(archive),
        "args.yml": yaml.safe_dump(settings).encode(),
        "env_kwargs.yml": yaml.safe_dump(dict(env_kwargs)).encode(),
        "results.json": json.dumps(results, indent=1).encode(),
        "train_eval_metrics.zip": _metrics(run),
        "vec_normalize.pkl": _pickled_normalizer(normalizer, genuine),
    }


def _tidied(archive: io.BytesIO) -> bytes:
    """Return the archive without dates, addresses in memory and facts about this machine.

    The same agent then gives the same bytes, so that it is not uploaded again.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            member = source.read(name)
            if name == "data":
                member = json.dumps(_needed(json.loads(member)), indent=4).encode()
            if name != "system_info.txt":
                target.writestr(zipfile.ZipInfo(name), member)
    return content.getvalue()


def _needed(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out what SB3 adds to its pickles for people to read."""
    keys = (":type:", ":serialized:")
    return {
        name: {key: value[key] for key in keys}
        if isinstance(value, dict) and ":serialized:" in value
        else value
        for name, value in data.items()
    }


def _genuine(name: str, model: BaseAlgorithm) -> BaseAlgorithm:
    """Return SB3's own algorithm with the agent's networks and as many of its settings as fit."""
    policy = POLICIES[Symbol(type(model.policy).__module__, type(model.policy).__name__)]
    settings: dict[str, Any] = {}
    for parameter in inspect.signature(algorithm_named(name)).parameters:
        value = getattr(model, parameter, None)
        value = getattr(value, "value_schedule", value)  # SB3's wrapper of clip_range
        if isinstance(value, Linear):
            settings[parameter] = {"schedule": "linear", "start": value.start, "end": value.end}
        elif isinstance(value, bool | int | float | str) and parameter not in ("policy", "seed"):
            settings[parameter] = value
    for name_given_otherwise in ("device", "verbose", "tensorboard_log"):
        settings.pop(name_given_otherwise, None)
    genuine = untrained_sb3_model(
        name,
        policy,
        model.observation_space,
        model.action_space,
        settings,
        copy.deepcopy(model.policy_kwargs),
        n_envs=model.n_envs,
    )
    parameters: Any = {"policy": model.policy.state_dict()}
    genuine.set_parameters(parameters, exact_match=False)
    genuine.num_timesteps = model.num_timesteps
    return genuine


class _Spaces(gym.Env[Any, Any]):
    """An environment that has spaces and is never stepped."""

    def __init__(self, model: BaseAlgorithm) -> None:
        self.observation_space = model.observation_space
        self.action_space = model.action_space


def _pickled_normalizer(normalizer: Normalizer | None, model: BaseAlgorithm) -> bytes:
    """Return a pickled VecNormalize; one that does nothing where there is none.

    RL Zoo's loader fails without the file, and does not look at it for an agent without.
    """
    nothing = Normalizer(
        {"ret.mean": np.zeros(()), "ret.var": np.ones(()), "ret.count": np.array(1e-4)},
        norm_obs=False,
        norm_reward=False,
    )
    wrapper = wrap(normalizer or nothing, DummyVecEnv([lambda: _Spaces(model)]))
    return pickle.dumps(wrapper)


def _metrics(run: Path | None) -> bytes:
    """Return the zip of learning curves, empty where there is no run; its times are fixed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for pattern in _METRICS if run is not None else ():
            for path in sorted(run.glob(pattern)) if run is not None else ():
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return content.getvalue()
