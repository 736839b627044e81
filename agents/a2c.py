"""A2C: Stable-Baselines3's own, under the same roof as its natural-gradient relatives."""

from stable_baselines3 import A2C

__all__ = ["A2C"]
