"""Algorithms by name.

Ours and a third party's are found the same way: through the entry-point group
``natural_zoo.agents``. A package that declares::

    [options.entry_points]
    natural_zoo.agents =
        my_algo = my_package:MyAlgo

gives the whole command line to ``--algo my_algo``.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import ConfigError, UnknownName

__all__ = ["ENTRY_POINT_GROUP", "algorithm_class", "algorithm_names", "constructor_parameters"]

ENTRY_POINT_GROUP = "natural_zoo.agents"

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# Ours are named here too, so that a checkout that was never installed has them.
_OURS = {
    "a2c": "agents.a2c:A2C",
    "a3c": "agents.a3c:A3C",
    "actor_critic": "agents.actor_critic:ActorCritic",
    "npg": "agents.npg:NPG",
    "off_pac": "agents.off_pac:OffPAC",
    "ppo": "agents.ppo:PPO",
    "ppo_kl": "agents.ppo_kl:PPOKL",
    "reinforce": "agents.reinforce:REINFORCE",
    "trpo": "agents.trpo:TRPO",
}


def algorithm_names() -> list[str]:
    """Return the registered names in alphabetical order."""
    return sorted(_entry_points())


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """Return the class registered as ``name``.

    :raises UnknownName: no algorithm has that name.
    :raises ConfigError: the entry point cannot be imported, or is not an SB3 algorithm.
    """
    entry_point = _entry_points().get(name)
    if entry_point is None:
        raise UnknownName("algorithm", name, algorithm_names())
    try:
        algorithm = entry_point.load()
    except Exception as error:  # whatever a third party's module does when it is imported
        raise ConfigError(
            f"Algorithm '{name}' is registered as {entry_point.value}, "
            f"which cannot be imported: {error}"
        ) from error
    if not (isinstance(algorithm, type) and issubclass(algorithm, BaseAlgorithm)):
        raise ConfigError(
            f"Algorithm '{name}' is registered as {entry_point.value}, "
            "which is not a subclass of stable_baselines3's BaseAlgorithm."
        )
    return algorithm


@cache
def _entry_points() -> dict[str, EntryPoint]:
    """Return all entry points by name; one of ours cannot be replaced by a third party's."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    ours = {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in _OURS.items()}
    return found | ours


def constructor_parameters(algorithm: type[BaseAlgorithm]) -> dict[str, inspect.Parameter]:
    """Return the keywords that ``algorithm`` can be made with, those of its bases included.

    A base class's parameters count only if every class below it passes them on (``**kwargs``).
    """
    parameters: dict[str, inspect.Parameter] = {}
    for cls in algorithm.__mro__:
        if "__init__" not in vars(cls):
            continue
        own = inspect.signature(vars(cls)["__init__"]).parameters.values()
        for parameter in own:
            if parameter.name != "self" and parameter.kind in _NAMED:
                parameters.setdefault(parameter.name, parameter)
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in own):
            break
    return parameters
