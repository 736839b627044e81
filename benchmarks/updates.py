"""One Fisher product, one conjugate-gradient solve, one whole policy update."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch
from sb3_contrib.common.utils import conjugate_gradient_solver
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.logger import Logger

import agents
from agents.functional.conjugate_gradient import conjugate_gradient
from agents.surrogate import Surrogate
from benchmarks.measure import per_call_seconds

__all__ = ["NETWORKS", "compare_updates"]

NETWORKS = {"64-64": [64, 64], "256-256": [256, 256], "400-300": [400, 300]}
N_OBS, N_ACTIONS = 17, 6  # of Walker2d
CG_ITERS = 10


class _Shape(gym.Env[np.ndarray, np.ndarray]):
    """An environment that only has spaces."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (N_OBS,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (N_ACTIONS,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**kwargs)
        return np.zeros(N_OBS, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(N_OBS, np.float32), 0.0, False, False, {}


def compare_updates(n_samples: int, network: str) -> dict[str, float]:
    """Return seconds per call, by what and by whom."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arch = NETWORKS[network]
    settings: dict[str, Any] = {
        "n_steps": n_samples,
        "batch_size": n_samples,
        "n_critic_updates": 1,
        "device": "cpu",
        "policy_kwargs": {"net_arch": arch},
    }
    ours = agents.TRPO("MlpPolicy", _Shape(), cg_max_iters=CG_ITERS, cg_rtol=0.0, **settings)
    peer = sb3_contrib.TRPO("MlpPolicy", _Shape(), cg_max_steps=CG_ITERS, **settings)
    peer.policy.load_state_dict(ours.policy.state_dict())
    seconds = _fisher_products(ours, peer, n_samples)
    for name, model in (("ours", ours), ("sb3-contrib", peer)):
        seconds[f"whole update, {name}"] = per_call_seconds(_whole_update(model, n_samples))
    return seconds


def _fisher_products(ours: Any, peer: Any, n_samples: int) -> dict[str, float]:
    observations = torch.randn(n_samples, N_OBS)
    actions = torch.randn(n_samples, N_ACTIONS)
    surrogate = Surrogate(ours.policy, observations, actions, torch.randn(n_samples))
    by_hand = surrogate.fisher_vector_product(0.1)
    double_backprop, peer_product, rebuild = _peer_products(peer, observations)
    vector = surrogate.gradient()
    # sb3-contrib averages the KL over action dimensions, too: its Fisher matrix is ours divided by
    # their number, before the same damping.
    fisher, peer_fisher = by_hand(vector) - 0.1 * vector, peer_product(vector) - 0.1 * vector
    if not torch.allclose(fisher, N_ACTIONS * peer_fisher, rtol=1e-3, atol=1e-5):
        raise RuntimeError("the compared Fisher products differ")
    return {
        "Fisher product, ours": per_call_seconds(lambda: by_hand(vector)),
        "Fisher product, sb3-contrib": per_call_seconds(lambda: peer_product(vector)),
        "Fisher product, rebuilt graph": per_call_seconds(lambda: rebuild(vector)),
        "CG solve, ours": per_call_seconds(
            lambda: conjugate_gradient(by_hand, vector, max_iters=CG_ITERS, rtol=0.0)
        ),
        "CG solve, sb3-contrib": per_call_seconds(
            lambda: conjugate_gradient_solver(double_backprop, vector, max_iter=CG_ITERS)
        ),
    }


def _peer_products(
    peer: Any, observations: torch.Tensor
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return sb3-contrib's product on its retained graph, and the tutorials' rebuilt one."""

    def kl() -> torch.Tensor:
        with torch.no_grad():
            old = copy.copy(peer.policy.get_distribution(observations))
        return kl_divergence(peer.policy.get_distribution(observations), old).mean()

    graph = kl()
    parameters, _, grad_kl, _ = peer._compute_actor_grad(graph, graph * 1.0)

    def product(vector: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = peer.hessian_vector_product(parameters, grad_kl, vector)
        return result

    def rebuild(vector: torch.Tensor) -> torch.Tensor:
        gradients = torch.autograd.grad(kl(), parameters, create_graph=True)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        rows = torch.autograd.grad(flat @ vector, parameters)
        return torch.cat([row.reshape(-1) for row in rows]) + 0.1 * vector

    return product, product, rebuild


def _whole_update(model: Any, n_samples: int) -> Callable[[], None]:
    """Return a call of ``train()`` on a full buffer of random samples."""
    rng = np.random.default_rng(0)
    model.set_logger(Logger(None, []))
    buffer = model.rollout_buffer

    def update() -> None:
        buffer.reset()
        buffer.observations[:] = rng.standard_normal(buffer.observations.shape)
        buffer.actions[:] = rng.standard_normal(buffer.actions.shape)
        buffer.advantages[:] = rng.standard_normal(buffer.advantages.shape)
        buffer.returns[:] = rng.standard_normal(buffer.returns.shape)
        buffer.full = True
        model.train()

    return update
