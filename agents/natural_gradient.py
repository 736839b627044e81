"""The template that NPG and TRPO stand on: everything but the choice of the new parameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance

from agents.critic import check_critic, critic_parameters, fit_critic
from agents.errors import ConfigError
from agents.functional.conjugate_gradient import CGResult, NotPositiveDefinite, conjugate_gradient
from agents.functional.fisher import write_flat
from agents.on_policy import OnPolicyAgent
from agents.surrogate import Surrogate

__all__ = ["NaturalGradientAlgorithm", "NaturalStep", "PolicyUpdate", "SkippedUpdate"]


class SkippedUpdate(Exception):
    """This batch gives no usable step; the policy stays as it is and training goes on."""


class NaturalStep(NamedTuple):
    """The natural gradient of one batch, before a step length is chosen."""

    start: torch.Tensor
    """θ_old, shape ``(n,)``."""
    gradient: torch.Tensor
    """``g``, shape ``(n,)``."""
    direction: torch.Tensor
    """``d ≈ (F + damping · I)⁻¹ g``, shape ``(n,)``."""
    curvature: float
    """``dᵀ(F + damping · I)d``."""
    target_kl: float
    """``δ``, the KL bound of this update."""
    cg: CGResult

    @property
    def trust_region_scale(self) -> float:
        """``α = √(2δ / dᵀFd)``, which makes the quadratic model's KL equal to ``δ``."""
        return math.sqrt(2.0 * self.target_kl / self.curvature)


class PolicyUpdate(NamedTuple):
    """The parameters an algorithm has chosen and what it knows about them."""

    point: torch.Tensor
    """Shape ``(n,)``."""
    step_size: float
    """The factor on the natural gradient that was taken; 0 for none."""
    predicted_gain: float
    """``gᵀ (point − start)``, the first-order gain of the step that was taken."""
    gain: float
    mean_kl: float
    n_backtracks: int
    accepted: bool


