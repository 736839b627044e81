"""RL Zoo's ``config.yml`` and ``args.yml``, read without constructing anything.

RL Zoo writes them with tags that tell PyYAML's unsafe loader to import and call, and evaluates some
of the texts in them. Here a tag that stands for a dictionary or a tuple gives one, a class is its
name as text, and every other tag of that kind is refused. Texts stay texts.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import yaml

from agents.errors import BundleError

__all__ = ["linear_schedule", "normalize_settings", "read_rl_zoo_yaml"]

_MAX_CHARACTERS = 1_000_000
_PYTHON = "tag:yaml.org,2002:python/"
_NORMALIZE_KEYS = {
    *("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "training"),
}


class _Loader(yaml.SafeLoader):
    """A safe loader that knows the tags of ordinary RL Zoo files."""


def _ordered_dict(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        arguments = loader.construct_sequence(node, deep=True)
        if len(arguments) <= 1 and all(isinstance(a, list) for a in arguments):
            pairs = arguments[0] if arguments else []
            if all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
                return {key: value for key, value in pairs}
    raise yaml.constructor.ConstructorError(None, None, "an OrderedDict of pairs", node.start_mark)


def _tuple(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple", node.start_mark)
    return loader.construct_sequence(node, deep=True)


def _class_name(loader: _Loader, name: str, node: yaml.Node) -> str:
    return name


_Loader.add_constructor(f"{_PYTHON}object/apply:collections.OrderedDict", _ordered_dict)
_Loader.add_constructor(f"{_PYTHON}tuple", _tuple)
_Loader.add_multi_constructor(f"{_PYTHON}name:", _class_name)


def read_rl_zoo_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the settings of a file.

    :param text: its content.
    :param where: its name, for messages.
    :raises BundleError: it is no mapping, or a tag would run code.
    """
    if len(text) > _MAX_CHARACTERS:
        raise BundleError(f"{where} is too large for settings: {len(text)} characters.")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise BundleError(
            f"{where} cannot be read without running code, or is damaged: {detail}. The agent "
            "itself may be loaded without it: remove the file from a copy of the folder."
        ) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BundleError(f"{where} holds no settings: it must be a mapping of names to values.")
    return value


def normalize_settings(value: object, where: str) -> dict[str, Any] | None:
    """Return what RL Zoo's ``normalize`` asks for as keywords of VecNormalize; None for nothing.

    RL Zoo evaluates a text such as ``"{'norm_obs': True, 'norm_reward': False}"``; here it may
    hold nothing but literals.

    :raises BundleError: it is something else.
    """
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise BundleError(
                f"{where}: normalize is an expression that is not evaluated here."
            ) from error
    if value is None or value is False:
        return None
    if value is True:
        return {}
    if (
        isinstance(value, dict)
        and set(value) <= _NORMALIZE_KEYS
        and all(isinstance(v, bool | int | float) for v in value.values())
    ):
        return dict(value)
    keys = ", ".join(sorted(_NORMALIZE_KEYS))
    raise BundleError(f"{where}: normalize must be true, false or a mapping of {keys}.")


def linear_schedule(value: object) -> float | dict[str, Any] | None:
    """Return the schedule that a setting such as ``lin_3e-4`` stands for; None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = (
        re.fullmatch(r"lin_([0-9.]+(?:[eE][+-]?[0-9]+)?)", value)
        if isinstance(value, str)
        else None
    )
    if match is None:
        return None
    try:
        return {"schedule": "linear", "start": float(match[1]), "end": 0.0}
    except ValueError:
        return None
