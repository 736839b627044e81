"""PPO: Stable-Baselines3's own losses, with fast rollouts and gradients by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance

from agents.flat_adam import FlatAdam
from agents.gaussian_mlp import GaussianMLP, GaussianSweep, find_gaussian_mlp
from agents.rollout_batch import RolloutBatch, whole_batch
from agents.rollouts import FastRollouts

__all__ = ["PPO"]


class PPO(FastRollouts, stable_baselines3.PPO):
    """Stable-Baselines3's PPO, several times faster on the common Gaussian MLP.

    Parameters, losses, minibatches, logged values and saved files are those of
    ``stable_baselines3.PPO``; the same seed gives the same updates up to rounding. Any other policy
    (CNN, gSDE, discrete actions, another optimiser) takes SB3's own update.

    Ref: Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9.
    """

    def train(self) -> None:
        """Update policy and critic with the rollout that was just collected."""
        networks = find_gaussian_mlp(self.policy)
        optimizer = self.policy.optimizer
        if (
            networks is None
            or type(self.rollout_buffer) is not RolloutBuffer
            or not FlatAdam.can_take_over(optimizer, networks.parameters)
        ):
            super().train()
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(optimizer)
        adam = FlatAdam(optimizer, networks.parameters)
        metrics: dict[str, list[float]] = defaultdict(list)
        with torch.no_grad():
            batch = whole_batch(self.rollout_buffer, networks)
            for _ in range(self.n_epochs):
                complete = self._epoch(networks, adam, batch, metrics)
                self._n_updates += 1
                if not complete:
                    break
        adam.write_back()
        self._log_update(metrics)

    def _epoch(
        self,
        networks: GaussianMLP,
        adam: FlatAdam,
        batch: RolloutBatch,
        metrics: dict[str, list[float]],
    ) -> bool:
        """Step once per minibatch; returns False if ``target_kl`` ended the update."""
        metrics["approx_kl"].clear()  # SB3 logs the last epoch's
        for part in _minibatches(batch, self.batch_size):
            sweep = networks.sweep(adam.views, part.inputs, part.actions)
            gradient = self._loss_gradient(sweep, part, metrics)
            kl = metrics["approx_kl"][-1]
            if self.target_kl is not None and kl > 1.5 * self.target_kl:
                return False
            norm = float(torch.linalg.vector_norm(gradient))
            gradient.mul_(min(1.0, self.max_grad_norm / (norm + 1e-6)))
            adam.step(gradient)
        return True

    def _loss_gradient(
        self, sweep: GaussianSweep, part: RolloutBatch, metrics: dict[str, list[float]]
    ) -> torch.Tensor:
        """Return the gradient of ``L_clip + vf_coef · L_V − ent_coef · H`` for a minibatch."""
        n_samples = len(part.advantages)
        advantages = part.advantages
        if self.normalize_advantage and n_samples > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        clip_range = self._clip_range()
        log_ratio = sweep.log_prob - part.old_log_prob
        ratio = torch.exp(log_ratio)
        unclipped = advantages * ratio
        clipped = advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
        # Where the clipped term is the smaller one it is constant and has no gradient.
        log_prob_weights = torch.where(unclipped <= clipped, unclipped, 0.0).div_(-n_samples)
        errors, value_weights = self._value_errors(sweep.values, part)
        policy_loss = -float(torch.minimum(unclipped, clipped).mean())
        value_loss = float(errors @ errors) / n_samples
        metrics["policy_gradient_loss"].append(policy_loss)
        metrics["value_loss"].append(value_loss)
        metrics["entropy_loss"].append(-sweep.entropy)
        metrics["approx_kl"].append(float((ratio - 1.0 - log_ratio).mean()))
        metrics["clip_fraction"].append(float(((ratio - 1.0).abs_() > clip_range).float().mean()))
        metrics["loss"].append(
            policy_loss - self.ent_coef * sweep.entropy + self.vf_coef * value_loss
        )
        return sweep.gradient(log_prob_weights, value_weights, -self.ent_coef)

    def _value_errors(
        self, values: torch.Tensor, part: RolloutBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``V − return`` and the derivative of ``vf_coef · L_V`` by each value."""
        clip_range_vf = self._clip_range_vf()
        if clip_range_vf is None:
            errors = values - part.returns
            return errors, errors * (2.0 * self.vf_coef / len(errors))
        change = values - part.old_values
        errors = part.old_values + change.clamp(-clip_range_vf, clip_range_vf) - part.returns
        inside = (change.abs() <= clip_range_vf).float()
        return errors, errors * inside * (2.0 * self.vf_coef / len(errors))

    def _clip_range(self) -> float:
        return float(self.clip_range(self._current_progress_remaining))  # type: ignore[operator]

    def _clip_range_vf(self) -> float | None:
        if self.clip_range_vf is None:
            return None
        return float(self.clip_range_vf(self._current_progress_remaining))  # type: ignore[operator]

    def _log_update(self, metrics: dict[str, list[float]]) -> None:
        buffer = self.rollout_buffer
        loss = metrics.pop("loss")
        for name, values in metrics.items():
            self.logger.record(f"train/{name}", float(np.mean(values)))
        self.logger.record("train/loss", loss[-1])
        self.logger.record(
            "train/explained_variance",
            explained_variance(buffer.values.flatten(), buffer.returns.flatten()),
        )
        self.logger.record("train/std", float(self.policy.log_std.detach().exp().mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", self._clip_range())
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self._clip_range_vf())


def _minibatches(batch: RolloutBatch, batch_size: int) -> Iterator[RolloutBatch]:
    """Yield minibatches in SB3's random order, from the same generator."""
    # SB3's buffer draws from numpy's global generator; so do we, to take the same minibatches.
    permutation = torch.from_numpy(np.random.permutation(len(batch.returns)))
    for index in torch.split(permutation.to(batch.returns.device), batch_size):
        yield batch.take(index)