class NaturalGradientAlgorithm(OnPolicyAgent):
    """Collect a batch, step along the natural gradient of the surrogate, fit the critic.

    ``d = (F + cg_damping · I)⁻¹ g`` by conjugate gradient, where ``g`` is the gradient of
    ``E[π_θ/π_old · A]`` and ``F`` the Fisher matrix of the policy averaged over the batch. How far
    to go along ``d`` is the subclass's one decision (:meth:`_choose_parameters`).

    An update that cannot be trusted (a gradient that is zero or not finite, ``dᵀFd ≤ 0``, a
    surrogate that is not finite) is skipped: the parameters stay bit for bit, the skip is counted
    in :attr:`n_skipped_updates` and logged, and training goes on.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param learning_rate: of the critic's Adam; a float or a function of the remaining progress.
        The policy has no learning rate, see ``target_kl``.
    :param n_steps: steps per environment and update; a batch has ``n_steps · n_envs`` samples.
    :param batch_size: samples per minibatch of ``critic="adam"``.
    :param gamma: discount.
    :param gae_lambda: λ of the generalised advantage estimates.
    :param target_kl: ``δ``, bound on the mean ``KL(π_old ‖ π_new)`` of an update, in nats; a float
        or a function of the remaining progress.
    :param cg_max_iters: at most so many Fisher products to find ``d``.
    :param cg_damping: added to the Fisher matrix's diagonal.
    :param cg_rtol: relative residual at which conjugate gradient stops.
    :param fisher_subsampling: the Fisher matrix is averaged over every so many-th sample of the
        batch (the gradient over all); it need not be as accurate as the gradient, and conjugate
        gradient is most of a policy update.
    :param critic: ``"adam"`` (minibatches) or ``"gauss_newton"`` (damped second-order steps on the
        whole batch).
    :param n_critic_updates: passes over the batch for ``"adam"``, steps for ``"gauss_newton"``.
    :param critic_damping: of ``"gauss_newton"``.
    :param normalize_advantage: scale advantages to mean 0 and standard deviation 1 per batch.
    :param use_sde: generalised state-dependent exploration (Box actions only).
    :param sde_sample_freq: steps between new noise matrices; -1 for once per rollout.
    :param rollout_buffer_class: as in SB3.
    :param rollout_buffer_kwargs: as in SB3.
    :param stats_window_size: episodes that the logged means cover.
    :param tensorboard_log: folder for TensorBoard, None for no such log.
    :param policy_kwargs: of the policy class.
    :param verbose: 0 silent, 1 information, 2 debugging.
    :param seed: of all random generators.
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    :raises ConfigError: a parameter is out of its range.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        batch_size: int = 128,
        target_kl: float | Schedule = 0.01,
        cg_max_iters: int = 15,
        cg_damping: float = 0.1,
        cg_rtol: float = 1e-6,
        fisher_subsampling: int = 1,
        critic: str = "adam",
        n_critic_updates: int = 10,
        critic_damping: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.batch_size = batch_size
        self.target_kl = target_kl
        self.cg_max_iters = cg_max_iters
        self.cg_damping = cg_damping
        self.cg_rtol = cg_rtol
        self.fisher_subsampling = fisher_subsampling
        self.critic = critic
        self.n_critic_updates = n_critic_updates
        self.critic_damping = critic_damping
        self.n_skipped_updates = 0
        super().__init__(policy, env, **kwargs)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_critic(self.critic)
        for name in ("batch_size", "cg_max_iters", "fisher_subsampling", "n_critic_updates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("cg_damping", "critic_damping", "cg_rtol"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be finite and not negative.")
        if not callable(self.target_kl) and not 0.0 < self.target_kl < math.inf:
            raise ConfigError(f"target_kl={self.target_kl} must be positive; 0.01 is customary.")

    def _setup_model(self) -> None:
        super()._setup_model()
        self._target_kl_schedule = FloatSchedule(self.target_kl)

    def train(self) -> None:
        """Update policy and critic with the rollout that was just collected."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        batch = next(iter(self.rollout_buffer.get(batch_size=None)))
        surrogate = Surrogate(
            self.policy, batch.observations, self._actions(batch), self._advantages(batch)
        )
        self._update_policy(surrogate)
        value_loss = self._update_critic(surrogate, batch.observations, batch.returns)
        self._n_updates += 1
        self._log_update(surrogate, value_loss)

    def _update_policy(self, surrogate: Surrogate) -> None:
        """Write the new policy parameters, or the old ones again if the update is skipped."""
        start = surrogate.point()
        try:
            step = self._natural_step(surrogate, start)
            update = self._choose_parameters(surrogate, step)
        except SkippedUpdate as reason:
            write_flat(start, surrogate.parameters)
            self.n_skipped_updates += 1
            self._log_skipped(str(reason))
            return
        write_flat(update.point, surrogate.parameters)
        self._log_policy_update(step, update)

    def _natural_step(self, surrogate: Surrogate, start: torch.Tensor) -> NaturalStep:
        """Solve ``(F + damping · I) d = g``.

        :raises SkippedUpdate: the gradient or the curvature cannot be used.
        """
        gradient = surrogate.gradient()
        if not torch.isfinite(gradient).all():
            raise SkippedUpdate("the policy gradient is not finite")
        if not gradient.any():
            raise SkippedUpdate("the policy gradient is zero")
        product = surrogate.fisher_vector_product(self.cg_damping, self.fisher_subsampling)
        try:
            cg = conjugate_gradient(
                product, gradient, max_iters=self.cg_max_iters, rtol=self.cg_rtol
            )
        except NotPositiveDefinite as error:
            raise SkippedUpdate(f"the Fisher matrix is not positive definite: {error}") from error
        if not (math.isfinite(cg.curvature) and cg.curvature > 0.0):
            raise SkippedUpdate(f"the Fisher curvature along the step is {cg.curvature:.3g}")
        return NaturalStep(start, gradient, cg.solution, cg.curvature, self._target_kl_now(), cg)

    def _target_kl_now(self) -> float:
        """Return ``δ`` of this update."""
        return self._value_now("target_kl", self._target_kl_schedule)

    def _value_now(self, name: str, schedule: Schedule) -> float:
        """Return what the ``schedule`` of the parameter ``name`` gives at this update.

        :raises ConfigError: the schedule gave a negative number or none at all.
        """
        value = float(schedule(self._current_progress_remaining))
        if not 0.0 <= value < math.inf:
            raise ConfigError(
                f"The schedule of {name} gave {value} at remaining progress "
                f"{self._current_progress_remaining:.3g}; it must not be negative."
            )
        return value

    @abstractmethod
    def _choose_parameters(self, surrogate: Surrogate, step: NaturalStep) -> PolicyUpdate:
        """Return the new policy parameters; what is written in the policy meanwhile is free.

        :raises SkippedUpdate: no parameters can be trusted.
        """

    def _update_critic(
        self, surrogate: Surrogate, observations: PyTorchObs, returns: torch.Tensor
    ) -> float:
        """Fit the value function to ``returns`` and return its loss."""
        parameters = critic_parameters(self.policy, observations, surrogate.parameters)
        return fit_critic(
            self.policy,
            parameters,
            observations,
            returns,
            critic=self.critic,
            n_updates=self.n_critic_updates,
            batch_size=self.batch_size,
            damping=self.critic_damping,
        )

    def _log_policy_update(self, step: NaturalStep, update: PolicyUpdate) -> None:
        self.logger.record("train/mean_kl", update.mean_kl)
        self.logger.record("train/target_kl", step.target_kl)
        self.logger.record("train/predicted_gain", update.predicted_gain)
        self.logger.record("train/actual_gain", update.gain)
        self.logger.record("train/step_size", update.step_size)
        self.logger.record("train/backtracks", update.n_backtracks)
        self.logger.record("train/accepted", int(update.accepted))
        self.logger.record("train/cg_iterations", step.cg.n_iters)
        self.logger.record("train/cg_residual", step.cg.relative_residual)
        self.logger.record("train/fisher_curvature", step.curvature)

    def _log_skipped(self, reason: str) -> None:
        """Log a skipped update under the keys of a taken one, so that tables keep their columns."""
        self.logger.record("train/target_kl", self._target_kl_now())
        for key in (
            "mean_kl",
            "predicted_gain",
            "actual_gain",
            "step_size",
            "backtracks",
            "accepted",
            "cg_iterations",
            "cg_residual",
            "fisher_curvature",
        ):
            self.logger.record(f"train/{key}", 0)
        self.logger.record("train/skip_reason", reason, exclude="tensorboard")

    def _log_update(self, surrogate: Surrogate, value_loss: float) -> None:
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/entropy", surrogate.entropy)
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/value_loss", value_loss)
        self.logger.record("train/skipped_updates", self.n_skipped_updates)
        log_std = getattr(self.policy, "log_std", None)
        if isinstance(log_std, torch.Tensor):
            self.logger.record("train/std", float(log_std.detach().exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
