"""Natural-gradient agents and their family, as Stable-Baselines3 algorithms.

>>> from agents import NPG
>>> agent = NPG("MlpPolicy", "CartPole-v1", n_steps=64, seed=0)

The classes are imported on first use, so that ``import agents.errors`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.a2c import A2C
    from agents.a3c import A3C
    from agents.actor_critic import ActorCritic
    from agents.npg import NPG
    from agents.off_pac import OffPAC
    from agents.ppo import PPO
    from agents.ppo_kl import PPOKL
    from agents.reinforce import REINFORCE
    from agents.trpo import TRPO

__all__ = ["A2C", "A3C", "NPG", "PPO", "PPOKL", "REINFORCE", "TRPO", "ActorCritic", "OffPAC"]

_MODULES = {"ActorCritic": "actor_critic", "OffPAC": "off_pac", "PPOKL": "ppo_kl"}
"""Where a class is, if not in the module of its name in lower case."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agents' has no attribute '{name}'")
    module = _MODULES.get(name, name.lower())
    return getattr(importlib.import_module(f"agents.{module}"), name)
