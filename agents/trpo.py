"""Trust region policy optimisation."""

from __future__ import annotations

import math
from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule

from agents.errors import ConfigError
from agents.functional.line_search import backtracking_line_search
from agents.natural_gradient import NaturalGradientAlgorithm, NaturalStep, PolicyUpdate
from agents.surrogate import Surrogate

__all__ = ["TRPO"]


class TRPO(NaturalGradientAlgorithm):
    """Maximise ``E[π_θ/π_old · A]`` subject to ``E[KL(π_old ‖ π_θ)] ≤ target_kl``.

    The direction ``d`` and the full step ``√(2 target_kl / dᵀFd) · d`` are NPG's; a backtracking
    search then takes the first of its fractions ``line_search_shrinkᵏ`` that gains at least
    ``line_search_accept_ratio`` of what the gradient predicts for that fraction and keeps the KL
    bound. If none does, the parameters stay as they were, bit for bit.

    With ``max_step_size`` the full step is ``min(max_step_size, √(2 target_kl / dᵀFd)) · d``.

    Deviations from the paper: all observations take part in the Fisher products unless
    ``fisher_subsampling`` says otherwise (the paper takes a tenth of them); a share of the
    predicted gain is asked for instead of any gain, which is Armijo's condition; ``max_step_size``,
    since steps to the border of the trust region are as long where the policy is perfect and the
    gradient only noise, and walk away from it. Those of constant length along ``d`` fade with the
    gradient (with ``normalize_advantage=False``), as in :class:`~agents.npg.NPG`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param max_step_size: longest step in units of ``d``, which may follow a schedule; None for
        steps to the border of the trust region.
    :param line_search_max_backtracks: shorten the full step at most so often.
    :param line_search_shrink: factor in (0, 1) from one candidate to the next.
    :param line_search_accept_ratio: share of the predicted gain that a step must reach, in [0, 1).
    :param kwargs: as in :class:`~agents.natural_gradient.NaturalGradientAlgorithm`.

    Ref: Schulman et al. 2015, arXiv:1502.05477, eq. 14 and appendix C.

    >>> agent = TRPO("MlpPolicy", "CartPole-v1", n_steps=64, target_kl=0.02)
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        max_step_size: float | Schedule | None = None,
        line_search_max_backtracks: int = 10,
        line_search_shrink: float = 0.8,
        line_search_accept_ratio: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.max_step_size = max_step_size
        self.line_search_max_backtracks = line_search_max_backtracks
        self.line_search_shrink = line_search_shrink
        self.line_search_accept_ratio = line_search_accept_ratio
        super().__init__(policy, env, **kwargs)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        limit = self.max_step_size
        if not (limit is None or callable(limit) or 0.0 < limit < math.inf):
            raise ConfigError(
                f"max_step_size={limit} must be positive, or None for steps to the border of the "
                "trust region."
            )
        if self.line_search_max_backtracks < 0:
            raise ConfigError(
                f"line_search_max_backtracks={self.line_search_max_backtracks} must not be "
                "negative."
            )
        if not 0.0 < self.line_search_shrink < 1.0:
            raise ConfigError(f"line_search_shrink={self.line_search_shrink} must be in (0, 1).")
        if not 0.0 <= self.line_search_accept_ratio < 1.0:
            raise ConfigError(
                f"line_search_accept_ratio={self.line_search_accept_ratio} must be in [0, 1)."
            )

    def _setup_model(self) -> None:
        super()._setup_model()
        limit = self.max_step_size
        self._max_step_size_schedule = None if limit is None else FloatSchedule(limit)

    def _full_step_size(self, step: NaturalStep) -> float:
        """Return ``min(max_step_size, √(2δ / dᵀFd))``."""
        if self._max_step_size_schedule is None:
            return step.trust_region_scale
        limit = self._value_now("max_step_size", self._max_step_size_schedule)
        return min(limit, step.trust_region_scale)

    def _choose_parameters(self, surrogate: Surrogate, step: NaturalStep) -> PolicyUpdate:
        scale = self._full_step_size(step)
        full_step = scale * step.direction
        predicted_gain = float(step.gradient @ full_step)
        result = backtracking_line_search(
            surrogate.evaluate,
            step.start,
            full_step,
            predicted_gain=predicted_gain,
            max_constraint=step.target_kl,
            shrink=self.line_search_shrink,
            max_backtracks=self.line_search_max_backtracks,
            accept_ratio=self.line_search_accept_ratio,
        )
        return PolicyUpdate(
            point=result.point,
            step_size=result.fraction * scale,
            predicted_gain=result.fraction * predicted_gain,
            gain=result.gain,
            mean_kl=result.constraint,
            n_backtracks=result.n_backtracks,
            accepted=result.accepted,
        )
