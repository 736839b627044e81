"""Stable-Baselines3's ``.zip`` archives, read without unpickling anything in them.

``data`` is JSON whose values that JSON cannot hold are pickles in base64. The few that are needed
are read by ``pickle_reader`` beside this module and turned into values of ours by exact lists; the
others are not looked at. The model is made by its constructor from arguments that it names,
never by setting what the file says. Weights are loaded by torch with ``weights_only=True``.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from agents.errors import BundleError
from hub.guests.pickle_reader import Built, Symbol, read_pickle
from hub.guests.pickled_values import (
    UnreadableFunction,
    plain,
    schedule,
    space,
    to_known,
    to_number,
)
from hub.guests.sb3_names import CLASSES, POLICIES, algorithm_named, algorithm_of

__all__ = ["Sb3Archive", "read_sb3_archive"]

_MAX_BYTES = 2**31
_MAX_DATA_BYTES = 64 * 2**20
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
# What a caller decides, or what is read on its own.
_NOT_SETTINGS = {
    *("self", "policy", "env", "policy_kwargs", "tensorboard_log", "verbose", "device", "seed"),
    *("_init_setup_model", "rollout_buffer_class", "rollout_buffer_kwargs", "action_noise"),
    *("replay_buffer_class", "replay_buffer_kwargs"),
}
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls")
_MAX_ENVS = 2**16
_TRAIN_FREQ = Symbol("stable_baselines3.common.type_aliases", "TrainFreq")
_UNITS = {"STEP": "step", "EPISODE": "episode"}
_GETATTR = Symbol("builtins", "getattr")
_UNIT = Symbol("stable_baselines3.common.type_aliases", "TrainFrequencyUnit")
_VARIABLES = ("log_ent_coef", "ent_coef_tensor")


@dataclass(frozen=True)
class Sb3Archive:
    """What an archive holds, as plain data and tensors.

    :param algo: name of the algorithm, such as ``"ppo"``.
    :param policy: SB3's name of the policy, such as ``"MlpPolicy"``.
    :param settings: keywords of the algorithm's constructor; a schedule is a number or a mapping.
    :param policy_kwargs: keywords of the policy, with classes.
    :param parameters: state dicts as ``BaseAlgorithm.set_parameters`` takes them.
    :param variables: tensors beside them, such as ``log_ent_coef``.
    :param counters: how far training had come.
    :param n_envs: environments side by side in training.
    :param unreadable: the settings that are functions of the author's.
    """

    algo: str
    policy: str
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    settings: dict[str, Any]
    policy_kwargs: dict[str, Any]
    parameters: dict[str, dict[str, Any]]
    variables: dict[str, torch.Tensor]
    counters: dict[str, int]
    n_envs: int
    unreadable: tuple[str, ...]


def read_sb3_archive(path: Path) -> Sb3Archive:
    """Read an archive.

    :raises BundleError: it is damaged, or cannot be read without running code in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, str(path))
            data = json.loads(archive.read("data"))
            members = {
                name.removesuffix(".pth"): _load_tensors(archive.read(name), f"{path}: {name}")
                for name in archive.namelist()
                if name.endswith(".pth")
            }
    except FileNotFoundError as error:
        raise BundleError(f"There is no file '{path}'.") from error
    except BundleError:
        raise
    except Exception as error:  # whatever zipfile, json and zlib make of damage
        detail = " ".join(str(error).split())[:200]
        raise BundleError(
            f"{path} is no archive of Stable-Baselines3, or damaged ({type(error).__name__}: "
            f"{detail}). Download it again."
        ) from error
    if not isinstance(data, dict) or "policy" not in members:
        raise BundleError(f"{path} is no archive of Stable-Baselines3: it has no policy.")
    return _interpret(data, members, str(path))


