"""PPO: Stable-Baselines3's own, with this project's fast rollouts."""

from __future__ import annotations

import stable_baselines3
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.rollouts import collect_rollouts

__all__ = ["PPO"]


class PPO(stable_baselines3.PPO):
    """Stable-Baselines3's PPO; only how experience is collected is replaced.

    Parameters, losses and saved files are those of ``stable_baselines3.PPO``.
    """

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect experience with :func:`agents.rollouts.collect_rollouts`."""
        return collect_rollouts(self, env, callback, rollout_buffer, n_rollout_steps)
