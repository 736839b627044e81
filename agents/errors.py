"""Every error that a user can cause, as one tree.

::

    NaturalZooError
    ├── ConfigError               a setting that cannot be used
    │   └── UnknownName           a name that is not registered (algorithm, environment, key)
    ├── EnvironmentFault          an environment that breaks its contract (NaN, wrong shape)
    │   └── ObservationError      an observation that does not fit the agent
    ├── TrainingDiverged          parameters that are no longer finite
    ├── RunFolderError            a run folder that cannot be written, read or resumed
    ├── BundleError               a bundle that is damaged, unsafe or not one of ours
    ├── VerificationError         an agent that is not what is published about it
    ├── ExportError               an agent that cannot be written as ONNX or C
    ├── HubError                  a hub that does not do what was asked of it
    │   ├── AgentNotFound         no such agent or revision, or it is kept from this user
    │   ├── AccessDenied          no token, a wrong one, or one without the right
    │   └── HubUnreachable        offline, and not in the cache
    ├── WorkerCrashed             a process that trains has died
    ├── MissingDependency         an optional package or system library that is not installed
    └── DisplayError              nothing to draw on

A message says what was given, what is allowed and what to type next, in one line: the command
line prints exactly that and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AccessDenied",
    "AgentNotFound",
    "BundleError",
    "ConfigError",
    "DisplayError",
    "EnvironmentFault",
    "ExportError",
    "HubError",
    "HubUnreachable",
    "MissingDependency",
    "NaturalZooError",
    "ObservationError",
    "RunFolderError",
    "TrainingDiverged",
    "UnknownName",
    "VerificationError",
    "WorkerCrashed",
    "nearest_match",
]


class NaturalZooError(Exception):
    """A known error: its message is one line for the user."""


class ConfigError(NaturalZooError):
    """A setting that cannot be used."""


class UnknownName(ConfigError):
    """A name that is not registered.

    :param kind: what the name stands for, such as ``"algorithm"``.
    :param name: the name that was given.
    :param known: the names that are allowed.
    :param advice: what to type next, appended to the message.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], advice: str = "") -> None:
        names = sorted(known)
        match = nearest_match(name, names)
        parts = [f"Unknown {kind} '{name}'."]
        if match:
            parts.append(f"Did you mean '{match}'?")
        if names:
            parts.append(f"Known: {', '.join(names)}.")
        if advice:
            parts.append(advice)
        super().__init__(" ".join(parts))
        self.match = match


class EnvironmentFault(NaturalZooError):
    """An environment that breaks its contract, such as a reward that is not a number."""


class ObservationError(EnvironmentFault, ValueError):
    """An observation that does not fit the agent: its shape, type, keys, or not a number."""


class TrainingDiverged(NaturalZooError):
    """Training whose parameters are no longer finite: the settings are to blame."""


class RunFolderError(NaturalZooError):
    """A run folder that cannot be written, read or resumed."""


class BundleError(NaturalZooError):
    """A bundle that is damaged, unsafe or not one of ours; nothing in it has been run."""


class VerificationError(NaturalZooError):
    """An agent that is not what is published about it: episodes, weights and ONNX files differ."""


class ExportError(NaturalZooError):
    """An agent that cannot be written as ONNX or C."""


class HubError(NaturalZooError):
    """A hub that does not do what was asked of it."""


class AgentNotFound(HubError):
    """There is no such agent or revision, or it is kept from this user."""


class AccessDenied(HubError):
    """No token, a wrong one, or one without the right to do this."""


class HubUnreachable(HubError):
    """The hub cannot be reached, and the cache does not hold what was asked for."""


class WorkerCrashed(NaturalZooError):
    """A process that trains has died; which one and why is in the message."""


class MissingDependency(NaturalZooError):
    """An optional package or a system library that is not installed."""


class DisplayError(NaturalZooError):
    """A window was asked for and there is no display."""


def nearest_match(name: str, known: Iterable[str]) -> str | None:
    """Return the entry of ``known`` closest in spelling to ``name``, or None if none is close.

    Upper and lower case count as the same letter.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None
