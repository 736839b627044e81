"""One environment of Gymnasium, and what to say if it cannot be made."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from agents.errors import ConfigError, MissingDependency
from hub.env_ids import check_env_id

__all__ = ["check_env_package", "env_arguments", "import_package", "make_gym_env"]


def make_gym_env(
    env_id: str, env_kwargs: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Return one environment of Gymnasium, the reference that every agent is evaluated on.

    :param env_id: such as ``"Walker2d-v4"``.
    :param env_kwargs: arguments of its constructor, or of ``gymnasium.make``.
    :param render_mode: None, ``"rgb_array"`` or ``"human"``.
    :raises UnknownName: there is no such id.
    :raises ConfigError: the environment refuses the arguments.
    :raises MissingDependency: the environment needs a package that is not installed.
    """
    check_env_id(env_id)
    arguments = dict(env_kwargs or {})
    if render_mode is not None:  # not every environment takes the argument
        arguments["render_mode"] = render_mode
    with warnings.catch_warnings():
        # v4 tasks are a supported choice: no advice to upgrade
        warnings.filterwarnings("ignore", r".*You should consider upgrading", DeprecationWarning)
        try:
            return gymnasium.make(env_id, **arguments)
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise MissingDependency(
                f"{env_id} needs a package that is not installed: {_first_line(error)}"
            ) from error
        except Exception as error:
            # An environment may raise anything; without arguments it is not the user's doing.
            if not env_kwargs:
                raise
            raise ConfigError(_refusal(env_id, env_kwargs, error)) from error


def import_package(module: str) -> None:
    """Import a module that registers environments.

    :raises ConfigError: it cannot be imported.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        raise ConfigError(
            f"--gym-packages {module} cannot be imported ({type(error).__name__}: {error}). "
            "Install it, or run from the folder that holds it."
        ) from error


def check_env_package(env_id: str, packages: Sequence[str], where: str) -> None:
    """Refuse an id ``module:Name-v0`` whose module the user has not named: making it imports it.

    :param env_id: as an agent's file gives it.
    :param packages: modules that the user trusts.
    :param where: the file, for the message.
    :raises ConfigError: the module is another one.
    """
    module = env_id.rpartition(":")[0]
    if module and module not in packages:
        raise ConfigError(
            f"{where} asks to import the module '{module}' for its environment '{env_id}'. If you "
            f"trust it, type: --gym-packages {module}"
        )


def env_arguments(env_id: str) -> list[str]:
    """Return the names of the arguments that the environment's constructor declares.

    ``max_episode_steps`` is among them: ``gymnasium.make`` takes it for every environment.
    """
    entry_point = gymnasium.spec(env_id).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(creator).parameters.values() if creator is not None else ()
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name != "render_mode"
    ]
    return [*names, "max_episode_steps"]


def _refusal(env_id: str, env_kwargs: Mapping[str, Any], error: Exception) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in env_kwargs.items())
    return (
        f"{env_id} refuses the environment arguments {given}: {_first_line(error)} "
        f"Allowed: {', '.join(env_arguments(env_id))}. Correct them, or leave them out."
    )


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = text.split(" was raised from the environment creator")[0].rstrip(".")
    return f"{text}."
