"""One actor-learner in the process that it is called in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from agents.a3c.gradient import LossWeights, SegmentGradient, SegmentLoss
from agents.a3c.lstm_policy import LstmPolicy, LstmState
from agents.a3c.recurrent_rollouts import collect_recurrent_rollouts
from agents.a3c.reports import UpdateReport
from agents.rollouts import collect_rollouts

if TYPE_CHECKING:
    from agents.a3c.a3c import A3C

__all__ = ["SoloLearner"]


class SoloLearner:
    """Collects segments with an algorithm's policy on its environments and differentiates them.

    :param algorithm: whose policy, buffer and settings these are.
    :param correct_exploration: weigh samples by ``min(1, π/b)``, ``b`` the policy that acted.
    """

    n_workers = 1
    n_crashed = 0
    pids: tuple[int, ...] = ()

    def __init__(self, algorithm: A3C, *, correct_exploration: bool = False) -> None:
        self._algorithm = algorithm
        weights = LossWeights(
            ent_coef=algorithm.ent_coef,
            vf_coef=algorithm.vf_coef,
            max_grad_norm=algorithm.max_grad_norm,
            normalize_advantage=algorithm.normalize_advantage,
            correct_exploration=correct_exploration,
        )
        self.loss = SegmentLoss(algorithm.policy, weights)
        self._start_state: LstmState | None = None

    def collect(
        self, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, n_steps: int
    ) -> bool:
        """Fill the buffer with a segment; False if the callback ended training."""
        policy = self._algorithm.policy
        if not isinstance(policy, LstmPolicy):
            return collect_rollouts(self._algorithm, env, callback, buffer, n_steps)
        algorithm = self._algorithm
        state = algorithm.lstm_state
        if state is None or len(state[0]) != env.num_envs:
            state = policy.start_state(env.num_envs)
        self._start_state = state
        goes_on, algorithm.lstm_state = collect_recurrent_rollouts(
            algorithm, policy, env, callback, buffer, n_steps, state
        )
        return goes_on

    def gradient(self) -> tuple[SegmentGradient, float]:
        """Return the gradient of the segment in the buffer, and the critic's explained variance."""
        buffer = self._algorithm.rollout_buffer
        variance = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        return self.loss.gradient(buffer, self._start_state), float(variance)

    def update(self) -> UpdateReport:
        """Step the policy with the gradient of the segment in the buffer."""
        segment, variance = self.gradient()
        if segment.is_finite:
            self._algorithm.rmsprop.step_along(segment.gradient, self.loss.parameters)
        return UpdateReport.of(segment, variance, staleness=0)  # nobody else updates

    def close(self) -> None:
        """Do nothing: there is nothing to end."""
