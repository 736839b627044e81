"""A2C: Stable-Baselines3's own losses, with fast rollouts and gradients by hand."""

from __future__ import annotations

import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance

from agents.functional.fisher import write_flat
from agents.gaussian_mlp import GaussianMLP, find_gaussian_mlp
from agents.rollout_batch import RolloutBatch, whole_batch
from agents.rollouts import FastRollouts

__all__ = ["A2C"]


class A2C(FastRollouts, stable_baselines3.A2C):
    """Stable-Baselines3's A2C, faster on the common Gaussian MLP.

    Parameters, losses, logged values and saved files are those of ``stable_baselines3.A2C``; the
    same seed gives the same updates up to rounding. Any other policy takes SB3's own update.

    Ref: Mnih et al. 2016, arXiv:1602.01783 (its synchronous form).
    """

    def train(self) -> None:
        """Update policy and critic with the rollout that was just collected."""
        networks = find_gaussian_mlp(self.policy)
        if networks is None or type(self.rollout_buffer) is not RolloutBuffer:
            super().train()
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        with torch.no_grad():
            self._step(networks, whole_batch(self.rollout_buffer, networks))
        self._n_updates += 1
        buffer = self.rollout_buffer
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record(
            "train/explained_variance",
            explained_variance(buffer.values.flatten(), buffer.returns.flatten()),
        )
        self.logger.record("train/std", float(self.policy.log_std.detach().exp().mean()))

    def _step(self, networks: GaussianMLP, batch: RolloutBatch) -> None:
        """Take one step along the gradient of ``L_π + vf_coef · L_V − ent_coef · H``."""
        advantages = batch.advantages
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        sweep = networks.sweep(networks.parameters, batch.inputs, batch.actions)
        n_samples = len(advantages)
        errors = sweep.values - batch.returns
        gradient = sweep.gradient(
            advantages / -n_samples, errors * (2.0 * self.vf_coef / n_samples), -self.ent_coef
        )
        norm = float(torch.linalg.vector_norm(gradient))
        gradient.mul_(min(1.0, self.max_grad_norm / (norm + 1e-6)))
        parameters = networks.parameters
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        write_flat(gradient, [p.grad for p in parameters if p.grad is not None])
        self.policy.optimizer.step()
        self.logger.record("train/entropy_loss", -sweep.entropy)
        self.logger.record("train/policy_loss", -float((advantages * sweep.log_prob).mean()))
        self.logger.record("train/value_loss", float(errors @ errors) / n_samples)
