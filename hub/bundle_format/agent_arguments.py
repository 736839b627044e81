"""Constructor arguments of an agent as plain data, and back, checked against the signature.

What a file may set is what the constructor takes (``agents`` and ``policy_aliases`` classes only),
less everything that a file has no business with: environments, folders, devices, classes. A
schedule or an action noise goes by name, and so do the classes in ``policy_kwargs``.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any, get_args

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy

from agents.errors import BundleError, UnknownName
from hub import signatures
from hub.bundle_format import strict_json as read
from hub.bundle_format.named_classes import NAMED_CLASSES
from hub.bundle_format.noise_data import noise_from_json, noise_to_json
from hub.bundle_format.plain_data import INFINITIES, check_plain, to_plain
from hub.bundle_format.replay_data import REPLAY_ARGUMENTS, replay_from_json, replay_to_json
from hub.bundle_format.schedule_data import schedule_from_json, schedule_to_json

__all__ = [
    "arguments_from_json",
    "arguments_to_json",
    "policy_kwargs_from_json",
    "policy_kwargs_to_json",
]

# Of the algorithm: given by whoever loads it, or by other parts of the bundle.
_NOT_IN_FILES = frozenset(
    (
        *("policy", "env", "policy_kwargs", "tensorboard_log", "verbose", "device"),
        *("worker_env", "_init_setup_model", "monitor_wrapper", "support_multi_env", "sde_support"),
        *("supported_action_spaces", "rollout_buffer_class", "rollout_buffer_kwargs"),
    )
)
_NOT_IN_POLICY_FILES = frozenset(("observation_space", "action_space", "lr_schedule", "device"))
# A2C turns these into an optimiser of ``policy_kwargs`` and forgets them.
_NOT_KEPT = frozenset(("use_rms_prop", "rms_prop_eps"))


# --- The algorithm ------------------------------------------------------------------------------


def _algorithm_parameters(algorithm: type[BaseAlgorithm]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in signatures.parameters(algorithm).items()
        if name not in _NOT_IN_FILES
        and (name in REPLAY_ARGUMENTS or not signatures.takes_class(parameter.annotation))
    }


def arguments_to_json(model: BaseAlgorithm) -> dict[str, Any]:
    """Return the arguments that ``model`` was made with, as its attributes hold them.

    :raises BundleError: one is no plain data, such as a schedule that is a lambda.
    """
    _check_buffers(model)
    arguments = {}
    for name in _algorithm_parameters(type(model)):
        if name in REPLAY_ARGUMENTS or (name in _NOT_KEPT and not hasattr(model, name)):
            continue
        for attribute in (name, f"_{name}"):
            if hasattr(model, attribute):
                arguments[name] = _argument_to_json(getattr(model, attribute), name)
                break
        else:
            raise BundleError(
                f"{type(model).__name__} does not keep its argument '{name}' as an attribute, so a "
                f"bundle cannot repeat it. Add `self.{name} = {name}` to its constructor."
            )
    return arguments | replay_to_json(model)


def _argument_to_json(value: Any, name: str) -> Any:
    if isinstance(value, ActionNoise):
        return noise_to_json(value, name)
    if callable(value):
        return schedule_to_json(value, name)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # such as TrainFreq
        value = tuple(value)
        return [getattr(part, "value", part) for part in value]
    return check_plain(to_plain(value, name), name)


def _check_buffers(model: BaseAlgorithm) -> None:
    kwargs = getattr(model, "rollout_buffer_kwargs", None)
    buffer = getattr(model, "rollout_buffer_class", None)
    own = buffer is None or buffer.__module__ == "stable_baselines3.common.buffers"
    if kwargs or not own:
        raise BundleError(
            f"A bundle holds agents with SB3's own rollout buffers, not {read.shown(buffer)} with "
            f"{read.shown(kwargs)}."
        )


def arguments_from_json(algorithm: type[BaseAlgorithm], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords of ``algorithm``'s constructor.

    :param given: plain data of any origin.
    :raises BundleError: there is no such keyword, or its value is of another type.
    """
    parameters = _algorithm_parameters(algorithm)
    arguments = {}
    for name, value in given.items():
        where = f"arguments.{name}"
        if name not in parameters:
            raise BundleError(f"arguments: {UnknownName('argument', name, parameters)}")
        if name not in REPLAY_ARGUMENTS:
            arguments[name] = _built(value, parameters[name].annotation, where)
    return arguments | replay_from_json(given, parameters)


# --- The policy ---------------------------------------------------------------------------------


