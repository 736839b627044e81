"""PPO: Stable-Baselines3's own, under the same roof as its natural-gradient relatives."""

from stable_baselines3 import PPO

__all__ = ["PPO"]
