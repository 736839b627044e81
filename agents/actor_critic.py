"""Actor-critic: the policy gradient with a learnt critic in the place of the return."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, RolloutBufferSamples

from agents.action_value import (
    ActionValueCnnPolicy,
    ActionValuePolicy,
    MultiInputActionValuePolicy,
)
from agents.critic_values import StateActions
from agents.errors import ConfigError
from agents.policy_gradient import PolicyGradientAlgorithm
from agents.psi import CRITIC_ESTIMATORS, CriticEstimator

__all__ = ["ActorCritic"]


class ActorCritic(PolicyGradientAlgorithm):
    """Actor-critic: one policy-gradient step per rollout, weighted by what a critic has learnt.

    ``θ ← θ + optimiser step along E[Ψ ∇log π(a|s)]`` with, by ``psi``,

    - ``"advantage"``: ``Σ_l (γλ)^l δ_{t+l}``, ``δ_t = r_t + γ V(s_{t+1}) − V(s_t)`` (GAE);
    - ``"td_residual"``: ``δ_t`` alone;
    - ``"q"``: ``Q(s_t, a_t)``, learnt on-policy (SARSA(λ)). It needs a policy whose critic values
      actions: ``"MlpQPolicy"``, ``"CnnQPolicy"`` or ``"MultiInputQPolicy"``.

    λ is ``gae_lambda``, γ ``gamma``. Then the critic is fitted to its TD(λ) targets (λ = 0 for
    ``"td_residual"``). A time limit bootstraps, a real end does not.

    Deviations from Sutton et al. (1999): the discounted problem's factor γ^t is left out, as nearly
    everywhere, because it would let late states count for nothing; the critic is a network of its
    own and not compatible with the policy in the sense of their theorem 2, so Ψ is biased by what
    the critic has not learnt.

    :param policy: one of :attr:`policy_aliases` or a policy class.
    :param env: environment or its Gymnasium id.
    :param psi: ``"advantage"``, ``"td_residual"`` or ``"q"``.
    :param n_steps: steps per environment and update.
    :param n_critic_updates: as in the base class; fewer by default, since updates are many.
    :param kwargs: as in :class:`~agents.policy_gradient.PolicyGradientAlgorithm`.
    :raises ConfigError: a parameter is out of its range, or ``psi`` does not suit the policy.

    Ref: Sutton et al. 1999, NeurIPS 12, theorem 1; Konda & Tsitsiklis 2000, "Actor-Critic
    Algorithms", NeurIPS 12; Schulman et al. 2015, arXiv:1506.02438, eq. 16.

    >>> agent = ActorCritic("MlpPolicy", "CartPole-v1", psi="td_residual", n_steps=64)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
        "MlpQPolicy": ActionValuePolicy,
        "CnnQPolicy": ActionValueCnnPolicy,
        "MultiInputQPolicy": MultiInputActionValuePolicy,
    }
    estimators = tuple(CRITIC_ESTIMATORS)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        psi: str = "advantage",
        n_steps: int = 16,
        n_critic_updates: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy, env, psi=psi, n_steps=n_steps, n_critic_updates=n_critic_updates, **kwargs
        )

    @property
    def _estimator(self) -> CriticEstimator:
        return CRITIC_ESTIMATORS[self.psi]

    def _check_parameters(self) -> None:
        super()._check_parameters()
        values_actions = issubclass(self.policy_class, ActionValuePolicy)
        if self._estimator.values_actions and not values_actions:
            raise ConfigError(
                f"psi={self.psi} needs a policy whose critic values actions, which "
                f"{self.policy_class.__name__} is not; pass the policy 'MlpQPolicy', 'CnnQPolicy' "
                "or 'MultiInputQPolicy'."
            )
        if values_actions and not self._estimator.values_actions:
            raise ConfigError(
                f"psi={self.psi} needs a policy whose critic values states, which "
                f"{self.policy_class.__name__} is not; pass psi='q', or the policy 'MlpPolicy', "
                "'CnnPolicy' or 'MultiInputPolicy'."
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        self.rollout_buffer.gae_lambda = self._estimator.trace_decay(self.gae_lambda)

    def _psi(self, batch: RolloutBufferSamples) -> torch.Tensor:
        return self._estimator.psi(batch)

    def _critic_inputs(self, batch: RolloutBufferSamples) -> PyTorchObs | StateActions:
        if self._estimator.values_actions:
            return StateActions(batch.observations, self._actions(batch))
        return batch.observations