def _policy_parameters(policy: type[BasePolicy]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in signatures.parameters(policy).items()
        if name not in _NOT_IN_POLICY_FILES
        and (name in NAMED_CLASSES or not signatures.takes_class(parameter.annotation))
    }


def policy_kwargs_to_json(policy: type[BasePolicy], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy's keywords as plain data, classes by their names.

    :raises BundleError: a class has no name, or a value is no plain data.
    """
    written = {}
    for name, value in kwargs.items():
        where = f"policy_kwargs.{name}"
        if name in NAMED_CLASSES and isinstance(value, type):
            names = [known for known, cls in NAMED_CLASSES[name].items() if cls is value]
            if not names:
                raise BundleError(
                    f"{where} is {value.__module__}.{value.__qualname__}, which has no name here; "
                    f"a bundle can hold {', '.join(NAMED_CLASSES[name])}."
                )
            written[name] = names[0]
        else:
            written[name] = check_plain(to_plain(value, where), where)
    policy_kwargs_from_json(policy, written)
    return written


def policy_kwargs_from_json(policy: type[BasePolicy], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords of the policy's constructor, classes looked up by name.

    :raises BundleError: there is no such keyword or class, or a value is of another type.
    """
    parameters = _policy_parameters(policy)
    kwargs: dict[str, Any] = {}
    for name, value in given.items():
        where = f"policy_kwargs.{name}"
        if name not in parameters:
            raise BundleError(f"policy_kwargs: {UnknownName('argument', name, parameters)}")
        if name in NAMED_CLASSES and value is not None:
            kwargs[name] = NAMED_CLASSES[name][read.one_of(value, where, NAMED_CLASSES[name])]
        else:
            kwargs[name] = _built(value, parameters[name].annotation, where)
    return kwargs


# --- Values -------------------------------------------------------------------------------------


def _built(value: Any, annotation: Any, where: str) -> Any:
    """Return plain data as the annotated type."""
    kinds = signatures.alternatives(annotation)
    if isinstance(value, dict) and "schedule" in value and signatures.takes_schedule(kinds):
        return schedule_from_json(value, where)
    if isinstance(value, dict) and "noise" in value and ActionNoise in kinds:
        return noise_from_json(value, where)
    for kind in kinds or (Any,):
        fits, built = _fitted(value, kind, where)
        if fits:
            return built
    names = sorted({getattr(signatures.base(kind), "__name__", str(kind)) for kind in kinds})
    raise BundleError(f"{where} is {read.shown(value)}; it must be of type {' or '.join(names)}.")


def _fitted(value: Any, kind: Any, where: str) -> tuple[bool, Any]:
    """Return whether ``value`` is of one alternative of an annotation, and what it becomes."""
    base, inner = signatures.base(kind), get_args(kind)
    if kind is Any or kind is object:
        return True, _loose(value)
    if signatures.is_literal(kind):
        return any(value == name and type(value) is type(name) for name in inner), value
    if base is float:
        number = INFINITIES.get(value) if isinstance(value, str) else value
        if isinstance(number, int | float) and not isinstance(number, bool):
            return True, float(number)
        return False, value
    if base is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if base in (bool, str, types.NoneType):
        return isinstance(value, base), value
    if not isinstance(value, list | dict):
        return False, value
    try:
        return _fitted_collection(value, base, inner, where)
    except BundleError:
        if not inner:
            raise
        return False, value


def _fitted_collection(
    value: list[Any] | dict[str, Any], base: Any, inner: tuple[Any, ...], where: str
) -> tuple[bool, Any]:
    if base is dict and isinstance(value, dict):
        kind = inner[1] if len(inner) == 2 else Any
        return True, {key: _built(item, kind, f"{where}.{key}") for key, item in value.items()}
    if base is list and isinstance(value, list):
        return True, [_built(item, (*inner, Any)[0], where) for item in value]
    if base is tuple and isinstance(value, list):
        kinds = inner if Ellipsis not in inner and inner else ((*inner, Any)[0],) * len(value)
        if len(kinds) == len(value):
            items = zip(value, kinds, strict=True)
            return True, tuple(_built(item, kind, where) for item, kind in items)
    return False, value


def _loose(value: Any) -> Any:
    """Return plain data where the annotation says nothing; pairs as optimisers want them."""
    if isinstance(value, str):
        return INFINITIES.get(value, value)
    if isinstance(value, list):
        return tuple(_loose(item) for item in value)
    if isinstance(value, dict):
        return {key: _loose(item) for key, item in value.items()}
    return value
