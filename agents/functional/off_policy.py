"""Learning about one policy from what another one did: ratios, advantages and emphasis.

The data come from a *behaviour* policy ``b``, the learning is about a *target* policy ``π``, and
``ρ_t = π(a_t|s_t) / b(a_t|s_t)`` makes up for the difference. With ``b = π`` every ratio is 1 and
everything here becomes its on-policy counterpart.
"""

from __future__ import annotations

import torch

__all__ = [
    "effective_sample_size",
    "emphatic_weights",
    "importance_ratios",
    "off_policy_advantages",
]


def importance_ratios(
    log_probs: torch.Tensor, behavior_log_probs: torch.Tensor, *, max_ratio: float | None = None
) -> torch.Tensor:
    """Return ``ρ = π(a|s) / b(a|s)``.

    :param log_probs: ``log π(a|s)``, any shape.
    :param behavior_log_probs: ``log b(a|s)``, same shape.
    :param max_ratio: ratios above it are cut down to it, which lowers the variance and biases
        everything towards the behaviour policy (``ρ̄ = c̄`` of V-trace, Espeholt et al. 2018,
        arXiv:1802.01561, eq. 1); None leaves them as they are.
    :return: same shape.

    >>> importance_ratios(torch.tensor([0.5, 0.1]).log(), torch.tensor([0.25, 0.2]).log())
    tensor([2.0000, 0.5000])
    """
    ratios = torch.exp(log_probs - behavior_log_probs)
    return ratios if max_ratio is None else ratios.clamp(max=max_ratio)


def effective_sample_size(ratios: torch.Tensor) -> float:
    """Return ``(Σρ)² / (N Σρ²)``, the share of the samples that counts; 1 on-policy.

    >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    squares = float(ratios.square().sum())
    return float(ratios.sum()) ** 2 / (ratios.numel() * squares) if squares > 0.0 else 0.0


def off_policy_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    ratios: torch.Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Return the off-policy λ-advantages ``A_t = δ_t + γλ ρ_{t+1} A_{t+1}``.

    ``δ_t = r_t + γ V(s_{t+1}) − V(s_t)`` as in
    :func:`~agents.functional.advantages.generalized_advantages`, which is the case ``ρ ≡ 1``. The
    first action's own ratio is left out: ``A_t`` estimates the target policy's advantage of
    ``a_t`` whoever chose it, and ``E_b[A_t | s_t, a_t] = Q_π(s_t, a_t) − V(s_t)`` for λ = 1
    whatever ``V`` is. Along trajectories ``Σ_t ρ_t A_t x_t = Σ_t δ_t e_t`` with the eligibility
    trace ``e_t = ρ_t (x_t + γλ e_{t−1})``: the forward view of what Off-PAC's Algorithm 1 does
    step by step, for ``x_t`` the critic's features or the actor's score ``∇log π``.

    :param rewards: ``r_t``, shape ``(n_steps, n_envs)``.
    :param values: ``V(s_t)``, same shape.
    :param next_values: ``V(s_{t+1})`` of the state that followed ``s_t`` *before* any reset, same
        shape; ignored where ``terminated``.
    :param terminated: bool, same shape: the episode really ended after step ``t``.
    :param truncated: bool, same shape: it was cut off after step ``t``.
    :param ratios: ``ρ_t``, same shape.
    :param gamma: discount γ in [0, 1].
    :param gae_lambda: trace decay λ in [0, 1].
    :return: shape ``(n_steps, n_envs)``.

    Ref: Degris et al. 2012, arXiv:1205.4839, the off-policy λ-return. Without its term
    ``γλ (ρ_{t+1} − 1) V(s_{t+1})``, whose expectation is zero and which Algorithm 1 of the paper
    leaves out, too.
    """
    zero = rewards.new_zeros(())  # chosen, not multiplied by: 0 · NaN would be NaN
    residuals = rewards + gamma * torch.where(terminated, zero, next_values) - values
    ends = terminated | truncated
    advantages = torch.empty_like(residuals)
    following = torch.zeros_like(residuals[0])
    for step in range(len(residuals) - 1, -1, -1):
        advantage = residuals[step] + gamma * gae_lambda * torch.where(ends[step], zero, following)
        advantages[step] = advantage
        following = ratios[step] * advantage
    return advantages


def emphatic_weights(
    ratios: torch.Tensor, ends: torch.Tensor, *, gamma: float, emphasis: float
) -> torch.Tensor:
    """Return how much each state's update counts: ``M_t = 1 − η + η F_t``.

    ``F_t = 1 + γ ρ_{t−1} F_{t−1}`` from ``F = 1`` in the first state of an episode. η = 0 weighs
    all states that the behaviour policy visits alike (Off-PAC). η = 1 adds what a change of the
    policy does to the states that follow: ``E_b[Σ_t M_t ρ_t A_t ∇log π]`` is then the gradient of
    ``Σ_s d_b(s) V_π(s)``, which Off-PAC only approximates, at the price of products of ratios.

    :param ratios: ``ρ_t``, shape ``(n_steps, n_envs)``.
    :param ends: bool, same shape: an episode ended or was cut off after step ``t``.
    :param gamma: discount γ in [0, 1].
    :param emphasis: η in [0, 1].
    :return: ``M_t``, shape ``(n_steps, n_envs)``.

    Ref: Imani et al. 2018, *An Off-policy Policy Gradient Theorem Using Emphatic Weightings*,
    NeurIPS 31 (their ``λ_a`` is η here), with an interest of 1 in every state.
    """
    if emphasis == 0.0:
        return torch.ones_like(ratios)
    weights = torch.empty_like(ratios)
    follow_on = torch.ones_like(ratios[0])
    for step in range(len(ratios)):
        weights[step] = 1.0 - emphasis + emphasis * follow_on
        carried = gamma * ratios[step] * follow_on
        follow_on = 1.0 + torch.where(ends[step], torch.zeros_like(carried), carried)
    return weights
