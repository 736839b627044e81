"""Proximal policy optimisation with a penalty on the KL divergence."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance

from agents.kl_penalty import (
    KL_COEF_RANGE,
    Coefficients,
    Learner,
    Losses,
    PenalizedBatch,
    adapted_kl_coef,
    make_learner,
)
from agents.on_policy import OnPolicyAgent

__all__ = ["PPOKL"]


class PPOKL(OnPolicyAgent):
    """PPO with a KL penalty: several epochs of minibatch steps on a surrogate that holds them back.

    Each update minimises, by ``n_epochs`` passes of minibatch steps of the policy's optimiser,

    ``−E[π_θ/π_old · A] + β · E[KL(π_old ‖ π_θ)] + vf_coef · E[(V − return)²] − ent_coef · H``

    with ``β = kl_coef``. Then ``β`` is adapted to the KL divergence ``d`` that the update has led
    to: halved if ``d < target_kl / 1.5``, doubled if ``d > 1.5 · target_kl``. With
    ``target_kl=None`` it stays as it is. Nothing is clipped and, unless ``stop_kl`` is given,
    nothing stopped early.

    Deviations from the paper: an adaptive ``β`` stays within 1e-4 … 1e4, because after a long
    stretch of small steps an unbounded one would need as many updates to grow again; the critic is
    part of the loss, as in the paper's eq. 9, though its MuJoCo experiments share no parameters.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class.
    :param env: environment or its Gymnasium id.
    :param learning_rate: of the policy's optimiser; a float or a function of the remaining
        progress.
    :param batch_size: samples per minibatch.
    :param n_epochs: passes over a batch.
    :param target_kl: ``d_targ``, the mean ``KL(π_old ‖ π_new)`` in nats that ``β`` is adapted to;
        a float or a function of the remaining progress. None keeps ``β`` fixed.
    :param kl_coef: ``β`` of the first update; :attr:`kl_coef` is always that of the next one.
    :param ent_coef: weight of the entropy bonus.
    :param vf_coef: weight of the critic's loss.
    :param max_grad_norm: longer gradients are shortened to this.
    :param stop_kl: leave out the remaining epochs of an update once the minibatches of one showed
        a larger mean KL divergence; None never does.
    :param kwargs: as in :class:`~agents.on_policy.OnPolicyAgent`.
    :raises ConfigError: a parameter is out of its range.

    Ref: Schulman et al. 2017, arXiv:1707.06347, section 4 and eq. 8.

    >>> agent = PPOKL("MlpPolicy", "CartPole-v1", n_steps=64, target_kl=0.02)
    """

    #: What ``zoo.train --resume`` goes on with, besides SB3's own counters.
    resumable_attributes: ClassVar[tuple[str, ...]] = ("kl_coef", "n_skipped_steps")

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        learning_rate: float | Schedule = 3e-4,
        batch_size: int = 64,
        n_epochs: int = 10,
        target_kl: float | Schedule | None = 0.01,
        kl_coef: float = 1.0,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        stop_kl: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy, env, learning_rate=learning_rate, _init_setup_model=False, **kwargs
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.target_kl = target_kl
        self.kl_coef = kl_coef
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.stop_kl = stop_kl
        self.n_skipped_steps = 0
        if _init_setup_model:
            self._setup_model()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("batch_size", "n_epochs"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("kl_coef", "vf_coef"):
            self._check(name, 0.0 <= getattr(self, name) < math.inf, "finite and not negative")
        self._check("ent_coef", math.isfinite(self.ent_coef), "finite")
        self._check("max_grad_norm", self.max_grad_norm > 0.0, "positive; 0.5 is customary")
        if self.stop_kl is not None:
            self._check("stop_kl", self.stop_kl > 0.0, "positive, or None to stop nothing early")
        if self.target_kl is None:
            return
        if not callable(self.target_kl):
            fits = 0.0 < self.target_kl < math.inf
            self._check("target_kl", fits, "positive, or None for a fixed kl_coef")
        lowest, highest = KL_COEF_RANGE
        fits = lowest <= self.kl_coef <= highest
        rule = f"{lowest:g} … {highest:g} to be adapted; pass target_kl=None to keep it fixed"
        self._check("kl_coef", fits, rule)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._target_kl_schedule = None if self.target_kl is None else FloatSchedule(self.target_kl)

    def train(self) -> None:
        """Update policy and critic with the rollout that was just collected."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        samples = next(iter(self.rollout_buffer.get(batch_size=None)))
        batch = PenalizedBatch(
            samples.observations,
            self._actions(samples),
            samples.old_log_prob,
            self._advantages(samples),
            samples.returns,
        )
        learner = make_learner(self.policy, batch)
        losses = self._take_epochs(learner, len(batch.returns))
        mean_kl = learner.finish()
        self._log_update(losses, mean_kl)
        if self._target_kl_schedule is not None:
            target_kl = self._target_kl_schedule(self._current_progress_remaining)
            self.kl_coef = adapted_kl_coef(self.kl_coef, mean_kl, target_kl)
            self.logger.record("train/target_kl", target_kl)

    def _take_epochs(self, learner: Learner, n_samples: int) -> list[Losses]:
        """Pass over the batch ``n_epochs`` times; return the losses of the last pass's steps."""
        coefficients = Coefficients(kl=self.kl_coef, entropy=self.ent_coef, value=self.vf_coef)
        losses: list[Losses] = []
        for _ in range(self.n_epochs):
            losses = []
            # From NumPy's generator, as SB3's own buffer draws its minibatches.
            order = torch.from_numpy(np.random.permutation(n_samples)).to(self.device)
            for index in torch.split(order, self.batch_size):
                step = learner.step(index, coefficients, self.max_grad_norm)
                if step is None:
                    self.n_skipped_steps += 1
                else:
                    losses.append(step)
            self._n_updates += 1
            if self.stop_kl is not None and _mean([each.mean_kl for each in losses]) > self.stop_kl:
                break
        return losses

    def _log_update(self, losses: list[Losses], mean_kl: float) -> None:
        buffer = self.rollout_buffer
        self.logger.record("train/mean_kl", mean_kl)
        self.logger.record("train/kl_coef", self.kl_coef)
        self.logger.record("train/surrogate", _mean([each.surrogate for each in losses]))
        self.logger.record("train/value_loss", _mean([each.value for each in losses]))
        self.logger.record("train/entropy", _mean([each.entropy for each in losses]))
        self.logger.record("train/loss", _mean([each.total for each in losses]))
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/skipped_steps", self.n_skipped_steps)
        log_std = getattr(self.policy, "log_std", None)
        if isinstance(log_std, torch.Tensor):
            self.logger.record("train/std", float(log_std.detach().exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
