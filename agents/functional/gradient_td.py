"""GTD(λ): temporal-difference learning that cannot diverge off-policy.

Plain TD(λ) follows ``E[δ_t e_t]``, which off-policy is no gradient of anything and can drive the
weights to infinity (Baird's counterexample). GTD(λ) descends the mean squared *projected* Bellman
error ``E[δe]ᵀ E[xxᵀ]⁻¹ E[δe]``, whose minimum is TD(λ)'s fixed point where that exists. A second
weight vector ``w ≈ E[xxᵀ]⁻¹ E[δe]`` makes its gradient cheap.

Two forms of the same update: :func:`gtd_step` is the paper's, one transition at a time and linear;
:func:`gtd_weights` sums it over whole trajectories for any differentiable critic, at fixed
parameters. For a linear critic both give the same sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["GTDState", "GTDWeights", "gtd_step", "gtd_weights", "secondary_traces"]


class GTDState(NamedTuple):
    """What the linear algorithm carries from step to step."""

    weights: torch.Tensor
    """``v``, shape ``(n,)``: ``V(s) = vᵀx(s)``."""
    secondary_weights: torch.Tensor
    """``w``, shape ``(n,)``."""
    trace: torch.Tensor
    """``e`` of the transition before, zero where an episode starts, shape ``(n,)``."""

    @classmethod
    def zeros(cls, n_features: int, dtype: torch.dtype = torch.float64) -> GTDState:
        """Return the state that the paper starts from."""
        return cls(*(torch.zeros(n_features, dtype=dtype) for _ in range(3)))


def gtd_step(
    state: GTDState,
    features: torch.Tensor,
    reward: float,
    next_features: torch.Tensor,
    ratio: float,
    *,
    gamma: float,
    gae_lambda: float,
    step_size: float,
    secondary_step_size: float,
    terminated: bool = False,
    truncated: bool = False,
) -> GTDState:
    """Return the state after one transition of linear GTD(λ).

    ::

        δ = r + γ vᵀx' − vᵀx
        e ← ρ (x + γλ e)
        v ← v + α_v [δ e − γ (1 − λ) (wᵀe) x']
        w ← w + α_w [δ e − (wᵀx) x]

    At a real end γ is 0 for the next state. A time limit still bootstraps from it, but no trace
    crosses it: there λ is 0, in the correction ``γ (1 − λ)``, too. With ``α_w = 0`` and ``w = 0``
    this is off-policy TD(λ).

    :param state: from the step before; its trace is zero where an episode starts.
    :param features: ``x(s)``, shape ``(n,)``.
    :param reward: ``r``.
    :param next_features: ``x(s')``, shape ``(n,)``; ignored where ``terminated``.
    :param ratio: ``ρ = π(a|s) / b(a|s)``.
    :param gamma: discount γ in [0, 1].
    :param gae_lambda: trace decay λ in [0, 1].
    :param step_size: ``α_v``.
    :param secondary_step_size: ``α_w``.
    :param terminated: the episode really ended with this transition.
    :param truncated: it was cut off after this transition.
    :return: with a trace of zero after an end.

    Ref: Degris et al. 2012, arXiv:1205.4839, Algorithm 1; Maei 2011, *Gradient
    Temporal-Difference Learning Algorithms*, PhD thesis, University of Alberta.
    """
    weights, secondary, old_trace = state
    next_gamma = 0.0 if terminated else gamma
    next_features = torch.zeros_like(features) if terminated else next_features
    next_lambda = 0.0 if truncated else gae_lambda
    error = reward + next_gamma * (weights @ next_features) - weights @ features
    trace = ratio * (features + gamma * gae_lambda * old_trace)
    correction = next_gamma * (1.0 - next_lambda) * (secondary @ trace) * next_features
    return GTDState(
        weights + step_size * (error * trace - correction),
        secondary + secondary_step_size * (error * trace - (secondary @ features) * features),
        torch.zeros_like(trace) if terminated or truncated else trace,
    )


class GTDWeights(NamedTuple):
    """GTD(λ) over trajectories as weights on gradients; all of shape ``(n_steps, n_envs)``."""

    on_values: torch.Tensor
    """``c_t``: the critic ascends ``Σ c_t ∇V(s_t) + Σ c'_t ∇V(s_{t+1})``."""
    on_next_values: torch.Tensor
    """``c'_t``, the gradient correction; zero where ``s_{t+1}`` ended the episode."""
    secondary_targets: torch.Tensor
    """``ρ_t A_t``, to which ``h(s_t) = wᵀx(s_t)`` is fitted by least squares."""


def secondary_traces(
    secondary_values: torch.Tensor,
    ratios: torch.Tensor,
    ends: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Return ``z_t = wᵀe_t`` for each step: the trace of the scalars ``h(s_t)``.

    ``e_t = ρ_t (x_t + γλ e_{t−1})`` is linear in the features, so that its product with ``w``
    obeys ``z_t = ρ_t (h(s_t) + γλ z_{t−1})`` and no vector trace is needed.

    :param secondary_values: ``h(s_t) = wᵀx(s_t)``, shape ``(n_steps, n_envs)``.
    :param ratios: ``ρ_t``, same shape.
    :param ends: bool, same shape: an episode ended or was cut off after step ``t``.
    :param gamma: discount γ in [0, 1].
    :param gae_lambda: trace decay λ in [0, 1].
    :return: shape ``(n_steps, n_envs)``.
    """
    traces = torch.empty_like(secondary_values)
    carried = torch.zeros_like(secondary_values[0])
    for step in range(len(secondary_values)):
        trace = ratios[step] * (secondary_values[step] + gamma * gae_lambda * carried)
        traces[step] = trace
        carried = torch.where(ends[step], torch.zeros_like(trace), trace)
    return traces


def gtd_weights(
    advantages: torch.Tensor,
    secondary_values: torch.Tensor,
    ratios: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> GTDWeights:
    """Return the sum of GTD(λ)'s updates over trajectories, as weights on gradients of ``V``.

    By the forward view ``Σ δ_t e_t = Σ ρ_t A_t ∇V(s_t)`` and with ``z_t = wᵀe_t`` the critic
    ascends::

        Σ_t ρ_t A_t ∇V(s_t) − Σ_t γ (1 − λ_{t+1}) z_t ∇V(s_{t+1})

    ``λ_{t+1}`` is 0 where a trajectory is cut off after step ``t`` (by a time limit, or because
    the data end), since no trace goes on from there; after a real end there is no ``s_{t+1}``.

    For a critic that is linear in fixed features this is Algorithm 1 of the paper with parameters
    held over the batch. For a network, ``h`` is a linear function of its last hidden layer: the
    gradient of the *generalised* projected Bellman error, without the Hessian term that nonlinear
    GTD (Maei et al. 2009) needs because it projects on the tangent space at the present weights.

    :param advantages: from :func:`~agents.functional.off_policy.off_policy_advantages`, shape
        ``(n_steps, n_envs)``.
    :param secondary_values: ``h(s_t) = wᵀx(s_t)``, same shape.
    :param ratios: ``ρ_t``, same shape.
    :param terminated: bool, same shape: the episode really ended after step ``t``.
    :param truncated: bool, same shape: it was cut off after step ``t``.
    :param gamma: discount γ in [0, 1].
    :param gae_lambda: trace decay λ in [0, 1].

    Ref: Patterson et al. 2022, *A Generalized Projected Bellman Error for Off-policy Value
    Estimation in Reinforcement Learning*, JMLR 23(145).
    """
    ends = terminated | truncated
    ends[-1] = True
    traces = secondary_traces(secondary_values, ratios, ends, gamma=gamma, gae_lambda=gae_lambda)
    bootstrapped = torch.where(ends, traces, (1.0 - gae_lambda) * traces)
    corrections = torch.where(terminated, torch.zeros_like(traces), gamma * bootstrapped)
    targets = ratios * advantages
    return GTDWeights(targets, -corrections, targets)
