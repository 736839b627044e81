"""The metadata at the top of a README.md, read safely."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["card_environment", "read_front_matter"]

_FENCED = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_MAX_CHARACTERS = 200_000


def read_front_matter(readme: str) -> dict[str, Any]:
    """Return the metadata; empty where there is none or it cannot be read.

    :param readme: the whole file.
    """
    match = _FENCED.match(readme[:_MAX_CHARACTERS])
    if match is None:
        return {}
    try:
        value = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def card_environment(metadata: dict[str, Any]) -> str | None:
    """Return the environment that the first result in ``model-index`` names, None without one."""
    value: Any = metadata.get("model-index")
    for step in (0, "results", 0, "dataset", "name"):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value if isinstance(value, str) else None
