"""Which environment ids can be used, decided from Gymnasium's registry without making one."""

from __future__ import annotations

import difflib
import importlib

import gymnasium
from gymnasium.envs.registration import parse_env_id

from agents.errors import ConfigError, UnknownName

__all__ = ["MUJOCO_TASKS", "check_env_id", "is_mujoco_task"]

MUJOCO_TASKS = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)
_FIRST_VERSION = 4  # Gymnasium moved all v2 and v3 tasks out, with the old MuJoCo bindings
_NEEDS_OLD_MUJOCO = ("Pusher-v4",)


def check_env_id(env_id: str) -> str:
    """Return ``env_id`` if Gymnasium can make it, without making it.

    :param env_id: such as ``"Walker2d-v4"``; ``"module:Name-v0"`` imports ``module`` first, as
        ``gymnasium.make`` does.
    :raises UnknownName: nothing is registered under this name; says the nearest ones.
    :raises ConfigError: the id is registered but cannot be made; says which id to use.
    """
    name = _import_module_of(env_id)
    task, version = _split(name)
    if task in MUJOCO_TASKS and version is not None and version < _FIRST_VERSION:
        raise ConfigError(
            f"Environment '{env_id}' has left Gymnasium, which keeps MuJoCo tasks from "
            f"v{_FIRST_VERSION} on. Use {' or '.join(_usable_versions(task))}."
        )
    if name in _NEEDS_OLD_MUJOCO:
        raise ConfigError(
            f"Environment '{env_id}' needs mujoco<3, and natural-zoo needs mujoco>=3.3. "
            f"Use {' or '.join(_usable_versions(task))}."
        )
    if name not in gymnasium.registry:
        raise _unknown(name)
    return env_id


def is_mujoco_task(env_id: str) -> bool:
    """Return whether ``env_id`` is a usable version of one of :data:`MUJOCO_TASKS`."""
    return _split(env_id)[0] in MUJOCO_TASKS and env_id in _usable()


def _import_module_of(env_id: str) -> str:
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return env_id
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"Environment '{env_id}' asks to import '{module}', which failed: {error}. "
            f"Install the package that holds it, or leave '{module}:' out."
        ) from error
    return name


def _split(env_id: str) -> tuple[str, int | None]:
    """Return the name with its namespace, and the version."""
    try:
        namespace, name, version = parse_env_id(env_id)
    except gymnasium.error.Error:
        return env_id, None
    return (f"{namespace}/{name}" if namespace else name), version


def _usable() -> list[str]:
    """Return every registered id that can be made."""
    return [
        spec.id
        for spec in gymnasium.registry.values()
        if spec.id not in _NEEDS_OLD_MUJOCO
        and not (spec.name in MUJOCO_TASKS and (spec.version or 0) < _FIRST_VERSION)
    ]


def _usable_versions(task: str) -> list[str]:
    return sorted(env_id for env_id in _usable() if _split(env_id)[0] == task)


def _unknown(env_id: str) -> UnknownName:
    """Return an error that lists the versions of the task nearest in spelling, not all ids."""
    task, _ = _split(env_id)
    tasks = {_split(usable)[0].lower(): _split(usable)[0] for usable in _usable()}
    nearest = difflib.get_close_matches(task.lower(), tasks, n=1, cutoff=0.6)
    if nearest:
        return UnknownName("environment", env_id, _usable_versions(tasks[nearest[0]]))
    if "/" in task:
        package = task.split("/")[0]
        advice = f"Install the package that registers '{package}/…', or type module:{env_id}."
    else:
        advice = (
            "Type a Gymnasium id such as Walker2d-v4; "
            "python -c 'import gymnasium; gymnasium.pprint_registry()' lists them all."
        )
    return UnknownName("environment", env_id, (), advice)
