"""The template that REINFORCE and actor-critic stand on: one step along Σ Ψ ∇log π per batch."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    PyTorchObs,
    RolloutBufferSamples,
    Schedule,
)
from stable_baselines3.common.utils import (
    FloatSchedule,
    explained_variance,
    update_learning_rate,
)
from torch import nn

from agents.critic import check_critic, critic_parameters, fit_critic
from agents.critic_values import StateActions
from agents.errors import UnknownName
from agents.functional.advantages import standardized
from agents.functional.fisher import write_flat
from agents.on_policy import OnPolicyAgent
from agents.policy_model import policy_model

__all__ = ["PolicyGradientAlgorithm"]


class PolicyGradientAlgorithm(OnPolicyAgent):
    """Collect a batch, step once along ``E[Ψ ∇log π(a|s)]``, fit the critic.

    ``θ ← θ + optimiser step along ∇(E[Ψ log π_θ(a|s)] + ent_coef · E[H(π_θ(·|s))])``, where the
    mean is over the samples of the batch and Ψ does not depend on θ. What Ψ is, is the one thing
    that subclasses add.

    The step moves the policy's parameters alone, then the critic's own are fitted. Layers that both
    share belong to the policy. A gradient that is not finite is not followed; such updates are
    counted in :attr:`n_skipped_updates` and logged.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param psi: what stands for Ψ, one of the class's :attr:`estimators`.
    :param learning_rate: of the policy's step; a float or a function of the remaining progress.
    :param critic_learning_rate: of ``critic="adam"``; None takes ``learning_rate``.
    :param ent_coef: weight of the entropy bonus.
    :param max_grad_norm: a longer policy gradient is shortened to this.
    :param critic: ``"adam"`` (minibatches) or ``"gauss_newton"`` (damped second-order steps on the
        whole batch).
    :param n_critic_updates: passes over the batch for ``"adam"``, steps for ``"gauss_newton"``.
    :param batch_size: samples per minibatch of ``critic="adam"``.
    :param critic_damping: of ``"gauss_newton"``.
    :param kwargs: as in :class:`~agents.on_policy.OnPolicyAgent`.
    :raises ConfigError: a parameter is out of its range.

    Ref: Sutton et al. 1999, "Policy Gradient Methods for Reinforcement Learning with Function
    Approximation", NeurIPS 12.
    """

    #: What ``psi`` may be.
    estimators: ClassVar[Sequence[str]]
    #: What ``zoo.train --resume`` goes on with, besides SB3's own counters.
    resumable_attributes: ClassVar[tuple[str, ...]] = ("n_skipped_updates",)

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        psi: str,
        learning_rate: float | Schedule = 3e-3,
        critic_learning_rate: float | Schedule | None = None,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        critic: str = "adam",
        n_critic_updates: int = 10,
        batch_size: int = 128,
        critic_damping: float = 0.1,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy, env, learning_rate=learning_rate, _init_setup_model=False, **kwargs
        )
        self.psi = psi
        self.critic_learning_rate = critic_learning_rate
        self.ent_coef = ent_coef
        self.max_grad_norm = max_grad_norm
        self.critic = critic
        self.n_critic_updates = n_critic_updates
        self.batch_size = batch_size
        self.critic_damping = critic_damping
        self.n_skipped_updates = 0
        if _init_setup_model:
            self._setup_model()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.psi not in self.estimators:
            raise UnknownName(f"psi of {type(self).__name__}", str(self.psi), self.estimators)
        check_critic(self.critic)
        for name in ("batch_size", "n_critic_updates"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        fits = 0.0 <= self.critic_damping < math.inf
        self._check("critic_damping", fits, "finite and not negative")
        self._check("ent_coef", math.isfinite(self.ent_coef), "finite")
        self._check("max_grad_norm", self.max_grad_norm > 0.0, "positive; 0.5 is customary")

    def _setup_model(self) -> None:
        super()._setup_model()
        rate = self.critic_learning_rate
        self._critic_lr_schedule = self.lr_schedule if rate is None else FloatSchedule(rate)

    @abstractmethod
    def _psi(self, batch: RolloutBufferSamples) -> torch.Tensor:
        """Return Ψ of each sample, shape ``(N,)``."""

    @property
    def _has_critic(self) -> bool:
        """Whether there is a critic to fit."""
        return True

    def _critic_inputs(self, batch: RolloutBufferSamples) -> PyTorchObs | StateActions:
        """Return what the critic is evaluated at."""
        return batch.observations

    def train(self) -> None:
        """Update policy and critic with the rollout that was just collected."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        batch = next(iter(self.rollout_buffer.get(batch_size=None)))
        psi = self._psi(batch)
        moved = self._step(batch, standardized(psi) if self.normalize_advantage else psi)
        if self._has_critic:
            self._fit_critic(batch, moved)
        self._n_updates += 1
        self._log_update(psi)

    def _step(self, batch: RolloutBufferSamples, psi: torch.Tensor) -> list[nn.Parameter]:
        """Step along the policy gradient; return the parameters that it is of."""
        model = policy_model(self.policy, batch.observations)
        distribution = model.distribution()
        log_prob = distribution.log_prob(self._actions(batch))
        entropies = distribution.entropy()
        # A squashed Gaussian's entropy has no closed form.
        entropy = -log_prob.mean() if entropies is None else entropies.mean()
        objective = (psi * log_prob).mean() + self.ent_coef * entropy
        gradient = model.gradient(objective)
        norm = float(torch.linalg.vector_norm(gradient))
        self.logger.record("train/entropy", float(entropy.detach()))
        self.logger.record("train/grad_norm", norm)
        if not math.isfinite(norm):
            self.n_skipped_updates += 1
            return model.parameters
        gradient.mul_(min(1.0, self.max_grad_norm / (norm + 1e-6)))
        optimizer = self.policy.optimizer
        optimizer.zero_grad(set_to_none=True)  # what has no gradient is not stepped
        for parameter in model.parameters:
            parameter.grad = torch.empty_like(parameter)
        write_flat(-gradient, [p.grad for p in model.parameters if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return model.parameters

    def _fit_critic(
        self, batch: RolloutBufferSamples, policy_parameters: Sequence[nn.Parameter]
    ) -> None:
        """Fit the critic's own parameters to the batch's targets."""
        rate = self._critic_lr_schedule(self._current_progress_remaining)
        update_learning_rate(self.policy.optimizer, rate)
        inputs = self._critic_inputs(batch)
        loss = fit_critic(
            self.policy,
            critic_parameters(self.policy, inputs, policy_parameters),
            inputs,
            batch.returns,
            critic=self.critic,
            n_updates=self.n_critic_updates,
            batch_size=self.batch_size,
            damping=self.critic_damping,
        )
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/value_loss", loss)
        self.logger.record("train/explained_variance", explained)

    def _log_update(self, psi: torch.Tensor) -> None:
        self.logger.record("train/psi_mean", float(psi.mean()))
        self.logger.record("train/psi_std", float(psi.std()))
        self.logger.record("train/skipped_updates", self.n_skipped_updates)
        log_std = getattr(self.policy, "log_std", None)
        if isinstance(log_std, torch.Tensor):
            self.logger.record("train/std", float(log_std.detach().exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
