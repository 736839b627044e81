"""Natural policy gradient."""

from __future__ import annotations

import math
from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule

from agents.errors import ConfigError
from agents.natural_gradient import (
    NaturalGradientAlgorithm,
    NaturalStep,
    PolicyUpdate,
    SkippedUpdate,
)
from agents.surrogate import Surrogate

__all__ = ["NPG"]


class NPG(NaturalGradientAlgorithm):
    """Natural policy gradient: one step of fixed KL length along ``F⁻¹g``, without line search.

    ``θ ← θ + α d`` with ``d = (F + cg_damping · I)⁻¹ g`` and ``α = √(2 target_kl / dᵀFd)``, or
    ``α = step_size`` if that is given.

    Deviations from Kakade (2001): ``F`` is averaged over the visited states of one batch and its
    inverse is applied by conjugate gradient, since the exact one does not scale; the default step
    has constant KL length (as in Rajeswaran et al. 2017 and most code bases), because a constant
    ``α`` that suits one task destroys the policy of another. Where a policy is nearly perfect,
    though, the gradient is short, and only steps of constant ``α`` become short with it.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param step_size: ``α`` itself (Kakade's form), which may follow a schedule; None for steps of
        KL length ``target_kl``.
    :param kwargs: as in :class:`~agents.natural_gradient.NaturalGradientAlgorithm`.

    Ref: Kakade 2001, "A Natural Policy Gradient", NeurIPS 14.

    >>> agent = NPG("MlpPolicy", "CartPole-v1", n_steps=64, target_kl=0.02)
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        step_size: float | Schedule | None = None,
        **kwargs: Any,
    ) -> None:
        self.step_size = step_size
        super().__init__(policy, env, **kwargs)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.step_size is None or callable(self.step_size):
            return
        if not 0.0 < self.step_size < math.inf:
            raise ConfigError(
                f"step_size={self.step_size} must be positive, or None for steps of KL length "
                "target_kl."
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        self._step_size_schedule = None if self.step_size is None else FloatSchedule(self.step_size)

    def _choose_parameters(self, surrogate: Surrogate, step: NaturalStep) -> PolicyUpdate:
        scale = step.trust_region_scale
        if self._step_size_schedule is not None:
            scale = self._value_now("step_size", self._step_size_schedule)
        full_step = scale * step.direction
        candidate = step.start + full_step
        gain, kl = surrogate.evaluate(candidate)
        if not (math.isfinite(gain) and math.isfinite(kl)):
            raise SkippedUpdate("the surrogate is not finite after the step")
        return PolicyUpdate(
            point=candidate,
            step_size=scale,
            predicted_gain=float(step.gradient @ full_step),
            gain=gain,
            mean_kl=kl,
            n_backtracks=0,
            accepted=True,
        )
