"""Versions of everything that a number can depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from hub import __version__

__all__ = ["installed_versions"]

_PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "torch")


def installed_versions(*others: str) -> dict[str, str | None]:
    """Return the versions by package name, None for one that is not installed.

    :param others: packages beside those that every agent depends on.
    """
    versions: dict[str, str | None] = {
        "natural-zoo": __version__,
        "python": platform.python_version(),
    }
    for package in (*_PACKAGES, *others):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions
