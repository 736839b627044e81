"""REINFORCE: the policy gradient by the returns of whole episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv

from agents.episodes import Episodes, collect_episodes
from agents.functional.advantages import discounted_returns, whole_returns
from agents.policy_gradient import PolicyGradientAlgorithm
from agents.psi import RETURN_ESTIMATORS, ReturnEstimator

__all__ = ["REINFORCE"]


class REINFORCE(PolicyGradientAlgorithm):
    """REINFORCE: one policy-gradient step per batch of whole episodes, weighted by their returns.

    ``θ ← θ + optimiser step along E[Ψ_t ∇log π(a_t|s_t)]`` with, by ``psi``,

    - ``"return"``: ``Σ_k γ^k r_k``, the return of the whole episode, for each of its steps;
    - ``"reward_to_go"``: ``G_t = Σ_{k≥t} γ^{k−t} r_k``;
    - ``"baseline"``: ``G_t − V(s_t)`` with a learnt baseline.

    Episodes that begin within the first ``n_steps`` steps of their environment are played to their
    end and used, see :mod:`agents.episodes`; so a rollout takes *at least* ``n_steps`` steps, and
    ``n_steps=1`` one episode per environment. Nothing is bootstrapped, except that with a baseline
    ``γ^{T−t} V(s_T)`` stands for what a time limit cut off.

    Deviations from Williams (1992): γ may be below 1, and the discounted problem's factor γ^t is
    left out of ``"reward_to_go"`` and ``"baseline"``, as nearly everywhere, because it would let
    late states count for nothing; the mean is over steps and not over episodes, which is the same
    direction with a length that does not grow with the episodes'; by default Ψ is scaled to mean 0
    and standard deviation 1 over the batch, a constant baseline in itself
    (``normalize_advantage=False`` leaves it as it is); the step is Adam's.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id; its episodes must end.
    :param psi: ``"return"``, ``"reward_to_go"`` or ``"baseline"``.
    :param n_steps: see above.
    :param kwargs: as in :class:`~agents.policy_gradient.PolicyGradientAlgorithm`; those of the
        critic are the baseline's, ``gae_lambda`` is of no effect.
    :raises ConfigError: a parameter is out of its range, or an episode has no end.

    Ref: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
    reinforcement learning", Machine Learning 8, section 5 (episodic REINFORCE).

    >>> agent = REINFORCE("MlpPolicy", "CartPole-v1", psi="reward_to_go", n_steps=64)
    """

    estimators = tuple(RETURN_ESTIMATORS)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        psi: str = "baseline",
        n_steps: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, psi=psi, n_steps=n_steps, **kwargs)

    @property
    def _estimator(self) -> ReturnEstimator:
        return RETURN_ESTIMATORS[self.psi]

    @property
    def _has_critic(self) -> bool:
        return self._estimator.has_baseline

    def _psi(self, batch: RolloutBufferSamples) -> torch.Tensor:
        return batch.advantages

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fill ``rollout_buffer`` with whole episodes, one after the other as of one environment.

        :param n_rollout_steps: episodes that begin within so many steps are used.
        """
        episodes = collect_episodes(self, env, callback, n_rollout_steps)
        if episodes is None:
            return False
        self._fill(rollout_buffer, episodes)
        self.logger.record("rollout/episodes", episodes.n_episodes)
        self.logger.record("rollout/unused_share", float(1.0 - episodes.counted.mean()))
        callback.update_locals({"rollout_buffer": rollout_buffer})
        callback.on_rollout_end()
        return True

    @torch.no_grad()
    def _fill(self, buffer: RolloutBuffer, episodes: Episodes) -> None:
        """Write the samples that count with their Ψ into ``buffer``, which takes their number."""
        buffer.buffer_size, buffer.n_envs = int(episodes.counted.sum()), 1
        buffer.reset()
        observations = episodes.flat(episodes.observations)
        for key, values in _items(observations):
            stored = buffer.observations if key is None else buffer.observations[key]
            stored[:] = values.reshape(stored.shape)
        buffer.actions[:] = episodes.flat(episodes.actions).reshape(buffer.actions.shape)
        samples = self.policy.obs_to_tensor(observations)[0]
        actions = torch.as_tensor(buffer.actions.reshape(-1, buffer.action_dim), device=self.device)
        discrete = isinstance(self.action_space, spaces.Discrete)
        actions = actions.long().flatten() if discrete else actions.float()
        distribution = self.policy.get_distribution(samples)
        buffer.log_probs[:, 0] = distribution.log_prob(actions).cpu().numpy()
        if self._has_critic:
            buffer.values[:, 0] = self.policy.predict_values(samples).flatten().cpu().numpy()
        columns = self._returns(episodes, buffer.values[:, 0])
        for name, column in zip(("returns", "advantages"), columns, strict=True):
            getattr(buffer, name)[:, 0] = column
        buffer.rewards[:, 0] = episodes.flat(episodes.rewards)
        buffer.episode_starts[:, 0] = episodes.flat(episodes.starts)
        buffer.pos, buffer.full = buffer.buffer_size, True

    def _returns(
        self, episodes: Episodes, values: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return rewards-to-go and Ψ of the samples that count, both of shape ``(N,)``."""
        ends = torch.as_tensor(episodes.ends)
        next_values = torch.zeros(ends.shape, dtype=torch.float64)
        cut_off = torch.zeros_like(ends)
        if self._has_critic and episodes.time_limits:
            steps, indices, observations = zip(*episodes.time_limits, strict=True)
            last = self.policy.obs_to_tensor(_stack(observations))[0]
            where = (list(steps), list(indices))
            next_values[where] = self.policy.predict_values(last).flatten().double().cpu()
            cut_off[where] = True
        returns_to_go = discounted_returns(
            torch.as_tensor(episodes.rewards, dtype=torch.float64),
            next_values,
            terminated=ends & ~cut_off,
            truncated=cut_off,
            gamma=self.gamma,
        )
        whole = whole_returns(returns_to_go, torch.as_tensor(episodes.starts))
        counted = torch.as_tensor(episodes.flat(returns_to_go.numpy()))
        psi = self._estimator.psi(
            counted,
            torch.as_tensor(episodes.flat(whole.numpy())),
            torch.as_tensor(values, dtype=torch.float64),
        )
        return counted.numpy(), psi.numpy()


def _items(observations: Any) -> list[tuple[str | None, Any]]:
    return list(observations.items()) if isinstance(observations, dict) else [(None, observations)]


def _stack(observations: Any) -> Any:
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([each[key] for each in observations]) for key in first}
    return np.stack(observations)
