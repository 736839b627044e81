"""The algorithms that a bundle may name: those registered, and guests from SB3's family.

A guest is imported only when it is asked for, so that nobody needs sb3-contrib for an NPG agent.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.errors import BundleError, MissingDependency, UnknownName
from agents.registry import algorithm_class, algorithm_names

__all__ = ["GUESTS", "LIBRARIES", "REGISTERED", "agent_class", "library_of"]

#: The library of every algorithm in :mod:`agents.registry`, a third party's included.
REGISTERED = "natural-zoo"
#: Class by name and library, with the module that has it.
GUESTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "stable-baselines3": (
        "stable_baselines3",
        {"a2c": "A2C", "dqn": "DQN", "ppo": "PPO", "sac": "SAC", "td3": "TD3"},
    ),
    "sb3-contrib": ("sb3_contrib", {"tqc": "TQC", "trpo": "TRPO"}),
}
LIBRARIES = (REGISTERED, *GUESTS)


def agent_class(library: str, name: str) -> type[BaseAlgorithm]:
    """Return the class that a bundle names.

    :param library: one of :data:`LIBRARIES`.
    :param name: the algorithm's name there.
    :raises BundleError: there is no such library or algorithm.
    :raises MissingDependency: its package is not installed.
    """
    if library not in LIBRARIES:
        raise BundleError(f"algorithm.library: {UnknownName('library', library, LIBRARIES)}")
    if library == REGISTERED:
        if name not in algorithm_names():
            advice = "One of another package needs that package installed."
            raise _unknown(library, name, algorithm_names(), advice)
        return algorithm_class(name)
    module, classes = GUESTS[library]
    if name not in classes:
        raise _unknown(library, name, classes)
    try:
        found: type[BaseAlgorithm] = getattr(importlib.import_module(module), classes[name])
    except ImportError as error:
        raise MissingDependency(
            f"The agent was trained with {library}, which is not installed: pip install {library}"
        ) from error
    return found


def _unknown(library: str, name: str, known: Iterable[str], advice: str = "") -> BundleError:
    unknown = UnknownName(f"algorithm of {library}", name, known, advice)
    return BundleError(f"algorithm.name: {unknown}")


def library_of(agent: type[BaseAlgorithm], name: str) -> str:
    """Return the library whose algorithm ``name`` is exactly the class ``agent``.

    :raises BundleError: none has it: the class is not registered, or under another name.
    """
    if name in algorithm_names() and algorithm_class(name) is agent:
        return REGISTERED
    for library, (module, classes) in GUESTS.items():
        # A class that exists has been imported; nothing needs to be imported to compare.
        if agent.__module__.partition(".")[0] == module and classes.get(name) == agent.__name__:
            return library
    known = [*algorithm_names(), *(guest for _, classes in GUESTS.values() for guest in classes)]
    raise BundleError(
        f"A {agent.__module__}.{agent.__qualname__} cannot be saved as '{name}': a bundle names "
        f"its algorithm, and this is not the class of that name. Known: "
        f"{', '.join(sorted(set(known)))}; register others as `natural_zoo.agents` entry points."
    )