def _check_sizes(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse what would fill the memory before anything is unpacked."""
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if len(sizes) != len(archive.infolist()):
        raise BundleError(f"{where} holds a file twice.")
    if sum(sizes.values()) > _MAX_BYTES or sizes.get("data", 0) > _MAX_DATA_BYTES:
        raise BundleError(f"{where} would unpack to more than an agent can have.")


def _load_tensors(content: bytes, where: str) -> Any:
    """Return what torch loads without unpickling more than tensors and containers."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            _check_sizes(inner, where)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _interpret(data: dict[str, Any], members: dict[str, Any], where: str) -> Sb3Archive:
    variables = members.pop("pytorch_variables", None) or {}
    members.pop("tensors", None)
    if not all(isinstance(member, dict) for member in members.values()):
        raise BundleError(f"{where} is damaged: its parameters are no state dicts.")
    values = _Values(data, where)
    policy = values.read("policy_class", lambda value, _: value)
    if not isinstance(policy, Symbol):
        raise BundleError(f"{where} is damaged: its policy is no class.")
    algo = algorithm_of(policy, data, where)
    settings, unreadable = _settings(algo, values)
    policy_kwargs = _policy_kwargs(values)
    if algo == "a2c":  # not in the archive; the optimiser that it chose is
        settings["use_rms_prop"] = "optimizer_class" in policy_kwargs
    return Sb3Archive(
        algo=algo,
        policy=to_known(policy, POLICIES, f"{where}: policy_class"),
        observation_space=values.read("observation_space", space),
        action_space=values.read("action_space", space),
        settings=settings,
        policy_kwargs=policy_kwargs,
        parameters=members,
        variables={
            name: variables[name]
            for name in _VARIABLES
            if isinstance(variables, dict) and isinstance(variables.get(name), torch.Tensor)
        },
        n_envs=_n_envs(data.get("n_envs", 1), where),
        counters={k: v for k in _COUNTERS if isinstance(v := data.get(k), int) and v >= 0},
        unreadable=unreadable,
    )


def _n_envs(value: Any, where: str) -> int:
    if not isinstance(value, int) or not 1 <= value <= _MAX_ENVS:
        raise BundleError(f"{where} is damaged: n_envs is not a number from 1 to {_MAX_ENVS}.")
    return value


class _Values:
    """The values of ``data``: JSON as it is, pickles read on demand."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data = data
        self.where = where

    def read(self, key: str, convert: Callable[[Any, str], Any]) -> Any:
        """Return a value, converted.

        :raises BundleError: it is missing, or cannot be read.
        """
        where = f"{self.where}: {key}"
        if key not in self.data:
            raise BundleError(f"{where} is missing; it is no archive of Stable-Baselines3.")
        value = self.data[key]
        if isinstance(value, dict) and ":serialized:" in value:
            try:
                content = base64.b64decode(value[":serialized:"], validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise BundleError(f"{where} is damaged: it is not base64.") from error
            value = read_pickle(content, where)
        return convert(value, where)


def _settings(algo: str, values: _Values) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the constructor's keywords, and those that only running code would tell."""
    names = set(inspect.signature(algorithm_named(algo)).parameters) - _NOT_SETTINGS
    settings: dict[str, Any] = {}
    unreadable = []
    for name in sorted(names & set(values.data)):
        try:
            settings[name] = values.read(name, _converter(name))
        except UnreadableFunction:
            unreadable.append(name)
    return settings, tuple(unreadable)


def _converter(name: str) -> Callable[[Any, str], Any]:
    if name in _SCHEDULES:
        return lambda value, where: None if value is None else schedule(value, where)
    if name == "train_freq":
        return _train_freq
    if name == "target_entropy":
        return lambda value, where: value if value == "auto" else to_number(value, where)
    return _scalar


def _scalar(value: Any, where: str) -> Any:
    value = plain(value, {}, where)
    if isinstance(value, list | dict):
        raise BundleError(f"{where} should hold one value.")
    return value


def _train_freq(value: Any, where: str) -> Any:
    """Return ``(4, "step")`` for a ``TrainFreq``."""
    if isinstance(value, Built) and value.maker == _TRAIN_FREQ and len(value.arguments) == 2:
        frequency, unit = value.arguments
        if isinstance(unit, Built):
            unit = _unit(unit)
        if isinstance(frequency, int) and unit in ("step", "episode"):
            return frequency, unit
    return _scalar(value, where)


def _unit(value: Built) -> Any:
    """Return what a member of SB3's enumeration stands for; None for anything else."""
    if value.maker == _UNIT and value.arguments:
        return value.arguments[0]
    # Python 3.11.0 to 3.11.3 pickles a member as an attribute of its class.
    if value.maker == _GETATTR and len(value.arguments) == 2 and value.arguments[0] == _UNIT:
        return _UNITS.get(value.arguments[1])
    return None


def _policy_kwargs(values: _Values) -> dict[str, Any]:
    found = values.read("policy_kwargs", lambda value, where: plain(value, CLASSES, where))
    if not isinstance(found, dict):
        raise BundleError(f"{values.where}: policy_kwargs is no dictionary.")
    found.pop("device", None)
    shape = found.get("net_arch")
    if isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], dict):
        found["net_arch"] = shape[0]  # as it was written before SB3 1.8
    if "betas" in (found.get("optimizer_kwargs") or {}):
        found["optimizer_kwargs"]["betas"] = tuple(found["optimizer_kwargs"]["betas"])
    return found
