"""Search spaces: which settings a trial may have, read from YAML.

A file maps names to *parameters*. A name is a setting, dotted to reach inside::

    target_kl: {low: 0.005, high: 0.1, log: true, falls_to: [1.0, 0.1, 0.0]}
    gae_lambda: {choices: [0.9, 0.95, 0.98]}
    policy_kwargs.log_std_init: {low: -2.0, high: 0.0}
    rollout:                      # named choices set any settings, and may hold parameters
      choices:
        16x64: {n_envs: 16, n_steps: 64}
        4x512: {n_envs: 4, n_steps: 512, batch_size: {choices: [64, 128]}}

``low`` and ``high`` without a decimal point are whole numbers. Floats are rounded to three
significant digits, so that a preset says what was tried. ``falls_to`` makes a schedule: the value
falls linearly to that share of itself; a share of 1 keeps it constant.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from agents.errors import ConfigError, UnknownName
from zoo.plain_yaml import load_yaml

__all__ = ["Range", "SearchSpace", "Suggester", "known_spaces", "load_space", "parse_space"]

Overrides: TypeAlias = dict[str, Any]
_RANGE_KEYS = ("low", "high", "log", "step", "falls_to")
_DIGITS = 3


class Suggester(Protocol):
    """What chooses the values, such as an ``optuna.Trial``."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from ``low`` to ``high``."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return a whole number from ``low`` to ``high``."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of ``choices``."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    falls_to: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are in it."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class _Values:
    """One of several values of a setting."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class _Named:
    """One of several groups of settings, each of which may hold parameters of its own."""

    groups: Mapping[str, Mapping[str, Any]]


_Parameter: TypeAlias = Range | _Values | _Named


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of a search.

    :param definition: the YAML that it was read from, as plain data.
    :param parameters: by name.
    """

    definition: Mapping[str, Any]
    parameters: Mapping[str, _Parameter]

    def suggest(self, trial: Suggester) -> Overrides:
        """Return the settings of a trial, as overrides of an entry: dotted keys, plain values."""
        return _suggest_all(self.parameters, trial, "")

    def corners(self) -> list[Overrides]:
        """Return settings in which every choice and both ends of every range occur.

        Each must make a valid entry; they tell a mistyped key before the search begins.
        """
        return _corners(self.parameters)


def known_spaces() -> list[str]:
    """Return the algorithms that a search space is shipped for."""
    folder = importlib.resources.files("zoo.tuning").joinpath("spaces")
    return sorted(
        file.name.removesuffix(".yml") for file in folder.iterdir() if file.name.endswith(".yml")
    )


def load_space(algo: str, path: Path | None = None) -> SearchSpace:
    """Read a search space.

    :param algo: whose shipped space is read if there is no ``path``.
    :param path: a file of the user's.
    :raises UnknownName: no space is shipped for the algorithm.
    :raises ConfigError: the file cannot be read or is no search space.
    """
    if path is not None:
        try:
            return parse_space(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"'{path}' cannot be read ({reason}); give --search-space an existing YAML file."
            ) from error
    if algo not in known_spaces():
        raise UnknownName(
            "search space", algo, known_spaces(), "Give one of your own: --search-space FILE."
        )
    file = importlib.resources.files("zoo.tuning").joinpath("spaces", f"{algo}.yml")
    return parse_space(file.read_text(encoding="utf-8"), f"spaces/{algo}.yml")


def parse_space(text: str, where: str) -> SearchSpace:
    """Read a search space from YAML.

    :param where: the file's name, for messages.
    :raises ConfigError: it is none.
    """
    content = load_yaml(text, where)
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{where}: a search space maps settings to what they may be, as in "
            "`target_kl: {low: 0.005, high: 0.1, log: true}`."
        )
    parameters = {}
    for name, definition in content.items():
        if not _is_parameter(definition):
            raise ConfigError(
                f"{where}, {name}: {definition!r} is no parameter; write {{low: …, high: …}} or "
                "{choices: […]}, and give a fixed value with --hyperparams."
            )
        parameters[name] = _parse(definition, f"{where}, {name}")
    return SearchSpace(content, parameters)


def _is_parameter(definition: object) -> bool:
    return isinstance(definition, dict) and bool({"choices", "low", "high"} & definition.keys())


