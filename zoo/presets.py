"""The files of tuned settings: their entries as they stand there, and changes to them.

``hyperparams/<algo>.yml`` (or a file given by the user) maps environment ids to flat entries::

    default:                 # inherited by every entry, by itself only for an untuned run
      policy: MlpPolicy
      n_envs: 16
      normalize: true        # VecNormalize; or a mapping of its keywords, or false
    Walker2d-v4:
      source: "where the values come from"
      target_kl: 0.02        # every other key is a keyword of the algorithm's constructor
      policy_kwargs: {net_arch: {pi: [64, 64], vf: [64, 64]}, activation_fn: tanh}

``default`` < entry < overrides. A key replaces the whole value below it; a dotted override such
as ``policy_kwargs.log_std_init=-1`` changes one value inside. The files hold data only: YAML's
Python tags are refused. :mod:`zoo.hyperparameters` checks what they say.
"""

from __future__ import annotations

import copy
import importlib.resources
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from agents.errors import ConfigError, UnknownName
from zoo.plain_yaml import flow_yaml, load_yaml

__all__ = ["override_entry", "parse_overrides", "read_entries", "read_entry"]


def read_entries(algo: str, conf_file: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Return all entries of an algorithm's file, ``default`` included, as they stand there.

    :param algo: registered name; one without a file of its own has no entries.
    :param conf_file: a file to read instead of ``hyperparams/<algo>.yml``.
    :raises ConfigError: the file cannot be read or is not a mapping of mappings.
    """
    where = _file_name(algo, conf_file)
    entries = load_yaml(_file_text(algo, conf_file), where)
    if not isinstance(entries, dict):
        raise ConfigError(f"{where}: write a mapping from environment ids to their settings.")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ConfigError(
                f"{where}: the entry '{name}' is {entry!r}; write `KEY: VALUE` lines under it."
            )
    return entries


def _file_name(algo: str, conf_file: str | Path | None) -> str:
    return f"hyperparams/{algo}.yml" if conf_file is None else str(conf_file)


def _file_text(algo: str, conf_file: str | Path | None) -> str:
    if conf_file is None:
        resource = importlib.resources.files("hyperparams").joinpath(f"{algo}.yml")
        return resource.read_text(encoding="utf-8") if resource.is_file() else "{}"
    path = Path(conf_file)
    if path.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"'{path}' is not a .yml file; give --conf-file a YAML file.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"'{path}' cannot be read ({reason}); give --conf-file an existing YAML file."
        ) from error


def read_entry(
    algo: str, env_id: str, conf_file: str | Path | None, untuned: bool
) -> dict[str, Any]:
    """Return the entry of one task with ``default`` merged under it and its provenance inside.

    :param algo: registered name.
    :param env_id: Gymnasium's name of the task.
    :param conf_file: a file to read instead of ``hyperparams/<algo>.yml``.
    :param untuned: take ``default`` alone, whatever the environment is.
    :raises UnknownName: there is no entry for the task.
    :raises ConfigError: the file cannot be read, or the entry does not say where it comes from.
    """
    entries = read_entries(algo, conf_file)
    where = _file_name(algo, conf_file)
    default = entries.pop("default", {})
    if untuned:
        return {**default, "source": f"untuned: the default entry of {where}"}
    if env_id not in entries:
        raise _unlisted(algo, env_id, entries, where)
    entry = entries[env_id]
    if "source" not in entry:
        if conf_file is None:
            raise ConfigError(f"{where}: '{env_id}' has no source; add `source: \"…\"` to it.")
        entry["source"] = where
    return default | entry


def _unlisted(algo: str, env_id: str, listed: Iterable[str], where: str) -> UnknownName:
    if env_id.rpartition(":")[2] not in gymnasium.registry:
        return UnknownName("environment", env_id, listed)
    return UnknownName(
        f"{algo} entry",
        env_id,
        listed,
        advice=(
            f"Gymnasium has this environment, but there is no tuned entry for it with {algo}: "
            f"--untuned trains with the default entry of {where}, "
            "--conf-file FILE gives your own values."
        ),
    )


_PAIR = re.compile(r"\s*([A-Za-z_][\w.]*)\s*[=:]\s*(.*)", re.DOTALL)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` or RL Zoo's ``KEY:VALUE`` pairs; a key may be dotted, a value is YAML.

    :param pairs: such as ``["target_kl=0.02", "policy_kwargs.log_std_init=-1"]``.
    :return: dotted keys and plain values, the last one of equal keys.
    :raises ConfigError: a pair has no key or no value, or the value is not plain YAML.
    """
    overrides = {}
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None or not match[2] or "" in match[1].split("."):
            raise ConfigError(
                f"'{pair}' is not KEY=VALUE; write for example target_kl=0.02 "
                "or policy_kwargs.log_std_init=-1 (null for no value)."
            )
        overrides[match[1]] = load_yaml(match[2], match[1])
    return overrides


def override_entry(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``entry`` in which the dotted keys have the values of ``overrides``."""
    changed = copy.deepcopy(dict(entry))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        target = changed
        for parent in parents:
            inner = target.get(parent)
            if inner is None or (parent == "normalize" and inner is True):
                inner = target[parent] = {}
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"'{key}' cannot be set: {parent} is {inner!r} and not a mapping. "
                    f"Give all of it, as in {parent}={{{last}: {flow_yaml(value)}}}."
                )
            target = inner
        target[last] = value
    if overrides and "source" not in overrides and "source" in changed:
        changed["source"] += f"; changed: {', '.join(sorted(overrides))}"
    return changed
