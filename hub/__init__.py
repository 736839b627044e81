"""What an agent is once trained: bundles, ONNX files and the Hub.

::

    hub.load("ORG/npg-Walker2d-v4")          a Stable-Baselines3 model
    hub.OnnxPolicy("ORG/npg-Walker2d-v4")    the same agent without torch
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = ["OnnxPolicy", "load"]

# Imported when they are used: one needs torch, the other must not have to.
_HOMES = {"OnnxPolicy": "hub.runtime", "load": "hub.loading"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hub' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