def _parse(definition: dict[str, Any], where: str) -> _Parameter:
    if "choices" not in definition:
        return _parse_range(definition, where)
    if unknown := [key for key in definition if key != "choices"]:
        raise UnknownName(f"key of {where}", unknown[0], ["choices"])
    choices = definition["choices"]
    if isinstance(choices, list) and choices:
        if any(isinstance(choice, dict | list) for choice in choices):
            raise ConfigError(
                f"{where}: a choice that is a list or mapping needs a name; write "
                "`choices: {small: {policy_kwargs.net_arch: [64, 64]}, …}`."
            )
        return _Values(tuple(choices))
    if isinstance(choices, dict) and choices:
        for name, group in choices.items():
            if not isinstance(group, dict):
                raise ConfigError(
                    f"{where}, {name}: {group!r} is no mapping; write the settings of this choice, "
                    "as in {n_envs: 16, n_steps: 64}, or {} for none."
                )
        return _Named({name: _parse_group(group, where) for name, group in choices.items()})
    raise ConfigError(f"{where}: 'choices' is {choices!r}; write a list or a mapping of choices.")


def _parse_group(group: dict[str, Any], where: str) -> dict[str, Any]:
    return {
        key: _parse(value, f"{where}, {key}") if _is_parameter(value) else value
        for key, value in group.items()
    }


def _parse_range(definition: dict[str, Any], where: str) -> Range:
    for key in definition:
        if key not in _RANGE_KEYS:
            raise UnknownName(f"key of {where}", key, _RANGE_KEYS)
    for key in ("low", "high"):
        if not _is_number(definition.get(key)):
            raise ConfigError(f"{where}: '{key}' is {definition.get(key)!r}; write a number.")
    low, high, log = definition["low"], definition["high"], definition.get("log", False)
    if not low < high or (log and low <= 0):
        raise ConfigError(
            f"{where}: from {low} to {high}{' on a logarithmic scale' if log else ''} is no range; "
            "'low' must be below 'high', and above 0 with log."
        )
    falls_to = definition.get("falls_to", [])
    if not isinstance(falls_to, list) or not all(map(_is_number, falls_to)):
        raise ConfigError(f"{where}: falls_to is {falls_to!r}; write shares, as in [1.0, 0.1].")
    step = definition.get("step")
    if step is not None and (log or not _is_number(step) or step <= 0):
        raise ConfigError(f"{where}: step is {step!r}; write a number above 0, and no log.")
    return Range(low, high, bool(log), step, tuple(falls_to))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- Choosing -----------------------------------------------------------------------------------


def _suggest_all(parameters: Mapping[str, Any], trial: Suggester, prefix: str) -> Overrides:
    overrides: Overrides = {}
    for key, parameter in parameters.items():
        name = f"{prefix}{key}"
        if isinstance(parameter, Range):
            overrides[key] = _suggest_number(parameter, trial, name)
        elif isinstance(parameter, _Values):
            overrides[key] = trial.suggest_categorical(name, parameter.values)
        elif isinstance(parameter, _Named):
            choice = trial.suggest_categorical(name, tuple(parameter.groups))
            overrides |= _suggest_all(parameter.groups[choice], trial, f"{name}={choice}.")
        else:
            overrides[key] = parameter
    return overrides


def _suggest_number(parameter: Range, trial: Suggester, name: str) -> Any:
    if parameter.is_whole:
        step = int(parameter.step or 1)
        drawn: float = trial.suggest_int(
            name, int(parameter.low), int(parameter.high), step=step, log=parameter.log
        )
    else:
        drawn = trial.suggest_float(
            name, parameter.low, parameter.high, step=parameter.step, log=parameter.log
        )
    share = 1.0
    if parameter.falls_to:
        share = trial.suggest_categorical(f"{name} falls to", parameter.falls_to)
    return _value(parameter, drawn, share)


def _value(parameter: Range, drawn: float, share: float) -> Any:
    value = int(drawn) if parameter.is_whole else _rounded(drawn)
    if share == 1:
        return value
    return {"schedule": "linear", "start": value, "end": _rounded(value * share)}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _corners(parameters: Mapping[str, Any]) -> list[Overrides]:
    """Return as many combinations as the parameter with the most alternatives needs."""
    alternatives = [_alternatives(key, parameter) for key, parameter in parameters.items()]
    corners = []
    for position in range(max(map(len, alternatives), default=1)):
        corner: Overrides = {}
        for each in alternatives:
            corner |= each[position % len(each)]
        corners.append(corner)
    return corners


def _alternatives(key: str, parameter: Any) -> list[Overrides]:
    if isinstance(parameter, Range):
        shares = parameter.falls_to or (1.0,)
        ends = (parameter.low, parameter.high)
        return [{key: _value(parameter, end, share)} for end in ends for share in shares]
    if isinstance(parameter, _Values):
        return [{key: value} for value in parameter.values]
    if isinstance(parameter, _Named):
        return [corner for group in parameter.groups.values() for corner in _corners(group)]
    return [{key: parameter}]
